"""Scratch: every kind of node gives the same on arrays in files as in memory, and nothing is left of them."""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tercet.actors.instances import Instance
from tercet.actors.ready import Ready
from tercet.actors.scheduler import Scheduler
from tercet.actors.scratch import IN_MEMORY, Scratch
from tercet.actors.values import TiledValue, join
from tercet.errors import StorageError
from tercet.plans import Builder, Form, Type
from tercet.plans.types import Node
from tercet.protocols.base import Share
from tercet.protocols.domains import Z64
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import parties


@pytest.fixture
def scratch(tmp_path):
    return Scratch(tmp_path, above=0, reach=1000)


def test_large_arrays_lie_in_files_without_a_name(tmp_path):
    scratch = Scratch(tmp_path, above=80)
    small, large = scratch.empty((10,)), scratch.empty((3, 11))
    assert (Scratch.holds(small), Scratch.holds(large), Scratch.holds(large[1, 2:])) == (False, True, True)
    assert not Scratch.holds(IN_MEMORY.empty((1000,)))
    large[...] = np.arange(33).reshape(3, 11)
    assert large.sum() == 33 * 16
    assert list(tmp_path.iterdir()) == []
    assert scratch.empty((0, 4)).shape == (0, 4)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=rf"scratch cannot be had in {tmp_path} \(No space left"):
        Scratch(tmp_path).empty((1 << 20,))


def test_a_place_that_is_not_here_is_named(tmp_path):
    """As a worker does on whose machine nobody has made the directory."""
    IN_MEMORY.require_place()
    Scratch(tmp_path).require_place()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match=rf"scratch {tmp_path}/none cannot be used here \(No such file"):
        Scratch.within(1 << 30, tmp_path / "none").require_place()


@pytest.mark.parametrize("seed", range(5))
async def test_of_what_moves_all_rows_one_at_a_time_fills_a_scratch(seed, scratch, scheduled, monkeypatch):
    """Whatever comes first at which party, none waits for another one for ever."""
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 100)
    shuffling, wait, init = [], Ready.wait, Scheduler.__init__

    def waits(ready, instance):
        wait(ready, instance)
        shuffling.append([name for name, one in ready.waiting.items() if one.node.kind == "shuffle"])

    monkeypatch.setattr(Ready, "wait", waits)
    b = Builder("shuffles", tile_rows=64)
    x, y, z = (b.input(name, Type(Form.RING, (400,), 8, 2.0**11)) for name in "xyz")
    products = [x * y, y * z, z * x]
    for name, one in zip("abc", products, strict=True):
        b.apply_all("shuffle", one)[0].reveal(name, to="analyst")
    plan = b.plan()
    words = np.arange(400, dtype=np.uint64) << np.uint64(8)
    inputs = dict.fromkeys("xyz", (x.type, words))
    later = {}
    for place in (IN_MEMORY, scratch):
        monkeypatch.setattr(Scheduler, "__init__", functools.partialmethod(init, scratch=place))
        shuffling.clear()
        revealed, _ = await scheduled(plan, Replicated, inputs, mail_seed=seed)
        for name in "abc":
            np.testing.assert_allclose(np.sort(revealed[name]), np.arange(400.0) ** 2)
        later[place] = [names for names in shuffling if names and names[-1] > min(names)]
    assert later[IN_MEMORY]  # one began while another one, which comes before it in the plan, waited
    assert not later[scratch]


def test_what_moves_all_rows_is_alone_from_its_first_step_on():
    """Which takes long, so that another thread would begin what comes next meanwhile."""
    node = Node("shuffle", (), (), ())
    first, second, third = (Instance((index, 0), node, True, 0, alone=True) for index in (3, 5, 7))
    ready = Ready(threads=2)
    ready.add(second, barrier=5)
    ready.add(third, barrier=7)
    assert ready.next(idle=True) == (second, None)
    assert ready.next(idle=True) is None
    ready.wait(second)
    assert ready.next(idle=True) is None
    ready.add(first, barrier=3)
    assert ready.next(idle=True) == (first, None)  # what comes before may always begin
    ready.end(second)
    assert ready.next(idle=True) is None
    ready.end(first)
    assert ready.next(idle=True) == (third, None)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("threads", [1, 2])
async def test_plans_with_everything_in_files(threads, scratch, example, scheduled, verified, monkeypatch):
    """Also that descriptors are given back."""
    monkeypatch.setattr("tercet.actors.scheduler.HEAVY_WORDS", 100)
    defaults = Scheduler.__init__.__kwdefaults__
    monkeypatch.setattr(Scheduler.__init__, "__kwdefaults__", {**defaults, "scratch": scratch})
    gc.collect()
    before = open_files()
    one = example(333)
    revealed, outcomes = await scheduled(one.plan, Replicated, one.inputs, threads=threads)
    verified(one, revealed)
    assert all(Scratch.holds(tile.data) for outcome in outcomes for tile in outcome.stored["joined"].tiles)
    del outcomes, revealed
    gc.collect()
    assert open_files() <= before


def test_tiles_that_pile_up_are_shelved_and_read_back(tmp_path):
    value = TiledValue([1] * 4, Scratch(tmp_path, above=2 * 1024))
    tiles = [Share(Z64, np.full((2, 64 if n < 3 else 5), n, dtype=np.uint64), 3) for n in range(4)]
    shelved = [value.shelve(number, tile) for number, tile in enumerate(tiles[:1])]
    value.put(0, shelved[0], 0)
    for number in (1, 3, 2):
        tile = value.shelve(number, tiles[number])
        value.put(number, tile, 0)
    assert [Scratch.holds(tile.data) for tile in value.tiles] == [False, False, True, False]
    whole = value.whole()
    np.testing.assert_array_equal(whole.data, np.concatenate([tile.data for tile in tiles], axis=1))
    assert whole.scale == 3
    for number in range(4):
        value.reader_done(number)
    assert value.tiles == [None] * 4


def test_short_lived_tiles_stay_in_memory(tmp_path):
    value = TiledValue([1] * 50, Scratch(tmp_path, above=4096))
    for number in range(50):
        tile = value.shelve(number, Share(Z64, np.zeros((2, 64), dtype=np.uint64)))
        assert not Scratch.holds(tile.data)
        value.put(number, tile, 0)
        value.reader_done(number)


def test_joined_tiles_lie_in_the_scratch(scratch):
    parts = [Share(Z64, np.full((2, 3, 64), n, dtype=np.uint64)) for n in range(3)]
    whole = join([*parts, Share(Z64, np.zeros((2, 3, 1), dtype=np.uint64))], scratch)
    assert Scratch.holds(whole.data)
    assert whole.shape == (3, 193)


@pytest.mark.parametrize("place", [70, -1])
def test_rows_that_are_not_there_are_refused(place):
    x = Share(Z64, np.zeros((2, 3, 70), dtype=np.uint64))
    with pytest.raises(IndexError, match="outside the 70 columns"):
        parties(Replicated)[0].take(x, np.array([3, place]))


FREED = """
import os, sys
import numpy as np
from tercet.actors.scratch import KEEP_MEMORY, settle_malloc
from tercet.comparison.peaks import resident_mb
if sys.argv[1:]:
    settle_malloc(KEEP_MEMORY)
before = resident_mb([os.getpid()])[0]
np.ones(1 << 23)
print(resident_mb([os.getpid()])[0] - before)
"""
"""Megabytes that a process holds of an array of 67 MB that nobody has any more."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_a_process_of_dask_keeps_freed_memory():
    """As its nodes do from their environment on: Dask's would give every array back."""
    env = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    held = [
        float(
            subprocess.run(
                [sys.executable, "-c", FREED, *how], env=env, capture_output=True, check=True
            ).stdout
        )
        for how in ([], ["keep"])
    ]
    assert held[0] < 20 < 60 < held[1]
