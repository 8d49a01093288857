"""The vault of a node: what it keeps lasts, on disk, and as many of its tiles lie in memory as may be.

Values that a client deals or a plan stores are loose: they live in the party's memory, or in a file without
an entry. What plans have stored is in the journal then, and is still there after a restart. Keeping values
under a name writes their files, then the catalog's entry, in one step. So an upload that does not come to
that step leaves nothing. Kept values are read tile by tile when a plan needs them, so they may be larger than
memory; tiles that were not needed for longest make room.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio
from cryptography.exceptions import InvalidTag

from tercet.actors.threads import counted, in_thread
from tercet.actors.values import Stored
from tercet.errors import StorageError
from tercet.members.node_file import NodeFile
from tercet.members.rules import TABLE
from tercet.plans.types import Type
from tercet.storage.catalog import Catalog, Entry
from tercet.storage.catalog_copies import restored_from
from tercet.storage.data_key import change_storage_key, find_data_key
from tercet.storage.journal import Journal
from tercet.storage.sealed import SALT_BYTES, SealedFiles
from tercet.storage.share_files import SealedTiles, ShareFiles, ShareWriter, cache_for
from tercet.storage.shared import SealedParts

T = TypeVar("T")

NONCE = bytes(12)
"""Every sealed message has a key of its own."""


def renew_storage_key(file: NodeFile) -> Path:
    """Let a new storage key take the place of a node's; where the one before is now.

    The node may run meanwhile. Raises StorageError or OSError.
    """
    sealed = SealedFiles(file.storage, base=file.directory)
    catalog = Catalog(file.catalog, base=file.directory, may_be_new=False)
    try:
        return change_storage_key(file.storage_key, catalog, sealed)
    finally:
        catalog.close()


class Vault:
    """Entries with their values. What blocks runs in threads; changes are made one after the other."""

    def __init__(self, file: NodeFile) -> None:
        sealed = SealedFiles(file.storage, base=file.directory)
        self._sealed = sealed
        self.files = ShareFiles(sealed, cache_for(sealed, file.memory_mb << 20))
        # Without a catalog, every file would be swept away below.
        self.catalog = Catalog(file.catalog, base=file.directory, may_be_new=not sealed.names())
        sealed.key = find_data_key(file.storage_key, self.catalog, sealed)
        self._opened: dict[str, Stored] = {}
        """Kept values that were asked for since the node started."""
        self.restored = restored_from(self.catalog)
        """From which backup the node was put back, if it was."""
        self.journal = Journal(self.catalog)
        self.catalog.measure(self.files.size)
        self.journal.measure(self.files.size)
        kept = self.catalog.handles()
        self._loose = set(self.journal.handles()).difference(kept)
        """Values with a file and without an entry."""
        self._being_kept: frozenset[str] = frozenset()
        """Those for which an entry is being made: they stay, whoever lets go of them meanwhile."""
        self._changing = trio.Lock()
        self.swept, self.strange = self.files.sweep([*kept, *self._loose])
        """Files that a crash had left, removed when the vault was opened, and those that may be another's."""

    def seal(self, name: str, message: bytes) -> bytes:
        """A message under the data key, to be kept in the journal; `open` it under the same name."""
        salt = secrets.token_bytes(SALT_BYTES)
        return salt + self._sealed.cipher(name, salt).encrypt(NONCE, message, None)

    def open(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under a name. Raises StorageError for what was changed since."""
        try:
            cipher = self._sealed.cipher(name, sealed[:SALT_BYTES])
            return cipher.decrypt(NONCE, sealed[SALT_BYTES:], None)
        except (InvalidTag, ValueError) as error:
            raise StorageError(f"the catalog has no proper {name}; restore it, or ask for it anew") from error

    async def ask(self, question: Callable[..., T], *args: Any) -> T:
        """Ask the catalog something, in a thread."""
        return await in_thread(question, *args)

    async def load(self, handle: str) -> Stored | None:
        """A value with a file, None if there is no such. Its tiles are read when they are used.

        Raises StorageError if its file is missing or was cut; a tile that has changed raises it later.
        """
        found = self._opened.get(handle)
        if found is None:
            entry = None if handle in self._loose else await self.ask(self.catalog.of_handle, handle)
            if handle not in self._loose and entry is None:
                return None
            try:
                found = await in_thread(self.files.load, handle)
            except StorageError as error:
                raise StorageError(f"{_title(entry)}: {error}" if entry else str(error)) from error
            self._opened[handle] = found
            found.dealt = entry is not None and entry.kind == TABLE
            if entry is not None:
                _entitle(found, entry)
        return found

    def begin(self, handle: str, kind: Type, tile_rows: int) -> ShareWriter:
        """A loose value that comes in pieces: its file. Blocks, as the writer does."""
        self._loose.add(handle)
        return self.files.begin(handle, kind, tile_rows)

    def in_parts(self, handle: str, workers: int) -> SealedParts | None:
        """A value that workers are to write, before it comes to `write`; None if they cannot."""
        return SealedParts(self.files, handle, workers) if self._sealed.shared else None

    async def write(self, handle: str, stored: Stored) -> Stored:
        """Write the file of a loose value, unless it has one; the same value, read from there from now on.

        Nothing keeps the file but `keep` or the journal: without, `forget` or the next start removes it.
        """
        if handle in self._loose:
            return stored
        written = await in_thread(self.files.save, handle, stored)
        written.dealt, written.alike = stored.dealt, stored.alike
        self._loose.add(handle)
        if isinstance(written.tiles, SealedTiles) and written is not stored:
            written.tiles.keep(stored.tiles)
        return written

    async def keep(
        self, entry: Entry, values: Mapping[str, Stored], sizes: Mapping[str, int] | None = None
    ) -> None:
        """Make an entry last, or replace one; its values have so many bytes.

        Raises StorageError; then nothing has changed.
        """
        # Whoever waits for the turn must not wait for threads of the member who has it.
        async with self._changing:
            with counted(None):
                before = await self.ask(self.catalog.find, entry.kind, entry.name)
                new = [handle for handle in entry.handles if handle not in self._loose]
                self._being_kept = frozenset(entry.handles)
                opened = {}
                try:
                    for handle in entry.handles:
                        opened[handle] = await self.write(handle, values[handle])
                    await self.ask(self.catalog.put, entry, sizes)
                except BaseException:
                    self._being_kept = frozenset()
                    await self.forget(new)
                    raise
                self._loose -= opened.keys()
                self._being_kept = frozenset()
                self._opened |= opened
                for stored in opened.values():
                    _entitle(stored, entry)
                if before is not None:
                    await self._remove(before.handles)

    async def drop(self, entry: Entry) -> None:
        """Forget an entry and its values, unless another has its name by now."""
        async with self._changing:
            with counted(None), trio.CancelScope(shield=True):
                await self._remove(await self.ask(self.catalog.drop, entry))

    async def forget(self, handles: Iterable[str]) -> None:
        """Remove the files of loose values; leaves those alone that are kept, or have none."""
        gone = self._loose.intersection(handles) - self._being_kept
        self._loose -= gone
        await self._remove(gone)

    async def _remove(self, handles: Iterable[str]) -> None:
        """Remove files that nothing names any more, whoever gives up waiting: nobody would do it later."""
        with counted(None), trio.CancelScope(shield=True):
            for handle in handles:
                opened = self._opened.pop(handle, None)
                if opened is not None and isinstance(opened.tiles, SealedTiles):
                    opened.tiles.forget()
                await in_thread(self.files.remove, handle)


def _title(entry: Entry) -> str:
    return f"{entry.kind} {entry.name!r}"


def _entitle(stored: Stored, entry: Entry) -> None:
    """Let errors about the tiles of a value name what is kept."""
    if isinstance(stored.tiles, SealedTiles):
        stored.tiles.title = _title(entry)
