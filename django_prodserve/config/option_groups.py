"""The options in groups, as ``--help`` and the reference list them. Standard library alone."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "where to serve": (
        *("bind", "certfile", "keyfile", "redirect_http", "acme_webroot"),
        *("umask", "backlog", "management_bind"),
    ),
    "size": (
        *("profile", "workers", "threads", "worker_class", "cpus", "memory", "db_connections"),
        *("apply_advice", "concurrency_limit", "lanes", "worker_connections", "asgi", "roads"),
    ),
    "times": (
        *("timeout", "slow_request", "queue_timeout", "keep_alive", "graceful_timeout", "drain_delay"),
        *("max_lifetime", "max_requests", "max_requests_jitter"),
    ),
    "requests": (
        *("max_body", "limit_request_line", "limit_request_fields", "limit_request_field_size"),
        *("trusted_proxies", "trusted_hops", "client_address_header"),
    ),
    "health": ("health_paths", "readiness_checks", "server_timing"),
    "files": ("static", "private_static", "media"),
    "log": (
        *("access_log", "access_log_sample", "access_log_min_duration"),
        *("log_format", "log_level", "log_redact"),
    ),
    "before serving": ("wait_for_db", "migrate", "collectstatic", "preload", "warmup", "strict"),
    "process": ("side_processes", "supervisor", "reload", "chdir", "env_file", "config", "speedups"),
    "development": ("local", "allow_debug"),
}
"""Names of options by the title of their group. Each option is in one group."""
