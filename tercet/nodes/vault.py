"""The vault of a node: tables and models that last, on disk, and as many of their values in memory as may be.

Values that a client deals or a plan stores are loose: they live in the party's memory. Keeping some of them
under a name makes them last: their files are written, then the catalog's entry, in one step. So an upload
that does not come to that step leaves nothing. Kept values are read into memory when a plan needs them, and
those that were not needed for longest make room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import trio

from tercet.actors.values import Stored
from tercet.errors import StorageError
from tercet.nodes.config import NodeFile
from tercet.storage.catalog import Catalog, Entry
from tercet.storage.sealed import SealedFiles
from tercet.storage.shares import ShareFiles, stored_bytes

T = TypeVar("T")


class Vault:
    """Entries with their values. What blocks runs in threads; changes are made one after the other."""

    def __init__(self, file: NodeFile) -> None:
        try:
            key = bytes.fromhex(file.storage_key.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"the storage key {file.storage_key} cannot be read ({error}); restore it"
            ) from error
        self.files = ShareFiles(SealedFiles(file.storage, key, base=file.directory))
        self.catalog = Catalog(file.catalog, base=file.directory)
        self._most_bytes = file.memory_mb << 20
        self._cached: OrderedDict[str, Stored] = OrderedDict()
        self._changing = trio.Lock()
        kept = [handle for entry in self.catalog.entries() for handle in entry.handles]
        self.swept = self.files.sweep(kept)
        """Files that a crash had left, removed when the vault was opened."""

    async def ask(self, question: Callable[..., T], *args: Any) -> T:
        """Ask the catalog something, in a thread."""
        return await trio.to_thread.run_sync(question, *args)

    async def load(self, handle: str) -> Stored | None:
        """A kept value, None if there is no such. Raises StorageError if its file is damaged."""
        found = self._cached.get(handle)
        if found is None:
            if await self.ask(self.catalog.of_handle, handle) is None:
                return None
            found = await trio.to_thread.run_sync(self.files.load, handle)
        self._remember(handle, found)
        return found

    async def keep(self, entry: Entry, values: Mapping[str, Stored]) -> None:
        """Make an entry last, or replace one. Raises StorageError; then nothing has changed."""
        async with self._changing:
            before = await self.ask(self.catalog.find, entry.kind, entry.name)
            written: list[str] = []
            try:
                for handle in entry.handles:
                    written.append(handle)
                    await trio.to_thread.run_sync(self.files.save, handle, values[handle])
                await self.ask(self.catalog.put, entry)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._remove(written)
                raise
            if before is not None:
                await self._remove(before.handles)
        for handle in entry.handles:
            self._remember(handle, values[handle])

    async def drop(self, kind: str, name: str) -> None:
        """Forget an entry and its values."""
        async with self._changing:
            await self._remove(await self.ask(self.catalog.drop, kind, name))

    async def _remove(self, handles: Sequence[str]) -> None:
        for handle in handles:
            self._cached.pop(handle, None)
            await trio.to_thread.run_sync(self.files.remove, handle)

    def _remember(self, handle: str, stored: Stored) -> None:
        self._cached[handle] = stored
        self._cached.move_to_end(handle)
        total = sum(map(stored_bytes, self._cached.values()))
        while total > self._most_bytes and len(self._cached) > 1:
            _, forgotten = self._cached.popitem(last=False)
            total -= stored_bytes(forgotten)
