"""What a browser asks for after a page: every file that it links, and those that these import in turn."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from http.cookiejar import CookieJar

import brotli

from .serving import PATIENCE, Response

SHOWN = {"stylesheet", "icon", "apple-touch-icon", "mask-icon", "manifest", "preload", "modulepreload"}
SOURCES = {"src", "srcset", "poster", "data"}
CSS_URL = re.compile(r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"')\s]+))\s*\)|@import\s+["']([^"']+)["']""")
CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
JS_IMPORT = re.compile(r"""(?:\bfrom|\bimport\s*\(?)\s*["'](\.{0,2}/[^"']+)["']""")
JS_COMMENT = re.compile(r"/\*.*?\*/|^\s*//.*$", re.DOTALL | re.MULTILINE)
HASHED = re.compile(r"\.[0-9a-f]{12}(\.|$)")
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, "br": brotli.decompress, "gzip": gzip.decompress}
TYPES = {
    "css": {"text/css; charset=utf-8"},
    "js": {"text/javascript; charset=utf-8"},
    "svg": {"image/svg+xml"},
    "png": {"image/png"},
    "gif": {"image/gif"},
    "ico": {"image/x-icon", "image/vnd.microsoft.icon"},
    "woff": {"font/woff", "application/font-woff"},
    "woff2": {"font/woff2"},
    "ttf": {"font/ttf"},
    "eot": {"application/vnd.ms-fontobject"},
}
TEXT = {"css", "js", "svg"}


class PageReferences(HTMLParser):
    """Collects what a page refers to, as it is written there."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._inside = "importmap" if given.get("type") == "importmap" else tag
        if tag == "link" and SHOWN & set(given.get("rel", "").lower().split()):
            self.found.append(given.get("href", ""))
        elif tag in ("use", "image"):
            self.found += [given.get("href", ""), given.get("xlink:href", "")]
        for name in SOURCES & set(given) if tag not in ("iframe", "frame") else ():
            parts = given[name].split(",") if name == "srcset" else [given[name]]
            self.found += [part.split()[0] for part in parts if part.strip()]
        self.found += css_references(given.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.found += css_references(data)
        elif self._inside == "importmap":
            self.found += json.loads(data)["imports"].values()


def css_references(text: str) -> list[str]:
    """Return what a stylesheet refers to."""
    return ["".join(groups) for groups in CSS_URL.findall(CSS_COMMENT.sub("", text))]


def file_references(url: str, text: str) -> list[str]:
    """Return what a file refers to: nothing where its kind can refer to none."""
    if kind_of(url) == "css":
        return css_references(text)
    return JS_IMPORT.findall(JS_COMMENT.sub("", text)) if kind_of(url) == "js" else []


def kind_of(url: str) -> str:
    """Return the suffix of a file's name, without the dot."""
    return urllib.parse.urlsplit(url).path.rpartition(".")[2].lower()


def is_compressible(url: str, body: bytes) -> bool:
    """Say whether a server should bother: text that becomes clearly smaller."""
    return kind_of(url) in TEXT and len(gzip.compress(body)) < 0.9 * len(body)


class Visitor:
    """A client with cookies that reads pages and then inspects the files that they need."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self._cookies), urllib.request.ProxyHandler({})
        )
        self._opener.addheaders = [("Accept", "text/html")]
        self._connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=PATIENCE)

    def close(self) -> None:
        self._connection.close()

    def read(self, path: str, form: dict[str, str] | None = None) -> str:
        """Return a page, after its redirects; HTTPError unless it is a 200."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with self._opener.open(self.address + path, data, timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def log_in(self, path: str, username: str, password: str) -> None:
        """Fill in the form of an admin."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.read(path))
        assert found
        form = {"username": username, "password": password, "csrfmiddlewaretoken": found[1]}
        page = self.read(path, form)
        assert 'type="password"' not in page, "still at the login"

    def get(self, url: str, **headers: str) -> Response:
        """Return one answer over the connection that is kept open, undecoded."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", url, headers={"Cookie": cookies, **given})
        answer = self._connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def files(self, pages: Sequence[str]) -> dict[str, tuple[str, Response]]:
        """Return every file that these pages need, where it was asked for, and the answer to that."""
        waiting = [
            (url, page) for page in pages for url in self.own(page, PageReferences(self.read(page)).found)
        ]
        files: dict[str, tuple[str, Response]] = {}
        for url, by in waiting:  # grows while it is read
            if url not in files:
                answer = self.get(url)
                files[url] = by, answer
                if answer.status == 200 and kind_of(url) in TEXT:
                    waiting += [
                        (reference, url) for reference in self.own(url, file_references(url, answer.text))
                    ]
        return files

    def own(self, base: str, references: Sequence[str]) -> Iterator[str]:
        """Yield the references to this site as absolute paths, without fragments."""
        for reference in references:
            if not reference.strip():
                continue
            url = urllib.parse.urljoin(self.address + base, reference.strip())
            parts = urllib.parse.urlsplit(url)
            if not reference.strip().startswith("#") and f"{parts.scheme}://{parts.netloc}" == self.address:
                yield urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def problems(visitor: Visitor, pages: Sequence[str], static: str = "/static/") -> tuple[list[str], int]:
    """Return a line for everything that is wrong with the files of these pages, and their number."""
    files = visitor.files(pages)
    lines = [f"{by} needs {url}: {found.status}" for url, (by, found) in files.items() if found.status != 200]
    served = [url for url, (_, found) in files.items() if url.startswith(static) and found.status == 200]
    for url in served:
        by, plain = files[url]
        lines += [f"{url} ({by}): {line}" for line in file_problems(visitor, url, plain)]
    return lines, len(served)


def file_problems(visitor: Visitor, url: str, plain: Response) -> Iterator[str]:
    """Yield what is wrong with one static file."""
    kind = kind_of(url)
    sent_as = plain.headers.get("content-type", "").replace('"', "")
    if sent_as not in TYPES.get(kind, set()):
        yield f"is sent as {sent_as}"
    if plain.headers.get("x-content-type-options") != "nosniff":
        yield "is sent without nosniff"
    yield from caching_problems(visitor, url, plain)
    for accepted, wanted in {"br, gzip": "br", "gzip": "gzip"}.items():
        found = visitor.get(url, Accept_Encoding=accepted)
        encoding = found.headers.get("content-encoding", "")
        if ENCODINGS[encoding](found.body) != plain.body:
            yield f"has another content as {encoding}"
        if is_compressible(url, plain.body) and encoding != wanted:
            yield f"{len(plain.body)} bytes are sent as {encoding or 'they are'} to who takes {accepted}"
        if encoding and "accept-encoding" not in found.headers.get("vary", "").lower():
            yield "is encoded without Vary"


def caching_problems(visitor: Visitor, url: str, plain: Response) -> Iterator[str]:
    """Yield what is wrong with the name, the headers and the answers that spare a transfer."""
    control = plain.headers.get("cache-control", "")
    if not HASHED.search(url):
        yield "has no hash in its name"
    elif "immutable" not in control or f"max-age={365 * 86400}" not in control:
        yield f"is cached by {control!r} alone"
    for header, validator in {"If_None_Match": "etag", "If_Modified_Since": "last-modified"}.items():
        found = visitor.get(url, **{header: plain.headers.get(validator, "")})
        if (found.status, found.body) != (304, b""):
            yield f"{validator} {plain.headers.get(validator)!r} is answered with {found.status}"
    for wanted, part in {"bytes=0-0": plain.body[:1], "bytes=-5": plain.body[-5:]}.items():
        found = visitor.get(url, Range=wanted)
        if (found.status, found.body) != ((206, part) if plain.body else (416, b"")):
            yield f"{wanted} is answered with {found.status}, {len(found.body)} bytes"
