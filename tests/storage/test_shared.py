"""A storage that a node shares with its workers: they open and make what they are told to, nothing else."""

from __future__ import annotations

import pickle
import random
import shutil
import threading

import numpy as np
import pytest

from tercet.actors.values import Stored, cut
from tercet.errors import ProtocolError, StorageError
from tercet.plans import Form, Type
from tercet.protocols.base import Share
from tercet.storage import share_files
from tercet.storage.sealed import SealedFiles, SealedWriter
from tercet.storage.share_files import ShareFiles, TileCache, file_name
from tercet.storage.shared import SealedParts, SharedStorage

KEY = bytes(range(32))
BLOCKS = [[0, 1, 2], [3], []]
"""Tiles that each of three workers makes."""


@pytest.fixture
def place(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def url(place):
    return place.as_uri()


@pytest.fixture
def files(url, tmp_path):
    """What the node has of the storage."""
    return ShareFiles(SealedFiles(url, KEY, base=tmp_path), TileCache(4096))


@pytest.fixture
def storage(files, url):
    """What a worker has of it."""
    made = SharedStorage(url, 4096)
    made.connect()
    return made


def value(scale=3, seed=7):
    words = np.random.default_rng(seed).integers(0, 1 << 64, (2, 2, 250), dtype=np.uint64)
    share = Share(Form.RING.domain, words, scale)
    return Stored(Type(Form.RING, (2, 250), scale, 2.0**40), cut(share, 64), 64)


def write(storage, parts, stored):
    """Let three workers write a value, each its tiles in some order; what they say, by worker."""
    told = {}
    for worker, tiles in enumerate(BLOCKS):
        part = storage.part(parts.places[worker])
        order = random.Random(worker).sample(tiles, len(tiles))
        said = [part.write(tile, stored.tiles[tile], len(tiles)) for tile in order]
        assert not any(said[:-1])
        if tiles:
            told[worker] = said[-1]
    return told


def stored_in_parts(files, storage, handle, stored):
    parts = SealedParts(files, handle, len(BLOCKS))
    made = parts.stored(stored.type, stored.tile_rows, write(storage, parts, stored))
    return files.save(handle, made)


def require_same(one, other):
    assert (one.type, one.tile_rows, len(one.tiles)) == (other.type, other.tile_rows, len(other.tiles))
    for mine, theirs in zip(one.tiles, other.tiles, strict=True):
        assert (mine.domain, mine.scale) == (theirs.domain, theirs.scale)
        np.testing.assert_array_equal(mine.data, theirs.data)


def named(place):
    return sorted(path.name for path in place.iterdir())


def test_workers_read_with_what_their_node_tells_them(files, url):
    """Each value has a key of its own, and what they have of the storage itself has none."""
    values = {handle: value(scale) for handle, scale in (("x", 3), ("y", 4))}
    told = {handle: files.save(handle, one).tiles.access() for handle, one in values.items()}
    packed = pickle.dumps(SharedStorage(url, 4096))
    assert KEY not in packed
    storage = pickle.loads(packed)
    with pytest.raises(StorageError, match="not connected"):
        storage.tiles(told["x"])
    storage.connect()
    for handle, one in values.items():
        for tile, expected in zip(storage.tiles(told[handle]), one.tiles, strict=True):
            assert (tile.domain, tile.scale) == (expected.domain, expected.scale)
            np.testing.assert_array_equal(tile.data, expected.data)
    *about, [[_, key, *where]] = told["x"]
    name = told["y"][-1][0][0]
    with pytest.raises(StorageError, match="damaged"):
        storage.tiles([*about, [[name, key, *where]]])[0]
    size, start, tiles = where
    for odd in (
        [],
        about,
        [*about[:2], "odd", 3, told["x"][-1]],
        [*about, [[name, key, size + 1, start, tiles]]],
        [*about, [[name, key, size, start, tiles[:-1]]]],
        [*about, [[name, key, size, start, [7, *tiles[1:]]]]],
        [*about, 2 * told["x"][-1]],
        [*about, []],
    ):
        with pytest.raises(ProtocolError, match="something else than where a value lies"):
            storage.tiles(odd)


def test_a_directory_is_the_nodes_alone(tmp_path):
    files = ShareFiles(SealedFiles("data", KEY, base=tmp_path), TileCache(4096))
    assert files.save("x", value()).tiles.access() is None


def test_workers_write_parts_of_a_value(files, storage, place):
    """It is the same as one that the node has written, and comes and goes as one."""
    before = value()
    written = stored_in_parts(files, storage, "x", before)
    require_same(written, before)
    found = files.load("x")
    require_same(found, before)
    require_same(Stored(before.type, storage.tiles(found.tiles.access()), 64), before)
    assert found.tiles.nbytes == sum(tile.data.nbytes for tile in before.tiles)
    name = file_name("x")
    assert [one[:40] for one in named(place)] == 3 * [name]
    assert files.size("x") == sum(path.stat().st_size for path in place.iterdir())
    assert files.sweep(["x"]) == ([], [])
    assert sorted(files.files.with_parts([name, "0" * 40])) == sorted([*named(place), "0" * 40])
    files.remove("x")
    assert named(place) == []


def test_parts_without_a_head_are_swept_away(files, storage, place):
    """Those of a run that failed, or whose node ended before it had noted them."""
    stored_in_parts(files, storage, "kept", value())
    kept = named(place)
    write(storage, SealedParts(files, "x", 3), value())
    storage.part(SealedParts(files, "kept", 3).places[0]).write(0, value().tiles[0], 2)  # its worker is lost
    assert len(named(place)) == len(kept) + 3
    removed, strange = files.sweep(["kept"])
    assert (len(removed), strange) == (3, [])
    assert named(place) == kept
    require_same(files.load("kept"), value())


def test_a_run_that_fails_leaves_nothing(files, storage, place):
    """Whether a part was there already or not; and what is kept meanwhile stays."""
    parts = SealedParts(files, "x", 3)
    first, second = (storage.part(parts.places[worker]) for worker in (0, 1))
    tile = value().tiles[0]
    assert first.write(0, tile, 1) is not None
    assert second.write(1, tile, 2) is None
    first.abort()
    second.abort()
    assert named(place) == []
    with pytest.raises(StorageError, match="is over"):
        second.write(2, tile, 2)
    write(storage, parts := SealedParts(files, "x", 3), value())
    parts.discard()
    assert named(place) == []
    parts = SealedParts(files, "x", 3)
    files.save("x", parts.stored(value().type, 64, write(storage, parts, value())))
    parts.discard()
    other = SealedParts(files, "x", 3)  # an attempt at the same run that has failed before
    write(storage, other, value())
    other.discard()
    assert len(named(place)) == 3
    require_same(files.load("x"), value())


def test_parts_of_an_object_store_have_their_names_at_once(tmp_path):
    """To rename them would be to copy them; half of one is removed all the same."""
    files = ShareFiles(SealedFiles("memory://parts", KEY, base=tmp_path), TileCache(4096))
    storage = SharedStorage("memory://parts", 4096)
    storage.connect()
    require_same(stored_in_parts(files, storage, "x", value()), value())
    parts = SealedParts(files, "y", 2)
    writers = [storage.part(place) for place in parts.places]
    assert writers[0].write(0, value().tiles[0], 1) is not None
    assert writers[1].write(1, value().tiles[1], 2) is None
    for writer in writers:
        writer.abort()
    assert {name[:40] for name in files.files.names()} == {file_name("x")}
    files.remove("x")
    assert files.files.names() == []


def part_paths(place, handle):
    return sorted(path for path in place.iterdir() if path.name.startswith(f"{file_name(handle)}-"))


def swap_parts(place, earlier):
    first, second = part_paths(place, "x")
    first.write_bytes(second.read_bytes())


def put_back(place, earlier):
    """What the same workers had written of the value before, under the names of now."""
    for now, then in zip(part_paths(place, "x"), earlier, strict=True):
        shutil.copy(then, now)


def cut_off(place, earlier):
    path = part_paths(place, "x")[0]
    path.write_bytes(path.read_bytes()[:-50])


def lose(place, earlier):
    part_paths(place, "x")[0].unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(swap_parts, "is damaged"), (put_back, "is damaged"), (cut_off, "is damaged"), (lose, "is missing")],
)
def test_parts_that_are_not_those_that_were_written(files, storage, place, tmp_path, spoil, says):
    stored_in_parts(files, storage, "x", value(seed=1))
    earlier = [shutil.copy(path, tmp_path) for path in part_paths(place, "x")]
    files.remove("x")
    stored_in_parts(files, storage, "x", value(seed=2))
    spoil(place, earlier)
    with pytest.raises(StorageError, match=says):
        list(files.load("x").tiles)


@pytest.mark.parametrize("tiles", [[0, 1], [0, 1, 2, 2], [0, 1, 2, 3, 4]])
def test_a_value_that_lacks_tiles_is_none(files, storage, tiles):
    parts, stored = SealedParts(files, "x", 1), value()
    part = storage.part(parts.places[0])
    told = {}
    for tile in tiles:
        told[0] = part.write(tile, stored.tiles[tile % 4], len(tiles))
    with pytest.raises(StorageError, match="have not written all of 'x'"):
        parts.stored(stored.type, 64, told)


@pytest.mark.parametrize("url", ["file:///nowhere/at/all", "memory://another-process", "carrier-pigeon://x"])
def test_a_worker_that_does_not_reach_the_storage_says_so(url):
    with pytest.raises(StorageError, match=r"no storage at .* where this worker runs|cannot be opened"):
        SharedStorage(url, 4096).connect()


@pytest.mark.parametrize("odd", [[], ["x"], ["x", b"", "key"], ["x", b"", b"", 1]])
def test_what_is_no_place(storage, odd):
    with pytest.raises(ProtocolError, match="where a part of a value goes"):
        storage.part(odd)


def test_nobody_waits_for_ever_for_a_storage_that_hangs(files, storage, monkeypatch):
    monkeypatch.setattr(share_files, "PATIENCE_S", 0.05)
    goes_on, append = threading.Event(), SealedWriter.append

    def hang(writer, piece):
        goes_on.wait(60)
        append(writer, piece)

    monkeypatch.setattr(SealedWriter, "append", hang)
    part = storage.part(SealedParts(files, "x", 1).places[0])
    try:
        with pytest.raises(StorageError, match=r"has not answered for 0.05 s"):
            part.write(0, value().tiles[0], 1)
    finally:
        goes_on.set()
