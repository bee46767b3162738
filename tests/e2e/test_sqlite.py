"""Following the warning about sqlite makes writers wait for each other instead of failing."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .serving import run, serving

WRITES = 90


def test_ninety_writes_at_once_after_following_the_warning(env: Any, tmp_path: Any) -> None:
    plain = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}
    before = env(DATABASES={"default": plain})
    assert run("manage.py", "migrate", "-v0", env=before).returncode == 0
    told = run("manage.py", "prodserve", "check", "--bind", "127.0.0.1:0", env=before).stdout
    line = re.search(r'\["OPTIONS"\] = (\{.*\})', told)
    assert line, told
    options = eval(line[1], {})  # the line as somebody pastes it
    with serving("--workers", "2", env=env(DATABASES={"default": {**plain, "OPTIONS": options}})) as server:
        assert "W001" not in server.output
        with ThreadPoolExecutor(30) as clients:
            statuses = Counter(clients.map(lambda _: server.get("/write/").status, range(WRITES)))
        assert statuses == {200: WRITES}
        assert int(server.get("/write/").text) == WRITES
