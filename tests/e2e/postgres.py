"""Real PostgreSQL and PgBouncer servers on this machine, under an account that is not root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .needs import need_package, need_program
from .serving import PATIENCE


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        return int(finder.getsockname()[1])


def account() -> dict[str, Any]:
    """Return how to start a process that is not root, which these programs refuse to be."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("there is no account but root")


@dataclass(frozen=True)
class Postgres:
    """A cluster; it runs only within ``running()``."""

    directory: Path
    port: int

    def serve_network(self, addresses: str) -> None:
        """Let clients of a network in, such as 10.0.0.0/24, which ``running()`` must then listen to."""
        with (self.directory / "data" / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {addresses} trust\n")

    @contextlib.contextmanager
    def running(self, *more: str) -> Iterator[None]:
        """Run the server for the block; it listens to loopback, and to ``more`` addresses."""
        listens = ",".join(["127.0.0.1", *more])
        place = ["-D", str(self.directory / "data"), "-k", str(self.directory)]
        where = ["-p", str(self.port), "-c", f"listen_addresses={listens}", "-F"]
        with process([need_program("postgres"), *place, *where], self.directory, self.port, signal.SIGINT):
            yield

    def settings(self, name: str, port: int | None = None, **more: Any) -> dict[str, Any]:
        """Return the entry of DATABASES for a database of this cluster."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": "site",
            "HOST": "127.0.0.1",
            "PORT": port or self.port,
            **more,
        }

    def sql(self, statement: str, name: str = "postgres") -> list[Any]:
        """Run one statement, outside a transaction."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": "site", "dbname": name}
        with psycopg.connect(**where, autocommit=True) as connection:  # type: ignore[arg-type]
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def pooler(self) -> Iterator[int]:
        """Run PgBouncer in transaction mode in front of it; yield its port."""
        port = free_port()
        (self.directory / "users").write_text('"site" ""\n')
        configuration = self.directory / f"pgbouncer-{port}.ini"
        configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self.directory / 'users'}\npool_mode = transaction\n"
        )
        with process([need_program("pgbouncer"), str(configuration)], self.directory, port, signal.SIGINT):
            yield port


@contextlib.contextmanager
def process(command: list[str], directory: Path, port: int, stop: int) -> Iterator[None]:
    """Run a server until the block ends; it accepts connections at ``port`` when the block begins."""
    log = directory / f"{Path(command[0]).name}.log"
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, **account()
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(port):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        running.send_signal(stop)
        try:
            running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def answers(port: int) -> bool:
    """Whether somebody accepts connections here, and is ready to serve PostgreSQL's protocol."""
    import psycopg

    where = {"host": "127.0.0.1", "port": port, "user": "site", "dbname": "postgres"}
    try:
        psycopg.connect(**where, connect_timeout=2).close()  # type: ignore[arg-type]
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def cluster() -> Iterator[Postgres]:
    """Make a cluster that nobody else has, and remove it."""
    need_package("psycopg")
    initdb = need_program("initdb")
    directory = Path(tempfile.mkdtemp(prefix="prodserve-postgres-"))
    who = account()
    try:
        if who:
            os.chown(directory, who["user"], who["group"])
        command = [initdb, "-D", str(directory / "data"), "-A", "trust", "-U", "site", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=PATIENCE, **who)
        yield Postgres(directory, free_port())
    finally:
        shutil.rmtree(directory)
