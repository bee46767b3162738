"""What a dry run holds back, each in a process that is thrown away."""

from __future__ import annotations

import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db.backends.signals import connection_created
from django.db.utils import ConnectionHandler
from django.test import override_settings

from django_prodserve.startup import dry_run
from django_prodserve.utils.fork import run_in_fork

PATIENCE = 20.0


def dry(work: Callable[[], Any], scratch: Path | None) -> Any:
    """Return what work returns in a dry run."""

    def child() -> Any:
        dry_run.hold_back(str(scratch) if scratch else None)
        result = work()
        dry_run.end()
        return result

    return run_in_fork(child, patience=PATIENCE)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def raised(work: Callable[[], Any]) -> str:
    """Return the refusal that work ends with."""
    try:
        work()
    except OSError as error:
        return str(error.args[1]) if isinstance(error, dry_run.Refused) else repr(error)
    return ""


def test_what_is_written_is_read_again_and_lies_elsewhere(tmp_path: Path, scratch: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    kept, new, newest = site / "kept", site / "new", site / "newest"
    kept.write_text("one\n")

    def work() -> list[Any]:
        with kept.open("a") as file:
            file.write("two\n")
        with open(kept, "r+b") as raw:
            raw.write(b"ONE")
        number = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(number, b"made")
        os.close(number)
        os.replace(new, newest)
        with tempfile.NamedTemporaryFile(mode="w", delete=False) as temporary:
            temporary.write("temporary")
        os.rename(temporary.name, site / "moved")
        with open(os.devnull, "w") as nowhere:
            nowhere.write("nothing")
        return [kept.read_text(), newest.read_text(), (site / "moved").read_text()]

    assert dry(work, scratch) == ["ONE\ntwo\n", "made", "temporary"]
    assert kept.read_text() == "one\n"
    assert os.listdir(site) == ["kept"]


def test_what_no_copy_can_stand_for_is_refused(tmp_path: Path, scratch: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("one\n")
    changes: list[Callable[[], Any]] = [
        lambda: os.mkdir(tmp_path / "made"),
        lambda: os.unlink(kept),
        lambda: os.rename(kept, tmp_path / "moved"),
        lambda: os.chmod(kept, 0),
        lambda: os.truncate(kept, 0),
        lambda: os.symlink(kept, tmp_path / "link"),
        lambda: os.rmdir(scratch.parent / "scratch" / ".." / "scratch2"),
    ]
    said = dry(lambda: [raised(change) for change in changes], scratch)
    assert all(line.startswith("django-prodserve's warm-up does not change /") for line in said), said
    assert sorted(os.listdir(tmp_path)) == ["kept", "scratch"]
    assert kept.read_text() == "one\n"
    assert kept.stat().st_mode & 0o777


def test_without_a_place_for_copies_nothing_is_written(tmp_path: Path) -> None:
    said = dry(lambda: raised(lambda: (tmp_path / "new").write_text("text")), None)
    assert f"does not change {tmp_path / 'new'}" in said
    assert os.listdir(tmp_path) == []


def test_no_service_is_reached_and_the_line_that_asked_is_known(scratch: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))

        def ask() -> None:
            try:
                socket.create_connection(listener.getsockname())
            except ConnectionRefusedError as error:
                raise RuntimeError("no service") from error

        def work() -> tuple[str, str, str]:
            refused = None
            try:
                ask()
            except RuntimeError as error:
                refused = dry_run.cause(error)
            assert refused is not None
            with socket.socket(type=socket.SOCK_DGRAM) as sender:
                said = raised(lambda: sender.sendto(b"count", datagrams.getsockname()))
            return refused.what, refused.where, said

        what, where, said = dry(work, scratch)
        assert what == f"connect to 127.0.0.1:{listener.getsockname()[1]}"
        assert "test_dry_run.py, line " in where
        assert f"connect to 127.0.0.1:{datagrams.getsockname()[1]}" in said
        for one in (listener, datagrams):
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1) if one is datagrams else one.accept()


@override_settings(SESSION_ENGINE="django.contrib.sessions.backends.file")
def test_a_session_in_a_file_lasts_as_long(tmp_path: Path, scratch: Path) -> None:
    sessions = tmp_path / "sessions"
    sessions.mkdir()

    def work() -> int:
        from django.contrib.sessions.backends.file import SessionStore

        store = SessionStore()
        store["n"] = 1
        store.save()
        return int(SessionStore(store.session_key)["n"])

    with override_settings(SESSION_FILE_PATH=str(sessions)):
        assert dry(work, scratch) == 1
    assert os.listdir(sessions) == []


class Remote(BaseCache):
    """A cache in a service that nobody may ask, with more arguments than Django's."""

    def __init__(self, place: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def set(self, key: str, value: Any, timeout: Any = None, version: Any = None, nx: bool = False) -> Any:
        raise AssertionError("asked")

    add = get = touch = delete = clear = set


@override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Remote", "TIMEOUT": 60}})
def test_a_cache_holds_its_entries_in_the_process(scratch: Path) -> None:
    opened = caches["default"]  # as middleware that was made before

    def work() -> tuple[Any, ...]:
        kept = [opened.set("a", 1), opened.set("a", 2, nx=True), opened.get("a"), "a" in opened]
        caches.close_all()
        return (
            *kept,
            caches["default"].get_or_set("b", 3),
            caches["default"].incr("b"),
            type(opened).__name__,
        )

    assert dry(work, scratch) == (None, False, 1, True, 3, 4, "Remote")


class Posting(BaseEmailBackend):
    def send_messages(self, email_messages: Any) -> int:
        raise AssertionError("sent")


def test_mail_is_made_and_not_sent(scratch: Path) -> None:
    def work() -> list[Any]:
        class Later(Posting):
            def send_messages(self, email_messages: Any) -> int:
                raise AssertionError("sent")

        said = []
        for subject in ("visit", "visit\nBcc: all"):
            message = EmailMessage(subject, "text", "a@example.org", ["b@example.org"])
            for backend in (Posting, Later):
                try:
                    said.append(backend().send_messages([message]))
                except ValueError as error:
                    said.append(type(error).__name__)
        return said

    assert dry(work, scratch) in (
        [1, 1, "BadHeaderError", "BadHeaderError"],
        [1, 1, "ValueError", "ValueError"],
    )


def test_rows_are_there_until_the_end(tmp_path: Path, scratch: Path, django_db_blocker: Any) -> None:
    path = tmp_path / "rows.sqlite3"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE rows (number int)")
    sqlite = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}}

    def work() -> tuple[int, list[str]]:
        with django_db_blocker.unblock(), ConnectionHandler(sqlite)["default"].cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM rows")
            assert os.listdir(tmp_path) == before  # nobody is locked out by reading
            cursor.execute("INSERT INTO rows VALUES (1)")
            cursor.execute("COMMIT")
            cursor.execute("INSERT INTO rows VALUES (2)")
            cursor.execute("SELECT COUNT(*) FROM rows")
            return cursor.fetchone()[0], os.listdir(tmp_path)

    def by_the_driver(commits: Callable[[Any], Any]) -> str:
        with django_db_blocker.unblock(), closing(ConnectionHandler(sqlite)["default"]) as connection:
            connection.ensure_connection()
            with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
                commits(connection)
        return "held"

    def commits_begun(connection: Any) -> None:
        connection.cursor().execute("INSERT INTO rows VALUES (3)")
        connection.connection.commit()

    before = os.listdir(tmp_path)
    assert dry(lambda: by_the_driver(commits_begun), scratch) == "held"
    script = "INSERT INTO rows VALUES (3)"
    assert dry(lambda: by_the_driver(lambda each: each.connection.executescript(script)), scratch) == "held"
    count, files = dry(work, scratch)
    assert count == 2
    assert "rows.sqlite3-journal" in files
    assert os.listdir(tmp_path) == before
    with closing(sqlite3.connect(path)) as reading:
        assert reading.execute("SELECT COUNT(*) FROM rows").fetchone() == (0,)


def test_a_database_without_transactions_is_left_alone(tmp_path: Path, scratch: Path) -> None:
    """Such as MySQL's with MyISAM, and some that others have made for Django."""

    class Features:
        uses_savepoints = False

    class Connection:
        features, alias = Features, "old"

    said = dry(lambda: raised(lambda: connection_created.send(Connection, connection=Connection)), scratch)
    assert said.endswith("does not change the database 'old', which has no transactions")
