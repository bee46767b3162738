"""The server's own lines: few, in UTC, and visible whatever the project's LOGGING says.

Lives in the arbiter and in every worker. Called at start and after the application was loaded, because
``django.setup()`` in a wsgi.py applies LOGGING once more: that disables loggers it does not know, and
removes handlers that were added before.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import DisallowedHost
from gunicorn import glogging

UTC_TIME = "%Y-%m-%dT%H:%M:%SZ"


class UTCFormatter(logging.Formatter):
    """Times in UTC: ``django.setup()`` sets the process's time zone to TIME_ZONE in the middle of a log."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] [%(levelname)s] %(message)s", UTC_TIME)


class ProjectFormatter(UTCFormatter):
    """For the project's errors. A refused Host is one line: scanners send thousands of them."""

    def formatException(self, ei: Any) -> str:  # noqa: N802, the name is logging's
        return "" if issubclass(ei[0], DisallowedHost) else super().formatException(ei)


class Logger(glogging.Logger):  # type: ignore[misc]
    """Gunicorn's logger with its chatter at debug; what operators need is said with ``say``."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            if getattr(handler, "_gunicorn", False):
                handler.setFormatter(UTCFormatter())

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Log at debug: Gunicorn's infos tell what it does, not what anybody must know."""
        self.error_log.debug(msg, *args, **kwargs)

    def say(self, msg: str, *args: Any) -> None:
        """Log at info."""
        self.error_log.info(msg, *args)

    def now(self) -> str:
        """Return the time for access lines, in UTC."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S +0000]", time.gmtime())


def make_visible(log: Logger, logging_setting: Any) -> None:
    """Undo what LOGGING did to the server's loggers, and give 500s a place to show their traceback."""
    named = logging_setting.get("loggers", {}) if isinstance(logging_setting, dict) else {}
    for logger, output in ((log.error_log, log.cfg.errorlog), (log.access_log, log.cfg.accesslog)):
        _keep(log, logger, output, own=logger.name not in named)
    if not any(_shows_errors(handler) for handler in _handlers(logging.getLogger("django.request"))):
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.ERROR)
        handler.setFormatter(ProjectFormatter())
        logging.getLogger("django").addHandler(handler)


def _keep(log: Logger, logger: logging.Logger, output: str | None, *, own: bool) -> None:
    """Enable a logger again. With handlers of the project's own, ours would write every line twice."""
    logger.disabled = False
    ours = [handler for handler in logger.handlers if getattr(handler, "_gunicorn", False)]
    if not own:
        for handler in ours:
            logger.removeHandler(handler)
        return
    logger.propagate = False
    if not ours and output is not None:
        log.setup(log.cfg)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield every handler that a record of this logger reaches."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _shows_errors(handler: logging.Handler) -> bool:
    """Whether an error shows up somewhere through this handler while DEBUG is off; mail may go nowhere."""
    from django.utils.log import AdminEmailHandler, RequireDebugTrue

    hidden = isinstance(handler, (AdminEmailHandler, logging.NullHandler))
    debug_only = any(isinstance(each, RequireDebugTrue) for each in handler.filters)
    return not hidden and not debug_only and handler.level <= logging.ERROR
