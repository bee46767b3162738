"""Exported files, judged by the programs that read them: each is skipped where its program is absent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.exports import exported
from tests.test_export import PLANS, stated

from .needs import need_package, need_program
from .postgres import free_port
from .serving import PATIENCE, Server, copy_site, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", PLANS)
def test_kubernetes_knows_every_field(name: str) -> None:
    """The program itself only warns about an apiVersion that it does not know: the function raises."""
    need_package("kubernetes_validate", "yaml")
    import kubernetes_validate
    import yaml

    (text,) = exported("kubernetes", **stated("kubernetes", name)).values()
    kinds = []
    for document in yaml.safe_load_all(text):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        kinds.append(document["kind"])
    assert kinds == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"]
    broken = {**document, "apiVersion": "policy/v2"}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", PLANS)
def test_compose_knows_every_key(name: str, tmp_path: Path) -> None:
    (text,) = exported("compose", **stated("compose", name)).values()
    (good := tmp_path / "compose.yaml").write_text(text)
    (bad := tmp_path / "bad.yaml").write_text(text.replace("stop_grace_period", "stop_graze_period"))
    command = [need_program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    ended = subprocess.run([*command, good], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stdout
    assert subprocess.run([*command, bad], capture_output=True, timeout=PATIENCE).returncode == 1


@contextmanager
def supervised(directory: Path, program: Path, env: dict[str, str]) -> Iterator[Server]:
    """Run supervisord with one program until the block ends."""
    config = directory / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nuser=root\nlogfile={directory}/supervisord.log\n"
        f"pidfile={directory}/supervisord.pid\n[include]\nfiles={program}\n"
    )
    process = subprocess.Popen(
        [need_program("supervisord"), "-c", config],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Server(process)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        server._reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="supervisord starts a program as another user only as root")
def test_supervisord_starts_it_and_stops_it_within_its_time(env: Any, tmp_path: Path) -> None:
    need_program("supervisord")
    site, port = copy_site(tmp_path), free_port()
    environ = env()
    words = ("manage.py", "prodserve", "export", "supervisor", "--bind", f"127.0.0.1:{port}")
    text = run(*words, env=environ, cwd=site).stdout
    log = tmp_path / "shop.log"
    by_hand = re.sub("(?m)^user=.*", "user=root", text).replace("/var/log/shop.log", str(log))
    (program := tmp_path / "shop.conf").write_text(by_hand)
    with supervised(tmp_path, program, environ) as server:
        server.address = f"127.0.0.1:{port}"
        server.wait_for("entered RUNNING state")
        assert server.get("/livez").status == 200
        assert " ready in " in log.read_text()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda line: re.search(r"stopped: shop \(exit status 0\)", line) is not None)
        assert server.process.wait(PATIENCE) == 0
        assert "killing" not in server.output
