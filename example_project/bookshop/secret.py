"""A secret key for those who set none."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def secret_key(path: Path) -> str:
    """Return the key kept in path; the first process makes it, readable by its owner only."""
    if not path.exists():
        handle, draft = tempfile.mkstemp(dir=path.parent)  # O_EXCL and mode 0600
        with os.fdopen(handle, "w") as file:
            file.write(get_random_secret_key())
        # A link appears complete or not at all, and only one of two processes makes it.
        with suppress(FileExistsError):
            os.link(draft, path)
        Path(draft).unlink()
    return path.read_text()
