"""Find the strongest value of every option; complain about all that is wrong at once.

Reads nothing by itself: flags, environment and settings are parameters. Standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ProdserveError
from . import parsers
from .options import Options, Row, SourcedValue, option_fields
from .renamed import hint, renamed_key, renamed_variable

# Kubernetes gives every pod such variables for each Service; one may be called "prodserve".
KUBERNETES_LINKS = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)$")

PREPARE = {
    "wait-for-db": ("wait_for_db", "30s"),
    "migrate": ("migrate", True),
    "collectstatic": ("collectstatic", True),
}
"""The words of ``PRODSERVE["PREPARE"]``: each is short for an option and its value."""

Layer = Mapping[str, SourcedValue]
"""Option name to raw value. Layers stand in order of precedence, the strongest first."""


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """What was typed; a flag nobody typed is absent or None."""
    return {
        row.name: SourcedValue(flags[row.name], row.flag)
        for row in option_fields()
        if flags.get(row.name) is not None
    }


def environment_layer(environ: Mapping[str, str], problems: list[str]) -> Layer:
    """What the ``PRODSERVE_*`` variables say; an unknown one is a problem."""
    known = {row.variable: row.name for row in option_fields()}
    layer: dict[str, SourcedValue] = {}
    for variable, text in environ.items():
        if variable == "PRODSERVE_MILLICPUS":
            # Kubernetes' downward API writes limits.cpu with divisor 1m as a bare number.
            layer.setdefault("cpus", SourcedValue(f"{text}m", variable))
        elif variable in known:
            layer[known[variable]] = SourcedValue(text, variable)
        elif variable.startswith("PRODSERVE_") and not KUBERNETES_LINKS.search(variable):
            ending = hint(variable.upper(), known, now=renamed_variable(variable))
            problems.append(f"Unknown variable {variable}{ending}")
    return layer


def settings_layer(block: object, problems: list[str]) -> Layer:
    """What the ``PRODSERVE`` settings block says; an unknown key is a problem."""
    if not isinstance(block, Mapping):
        problems.append(f"PRODSERVE in settings is {block!r}, but must be a dictionary.")
        return {}
    known = {row.key: row.name for row in option_fields()}
    layer: dict[str, SourcedValue] = {}
    for key, value in block.items():
        if key in known and value is not None:
            layer[known[key]] = SourcedValue(value, f"PRODSERVE[{key!r}]")
        elif key not in known and key not in {"GUNICORN", "PREPARE"}:
            ending = hint(str(key).upper(), [*known, "GUNICORN", "PREPARE"], now=renamed_key(key))
            problems.append(f"PRODSERVE has no option {key!r}{ending}")
    return {**_prepare_words(block.get("PREPARE"), problems), **layer}


def _prepare_words(value: Any, problems: list[str]) -> Layer:
    """Spread the list of steps over their options; a key of its own says it more exactly, so it wins."""
    source = "PRODSERVE['PREPARE']"
    try:
        words = parsers.words(value) if value else ()
    except (ValueError, TypeError):
        problems.append(f"{source} is {value!r}, but must be a list of {', '.join(PREPARE)}.")
        return {}
    unknown = [word for word in words if word not in PREPARE]
    problems += [f"{source} has no step {word!r}. There are {', '.join(PREPARE)}." for word in unknown]
    return {PREPARE[word][0]: SourcedValue(PREPARE[word][1], source) for word in words if word in PREPARE}


def gunicorn_layer(settings: Mapping[str, SourcedValue]) -> tuple[Layer, Mapping[str, SourcedValue]]:
    """Split Gunicorn settings into those that are options of ours and the rest."""
    ours = {row.gunicorn: row.name for row in option_fields() if row.gunicorn}
    layer = {ours[name]: value for name, value in settings.items() if name in ours}
    rest = {name: value for name, value in settings.items() if name not in ours}
    return layer, rest


def resolve(
    layers: Sequence[Layer],
    *,
    gunicorn: Mapping[str, SourcedValue] | None = None,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Options:
    """Return the strongest value of every option; raise one error that lists every problem."""
    found = list(problems)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for row in option_fields():
        stated = next((layer[row.name] for layer in layers if row.name in layer), None)
        if stated is None:
            continue
        try:
            values[row.name] = row.kind.parse(stated.value)
        except (ValueError, TypeError, AttributeError) as error:
            found.append(_complaint(row, stated, error))
        sources[row.name] = stated.source
    found += contradictions(values, sources)
    if found:
        raise ProdserveError("\n".join(found))
    return Options(**values, sources=sources, gunicorn=gunicorn or {}, notes=tuple(notes))


def contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for every pair of wishes that cannot both be met."""
    threads = values.get("threads") or 1
    if values.get("worker_class") == "sync" and threads > 1:
        yield (
            f"{sources['threads']} asks for {threads} threads and {sources['worker_class']} for sync, "
            "which has none: leave one of them out."
        )
    if values.get("reload") and values.get("supervisor") is False:
        yield (
            f"{sources['reload']} needs the supervisor, but {sources['supervisor']} says no: "
            "leave one of them out."
        )
    if sources.get("env_file", "").startswith("PRODSERVE["):
        yield (
            f"{sources['env_file']} comes too late: settings have been read when it is seen. "
            "Write --env-file, or set PRODSERVE_ENV_FILE."
        )
    if values.get("keyfile") and not values.get("certfile"):
        yield f"{sources['keyfile']} names a key without its certificate: add --certfile."


def _complaint(row: Row, stated: SourcedValue, error: Exception) -> str:
    """One line: where it was written, what is wrong, what is right."""
    if isinstance(stated.value, str) and not stated.value.strip():
        return f"{stated.source} is set but empty: give it a value, or unset it."
    if isinstance(error, parsers.ParseError):
        return f"{stated.source}: {error}"
    must = (row.kind.parse.__doc__ or "").strip()
    return f"{stated.source} is {stated.value!r}, but must be {must}"
