"""The path that a site is mounted below: known at the start, or told with each request.

Lives in the command's process, before anything reads STATIC_URL or MEDIA_URL: Django puts the prefix of the
moment before a relative one, at the first look, and storages keep what they read.
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
    """Return the path of an address as PATH_INFO has it."""
    return path.removeprefix(known().rstrip("/"))


def relative(name: str) -> str:
    """Return a setting that gets the prefix of the moment, as written; an empty text where it is absolute.

    Read below the lazy settings, which keep what they return.
    """
    value = str(getattr(settings._wrapped, name, None) or "")
    return "" if value.startswith(("http://", "https://", "/")) else value


def settle() -> None:
    """Have links below the known script name, whatever an app has looked at while it was loaded."""
    if known():
        set_script_prefix(known())
        forget()
        for name in ADDRESSES:
            getattr(settings, name)


def forget() -> None:
    """Forget what settings and storages have kept of the prefix: the next look decides."""
    names = [name for name in ADDRESSES if relative(name)]
    for name in names:
        setattr(settings, name, getattr(settings._wrapped, name))
    made = storages._storages  # type: ignore[attr-defined]  # not in the stubs
    static = made.get(STATICFILES_STORAGE_ALIAS)
    if "STATIC_URL" in names and not hasattr(static, "relative_url"):  # ours looks each time
        made.pop(STATICFILES_STORAGE_ALIAS, None)
        module = sys.modules.get("django.contrib.staticfiles.storage")
        if module is not None:
            module.staticfiles_storage._wrapped = empty
    if "MEDIA_URL" in names:
        for storage in made.values():
            getattr(storage, "_clear_cached_properties", _nothing)(setting="MEDIA_URL")


def forget_if_told(believed: object) -> None:
    """Let the first request decide, where the operator has proxies tell the script name.

    ``believed`` is Gunicorn's setting ``forwarder_headers``.
    """
    if "SCRIPT_NAME" in str(believed).upper().replace("-", "_") and not known():
        forget()


def _nothing(*, setting: str) -> None:
    """Forget nothing: another kind of storage."""
