"""Spools: rows of numbers that are written once, in order, and read from anywhere.

An owner's table has to be looked at as a whole before any of it is dealt, and need not fit in memory, nor can
every source be read twice. So its numbers wait in a spool: in memory while they are few, then in a file
without a name in the directory for temporary files (`TMPDIR`), on the owner's machine, until the upload ends.
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref

import numpy as np
import numpy.typing as npt

IN_MEMORY_BYTES = 1 << 27


class RowSpool:
    """Rows of so many numbers each, of 8 bytes. Not for several threads at once."""

    def __init__(self, dtype: npt.DTypeLike, width: int) -> None:
        self.dtype = np.dtype(dtype)
        self.width = width
        self.rows = 0
        self._digest = hashlib.blake2b(digest_size=32)
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed with this
        weakref.finalize(self, self._file.close)

    def append(self, columns: npt.NDArray[np.generic]) -> None:
        """Write rows, given as columns `(width, n)`."""
        rows = np.ascontiguousarray(columns.T, dtype=self.dtype)
        self._digest.update(rows.data)
        self._file.seek(0, 2)
        self._file.write(rows.data)
        self.rows += len(rows)

    def digest(self) -> bytes:
        """32 bytes that stand for all rows, however they were cut when they were written."""
        return self._digest.digest()

    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Rows from one number to another, as columns `(width, n)`."""
        each = self.width * self.dtype.itemsize
        self._file.seek(start * each)
        found = np.frombuffer(self._file.read((stop - start) * each), dtype=self.dtype)
        return found.reshape(stop - start, self.width).T
