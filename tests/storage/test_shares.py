"""Shares on disk: values of every form come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.actors import Form, Type
from tercet.actors.party import cut
from tercet.actors.values import Stored
from tercet.errors import StorageError
from tercet.protocols.base import Share
from tercet.storage.sealed import SealedFiles
from tercet.storage.shares import ShareFiles, stored_bytes


@pytest.fixture
def files(tmp_path):
    return ShareFiles(SealedFiles("data", bytes(32), base=tmp_path))


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
    assert stored_bytes(after) == sum(tile.data.nbytes for tile in before.tiles)


def test_a_value_in_the_place_of_another(files, tmp_path):
    files.save("x", value(Form.RING, (10,)))
    with pytest.raises(StorageError, match="is missing"):
        files.load("y")
    files.remove("x")
    assert not list((tmp_path / "data").iterdir())


def test_what_is_not_wanted_goes(files):
    for handle in "xyz":
        files.save(handle, value(Form.RING, (3,)))
    assert len(files.sweep(["y"])) == 2
    files.load("y")
