"""What the worker borrows from Gunicorn: a release that moves something fails here, not on a site."""

from __future__ import annotations

import importlib.util
import inspect
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gunicorn import sock, util
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import errors, wsgi
from gunicorn.http.body import Body, ChunkedReader, EOFReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import IterUnreader, SocketUnreader, Unreader
from gunicorn.workers.base import Worker
from gunicorn.workers.workertmp import WorkerTmp

from django_prodserve.worker import refusals

PEER = ("127.0.0.1", 4321)
PARSERS = ["python", *(["fast"] if importlib.util.find_spec("gunicorn_h1c") else [])]
HEAD = b"POST /a%20b?c=1 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\n"

SIGNATURES: dict[Callable[..., Any], str] = {
    Request.__init__: "(self, cfg, unreader, peer_addr, req_number=1)",
    Request.should_close: "(self)",
    Request.set_body_reader: "(self)",
    Unreader.chunk: "(self, size_hint=None)",
    Unreader.read: "(self, size=None, read_ahead=None)",
    Unreader.unread: "(self, data)",
    Unreader.take_buffered: "(self)",
    SocketUnreader.__init__: "(self, sock, max_chunk=8192)",
    IterUnreader.__init__: "(self, iterable)",
    RequestParser.__init__: "(self, cfg, source, source_addr)",
    ChunkedReader.__init__: "(self, req, unreader)",
    LengthReader.__init__: "(self, unreader, length)",
    Body.__init__: "(self, reader)",
    Body.read: "(self, size=None)",
    wsgi.create: "(req, sock, client, server, cfg, response_class=None, response_args=())",
    wsgi.base_environ: "(cfg)",
    wsgi.default_environ: "(req, sock, cfg)",
    wsgi.proxy_environ: "(req)",
    wsgi.FileWrapper.__init__: "(self, filelike, blksize=8192)",
    wsgi.Response.__init__: "(self, req, sock, cfg)",
    wsgi.Response.start_response: "(self, status, headers, exc_info=None)",
    wsgi.Response.process_headers: "(self, headers)",
    wsgi.Response.default_headers: "(self)",
    wsgi.Response.is_chunked: "(self)",
    wsgi.Response.should_close: "(self)",
    wsgi.Response.force_close: "(self)",
    wsgi.Response.write: "(self, arg)",
    wsgi.Response.sendfile: "(self, respiter)",
    wsgi.Response.close: "(self)",
    Worker.__init__: "(self, age, ppid, sockets, app, timeout, cfg, log)",
    Worker.init_process: "(self)",
    Worker.init_signals: "(self)",
    Worker.load_wsgi: "(self)",
    Worker.run: "(self)",
    Worker.notify: "(self)",
    Worker.handle_error: "(self, req, client, addr, exc)",
    Worker.handle_exit: "(self, sig, frame)",
    Worker.handle_quit: "(self, sig, frame)",
    Worker.handle_abort: "(self, sig, frame)",
    WorkerTmp.notify: "(self)",
    WorkerTmp.last_update: "(self)",
    Arbiter.spawn_worker: "(self)",
    Arbiter.kill_worker: "(self, pid, sig)",
    Arbiter.murder_workers: "(self)",
    Arbiter.manage_workers: "(self)",
    Logger.access: "(self, resp, req, environ, request_time)",
    util.close: "(sock)",
    util.close_graceful: "(sock, timeout=2.0, max_drain=65536)",
    util.write: "(sock, data, chunked=False)",
    util.write_error: "(sock, status_int, reason, mesg)",
    util.http_date: "(timestamp=None)",
    util.is_hoppish: "(header)",
    util.has_fileno: "(obj)",
    util.split_request_uri: "(uri)",
    util.unquote_to_wsgi_str: "(string)",
}


@pytest.mark.parametrize("borrowed", SIGNATURES, ids=lambda each: each.__qualname__)
def test_signatures(borrowed: Callable[..., Any]) -> None:
    assert str(inspect.signature(borrowed)) == SIGNATURES[borrowed]


class NeedMore(Exception):
    """What a worker raises where Gunicorn would wait for the client."""


class Here(Unreader):
    """Gives the parser the bytes that are here, and never waits."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def chunk(self, size_hint: int | None = None) -> bytes:
        if not self.data:
            raise NeedMore
        data, self.data = self.data, b""
        return data


@pytest.fixture(params=PARSERS)
def config(request: pytest.FixtureRequest) -> Config:
    config = Config()
    config.set("http_parser", request.param)
    return config


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def test_a_parser_without_enough_bytes_raises_what_the_unreader_raises(config: Config) -> None:
    for end in range(1, len(HEAD)):
        with pytest.raises(NeedMore):
            Request(config, Here(HEAD[:end]), PEER)


def test_what_a_parser_leaves_stays_in_the_unreader(config: Config) -> None:
    unreader = Here(HEAD + b"hello" + b"GET /next")
    request = Request(config, unreader, PEER)
    assert (request.method, request.uri, request.path, request.query) == (
        "POST",
        "/a%20b?c=1",
        "/a%20b",
        "c=1",
    )
    assert request.version == (1, 1)
    assert request.headers == [("HOST", "shop.example"), ("CONTENT-LENGTH", "5")]
    assert isinstance(request.body.reader, LengthReader)
    assert request.body.reader.length == 5
    assert request.body.read() == b"hello"
    assert unreader.take_buffered() == b"GET /next"


def test_a_request_without_a_length_has_an_empty_body(config: Config) -> None:
    request = Request(config, Here(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), PEER)
    assert not isinstance(request.body.reader, EOFReader)
    assert request.body.read() == b""


def test_complete_chunks_are_decoded_without_waiting_and_the_rest_stays(config: Config) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    unreader = Here(head + b"5;a=1\r\nhello\r\n1\r\n!\r\n0\r\nA: 1\r\n\r\nGET /next")
    request = Request(config, unreader, PEER)
    assert isinstance(request.body.reader, ChunkedReader)
    assert request.body.read() == b"hello!"
    assert request.trailers == [("A", "1")]
    assert unreader.take_buffered() == b"GET /next"


def test_a_silent_end_is_stop_iteration_and_an_early_one_no_more_data(config: Config) -> None:
    with pytest.raises(StopIteration):
        Request(config, IterUnreader([]), PEER)
    with pytest.raises(errors.NoMoreData):
        Request(config, IterUnreader([HEAD[:20]]), PEER)


def test_neither_parser_asks_for_a_host(config: Config) -> None:
    """If one does some day, ours need not."""
    assert Request(config, Here(b"GET / HTTP/1.1\r\n\r\n"), PEER).headers == []


def test_limits_of_a_head(config: Config) -> None:
    request = Request(config, Here(HEAD + b"hello"), PEER)
    assert (request.limit_request_line, request.limit_request_fields) == (4094, 100)
    assert request.limit_request_field_size == 8190
    assert request.max_buffer_headers == 100 * (8190 + 2) + 4


# What handle_error makes of each; a worker that answers itself must say the same.
STATUSES: dict[type[Exception], tuple[Exception, bytes]] = {
    type(error): (error, status)
    for error, status in [
        (errors.InvalidRequestLine("x"), b"400 Bad Request"),
        (errors.InvalidRequestMethod("x"), b"400 Bad Request"),
        (errors.InvalidHTTPVersion("x"), b"400 Bad Request"),
        (errors.InvalidHeader("x"), b"400 Bad Request"),
        (errors.InvalidHeaderName("x"), b"400 Bad Request"),
        (errors.ObsoleteFolding("x"), b"400 Bad Request"),
        (errors.InvalidChunkSize(b"x"), b"400 Bad Request"),
        (errors.InvalidChunkExtension("x"), b"400 Bad Request"),
        (errors.ChunkMissingTerminator(b"x"), b"400 Bad Request"),
        (errors.InvalidSchemeHeaders(), b"400 Bad Request"),
        (errors.InvalidProxyLine("x"), b"400 Bad Request"),
        (errors.ForbiddenProxyRequest("x"), b"403 Forbidden"),
        (errors.LimitRequestLine(1, 1), b"414 URI Too Long"),
        (errors.ExpectationFailed("x"), b"417 Expectation Failed"),
        (errors.LimitRequestHeaders("x"), b"431 Request Header Fields Too Large"),
        (errors.UnsupportedTransferCoding("x"), b"501 Bad Request"),
        (RuntimeError("x"), b"500 Internal Server Error"),
    ]
}


@pytest.fixture
def worker() -> Iterator[Worker]:
    config = Config()
    worker = Worker(1, 1, [], None, 30, config, Logger(config))
    yield worker
    worker.tmp.close()


@pytest.mark.parametrize("error", STATUSES, ids=lambda each: each.__name__)
def test_errors_have_statuses(
    error: type[Exception], worker: Worker, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    try:
        raise STATUSES[error][0]
    except Exception as raised:  # each of them in turn
        worker.handle_error(None, ours, PEER, raised)
    answer = theirs.recv(65536)
    assert answer.startswith(b"HTTP/1.1 " + STATUSES[error][1] + b"\r\nConnection: close\r\n"), answer


class Said(Logger):
    """What a worker logs, by level."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        self.said: list[tuple[str, str]] = []

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.said.append(("warning", msg % args if args else msg))

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.said.append(("exception", msg % args))


MORE = [
    errors.InvalidResponseHeader("Name"),
    errors.InvalidResponseHeaderName("Name"),
    errors.InvalidH2CPreface(b"x"),
    errors.ConfigurationProblem("a < b"),
    ssl.SSLError(1, "x"),
    errors.InvalidHeader("\xe4 <b>%s</b>"),
]


@pytest.mark.parametrize(
    "error", [*(error for error, _ in STATUSES.values()), *MORE], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("peer", [PEER, ""], ids=["tcp", "unix"])
def test_our_refusals_are_gunicorns_to_the_byte(
    worker: Worker, error: Exception, peer: Any, config: Config
) -> None:
    request = Request(config, Here(HEAD + b"hello"), PEER)
    said, answers = [], []
    for refuse in (Worker.handle_error, refusals.refuse):
        worker.log, sheet = Said(config), refusals.Sheet()
        refuse(worker, request, sheet, peer, error)
        said.append(worker.log.said)
        # Python 3.14's dedent() loses this CR, and with it the end of Gunicorn's head.
        answers.append(sheet.data.replace(b"\r\n\n<html>", b"\r\n\r\n<html>"))
    assert answers[0] == answers[1]
    assert said[0] == said[1] != []
    head, _, body = sheet.data.partition(b"\r\n\r\n")
    assert head.splitlines()[-1] == b"Content-Length: %d" % len(body)


def test_what_gunicorn_forgot_is_the_clients_fault_too() -> None:
    assert refusals.classify(errors.InvalidProxyHeader("x"))[:2] == (400, "Bad Request")


def test_gunicorns_own_workers_end_their_heads(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    monkeypatch.setattr(util, "write_error", util.write_error)  # to have it back
    refusals.mend_gunicorns()
    worker.handle_error(None, pair[0], PEER, errors.LimitRequestLine(1, 1))
    head, _, body = pair[1].recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 414 URI Too Long\r\n")
    assert body.endswith(b"</html>\n")


def test_every_error_of_a_request_has_a_status_here() -> None:
    """A release with a new one must be looked at."""
    known = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.ParseException)
    }
    response = {errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem}
    others = {errors.ParseException, errors.InvalidProxyHeader, errors.InvalidH2CPreface}
    assert known - set(STATUSES) - response - others == set()


def test_create_builds_the_environ(config: Config, pair: tuple[socket.socket, socket.socket]) -> None:
    request = Request(config, Here(HEAD + b"hello"), PEER)
    response, environ = wsgi.create(request, pair[0], PEER, ("127.0.0.1", 80), config)
    assert isinstance(response, wsgi.Response)
    assert environ["wsgi.input"] is request.body
    wanted = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=1",
        "RAW_URI": "/a%20b?c=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "4321",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": wsgi.FileWrapper,
    }
    assert {name: environ[name] for name in wanted} == wanted
    more = {"SERVER_SOFTWARE", "gunicorn.socket", "wsgi.early_hints", "wsgi.errors", "wsgi.version"}
    more |= {"wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input"}
    assert set(environ) == set(wanted) | more


def test_create_itself_sends_continue(config: Config, pair: tuple[socket.socket, socket.socket]) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    request = Request(config, Here(head), PEER)
    assert request._expected_100_continue
    wsgi.create(request, pair[0], PEER, ("127.0.0.1", 80), config)
    assert pair[1].recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def answer_to(
    method: bytes, status: str, fields: list[tuple[str, str]], version: bytes = b"HTTP/1.1"
) -> wsgi.Response:
    config = Config()
    request = Request(config, Here(method + b" / " + version + b"\r\nHost: a\r\n\r\n"), PEER)
    response = wsgi.Response(request, None, config)
    response.start_response(status, fields)
    return response


def test_framing_of_responses() -> None:
    with_length, without = [("Content-Length", "5")], [("A", "1")]
    assert not answer_to(b"GET", "200 OK", with_length).is_chunked()
    assert answer_to(b"GET", "200 OK", without).is_chunked()
    assert not answer_to(b"GET", "200 OK", without, b"HTTP/1.0").is_chunked()
    assert answer_to(b"GET", "200 OK", without, b"HTTP/1.0").should_close()
    assert not answer_to(b"HEAD", "200 OK", without).is_chunked()
    assert answer_to(b"HEAD", "200 OK", with_length).response_length == 5
    assert answer_to(b"GET", "204 No Content", with_length).headers == []
    assert answer_to(b"GET", "304 Not Modified", with_length).headers == with_length
    assert not answer_to(b"GET", "200 OK", without).should_close()


def test_headers_of_responses() -> None:
    response = answer_to(b"GET", "200 OK", [("A", " 1 "), ("Connection", "x"), ("Transfer-Encoding", "x")])
    assert response.headers == [("A", "1")]
    lines = "".join(response.default_headers())
    assert lines.startswith("HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: ")
    assert lines.endswith("GMT\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n")
    response.force_close()
    assert "Connection: close\r\n" in response.default_headers()
    with pytest.raises(errors.InvalidResponseHeader):
        answer_to(b"GET", "200 OK", [("A", "1\r\nB: 2")])
    with pytest.raises(errors.InvalidResponseHeaderName):
        answer_to(b"GET", "200 OK", [("A:", "1")])
    with pytest.raises(ValueError, match="Invalid status"):
        answer_to(b"GET", "200 OK\r\nB: 2", [])


def test_a_worker_is_alive_until_told_and_its_heartbeat_is_a_time(worker: Worker) -> None:
    assert (worker.alive, worker.booted, worker.aborted, worker.nr) == (True, False, False, 0)
    assert (worker.sockets, worker.timeout, worker.ppid) == ([], 30, 1)
    before = time.monotonic()
    worker.notify()
    assert before - 1 <= worker.tmp.last_update() <= time.monotonic() + 1
    worker.handle_exit(15, None)
    assert not worker.alive


def test_signals_of_a_worker() -> None:
    assert {signal.name for signal in Worker.SIGNALS} == {
        *("SIGABRT", "SIGHUP", "SIGQUIT", "SIGINT", "SIGTERM"),
        *("SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCHLD"),
    }


def test_the_settings_of_tls_are_where_our_contexts_read_them() -> None:
    settings = Config().settings
    assert str(inspect.signature(settings["ssl_context"].get())) == "(config, default_ssl_context_factory)"
    defaults = {name: settings[name].get() for name in ("ca_certs", "cert_reqs", "ciphers")}
    assert defaults == {"ca_certs": None, "cert_reqs": ssl.CERT_NONE, "ciphers": None}
    source = inspect.getsource(sock.ssl_context)  # what default_context in tls/contexts.py does, too
    for line in (
        "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=conf.ca_certs)",
        "context.load_cert_chain(certfile=conf.certfile, keyfile=conf.keyfile)",
        "context.verify_mode = conf.cert_reqs",
        "context.set_ciphers(conf.ciphers)",
        "return conf.ssl_context(conf, default_ssl_context_factory)",
    ):
        assert line in source
