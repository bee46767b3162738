"""Serve uploads on request (``--media``): visitors made them, so none may act as a page of this site.

Built in the command's process before the fork; called in every worker, on a request's thread. A file costs an
open, a stat and a readlink; Django handles every other path.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from django.apps import apps
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.utils.module_loading import import_string
from whitenoise.media_types import MediaTypes
from whitenoise.responders import Response
from whitenoise.string_utils import decode_path_info

from ..errors import ProdserveError
from .layer import StaticFileEntry, StaticLayer
from .safe_open import open_inside
from .script_name import without_known
from .security import SecurityHeaders

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Displayed if a browser opens the address; all other types are downloads. None of these can contain script.
SHOWN = {
    *(f"image/{name}" for name in ("avif", "bmp", "gif", "jpeg", "png", "webp", "x-ms-bmp")),
    *(f"audio/{name}" for name in ("flac", "midi", "mpeg", "ogg", "wav", "x-m4a")),
    *(f"video/{name}" for name in ("mp4", "mpeg", "ogg", "webm", "quicktime", "x-m4v")),
}
# Types that pages can embed. An SVG in <img> runs no script; styles and scripts lose their type.
EMBEDDED = re.compile(r"(image|audio|video|font)/|application/pdf")
TYPES = MediaTypes(
    extra_types={
        ".flac": "audio/flac",
        ".oga": "audio/ogg",
        ".ogv": "video/ogg",
        ".opus": "audio/ogg",
        ".wav": "audio/wav",
    }
)
HEADERS = [
    # Uploads may be personal, and may be replaced or deleted: no proxy may cache them, a browser for a
    # minute.
    ("Cache-Control", "private, max-age=60"),
    ("X-Content-Type-Options", "nosniff"),
]
POLICY = "Content-Security-Policy"
# A browser wraps a single image or video into its own page, with styles. Chromium plays the video there only
# if the page keeps its origin. Neither may run scripts.
AS_SHOWN = [
    (
        POLICY,
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
        "sandbox allow-same-origin",
    )
]
AS_DOWNLOAD = [(POLICY, "default-src 'none'; sandbox"), ("Content-Disposition", "attachment")]


class Upload(StaticFileEntry):
    """One open file, ready to serve; the response takes ownership of the file, or ``close`` closes it."""

    __slots__ = ("handle",)

    def __init__(
        self, handle: int, facts: os.stat_result, name: str, security: list[tuple[str, str]]
    ) -> None:
        self.handle = handle
        kind = TYPES.get_type(name)
        self.etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        self.date = formatdate(facts.st_mtime, usegmt=True)
        self.last_modified = parsedate(self.date)
        how = AS_SHOWN if kind in SHOWN else AS_DOWNLOAD
        marks = [("ETag", self.etag), ("Last-Modified", self.date), *HEADERS, *how]
        self.more = security
        self.unchanged = Response(HTTPStatus.NOT_MODIFIED, [*marks, *security], None)
        described = [
            ("Content-Type", kind if EMBEDDED.match(kind) else "application/octet-stream"),
            ("Content-Length", str(facts.st_size)),
        ]
        self.variants = [(EVERY_ENCODING, handle, [*described, *marks, *security])]

    def get_response(self, method: str, environ: WSGIEnvironment) -> Any:
        """Answer as for any file; a file that is sent belongs to the response."""
        response = super().get_response(method, environ)
        if response.file is not None:
            self.handle = -1
        return response

    def opened(self, path: Any, headers: list[tuple[str, str]]) -> Any:
        """Return the file, whose size and date are current."""
        return open(path, "rb")

    def close(self) -> None:
        """Close the file unless it is being sent."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


EVERY_ENCODING = re.compile("")


@dataclass(frozen=True, kw_only=True)
class MediaRoot:
    """The real directory of uploads, and the path of their addresses."""

    url: str
    root: str

    @classmethod
    def from_settings(cls) -> MediaRoot:
        """Read the default storage; raise ProdserveError if its files cannot or must not be served."""
        entry = settings.STORAGES.get("default") or {}
        kind = import_string(entry.get("BACKEND") or "django.core.files.storage.FileSystemStorage")
        if not issubclass(kind, FileSystemStorage):
            raise ProdserveError(
                f'--media serves files of this machine, but STORAGES["default"] is {kind.__name__}.',
                "Remove --media: the addresses of these files come from that storage.",
            )
        options = entry.get("OPTIONS") or {}
        root = str(options.get("location") or settings.MEDIA_ROOT or "")
        if not root:
            raise ProdserveError(
                "--media needs MEDIA_ROOT, the directory of the uploads.", 'MEDIA_ROOT = BASE_DIR / "media"'
            )
        # Bypass the lazy settings: they turn an empty value into "/".
        url = options.get("base_url") or getattr(settings._wrapped, "MEDIA_URL", "") or ""
        found = cls(url=_path_of(str(url)), root=os.path.realpath(root))
        for problem in _exposed(found.root):
            raise ProdserveError(f"--media cannot serve MEDIA_ROOT {root}: {problem}.", OWN_DIRECTORY)
        return found

    def __str__(self) -> str:
        return f"{self.url} from {os.path.relpath(self.root)}, to everybody who knows a name"

    def open(self, path: str, security: list[tuple[str, str]]) -> Upload | None:
        """Return the file for this PATH_INFO, open; None for anything but a visible file in here."""
        name = path[len(self.url) :].encode("latin-1", "replace")
        found = open_inside(self.root, name)
        return None if found is None else Upload(*found, os.fsdecode(name), security)


OWN_DIRECTORY = "Give uploads a separate directory, with nothing else in it."


def _path_of(url: str) -> str:
    """Return MEDIA_URL as the beginning of a PATH_INFO, whose text contains bytes."""
    parts = urlsplit(url)
    if parts.netloc or parts.scheme:
        raise ProdserveError(
            f"--media serves from here, but MEDIA_URL is {url}.",
            'Remove --media, or set MEDIA_URL = "/media/".',
        )
    path = without_known(unquote(parts.path)).strip("/")
    if not path:
        raise ProdserveError(
            "--media needs MEDIA_URL, the beginning of the uploads' addresses.", 'MEDIA_URL = "/media/"'
        )
    return f"/{path}/".encode().decode("latin-1")


def _exposed(root: str) -> Iterator[str]:
    """Yield the names that must not be in a public directory."""
    for what, path in _private():
        if _holds(root, os.path.realpath(path)):
            yield f"it contains {what}, {path}"
    if settings.STATIC_ROOT:
        static = os.path.realpath(settings.STATIC_ROOT)
        if _holds(root, static) or _holds(static, root):
            yield "it contains STATIC_ROOT, or STATIC_ROOT contains it"


def _private() -> Iterator[tuple[str, str]]:
    module = sys.modules.get(getattr(settings, "SETTINGS_MODULE", None) or "")
    if module is not None and module.__file__:
        yield "the settings", module.__file__
    if getattr(settings, "BASE_DIR", None):
        yield "the project", str(settings.BASE_DIR)
    for entry in settings.DATABASES.values():
        if str(entry.get("ENGINE", "")).endswith(("sqlite3", "spatialite")) and entry.get("NAME"):
            yield "a database", str(entry["NAME"])
    for app in apps.get_app_configs():
        yield "the code of an app", app.path


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class Uploads:
    """Finds uploads, for the middleware in front of Django or for the one in WhiteNoise's place."""

    __slots__ = ("library", "more", "security")

    def __init__(self, library: MediaRoot, security: SecurityHeaders) -> None:
        self.library, self.security = library, security
        named = {name for name, _ in HEADERS}
        self.more = [header for header in security.headers if header[0] not in named]

    def find(self, path: str) -> Upload | None:
        """Return the upload for this PATH_INFO, open; None for anything else."""
        return self.library.open(path, self.more) if path.startswith(self.library.url) else None

    def look_up(self, path: str, script: str) -> Upload | None:
        """Find an upload by Django's version of PATH_INFO."""
        return self.find(path.encode("utf-8", "surrogateescape").decode("latin-1"))

    def layer(self, application: WSGIApplication) -> MediaLayer:
        """Return ``application`` with the uploads in front of it."""
        return MediaLayer(self, application)


class MediaLayer(StaticLayer):
    """The WSGI middleware around Django that answers for uploads and passes everything else on."""

    __slots__ = ("uploads",)

    def __init__(self, uploads: Uploads, application: WSGIApplication) -> None:
        self.uploads, self.application, self.security = uploads, application, uploads.security
        self.hsts, self.redirect = list(self.security.hsts), self.security.redirect

    def may_answer(self, path: str) -> bool:
        """Return whether a path is one of uploads."""
        return path.startswith(self.uploads.library.url)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        """Answer a request for an upload; Django handles all others."""
        path = environ.get("PATH_INFO", "")
        upload = self.uploads.find(path)
        if upload is None:
            return self.application(environ, start_response)
        try:
            return self.answer(upload, decode_path_info(path), environ, start_response)
        finally:
            upload.close()


def find_uploads(*, wanted: bool) -> Uploads | None:
    """Return the uploads if they are to be served; raise ProdserveError if they cannot be."""
    return Uploads(MediaRoot.from_settings(), SecurityHeaders.from_settings()) if wanted else None
