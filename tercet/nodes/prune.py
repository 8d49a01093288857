"""Freeing what a node need not keep, and does not let go of by itself: `tercet prune`.

A node forgets by itself what has expired, checkpoints and approvals of runs with which nobody goes on,
studies that are over, and values that nobody uses. This is about the rest, which somebody has to decide on:
results and jobs that nobody fetches, tables of members who are gone, copies of the catalog from before
updates, and segments of the audit log that lie in an archive.

The node must not run, since it knows in memory what is removed here, and cannot be started meanwhile (see
`running`). First a line of the audit log says what goes, then the catalog lets go of it in one transaction,
then files go; so if it is interrupted, nothing is named that is not there, and the next start or another
`prune` removes what is left. Only files that the node's own key opens are removed. Nothing of the audit log
is removed: a segment becomes a link to the same file in the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import attrs

from tercet.errors import ConfigError, StorageError
from tercet.members.audit import AuditLog
from tercet.members.keys import MemberKeys
from tercet.members.node_file import NodeFile
from tercet.members.seals import Head, Seal, segment_path, sync
from tercet.nodes.manifest import AUDIT_LOG, pieces
from tercet.nodes.program import Settings
from tercet.nodes.running import stopped
from tercet.storage.catalog import Catalog
from tercet.storage.data_key import find_data_key, require_opens
from tercet.storage.journal import Journal
from tercet.storage.prunable import Amount, Prunable
from tercet.storage.sealed import TEMPORARY, SealedFiles
from tercet.storage.share_files import file_name
from tercet.storage.sqlite_files import vacuum

DAY_S = 86400.0
LEAST_DAYS = 7.0
"""What is younger is not pruned: runs go on for so long."""
_COPY = re.compile(r"\.version-[0-9]{4}")
_STAYED = "files of these tables and models stay, since they are damaged or another node's: look at them"


@attrs.frozen
class Pruned:
    """What can be freed, or was: how many of what, and bytes."""

    what: str
    amount: Amount


def prune(
    path: Path, *, days: float, gone: bool = False, archive: Path | None = None, really: bool = False
) -> list[Pruned]:
    """Look what can be freed of the node with this `node.toml`, and free it if `really`. Blocks.

    Results, jobs and copies are those of more than so many `days` ago, tables and models those of members who
    are `gone`, segments of the audit log those that an `archive` has, byte for byte. Raises TercetError or
    OSError.
    """
    if days < LEAST_DAYS:
        raise ConfigError(
            f"what is younger than {LEAST_DAYS:g} days is not pruned; give --days {LEAST_DAYS:g}"
        )
    file = NodeFile.read(path)
    with stopped(file, before="it is pruned") if really else contextlib.nullcontext():
        return _prune(Settings.read(path, may_change=False), days, gone, archive, really)


def _prune(settings: Settings, days: float, gone: bool, archive: Path | None, really: bool) -> list[Pruned]:
    file = settings.file
    files = SealedFiles(file.storage, base=file.directory, make=False)
    catalog = Catalog(file.catalog, base=file.directory, may_be_new=False, may_change=really)
    try:
        require_opens(file.storage_key, catalog, files)
        before = time.time() - days * DAY_S
        removed = settings.cluster.removed if gone else ()
        rows = Prunable(catalog, before, removed)
        found = [
            Pruned(f"results that were not fetched for {days:g} days", rows.results()),
            Pruned(f"jobs that were asked for {days:g} days ago, and have ended", rows.jobs()),
            Pruned("tables and models of members who are gone", rows.kept()),
        ]
        copies = list(_copies(file.directory, file.catalog, before))
        found.append(Pruned("copies of the catalog from before updates", _sizes(copies)))
        segments = {} if archive is None else dict(_archived(settings, archive.absolute()))
        found.append(Pruned("segments of the audit log that the archive has", _sizes(segments)))
        if really and any(one.amount.count for one in found):
            files.key = find_data_key(file.storage_key, catalog, files)
            _say_so(settings, catalog, found)
            strange = files.remove_own(files.with_parts(map(file_name, rows.remove())))
            if strange:
                size = sum(map(files.size, strange))
                found.append(Pruned(f"{_STAYED}, such as {strange[0]}", Amount(len(strange), size)))
            for copy in copies:
                copy.unlink()
            for segment, there in segments.items():
                _link(segment, there)
    finally:
        catalog.close()
    if really:
        vacuum(file.catalog, file.directory)
    return found


def _sizes(paths: Collection[Path]) -> Amount:
    return Amount(len(paths), sum(path.stat().st_size for path in paths))


def _copies(directory: Path, url: str, before: float) -> Iterator[Path]:
    """Copies of the catalog that bringing it forward has left."""
    scheme, _, rest = url.partition(":///")
    if scheme != "sqlite":
        return
    database = directory / rest
    for path in sorted(database.parent.glob(f"{database.name}.version-*")):
        known = _COPY.fullmatch(path.name.removeprefix(database.name))
        if known and path.is_file() and not path.is_symlink() and path.stat().st_mtime < before:
            yield path


def _archived(settings: Settings, archive: Path) -> Iterator[tuple[Path, Path]]:
    """Sealed segments that lie here, and where the same is in the archive.

    Raises StorageError for one that differs.
    """
    log = settings.file.directory / Path(AUDIT_LOG).name
    for number in itertools.count(1):
        segment = segment_path(log, number)
        if not segment.exists():
            return
        sealed = Seal.read(log, number, settings.certificates)
        there = archive / segment.name
        if segment.is_symlink() or sealed is None or not there.exists():
            continue
        if there.is_symlink() or there.samefile(segment) or not there.is_file():
            raise StorageError(f"{there} is no copy of its own of {segment}; copy that one to the archive")
        if _digest(there) != _digest(segment):
            raise StorageError(f"{there} is not the same as {segment}; copy that one to the archive again")
        yield segment, there


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in pieces(file):
            digest.update(piece)
    return digest.digest()


def _link(segment: Path, there: Path) -> None:
    """Let a link to the archive take the place of a segment, in one step."""
    for path in (there, there.parent):
        sync(path)
    temporary = segment.with_name(f"{segment.name}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(there)
    temporary.replace(segment)
    sync(segment.parent)


def _say_so(settings: Settings, catalog: Catalog, found: list[Pruned]) -> None:
    """The next line of the audit log says what is pruned."""
    journal = Journal(catalog)
    noted = journal.noted()
    log = AuditLog(
        settings.file.directory / Path(AUDIT_LOG).name,
        MemberKeys(settings.identity),
        former=settings.certificates[:-1],
        noted=None if noted is None else Head(*noted),
    )
    told = {one.what: one.amount.count for one in found if one.amount.count}
    log.append("pruned", removed=told)
    log.settle()
    journal.note(log.head.lines, log.head.digest)
