"""Count request bodies against the memory limit, where the temporary directory is memory.

Runs in a worker, main thread, before it serves.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ..http.spool import SPACE
from ..machine.cgroups import FileRoot
from ..machine.memory_files import MemoryFiles
from ..machine.temporary import find_memory_type
from ..plan.sizing import REPLACE_SHARE


def count_bodies() -> None:
    """Limit the bodies of this process to what memory holds, if they are stored in memory."""
    with suppress(OSError):  # no directory can be written, so no body can
        kind = find_memory_type(FileRoot(Path("/")), tempfile.gettempdir(), os.environ)
        if kind:
            # Beyond this share the arbiter replaces workers.
            SPACE.limit_memory(MemoryFiles(REPLACE_SHARE).left, kind)
