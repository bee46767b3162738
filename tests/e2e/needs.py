"""What a test needs beyond the group ``test``: where it is absent the test is skipped, and says why.

TESTS_REQUIRE=chromium,wagtail names what must be there: its absence is a failure then. ``.ci/run`` sets it,
so that nothing is skipped unseen.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(name: str, reason: str) -> NoReturn:
    """Skip this test for want of ``name``, or fail it where that is required."""
    if name in os.environ.get("TESTS_REQUIRE", "").split(","):
        pytest.fail(f"TESTS_REQUIRE names {name}: {reason}", pytrace=False)
    pytest.skip(reason)


def need_program(name: str) -> str:
    """Return the path of a program, of a server that is not on PATH too."""
    elsewhere = [
        str(Path(sys.executable).parent),
        "/usr/sbin",
        "/sbin",
        *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    ]
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(elsewhere))
    if path is None:
        lacking(name, f"the program {name} is not installed")
    return path


def need_package(*names: str) -> None:
    """Go on only where these packages can be imported."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            lacking(name, f"the package {name} is not installed: pip install --group stock")
