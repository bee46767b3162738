"""The example project works as a visitor and as its operator would use it.

It has its own settings, so everything runs in processes of its own.
"""

import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="the example project needs pillow")
pytest.importorskip("dj_database_url", reason="the example project needs dj-database-url")

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "example_project"
OURS = {"ALLOWED_HOSTS", "BOOKSHOP_HTTPS", "CSRF_TRUSTED_ORIGINS", "DATABASE_URL"}
OURS |= {"DJANGO_DEBUG", "DJANGO_SETTINGS_MODULE", "SECRET_KEY"}


def run(data: Path, *arguments: str, **extra: str) -> str:
    """Run Python in the example project, and return what it printed."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    env |= {"BOOKSHOP_DATA": str(data), "PYTHONPATH": str(ROOT), **extra}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=SHOP, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_shop_passes_its_own_tests(tmp_path):
    """Every page, the forms and the uploads are walked through by the project's tests."""
    assert "\nOK\n" in run(tmp_path, "manage.py", "test")


def test_the_settings_pass_the_checks_for_deployment(tmp_path):
    """Behind HTTPS, Django has nothing to say but what depends on the domain."""
    out = run(tmp_path, "manage.py", "check", "--deploy", BOOKSHOP_HTTPS="1")
    # Subdomains and preloading are promises about the domain, which an example does not own.
    found = [line.split(")")[0] for line in out.splitlines() if line.startswith("?: (security")]
    assert sorted(found) == [
        "?: (security.W005",
        "?: (security.W021",
    ]


def test_the_migrations_match_the_models(tmp_path):
    """No model was changed without its migration."""
    assert "No changes" in run(tmp_path, "manage.py", "makemigrations", "--check", "--dry-run")


def test_migrate_makes_everything_and_writes_to_one_private_folder(tmp_path):
    """One command makes the database with its books, all below BOOKSHOP_DATA."""
    data = tmp_path / "with space" / "var"
    run(data, "manage.py", "migrate", "--verbosity", "0")
    assert {path.name for path in data.iterdir()} <= {
        "db.sqlite3",
        "db.sqlite3-shm",
        "db.sqlite3-wal",
        "secret_key",
    }
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "secret_key").stat().st_mode) == 0o600
    database = sqlite3.connect(data / "db.sqlite3")
    count = "SELECT (SELECT count(*) FROM catalogue_book), (SELECT count(*) FROM catalogue_review)"
    assert database.execute(count).fetchone() == (197, 468)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_processes_that_start_together_share_one_secret(tmp_path):
    """Whoever comes first makes the key; nobody reads half of it."""
    script = "from pathlib import Path; from bookshop.secret import secret_key; "
    script += f"print(secret_key(Path({str(tmp_path)!r}) / 'key'))"
    with ThreadPoolExecutor(6) as pool:
        keys = set(pool.map(lambda _: run(tmp_path, "-c", script), range(6)))
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
