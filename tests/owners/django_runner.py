"""Django's test runner with our changes, which writes down what failed. Loaded by Django's runtests.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from changed import REPORT, change, replace_asgi_handler
from django.test.runner import DiscoverRunner


class Runner(DiscoverRunner):
    """Changes what a server changes, once Django and the apps are loaded and before processes are forked."""

    def build_suite(self, *args: Any, **kwargs: Any) -> Any:
        replace_asgi_handler()
        return super().build_suite(*args, **kwargs)

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        change(immortal=True)
        result = super().run_suite(suite, **kwargs)
        failed = {test.id() for test, _ in (*result.failures, *result.errors)}
        failed |= {test.id() for test in result.unexpectedSuccesses}
        report = {"ran": result.testsRun, "failed": sorted(failed)}
        Path(os.environ[REPORT]).write_text(json.dumps(report))
        return result
