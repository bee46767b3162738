"""A program of supervisord. Pure."""

from __future__ import annotations

import shlex

from .facts import Facts
from .layout import File, written
from .sides import Side


def program(facts: Facts) -> list[File]:
    """Return the section of the program."""
    site, name = facts.site, facts.site.name
    variables = {**facts.settings, "USER": site.user}
    sides = [f"{name}-{side.name}" for side in facts.sides]
    body = f"""
[program:{name}]
command={_escaped(shlex.join(facts.command(size=True)))}
directory={_escaped(site.directory)}
user={site.user}
environment={",".join(f'{key}="{_escaped(text)}"' for key, text in variables.items())}
autostart=true
# Exit code 0 is a stop on request. Code 2 means that an option is wrong: a restart would not help.
autorestart=unexpected
exitcodes=0,2
startsecs=5
startretries=5
stopsignal=TERM
# {facts.stop.why}
stopwaitsecs={facts.stop.value}
# The signal goes to the supervisor of the server alone, which stops its workers in order.
stopasgroup=false
killasgroup=true
# One stream: the server writes JSON, one object a line.
redirect_stderr=true
stdout_logfile=/var/log/{name}.log
{"".join(_side(facts, side) for side in facts.sides)}
"""
    return [
        written(
            f"{name}.conf",
            body,
            made_by=facts.made_by,
            goes_to=f"/etc/supervisor/conf.d/{name}.conf",
            apply=[
                f"supervisorctl reread && supervisorctl update {' '.join([name, *sides])}",
                *(f"supervisorctl restart {each}      # after each deploy" for each in sides),
                "prodserve reload      # after each deploy, as the account that runs the server",
            ],
            by_hand=[
                f"user={site.user}: the account of the server. To create it: useradd --system {site.user}",
                "secrets: supervisord reads no file with variables. Write them into one that the account can "
                f"read, and add --env-file=/etc/{name}.env to the command",
                f"{site.directory} and {site.program[0]}: if the server has the project in another directory",
            ],
        )
    ]


def _side(facts: Facts, side: Side) -> str:
    """Return the section of a process that the server does not start."""
    site, name = facts.site, f"{facts.site.name}-{side.name}"
    variables = {**facts.settings, "USER": site.user, "PYTHONUNBUFFERED": "1", "PRODSERVE_PROCESS": side.name}
    return f"""
[program:{name}]
{"# Of all hosts, one may run it." if side.is_single else ""}
command={_escaped(shlex.join(side.words))}
directory={_escaped(site.directory)}
user={site.user}
environment={",".join(f'{key}="{_escaped(text)}"' for key, text in variables.items())}
autostart=true
autorestart=true
stopsignal=TERM
# {facts.stop.why}
stopwaitsecs={facts.stop.value}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/{name}.log
"""


def _escaped(text: str) -> str:
    """Return text in which supervisord expands nothing."""
    return text.replace("%", "%%")
