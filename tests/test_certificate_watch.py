"""Which files of certificates are taken over, which are refused, and when the end of one is said."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.arbiter.certificate_watch import (
    LOOK_SECONDS,
    RETRY_SECONDS,
    WRITING_SECONDS,
    CertificateWatch,
)
from django_prodserve.config.gunicorn import new_config
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.events import SEVERITY, Event
from django_prodserve.tls.certificates import parse_pem
from django_prodserve.tls.contexts import TLSContexts
from django_prodserve.tls.expiry import Expiry, read_expiries
from django_prodserve.tls.key_pairs import KeyPair
from django_prodserve.tls.renewal import Renewals

from .certificates import Made, ending, make

DAY = 86400.0


class Recorder(logging.LoggerAdapter):  # type: ignore[type-arg]
    """The arbiter as the watch sees it: a log, events, and facts for the status."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("tests.certificates"), {})
        self.log = self
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.facts: dict[str, Any] = {}

    def log_line(self, **facts: Any) -> None:
        self.facts |= facts

    def record_event(self, kind: str, text: str, stack: str = "") -> None:
        assert kind in SEVERITY
        self.events.append(Event(time.time(), kind, text, stack))

    def notice(self, line: str, *words: object) -> None:
        self.lines.append(f"notice {line % words}")

    def warning(self, line: str, *words: object) -> None:  # type: ignore[override]
        self.lines.append(f"warning {line % words}")

    def error(self, line: str, *words: object) -> None:  # type: ignore[override]
        self.lines.append(f"error {line % words}")


class Scene:
    """A pair in a folder, the contexts that were loaded from it, and a watch with a clock of its own."""

    def __init__(self, folder: Path, made: Made) -> None:
        self.folder = folder
        self.pair = KeyPair(str(folder / "live.pem"), str(folder / "live.key"))
        self.write(made)
        self.contexts = TLSContexts.make(new_config(), [self.pair])
        self.renewals = Renewals(self.contexts.pairs)
        self.arbiter = Recorder()
        self.watch = CertificateWatch(self.arbiter, [self.pair], self.contexts, self.renewals)  # type: ignore[arg-type]
        self.now = 1000.0
        self.go(10)

    def write(self, made: Made) -> None:
        self.write_certificate(made.certificate)
        Path(self.pair.keyfile or "").write_text(made.key)

    def write_certificate(self, text: str) -> None:
        Path(self.pair.certfile).write_text(text)

    def go(self, seconds: float) -> None:
        """Let this time pass on the watch's clock."""
        for _ in range(round(seconds / LOOK_SECONDS) + 1):
            self.now += LOOK_SECONDS
            self.watch.tick(self.now)

    @property
    def expiry(self) -> Expiry:
        (found,) = read_expiries(self.arbiter.facts["certificates"])
        return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Make three certificates with their keys."""
    return [make(tmp_path_factory.mktemp("made"), f"shop{number}.example") for number in range(3)]


@pytest.fixture
def scene(tmp_path: Path, pairs: list[Made]) -> Scene:
    return Scene(tmp_path, pairs[0])


def test_what_serves_is_shown_and_not_loaded_again(scene: Scene, pairs: list[Made]) -> None:
    known = parse_pem(pairs[0].certificate.encode())
    assert scene.expiry == Expiry(known.names, scene.pair.certfile, known.expires)
    assert scene.arbiter.lines == []
    assert scene.arbiter.events == []
    os.utime(scene.pair.certfile)
    scene.go(60)
    assert scene.arbiter.lines == []


def test_a_renewed_pair_is_taken_over_once(scene: Scene, pairs: list[Made]) -> None:
    worker = a_worker(scene)
    scene.write(pairs[1])
    scene.go(2 * LOOK_SECONDS)
    assert scene.expiry.name == "shop1.example"
    assert [event.kind for event in scene.arbiter.events] == ["certificate renewed"]
    (line,) = scene.arbiter.lines
    assert line.startswith("notice The certificate of shop1.example is renewed: it expires on 20")
    scene.go(120)
    assert len(scene.arbiter.lines) == 1
    # A worker that was forked before loads it, too; one that is forked now has it.
    assert worker.certificates[0].names[0] == "shop0.example"
    assert worker.follow() is None
    assert worker.certificates[0].names[0] == "shop1.example"
    later = a_worker(scene)
    assert later.certificates[0].names[0] == "shop1.example"
    assert later.follow() is None


def a_worker(scene: Scene) -> Any:
    """Return contexts and orders as a fork has them: memory is copied, the orders are shared."""
    contexts = TLSContexts.make(new_config(), [scene.pair])
    renewals = Renewals.__new__(Renewals)
    renewals.__dict__ = {**scene.renewals.__dict__, "_loaded": [*scene.renewals._loaded], "_failed": [0]}
    return SimpleNamespace(
        certificates=contexts.certificates, follow=lambda: renewals.follow(contexts), contexts=contexts
    )


def test_files_that_are_written_apart_cause_no_warning(scene: Scene, pairs: list[Made]) -> None:
    scene.write_certificate(pairs[1].certificate)
    scene.go(WRITING_SECONDS - 2 * LOOK_SECONDS - 1)
    assert scene.arbiter.lines == []
    assert scene.expiry.name == "shop0.example"
    Path(scene.pair.keyfile or "").write_text(pairs[1].key)
    scene.go(2 * LOOK_SECONDS)
    assert scene.expiry.name == "shop1.example"
    assert [line.partition(" ")[0] for line in scene.arbiter.lines] == ["notice"]


@pytest.mark.parametrize("fault", ["key", "half", "text", "gone", "encrypted"])
def test_a_pair_that_does_not_fit_is_one_warning_and_the_old_one_serves(
    scene: Scene, pairs: list[Made], fault: str
) -> None:
    before = scene.contexts.certificates[0]
    if fault == "key":
        scene.write(Made(pairs[1].certificate, pairs[2].key))
    elif fault == "half":
        scene.write(Made(pairs[1].certificate[:200], pairs[1].key))
    elif fault == "text":
        scene.write(Made("not yet\n", pairs[1].key))
    elif fault == "encrypted":
        scene.write(Made(pairs[1].certificate, ENCRYPTED))
    else:
        os.unlink(scene.pair.certfile)
    scene.go(WRITING_SECONDS + 4 * LOOK_SECONDS)
    (line,) = scene.arbiter.lines
    assert line.startswith(
        f"warning The new files of the certificate of shop0.example ({scene.pair}) are not"
    )
    assert "The old certificate serves, and expires on " in line
    assert [event.kind for event in scene.arbiter.events] == ["certificate refused"]
    assert scene.expiry.refused
    assert scene.contexts.certificates[0] is before
    scene.go(2 * RETRY_SECONDS)
    os.utime(scene.folder)
    assert len(scene.arbiter.lines) == 1
    # The same content again, as another file.
    if fault != "gone":
        text = Path(scene.pair.certfile).read_text()
        os.unlink(scene.pair.certfile)
        scene.write_certificate(text)
        scene.go(WRITING_SECONDS + 4 * LOOK_SECONDS)
        assert len(scene.arbiter.lines) == 1
    # Mended.
    scene.write(pairs[2])
    scene.go(2 * LOOK_SECONDS)
    assert (scene.expiry.name, scene.expiry.refused) == ("shop2.example", "")
    assert [line.partition(" ")[0] for line in scene.arbiter.lines] == ["warning", "notice"]


ENCRYPTED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGrMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj0000000000AICCAAw
-----END ENCRYPTED PRIVATE KEY-----
"""


def test_the_old_pair_written_back_ends_the_refusal(scene: Scene, pairs: list[Made]) -> None:
    scene.write(Made(pairs[0].certificate, pairs[1].key))
    scene.go(WRITING_SECONDS + 4 * LOOK_SECONDS)
    assert scene.expiry.refused
    scene.write(pairs[0])
    scene.go(2 * LOOK_SECONDS)
    assert not scene.expiry.refused
    assert len(scene.arbiter.lines) == 1


def test_links_are_followed_like_those_of_certbot(tmp_path: Path, pairs: list[Made]) -> None:
    scene = Scene(tmp_path, pairs[0])
    archive = tmp_path / "archive"
    archive.mkdir()
    for path, text in ((scene.pair.certfile, pairs[1].certificate), (scene.pair.keyfile or "", pairs[1].key)):
        target = archive / Path(path).name
        target.write_text(text)
        os.unlink(path)
        os.symlink(target, path)
    scene.go(2 * LOOK_SECONDS)
    assert scene.expiry.name == "shop1.example"


def test_a_pair_that_was_written_during_the_start_is_taken_over(tmp_path: Path, pairs: list[Made]) -> None:
    scene = Scene(tmp_path, pairs[0])
    scene.write(pairs[1])
    scene.watch = CertificateWatch(scene.arbiter, [scene.pair], scene.contexts, scene.renewals)  # type: ignore[arg-type]
    scene.go(2 * LOOK_SECONDS)
    assert scene.expiry.name == "shop1.example"


def test_a_file_that_always_changes_is_taken_over(scene: Scene, pairs: list[Made]) -> None:
    scene.write(pairs[1])
    for number in range(30):
        os.utime(scene.pair.certfile, (number, number))
        scene.go(0)
    assert scene.expiry.name == "shop1.example"


def test_a_busy_worker_loads_what_was_ordered_and_not_what_was_refused(
    scene: Scene, pairs: list[Made]
) -> None:
    worker = a_worker(scene)
    scene.write(pairs[1])
    scene.go(2 * LOOK_SECONDS)
    scene.write(Made(pairs[2].certificate, pairs[0].key))
    scene.go(2 * LOOK_SECONDS)
    assert worker.follow() is None
    assert worker.certificates[0].names[0] == "shop1.example"


def test_many_certificates_fit_into_the_status(tmp_path: Path, pairs: list[Made]) -> None:
    scene = Scene(tmp_path, pairs[0])
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    many = []
    for number in range(40):
        many.append(KeyPair(str(folder / f"{number}.pem"), scene.pair.keyfile))
        Path(many[-1].certfile).write_text(pairs[0].certificate)
    board = Scoreboard.create(None, slots=1, rows=1, now=1.0)
    scene.arbiter.log_line = lambda **facts: board.write_summary(facts)  # type: ignore[method-assign]
    scene.watch = CertificateWatch(scene.arbiter, many, None, None)  # type: ignore[arg-type]
    scene.go(4)
    assert len(board.summary()["certificates"]) > 5


def test_a_worker_that_cannot_load_it_says_so_after_some_attempts(scene: Scene, pairs: list[Made]) -> None:
    worker = a_worker(scene)
    scene.write(pairs[1])
    scene.go(2 * LOOK_SECONDS)
    for descriptor in scene.renewals._files[0]:
        os.ftruncate(descriptor, 10)
    errors = [worker.follow() for _ in range(10)]
    assert sum(error is not None for error in errors) == 1
    assert worker.certificates[0].names[0] == "shop0.example"


@pytest.mark.parametrize(
    ("left", "first_word"),
    [(15 * DAY, ""), (13.5 * DAY, "expires"), (3600.0, "expires"), (-2 * DAY, "expired")],
)
def test_the_end_of_a_certificate_is_said_once_a_day(
    tmp_path: Path, pairs: list[Made], monkeypatch: pytest.MonkeyPatch, left: float, first_word: str
) -> None:
    wall = time.time()
    scene = Scene(tmp_path, Made(ending(pairs[0].certificate, wall + left), pairs[0].key))
    assert scene.arbiter.lines == []  # the start has said it
    assert [event.kind for event in scene.arbiter.events] == (["certificate expires"] if first_word else [])
    clock = [wall]
    monkeypatch.setattr("django_prodserve.arbiter.certificate_watch.time.time", lambda: clock[0])
    for hours in range(1, 49):
        clock[0] = wall + hours * 3600.0 + 60
        scene.go(0)
    words = [line.split(f"({scene.pair.certfile}) ")[1].split()[0] for line in scene.arbiter.lines]
    if left > 14 * DAY:
        assert words == ["expires"] * 2  # on the second day, and one day later
    elif left == 3600.0:
        assert words == ["expired"] * 2  # immediately when it ends, and one day later
        assert scene.arbiter.lines[0].startswith("error ")
    else:
        assert words == [first_word] * 2
    assert all(event.kind == "certificate expires" for event in scene.arbiter.events)


def test_a_reload_does_not_say_it_again(tmp_path: Path, pairs: list[Made]) -> None:
    scene = Scene(tmp_path, Made(ending(pairs[0].certificate, time.time() - DAY), pairs[0].key))
    after = CertificateWatch(scene.arbiter, [scene.pair], scene.contexts, scene.renewals)  # type: ignore[arg-type]
    after.resume(scene.arbiter.events)
    scene.watch, count = after, len(scene.arbiter.events)
    scene.go(60)
    assert (scene.arbiter.lines, len(scene.arbiter.events)) == ([], count)


def test_certificates_of_gunicorns_own_workers_are_only_shown(tmp_path: Path, pairs: list[Made]) -> None:
    scene = Scene(tmp_path, pairs[0])
    scene.watch = CertificateWatch(scene.arbiter, [scene.pair], None, None)  # type: ignore[arg-type]
    scene.go(10)
    scene.write(pairs[1])
    scene.go(10)
    assert scene.expiry.name == "shop1.example"
    assert scene.contexts.certificates[0].names[0] == "shop0.example"
    scene.write(Made(pairs[1].certificate, pairs[2].key))
    scene.go(WRITING_SECONDS + 4 * LOOK_SECONDS)
    assert scene.arbiter.lines[-1].endswith("does not belong to the certificate. New connections fail.")


def test_when_is_said_as_a_day_and_a_distance() -> None:
    expiry = Expiry(("shop.example",), "/etc/c.pem", 1_800_000_000.0)
    assert expiry.when(1_800_000_000.0 - 9 * DAY) == "expires on 2027-01-15, in 9 days"
    assert expiry.when(1_800_000_000.0 - 7200) == "expires on 2027-01-15, in 2 h"
    assert expiry.when(1_800_000_000.0 + 3 * DAY) == "expired on 2027-01-15, 3 days ago"
    assert expiry.sentence(1_800_000_000.0).endswith("0 s ago: clients refuse this site")
    assert Expiry((), "/etc/c.pem", 0.0).name == "/etc/c.pem"
