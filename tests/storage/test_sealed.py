"""Sealed files: what was written is read, any change to it is found, and half a write leaves nothing."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.errors import StorageError
from tercet.storage import sealed
from tercet.storage.sealed import SealedFiles, directory_of

KEY = bytes(range(32))
NAME = hashlib.sha256(b"a value").hexdigest()[:40]
OTHER = NAME[::-1]
SMALL = 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(sealed, "CHUNK_BYTES", SMALL)


@pytest.fixture
def files(tmp_path):
    return SealedFiles("data", KEY, base=tmp_path)


def pieces(data, cut):
    return [memoryview(data[:cut]), memoryview(data[cut:])]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=4 * SMALL + 1), cut=st.integers(0, 300))
def test_what_is_written_is_read(files, data, cut):
    size = files.write(NAME, pieces(data, cut))
    assert b"".join(files.read(NAME)) == data
    assert size == (files._files.size(files.path(NAME)))


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL])
def test_any_change_is_found(files, tmp_path, size):
    files.write(NAME, [memoryview(bytes(size))])
    path = tmp_path / "data" / NAME
    whole = path.read_bytes()
    assert bytes(SMALL) not in whole
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(StorageError, match=NAME):
            list(files.read(NAME))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match=r"is damaged|no file of shares"):
            list(files.read(NAME))
    path.write_bytes(whole + b"x")
    with pytest.raises(StorageError):
        list(files.read(NAME))


def test_chunks_cannot_be_swapped_nor_files(files, tmp_path):
    data = bytes(range(3 * SMALL))
    files.write(NAME, [memoryview(data)])
    files.write(OTHER, [memoryview(data)])
    path = tmp_path / "data" / NAME
    whole = path.read_bytes()
    head, chunk = len(sealed.MAGIC) + sealed.SALT_BYTES, SMALL + sealed.TAG_BYTES
    first, second = whole[head : head + chunk], whole[head + chunk : head + 2 * chunk]
    path.write_bytes(whole[:head] + second + first + whole[head + 2 * chunk :])
    with pytest.raises(StorageError, match="chunk 0"):
        list(files.read(NAME))
    path.write_bytes((tmp_path / "data" / OTHER).read_bytes())
    with pytest.raises(StorageError, match="damaged in chunk"):
        list(files.read(NAME))


def test_another_key(files, tmp_path):
    files.write(NAME, [memoryview(b"shares")])
    with pytest.raises(StorageError, match="another storage key"):
        list(SealedFiles("data", bytes(32), base=tmp_path).read(NAME))
    with pytest.raises(StorageError, match="16 bytes instead of 32"):
        SealedFiles("data", bytes(16), base=tmp_path)


def test_a_file_that_is_not_there(files):
    with pytest.raises(StorageError, match="is missing"):
        list(files.read(NAME))
    files.remove(NAME)


def test_half_a_write_leaves_nothing(files, tmp_path):
    files.write(NAME, [memoryview(b"before")])

    def broken():
        yield memoryview(bytes(10 * SMALL))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device"):
        files.write(NAME, broken())
    assert [path.name for path in (tmp_path / "data").iterdir()] == [NAME]
    assert b"".join(files.read(NAME)) == b"before"


class Full:
    """A file of a storage that takes so many calls, each of `write` and `close`, and refuses those after."""

    def __init__(self, file, calls):
        self._file, self._calls = file, calls

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _refuse_after(self):
        self._calls -= 1
        if self._calls < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, data):
        self._refuse_after()
        return self._file.write(data)

    def close(self):
        self._file.close()
        self._refuse_after()


@pytest.mark.parametrize("url", ["data", "memory://full"])
@pytest.mark.parametrize("calls", range(5))
def test_a_write_leaves_nothing_wherever_it_is_refused(tmp_path, monkeypatch, url, calls):
    """From the first byte on, which only the writer knows of; also for workers, who write parts."""
    files = SealedFiles(url, KEY, base=tmp_path)
    raw = files.raw
    monkeypatch.setattr(files, "raw", lambda path, mode: Full(raw(path, mode), calls))
    salt = bytes(sealed.SALT_BYTES)
    for begin in (lambda: files.begin(NAME), lambda: files.begun(NAME, salt, files.file_key(NAME, salt))):
        with pytest.raises(StorageError, match="No space left on device"):
            written_with(begin)
        assert files.names() == []
    with pytest.raises(StorageError, match="No space left on device"):
        files.write(NAME, [memoryview(bytes(3 * SMALL))])
    assert files.names() == []


def written_with(begin):
    """Write three chunks, as those do who have a writer; one that cannot be made is not theirs to abort."""
    writer = begin()
    try:
        writer.append(memoryview(bytes(3 * SMALL)))
        writer.commit()
    except BaseException:
        writer.abort()
        raise


def test_what_a_crash_left_is_swept_away(files, tmp_path):
    for name in (NAME, OTHER):
        files.write(name, [memoryview(b"shares")])
    folder = tmp_path / "data"
    (folder / f"{NAME}.01234567.part").write_bytes(b"half")
    (folder / "letter.txt").write_text("not ours")
    removed, strange = files.sweep({NAME})
    assert (sorted(removed), strange) == (sorted([OTHER, f"{NAME}.01234567.part"]), [])
    assert {path.name for path in folder.iterdir()} == {NAME, "letter.txt"}


def test_files_of_another_node_are_not_swept_away(files, tmp_path):
    """A node.toml may name another node's storage, or both nodes the same one."""
    other = SealedFiles("data", b"o" * 32, base=tmp_path)
    other.write(NAME, [memoryview(b"shares")])
    files.write(OTHER, [memoryview(b"shares")])
    half = f"{NAME}.01234567.part"
    (tmp_path / "data" / half).write_bytes(b"half")
    removed, strange = files.sweep(set())
    assert (removed, sorted(strange)) == ([OTHER], [NAME, half])
    assert b"".join(other.read(NAME)) == b"shares"


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("data", "/srv/node/data"),
        ("/mnt/data", "/mnt/data"),
        ("file:///mnt/a%20b", "/mnt/a%20b"),  # as fsspec reads it
        ("local:///mnt/data", "/mnt/data"),
        ("memory://data", None),
    ],
)
def test_directories_of_this_machine(url, directory):
    assert directory_of(url, Path("/srv/node")) == (None if directory is None else Path(directory))


class CredentialsError(Exception):
    """As packages of file systems raise, which are no OSError."""


def test_whatever_a_file_system_raises_is_a_sentence(files, monkeypatch):
    files.write(NAME, [memoryview(b"shares")])
    reader = files.open(NAME)

    def refuse(*args, **options):
        raise CredentialsError("there are no credentials")

    for method in ("open", "ls", "rm"):
        monkeypatch.setattr(files._files, method, refuse)
    for act, says in {
        lambda: files.open(NAME): "cannot be read",
        lambda: reader.chunk(0): "cannot be read",
        files.names: "cannot be read",
        lambda: files.write(OTHER, []): "could not be written",
        lambda: files.remove(NAME): "cannot be removed",
    }.items():
        with pytest.raises(StorageError, match=rf"{says}.* \(CredentialsError: there are no credentials\)"):
            act()
    monkeypatch.undo()
    assert b"".join(files.read(NAME)) == b"shares"


def test_other_places_by_url(tmp_path):
    files = SealedFiles("memory://tercet-test", KEY, base=tmp_path)
    files.write(NAME, [memoryview(b"shares" * 100)])
    assert b"".join(files.read(NAME)) == b"shares" * 100
    assert files.sweep(set()) == ([NAME], [])
    with pytest.raises(StorageError, match="cannot be opened"):
        SealedFiles("carrier-pigeon://here", KEY, base=tmp_path)
