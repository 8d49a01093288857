"""Scratch: room for arrays that need not fit in memory.

An array above a size lies in a file without a name that is mapped into memory. Nobody else can open such a
file, and it is gone when the array is, or the process. So the kernel may write out what is not in use, as it
would to swap, and a node that may use 1 GB can shuffle tables of many. What is written are this party's own
shares, in the clear: the directory belongs on an encrypted disk (see `docs/decisions`). Without a directory,
all arrays are in memory.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.errors import StorageError
from tercet.protocols.domains import WORD_BYTES, Words


class Scratch:
    """Makes arrays of words: in `directory` those of more than `above` bytes, in memory all others.

    Of those in files, parts of up to `reach` bytes may be read in random order: so much stays in memory.
    For any thread.
    """

    def __init__(self, directory: Path | None = None, *, above: int = 0, reach: int = sys.maxsize) -> None:
        self._directory = directory
        self._above = above
        self.reach = sys.maxsize if directory is None else reach

    def takes(self, size: int) -> bool:
        """Whether so many bytes go to a file."""
        return self._directory is not None and size > self._above

    def empty(self, shape: Sequence[int]) -> Words:
        """Words that are not set. Raises StorageError if the disk has no room for them."""
        size = math.prod(shape) * WORD_BYTES
        if self._directory is None or not self.takes(size):
            return np.empty(tuple(shape), dtype=np.uint64)
        try:
            with tempfile.TemporaryFile(dir=self._directory, prefix="tercet-") as file:
                # Reserved now: a disk that fills up later would kill the process that writes to the map.
                os.posix_fallocate(file.fileno(), 0, size)
                room = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise StorageError(
                f"{size >> 20} MB of scratch cannot be had in {self._directory} ({error.strerror or error}); "
                "make room there, or name another directory as scratch in node.toml"
            ) from error
        return np.frombuffer(room, dtype=np.uint64).reshape(tuple(shape))

    @staticmethod
    def holds(array: npt.NDArray[Any]) -> bool:
        """Whether an array, or what it is a view of, lies in a file."""
        root: Any = array
        while isinstance(root, np.ndarray):
            root = root.base
        return isinstance(root, memoryview) and isinstance(root.obj, mmap.mmap)


IN_MEMORY = Scratch()


KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_MMAP_MAX_": "0",
}
"""Environment by which glibc keeps freed arrays in the process; other C libraries ignore it.

A plan asks for the same few sizes again and again, and having the kernel clear fresh pages costs more
than filling them."""


def keep_memory() -> None:
    """What `KEEP_MEMORY` asks for, of a process that runs already; for one that another program has started.

    Call it before there are threads that allocate much.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library than glibc
    for parameter, value in _KEEP_MEMORY.values():
        mallopt(parameter, value)


_KEEP_MEMORY = {
    "M_ARENA_MAX": (-8, 1),
    "M_TRIM_THRESHOLD": (-1, (1 << 31) - 1),
    "M_TOP_PAD": (-2, 1 << 26),
    "M_MMAP_MAX": (-4, 0),
}
"""Parameters of glibc's `malloc.h` by name, and their values, which are `int`."""
