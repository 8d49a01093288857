"""Shares of values as sealed files: a line that says what it is, then the words of each tile."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgpack
import numpy as np

from tercet.actors.party import read_type
from tercet.actors.plan import Type
from tercet.actors.values import Stored
from tercet.errors import PlanError, StorageError
from tercet.protocols.base import Share
from tercet.protocols.domains import DOMAINS, WORD_BYTES, Words
from tercet.storage.sealed import SealedFiles
from tercet.transports.base import byte_view

LENGTH_BYTES = 4


@attrs.frozen
class ShareFiles:
    """Stored values by handle."""

    files: SealedFiles

    def save(self, handle: str, stored: Stored) -> int:
        """Write a value; how many bytes it takes. Raises StorageError."""
        head = msgpack.packb(
            [
                handle,
                [stored.type.form.value, list(stored.type.shape), stored.type.scale, stored.type.limit],
                stored.tile_rows,
                stored.tiles[0].domain.name,
                [list(tile.data.shape) for tile in stored.tiles],
            ]
        )

        def pieces() -> Iterator[memoryview]:
            yield memoryview(len(head).to_bytes(LENGTH_BYTES, "big") + head)
            for tile in stored.tiles:
                yield byte_view(np.ascontiguousarray(tile.data))

        return self.files.write(file_name(handle), pieces())

    def load(self, handle: str) -> Stored:
        """Read a value, into memory. Raises StorageError if it is not as it was written."""
        source = _Source(self.files.read(file_name(handle)))
        try:
            length = int.from_bytes(source.take(LENGTH_BYTES), "big")
            name, fields, tile_rows, domain, shapes = msgpack.unpackb(source.take(length))
            kind: Type = read_type(fields)
            if name != handle:
                raise StorageError(f"the file of {handle!r} has the value {name!r}; restore it")
            tiles = [Share(DOMAINS[domain], source.words(shape), scale=kind.scale) for shape in shapes]
            source.end()
        except (ValueError, TypeError, KeyError, PlanError) as error:
            raise StorageError(f"the file of {handle!r} was written by another release: {error!r}") from error
        return Stored(kind, tiles, int(tile_rows))

    def remove(self, handle: str) -> None:
        """Remove a value, if it is there."""
        self.files.remove(file_name(handle))

    def sweep(self, handles: Sequence[str]) -> list[str]:
        """Remove all files but those of some values."""
        return self.files.sweep({file_name(handle) for handle in handles})


def file_name(handle: str) -> str:
    """The file of a value: handles may have any characters, and files of any length do not exist."""
    return hashlib.blake2b(handle.encode(), digest_size=20, person=b"tercet-file").hexdigest()


class _Source:
    """Takes bytes from a sequence of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def fill(self, into: memoryview) -> None:
        """Fill a buffer. Raises ValueError if the chunks end before."""
        at = 0
        while at < len(into):
            if not len(self._chunk):
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise ValueError("it ends too early")
                self._chunk = memoryview(chunk)
            taken = self._chunk[: len(into) - at]
            into[at : at + len(taken)] = taken
            self._chunk = self._chunk[len(taken) :]
            at += len(taken)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        buffer = bytearray(count)
        self.fill(memoryview(buffer))
        return bytes(buffer)

    def words(self, shape: Any) -> Words:
        """An array of words."""
        found = np.empty(tuple(int(dim) for dim in shape), dtype=np.uint64)
        if found.size:
            self.fill(byte_view(found))
        return found

    def end(self) -> None:
        """Raise ValueError if something is left; reading on verifies that the file is whole."""
        if len(self._chunk) or any(len(chunk) for chunk in self._chunks):
            raise ValueError("it goes on too long")


def stored_bytes(stored: Stored) -> int:
    """Bytes that a value takes in memory."""
    return sum(math.prod(tile.data.shape) for tile in stored.tiles) * WORD_BYTES
