"""Stored values that the workers of a node read and write by themselves, in a storage that all of them reach.

A worker has no data key. For each file that it reads it is told the key of that file, and for each part of a
value that it writes a name, a salt and the key that follows from them. Parts are sealed as all files are. A
value in parts has its head in a file of its own, which the node writes last, and which says for each part the
name, the salt and the tiles: so no part can stand in for another one, or for an earlier one of that name.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np

from tercet.actors.storage import PartWriter, Storage, ValueInParts, Written
from tercet.actors.values import Stored
from tercet.errors import ProtocolError, StorageError
from tercet.plans.types import Type
from tercet.protocols.base import Share
from tercet.storage import share_files
from tercet.storage.sealed import SALT_BYTES, SealedFiles, SealedWriter
from tercet.storage.share_files import SealedTiles, ShareFiles, file_name, like_of, pack_head, tile_shapes
from tercet.transports.base import byte_view

T = TypeVar("T")
WRITERS = 4
"""Parts that a worker writes at the same time."""


@attrs.define(eq=False)
class SharedStorage(Storage):
    """A storage that the workers of a node reach by its URL; each keeps so many bytes of tiles in memory."""

    url: str
    memory_bytes: int
    _files: ShareFiles | None = attrs.field(default=None, init=False)
    _threads: ThreadPoolExecutor | None = attrs.field(default=None, init=False)

    def connect(self) -> None:
        """As `Storage.connect`."""
        if self._files is None:
            sealed = SealedFiles(self.url, base=Path(), make=False)
            sealed.require_place()
            self._files = ShareFiles(sealed, share_files.cache_for(sealed, self.memory_bytes))
            self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")

    @property
    def files(self) -> ShareFiles:
        """What `connect` has found. Raises StorageError before that."""
        if self._files is None:
            raise StorageError(f"the storage at {self.url} was not connected to")
        return self._files

    def tiles(self, access: Sequence[Any]) -> SealedTiles:
        """As `Storage.tiles`."""
        return self.files.opened(access)

    def part(self, place: Sequence[Any]) -> PartWriter:
        """As `Storage.part`."""
        match place:
            case [str(name), bytes(salt), bytes(key)]:
                return SealedPart(self, name, salt, key)
        raise ProtocolError("a node told something else than where a part of a value goes")

    def patiently(self, function: Callable[..., T], *args: Any) -> T:
        """Do something that a storage which hangs would never end. Raises StorageError then."""
        if self._threads is None:
            raise StorageError(f"the storage at {self.url} was not connected to")
        try:
            return self._threads.submit(function, *args).result(share_files.PATIENCE_S)
        except TimeoutError as error:
            raise share_files.silent(share_files.PATIENCE_S) from error


@attrs.define(eq=False)
class SealedPart(PartWriter):
    """The part of a value that one worker writes, in the order in which its tiles come."""

    _storage: SharedStorage
    _name: str
    _salt: bytes
    _key: bytes = attrs.field(repr=False)
    _writer: SealedWriter | None = attrs.field(default=None, init=False)
    _tiles: list[int] = attrs.field(factory=list, init=False)
    _size: int = attrs.field(default=0, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    def write(self, tile: int, share: Share, due: int) -> Written | None:
        """As `PartWriter.write`."""
        return self._storage.patiently(self._write, tile, share, due)

    def abort(self) -> None:
        """As `PartWriter.abort`."""
        self._storage.patiently(self._abort)

    def _write(self, tile: int, share: Share, due: int) -> Written | None:
        with self._lock:
            if self._over:
                raise StorageError("the run that this part of a value was made in is over")
            if self._writer is None:
                self._writer = self._storage.files.files.begun(self._name, self._salt, self._key)
            words = np.ascontiguousarray(share.data)
            self._writer.append(byte_view(words))
            self._tiles.append(tile)
            self._size += words.nbytes
            if len(self._tiles) < due:
                return None
            self._writer.commit()
            return Written(tuple(self._tiles), self._size, share.domain.name, len(share.data))

    def _abort(self) -> None:
        with self._lock:
            self._over = True
            if self._writer is not None:
                self._writer.abort()
                files = self._storage.files.files
                files.discard(files.path(self._name))


class SealedParts(ValueInParts):
    """A value of this handle that so many workers are going to write, as their node sees it."""

    def __init__(self, files: ShareFiles, handle: str, workers: int) -> None:
        self._files, self._handle = files, handle
        self._beginning = f"{file_name(handle)}-{secrets.token_hex(6)}"
        self._made: SealedTiles | None = None
        names = [f"{self._beginning}{number:04x}" for number in range(workers)]
        self._salts = [(name, secrets.token_bytes(SALT_BYTES)) for name in names]
        self.places = [[name, salt, files.files.file_key(name, salt)] for name, salt in self._salts]

    def stored(self, kind: Type, tile_rows: int, written: Mapping[int, Written]) -> Stored:
        """As `ValueInParts.stored`."""
        parts = [(*self._salts[worker], one.size, list(one.tiles)) for worker, one in sorted(written.items())]
        first = next(iter(written.values()))
        shapes = [(first.held, *shape) for shape in tile_shapes(kind, tile_rows)]
        stretches = [self._files.stretch(*part) for part in parts]
        try:
            like = like_of(first.domain, kind.scale)
            tiles = SealedTiles(stretches, shapes, like, self._files.cache)
        except (ValueError, KeyError, IndexError) as error:
            raise StorageError(f"workers have not written all of {self._handle!r}: {error}") from error
        self._made = tiles
        tiles.head_due = self._handle, pack_head(self._handle, kind, tile_rows, first.domain, shapes, *parts)
        return Stored(kind, tiles, tile_rows)

    def discard(self) -> None:
        """As `ValueInParts.discard`: what is kept has its head.

        Another attempt at the same run may be writing the value meanwhile, to parts of other names.
        """
        if self._made is None or self._made.head_due is not None:
            self._files.files.remove_beginning(self._beginning)
