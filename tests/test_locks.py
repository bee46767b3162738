"""A lock is held by one, waited for with a line, and not for ever."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.errors import ProdserveError
from django_prodserve.startup import locks
from django_prodserve.startup.locks import DirectoryLock, exclusive, lock_for


def test_one_at_a_time_and_not_for_ever(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
    said: list[str] = []
    with exclusive(DirectoryLock(tmp_path), "the work", said.append):
        assert said == []
        with (
            pytest.raises(ProdserveError, match=r"busy with the work for 0\.2 s"),
            exclusive(DirectoryLock(tmp_path), "the work", said.append),
        ):
            raise AssertionError("two hold it")
        assert said == ["waiting for another server, which is busy with the work"]
    with exclusive(DirectoryLock(tmp_path), "the work", said.append):
        assert len(said) == 1
    assert not list(tmp_path.iterdir())


def test_it_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(DirectoryLock(tmp_path), "the work", print):
        raise ZeroDivisionError
    lock = DirectoryLock(tmp_path)
    assert lock.take()
    lock.release()


@pytest.mark.parametrize("kind", ["unknown vendor", "unlockable"])
def test_without_a_lock_the_work_is_done_with_a_warning(tmp_path: Path, kind: str) -> None:
    said: list[str] = []
    lock = None if kind == "unknown vendor" else DirectoryLock(tmp_path / "nowhere")
    with exclusive(lock, "the work", said.append):
        pass
    (line,) = said
    assert line.startswith("warning: ")
    assert line.endswith("start one server first, then the others.")


@pytest.mark.parametrize("name", ["{}/db.sqlite3", "file:{}/db.sqlite3?cache=shared"])
def test_a_sqlite_database_is_locked_by_its_directory(tmp_path: Path, name: str) -> None:
    connection = SimpleNamespace(vendor="sqlite", settings_dict={"NAME": name.format(tmp_path)})
    lock = lock_for(connection)
    assert isinstance(lock, DirectoryLock)
    assert lock.directory == str(tmp_path)


def test_a_vendor_without_a_lock_of_ours() -> None:
    assert lock_for(SimpleNamespace(vendor="oracle")) is None
