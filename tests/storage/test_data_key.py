"""The data key: found with the right storage key only, also after a change that was interrupted."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from tercet.errors import StorageError
from tercet.storage import data_key
from tercet.storage.catalog import Catalog
from tercet.storage.data_key import change_storage_key, find_data_key, make_storage_key, read_storage_key
from tercet.storage.sealed import SealedFiles

NAME = hashlib.sha256(b"a value").hexdigest()[:40]


class Crash(Exception):  # noqa: N818
    """The process ends here."""


@pytest.fixture
def catalog(tmp_path):
    found = Catalog("sqlite:///catalog.sqlite", base=tmp_path)
    yield found
    found.close()


@pytest.fixture
def path(tmp_path):
    make_storage_key(tmp_path / "storage.key")
    return tmp_path / "storage.key"


@pytest.fixture
def files(tmp_path):
    return SealedFiles("data", base=tmp_path)


def open_again(path, files):
    """What a start of the node does; what it reads."""
    catalog = Catalog("sqlite:///catalog.sqlite", base=path.parent)
    try:
        files.key = find_data_key(path, catalog, files)
    finally:
        catalog.close()
    return b"".join(files.read(NAME))


@pytest.fixture
def written(path, catalog, files):
    files.key = find_data_key(path, catalog, files)
    files.write(NAME, [memoryview(b"shares")])
    return path


def test_another_storage_key_is_refused(written, files):
    assert open_again(written, files) == b"shares"
    assert files.key != read_storage_key(written)
    right = written.read_text()
    written.write_text("ab" * 32)
    with pytest.raises(StorageError, match=r"storage\.key is not the one that this node's shares"):
        open_again(written, files)
    written.write_text(right)
    assert open_again(written, files) == b"shares"


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 16, "\x00"])
def test_what_is_no_storage_key(written, files, text):
    written.write_text(text)
    with pytest.raises(StorageError, match="storage key"):
        open_again(written, files)


def test_a_first_start_that_was_interrupted_makes_a_key_as_well(path, tmp_path, files):
    """Taken for one of an earlier release, its storage key would open all files for good, changed or not."""
    Catalog("sqlite:///catalog.sqlite", base=tmp_path).close()
    catalog = Catalog("sqlite:///catalog.sqlite", base=tmp_path)
    assert find_data_key(path, catalog, files) != read_storage_key(path)
    catalog.close()


def test_files_of_an_earlier_release(path, tmp_path, files):
    Catalog("sqlite:///catalog.sqlite", base=tmp_path).close()
    files.key = read_storage_key(path)
    files.write(NAME, [memoryview(b"shares")])
    right = path.read_text()
    path.write_text("ab" * 32)
    with pytest.raises(StorageError, match="is not the one"):
        open_again(path, files)
    path.write_text(right)
    assert open_again(path, files) == b"shares"


def test_a_changed_key_opens_what_was_there(written, catalog, files):
    before = written.read_text()
    earlier = change_storage_key(written, catalog, files)
    assert (earlier.read_text(), earlier.stat().st_mode & 0o077) == (before, 0)
    assert written.read_text() != before
    assert written.stat().st_mode & 0o077 == 0
    assert open_again(written, files) == b"shares"
    earlier.replace(written)
    with pytest.raises(StorageError, match="is not the one"):
        open_again(written, files)


def no_links(*_):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links(written, catalog, files, monkeypatch):
    before = written.read_text()
    monkeypatch.setattr(os, "link", no_links)
    earlier = change_storage_key(written, catalog, files)
    assert (earlier.read_text(), earlier.stat().st_mode & 0o077) == (before, 0)
    assert written.read_text() != before
    assert open_again(written, files) == b"shares"


@pytest.mark.parametrize("written_before", [False, True])
def test_a_crash_on_a_file_system_without_hard_links(written, catalog, files, monkeypatch, written_before):
    before, write = written.read_text(), data_key._write

    def crash(path, text):
        if path.name.endswith(".before"):
            write(path, text if written_before else text[:9])
            raise Crash
        write(path, text)

    monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patched:
        patched.setattr(data_key, "_write", crash)
        with pytest.raises(Crash):
            change_storage_key(written, catalog, files)
    assert open_again(written, files) == b"shares"
    assert written.with_name("storage.key.before").read_text() == before


@pytest.mark.parametrize("step", ["make_storage_key", "_note", "_take_over"])
@pytest.mark.parametrize("done", [False, True])
def test_a_change_that_a_crash_interrupts(written, catalog, files, step, done, monkeypatch):
    whole = getattr(data_key, step)

    def crash(*args):
        if done:
            whole(*args)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(data_key, step, crash)
        with pytest.raises(Crash):
            change_storage_key(written, catalog, files)
    assert open_again(written, files) == b"shares"
    change_storage_key(written, catalog, files)
    assert open_again(written, files) == b"shares"
    assert sorted(one.name for one in written.parent.glob("storage.key*")) == [
        "storage.key",
        "storage.key.before",
    ]
