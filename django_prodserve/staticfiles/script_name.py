"""The path below which a site is mounted: known at the start, or sent with each request.

Lives in the command's process, before any code reads STATIC_URL or MEDIA_URL. Django prepends the current
prefix to a relative one at the first access, and storages keep the value that they read.
"""

from __future__ import annotations

import os
import sys

from django.conf import STATICFILES_STORAGE_ALIAS, settings
from django.core.files.storage import storages
from django.urls import set_script_prefix
from django.utils.functional import empty

ADDRESSES = ("STATIC_URL", "MEDIA_URL")


def known() -> str:
    """Return the script name that every request has: FORCE_SCRIPT_NAME, or SCRIPT_NAME in the environment."""
    forced: str | None = settings.FORCE_SCRIPT_NAME
    return os.environ.get("SCRIPT_NAME", "") if forced is None else forced


def without_known(path: str) -> str:
    """Return the path of an address in the form of PATH_INFO."""
    return path.removeprefix(known().rstrip("/"))


def relative(name: str) -> str:
    """Return a setting that gets the current prefix, as configured; an empty text if it is absolute.

    Bypasses the lazy settings, which cache the value that they return.
    """
    value = str(getattr(settings._wrapped, name, None) or "")
    return "" if value.startswith(("http://", "https://", "/")) else value


def settle() -> None:
    """Put links below the known script name, whatever an app has read while it was loaded."""
    if known():
        set_script_prefix(known())
        forget()
        for name in ADDRESSES:
            getattr(settings, name)


def forget() -> None:
    """Clear the cached prefix of settings and storages: the next access decides."""
    names = [name for name in ADDRESSES if relative(name)]
    for name in names:
        setattr(settings, name, getattr(settings._wrapped, name))
    made = storages._storages  # type: ignore[attr-defined]  # not in the stubs
    static = made.get(STATICFILES_STORAGE_ALIAS)
    if "STATIC_URL" in names and not hasattr(static, "relative_url"):  # ours reads it at each access
        made.pop(STATICFILES_STORAGE_ALIAS, None)
        module = sys.modules.get("django.contrib.staticfiles.storage")
        if module is not None:
            module.staticfiles_storage._wrapped = empty
    if "MEDIA_URL" in names:
        for storage in made.values():
            getattr(storage, "_clear_cached_properties", _nothing)(setting="MEDIA_URL")


def forget_if_told(believed: object) -> None:
    """Let the first request decide, if the operator lets proxies send the script name.

    ``believed`` is Gunicorn's setting ``forwarder_headers``.
    """
    if "SCRIPT_NAME" in str(believed).upper().replace("-", "_") and not known():
        forget()


def _nothing(*, setting: str) -> None:
    """Clear nothing: another kind of storage."""
