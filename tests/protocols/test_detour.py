"""Detours: rows come in the order that was asked for, and no step reaches further than it may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.protocols.base import Share, in_memory
from tercet.protocols.detour import BOOKKEEPING_WORDS, Detour, nearer
from tercet.protocols.domains import Z64
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties

ROW = 8 * (3 + BOOKKEEPING_WORDS)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(0, 300), st.integers(1, 9000))
def test_the_result_is_that_of_a_gather(seed, rows, wanted, reach):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 1 << 64, (rows, 3), dtype=np.uint64)
    order = rng.integers(0, rows, wanted)
    way, near = nearer(table, order, reach, in_memory)
    np.testing.assert_array_equal(way[near], table[order])


def test_no_step_leaves_its_block():
    order = np.random.default_rng(5).permutation(1000)
    detour = Detour.plan(order, 1000, 3, 64 * ROW, in_memory)
    block = np.arange(1000) // 64
    np.testing.assert_array_equal(detour.near // 64, block)
    for source, (starts, stops) in enumerate(zip(detour.runs.T, detour.runs.T[1:], strict=False)):
        for start, stop in zip(starts, stops, strict=True):
            assert (detour.places[start:stop] // 64 == source).all()
    assert (detour.runs[1:, 0] == detour.runs[:-1, -1]).all()


def test_rows_within_reach_take_none():
    order = np.arange(100)
    assert Detour.plan(order, 100, 3, 2400, in_memory) is None
    assert Detour.plan(order, 100, 3, 2399, in_memory) is not None


@pytest.mark.parametrize("place", [70, -1])
def test_rows_that_are_not_there_are_refused(place):
    protocol = parties(Replicated)[0]
    protocol.reach = 100
    x = Share(Z64, np.zeros((2, 3, 70), dtype=np.uint64))
    with pytest.raises(IndexError, match="outside the 70 rows"):
        protocol.take(x, np.array([3, place]))


@pytest.mark.parametrize("reach", [100, 1000, 5000])
def test_protocols_move_the_same_rows(reach):
    rng = np.random.default_rng(11)
    values = rng.integers(0, 1 << 64, (3, 333), dtype=np.uint64)
    places = rng.integers(0, 333, 500)
    results = []
    for far in (None, reach):
        session = parties(Replicated, seed=b"detour")
        bound = [p.bind("shuffle") for p in session]
        for protocol in bound:
            protocol.reach = protocol.reach if far is None else far
        shares = [p.constant(values) for p in bound]
        moved = lockstep([p.shuffle([s]) for p, s in zip(bound, shares, strict=True)]).results
        results.append([p.take(x, places).data for p, [x] in zip(bound, moved, strict=True)])
    for near, far in zip(*results, strict=True):
        np.testing.assert_array_equal(near, far)
