"""Workers whose disk fills up, or whose scratch goes away: a run ends by a sentence, and all goes on."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import attrs
import numpy as np
import pytest

import tercet
from tercet.actors.scratch import Scratch
from tercet.errors import TercetError
from tercet.testing.engines import Tasks

ROWS = 200
LEFT = {"id": np.arange(ROWS), "x": np.arange(ROWS) / 8}
RIGHT = {"id": np.arange(0, 2 * ROWS, 2), "y": np.arange(ROWS) / 4}


@attrs.define(eq=False)
class WithScratch(Tasks):
    """Workers, all of whose arrays lie in a directory."""

    directory: Path = Path()

    async def run(self, configs):
        scratch = Scratch(self.directory, above=0, reach=1000)
        await super().run([attrs.evolve(config, scratch=scratch) for config in configs])


class Disk:
    """Lends room for so many more arrays."""

    def __init__(self):
        self.left, self.lent, self.reserve = None, 0, os.posix_fallocate

    def __call__(self, descriptor, offset, size):
        self.lent += 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left = None if self.left is None else self.left - 1
        self.reserve(descriptor, offset, size)


def mapped(directory):
    """How many arrays this process has there, and descriptors of files."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(directory) in line for line in [*maps, *links])


WHERE = r"worker [01] of party 0"
FULL = (
    rf"{WHERE}: .*scratch cannot be had in .* \(No space left on device\); make room|{WHERE} has no room, in"
)


async def test_a_disk_that_fills_up_in_a_join(tmp_path, monkeypatch):
    """Whenever it does so: whose it is is named, the next join is right, and no array is left."""
    disk = Disk()
    monkeypatch.setattr(os, "posix_fallocate", disk)

    def engine(workers, make_link):
        return WithScratch(workers, make_link, directory=tmp_path)

    async with tercet.open_local(
        protocol="plain", tile_rows=64, workers=2, engine=engine, timeout_s=60
    ) as lake:
        left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")

        async def join():
            joined = await left.join(right, on="id")
            assert joined.rows == ROWS // 2

        await join()
        lent = disk.lent
        assert lent > 100
        for room in (0, lent // 2):
            disk.left = room
            with pytest.raises(TercetError, match=FULL):
                await join()
            disk.left = None
        tmp_path.rmdir()  # as when a machine's disk is unmounted
        with pytest.raises(TercetError, match=r"worker [01] of party 0.*(No such file|has no room)"):
            await join()
        tmp_path.mkdir()
        await join()
    assert mapped(tmp_path) == 0
