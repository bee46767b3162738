"""The whole of what Django reads about the client, for one peer, one trust and some headers."""

import io
import random
from ipaddress import ip_network

import pytest
from django.core.handlers.wsgi import WSGIRequest

from django_prodserve.config.parse_errors import ParseError
from django_prodserve.config.trust import CLIENT_HEADERS, MAX_CHAIN, PRESETS, parse_trust, parse_witness
from django_prodserve.middleware.proxy_headers import ProxyHeadersMiddleware

CLIENT = "203.0.113.9"
FORGED = "198.51.100.66"
NGINX = "127.0.0.1"
LAN = "10.0.0.7"


def an_environ(peer=CLIENT, scheme="http", **headers):
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/page",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "0.0.0.0",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": "54321",
        "HTTP_HOST": "example.com",
        "HTTP_USER_AGENT": "tests",
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(),
        **{f"HTTP_{name}": value for name, value in headers.items()},
    }


def through(trust, environ, **named):
    """Return the environ that the application receives."""
    seen = []

    def application(environ, start_response):
        seen.append(environ)
        return [b"answer"]

    assert ProxyHeadersMiddleware(application, trust, **named)(environ, None) == [b"answer"]
    return seen[0]


def request(trust, environ):
    return WSGIRequest(through(trust, environ))


def headers_of(environ):
    plain = {"HTTP_HOST", "HTTP_USER_AGENT"}
    return {
        name.removeprefix("HTTP_"): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and name not in plain
    }


@pytest.fixture(autouse=True)
def django_behind_a_proxy(settings):
    settings.ALLOWED_HOSTS = ["*"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.USE_X_FORWARDED_HOST = True


loopback = parse_trust(["loopback"])
private = parse_trust(["private"])
nobody = parse_trust(["none"])
everyone = parse_trust(["*"])


def case(name, peer, trust, sent, *, address, seen, secure=False, host="example.com"):
    return pytest.param(peer, trust, sent, address, seen, secure, host, id=name)


@pytest.mark.parametrize(
    ("peer", "trust", "sent", "address", "seen", "secure", "host"),
    [
        # A stranger says what it likes; nothing arrives.
        case("no headers", CLIENT, loopback, {}, address=CLIENT, seen={}),
        case(
            "a stranger forges all the usual headers",
            CLIENT,
            loopback,
            {
                "X_FORWARDED_FOR": FORGED,
                "X_FORWARDED_PROTO": "https",
                "X_FORWARDED_HOST": "evil.example",
                "X_FORWARDED_PORT": "443",
                "X_FORWARDED_SSL": "on",
                "X_FORWARDED_ANYTHING": "x",
                "FORWARDED": f"for={FORGED};proto=https",
                "X_REAL_IP": FORGED,
                "CF_CONNECTING_IP": FORGED,
                "REMOTE_USER": "root",
                "REMOTE_ADDR": FORGED,
                "PROXY": "http://evil.example",
                "SCRIPT_NAME": "/evil",
                "PATH_INFO": "/evil",
            },
            address=CLIENT,
            seen={},
        ),
        case(
            "a stranger on a network that is trusted by nobody",
            LAN,
            nobody,
            {"X_FORWARDED_FOR": FORGED},
            address=LAN,
            seen={},
        ),
        case(
            "an unrelated header is left alone",
            CLIENT,
            loopback,
            {"X_REQUEST_ID": "7", "AUTHORIZATION": "Bearer x", "PROXY_AUTHORIZATION": "y"},
            address=CLIENT,
            seen={"X_REQUEST_ID": "7", "AUTHORIZATION": "Bearer x", "PROXY_AUTHORIZATION": "y"},
        ),
        # One proxy that appends: nginx with $proxy_add_x_forwarded_for.
        case(
            "the proxy names the client",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": CLIENT, "X_FORWARDED_PROTO": "https"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT, "X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        case(
            "what the client wrote before it is cut away",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": f"127.0.0.1, {FORGED}, {CLIENT}"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT},
        ),
        case(
            "several headers arrive joined without a space",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": f"{FORGED},{CLIENT}"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT},
        ),
        case(
            "proxies on trusted networks are skipped, and kept for packages that count them",
            NGINX,
            private,
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}, 10.1.1.1, 192.168.3.4"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 10.1.1.1, 192.168.3.4"},
        ),
        case(
            "a client inside our own network",
            NGINX,
            private,
            {"X_FORWARDED_FOR": "10.1.1.1"},
            address="10.1.1.1",
            seen={"X_FORWARDED_FOR": "10.1.1.1"},
        ),
        case(
            "stated hops decide for networks as well",
            NGINX,
            parse_trust(["loopback"], hops=2),
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}, 192.0.2.1"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 192.0.2.1"},
        ),
        # Everyone is trusted: a platform's router is the only way in.
        case(
            "everyone trusted takes the right-most, never the left-most",
            LAN,
            everyone,
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}", "X_FORWARDED_PROTO": "https"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT, "X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        case(
            "two hops: a router that appends the client and itself",
            LAN,
            parse_trust(["*"], hops=2),
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}, 2001:db8::1"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 2001:db8::1"},
        ),
        case(
            "fewer entries than hops: the left-most",
            LAN,
            parse_trust(["*"], hops=3),
            {"X_FORWARDED_FOR": f"{CLIENT}, 192.0.2.1"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 192.0.2.1"},
        ),
        # What an entry may look like.
        case(
            "an entry with a port",
            LAN,
            everyone,
            {"X_FORWARDED_FOR": f"{CLIENT}:5678"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT},
        ),
        case(
            "IPv6 in brackets with a port",
            LAN,
            everyone,
            {"X_FORWARDED_FOR": "[2001:DB8::9]:1234"},
            address="2001:db8::9",
            seen={"X_FORWARDED_FOR": "2001:db8::9"},
        ),
        case(
            "IPv6 in brackets",
            LAN,
            everyone,
            {"X_FORWARDED_FOR": "[2001:db8::9]"},
            address="2001:db8::9",
            seen={"X_FORWARDED_FOR": "2001:db8::9"},
        ),
        case(
            "IPv4 mapped into IPv6, with tabs and spaces",
            NGINX,
            private,
            {"X_FORWARDED_FOR": f"\t::ffff:{CLIENT} ,\t ::ffff:10.0.0.1 "},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 10.0.0.1"},
        ),
        case(
            "unknown is not an address: the peer is all we know",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": f"{FORGED}, unknown"},
            address=NGINX,
            seen={},
        ),
        case(
            "garbage before a trusted proxy: the nearest good entry to its right",
            NGINX,
            private,
            {"X_FORWARDED_FOR": f"{FORGED}, <script>, 10.0.0.1"},
            address="10.0.0.1",
            seen={"X_FORWARDED_FOR": "10.0.0.1"},
        ),
        case(
            "garbage at the stated hop: the nearest good entry to its right",
            LAN,
            parse_trust(["*"], hops=2),
            {"X_FORWARDED_FOR": f"{FORGED}, _hidden, 192.0.2.1"},
            address="192.0.2.1",
            seen={"X_FORWARDED_FOR": "192.0.2.1"},
        ),
        case(
            "a zone may hide any text: refused",
            LAN,
            everyone,
            {"X_FORWARDED_FOR": "fe80::1%<script>"},
            address=LAN,
            seen={},
        ),
        case("an empty header", NGINX, loopback, {"X_FORWARDED_FOR": ""}, address=NGINX, seen={}),
        # Who the peer is.
        case(
            "a peer on a dual-stack socket",
            "::ffff:127.0.0.1",
            loopback,
            {"X_FORWARDED_FOR": CLIENT},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT},
        ),
        case(
            "a stranger on a dual-stack socket keeps its spelling",
            f"::ffff:{CLIENT}",
            loopback,
            {"X_FORWARDED_FOR": FORGED},
            address=f"::ffff:{CLIENT}",
            seen={},
        ),
        case(
            "a link-local peer with its zone",
            "fe80::1%eth0",
            parse_trust(["fe80::/10"]),
            {"X_FORWARDED_FOR": CLIENT},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT},
        ),
        case(
            "a unix socket",
            "",
            loopback,
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}", "X_FORWARDED_PROTO": "https"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT, "X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        case(
            "a unix socket that is not trusted",
            "",
            parse_trust(["10.0.0.0/8"]),
            {"X_FORWARDED_FOR": FORGED, "X_FORWARDED_PROTO": "https"},
            address="",
            seen={},
        ),
        case(
            "a unix socket and no word about the client",
            "",
            loopback,
            {"X_REAL_IP": FORGED},
            address="",
            seen={},
        ),
        # The scheme.
        case(
            "http, said by the proxy",
            NGINX,
            loopback,
            {"X_FORWARDED_PROTO": "http"},
            address=NGINX,
            seen={"X_FORWARDED_PROTO": "http"},
        ),
        case(
            "letter case and websockets",
            NGINX,
            loopback,
            {"X_FORWARDED_PROTO": " WSS"},
            address=NGINX,
            seen={"X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        case(
            "an unknown scheme is dropped",
            NGINX,
            loopback,
            {"X_FORWARDED_PROTO": "gopher"},
            address=NGINX,
            seen={},
        ),
        case(
            "a scheme list: the client's own word stands to the left",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": f"{FORGED}, {CLIENT}", "X_FORWARDED_PROTO": "https, http"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT, "X_FORWARDED_PROTO": "http"},
        ),
        case(
            "a scheme list: the hop that faces the client decides, not the inner one",
            NGINX,
            private,
            {"X_FORWARDED_FOR": f"{CLIENT}, 10.0.0.1", "X_FORWARDED_PROTO": "https,http"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 10.0.0.1", "X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        case(
            "one scheme for two hops",
            LAN,
            parse_trust(["*"], hops=2),
            {"X_FORWARDED_FOR": f"{CLIENT}, 192.0.2.1", "X_FORWARDED_PROTO": "https"},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": f"{CLIENT}, 192.0.2.1", "X_FORWARDED_PROTO": "https"},
            secure=True,
        ),
        # Host and port.
        case(
            "a host list",
            NGINX,
            loopback,
            {"X_FORWARDED_HOST": "evil.example, shop.example", "X_FORWARDED_PORT": "1, 8443"},
            address=NGINX,
            seen={"X_FORWARDED_HOST": "shop.example", "X_FORWARDED_PORT": "8443"},
            host="shop.example",
        ),
        case(
            "a port that is none",
            NGINX,
            loopback,
            {"X_FORWARDED_PORT": "99999", "X_FORWARDED_HOST": ""},
            address=NGINX,
            seen={},
        ),
        # The rest, from a trusted proxy.
        case(
            "headers of vendors say what REMOTE_ADDR says",
            NGINX,
            loopback,
            {"X_FORWARDED_FOR": CLIENT, "X_REAL_IP": FORGED, "CF_CONNECTING_IP": FORGED},
            address=CLIENT,
            seen={"X_FORWARDED_FOR": CLIENT, "X_REAL_IP": CLIENT, "CF_CONNECTING_IP": CLIENT},
        ),
        case(
            "X-Real-IP alone is no witness",
            NGINX,
            loopback,
            {"X_REAL_IP": FORGED},
            address=NGINX,
            seen={"X_REAL_IP": NGINX},
        ),
        case(
            "never, not even from a trusted proxy",
            NGINX,
            loopback,
            {
                "PROXY": "http://evil.example",
                "FORWARDED": f"for={FORGED}",
                "X_FORWARDED": FORGED,
                "X_ORIGINAL_FORWARDED_FOR": FORGED,
                "SCRIPT_NAME": "/evil",
                "PATH_INFO": "/evil",
            },
            address=NGINX,
            seen={},
        ),
        case(
            "headers by agreement pass from a trusted proxy",
            NGINX,
            loopback,
            {"X_FORWARDED_PREFIX": "/app", "X_FORWARDED_SSL": "on", "REMOTE_USER": "ada"},
            address=NGINX,
            seen={"X_FORWARDED_PREFIX": "/app", "X_FORWARDED_SSL": "on", "REMOTE_USER": "ada"},
        ),
    ],
)
def test_what_django_sees(peer, trust, sent, address, seen, secure, host):
    environ = through(trust, an_environ(peer, **sent))
    assert environ["REMOTE_ADDR"] == address
    assert headers_of(environ) == seen
    assert environ["wsgi.url_scheme"] == ("https" if secure else "http")
    received = WSGIRequest(environ)
    assert received.is_secure() is secure
    assert received.scheme == ("https" if secure else "http")
    assert received.get_host() == host
    assert received.path == "/page"


@pytest.mark.parametrize("name", sorted(CLIENT_HEADERS))
def test_no_known_header_arrives_from_a_stranger(name):
    environ = an_environ()
    assert through(loopback, {**environ, name: "forged"}) == environ


def test_the_trusted_scheme_holds_for_projects_without_the_setting(settings):
    settings.SECURE_PROXY_SSL_HEADER = None
    assert request(loopback, an_environ(NGINX, X_FORWARDED_PROTO="https")).is_secure()


def test_tls_of_our_own_stays_when_a_stranger_says_http():
    received = request(loopback, an_environ(scheme="https", X_FORWARDED_PROTO="http"))
    assert received.is_secure()
    assert received.get_port() == "8000"


@pytest.mark.parametrize(
    ("host", "scheme", "port"),
    [
        ("example.com", "https", "443"),
        ("example.com", "http", "80"),
        ("example.com:8443", "https", "8443"),
        ("[2001:db8::1]", "https", "443"),
        ("[2001:db8::1]:8443", "https", "8443"),
        ("example.com:99999", "https", "443"),
        ("443", "http", "80"),
    ],
)
def test_the_port_is_the_one_the_client_came_to(host, scheme, port):
    environ = an_environ(NGINX, HOST=host, X_FORWARDED_PROTO=scheme)
    assert request(loopback, environ).get_port() == port


def test_without_a_host_the_port_is_the_schemes():
    environ = an_environ(NGINX, X_FORWARDED_PROTO="https")
    del environ["HTTP_HOST"]
    assert request(loopback, environ).get_port() == "443"


def test_the_port_of_the_proxy_goes_with_its_address():
    assert "REMOTE_PORT" not in through(loopback, an_environ(NGINX, X_FORWARDED_FOR=CLIENT))
    assert through(loopback, an_environ(NGINX))["REMOTE_PORT"] == "54321"


def test_the_servers_own_script_name_is_kept():
    environ = {**an_environ(X_FORWARDED_FOR=FORGED), "SCRIPT_NAME": "/app"}
    assert request(loopback, environ).path == "/app/page"


def test_the_left_most_entry_is_true_for_packages_that_take_it():
    received = request(everyone, an_environ(LAN, X_FORWARDED_FOR=f"{FORGED}, {CLIENT}"))
    assert received.headers["X-Forwarded-For"].split(",")[0] == CLIENT


def test_a_chain_of_trusted_entries_is_looked_at_only_so_far():
    endless = ", ".join([FORGED, *["10.0.0.1"] * 500])
    environ = through(private, an_environ(NGINX, X_FORWARDED_FOR=endless))
    assert environ["HTTP_X_FORWARDED_FOR"] == ", ".join(["10.0.0.1"] * MAX_CHAIN)


@pytest.mark.parametrize(
    ("words", "trusted", "strangers"),
    [
        (["loopback"], ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", ""], [LAN, CLIENT]),
        (["LOOPBACK "], ["127.0.0.1"], [LAN]),
        (
            ["private"],
            ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "127.0.0.1", ""],
            ["172.32.0.1", "100.128.0.1", "fe80::1", "169.254.1.1", CLIENT],
        ),
        (["none"], [], ["127.0.0.1", "", CLIENT]),
        ([], [], ["127.0.0.1", "", CLIENT]),
        (["", " "], [], ["127.0.0.1", ""]),
        (["*"], ["127.0.0.1", "", CLIENT, "::1", "odd"], []),
        (["unix"], [""], ["127.0.0.1", "/run/x.sock"]),
        (["192.0.2.7", "2001:db8::/32"], ["192.0.2.7", "2001:db8::5"], ["192.0.2.8", "", "odd"]),
        (["::ffff:10.0.0.0/104"], ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1"]),
        (["0.0.0.0/0", "unix"], [CLIENT, ""], ["2001:db8::1"]),
        (["none", "192.0.2.7"], ["192.0.2.7"], ["127.0.0.1"]),
    ],
)
def test_who_is_trusted(words, trusted, strangers):
    trust = parse_trust(words)
    assert [peer for peer in trusted if not trust.trusts(peer)] == []
    assert [peer for peer in strangers if trust.trusts(peer)] == []


@pytest.mark.parametrize("peer", [{"REMOTE_ADDR": None}, {}], ids=["named by nobody", "absent"])
def test_a_peer_without_an_address_is_not_a_unix_socket(peer):
    environ = an_environ(X_FORWARDED_FOR=FORGED, X_FORWARDED_PROTO="https")
    del environ["REMOTE_ADDR"]
    seen = through(loopback, {**environ, **peer})
    assert headers_of(seen) == {}
    assert seen.get("REMOTE_ADDR") is None
    assert seen["wsgi.url_scheme"] == "http"


def test_a_network_named_twice_is_held_once():
    assert parse_trust(["loopback", "127.0.0.0/8"]).networks == (
        ip_network("127.0.0.0/8"),
        ip_network("::1"),
    )


@pytest.mark.parametrize(
    ("words", "hops", "complaint", "fix"),
    [
        (["loopback", "privat"], None, r"'privat' is neither an address .* private, unix, none", "192.0.2.7"),
        (["10.0.0.5/8"], None, r"'10\.0\.0\.5/8' is an address inside", "Write '10.0.0.0/8'"),
        (["10.0.0.0/33"], None, "'10.0.0.0/33' is neither", "10.0.0.0/8"),
        (["example.com"], None, "'example.com' is neither", "192.0.2.7"),
        (["*"], 0, "hops is 0, but must be from 1", ""),
        (["*"], MAX_CHAIN + 1, "hops is 17", ""),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_its_fix(words, hops, complaint, fix):
    with pytest.raises(ParseError, match=complaint) as caught:
        parse_trust(words, hops)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert fix in caught.value.fix


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_parsed(name):
    assert parse_trust([name], hops=1).hops == 1


# Fuzz: seeded, so a failure repeats itself.

PIECES = (
    *("1.2.3.4", "::1", "[::1]:80", "10.0.0.1", "127.0.0.1", "unknown", "https", "http", "443"),
    *(",", ", ", ":", "[", "]", "%", " ", "\t", "\x00", "\xff", "é", "٣.٣.٣.٣", '"', ";", "-1"),
    *("999.1.1.1", "1" * 300, "," * 50, "::ffff:10.0.0.1", "for=_x", "0", "example.com:", "/32"),
)
NAMES = (
    *sorted(CLIENT_HEADERS),
    *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_", "HTTP_XX_FORWARDED_X", "HTTP_HOST"),
)


def random_environ(chance, peer):
    names = chance.sample(NAMES, chance.randint(0, 8))
    words = ("".join(chance.choices(PIECES, k=chance.randint(0, 6))) for _ in names)
    return {**an_environ(peer), **dict(zip(names, words, strict=True))}


@pytest.mark.parametrize("seed", range(8))
def test_fuzz_a_stranger_changes_nothing(seed):
    chance = random.Random(seed)
    for _ in range(250):
        environ = random_environ(chance, CLIENT)
        seen = through(private, dict(environ))
        assert headers_of(seen) == {}
        left = {"HTTP_HOST": environ["HTTP_HOST"], "wsgi.input": environ["wsgi.input"]}
        assert seen == {**an_environ(CLIENT), **left}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("trust", [private, everyone, parse_trust(["*"], hops=3)])
def test_fuzz_a_trusted_peer_leaves_only_addresses_and_known_schemes(seed, trust):
    chance = random.Random(seed)
    for _ in range(250):
        environ = through(trust, random_environ(chance, chance.choice([NGINX, "", "::1"])))
        if address := environ["REMOTE_ADDR"]:
            assert str(ip_network(address).network_address) == address
        assert environ["wsgi.url_scheme"] in ("http", "https")
        assert environ["SERVER_PORT"].isdigit()
        WSGIRequest(environ)


NAMED_ALONE = {
    "one address": ({"X_REAL_IP": CLIENT}, CLIENT),
    "with a port": ({"X_REAL_IP": f"{CLIENT}:4711"}, CLIENT),
    "beside a forged chain": ({"X_REAL_IP": CLIENT, "X_FORWARDED_FOR": f"{FORGED}, {FORGED}"}, CLIENT),
    "beside other names": ({"X_REAL_IP": CLIENT, "CF_CONNECTING_IP": FORGED, "CLIENT_IP": FORGED}, CLIENT),
    "absent": ({"X_FORWARDED_FOR": FORGED, "CF_CONNECTING_IP": FORGED}, ""),
    "a list": ({"X_REAL_IP": f"{FORGED}, {CLIENT}", "X_FORWARDED_FOR": FORGED}, ""),
    "no address": ({"X_REAL_IP": "unknown", "X_FORWARDED_FOR": FORGED}, ""),
    "empty": ({"X_REAL_IP": "", "X_FORWARDED_FOR": FORGED}, ""),
}


@pytest.mark.parametrize("trust", [loopback, everyone, parse_trust(["loopback"], hops=2)])
@pytest.mark.parametrize(("sent", "address"), NAMED_ALONE.values(), ids=NAMED_ALONE)
def test_a_named_header_alone_is_the_witness(trust, sent, address):
    seen = through(trust, an_environ(NGINX, X_FORWARDED_PROTO="https", **sent), witness="X-Real-IP")
    assert seen["REMOTE_ADDR"] == (address or NGINX)
    assert seen.get("HTTP_X_FORWARDED_FOR", "") == address
    assert seen["wsgi.url_scheme"] == "https"
    assert FORGED not in str(headers_of(seen))
    assert {seen[name] for name in seen if name.endswith("_IP")} <= {seen["REMOTE_ADDR"]}


def test_a_named_header_of_the_projects_own_is_a_claim_like_any_other():
    sent = {"X_EDGE_CLIENT": CLIENT}
    assert through(loopback, an_environ(NGINX, **sent), witness="X-Edge-Client")["REMOTE_ADDR"] == CLIENT
    seen = through(nobody, an_environ(LAN, **sent), witness="X-Edge-Client")
    assert (seen["REMOTE_ADDR"], headers_of(seen)) == (LAN, {})
    seen = through(loopback, an_environ(NGINX, X_EDGE_CLIENT="no address"), witness="X-Edge-Client")
    assert seen["HTTP_X_EDGE_CLIENT"] == NGINX


@pytest.mark.parametrize("name", ["X Real IP", "X_Real_IP", "", "Forwarded", "X-Forwarded-Proto", "Host"])
def test_a_header_that_cannot_carry_the_address_is_refused(name):
    with pytest.raises(ParseError, match=r"not the name of a header|does not carry the address") as caught:
        parse_witness(name)
    assert "such as X-Real-IP" in caught.value.fix


def test_an_address_where_nobody_looks_for_it_is_said_once(caplog):
    layer = ProxyHeadersMiddleware(lambda environ, start_response: [], loopback)
    layer(an_environ(LAN, X_REAL_IP=CLIENT), None)  # not from a proxy of ours
    layer(an_environ(NGINX, X_REAL_IP=CLIENT, X_FORWARDED_FOR=CLIENT), None)
    layer(an_environ(NGINX, X_REAL_IP="garbage"), None)
    assert caplog.text == ""
    for _ in range(3):
        layer(an_environ(NGINX, CF_CONNECTING_IP=CLIENT), None)
    assert caplog.text.count("--client-address-header Cf-Connecting-IP") == 1
