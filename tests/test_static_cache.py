"""The private directory: shared safely, interrupted safely, and never bigger than it must be."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.contrib.staticfiles.finders import BaseFinder

from django_prodserve.staticfiles import cache as static_cache
from django_prodserve.staticfiles.collect import CannotCollectError, collect, fingerprint, list_sources
from django_prodserve.utils import private_directory
from tests.static_site import FILES, a_project

OURS = {"BACKEND": "django_prodserve.staticfiles.storage.LenientStorage", "OPTIONS": {}}
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def base(tmp_path):
    return tmp_path / "cache" / "django-prodserve"


def write_one(directory):
    (directory / "a.css").write_text("a")
    return ["a line"]


def old(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


class TestFingerprint:
    def mark(self):
        return fingerprint(list_sources()[0], OURS)

    def test_new_content_of_the_same_size_and_date_is_seen(self, project):
        before, path = self.mark(), project.source / "photo.png"
        date = path.stat().st_mtime_ns
        path.write_text("y")
        os.utime(path, ns=(date, date))
        assert self.mark() != before

    def test_a_new_date_alone_is_not(self, project):
        before = self.mark()
        old(project.source / "photo.png", 1000)
        assert self.mark() == before

    def test_a_large_file_counts_by_its_date(self, project):
        project.write({"film.mp4": b"x" * (2**20 + 1)})
        before = self.mark()
        old(project.source / "film.mp4", 1000)
        assert self.mark() != before

    @pytest.mark.parametrize(
        "change",
        [
            {"STATIC_URL": "other/"},
            {"WHITENOISE_SKIP_COMPRESS_EXTENSIONS": ["css"]},
            {"WHITENOISE_KEEP_ONLY_HASHED_FILES": True},
        ],
    )
    def test_settings_that_matter(self, project, change):
        before = self.mark()
        project.settings(**change)
        assert self.mark() != before

    def test_names_matter(self, project):
        before = self.mark()
        (project.source / "photo.png").rename(project.source / "picture.png")
        assert self.mark() != before

    def test_an_option_without_json_has_no_address_in_it(self, project):
        entries = [{**OURS, "OPTIONS": {"manifest_storage": object()}} for _ in range(2)]
        assert len({fingerprint({}, entry) for entry in entries}) == 1

    def test_files_of_a_finder_without_a_directory(self, project):
        project.settings(STATICFILES_FINDERS=[f"{__name__}.MemoryFinder"])
        assert list(list_sources()[0]) == ["made/up.css"]
        found = collect(OURS)
        assert (found.directory / "made" / "up.css").read_text() == "made up"


class MemoryFinder(BaseFinder):
    """Lists one file that is on no disk."""

    def list(self, ignored):
        from django.core.files.base import ContentFile
        from django.core.files.storage import InMemoryStorage

        storage = InMemoryStorage()
        storage.save("up.css", ContentFile(b"made up"))
        storage.prefix = "made"
        return [("up.css", storage)]


def test_a_file_that_cannot_be_read_is_left_out_with_a_line(project):
    (project.source / "broken.css").symlink_to("nowhere")
    found = collect(OURS)
    assert "broken.css: left out" in found.warnings[0]
    assert not (found.directory / "broken.css").exists()


def test_the_lines_of_a_build_are_told_at_every_start(project):
    project.write({"a.css": "p { background: url(gone.png) }"})
    first, second = collect(OURS), collect(OURS)
    assert (first.fresh, second.fresh) == (True, False)
    assert first.warnings == second.warnings != ()


def test_nobody_else_can_read_or_write_it(project, base):
    collect(OURS)
    for directory in (base, *base.iterdir(), *base.glob("*/*")):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(
    os.geteuid() == 0, reason="the superuser shares below /var/cache, which a test leaves alone"
)
def test_workers_of_another_user_can_read_it(project, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(project.place / "tmp"))
    found = collect(OURS, served_by=os.geteuid() + 1)
    assert found.directory.is_relative_to(project.place / "tmp")
    for path in found.directory.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_shared_tree_is_open_to_all(tmp_path):
    directory = tmp_path / "base" / "project" / "one"
    static_cache.build(tmp_path / "base", directory, write_one, mode=private_directory.SHARED)
    for path in (tmp_path / "base", *(tmp_path / "base").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


class TestOurs:
    def test_a_link_is_not_ours(self, project, base):
        elsewhere = project.place / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        base.parent.mkdir(exist_ok=True)
        base.symlink_to(elsewhere)
        with pytest.raises(PermissionError):
            private_directory.make_project(base, base / "project", mode=0o700)
        assert not list(elsewhere.iterdir())

    def test_a_directory_that_others_may_write_to_is_not_ours(self, base):
        base.mkdir(parents=True)
        base.chmod(0o777)
        assert not private_directory.is_ours(base)
        with pytest.raises(PermissionError):
            private_directory.make_project(base, base / "project", mode=0o700)

    def test_a_directory_of_someone_else_is_not_ours(self, base, monkeypatch):
        base.mkdir(parents=True, mode=0o700)
        assert private_directory.is_ours(base)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert not private_directory.is_ours(base)

    def test_a_complete_directory_in_a_place_that_is_not_ours_is_not_taken(self, base):
        directory = base / "project" / "one"
        static_cache.build(base, directory, write_one)
        assert static_cache.take(base, directory) == ["a line"]
        base.chmod(0o770)
        assert static_cache.take(base, directory) is None


def test_a_home_that_the_process_may_not_see_is_passed_over(tmp_path, monkeypatch):
    # The kernel refuses to look at such a name, as it refuses ProtectHome's /home to all but root.
    monkeypatch.setenv("HOME", "/" + "x" * 300)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert private_directory.bases()[-1].parent == tmp_path


def test_the_places_and_their_order(tmp_path, monkeypatch):
    for name, value in {"XDG_CACHE_HOME": "/x", "HOME": str(tmp_path), "TMPDIR": "/t"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    names = ["/x/django-prodserve", f"{tmp_path}/.cache/django-prodserve", "/t/django-prodserve-7"]
    assert [str(place) for place in private_directory.bases()] == names
    assert [str(place) for place in private_directory.bases(served_by=8)] == names[2:]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    places = [str(place) for place in private_directory.bases()]
    assert places == [
        *(["/var/cache/django-prodserve"] if Path("/var/cache").is_dir() else []),
        "/t/django-prodserve-0",
    ]


class TestPruning:
    def build(self, base, name, age=0.0):
        directory = base / "project" / name
        static_cache.build(base, directory, write_one)
        _let_go(directory)
        old(directory, age)
        return directory

    def test_the_last_two_stay(self, base):
        first, second, third = (self.build(base, name, age) for name, age in [("a", 30), ("b", 20), ("c", 0)])
        static_cache.prune(base, third)
        assert [path.exists() for path in (first, second, third)] == [False, True, True]

    def test_one_that_a_server_holds_stays(self, base):
        first, _, third = (self.build(base, name, age) for name, age in [("a", 30), ("b", 20), ("c", 0)])
        script = (
            "import sys, pathlib; from django_prodserve.staticfiles import cache\n"
            "base, directory = map(pathlib.Path, sys.argv[1:])\n"
            "print(cache.take(base, directory), flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(base), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        ) as server:
            assert server.stdout.readline() == "['a line']\n"
            old(first, 30)
            static_cache.prune(base, third)
            assert (first / "files" / "a.css").exists()
            server.stdin.close()
        static_cache.prune(base, third)
        assert not first.exists()

    def test_interrupted_builds_go_after_an_hour(self, base):
        current = self.build(base, "a")
        recent, stale = base / "project" / "building-1", base / "project" / "building-2"
        recent.mkdir()
        stale.mkdir()
        old(stale, 3700)
        static_cache.prune(base, current)
        assert (recent.exists(), stale.exists()) == (True, False)

    def test_projects_that_are_gone_go_after_a_month(self, base):
        current = self.build(base, "a")
        for name in ("recent", "forgotten"):
            static_cache.build(base, base / name / "one", write_one)
        _let_go(base / "forgotten" / "one")
        old(base / "forgotten", 31 * 86400)
        static_cache.prune(base, current)
        assert ((base / "recent").exists(), (base / "forgotten").exists()) == (True, False)


def _let_go(directory):
    """Close the locks on a directory, as if the server that took them had ended."""
    wanted = directory.stat()
    for descriptor in range(3, 256):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), wanted):
                os.close(descriptor)


def test_a_change_of_the_sources_is_a_new_build_and_the_last_two_stay(project):
    kept = []
    for number in range(3):
        project.write({"site.css": f"p {{ order: {number} }}"})
        found = collect(OURS)
        _let_go(found.directory.parent)
        kept.append(found.directory)
        for age, directory in enumerate(reversed(kept)):
            if directory.parent.exists():
                old(directory.parent, age * 10)
    assert [directory.exists() for directory in kept] == [False, True, True]


class TestSpoiled:
    """A cleaner of /tmp takes single files, a crash of the machine leaves empty ones."""

    @pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_text("")])
    def test_it_is_made_again_in_the_same_place(self, project, harm):
        first = collect(OURS)
        harm(first.directory / "photo.png")
        second = collect(OURS)
        assert (second.fresh, second.directory) == (True, first.directory)
        assert (second.directory / "photo.png").read_text() == FILES["photo.png"]
        assert len(project.builds()) == 1

    def test_without_its_note_it_does_not_count(self, project):
        first = collect(OURS)
        (first.directory.parent / "complete.json").write_text("half a no")
        assert collect(OURS).fresh


def test_servers_that_start_together_agree(project):
    script = (
        "import sys, django; from django.conf import settings\n"
        f"settings.configure(STATIC_URL='s/', STATICFILES_DIRS=[{str(project.source)!r}],\n"
        f"    BASE_DIR={str(project.place)!r}, INSTALLED_APPS=['django.contrib.staticfiles'])\n"
        "django.setup(); sys.stdin.readline()\n"
        "from django_prodserve.staticfiles import *\n"
        "files = prepare_static(choose_static())\n"
        "told = [files.choice.mode, files.directory, files.count, list(files.warnings)]\n"
        "import json; print(json.dumps(told))"
    )
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for _ in range(4)
    ]
    for server in servers:  # all are set up before the first begins
        server.stdin.write("\n")
        server.stdin.flush()
    told = [json.loads(server.communicate(timeout=60)[0]) for server in servers]
    assert told == [["collect", told[0][1], len(FILES), []]] * 4
    assert len(project.builds()) == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    script = (
        "import resource, pathlib, sys; from django_prodserve.staticfiles import cache\n"
        "before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))\n"
        "base = pathlib.Path(sys.argv[1])\n"
        "def fill(directory):\n"
        "    (directory / 'a').write_text('a')\n"
        "try: cache.build(base, base / 'project' / 'one', fill)\n"
        "except OSError as error:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"  # what measures coverage writes at exit
        "    sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "base")], cwd=REPOSITORY)
    assert done.returncode == errno.EFBIG
    assert not list((tmp_path / "base" / "project").iterdir())


def test_a_build_whose_collecting_fails_leaves_nothing_behind(project, monkeypatch):
    elsewhere = {**OURS, "OPTIONS": {"manifest_storage": _Remote()}}
    with pytest.raises(CannotCollectError, match="keeps its manifest elsewhere"):
        collect(elsewhere)
    assert not project.builds()


class _Remote:
    def open(self, name):
        raise FileNotFoundError(name)

    def path(self, name):
        raise NotImplementedError


def test_a_complete_directory_on_a_read_only_disk_serves(project, base):
    found = collect(OURS)
    places = [base, base / found.directory.parent.parent.name, found.directory.parent]
    for place in places:
        place.chmod(0o500)
    try:
        assert not collect(OURS).fresh
    finally:
        for place in places:
            place.chmod(0o700)


def test_a_lock_ends_with_its_owner_alone(tmp_path):
    handle = static_cache.lock(tmp_path, exclusive=False)
    assert static_cache.lock(tmp_path, exclusive=True) is None
    assert not fcntl.fcntl(handle, fcntl.F_GETFD) & ~fcntl.FD_CLOEXEC
    assert fcntl.fcntl(handle, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(handle)
    again = static_cache.lock(tmp_path, exclusive=True)
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("mode", [private_directory.PRIVATE, private_directory.SHARED])
def test_parents_that_are_made_are_for_this_user_alone(tmp_path: Path, mode: int) -> None:
    base = tmp_path / "home" / ".cache" / "django-prodserve"
    (tmp_path / "home").mkdir()
    before = os.umask(0)
    try:
        private_directory.make_project(base, base / "key", mode=mode)
    finally:
        os.umask(before)
    modes = [oct(place.stat().st_mode & 0o777) for place in (base.parent, base, base / "key")]
    assert modes == [oct(0o700), oct(mode), oct(mode)]
