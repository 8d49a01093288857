"""Shares of values as sealed files: a line that says what it is, then the words of each tile.

A value may be larger than memory. It is written tile by tile as it arrives, and read tile by tile when a plan
needs it: `load` gives a sequence of tiles that reads them from the file. Tiles that were read stay in a cache
of bounded size, and while one is worked on, a thread reads the next.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import attrs
import msgpack
import numpy as np

from tercet.actors.scratch import Scratch
from tercet.actors.values import FiledTiles, Stored, read_type, type_fields
from tercet.errors import PlanError, ProtocolError, StorageError
from tercet.plans.types import Form, Type
from tercet.protocols.base import Share
from tercet.protocols.domains import DOMAINS, WORD_BYTES, Domain, packed_words
from tercet.storage.sealed import Access, SealedFiles, SealedReader
from tercet.transports.base import byte_view

LENGTH_BYTES = 4
READERS = 4
"""Tiles that are read at the same time from a place where each takes its time."""
PATIENCE_S = 60.0
"""How long such a place may take to give a tile."""
Shape = tuple[int, ...]
Key = tuple[object, int]
"""A tile: whose it is, and its number."""


class TileCache:
    """Tiles in memory, up to so many bytes; those not used for longest make room. For any thread.

    With `patience_s`, reading is done by a few threads of its own, and whoever waits for a tile for so long
    gets a StorageError: a file system that is reached over a network may hang.
    """

    def __init__(self, most_bytes: int, *, patience_s: float | None = None) -> None:
        self._most = most_bytes
        self._patience_s = patience_s
        self._bytes = 0
        self._tiles: OrderedDict[Key, Future[Share]] = OrderedDict()
        self._lock = threading.Lock()
        threads = 1 if patience_s is None else READERS
        self._ahead = ThreadPoolExecutor(threads, thread_name_prefix="read ahead")

    @property
    def held(self) -> int:
        """Bytes of the tiles that are in memory."""
        return self._bytes

    def has(self, key: Key) -> bool:
        """Whether a tile is there, so that `get` does not wait."""
        future = self._tiles.get(key)
        return future is not None and future.done()

    def get(self, key: Key, read: Callable[[], Share]) -> Share:
        """A tile, read unless it is there or another thread is at it. Raises what `read` does."""
        future, mine = self._claim(key)
        if mine and self._patience_s is None:
            self._fill(key, future, read)
        elif mine:
            self._ahead.submit(self._fill, key, future, read)
        try:
            return future.result(self._patience_s)
        except TimeoutError as error:
            raise silent(self._patience_s or 0) from error

    def expect(self, key: Key, read: Callable[[], Share]) -> None:
        """Read a tile in the background; it is likely to be wanted next."""
        if key not in self._tiles:
            future, mine = self._claim(key)
            if mine:
                self._ahead.submit(self._fill, key, future, read)

    def forget(self, whose: object) -> None:
        """Let the tiles of a value go."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] is whose and self._tiles[key].done()]:
                self._bytes -= self._tiles.pop(key).result().data.nbytes

    def _claim(self, key: Key) -> tuple[Future[Share], bool]:
        with self._lock:
            future = self._tiles.get(key)
            if future is not None:
                self._tiles.move_to_end(key)
                return future, False
            future = self._tiles[key] = Future()
            return future, True

    def _make_room(self, besides: Key) -> None:
        for old in [one for one, held in self._tiles.items() if held.done() and one != besides]:
            self._bytes -= self._tiles.pop(old).result().data.nbytes
            if self._bytes <= self._most:
                break

    def _fill(self, key: Key, future: Future[Share], read: Callable[[], Share]) -> None:
        try:
            share = read()
        except BaseException as error:  # noqa: BLE001 - raised where the tile is wanted
            with self._lock:
                del self._tiles[key]
            future.set_exception(error)
            return
        with self._lock:
            self._bytes += share.data.nbytes
            future.set_result(share)
            if self._bytes > self._most:
                self._make_room(key)


@attrs.frozen
class Stretch:
    """Some tiles of a value, one after the other, from a place in a file up to its end."""

    reader: SealedReader
    start: int
    tiles: Sequence[int]


class SealedTiles(FiledTiles):
    """The tiles of a value in files, each read when it is asked for; StorageError if it has changed.

    Raises ValueError unless each of these tiles is in one of the files, and nothing else.
    """

    def __init__(
        self, stretches: Sequence[Stretch], shapes: Sequence[Shape], like: Share, cache: TileCache
    ) -> None:
        self.title = ""
        """Of what these tiles are, for errors."""
        self.head_due: tuple[str, bytes] | None = None
        """The handle of a value, and its head, which has yet to be written: the tiles are there."""
        self.stretches = stretches
        self._like, self._cache = like, cache
        self._shapes = list(shapes)
        places: dict[int, tuple[SealedReader, int]] = {}
        for one in stretches:
            end = one.start
            for tile in one.tiles:
                places[tile] = one.reader, end
                end += WORD_BYTES * math.prod(self._shapes[tile])
            if end != one.reader.size:
                raise ValueError(f"it has {one.reader.size} bytes instead of {end}")
        if sorted(places) != list(range(len(shapes))) or sum(len(s.tiles) for s in stretches) != len(shapes):
            raise ValueError(f"it has the tiles {sorted(places)} of {len(shapes)}")
        self._places = [places[tile] for tile in range(len(shapes))]

    def __len__(self) -> int:
        return len(self._shapes)

    def at(self, number: int) -> Share:
        """As `Filed.at`. Raises StorageError."""
        if number + 1 < len(self):
            self._cache.expect((self, number + 1), lambda: self._read(number + 1))
        try:
            return self._cache.get((self, number), lambda: self._read(number))
        except StorageError as error:
            raise StorageError(f"{self.title}: {error}" if self.title else str(error)) from error

    @property
    def nbytes(self) -> int:
        """Bytes of all tiles."""
        return sum(one.reader.size - one.start for one in self.stretches)

    def ready(self, tile: int) -> bool:
        """Whether a tile is in memory."""
        return self._cache.has((self, tile))

    def keep(self, tiles: Sequence[Share]) -> None:
        """Put tiles into the cache that are in memory already, as far as they fit."""
        for number, tile in enumerate(tiles):
            if not Scratch.holds(tile.data):  # a tile there would keep the file that the whole value lies in
                self._cache.get((self, number), lambda tile=tile: tile)  # type: ignore[misc]

    def forget(self) -> None:
        """As `FiledTiles.forget`."""
        self._cache.forget(self)

    def access(self) -> list[Any] | None:
        """As `FiledTiles.access`."""
        if not all(one.reader.shared for one in self.stretches):
            return None
        stretches = [
            [*attrs.astuple(one.reader.access), one.start, list(one.tiles)]
            for one in self.stretches
            if one.tiles
        ]
        return [self.title, self._shapes, self._like.domain.name, self._like.scale, stretches]

    def _read(self, tile: int) -> Share:
        words = np.empty(self._shapes[tile], dtype=np.uint64)
        if words.size:
            reader, start = self._places[tile]
            reader.fill(byte_view(words), start)
        return self._like.like(words)


class ShareWriter:
    """A value that is written tile by tile; it is there once it is committed. One thread at a time."""

    def __init__(self, files: ShareFiles, handle: str, kind: Type, tile_rows: int) -> None:
        self._files, self._handle, self._kind, self._tile_rows = files, handle, kind, tile_rows
        self._writer = files.files.begin(file_name(handle))
        self._due: list[Shape] | None = None

    def append(self, tile: Share) -> None:
        """Write the next tile. Raises StorageError; `abort` then."""
        if self._due is None:
            self._due = self._head(tile.domain, len(tile.data))[::-1]
        if not self._due or tile.data.shape != self._due.pop():
            shape = tile.data.shape
            raise StorageError(f"a tile of {self._handle!r} has the shape {shape}, which is not due")
        self._writer.append(byte_view(np.ascontiguousarray(tile.data)))

    def commit(self) -> Stored:
        """The value, read from its file. Raises StorageError, also if tiles are missing; `abort` then."""
        if self._due is None or self._due:
            raise StorageError(f"{self._handle!r} lacks tiles; upload it again")
        self._writer.commit()
        return self._files.load(self._handle)

    def abort(self) -> None:
        """Leave nothing."""
        self._writer.abort()

    def _head(self, domain: Domain, held: int) -> list[Shape]:
        shapes = [(held, *shape) for shape in tile_shapes(self._kind, self._tile_rows)]
        head = pack_head(self._handle, self._kind, self._tile_rows, domain.name, shapes)
        self._writer.append(memoryview(head))
        return shapes


@attrs.frozen
class ShareFiles:
    """Stored values by handle. All of it blocks: call it in threads."""

    files: SealedFiles
    cache: TileCache

    def begin(self, handle: str, kind: Type, tile_rows: int) -> ShareWriter:
        """A value of a type with numbers for all dimensions, to be written tile by tile."""
        return ShareWriter(self, handle, kind, tile_rows)

    def save(self, handle: str, stored: Stored) -> Stored:
        """Write a value; the same, as `load` gives it. Raises StorageError, and leaves nothing then.

        Of one that workers have written under this handle only the head is missing, which names its parts.
        """
        tiles = stored.tiles
        if isinstance(tiles, SealedTiles) and tiles.head_due is not None and tiles.head_due[0] == handle:
            self.files.write(file_name(handle), [memoryview(tiles.head_due[1])])
            tiles.head_due = None
            return stored
        writer = self.begin(handle, stored.type, stored.tile_rows)
        try:
            for tile in stored.tiles:
                writer.append(tile)
            return writer.commit()
        except BaseException:
            writer.abort()
            raise

    def load(self, handle: str) -> Stored:
        """A value whose tiles are read from its file when they are used.

        Raises StorageError if the file is missing, was cut, or is none of this value; a tile that has changed
        raises it when it is read.
        """
        reader = self.files.open(file_name(handle))
        try:
            prefix = bytearray(LENGTH_BYTES)
            reader.fill(memoryview(prefix), 0)
            head = bytearray(int.from_bytes(prefix, "big"))
            reader.fill(memoryview(head), LENGTH_BYTES)
            reader.rest()
            name, fields, tile_rows, domain, shapes, *parts = msgpack.unpackb(head)
            kind: Type = read_type(fields)
            if name != handle:
                raise StorageError(f"the file of {handle!r} has the value {name!r}; restore it")
            shapes = [tuple(int(dim) for dim in shape) for shape in shapes]
            stretches = [Stretch(reader, LENGTH_BYTES + len(head), [] if parts else range(len(shapes)))]
            stretches += [self.stretch(*part) for some in parts for part in some]
            tiles = SealedTiles(stretches, shapes, like_of(domain, kind.scale), self.cache)
        except (ValueError, TypeError, KeyError, IndexError, PlanError) as error:
            raise StorageError(f"the file of {handle!r} was written by another release: {error!r}") from error
        return Stored(kind, tiles, int(tile_rows))

    def stretch(self, name: str, salt: bytes, size: int, tiles: Sequence[int]) -> Stretch:
        """A part of a value that a worker has written; nothing is read."""
        return Stretch(self.files.opened(Access(name, self.files.file_key(name, salt), size)), 0, tiles)

    def opened(self, access: Sequence[Any]) -> SealedTiles:
        """Tiles of which another process has told the access. Raises ProtocolError for what is none."""
        try:
            title, shapes, domain, scale, told = access
            stretches = [
                Stretch(self.files.opened(Access(name, key, size)), start, tiles)
                for name, key, size, start, tiles in told
            ]
            found = SealedTiles(
                stretches, [tuple(shape) for shape in shapes], like_of(domain, scale), self.cache
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ProtocolError(f"a node told something else than where a value lies ({error!r})") from error
        found.title = title
        return found

    def size(self, handle: str) -> int:
        """Bytes of the file of a value; 0 if it is not there."""
        return self.files.size(file_name(handle))

    def remove(self, handle: str) -> None:
        """Remove a value, if it is there."""
        self.files.remove(file_name(handle))

    def sweep(self, handles: Sequence[str]) -> tuple[list[str], list[str]]:
        """Remove all files but those of some values: as `SealedFiles.sweep`."""
        return self.files.sweep({file_name(handle) for handle in handles})


def silent(patience_s: float) -> StorageError:
    """What those get who have waited for a storage for so long."""
    return StorageError(f"the storage has not answered for {patience_s:g} s; look at it, and try again")


def cache_for(files: SealedFiles, most_bytes: int) -> TileCache:
    """A cache for the tiles of a place, which has no patience with one that may hang."""
    return TileCache(most_bytes, patience_s=PATIENCE_S if files.shared else None)


def pack_head(
    handle: str, kind: Type, tile_rows: int, domain: str, shapes: Sequence[Shape], *parts: Sequence[Any]
) -> bytes:
    """What stands before the tiles of a value, or, of one in parts, alone.

    Of each part it says `[name, salt, size, tiles]`.
    """
    head: bytes = msgpack.packb(
        [handle, type_fields(kind), tile_rows, domain, shapes, *([parts] if parts else [])]
    )
    return len(head).to_bytes(LENGTH_BYTES, "big") + head


def like_of(domain: str, scale: int) -> Share:
    """An empty share, to be filled with words. Raises KeyError for no domain."""
    return Share(DOMAINS[domain], np.empty(0, dtype=np.uint64), scale=scale)


def file_name(handle: str) -> str:
    """The file of a value: handles may have any characters, and files of any length do not exist."""
    return hashlib.blake2b(handle.encode(), digest_size=20, person=b"tercet-file").hexdigest()


def tile_shapes(kind: Type, tile_rows: int) -> list[Shape]:
    """The shapes of the words of each tile of a value, of what a party holds for each word one."""
    shape = tuple(int(dim) for dim in kind.shape)
    if not shape:
        return [()]
    rows = [min(tile_rows, shape[-1] - start) for start in range(0, shape[-1], tile_rows)] or [0]
    packed = kind.form is Form.BITS
    return [(*shape[:-1], packed_words(count) if packed else count) for count in rows]
