"""One switch for what is changed in code of others: in the plan, in our server, and in plain Gunicorn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.speedups import asgiref_locals
from django_prodserve.speedups.availability import why_no_immortals

from .serving import copy_site, run, serving
from .test_gunicorn_conf import plain_gunicorn

VIEW = """
def speedups(request):
    import sys
    from asgiref.local import Local
    from django.conf import settings
    code = type(Local()).__getattr__.__code__.co_filename
    counts = sys.getrefcount(speedups) > 2**30
    return HttpResponse(f"{'asgiref_locals' in code} {counts} {type(settings)}")

urlpatterns.append(path("speedups/", speedups))
"""


@pytest.mark.parametrize("switch", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_the_switch(env: Any, tmp_path: Path, switch: str) -> None:
    site, environ = copy_site(tmp_path, VIEW), env({"PRODSERVE_SPEEDUPS": switch})
    is_on = switch == "on"
    said = [is_on and not asgiref_locals.why_not(), is_on and not why_no_immortals()]
    wanted = " ".join([*map(str, said), "<class 'django.conf.LazySettings'>"])

    ended = run("manage.py", "prodserve", "plan", "--json", env=environ, cwd=site)
    decision = json.loads(ended.stdout)["decisions"]["speedups"]
    assert (decision["value"], decision["source"]) == (any(said), "PRODSERVE_SPEEDUPS")
    assert ("asgiref" in decision["why"]) is is_on

    with serving("--workers", "1", env=environ, cwd=site) as server:
        assert server.get("/speedups/").text == wanted
    with plain_gunicorn("--workers", "1", env=environ, cwd=site, elsewhere=tmp_path / "there") as server:
        assert server.get("/speedups/").text == wanted
