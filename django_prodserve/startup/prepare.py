"""Optional steps before serving: wait for databases, migrate, collectstatic.

Runs in the command's process, main thread, while the address is bound and before the application is loaded.
So early clients are refused, and a step that fails leaves no half-started server. It leaves no connection,
pool or thread for the fork.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command, get_commands
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.migrations.executor import MigrationExecutor

from ..errors import ProdserveError
from ..plan.plan import Plan, make_plan
from ..project.databases import close_connections
from ..staticfiles import FileCount, choose_static
from ..staticfiles.choice import Storage, nothing_to_serve
from ..staticfiles.progress import COLLECT
from ..utils.notice import part, warning
from ..utils.tracebacks import project_error
from ..utils.units import format_duration
from .announcer import Announcer
from .locks import DirectoryLock, exclusive, lock_for, private_connection

Say = Callable[[str], object]


def prepare(plan: Plan, say: Announcer) -> tuple[Plan, bool]:
    """Run the requested steps; return the plan with the static files as they are afterwards.

    The second value is true if a step created data that was missing when the project was loaded. Code that
    read tables or a manifest at that time has read nothing.
    """
    changed = False
    try:
        if plan.wait_for_db.value:
            changed |= wait_for_databases(plan.wait_for_db.value, say)
        if plan.migrate.value:
            changed |= migrate(say)
        if plan.collectstatic.value:
            changed |= collectstatic(say, served=plan.static.value not in ("off", "project"))
            choice = choose_static(wanted=plan.static.value != "off", collect=plan.private_static.value)
            project = replace(plan.inputs.project, static=choice)
            return make_plan(replace(plan.inputs, project=project)), changed
    finally:
        close_connections()
    return plan, changed


FIRST_LINE, NEXT_LINE = 1.0, 5.0  # seconds: no line if the database answers, occasional lines otherwise


class DatabaseWaiter(threading.Thread):
    """Queries one database until it answers. It needs a thread: no driver's timeout covers everything."""

    def __init__(self, alias: str, given_up: threading.Event) -> None:
        super().__init__(name=f"asking {alias}", daemon=True)
        self.alias, self.given_up = alias, given_up
        self.reason = "no answer"
        self.hopeless: Exception | None = None
        self.failed = False

    def run(self) -> None:
        pause = 0.1
        while not self.given_up.is_set():
            try:
                ask(self.alias)
                return
            except ImproperlyConfigured as error:
                self.hopeless = error
                return
            except Exception as error:  # each driver has its own exception
                self.reason, self.failed = reason(error), True
            self.given_up.wait(pause)
            pause = min(2 * pause, 1.0)

    @property
    def title(self) -> str:
        """Return ``default at db:5432``."""
        return f"{self.alias}{place(connections[self.alias])}"


def ask(alias: str) -> None:
    """Return when a database answers a query; otherwise the driver's exception gives the reason."""
    connection = private_connection(connections[alias])
    if connection.vendor in {"postgresql", "mysql"}:
        # An address that drops packets may belong to another host soon: resolve its name again.
        connection.settings_dict["OPTIONS"].setdefault("connect_timeout", 5)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(f"SELECT 1{' FROM DUAL' if connection.vendor == 'oracle' else ''}")


def wait_for_databases(patience: float, say: Say) -> bool:
    """Return when every database answers; raise ProdserveError after ``patience`` seconds.

    Return whether one did not answer at first.
    """
    given_up = threading.Event()
    asked = [
        DatabaseWaiter(alias, given_up) for alias in connections if connections[alias].vendor != "unknown"
    ]
    started = time.monotonic()
    for question in asked:
        question.start()
    try:
        _watch(asked, started, patience, say)
    finally:
        given_up.set()
    for question in asked:
        if question.hopeless is not None:
            raise ProdserveError(f"Database {question.title}: {question.hopeless}", "Correct DATABASES.")
    return any(question.failed for question in asked)


def _watch(asked: list[DatabaseWaiter], started: float, patience: float, say: Say) -> None:
    next_line = FIRST_LINE
    while missing := [question for question in asked if question.is_alive()]:
        passed = time.monotonic() - started
        if passed >= patience:
            named = "\n".join(
                f"Database {question.title} did not answer: {question.reason}" for question in missing
            )
            waited = f"Waited {format_duration(patience)} (--wait-for-db)."
            raise ProdserveError(named, f"{waited} Start the database, or correct DATABASES.")
        if passed >= next_line:
            next_line = passed + NEXT_LINE
            for question in missing:
                of = f"{passed:.0f} s of {format_duration(patience)}"
                say(f"waiting for database {question.title}: {question.reason} ({of})")
        missing[0].join(min(0.1, patience - passed))


PREFIXES = re.compile(r"connection (failed|is bad): |connection to server .*? failed: |FATAL: +")


def reason(error: Exception) -> str:
    """Return a driver's error in one line, without the address, which our message already has."""
    text = str(error.args[-1] if error.args else "").strip().partition("\n")[0]
    short = PREFIXES.sub("", text) or type(error).__name__
    return short[0].lower() + short[1:]


PORTS = {"postgresql": 5432, "mysql": 3306, "oracle": 1521}


def place(connection: Any) -> str:
    """Return `` at HOST:PORT``, or nothing if the settings do not define it."""
    host, port = connection.settings_dict.get("HOST"), connection.settings_dict.get("PORT")
    if not host:
        return (
            f" ({os.path.basename(connection.settings_dict['NAME'])})"
            if connection.vendor == "sqlite"
            else ""
        )
    port = port or PORTS.get(connection.vendor, "")
    return f" at {host}:{port}" if port else f" at {host}"


def migrate(say: Say) -> bool:
    """Apply pending migrations, one database after the other, under a lock among all servers.

    Return whether there were any, applied by this server or by another that it waited for.
    """
    changed = False
    for alias in filter(is_migrated, connections):
        applying = Applying(alias, say)
        _require_directory(alias)
        try:
            changed |= _migrate(alias, applying, say)
        except ProdserveError:
            raise
        except Exception as error:  # a migration is the project's code
            raise project_error(f"Migrating database {alias} failed{applying.where}", error) from error
        except (KeyboardInterrupt, SystemExit):
            say(warning(f"Migrating database {alias} was stopped{applying.where}."))
            raise
    return changed


def _require_directory(alias: str) -> None:
    """Raise ProdserveError if an SQLite file cannot be created: its directory is missing."""
    connection = connections[alias]
    name = str(connection.settings_dict["NAME"])
    directory = os.path.dirname(name) or "."
    is_file = connection.vendor == "sqlite" and ":memory:" not in name and not name.startswith("file:")
    if is_file and not os.path.isdir(directory):
        raise ProdserveError(
            f"Migrating database {alias} failed: there is no directory {directory} for its file.",
            f"mkdir -p {directory}, or correct DATABASES.",
            code="file",
            topic="database",
        )


def is_migrated(alias: str) -> bool:
    """Whether migrations belong there: the default, and where a router of the project names the database.

    Django allows every migration in a database that no router mentions. A second database often belongs to
    another project.
    """
    connection = connections[alias]
    if connection.vendor == "unknown" or connection.settings_dict["TEST"].get("MIRROR"):
        return False
    return alias == DEFAULT_DB_ALIAS or (any(_routers_say(alias)) and not _is_read_only(connection))


def _routers_say(alias: str) -> Iterator[bool]:
    """Yield the answer of the first router with an opinion on each app, and on each model."""
    allows = [
        one_router.allow_migrate for one_router in router.routers if hasattr(one_router, "allow_migrate")
    ]
    for app in apps.get_app_configs():
        models: list[dict[str, Any]] = [{"model_name": model._meta.model_name} for model in app.get_models()]
        for hints in ({}, *models):
            said = (allow(alias, app.label, **hints) for allow in allows)
            yield bool(next((opinion for opinion in said if opinion is not None), False))


def _is_read_only(connection: Any) -> bool:
    """Whether this is a replica that a router with one answer for all databases overlooked."""
    if connection.vendor != "postgresql":
        return False
    with closing(private_connection(connection)) as own, own.cursor() as cursor:
        cursor.execute("SHOW transaction_read_only")
        return bool(cursor.fetchone()[0] == "on")


def _migrate(alias: str, applying: Applying, say: Say) -> bool:
    # A project may have its own migrate, which knows of more than one schema: then that one always decides.
    is_djangos = get_commands().get("migrate") == "django.core"
    if is_djangos and not _pending(alias):
        say(part("migrate", f"{alias}: nothing to apply"))
        return False
    with exclusive(lock_for(connections[alias]), f"the migrations of database {alias}", say):
        applying.total = _pending(alias) if is_djangos else 0
        if is_djangos and not applying.total:
            say(part("migrate", f"{alias}: nothing left to apply"))
            return True
        started = time.monotonic()
        call_command("migrate", database=alias, interactive=False, no_color=True, stdout=applying)
        say(part("migrate", f"{alias}: done in {format_duration(time.monotonic() - started)}"))
    return is_djangos or applying.seen


def _pending(alias: str) -> int:
    executor = MigrationExecutor(connections[alias])
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


class Applying(io.TextIOBase):
    """Receives the output of migrate, and extracts the current migration."""

    def __init__(self, alias: str, say: Say) -> None:
        self.alias, self.say = alias, say
        self.count = self.total = 0
        self.current = ""
        self.seen = False
        """Whether a migration was applied, in any wording of a custom migrate command."""

    @property
    def where(self) -> str:
        """Return `` at shop.0002_prices``, or nothing before the first."""
        return f" at {self.current}" if self.current else ""

    def write(self, text: str) -> int:
        self.seen = self.seen or "Applying " in text
        found = re.match(r" *Applying (\S+?)\.\.\.", text)
        if found:
            self.count, self.current = self.count + 1, found[1]
            of = f" ({self.count} of {self.total})" if self.total else ""
            self.say(part("migrate", f"{self.alias}: applying {self.current}{of}"))
        elif text.strip() and not self.total:
            self.say(part("migrate", f"{self.alias}: {text.strip()}"))
        return len(text)


def collectstatic(say: Announcer, *, served: bool) -> bool:
    """Fill STATIC_ROOT; return whether files were new. Files that we serve get hashed and compressed copies,
    as in our own directory, unless the project chose a storage."""
    why_not = nothing_to_serve(wanted=True)
    if why_not:
        raise ProdserveError(f"--collectstatic: {why_not}.")
    storage = Storage.from_settings()
    if storage.is_local and not storage.root:
        raise ProdserveError(
            "--collectstatic needs STATIC_ROOT, the directory to collect into.",
            'STATIC_ROOT = BASE_DIR / "static-root" in the settings. '
            "Without --collectstatic prodserve collects into a private directory.",
        )
    output, before, count = io.StringIO(), _manifest(storage), FileCount()
    count.begin(COLLECT, 0)
    try:
        with (
            _storage(storage, count, ours=served and storage.is_default) as problems,
            _locked(storage, say) as waited,
            say.step(count.__str__),
        ):
            call_command("collectstatic", interactive=False, no_color=True, stdout=output)
            lines = problems()
    except ProdserveError:
        raise
    except Exception as error:  # storages and finders are the project's code
        raise project_error("collectstatic failed", error) from error
    summary = output.getvalue().strip().rpartition("\n")[2].strip().rstrip(".")
    say(part("collect", summary or "done"))
    for line in lines:
        say(warning(line))
    return waited or bool(NEW_FILES.match(summary)) or _manifest(storage) != before


def _manifest(storage: Storage) -> bytes:
    """Return the hashed names: files may get them without being copied."""
    with suppress(OSError):
        return Path(storage.root, "staticfiles.json").read_bytes() if storage.is_local else b""
    return b""


NEW_FILES = re.compile(r"[1-9]\d* static files? (copied|symlinked)")
"""Matches the last line of collectstatic: ``3 static files copied to '/srv/root', 130 unmodified``."""


@contextmanager
def _storage(storage: Storage, count: FileCount, *, ours: bool) -> Iterator[Callable[[], list[str]]]:
    """Use our storage in the block, if it may collect; yield a function that lists its problems."""
    if not ours:
        yield list
        return
    from django.core.files.storage import storages

    from ..staticfiles.storage import LenientStorage, use_storage

    undo = use_storage(storage.ours(), static_root=storage.root)
    try:
        lenient: Any = storages["staticfiles"]
        assert isinstance(lenient, LenientStorage)
        lenient.count = count
        yield lenient.problems
    finally:
        undo()


@contextmanager
def _locked(storage: Storage, say: Say) -> Iterator[bool]:
    """Lock a STATIC_ROOT: servers that share it would give files second names if they collected together.

    Yield whether another server collected until now.
    """
    if not storage.is_local:
        yield False
        return
    try:
        os.makedirs(storage.root, exist_ok=True)
    except OSError as error:
        raise ProdserveError(
            f"collectstatic failed: STATIC_ROOT, {storage.root}, cannot be created: {error.strerror}.",
            "Correct STATIC_ROOT, or create the directory for this user.",
            code="file",
            topic="static",
        ) from error
    with exclusive(DirectoryLock(storage.root), "collecting into STATIC_ROOT", say) as waited:
        yield waited
