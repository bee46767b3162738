"""A test that cannot run is skipped, or fails where TESTS_REQUIRE says so."""

from __future__ import annotations

import pytest

from tests.e2e.needs import need_package, need_program


@pytest.mark.parametrize("need", [need_package, need_program])
def test_what_is_absent_skips_a_test(need, monkeypatch):
    monkeypatch.setenv("TESTS_REQUIRE", "something_else")
    with pytest.raises(pytest.skip.Exception, match="no_such_thing is not installed"):
        need("no_such_thing")


@pytest.mark.parametrize("need", [need_package, need_program])
def test_what_is_required_and_absent_fails_a_test(need, monkeypatch):
    monkeypatch.setenv("TESTS_REQUIRE", "something_else,no_such_thing")
    with pytest.raises(pytest.fail.Exception, match="no_such_thing"):
        need("no_such_thing")


def test_what_is_there_is_no_obstacle(monkeypatch):
    monkeypatch.setenv("TESTS_REQUIRE", "pytest,python3")
    need_package("pytest")
    assert need_program("python3").endswith("python3")
