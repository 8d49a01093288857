"""Restoring a node from a backup, in places where nothing is; `manifest` says what a backup is.

A mark lies beside `node.toml` from before the first file until after the last one, and a node with it does
not start. So half of a restore is not taken for a node, and the same restore can be made again. The last file
to come is the catalog, without which files of shares are those of no node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tercet.errors import ConfigError, ConsentError, StorageError
from tercet.members.audit import AuditLog
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NodeFile
from tercet.members.seals import Head, sync
from tercet.members.succession import current, kept_path, next_path
from tercet.nodes.backup import copy_to, write
from tercet.nodes.manifest import (
    AUDIT_LOG,
    CATALOG,
    MANIFEST,
    MEMBERS,
    SHARES,
    Backup,
    Content,
    check_backup,
    mark_of,
    pieces,
    restoring,
)
from tercet.nodes.program import Settings
from tercet.nodes.roster import require_goes_on
from tercet.nodes.running import stopped
from tercet.storage.catalog import Catalog
from tercet.storage.catalog_copies import Restored, note_restored
from tercet.storage.data_key import fingerprint, read_storage_key, require_opens
from tercet.storage.journal import Journal
from tercet.storage.sealed import TEMPORARY, SealedFiles
from tercet.storage.sqlite_files import database_path
from tercet.transports import Identity


def restore(directory: Path, path: Path) -> Backup:
    """Put a backup in place for the node with this `node.toml`. Blocks.

    Nothing that is there is overwritten, but for what an earlier attempt has left. Raises TercetError or
    OSError; unless the mark is there then, nothing was written.
    """
    backup, file = check_backup(directory), NodeFile.read(path)
    database = database_path(file.catalog, file.directory)
    storage = SealedFiles(file.storage, base=file.directory, make=False)
    settings = _settings(backup, file)
    _require_own(backup, settings)
    _require_key(backup, file)
    with stopped(file, before="it is restored"):
        under_way = restoring(file)
        if under_way is None:
            _require_nothing(file, database, storage)
        elif under_way != backup.digest:
            raise StorageError(
                f"{mark_of(file)} says that a restore from another backup did not come to its end: restore "
                "that one, or remove what it has left, and the mark"
            )
        _place(backup, settings, database, SealedFiles(file.storage, base=file.directory))
    return backup


# -- whether it may be done ----------------------------------------------------------------------------------


def _settings(backup: Backup, file: NodeFile) -> Settings:
    """The node by the list of members that is there, or by that of the backup where there is none."""
    there = file.cluster.exists()
    return Settings.of(file, current(file.cluster) if there else ClusterFile.read(backup.directory / MEMBERS))


def _require_own(backup: Backup, settings: Settings) -> None:
    """Raise ConfigError or StorageError for the backup of another node or lake, or one that goes back."""
    told, cluster, file = backup.manifest, settings.cluster, settings.file
    name = cluster.nodes[settings.index].name
    if told.lake != cluster.lake.hex():
        raise ConfigError(f"the backup is of another lake than {file.cluster}")
    if told.node != name:
        raise ConfigError(f"the backup is of node {told.node}, and {file.key} is the key of {name}")
    told.require_signed(backup.signature, _own_certificates(settings), str(backup.directory / MANIFEST))
    lists = file.cluster if file.cluster.exists() else backup.directory / MEMBERS
    catalog = _catalog(backup)
    try:
        require_goes_on(lists, cluster, Journal(catalog), catalog)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; the backup has its lists of members in {MEMBERS.split('/')[0]}"
        ) from error
    finally:
        catalog.close()


def _own_certificates(settings: Settings) -> tuple[str, ...]:
    """Of whose keys a backup may be signed: the node's by the list that is there.

    Without one, only of what lies beside `node.toml`: a list in the backup could name others as earlier ones.
    """
    if settings.file.cluster.exists():
        return settings.cluster.nodes[settings.index].trusted
    return tuple(one.certificate_pem for one in Identity.read_all(settings.file.key))


def _require_key(backup: Backup, file: NodeFile) -> None:
    own, told = fingerprint(read_storage_key(file.storage_key)), backup.manifest.storage_key
    if own != told:
        raise StorageError(
            f"the storage key {file.storage_key} has the fingerprint {own}, and the backup opens with "
            f"{told}: put that one in its place, perhaps the storage.key.before of then"
        )
    catalog = _catalog(backup)
    try:
        require_opens(file.storage_key, catalog, SealedFiles(SHARES, base=backup.directory, make=False))
    finally:
        catalog.close()


def _catalog(backup: Backup) -> Catalog:
    return Catalog(f"sqlite:///{CATALOG}", base=backup.directory, may_be_new=False, may_change=False)


def _require_nothing(file: NodeFile, database: Path, storage: SealedFiles) -> None:
    """Raise StorageError if something is where the backup is to come."""
    found = [
        str(one) for one in [*_beside(database), *_log_files(file)] if one.exists() and one.stat().st_size
    ]
    if storage.names():
        found.append(f"files of shares in {storage.root}")
    if found:
        raise StorageError(
            f"{found[0]} is there, and a restore overwrites nothing: move away what the node has (storage, "
            "catalog and audit log), or name other places in node.toml"
        )


def _beside(database: Path) -> list[Path]:
    """The file of a database, and what SQLite would take for changes of it."""
    return [database, *(database.with_name(f"{database.name}-{one}") for one in ("journal", "wal", "shm"))]


def _log_files(file: NodeFile) -> Iterator[Path]:
    yield file.directory / Path(AUDIT_LOG).name
    for end in ("log", "seal"):
        yield from file.directory.glob(f"audit-{'[0-9]' * 6}.{end}")


# -- doing it ------------------------------------------------------------------------------------------------


def _place(backup: Backup, settings: Settings, database: Path, storage: SealedFiles) -> None:
    file, mark = settings.file, mark_of(settings.file)
    if restoring(file) is None:
        temporary = mark.with_name(f"{mark.name}{TEMPORARY}")  # half a mark would name no backup
        write(temporary, [json.dumps({"manifest": backup.digest, "from": str(backup.directory)}).encode()])
        temporary.replace(mark)
        sync(mark.parent)
        try:  # a node that was being started has seen no mark, and sees it once it has made its catalog
            _require_nothing(file, database, storage)
        except StorageError:
            mark.unlink()
            raise
    for old in _log_files(file):  # of an attempt before
        old.unlink(missing_ok=True)
    for name in backup.manifest.files:
        kind, _, rest = name.partition("/")
        if kind == SHARES:
            _put_shares(backup, name, storage)
        elif rest and name.startswith("audit/"):
            _put(backup, name, file.directory / rest)
    _put_members(backup, file)
    staged = database.with_name(f"{database.name}{TEMPORARY}")
    database.parent.mkdir(parents=True, exist_ok=True)
    for one in _beside(staged):
        one.unlink(missing_ok=True)
    _put(backup, CATALOG, staged)
    catalog = Catalog(f"sqlite:///{staged}", base=file.directory, may_be_new=False, keep_copy=False)
    try:
        note_restored(catalog, Restored(backup.manifest.node, backup.manifest.made))
        journal = Journal(catalog)
        noted = journal.noted()
        head = _say_so(backup, settings, None if noted is None else Head(*noted))
        journal.note(head.lines, head.digest)  # peers have perhaps been told of more than the copy notes
    finally:
        catalog.close()
    sync(staged)
    staged.replace(database)
    sync(database.parent)
    mark.unlink()
    sync(mark.parent)


def _say_so(backup: Backup, settings: Settings, noted: Head | None) -> Head:
    """The next line of the audit log says that the node was restored, and from when; where it stands then."""
    former, keys = settings.certificates[:-1], MemberKeys(settings.identity)
    try:
        log = AuditLog(settings.file.directory / Path(AUDIT_LOG).name, keys, former=former, noted=noted)
    except ConsentError as error:
        raise StorageError(f"the audit log of the backup does not go on: {error}") from error
    log.append("restored", made=backup.manifest.made, lines=backup.manifest.head.lines, backup=backup.digest)
    log.settle()
    return log.head


def _put(backup: Backup, name: str, to: Path) -> None:
    with (backup.directory / name).open("rb") as file:
        _require_same(name, write(to, pieces(file)), backup)
    sync(to.parent)


def _put_shares(backup: Backup, name: str, storage: SealedFiles) -> None:
    """A file of shares appears under its name when it is whole, as when it was written."""
    final = storage.path(Path(name).name)
    temporary = f"{final}.{'0' * 8}{TEMPORARY}"
    with (backup.directory / name).open("rb") as file:
        written: Any = storage.raw(temporary, "wb")
        found = copy_to(written, pieces(file))
        storage.settle(written)
    _require_same(name, found, backup)
    storage.rename(temporary, final)


def _put_members(backup: Backup, file: NodeFile) -> None:
    """The lists of members, where there is none; else only those before it that are not there."""
    new, there = not file.cluster.exists(), backup.directory / MEMBERS
    for number in range(1, backup.cluster.number + 1):
        _put_if_absent(backup, kept_path(there, number), kept_path(file.cluster, number))
    if new:
        _put_if_absent(backup, next_path(there), next_path(file.cluster))
        _put_if_absent(backup, there, file.cluster)


def _put_if_absent(backup: Backup, source: Path, to: Path) -> None:
    name = f"members/{source.name}"
    if name in backup.manifest.files and not to.exists():
        temporary = to.with_name(f"{to.name}{TEMPORARY}")
        _put(backup, name, temporary)
        temporary.replace(to)


def _require_same(name: str, found: Content, backup: Backup) -> None:
    if found != backup.manifest.files[name]:
        raise StorageError(f"{backup.directory / name} has changed while it was read; look at that disk")
