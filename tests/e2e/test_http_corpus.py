"""Several hundred malformed and ambiguous requests, as they are and in pieces, with either parser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

from ..wire import PARSERS
from .corpus import GROUPS
from .raw import NOTHING, Case, boundaries, hold, single_bytes
from .serving import Server, environment, serving

CASES = [case for cases in GROUPS.values() for case in cases]
REFUSALS = {400, 413, 414, 417, 431, 501, 505}
BYTE_BY_BYTE = 400  # bytes, and less; whole groups of these are sent so
SITE = {
    "ALLOWED_HOSTS": ["*"],
    "MIDDLEWARE": [
        "shop.echo.EchoEverything",
        # Never reached; the admin's system checks ask for them.
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
}
FLAGS = ("--workers", "1", "--threads", "4", "--trusted-proxies", "none", "--warmup", "off")


def pieces(case: Case, way: str) -> list[bytes]:
    if way == "whole":
        return [case.sent]
    return boundaries(case.sent) if way == "cut at its boundaries" else single_bytes(case.sent)


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with one of the parsers, all cases of this module."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    site = {**SITE, "PRODSERVE": {"GUNICORN": {"http_parser": request.param}}}
    with serving(*FLAGS, env=environment(folder, **site)) as running:
        yield running


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("way", ["whole", "cut at its boundaries"])
def test_nothing_is_smuggled_hung_or_answered_with_500(server: Server, group: str, way: str) -> None:
    cases = [(case, pieces(case, way)) for case in GROUPS[group]]
    wrong = hold(("127.0.0.1", server.port), cases)
    assert not wrong, wrong


def test_nothing_changes_when_every_byte_comes_alone(server: Server) -> None:
    cases = [(case, pieces(case, "")) for case in CASES[::4] if len(case.sent) <= BYTE_BY_BYTE]
    assert len(cases) > 100
    wrong = hold(("127.0.0.1", server.port), cases)
    assert not wrong, wrong


def judged_by_gunicorn(case: Case) -> list[str]:
    """Return what Gunicorn's own parser makes of a case: "taken", "refused" or "unfinished", each in turn."""
    config = Config()
    for name, value in {"http_parser": "python", "forwarder_headers": "", "header_map": "drop"}.items():
        config.set(name, value)
    sent = case.sent + case.then
    parser = RequestParser(
        config, (sent[at : at + 8192] for at in range(0, len(sent), 8192)), ("127.0.0.1", 1)
    )
    verdicts: list[str] = []
    try:
        for request in parser:
            while request.body.read(65536):
                pass
            verdicts.append("taken")
    except ParseException:
        verdicts.append("refused")
    except NoMoreData:
        verdicts.append("unfinished")
    return verdicts


@pytest.mark.parametrize("group", GROUPS)
def test_the_corpus_refuses_what_gunicorns_own_parser_refuses(group: str) -> None:
    """The corpus is right about the rule: no case takes more, and what takes less says why."""
    wrong = []
    for case in GROUPS[group]:
        verdicts = judged_by_gunicorn(case)
        for number, wanted in enumerate(case.answers):
            statuses = wanted if isinstance(wanted, frozenset) else {wanted}
            verdict = verdicts[number] if number < len(verdicts) else "unfinished"
            taken, refused = statuses - REFUSALS - {NOTHING}, statuses & REFUSALS
            if verdict == "refused" and taken and not refused:
                wrong.append(f"{case.name}: Gunicorn refuses it, the corpus wants {case.answers}")
            if verdict == "taken" and not taken and not case.beyond:
                wrong.append(
                    f"{case.name}: Gunicorn takes it, the corpus wants {case.answers} and does not say why"
                )
    assert not wrong, "\n".join(wrong)


def test_names_are_unique_and_there_are_several_hundred() -> None:
    for cases in GROUPS.values():
        names = [case.name for case in cases]
        assert sorted(names) == sorted(set(names))
    assert len(CASES) > 400
