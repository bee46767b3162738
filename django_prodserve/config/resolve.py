"""Find the strongest value of every option; report all errors in one message.

Flags, environment and settings are parameters; this module reads nothing itself. Standard library alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import Problem, ProdserveError, UsageError
from ..machine.platforms import KILLS_AFTER
from . import parsers, side_processes
from .options import Options, SourcedValue, option_fields
from .parse_errors import ParseError, ParseErrors
from .renamed import hint, renamed_key, renamed_variable
from .row import Row
from .side_processes import SideProcess

# Kubernetes gives every pod such variables for each Service; one may be called "prodserve".
KUBERNETES_LINKS = re.compile(r"_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)$")

PREPARE = {
    "wait-for-db": ("wait_for_db", "30s"),
    "migrate": ("migrate", True),
    "collectstatic": ("collectstatic", True),
}
"""The words of ``PRODSERVE["PREPARE"]``: each is short for an option and its value."""

BLOCKS = ("GUNICORN", "PREPARE", "PROCESSES")
"""Keys of ``PRODSERVE`` that are not options."""

Layer = Mapping[str, SourcedValue]
"""Option name to raw value. Layers are in order of precedence, the strongest first."""


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """Return the flags of the command line; a flag that was not given is absent or None."""
    return {
        row.name: SourcedValue(flags[row.name], row.flag)
        for row in option_fields()
        if flags.get(row.name) is not None
    }


def environment_layer(environ: Mapping[str, str], problems: list[Problem]) -> Layer:
    """Return the values of the ``PRODSERVE_*`` variables; an unknown one is a problem."""
    known = {row.variable: row.name for row in option_fields()}
    layer: dict[str, SourcedValue] = {}
    for variable, text in environ.items():
        if variable == "PRODSERVE_MILLICPUS":
            # Kubernetes' downward API writes limits.cpu with divisor 1m as a bare number.
            layer.setdefault("cpus", SourcedValue(f"{text}m", variable))
        elif variable == KILLS_AFTER:
            # A fact of the platform, which machine/platforms.py reads; a file of export sets it.
            if not text.strip().isdecimal():
                message = f"{variable} is {text!r}, but must be a number of seconds."
                problems.append(Problem(message, f"{variable}=30", code="bad-value"))
        elif variable in known:
            layer[known[variable]] = SourcedValue(text, variable)
        elif (
            variable.startswith("PRODSERVE_")
            and variable != side_processes.VARIABLE
            and not KUBERNETES_LINKS.search(variable)
        ):
            fix = hint(variable.upper(), known, now=renamed_variable(variable))
            problems.append(Problem(f"Unknown variable {variable}.", fix, code="unknown-variable"))
    return layer


def settings_layer(block: object, problems: list[Problem]) -> Layer:
    """Return the values of the ``PRODSERVE`` settings block; an unknown key is a problem."""
    if not isinstance(block, Mapping):
        message = f"PRODSERVE in settings is {block!r}, but must be a dictionary."
        problems.append(Problem(message, 'PRODSERVE = {"PROFILE": "io"}', code="bad-value"))
        return {}
    known = {row.key: row.name for row in option_fields()}
    layer: dict[str, SourcedValue] = {}
    for key, value in block.items():
        if key in known and value is not None:
            layer[known[key]] = SourcedValue(value, f"PRODSERVE[{key!r}]")
        elif key not in known and key not in BLOCKS:
            fix = _about_key(str(key), [*known, *BLOCKS])
            problems.append(Problem(f"PRODSERVE has no option {key!r}.", fix, code="unknown-key"))
    return {**_prepare_words(block.get("PREPARE"), problems), **layer}


def _about_key(key: str, known: Sequence[str]) -> str:
    """Return the fix for an unknown key: another key, or the place for Gunicorn's own settings."""
    fix = hint(key.upper(), known, now=renamed_key(key))
    if not fix.startswith("prodserve"):
        return fix
    return f'Settings of Gunicorn belong in PRODSERVE["GUNICORN"]. {fix}'


def _prepare_words(value: Any, problems: list[Problem]) -> Layer:
    """Return an option for each step in the list; a separate key is more exact, so it takes precedence."""
    source = "PRODSERVE['PREPARE']"
    try:
        words = parsers.words(value) if value else ()
    except (ValueError, TypeError):
        message = f"{source} is {value!r}, but must be a list of {', '.join(PREPARE)}."
        problems.append(Problem(message, 'PRODSERVE["PREPARE"] = ["migrate"]', code="bad-value"))
        return {}
    unknown = [word for word in words if word not in PREPARE]
    problems += [
        Problem(f"{source} has no step {word!r}.", f"There are {', '.join(PREPARE)}.", code="bad-value")
        for word in unknown
    ]
    return {PREPARE[word][0]: SourcedValue(PREPARE[word][1], source) for word in words if word in PREPARE}


def platform_layer(name: str, values: Mapping[str, Any]) -> Layer:
    """Return the values that a platform decides."""
    return {option: SourcedValue(value, name) for option, value in values.items()}


def gunicorn_layer(settings: Mapping[str, SourcedValue]) -> tuple[Layer, Mapping[str, SourcedValue]]:
    """Split Gunicorn settings into those that are options of prodserve and the rest."""
    ours = {row.gunicorn: row.name for row in option_fields() if row.gunicorn}
    layer = {ours[name]: value for name, value in settings.items() if name in ours}
    rest = {name: value for name, value in settings.items() if name not in ours}
    return layer, rest


def resolve(
    layers: Sequence[Layer],
    *,
    gunicorn: Mapping[str, SourcedValue] | None = None,
    processes: Mapping[str, SideProcess] | None = None,
    problems: Sequence[Problem] = (),
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
            found += _complaints(row, stated, error)
        sources[row.name] = stated.source
    found += contradictions(values, sources)
    found += foreign_protocols(values, gunicorn or {})
    known = processes or {}
    if "side_processes" in values:
        names, source = values["side_processes"], sources["side_processes"]
        is_read = not any(problem.topic == "with" for problem in found)
        values["side_processes"] = side_processes.choose(names, known, source, found if is_read else [])
    if found:
        # An error of an import in the project is the project's, even if a setting caused the import.
        is_project = all(problem.code == "project" for problem in found)
        raise (ProdserveError if is_project else UsageError).of(found)
    return Options(**values, sources=sources, gunicorn=gunicorn or {}, processes=known, notes=tuple(notes))


def contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[Problem]:
    """Yield every pair of options that contradict each other."""
    threads = values.get("threads")
    if values.get("worker_class") == "sync" and threads is not None and threads.most > 1:
        yield _conflict(
            f"{sources['threads']} asks for {threads} threads and {sources['worker_class']} for sync, "
            "which has none."
        )
    if values.get("reload") and values.get("supervisor") is False:
        yield _conflict(
            f"{sources['reload']} needs the supervisor, but {sources['supervisor']} turns it off."
        )
    if sources.get("env_file", "").startswith("PRODSERVE["):
        yield _conflict(
            f"{sources['env_file']} comes too late: Django has read the settings by then.",
            "Use --env-file, or set PRODSERVE_ENV_FILE.",
        )
    certificates, keys = values.get("certfile", ()), values.get("keyfile", ())
    if keys and not certificates:
        yield _conflict(f"{sources['keyfile']} names a key without its certificate.", "Add --certfile PATH")
    elif keys and len(keys) != len(certificates):
        yield _conflict(
            f"{sources['certfile']} names {len(certificates)} and {sources['keyfile']} {len(keys)}: "
            "each certificate needs its own key.",
            "Name as many keys as certificates, in the same order, or none: then the certificates' files "
            "hold them.",
        )
    if values.get("redirect_http") and not values.get("certfile"):
        yield _conflict(
            f"{sources['redirect_http']} redirects to https, which this server does not serve.",
            "Add --certfile PATH and --keyfile PATH. Behind a proxy, the proxy redirects.",
        )
    elif values.get("acme_webroot") and not values.get("redirect_http"):
        yield _conflict(
            f"{sources['acme_webroot']} has no effect without a listener for plain HTTP.",
            "Add --redirect-http 80",
        )


def foreign_protocols(values: Mapping[str, Any], gunicorn: Mapping[str, SourcedValue]) -> Iterator[Problem]:
    """Yield that HTTP/2 is asked for, unless the workers that speak it are, too."""
    protocols = gunicorn.get("http_protocols")
    if protocols and "h2" in str(protocols.value) and values.get("worker_class") in (None, "prodserve"):
        yield _conflict(
            f"{protocols.source} asks for HTTP/2, which the worker class prodserve does not speak.",
            "Let a proxy speak it: prodserve export nginx. Or add --worker-class gthread, where "
            "streams run one after another and each connection holds a thread.",
        )


def _conflict(message: str, fix: str = "Remove one of them.") -> Problem:
    return Problem(message, fix, code="conflict")


def _complaints(row: Row, stated: SourcedValue, error: Exception) -> Iterator[Problem]:
    """Yield the errors of a value: its source, and the valid values."""
    value, source, topic = stated.value, stated.source, row.topic
    must = (row.kind.parse.__doc__ or "").strip()
    if isinstance(value, str) and not value.strip(" :"):
        yield Problem(f"{source} is set but empty.", "Give it a value, or unset it.", "", "bad-value", topic)
    elif source == "PORT":
        shown = str(value).removeprefix(":")
        fix = "Set PORT to a number from 0 to 65535."
        is_number = re.fullmatch(r"-?\d+", shown)
        said = "is out of range (0-65535)" if is_number else f"is {shown!r}, but must be a number"
        yield Problem(f"PORT {f'{shown} ' if is_number else ''}{said}.", fix, "", "bad-value", topic)
    elif isinstance(error, ParseErrors):
        for one in error.errors:
            yield from _complaints(row, stated, one)
    elif isinstance(error, ParseError):
        yield Problem(f"{source}: {error}", error.fix, "", error.code, topic)
    else:
        yield Problem(
            f"{source} is {value!r}, but must be {must}", _example(row, source), "", "bad-value", topic
        )


def _example(row: Row, source: str) -> str:
    """Return a valid value in the notation of its source; empty if an example adds nothing."""
    example = row.kind.example
    if not example:
        return "Write a path, as text." if row.kind.metavar == "PATH" else ""
    if source == "GUNICORN_CMD_ARGS":
        return f"Correct it in {source}."
    if len(source.split()) > 1:
        return f"Correct it there, for example: {example}"
    if source.startswith("-"):
        return f"For example: {source} {example}"
    if source.startswith("PRODSERVE["):
        written = example if example.isdecimal() else f'"{example}"'
        return f"For example: {source.replace(chr(39), chr(34))} = {written}"
    return f"For example: {source}={example}"
