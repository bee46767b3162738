"""Stock projects from the package index are served with nothing but the INSTALLED_APPS line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest

from .linked import Visitor, problems
from .serving import serving
from .stock import KEEPER, STOCK, Made

pytestmark = pytest.mark.stock


@pytest.mark.parametrize("name", STOCK)
def test_every_linked_file_arrives_encoded_and_cached(stock: Callable[[str], Made], name: str) -> None:
    made = stock(name)
    with (
        serving(env=made.env, cwd=made.directory) as server,
        contextlib.closing(Visitor(server.address)) as visitor,
    ):
        before, count_before = problems(visitor, [made.stock.login])
        visitor.log_in(made.stock.login, *KEEPER)
        after, count_after = problems(visitor, made.stock.pages)
        assert not before + after, "\n".join(before + after)
        assert count_before > 0
        assert count_after > 0
        assert re.search(r"static +\d+ files, .+, br \+ gzip, cached for a year", server.output)
        about_files = [line for line in server.lines if line.startswith("warning:") and "static" in line]
        assert not about_files
