"""A Dockerfile and its .dockerignore. Pure.

Two stages on one image: what compiles stays in the first. No tini, because the server reaps processes and
handles signals as PID 1. No curl, because slim images have none.
"""

from __future__ import annotations

import json
import shlex

from .container import PROJECT, USER, by_hand, command, health_command, inside, own_directories
from .facts import Facts
from .layout import File, block, written

VENV = "/venv"
CACHE = "/var/cache/packages"
"""Where the build keeps what it has downloaded, outside the image."""
IGNORED = (
    *("# Secrets.", "**/.env*", "**/*.pem", "**/*.key", "**/id_*"),
    *("# The history, and what tools leave behind.", ".git", ".github", "**/__pycache__", "**/*.pyc"),
    *("**/.venv", "**/venv", "**/node_modules", "**/.pytest_cache", "**/.mypy_cache", "**/.ruff_cache"),
    *("# Data of this machine.", "**/*.sqlite3", "**/*.log"),
    *("# Files about the image.", "Dockerfile", ".dockerignore", "compose.yaml"),
)


def files(facts: Facts) -> list[File]:
    """Return the Dockerfile and the .dockerignore."""
    return [_dockerfile(facts), _dockerignore(facts)]


def _dockerfile(facts: Facts) -> File:
    build, site = facts.build, facts.site
    compiled, needed = build.packages
    variables = {**facts.settings, "PYTHONUNBUFFERED": "1", "PATH": f"{VENV}/bin:$PATH"}
    body = f"""
FROM python:{site.python}-slim AS build
{_apt(compiled)}
WORKDIR {PROJECT}
{_install(facts)}
COPY . .
{_second_install(facts)}
# Any account may read the files: OpenShift starts an image with an account of its own.
{_collect(facts)}

FROM python:{site.python}-slim
{_apt(needed)}
WORKDIR {PROJECT}
ENV {_assignments(variables)}
COPY --from=build {VENV} {VENV}
COPY --from=build {PROJECT} {PROJECT}
{_directories(facts)}
# A number: Kubernetes cannot see whether a name is root's.
USER {USER}
EXPOSE {facts.address.port}
# Liveness, answered before Django: ALLOWED_HOSTS does not matter.
HEALTHCHECK --interval=30s --timeout=5s --start-period={facts.start.value}s \\
    CMD {_split(health_command(facts))}
# The exec form: the server is PID 1 and gets the stop signal itself.
# {facts.body.why}
CMD {json.dumps(command(facts))}
"""
    return written(
        "Dockerfile",
        body,
        made_by=facts.made_by,
        goes_to=f"{site.directory}/Dockerfile",
        apply=[
            f"docker build --tag {site.name} .",
            f"docker run --publish 127.0.0.1:{facts.address.port}:{facts.address.port} \\",
            f"  --env-file .env --stop-timeout {facts.stop.value} {site.name}",
        ],
        by_hand=_by_hand(facts),
    )


def _by_hand(facts: Facts) -> list[str]:
    found = by_hand(facts)
    if not facts.build.is_complete:
        found.insert(0, f"{facts.build.lock} does not name django-prodserve: add it, the image needs it")
    if not facts.site.static_root:
        found.append(
            "STATIC_ROOT is not set, so each start collects the static files; set it, and the build does so"
        )
    elif facts.site.has_plain_storage and facts.serves_static:
        found.append(
            'STORAGES["staticfiles"] is Django\'s default: the build writes plain names without compression; '
            "whitenoise.storage.CompressedManifestStaticFilesStorage adds both"
        )
    return found


def _apt(packages: list[str]) -> str:
    if not packages:
        return ""
    return f"""# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends {" ".join(packages)} \\
    && rm -rf /var/lib/apt/lists/*"""


def _install(facts: Facts) -> str:
    """Return the lines that install what the lock file names, before the project's own files are copied."""
    build = facts.build
    if build.manager == "uv":
        return f"""RUN pip install --no-cache-dir "uv>=0.5,<1"
ENV UV_PROJECT_ENVIRONMENT={VENV} UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy \\
    UV_CACHE_DIR={CACHE}
COPY pyproject.toml {build.lock} ./
{_cached("uv sync --locked --no-dev --no-install-project")}
ENV PATH={VENV}/bin:$PATH"""
    if build.manager == "poetry":
        return f"""RUN pip install --no-cache-dir "poetry>=2,<3" && python -m venv {VENV}
ENV VIRTUAL_ENV={VENV} POETRY_NO_INTERACTION=1 POETRY_CACHE_DIR={CACHE}
COPY pyproject.toml {build.lock} ./
{_cached("poetry install --only main --no-root")}
ENV PATH={VENV}/bin:$PATH"""
    folder, slash, _ = build.lock.rpartition("/")
    return f"""RUN python -m venv {VENV}
ENV PATH={VENV}/bin:$PATH PIP_CACHE_DIR={CACHE}
COPY {f"{folder}/ {folder}/" if slash else f"{build.lock} ./"}
# hadolint ignore=DL3042
{_cached(f"pip install --requirement {build.lock}")}"""


def _cached(command: str) -> str:
    """Return the line that runs a command with the cache of downloads."""
    return f"RUN --mount=type=cache,target={CACHE} \\\n    {command}"


def _second_install(facts: Facts) -> str:
    """Return the line that installs the project itself, if it is a package."""
    if facts.build.manager == "uv":
        return _cached("uv sync --locked --no-dev")
    return ""


def _collect(facts: Facts) -> str:
    if not facts.site.static_root or not facts.serves_static:
        return f"RUN chmod -R a+rX {PROJECT}"
    tried = facts.build.required
    words = {**facts.settings, **tried.substitutes}
    names = " ".join(f"{name}={shlex.quote(text)}" for name, text in words.items() if text)
    program = "python manage.py" if facts.build.has_manage else "python -m django"
    written_there = [place for place in own_directories(facts) if place.startswith(f"{PROJECT}/")]
    removes = [f"    && rm -rf {' '.join(map(shlex.quote, written_there))} \\"] if written_there else []
    return block(
        "# The values are for the build alone: no key of the site is in the image or in its history.",
        *(["# Nor is what settings write when they are loaded, such as a key."] if removes else []),
        f"RUN {names} \\",
        f"    {program} collectstatic --no-input \\",
        *removes,
        f"    && chmod -R a+rX {PROJECT}",
    )


def _directories(facts: Facts) -> str:
    owned = own_directories(facts)
    if not owned:
        return ""
    owner, _, group = USER.partition(":")
    return block(
        "# Directories that the project writes to. A new volume takes its owner from here.",
        f"RUN install -d -o {owner} -g {group} {' '.join(map(shlex.quote, owned))}",
    )


def _split(words: list[str]) -> str:
    """Return words in the exec form, the last one on a line of its own."""
    *first, last = map(json.dumps, words)
    return f"[{', '.join(first)}, \\\n    {last}]"


def _assignments(variables: dict[str, str]) -> str:
    return " \\\n    ".join(f"{name}={text}" for name, text in variables.items() if text)


def _dockerignore(facts: Facts) -> File:
    places = [*own_directories(facts), inside(facts, facts.site.static_root)]
    lines = [*IGNORED]
    lines += [path.removeprefix(f"{PROJECT}/") for path in places if path.startswith(f"{PROJECT}/")]
    return written(
        ".dockerignore",
        "\n".join(lines),
        made_by=facts.made_by,
        goes_to=f"{facts.site.directory}/.dockerignore",
    )
