from __future__ import annotations

from pathlib import Path

import pytest

from django_prodserve.project import learned_file
from django_prodserve.tune.keep import keep

from .facts import plan
from .test_tune import result


def test_what_was_found_is_there_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made, found = plan(), result()
    assert keep(found, made) == "kept the result: a start with --apply-advice uses it"
    learned = learned_file.read(found.when).learned
    assert learned is not None
    assert (learned.profile, learned.threads) == (found.recommended.profile, found.recommended.threads)
    assert (learned.source, learned.requests) == ("tune", found.requests)
    assert learned.why_not_on(made.cpus.value, made.memory.value) == ""


def test_a_result_that_cannot_be_kept_is_still_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(learned_file.private_files, "write", refuse)
    assert keep(result(), plan()).startswith("cannot keep the result for --apply-advice: ")


def refuse(*args: object) -> None:
    raise PermissionError(13, "Permission denied")
