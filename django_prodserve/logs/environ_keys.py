"""Keys of the WSGI environ under which the middleware stores data for log lines."""

from __future__ import annotations

ID, QUEUE = "prodserve.request_id", "prodserve.queue"
"""Keys of the environ: the id, and the seconds that the request waited."""

EXCEPTION = "prodserve.exception"
"""Key of the environ: the class of the exception that ended the request."""

CLOSE_CODE = "prodserve.close_code"
"""Key of the environ: the code with which a websocket ended."""

ROUTE, UNLOGGED = "prodserve.route", "prodserve.unlogged"
"""Keys of the environ: the view's name, and whether its requests are excluded from the log."""
