"""Shares on disk: values of every form come back as they were."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.actors.values import Stored, cut, join
from tercet.errors import StorageError
from tercet.plans import Form, Type
from tercet.protocols.base import Share
from tercet.storage.sealed import SealedFiles
from tercet.storage.share_files import ShareFiles, TileCache

pytestmark = pytest.mark.smoke


@pytest.fixture
def files(tmp_path):
    return ShareFiles(SealedFiles("data", bytes(32), base=tmp_path), TileCache(4096))


def value(form, shape, scale=0, held=2, tile_rows=64):
    rng = np.random.default_rng(7)
    words = (*shape[:-1], -(-shape[-1] // 64)) if form is Form.BITS and shape else shape
    share = Share(form.domain, rng.integers(0, 1 << 64, (held, *words), dtype=np.uint64), scale)
    kind = Type(form, shape, scale, 2.0**40 if form is Form.RING else 0.0)
    return Stored(kind, cut(share, tile_rows, bits=form is Form.BITS), tile_rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    form=st.sampled_from([Form.RING, Form.BITS, Form.WORDS]),
    shape=st.lists(st.integers(0, 200), max_size=2).map(tuple),
    held=st.integers(1, 3),
)
def test_values_come_back(files, form, shape, held):
    before = value(form, shape, 16 if form is Form.RING else 0, held)
    files.save("patients#1/é", before)
    after = files.load("patients#1/é")
    assert (after.type, after.tile_rows, len(after.tiles)) == (before.type, 64, len(before.tiles))
    for one, other in zip(after.tiles, before.tiles, strict=True):
        assert (one.domain, one.scale) == (other.domain, other.scale)
        np.testing.assert_array_equal(one.data, other.data)
    assert after.tiles.nbytes == sum(tile.data.nbytes for tile in before.tiles)
    np.testing.assert_array_equal(join(after.tiles).data, join(before.tiles).data)


def test_a_value_in_the_place_of_another(files, tmp_path):
    files.save("x", value(Form.RING, (10,)))
    with pytest.raises(StorageError, match="is missing"):
        files.load("y")
    files.remove("x")
    assert not list((tmp_path / "data").iterdir())


def test_what_is_not_wanted_goes(files):
    for handle in "xyz":
        files.save(handle, value(Form.RING, (3,)))
    removed, strange = files.sweep(["y"])
    assert (len(removed), strange) == (2, [])
    files.load("y")


def test_tiles_are_read_one_by_one_and_ahead(files, monkeypatch):
    files.save("x", value(Form.RING, (1000,)))
    tiles, read = files.load("x").tiles, []
    one_by_one = type(tiles)._read
    monkeypatch.setattr(
        type(tiles), "_read", lambda self, tile: (read.append(tile), one_by_one(self, tile))[1]
    )
    assert tiles[3].shape == (64,)
    expected = value(Form.RING, (1000,)).tiles
    assert tiles[4].data.tolist() == expected[4].data.tolist()
    assert [tile.shape for tile in tiles[14:]] == [(64,), (40,)]
    with pytest.raises(IndexError):
        tiles[16]
    assert sorted(set(read)) == [3, 4, 5, 14, 15]
    assert len(read) == 5


def test_memory_for_tiles_is_bounded(files):
    for handle in "xy":
        files.save(handle, value(Form.RING, (1000,)))
    both = [files.load(handle).tiles for handle in "xy"]
    for _ in range(3):
        for tiles in both:
            list(tiles)
    files.cache._ahead.submit(int).result()  # whatever is read ahead is there now
    here = [tiles for tiles in both for tile in range(16) if tiles.ready(tile)]
    assert 2 <= len(here) <= 4096 // 1024
    for tiles in both:
        tiles.forget()
    assert files.cache._bytes == 0


def test_values_that_were_opened_and_read_hold_no_more_than_tiles(files):
    handles = [f"x{number}" for number in range(50)]
    for handle in handles:
        files.save(handle, value(Form.RING, (4, 640)))
    tracemalloc.start()
    try:
        opened = [files.load(handle) for handle in handles]
        after_opening = tracemalloc.get_traced_memory()[0]
        for one in opened:
            assert join(one.tiles).data.shape == (2, 4, 640)
        files.cache._ahead.submit(int).result()  # whatever is read ahead is there now
        after_reading = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(opened) * opened[0].tiles.nbytes > 2_000_000
    assert after_opening < 500_000
    assert after_reading < 500_000
    assert files.cache.held <= 4096


def test_a_tile_that_has_changed_is_found_when_it_is_read(files, tmp_path):
    files.save("x", value(Form.RING, (2, 65536), tile_rows=8192))
    (path,) = (tmp_path / "data").iterdir()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged in chunk 0"):
        files.load("x")
    data[100] ^= 1
    data[len(data) - (1 << 20) - 100] ^= 1
    path.write_bytes(data)
    tiles = files.load("x").tiles
    np.testing.assert_array_equal(tiles[1].data, value(Form.RING, (2, 65536), tile_rows=8192).tiles[1].data)
    for _ in range(2):  # an error is no tile, and is found again
        with pytest.raises(StorageError, match="damaged in chunk 1"):
            tiles[5]
    path.unlink()
    with pytest.raises(StorageError, match="is missing"):
        tiles[0]


def test_a_value_in_pieces(files, tmp_path):
    before = value(Form.BITS, (1000,))
    writer = files.begin("x", before.type, 64)
    for tile in before.tiles[:3]:
        writer.append(tile)
    with pytest.raises(StorageError, match="lacks tiles"):
        writer.commit()
    with pytest.raises(StorageError, match="which is not due"):
        writer.append(before.tiles[-1].like(before.tiles[0].data[:, :0]))
    writer.abort()
    assert not list((tmp_path / "data").iterdir())
    with pytest.raises(StorageError, match="is missing"):
        files.load("x")
