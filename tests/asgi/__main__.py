"""Run the parity table and the scenes, and write what came of them into a file."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
import warnings
from pathlib import Path

import django
from django.core.management import call_command


def main(path: Path) -> None:
    django.setup()
    warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume")  # Django's own handler
    call_command("migrate", verbosity=0)
    from django.db import connection

    from . import parity, scenes_of_clients, scenes_of_libraries, scenes_of_threads  # noqa: F401, they register
    from .scene import SCENES

    connection.close()
    results = {**asyncio.run(parity.run()), "scenes": {}}
    for name, scene in SCENES.items():
        try:
            asyncio.run(asyncio.wait_for(scene(), 20))
            results["scenes"][name] = ""
        except BaseException:
            results["scenes"][name] = traceback.format_exc()
    path.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
