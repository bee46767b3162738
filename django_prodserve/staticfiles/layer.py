"""Answer requests for static files: WhiteNoise, with the cases that it leaves open, wrapped around Django.

Built in the command's process before the fork; called in every worker, on a request's thread, once a request.
A hit is one dict lookup and one open(); it reads no settings and takes no lock.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

from django.conf import UserSettingsHolder, settings
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import NOT_ALLOWED_RESPONSE, Response, StaticFile
from whitenoise.string_utils import decode_path_info

from ..http.plain_files import Slice
from .asking import ask_storage
from .collect import list_sources
from .late import Late

if TYPE_CHECKING:
    from _typeshed import StrPath
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .security import SecurityHeaders

    Headers = list[tuple[str, str]]

STATUS_LINES = {status: f"{status.value} {status.phrase}" for status in HTTPStatus}
STATUS_LINES[HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE] = "416 Range Not Satisfiable"  # as since Python 3.13
# One range of any valid size; others get the complete file, as RFC 9110 allows.
ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII)
EMPTY = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0")]
# Missing in WhiteNoise's own table: these would be sent as application/octet-stream.
MORE_TYPES = {
    ".map": "application/json",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".webmanifest": "application/manifest+json",
}
REFUSED = re.compile(r";\s*q=0(\.0*)?\s*$")


class ChangedError(FileNotFoundError):
    """The indexed file does not exist any more; another one may have its name."""


def length_in(headers: Headers) -> int:
    """Return the Content-Length among these headers."""
    return next(int(value) for name, value in headers if name == "Content-Length")


class StaticFileEntry:
    """One file, ready to serve. Reuses WhiteNoise's headers, paths and order of encodings."""

    __slots__ = ("date", "etag", "last_modified", "more", "renew", "unchanged", "url", "variants")

    def __init__(
        self, file: Any, security: Headers, renew: Callable[[str], Any] | None = None, url: str = ""
    ) -> None:
        self.renew, self.url = renew, url
        named = dict(file.alternatives[0][2])
        self.etag: str | None = file.etag
        self.date: str | None = named.get("Last-Modified")
        self.last_modified = file.last_modified  # the same, parsed; WhiteNoise compares it
        # Keep a header that WHITENOISE_ADD_HEADERS_FUNCTION has set.
        self.more = [header for header in security if header[0] not in named]
        self.unchanged = Response(
            HTTPStatus.NOT_MODIFIED, [*file.not_modified_response.headers, *self.more], None
        )
        self.variants = [
            (encoding, path, [*headers, *self.more]) for encoding, path, headers in file.alternatives
        ]

    @property
    def size(self) -> int:
        """Return the size of the file without any encoding."""
        return max(int(dict(headers)["Content-Length"]) for _, _, headers in self.variants)

    @property
    def is_immutable(self) -> bool:
        """Return whether a browser may cache the file without limit."""
        return any("immutable" in dict(headers).get("Cache-Control", "") for _, _, headers in self.variants)

    @property
    def encodings(self) -> set[str]:
        """Return the available encodings of the file."""
        return {dict(headers).get("Content-Encoding", "") for _, _, headers in self.variants} - {""}

    def get_response(self, method: str, environ: WSGIEnvironment) -> Any:
        """Answer as RFC 9110 requires, with an open file for GET; raise OSError if the file is gone.

        A file that was overwritten since the start is indexed again.
        """
        try:
            return self.respond(method, environ)
        except ChangedError:
            fresh = self.renew(self.url) if self.renew is not None else None
            if fresh is None:
                raise
            return fresh.get_response(method, environ)

    def respond(self, method: str, environ: WSGIEnvironment) -> Any:
        """Answer with the indexed file; raise ChangedError if its length has changed."""
        if method not in ("GET", "HEAD"):
            headers = [*NOT_ALLOWED_RESPONSE.headers, *EMPTY, *self.more]
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, headers, None)
        if self.is_unchanged(environ):
            return self.unchanged
        path, headers = self.choose(environ.get("HTTP_ACCEPT_ENCODING", ""))
        if method == "HEAD":
            return Response(HTTPStatus.OK, headers, None)
        wanted = environ.get("HTTP_RANGE")
        if wanted and environ.get("HTTP_IF_RANGE") in (None, self.etag, self.date):
            match = ONE_RANGE.fullmatch(wanted.strip())
            if match and match.groups() != ("", ""):
                return self.part(path, headers, *match.groups())
        return Response(HTTPStatus.OK, headers, self.opened(path, headers))

    def opened(self, path: str, headers: Headers) -> Any:
        """Open a file whose length is still the indexed one; raise ChangedError if it has changed."""
        file = open(path, "rb")  # noqa: SIM115
        if os.fstat(file.fileno()).st_size == length_in(headers):
            return file
        file.close()
        raise ChangedError(path)

    def is_unchanged(self, environ: WSGIEnvironment) -> bool:
        """Return whether the client has this version; a proxy that compresses makes tags weak."""
        known = environ.get("HTTP_IF_NONE_MATCH")
        if known is None:
            # WhiteNoise compares the dates, for which both are equal.
            return "HTTP_IF_MODIFIED_SINCE" in environ and bool(StaticFile.is_not_modified(self, environ))
        return self.etag is not None and (self.etag in known or known.strip() == "*")

    def choose(self, accepted: str) -> tuple[str, Headers]:
        """Return path and headers of the smallest variant that the client accepts."""
        if "q=0" in accepted:
            accepted = ",".join(part for part in accepted.split(",") if not REFUSED.search(part))
        for encoding, path, headers in self.variants:
            if encoding.search(accepted):
                return path, headers
        raise AssertionError("WhiteNoise always has the file itself")

    def part(self, path: str, headers: Headers, first: str, last: str) -> Any:
        """Answer with one range of the file: WhiteNoise refuses the first byte, and reads -0 as all of it."""
        size = length_in(headers)
        if first:
            start, end = int(first), min(int(last or size), size - 1)
        else:
            start, end = max(size - int(last), 0), size - 1
        if start > end and os.stat(path).st_size != size:
            raise ChangedError(path)
        if start > end:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            return Response(status, [("Content-Range", f"bytes */{size}"), *EMPTY, *self.more], None)
        others = [header for header in headers if header[0] != "Content-Length"]
        place = [
            ("Content-Range", f"bytes {start}-{end}/{size}"),
            ("Content-Length", str(end - start + 1)),
        ]
        file = Slice(self.opened(path, headers), start, end)
        return Response(HTTPStatus.PARTIAL_CONTENT, others + place, file)


class StaticFileIndex(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise has no types
    """The project's static files, as its WHITENOISE_* settings require."""

    FOREVER = 365 * 24 * 60 * 60  # a year is the longest time in RFC 9111 and RFC 8246

    def __init__(
        self, *, url: str, root: str | None, finders: bool, security: Headers, appear: Iterable[str] = ()
    ) -> None:
        self.security = security
        self.skipped: list[str] = []
        self.told = ask_storage()
        self.late = Late(url, appear, self.get_static_file)
        super().__init__(settings=_as_served(url=url, root=root, finders=finders))

    def get_static_url(self, name: str) -> str | None:
        """Return the address that pages use for a file; WhiteNoise compares it with a hashed twin's."""
        addresses = self.told.addresses
        url: str | None = super().get_static_url(name) if addresses is None else addresses.get(name)
        return url

    def get_static_file(self, path: str, url: str, stat_cache: Any = None) -> StaticFileEntry:
        """Return the file, ready to serve."""
        found = super().get_static_file(path, url, stat_cache=stat_cache)
        return StaticFileEntry(found, self.security, self.late.find if stat_cache is not None else None, url)

    def look_up(self, path: str, script: str = "") -> Any:
        """Return the entry for a path below the script name; None if that is not a file."""
        find: Callable[[str], Any] = self.find_file if self.autorefresh else self.files.get
        found = find(path)
        if found is None and script and not path.startswith(self.static_prefix):
            # An absolute STATIC_URL contains the script name that a proxy sends with each request.
            path = script.rstrip("/") + path
            found = find(path)
        return self.late.find(path) if found is None and not self.autorefresh else found

    def redirect(self, from_url: str, to_url: str) -> Any:
        """Return WhiteNoise's redirect to or from an index file, as a complete response."""
        moved = super().redirect(from_url, to_url)
        moved.response.headers += [*EMPTY, *self.security]
        return moved

    def update_files_dictionary(self, root: str, prefix: str) -> None:
        """Index every file below root; a broken link is skipped with a line, not fatal."""
        found = dict(self._scan(root))
        for path in found:
            url = prefix + path[len(root) :].replace("\\", "/")
            self.add_file_to_dictionary(url, path, stat_cache=found)

    def _scan(self, root: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    try:
                        facts = entry.stat()
                    except OSError as error:
                        self.skipped.append(f"{entry.path}: left out, {error.strerror}")
                        continue
                    if stat.S_ISDIR(facts.st_mode):
                        yield from self._scan(entry.path)
                    elif stat.S_ISREG(facts.st_mode):
                        yield entry.path, facts
        except OSError as error:
            self.skipped.append(f"{root}: left out, {error.strerror}")

    def add_files_from_finders(self) -> None:
        """Index the finders' files in place, but none that collectstatic would ignore."""
        sources, unreadable = list_sources()
        self.skipped += unreadable
        paths = {self.static_prefix + name: source.local_path() for name, source in sources.items()}
        local = {url: path for url, path in paths.items() if path is not None}
        found = {path: os.stat(path) for path in local.values()}
        for url, path in local.items():
            self.add_file_to_dictionary(url, path, stat_cache=found)


def _as_served(*, url: str, root: StrPath | None, finders: bool) -> UserSettingsHolder:
    """Return the project's settings without the effect of DEBUG: only configured values count."""
    view = UserSettingsHolder(settings)
    served = {
        "WHITENOISE_STATIC_PREFIX": url,
        "WHITENOISE_AUTOREFRESH": getattr(settings, "WHITENOISE_AUTOREFRESH", False),
        "WHITENOISE_USE_FINDERS": finders or getattr(settings, "WHITENOISE_USE_FINDERS", False),
        "WHITENOISE_MIMETYPES": MORE_TYPES | (getattr(settings, "WHITENOISE_MIMETYPES", None) or {}),
        "WHITENOISE_MAX_AGE": getattr(settings, "WHITENOISE_MAX_AGE", 60),
        "STATIC_ROOT": root,
    }
    for name, value in served.items():
        setattr(view, name, value)
    return view


class StaticLayer:
    """The WSGI middleware around Django that answers for files and passes everything else on."""

    __slots__ = ("application", "files", "hsts", "look_up", "redirect", "security")

    def __init__(
        self, site: StaticFileIndex, security: SecurityHeaders, application: WSGIApplication
    ) -> None:
        self.look_up: Callable[[str, str], Any] = site.look_up
        self.files: dict[str, Any] | None = None if site.autorefresh else site.files
        """Every file by its path; None if files are looked up at each request."""
        self.application = application
        self.security = security
        self.hsts, self.redirect = list(security.hsts), security.redirect

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Answer a request for a file; Django handles all others, including those for a file that is gone."""
        path = environ.get("PATH_INFO", "")
        if not path.isascii():
            path = decode_path_info(path)
        file = self.look_up(path, environ.get("SCRIPT_NAME", ""))
        if file is None:
            return self.application(environ, start_response)
        return self.answer(file, path, environ, start_response)

    def may_answer(self, path: str) -> bool:
        """Return whether this may answer for a path; False leaves the request to Django for certain."""
        return self.look_up(path, "") is not None

    def answer(self, file: Any, path: str, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Answer with this file as SecurityMiddleware would let it pass."""
        secure = (self.hsts or self.redirect) and self.security.is_secure(environ)
        # Only Django can redirect to a host that it has checked.
        if self.redirect and not secure and not self.security.is_exempt(environ, path):
            return self.application(environ, start_response)
        try:
            response = file.get_response(environ["REQUEST_METHOD"], environ)
        except (FileNotFoundError, PermissionError):
            return self.application(environ, start_response)
        headers = response.headers + self.hsts if secure else [*response.headers]
        start_response(STATUS_LINES[response.status], headers)
        if response.file is None:
            return []
        return environ.get("wsgi.file_wrapper", FileWrapper)(response.file)
