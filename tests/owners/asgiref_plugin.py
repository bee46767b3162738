"""A pytest plugin for asgiref's tests: our changes, and what failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from changed import REPORT, change

failed: set[str] = set()
ran: set[str] = set()

change(immortal=False)


def pytest_runtest_logreport(report: Any) -> None:
    ran.add(report.nodeid)
    if report.failed:
        failed.add(report.nodeid)


def pytest_sessionfinish(session: Any) -> None:
    Path(os.environ[REPORT]).write_text(json.dumps({"ran": len(ran), "failed": sorted(failed)}))
