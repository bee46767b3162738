"""The server's own log lines: few, in UTC, and visible whatever the project's LOGGING contains.

Lives in the arbiter and in every worker. ``restore_handlers`` is called at start and after the application
was loaded. ``django.setup()`` in a wsgi.py applies LOGGING once more: that disables loggers it does not name,
and removes handlers that were added before.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from gunicorn import glogging
from gunicorn.config import AccessLogFormat
from gunicorn.http.wsgi import Response
from gunicorn.instrument.statsd import Statsd

from ..utils.log_lines import wants_json
from . import JSONFormatter, nonblocking, request_id
from .access_lines import AccessFilter, JSONLines, ShortLines, TextLines, entry
from .config import LogConfig
from .environ_keys import UNLOGGED
from .redaction import Redaction

UTC_TIME = "%Y-%m-%dT%H:%M:%SZ"


class UTCFormatter(logging.Formatter):
    """Times in UTC: ``django.setup()`` sets the process's time zone to TIME_ZONE while the log is in use."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] [%(levelname)s] %(prodserve_id)s%(message)s", UTC_TIME)

    def format(self, record: logging.LogRecord) -> str:
        name = request_id.get()
        record.prodserve_id = f"[{name}] " if name else ""
        return super().format(record)


class _OneLineForHosts(logging.Formatter):
    """For errors from your project. A refused Host is one line, because scanners cause thousands of them."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, the name is logging's
        return "" if issubclass(ei[0], DisallowedHost) else super().formatException(ei)


class ProjectFormatter(_OneLineForHosts, UTCFormatter):
    """The same as text."""


class ProjectJSONFormatter(_OneLineForHosts, JSONFormatter):
    """The same as JSON."""


_FORM = LogConfig()


def configure(form: LogConfig) -> None:
    """Set the options for which Gunicorn has no settings, before Gunicorn creates its logger."""
    global _FORM
    _FORM = form


def _is_json(handler: logging.Handler) -> bool:
    """Return whether this handler writes JSON; syslog has its own format."""
    stream = getattr(handler, "stream", None)
    try:
        return stream is not None and wants_json(_FORM.format, stream.fileno())
    except (OSError, ValueError):  # a stream without a file
        return _FORM.format == "json"


class Logger(glogging.Logger):  # type: ignore[misc]
    """Gunicorn's logger with its routine lines at debug; operators' lines are logged with ``notice``."""

    def setup(self, cfg: Any) -> None:
        self.redaction = Redaction(_FORM.redact)
        self.choice = AccessFilter(_FORM.sample, _FORM.slow)
        self._next_look = 0.0
        text = ShortLines if _FORM.short else TextLines
        self._lines = text(self.redaction), JSONLines(self.redaction)
        self.is_plain = cfg.access_log_format == AccessLogFormat.default
        """Whether the access log has our format, not one set by the user."""
        super().setup(cfg)
        self.ours = {
            logger: [*filter(_is_ours, logger.handlers)] for logger in (self.error_log, self.access_log)
        }
        for handler in self.ours[self.error_log]:
            if isinstance(handler, logging.StreamHandler):  # our handler; syslog adds the time itself
                handler.setFormatter(
                    JSONFormatter() if getattr(handler, "is_json", False) else UTCFormatter()
                )

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        """Let Gunicorn create a handler, and replace it by one that never blocks."""
        super()._set_handler(log, output, fmt, stream)
        made = self._get_gunicorn_handler(log)
        if made is None or output is None:
            return
        name = "The access log" if log is self.access_log else "The error log"
        handler: nonblocking.ConsoleHandler | nonblocking.FileHandler
        if isinstance(made, logging.FileHandler):
            handler = nonblocking.FileHandler(made.baseFilename, f"{name} {output}")
        else:
            stream = str(getattr(made.stream, "name", "its stream")).strip("<>")
            handler = nonblocking.ConsoleHandler(made.stream, f"{name} on {stream}")
        log.removeHandler(made)
        made.close()
        handler.setFormatter(fmt)
        handler.is_json = _is_json(handler)
        handler._gunicorn = True  # type: ignore[union-attr]  # its mark
        log.addHandler(handler)

    def access_lines(self) -> TextLines | ShortLines | JSONLines:
        """Return the formatter for the current access log; a handler from your project gets text."""
        return self._lines[any(getattr(handler, "is_json", False) for handler in self.access_log.handlers)]

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log Gunicorn's own infos at debug: they describe its internals. A hook's infos stay at info."""
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        level = logging.DEBUG if caller.partition(".")[0] == "gunicorn" else logging.INFO
        self.error_log.log(level, msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log at warning, redacted: Gunicorn's texts may contain bytes from a client."""
        super().warning(msg if args else self._redact(msg), *map(self._redact, args), **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log with the traceback, redacted: Gunicorn's text contains the target of the request."""
        super().exception(msg, *map(self._redact, args), **kwargs)

    def _redact(self, value: Any) -> Any:
        return self.redaction.prose(value) if isinstance(value, str) else value

    def notice(self, msg: str, *args: Any) -> None:
        """Log at info."""
        self.error_log.info(msg, *args)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Log a request if the filter keeps it, then reset its id: no further line belongs to it."""
        if isinstance(resp, Response) and getattr(req, "is_noted", False):
            return  # refused, and the worker logs it
        seconds, status = request_time.total_seconds(), int(str(resp.status).split()[0])
        if UNLOGGED not in environ and self.choice.keeps(status, seconds):
            if self.is_plain and self.access_log_enabled:
                self.access_log.info(
                    "%s", self.access_lines()(entry(environ, status, resp.sent or 0, seconds))
                )
            else:
                glogging.Logger.access(self, resp, req, environ, request_time)
        self._log_lost_lines()
        request_id.set("")

    def _log_lost_lines(self) -> None:
        """Log lost lines, as our worker's main thread does once a second: Gunicorn's own workers do not."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1.0
            for line in nonblocking.report_lost(now):
                self.error("%s", line)

    def atoms(self, *args: Any) -> Any:
        """Return the atoms of access lines; on a unix socket the peer has no address."""
        atoms = super().atoms(*args)
        atoms["h"] = atoms["h"] or "-"
        if self.redaction.is_on:
            whole = {"r", "f", "{referer}i", "{raw_uri}e", "{http_referer}e"}
            atoms |= {name: self.redaction.prose(atoms[name]) for name in whole & atoms.keys()}
            query = {"q", "{query_string}e"}
            atoms |= {name: self.redaction.query(atoms[name] or "") for name in query & atoms.keys()}
        return atoms

    def now(self) -> str:
        """Return the time for access lines, in UTC."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime())


class _Counts(Statsd):  # type: ignore[misc]
    """Statsd's metrics of a request, without its log line."""

    access_log_enabled = False

    def __init__(self, log: StatsdLogger) -> None:
        self.__dict__.update(log.__dict__)


class StatsdLogger(Logger, Statsd):  # type: ignore[misc]
    """The same with ``statsd_host``: Gunicorn switches to Statsd only from its own logger class."""

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Log a request as the base class does, and count it even if it is not logged."""
        super().access(resp, req, environ, request_time)
        _Counts(self).access(resp, req, environ, request_time)


def restore_handlers(log: Any, logging_setting: Any) -> None:
    """Undo LOGGING's changes to the server's loggers, and show errors of Django that no other handler shows.

    Calling it again changes nothing. A custom ``logger_class`` is left alone.
    """
    named = (logging_setting.get("loggers") if isinstance(logging_setting, dict) else None) or {}
    if isinstance(log, Logger):
        _keep(log.error_log, log.ours[log.error_log], named)
        _keep(log.access_log, log.ours[log.access_log], named)
    _show_errors()
    if not isinstance(logging.lastResort, FallbackHandler):
        logging.lastResort = FallbackHandler()


def _keep(logger: logging.Logger, ours: list[logging.Handler], named: dict[str, Any]) -> None:
    """Enable a logger again, with our handlers unless LOGGING sends its lines to others."""
    logger.disabled = False
    own = [handler for handler in logger.handlers if not _is_ours(handler)]
    stated = logger.name in named or "gunicorn" in named
    if stated and not own and named.get(logger.name, {}).get("propagate", True):
        logger.propagate = any(_handlers(logger.parent))  # False since Gunicorn created its logger
    elif not stated:
        logger.propagate = False
    elsewhere = stated and (own or logger.propagate)
    for handler in ours:
        # The user named a file or syslog explicitly; the console would show every line twice.
        if elsewhere and _is_console(handler):
            logger.removeHandler(handler)
        else:
            logger.addHandler(handler)


def _is_ours(handler: logging.Handler) -> bool:
    return bool(getattr(handler, "_gunicorn", False))


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


class FallbackHandler(nonblocking.ConsoleHandler):
    """Writes records without a handler to standard error, as Python's own fallback does, in our format."""

    def __init__(self, level: int = logging.WARNING) -> None:
        super().__init__(sys.stderr, "Standard error")
        self.setLevel(level)
        self.setFormatter(ProjectJSONFormatter() if _is_json(self) else ProjectFormatter())


class ErrorHandler(FallbackHandler):
    """Writes an error of Django to standard error if no handler from your project shows it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def filter(self, record: logging.LogRecord) -> Any:
        shown = any(map(_shows_errors, _handlers(logging.getLogger(record.name))))
        return not shown and super().filter(record)


DJANGO_LOGGERS = (
    *("django", "django.request", "django.dispatch"),
    *("django.security", "django.security.DisallowedHost"),
)


def _show_errors() -> None:
    """Make 500s and refused hosts visible if LOGGING has no handler for them, or omits Django's loggers."""
    for name in DJANGO_LOGGERS:
        logger = logging.getLogger(name)
        if logger.disabled:  # by disable_existing_loggers, the default of LOGGING
            logger.disabled = False
            logger.setLevel(logging.ERROR)
        top = name == "django" or not logger.propagate
        muted = name.startswith("django.security") and any(map(_is_null, logger.handlers))
        if top and not muted and not any(isinstance(handler, ErrorHandler) for handler in logger.handlers):
            logger.addHandler(ErrorHandler())


def _is_null(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.NullHandler)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield every handler that a record of this logger reaches."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _shows_errors(handler: logging.Handler) -> bool:
    """Return whether this handler from your project shows errors; mail may reach nobody."""
    from django.utils.log import AdminEmailHandler, RequireDebugFalse, RequireDebugTrue

    hidden = isinstance(handler, (ErrorHandler, AdminEmailHandler, logging.NullHandler))
    against = RequireDebugFalse if settings.DEBUG else RequireDebugTrue
    filtered = any(isinstance(one_filter, against) for one_filter in handler.filters)
    return not hidden and not filtered and handler.level <= logging.ERROR
