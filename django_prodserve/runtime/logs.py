"""The server's own lines: few, in UTC, and visible whatever the project's LOGGING says.

Lives in the arbiter and in every worker. ``make_visible`` is called at start and after the application
was loaded, because ``django.setup()`` in a wsgi.py applies LOGGING once more: that disables loggers it
does not name, and removes handlers that were added before.
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
from gunicorn.instrument.statsd import Statsd

from ..logs import request_id
from ..routes import UNLOGGED

UTC_TIME = "%Y-%m-%dT%H:%M:%SZ"


class UTCFormatter(logging.Formatter):
    """Times in UTC: ``django.setup()`` sets the process's time zone to TIME_ZONE in the middle of a log."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] [%(levelname)s] %(prodserve_id)s%(message)s", UTC_TIME)

    def format(self, record: logging.LogRecord) -> str:
        name = request_id.get()
        record.prodserve_id = f"[{name}] " if name else ""
        return super().format(record)


class ProjectFormatter(UTCFormatter):
    """For the project's errors. A refused Host is one line: scanners send thousands of them."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, the name is logging's
        return "" if issubclass(ei[0], DisallowedHost) else super().formatException(ei)


class Logger(glogging.Logger):  # type: ignore[misc]
    """Gunicorn's logger with its chatter at debug; what operators need is said with ``say``."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.ours = {each: [*filter(_is_ours, each.handlers)] for each in (self.error_log, self.access_log)}
        for handler in self.ours[self.error_log]:
            if isinstance(handler, logging.StreamHandler):  # syslog writes the time by itself
                handler.setFormatter(UTCFormatter())

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log at debug: Gunicorn's infos tell what it does, not what anybody must know."""
        self.debug(msg, *args, **kwargs)

    def say(self, msg: str, *args: Any) -> None:
        """Log at info."""
        self.error_log.info(msg, *args)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Log a request as Gunicorn does; nothing is said for its id afterwards."""
        if UNLOGGED not in environ:
            super().access(resp, req, environ, request_time)
        request_id.set("")

    def atoms(self, *args: Any) -> Any:
        """Return what access lines are made of; on a unix socket the peer has no address."""
        atoms = super().atoms(*args)
        return {**atoms, "h": atoms["h"] or "-"}

    def now(self) -> str:
        """Return the time for access lines, in UTC."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime())


class StatsdLogger(Logger, Statsd):  # type: ignore[misc]
    """The same where ``statsd_host`` is set: Gunicorn switches to Statsd only from its own logger class."""


def make_visible(log: Any, logging_setting: Any) -> None:
    """Undo what LOGGING did to the server's loggers, and show errors of Django's that nobody else shows.

    Changes nothing when called again. A ``logger_class`` of the user's own is left alone.
    """
    named = (logging_setting.get("loggers") if isinstance(logging_setting, dict) else None) or {}
    if isinstance(log, Logger):
        _keep(log.error_log, log.ours[log.error_log], named)
        _keep(log.access_log, log.ours[log.access_log], named)
    _show_errors()


def _keep(logger: logging.Logger, ours: list[logging.Handler], named: dict[str, Any]) -> None:
    """Enable a logger again, with our handlers unless LOGGING leads its lines to others."""
    logger.disabled = False
    own = [handler for handler in logger.handlers if not _is_ours(handler)]
    stated = logger.name in named or "gunicorn" in named
    if stated and not own and named.get(logger.name, {}).get("propagate", True):
        logger.propagate = any(_handlers(logger.parent))  # False since Gunicorn made its logger
    elif not stated:
        logger.propagate = False
    elsewhere = stated and (own or logger.propagate)
    for handler in ours:
        # A file or syslog was asked for by name; on the console every line would stand twice.
        if elsewhere and _is_console(handler):
            logger.removeHandler(handler)
        else:
            logger.addHandler(handler)


def _is_ours(handler: logging.Handler) -> bool:
    return bool(getattr(handler, "_gunicorn", False))


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


class ErrorHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not generic before 3.11
    """Writes an error of Django's to standard error if no handler of the project's shows it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.ERROR)
        self.setFormatter(ProjectFormatter())

    def filter(self, record: logging.LogRecord) -> Any:
        shown = any(map(_shows_errors, _handlers(logging.getLogger(record.name))))
        return not shown and super().filter(record)


_SPEAKERS = (
    *("django", "django.request", "django.dispatch"),
    *("django.security", "django.security.DisallowedHost"),
)


def _show_errors() -> None:
    """Give 500s and refused hosts a place to be seen, where LOGGING has none or forgot Django's loggers."""
    for name in _SPEAKERS:
        logger = logging.getLogger(name)
        if logger.disabled:  # by disable_existing_loggers, which is LOGGING's default
            logger.disabled = False
            logger.setLevel(logging.ERROR)
        top = name == "django" or not logger.propagate
        muted = name.startswith("django.security") and any(map(_is_null, logger.handlers))
        if top and not muted and not any(isinstance(each, ErrorHandler) for each in logger.handlers):
            logger.addHandler(ErrorHandler())


def _is_null(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.NullHandler)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield every handler that a record of this logger reaches."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _shows_errors(handler: logging.Handler) -> bool:
    """Whether an error shows up somewhere through this handler of the project's; mail may go nowhere."""
    from django.utils.log import AdminEmailHandler, RequireDebugFalse, RequireDebugTrue

    hidden = isinstance(handler, (ErrorHandler, AdminEmailHandler, logging.NullHandler))
    against = RequireDebugFalse if settings.DEBUG else RequireDebugTrue
    filtered = any(isinstance(each, against) for each in handler.filters)
    return not hidden and not filtered and handler.level <= logging.ERROR
