"""A Procfile, for Heroku and for every program that reads the format. Pure.

The server takes port, trust and times from the platform, so no line names them.
"""

from __future__ import annotations

import shlex

from ..errors import UsageError
from .container import MIGRATE
from .facts import Facts
from .layout import File, written

HEROKU_KILLS = 30  # seconds after SIGTERM


def file(facts: Facts) -> list[File]:
    """Return the Procfile."""
    facts.refuse_slow_stop("Heroku", HEROKU_KILLS)
    facts.refuse_router()
    if facts.address.is_unix:
        raise UsageError(
            f"unix:{facts.address.path} cannot be reached by the platform's router.",
            "Leave --bind out: the platform names the port.",
            topic="export",
        )
    command = shlex.join(["prodserve", *facts.bind, *facts.flags, *facts.size])
    lines = [f"web: {command}"]
    if facts.migrates_before:
        lines.insert(0, f"release: {MIGRATE}")
    lines += [f"{side.name}: {shlex.join(side.image_words)}" for side in facts.sides]
    text = "\n".join(["# prodserve reads PORT, and knows the times of the platform.", *lines])
    return [
        written(
            "Procfile",
            text,
            made_by=facts.made_by,
            goes_to=f"{facts.site.directory}/Procfile",
            apply=["git add Procfile && git commit -m Procfile && git push heroku"],
            by_hand=[
                "heroku config:set SECRET_KEY=...: the secrets, and what else the settings read",
                *(
                    f"heroku ps:scale {side.name}=1: the process that the server does not start"
                    for side in facts.sides
                ),
            ],
        )
    ]
