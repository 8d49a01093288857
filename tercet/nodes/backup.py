"""Backups of all lasting state of one node, also while it runs; `manifest` says what a backup is.

First comes the catalog, as of one moment, then the files of shares that it names, then the audit log, which
only grows, and the list of members. A file of shares is never changed while something names it, but may go
with what names it. So the catalog is looked at again afterwards: what it still names by the same identity is
what was copied. If something has gone meanwhile, a new copy of the catalog names less, or other files, which
are few; so that is done until one fits, a bounded number of times.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import attrs

from tercet.errors import StorageError
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NodeFile
from tercet.members.seals import seal_path, segment_path, sync
from tercet.members.succession import kept_path, next_path
from tercet.nodes.manifest import (
    AUDIT_LOG,
    CATALOG,
    MANIFEST,
    MEMBERS,
    PIECE_BYTES,
    SHARES,
    Content,
    Manifest,
    entry_of,
    latest_list,
    pieces,
    require_log,
)
from tercet.nodes.program import Settings
from tercet.storage.catalog import Catalog
from tercet.storage.catalog_copies import named_values, noted_bytes
from tercet.storage.data_key import fingerprint_of_key
from tercet.storage.sealed import TEMPORARY, SealedFiles, owner_of
from tercet.storage.share_files import file_name
from tercet.storage.sqlite_files import copy_database, database_path

MOST_ROUNDS = 16
"""How often the catalog is copied anew because something went meanwhile."""


def back_up(path: Path, to: Path) -> Manifest:
    """Copy all lasting state of the node with this `node.toml` into a new or empty directory. Blocks.

    Raises TercetError or OSError; what is there then is no backup, since it lacks its manifest.
    """
    settings = Settings.read(path, may_change=False)
    database = database_path(settings.file.catalog, settings.file.directory)
    if not database.exists():
        raise StorageError(f"there is no catalog at {database}: this node has not run yet")
    _make_empty(to)
    return _Maker(settings, database, to).make()


def _make_empty(to: Path) -> None:
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(to.iterdir()):
        raise StorageError(f"{to} is not empty; give a new directory, or remove what is there")
    to.chmod(0o700)
    if any(to.iterdir()):  # until now others could write to it, perhaps
        raise StorageError(f"somebody has put something into {to} just now; give a new directory")
    for name in (SHARES, AUDIT_LOG, MEMBERS):
        place = to / name if name == SHARES else (to / name).parent
        place.mkdir(mode=0o700)


@attrs.define
class _Maker:
    """Makes one backup."""

    settings: Settings
    database: Path
    to: Path
    files: dict[str, Content] = attrs.field(factory=dict)
    """What was copied, by its path in the backup."""
    held: dict[str, str] = attrs.field(factory=dict)
    """The identity of each value whose file was copied, by handle."""

    parts: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    """The parts that files have, by name."""

    def make(self) -> Manifest:
        file = self.settings.file
        made = self._shares(SealedFiles(file.storage, base=file.directory, make=False))
        self._log(file.directory / Path(AUDIT_LOG).name)
        self._members(file)
        catalog = self._copied()
        try:
            key = fingerprint_of_key(file.storage_key, catalog, SealedFiles(SHARES, base=self.to, make=False))
            node = self.settings.cluster.nodes[self.settings.index].name
            head = require_log(self.to, entry_of(latest_list(self.to), node), catalog)
        finally:
            catalog.close()
        lake = self.settings.cluster.lake.hex()
        self.files[CATALOG] = _content(self.to / CATALOG)
        files = dict(sorted(self.files.items()))
        found = Manifest(version("tercet"), node, lake, made, key, head, files)
        for place in {self.to, *((self.to / name).parent for name in files)}:
            sync(place)
        self._finish(found)
        return found

    def _finish(self, found: Manifest) -> None:
        temporary = self.to / f"{MANIFEST}.part"
        write(temporary, [found.to_text(MemberKeys(self.settings.identity)).encode()])
        temporary.rename(self.to / MANIFEST)
        sync(self.to)
        if self.to.parent.is_dir():
            sync(self.to.parent)

    # -- values ----------------------------------------------------------------------------------------------

    def _shares(self, storage: SealedFiles) -> str:
        """Copy the catalog and the files that it names; when the catalog was what it is there."""
        for _ in range(MOST_ROUNDS):
            made = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            copy_database(self.database, self.to / CATALOG)
            sync(self.to / CATALOG)
            wanted = _named(self._copied())
            self._discard(handle for handle, one in self.held.items() if wanted.get(handle) != one)
            new = {handle: one for handle, one in wanted.items() if handle not in self.held}
            self.parts = _parts(storage)  # they are there before the catalog names their value
            gone = [handle for handle in new if not self._copy(storage, handle)]
            file = self.settings.file
            now = _named(Catalog(file.catalog, base=file.directory, may_be_new=False, may_change=False))
            for handle in gone:
                if now.get(handle) == wanted[handle]:
                    raise StorageError(
                        f"{storage.path(file_name(handle))} is missing, and the catalog names it: restore "
                        "it, or drop the table or model of it, before a backup is made"
                    )
            self.held |= {handle: one for handle, one in new.items() if handle not in gone}
            self._discard(handle for handle in new if handle in self.held and now.get(handle) != new[handle])
            if self.held == wanted:
                self._require_all_parts(storage)
                return made
        raise StorageError(
            f"values have come and gone {MOST_ROUNDS} times while they were copied; make the backup when the "
            "node has less to do"
        )

    def _require_all_parts(self, storage: SealedFiles) -> None:
        """Raise StorageError if a value has less bytes, sealed, than the catalog notes of it unsealed."""
        copied: dict[str, int] = {}
        for path, content in self.files.items():
            name = owner_of(path.removeprefix(f"{SHARES}/"))
            copied[name] = copied.get(name, 0) + content.size
        catalog = self._copied()
        try:
            noted = noted_bytes(catalog)
        finally:
            catalog.close()
        for handle in self.held:
            if copied[file_name(handle)] < noted.get(handle, 0):
                raise StorageError(
                    f"{storage.path(file_name(handle))} was cut, or lacks a part, and the catalog names it: "
                    "restore it, or drop the table or model of it, before a backup is made"
                )

    def _copied(self) -> Catalog:
        return Catalog(f"sqlite:///{CATALOG}", base=self.to, may_be_new=False, may_change=False)

    def _discard(self, handles: Iterable[str]) -> None:
        for handle in list(handles):
            self._remove(file_name(handle))
            del self.held[handle]

    def _remove(self, name: str) -> None:
        """Remove the copy of a file, and of its parts."""
        for copied in [one for one in self.files if owner_of(one.removeprefix(f"{SHARES}/")) == name]:
            (self.to / copied).unlink()
            del self.files[copied]

    def _copy(self, storage: SealedFiles, handle: str) -> bool:
        """Copy the file of a value, and its parts; whether all of it was there."""
        name = file_name(handle)
        try:
            for one in (name, *self.parts.get(name, ())):
                with storage.raw(storage.path(one), "rb") as file:
                    self.files[f"{SHARES}/{one}"] = write(self.to / SHARES / one, pieces(file))
        except FileNotFoundError:
            self._remove(name)
            return False
        return True

    # -- other files -----------------------------------------------------------------------------------------

    def _log(self, log: Path) -> None:
        """Copy the audit log up to its last whole line: `audit.log` as it is now, and the segments before."""
        try:
            latest = log.open("rb")
        except FileNotFoundError:  # it has just become a segment, or there never was one
            latest = None
        place = os.fstat(latest.fileno()) if latest else None
        for number in itertools.count(1):
            segment = segment_path(log, number)
            if not segment.exists() or (place is not None and os.path.samestat(segment.stat(), place)):
                break
            for path in (segment, seal_path(log, number)):
                if path.exists():
                    self._keep(path, f"audit/{path.name}")
        if latest is not None:
            with latest:
                self.files[AUDIT_LOG] = write(self.to / AUDIT_LOG, _whole_lines(latest))

    def _members(self, file: NodeFile) -> None:
        """Copy the list of members; first what follows it, which may take its place meanwhile."""
        there, to = file.cluster, self.to / MEMBERS
        kept = ((kept_path(there, number), kept_path(to, number)) for number in itertools.count(1))
        for source, target in ((next_path(there), next_path(to)), (there, to)):
            if source.exists():
                self._keep(source, f"members/{target.name}")
        for source, target in itertools.takewhile(lambda pair: pair[0].exists(), kept):
            self._keep(source, f"members/{target.name}")

    def _keep(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            self.files[name] = write(self.to / name, pieces(file))


def _whole_lines(file: Iterable[bytes]) -> Iterable[bytes]:
    return itertools.takewhile(lambda line: line.endswith(b"\n"), file)


def _parts(storage: SealedFiles) -> dict[str, list[str]]:
    """The parts that files have, by name."""
    found: dict[str, list[str]] = {}
    for name in storage.names():
        if name != owner_of(name) and not name.endswith(TEMPORARY):
            found.setdefault(owner_of(name), []).append(name)
    return found


def _named(catalog: Catalog) -> dict[str, str]:
    try:
        return named_values(catalog)
    finally:
        catalog.close()


def _content(path: Path) -> Content:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in pieces(file):
            digest.update(piece)
    return Content(path.stat().st_size, digest.hexdigest())


def write(path: Path, data: Iterable[bytes]) -> Content:
    """Write a file that only its owner can read, and wait until it is on the disk.

    Raises OSError, also where a link has the name: what it points to stays as it is.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb", buffering=PIECE_BYTES) as file:
        os.fchmod(descriptor, 0o600)
        content = copy_to(file, data)
        file.flush()
        os.fsync(file.fileno())
    return content


def copy_to(file: BinaryIO, data: Iterable[bytes]) -> Content:
    """Write pieces to a file; what it has then."""
    digest, size = hashlib.sha256(), 0
    for piece in data:
        digest.update(piece)
        size += len(piece)
        file.write(piece)
    return Content(size, digest.hexdigest())
