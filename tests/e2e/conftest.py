"""Everything here starts real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .serving import environment


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def env(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make an environment of its own for a server; keywords are Django settings."""

    def make(extra: Any = None, **site: Any) -> dict[str, str]:
        return environment(tmp_path, extra, **site)

    return make
