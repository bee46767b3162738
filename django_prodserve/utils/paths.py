"""Why a process does not see a file: ``os.path.exists`` gives no reason."""

from __future__ import annotations

import os


def why_unseen(path: str) -> str:
    """Return what hides a file, such as permissions or a loop of links; empty if it is just missing."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""
