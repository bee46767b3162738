"""Signals that a project may listen to."""

from __future__ import annotations

from django.dispatch import Signal

worker_started = Signal()
"""Sent once in each worker process before its first request: the place for threads, channels and exporters.

Keyword: ``worker``, Gunicorn's. Runs in the worker's main thread. An exception of a receiver is logged.
"""
