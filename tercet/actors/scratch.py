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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import StorageError
from tercet.protocols.domains import WORD_BYTES, Words

SHARE_OF_ONE, SHARE_IN_REACH = 16, 2
"""What has more than this part of a member's memory lies in its scratch, and of that, so much is read in
random order."""


@attrs.frozen
class Scratch:
    """Makes arrays of words: in `directory` those of more than `above` bytes, in memory all others.

    Of those in files, parts of up to `reach` bytes may be read in random order: so much stays in memory.
    For any thread, and for other processes that have the same directory.
    """

    directory: Path | None = None
    above: int = attrs.field(default=0, kw_only=True)
    reach: int = attrs.field(default=sys.maxsize, kw_only=True)

    @classmethod
    def within(cls, memory_bytes: int, directory: Path | None) -> Scratch:
        """The scratch of who has so much memory: `IN_MEMORY` without a directory."""
        if directory is None:
            return IN_MEMORY
        return cls(directory, above=memory_bytes // SHARE_OF_ONE, reach=memory_bytes // SHARE_IN_REACH)

    def require_place(self) -> None:
        """Raise StorageError if this process cannot make files in the directory."""
        if self.directory is not None:
            try:
                tempfile.TemporaryFile(dir=self.directory, prefix="tercet-").close()
            except OSError as error:
                raise StorageError(
                    f"the scratch {self.directory} cannot be used here ({error.strerror or error}); make it "
                    "on every machine where workers run, or set another one in node.toml"
                ) from error

    def takes(self, size: int) -> bool:
        """Whether so many bytes go to a file."""
        return self.directory is not None and size > self.above

    def empty(self, shape: Sequence[int]) -> Words:
        """Words that are not set. Raises StorageError if the disk has no room for them."""
        size = math.prod(shape) * WORD_BYTES
        if self.directory is None or not self.takes(size):
            return np.empty(tuple(shape), dtype=np.uint64)
        try:
            with tempfile.TemporaryFile(dir=self.directory, prefix="tercet-") as file:
                # Reserved now: a disk that fills up later would kill the process that writes to the map.
                os.posix_fallocate(file.fileno(), 0, size)
                room = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise StorageError(
                f"{size >> 20} MB of scratch cannot be had in {self.directory} ({error.strerror or error}); "
                "make room there, or name another directory in node.toml"
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

GIVE_BACK = {
    **KEEP_MEMORY,
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
    "MALLOC_TOP_PAD_": str(1 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 22),
    "MALLOC_MMAP_MAX_": str(1 << 16),
}
"""Environment by which glibc gives freed arrays of 4 MB and more back to the kernel at once.

That is for processes with a scratch: what they kept would be room that mapped files lack."""

_PARAMETERS = {
    "MALLOC_ARENA_MAX": -8,
    "MALLOC_TRIM_THRESHOLD_": -1,
    "MALLOC_TOP_PAD_": -2,
    "MALLOC_MMAP_THRESHOLD_": -3,
    "MALLOC_MMAP_MAX_": -4,
}
"""Parameters of glibc's `malloc.h` by the names that they have in the environment; their values are `int`."""


def settle_malloc(wanted: Mapping[str, str]) -> None:
    """What `KEEP_MEMORY` or `GIVE_BACK` asks for, of a process that another program has started.

    Call it before there are threads that allocate much.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # another C library than glibc
    for name, value in wanted.items():
        mallopt(_PARAMETERS[name], min(int(value), (1 << 31) - 1))
