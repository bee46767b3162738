"""A file's bytes are taken from its descriptor only where read() yields the same: nothing else is proved."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.images import ImageFile
from django.core.files.storage import FileSystemStorage
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import models
from django.db.models.fields.files import FieldFile, ImageFieldFile

from django_prodserve.http.plain_files import Slice, find

TEXT = b"".join(b"line %d\n" % number for number in range(5000))


class Decrypting:
    """What storages return: read() decodes, all else is the file's."""

    def __init__(self, raw: Any) -> None:
        self.raw = self.file = raw

    def read(self, size: int = -1) -> bytes:
        return bytes(byte ^ 7 for byte in self.raw.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class DecryptingFile(File):  # type: ignore[type-arg]
    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        return bytes(byte ^ 7 for byte in self.file.read(size))


class Labelled(FieldFile):
    """As packages make them: more properties, the same read."""

    label = "x"


class Watched(File):  # type: ignore[type-arg]
    def __getattribute__(self, name: str) -> Any:
        return getattr(io.BytesIO(b"other"), name) if name == "read" else super().__getattribute__(name)


class LoudReader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).upper()


class LoudRaw(io.FileIO):
    def readinto(self, buffer: Any, /) -> int:
        size = super().readinto(buffer) or 0
        buffer[:size] = bytes(buffer[:size]).upper()
        return size


class FirstBytes(io.BufferedReader):
    """Limited by a subclass without a read of its own."""

    def readinto(self, buffer: Any, /) -> int:
        return 0


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    (tmp_path / "plain.txt").write_bytes(TEXT)
    return tmp_path / "plain.txt"


def field_file(path: Path, kind: type[FieldFile] = FieldFile) -> FieldFile:
    field = models.FileField(storage=FileSystemStorage(path.parent))
    field.attname = "upload"
    return kind(object(), field, path.name)  # type: ignore[arg-type]


def temporary(path: Path, **kwargs: Any) -> Any:
    file = tempfile.NamedTemporaryFile(dir=path.parent, **kwargs)  # noqa: SIM115
    file.write(TEXT)
    file.seek(0)
    assert hasattr(file, "read")  # as Django asks; the wrapper keeps what it has found
    return file


def uploaded(path: Path) -> Any:
    file = TemporaryUploadedFile("x.txt", "text/plain", len(TEXT), None)
    file.write(TEXT)
    file.seek(0)
    return file


def closed_by_django(path: Path) -> Any:
    file = path.open("rb")
    file.close = lambda: None  # type: ignore[method-assign]
    return file


def read_ahead(path: Path) -> Any:
    file = path.open("rb")
    assert file.read(10) == TEXT[:10]
    return file


def written(path: Path) -> Any:
    file = path.open("r+b")
    file.write(b"LINE")
    return file


PLAIN: dict[str, Callable[[Path], Any]] = {
    "open": lambda path: path.open("rb"),
    "closed by Django": closed_by_django,
    "read ahead": read_ahead,
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "for reading and writing": lambda path: path.open("r+b"),
    "just written": written,
    "Django's": lambda path: File(path.open("rb")),
    "Django's, twice": lambda path: File(File(path.open("rb"))),
    "Django's image": lambda path: ImageFile(path.open("rb")),
    "a storage's": lambda path: FileSystemStorage(path.parent).open(path.name),
    "a field's": field_file,
    "an image field's": lambda path: field_file(path, ImageFieldFile),
    "a field's of a package": lambda path: field_file(path, Labelled),
    "temporary": temporary,
    "temporary and kept": lambda path: temporary(path, delete=False),
    "uploaded": uploaded,
    "a slice": lambda path: Slice(path.open("rb"), 10, 99),
}


def pipe(path: Path) -> Any:
    read, write = os.pipe()
    os.write(write, TEXT[:1000])
    os.close(write)
    return os.fdopen(read, "rb")


def in_tar(path: Path) -> Any:
    with tarfile.open(path.with_suffix(".tar"), "w") as tar:
        tar.add(path, "before")
        tar.add(path, "plain.txt")
    return tarfile.open(path.with_suffix(".tar")).extractfile("plain.txt")


def in_zip(path: Path) -> Any:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "plain.txt")
    return zipfile.ZipFile(path.with_suffix(".zip")).open("plain.txt")


def compressed(module: Any) -> Callable[[Path], Any]:
    def made(path: Path) -> Any:
        with module.open(path.with_suffix(".z"), "wb") as file:
            file.write(TEXT)
        return module.open(path.with_suffix(".z"), "rb")

    return made


def spooled(path: Path) -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(TEXT)
    file.seek(0)
    return file


def replaced(name: str, of: Callable[[Any], Any] = lambda file: file) -> Callable[[Path], Any]:
    def made(path: Path) -> Any:
        file = path.open("rb")
        setattr(of(file), name, lambda *args: b"")
        return file

    return made


def replaced_in_temporary(path: Path) -> Any:
    file = temporary(path)
    read = file.file.read
    file.read = functools.wraps(read)(lambda *args: read(*args).upper())
    return file


OTHERS: dict[str, Callable[[Path], Any]] = {
    "decrypting": lambda path: Decrypting(path.open("rb")),
    "decrypting, in Django's": lambda path: File(Decrypting(path.open("rb"))),
    "decrypting, of Django's": lambda path: DecryptingFile(path.open("rb")),
    "Django's with an eye on it": lambda path: Watched(path.open("rb")),
    "gzip": compressed(gzip),
    "gzip in Django's": lambda path: File(compressed(gzip)(path)),
    "bz2": compressed(bz2),
    "lzma": compressed(lzma),
    "buffered gzip": lambda path: io.BufferedReader(compressed(gzip)(path)),
    "a member of a tar": in_tar,
    "a member of a zip": in_zip,
    "text": lambda path: path.open(),
    "text in Django's": lambda path: File(path.open()),
    "a pipe": pipe,
    "a device": lambda path: Path("/dev/zero").open("rb"),  # noqa: SIM115
    "spooled": spooled,
    "memory": lambda path: io.BytesIO(TEXT),
    "memory, Django's": lambda path: ContentFile(TEXT),
    "a reader of one's own": lambda path: LoudReader(io.FileIO(path)),
    "a raw file of one's own": lambda path: io.BufferedReader(LoudRaw(path)),
    "a raw file of one's own, alone": LoudRaw,
    "a limit": lambda path: FirstBytes(io.FileIO(path)),
    "read replaced": replaced("read"),
    "readinto of the raw file replaced": replaced("readinto", lambda file: file.raw),
    "tell replaced": replaced("tell"),
    "read of a temporary file replaced": replaced_in_temporary,
    "temporary text": lambda path: tempfile.NamedTemporaryFile("w+"),  # noqa: SIM115
    "write-only": lambda path: io.FileIO(path, "a"),
    "no file at all": lambda path: object(),
}


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    files: list[Any] = []
    yield files
    for file in files:
        getattr(file, "close", lambda: None)()
        getattr(getattr(file, "raw", None), "close", lambda: None)()


@pytest.mark.parametrize("name", PLAIN)
def test_the_kernel_sends_what_read_would_yield(name: str, plain: Path, opened: list[Any]) -> None:
    opened.append(file := PLAIN[name](plain))
    found = find(file)
    assert found is not None
    descriptor, offset, count = found
    assert os.pread(descriptor, count, offset) == file.read()
    assert count > 0


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_all_else_is_read(name: str, plain: Path, opened: list[Any]) -> None:
    opened.append(file := OTHERS[name](plain))
    assert find(file) is None


def test_a_closed_file_is_read_and_raises_there(plain: Path) -> None:
    with plain.open("rb") as file:
        pass
    assert find(file) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux has it")
def test_the_kernels_own_files_say_that_they_are_empty() -> None:
    with Path("/proc/meminfo").open("rb") as file:
        found = find(file)
        assert found is None or found[2] == 0
