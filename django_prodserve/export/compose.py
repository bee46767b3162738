"""A compose.yaml for the image of the Dockerfile. Pure."""

from __future__ import annotations

import json

from ..utils.units import MIB
from .container import USER, by_hand, command, health_command, own_directories
from .facts import Facts
from .layout import File, written
from .sides import Side


def file(facts: Facts) -> list[File]:
    """Return the file."""
    name, port = facts.site.name, facts.address.port
    volumes = {"tmp": "/tmp"}
    for place in own_directories(facts):
        volumes[_volume(place, volumes)] = place
    mounts = "\n".join(f"      - {volume}:{place}" for volume, place in volumes.items())
    body = f"""
services:
  web:
    image: {name}
    build: .
    # {facts.body.why}
    command: {json.dumps(command(facts))}
    # SECRET_KEY and whatever else the settings read, as KEY=VALUE lines.
    env_file: .env
    environment:
{_environment(facts)}
    ports:
      # For a proxy on this machine alone: prodserve export nginx
      - "127.0.0.1:{port}:{port}"
    # {facts.stop.why}
    stop_grace_period: {facts.stop.value}s
    restart: unless-stopped
    deploy:
      resources:
        limits:
          # {facts.cpus.why}; the server plans {facts.workers}
          cpus: "{facts.cpus.value:g}"
          # {facts.memory.why}
          memory: {facts.memory.value // MIB}M
    healthcheck:
      test: {json.dumps(["CMD", *health_command(facts)])}
      interval: 30s
      timeout: 5s
      # {facts.start.why}
      start_period: {facts.start.value}s
    user: "{USER}"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    volumes:
      # Request bodies, on a disk: a tmpfs would count against the limit of memory.
      # {facts.spool.why}: {facts.spool.value // MIB} MiB
{mounts}
{chr(10).join(_side(facts, side, mounts) for side in facts.sides)}

volumes:
{chr(10).join(f"  {volume}:" for volume in [*volumes, *(f"tmp-{side.name}" for side in facts.sides)])}
"""
    return [
        written(
            "compose.yaml",
            body,
            made_by=facts.made_by,
            goes_to=f"{facts.site.directory}/compose.yaml",
            apply=["prodserve export dockerfile --output .", "docker compose up --build --detach"],
            by_hand=["the file .env: the secrets; in no repository and in no image", *by_hand(facts)],
        )
    ]


def _side(facts: Facts, side: Side, mounts: str) -> str:
    """Return the service of a process that the server does not start."""
    single = "    # Of all hosts, one may run it.\n" if side.is_single else ""
    return f"""
  {side.name}:
    image: {facts.site.name}
    build: .
{single}    command: {json.dumps([*side.image_words])}
    env_file: .env
    environment:
{chr(10).join(_settings(facts))}
      PRODSERVE_PROCESS: {side.name}
    # {facts.stop.why}
    stop_grace_period: {facts.stop.value}s
    restart: unless-stopped
    deploy:
      resources:
        limits:
          cpus: "{facts.cpus.value:g}"
          # {side.why}
          memory: {side.memory // MIB}M
    # The image's own check asks for a web server.
    healthcheck: {{disable: true}}
    user: "{USER}"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    volumes:
{mounts.replace("- tmp:", f"- tmp-{side.name}:")}"""


def _volume(place: str, others: dict[str, str]) -> str:
    """Return a name for the volume of a directory."""
    name = place.strip("/").rpartition("/")[2].lower() or "data"
    word = "".join(letter if letter.isalnum() else "-" for letter in name)
    return word if word not in others else f"{word}-{len(others)}"


def _settings(facts: Facts) -> list[str]:
    return [f"      {name}: {text}" for name, text in facts.settings.items()]


def _environment(facts: Facts) -> str:
    lines = _settings(facts)
    if not facts.trusts_someone:
        lines += [
            "      # Requests come through the container's network, so the proxy has one of its addresses.",
            "      PRODSERVE_TRUSTED_PROXIES: private",
        ]
    return "\n".join(lines)
