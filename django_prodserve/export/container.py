"""What all files for containers share: the account, the command, the probes, the directories. Pure."""

from __future__ import annotations

from ..errors import UsageError
from ..utils.units import MIB
from .facts import Facts

PROJECT = "/app"
USER = "10001:10001"
MIGRATE = "python manage.py migrate --no-input"
"""What a platform runs before a deploy."""


def command(facts: Facts) -> list[str]:
    """Return the words that start the server in a container; raise UsageError for an address of no use."""
    address = facts.address
    if address.is_unix:
        raise UsageError(
            f"unix:{address.path} inside a container cannot be reached from outside.",
            "Give a port instead, such as --bind 0.0.0.0:8000",
            topic="export",
        )
    if address.host.startswith(("127.", "localhost", "[::1]")):
        raise UsageError(
            f"{address.host} inside a container cannot be reached from outside.",
            f"--bind 0.0.0.0:{address.port}, or no --bind",
            topic="export",
        )
    body = () if facts.has_own_body else (f"--max-body={facts.body.value // MIB}m",)
    return ["prodserve", *facts.bind, *facts.flags, *body]


def health_command(facts: Facts) -> list[str]:
    """Return a command that fails if the server is not alive."""
    if not facts.live:
        return ["python", "-m", "django_prodserve", "status"]
    url = f"http://127.0.0.1:{facts.address.port}{facts.live}"
    return ["python", "-c", f"import urllib.request as u; u.urlopen('{url}')"]


def inside(facts: Facts, path: str) -> str:
    """Return where a path of the project is in the image."""
    directory = facts.site.directory.rstrip("/")
    if path == directory or path.startswith(f"{directory}/"):
        return PROJECT + path.removeprefix(directory)
    return path


def own_directories(facts: Facts) -> dict[str, str]:
    """Return what the project writes to which directory of the image; never to the project itself."""
    places = {inside(facts, path): what for path, what in facts.site.writable.items()}
    return {place: what for place, what in places.items() if place != PROJECT}


def by_hand(facts: Facts) -> list[str]:
    """Return what no project knows, for every file of a container."""
    found, tried = [], facts.build.required
    if tried.error:
        found.append(f"settings cannot be loaded without variables that trying did not find: {tried.error}")
    elif tried.substitutes:
        found.append(f"variables that the settings require: {', '.join(tried.substitutes)}")
    for path, what in facts.site.writable.items():
        if inside(facts, path) == PROJECT:
            found.append(f"{what}: it is in the project's directory, which ends with the container; move it")
    return found
