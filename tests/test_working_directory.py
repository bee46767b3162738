"""The name by which a working directory is known: typed, or found by the link that leads there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from django_prodserve.errors import ProdserveError
from django_prodserve.utils import working_directory
from django_prodserve.utils.working_directory import links_to, refuse_the_old


@pytest.fixture
def app() -> Iterator[Path]:
    """Give the real path of a directory with two releases; pytest's own lies behind links of pytest's."""
    with TemporaryDirectory() as directory:
        root = Path(os.path.realpath(directory)) / "app"
        for name in ("r1", "r2"):
            (root / "releases" / name / "backend").mkdir(parents=True)
        yield root


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Forget what this process knows of its directory, and who typed what."""
    for name, value in (("start", None), ("here", None), ("entered", "")):
        monkeypatch.setattr(working_directory._State, name, value)
    monkeypatch.setattr("sys.orig_argv", ["python", "manage.py", "prodserve"])
    monkeypatch.delenv("PWD", raising=False)
    return monkeypatch


def test_a_link_beside_the_releases_is_found(app: Path) -> None:
    (app / "current").symlink_to("releases/r1")
    assert links_to(str(app / "releases" / "r1")) == (f"{app}/current",)
    assert links_to(str(app / "releases" / "r1" / "backend")) == (f"{app}/current/backend",)
    assert links_to(str(app / "releases" / "r2")) == ()
    assert links_to(str(app)) == ()


def test_the_link_that_leads_closest_counts(app: Path) -> None:
    (app.parent / "alias").symlink_to("app")
    real = str(app / "releases" / "r1")
    assert links_to(real) == (f"{app.parent}/alias/releases/r1",)
    (app / "current").symlink_to("releases/r1")
    assert links_to(real) == (f"{app}/current",)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user")
def test_a_link_of_a_stranger_is_not_followed(app: Path) -> None:
    (app / "theirs").symlink_to("releases/r1")
    os.lchown(app / "theirs", 65534, 65534)
    assert links_to(str(app / "releases" / "r1")) == ()


def test_of_several_links_the_one_called_current_is_followed(app: Path, fresh: pytest.MonkeyPatch) -> None:
    real = str(app / "releases" / "r1")
    for name in ("stable", "previous"):
        (app / name).symlink_to("releases/r1")
    fresh.chdir(real)
    place = working_directory.find_place()
    assert (place.name, place.found) == (real, "")
    assert place.rivals == (f"{app}/previous", f"{app}/stable")
    assert place.links == dict.fromkeys(place.rivals, real)
    (app / "current").symlink_to("releases/r1")
    assert working_directory.find_place().found == f"{app}/current"


def test_what_was_typed_wins_over_what_is_found(app: Path, fresh: pytest.MonkeyPatch) -> None:
    for name in ("current", "typed"):
        (app / name).symlink_to("releases/r1")
    fresh.chdir(app / "releases" / "r1")
    fresh.setenv("PWD", str(app / "typed"))
    assert working_directory.find_place()[:2] == (f"{app}/typed", f"{app}/releases/r1")
    fresh.setenv("PWD", str(app / "releases" / "r1"))  # what a shell says that systemd started
    assert working_directory.find_place().found == f"{app}/current"


def test_chdir_is_known_by_its_name(app: Path, fresh: pytest.MonkeyPatch) -> None:
    for name in ("current", "other"):
        (app / name).symlink_to("releases/r1")
    fresh.chdir(app)
    working_directory.enter("other")
    working_directory.enter("other")  # relative to where the command was typed, also the second time
    assert working_directory.here().name == f"{app}/other"
    assert working_directory.start().name == str(app)
    assert working_directory.by_name(f"{app}/releases/r1/shop") == f"{app}/other/shop"
    assert os.getcwd() == f"{app}/releases/r1"


def test_settings_that_name_their_own_directory_hide_no_link(app: Path, fresh: pytest.MonkeyPatch) -> None:
    (app / "current").symlink_to("releases/r1")
    fresh.chdir(app / "releases" / "r1")
    working_directory.enter(f"{app}/releases/r1", source="PRODSERVE['CHDIR']")
    assert working_directory.here().name == f"{app}/current"


def test_chdir_to_nowhere_says_where_the_link_leads(app: Path, fresh: pytest.MonkeyPatch) -> None:
    (app / "current").symlink_to("releases/r9")
    fresh.chdir(app)
    with pytest.raises(ProdserveError, match=r"current: it leads to .*/releases/r9, which does not exist"):
        working_directory.enter("current")


def test_old_code_is_refused_only_where_its_link_has_moved(app: Path) -> None:
    link, old = app / "current", app / "releases" / "r1"
    link.symlink_to("releases/r2")
    links = {str(link): str(old)}
    refuse_the_old(links, [str(app / "releases" / "r2" / "settings.py"), None])
    refuse_the_old({str(app / "gone"): str(old)}, [str(old / "settings.py")])
    refuse_the_old({str(link): str(app / "releases" / "r2")}, [str(app / "releases" / "r2" / "settings.py")])
    with pytest.raises(ProdserveError, match=r"current leads to .*r2 now, but .* would serve .*r1 again"):
        refuse_the_old(links, [str(old / "settings.py")])
