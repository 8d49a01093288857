"""What a start of a node would refuse, found without starting it: `tercet node --check`.

Nothing is changed, so the node may run meanwhile, under this release or the one before. Each thing is looked
at by itself, as far as what it needs is there, so that one that is wrong does not hide another.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tercet.errors import StorageError, TercetError
from tercet.members.audit import log_lines
from tercet.members.audit_lines import check_lines, require
from tercet.members.node_file import NodeFile
from tercet.members.seals import Head
from tercet.nodes.disks import places
from tercet.nodes.program import Settings, engine_of
from tercet.nodes.roster import require_goes_on
from tercet.nodes.running import in_use
from tercet.storage.catalog import Catalog
from tercet.storage.data_key import require_opens
from tercet.storage.journal import Journal
from tercet.storage.sealed import SealedFiles
from tercet.transports.identity import expiry

SOON = dt.timedelta(days=30)
LITTLE_DISK = 1 << 30


@attrs.frozen
class Checked:
    """What was looked at, whether a node can start with it, and what is to be known of it."""

    where: str
    good: bool
    what: str


def check_node(path: Path) -> list[Checked]:
    """Look at everything that a start of the node with this `node.toml` needs. Blocks."""
    return list(_check(path))


def _check(path: Path) -> Iterator[Checked]:
    try:
        settings = Settings.read(path, may_change=False)
    except TercetError as error:
        yield Checked(str(path), False, str(error))
        return
    file, cluster = settings.file, settings.cluster
    name = cluster.nodes[settings.index].name
    yield Checked(str(path), True, f"node {name}, by number {cluster.number} of {file.cluster.name}")
    yield _certificate(settings)
    yield _tried(f"TLS with {file.key.name}", _tls, settings)
    for address in (file.listen, file.metrics):
        if address:
            yield _tried(address, _bind, address)
    if file.workers:
        yield _tried(f"engine {file.engine!r}", _engine, file)
    for name, directory in places(file).items():
        yield _tried(f"{name} in {directory}", _writable, directory)
    yield from _stored(settings)


def _engine(file: NodeFile) -> str:
    engine_of(file)
    return f"{file.workers} workers; whether they are there, `tercet check` says once the node runs"


def _tried(where: str, look: Callable[..., str], *args: Any) -> Checked:
    try:
        return Checked(where, True, look(*args))
    except (TercetError, OSError) as error:
        return Checked(where, False, str(error))


def _certificate(settings: Settings) -> Checked:
    ends, now = expiry(settings.identity.certificate_pem), dt.datetime.now(dt.UTC)
    mend = "" if ends > now + SOON else "; `tercet renew` makes the next"
    return Checked(
        settings.file.key.name, ends > now, f"the certificate is valid until {ends:%Y-%m-%d}{mend}"
    )


def _tls(settings: Settings) -> str:
    """Whether key and certificate belong together, and OpenSSL takes them. Raises TransportError."""
    settings.transport()
    return "can be used"


def _bind(address: str) -> str:
    """Whether the node can listen there. Raises TransportError."""
    return "is in use, as it is while the node runs" if in_use(address) else "can be listened at"


def _writable(directory: Path) -> str:
    """Whether the node can write there, and how much. Raises StorageError."""
    while not directory.exists():  # a start makes it
        directory = directory.parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StorageError("cannot be written to by this user")
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    if free < LITTLE_DISK:
        raise StorageError(f"has {free / 1e6:.0f} MB left; make room")
    return f"has {free / 1e9:.1f} GB left"


def _stored(settings: Settings) -> Iterator[Checked]:
    """The storage, the catalog, and what they know of the key, the list of members and the audit log."""
    file = settings.file
    try:
        files = SealedFiles(file.storage, base=file.directory, make=False)
        names = files.names()
        catalog = Catalog(file.catalog, base=file.directory, may_be_new=not names, may_change=False)
    except TercetError as error:
        yield Checked("storage", False, str(error))
        return
    try:
        yield Checked("storage", True, f"has {len(names)} files; the catalog {_says(catalog)}")
        yield _tried(file.storage_key.name, _key, file, catalog, files)
        if not catalog.new:
            yield _tried(file.cluster.name, _list, settings, catalog)
            yield from _left(settings, catalog)
        yield _tried("audit.log", _log, settings, catalog)
    finally:
        catalog.close()


def _says(catalog: Catalog) -> str:
    return "is a new one" if catalog.new else f"has {len(catalog.labels())} tables, models and numbers"


def _key(file: NodeFile, catalog: Catalog, files: SealedFiles) -> str:
    require_opens(file.storage_key, catalog, files)
    return "is the key of what is stored"


def _list(settings: Settings, catalog: Catalog) -> str:
    require_goes_on(settings.file.cluster, settings.cluster, Journal(catalog), catalog)
    return f"number {settings.cluster.number} follows what the node has gone by"


def _left(settings: Settings, catalog: Catalog) -> Iterator[Checked]:
    """What is stored of members who are gone: nobody can drop it."""
    try:
        labels = catalog.labels()
    except TercetError as error:
        yield Checked("storage", False, str(error))
        return
    for owner in settings.cluster.removed:
        count = sum(one.owner == owner for one in labels)
        if count:
            what = f"{count} tables and the like of {owner}, no member any more, stay until their time is up"
            yield Checked("storage", True, f"{what}, if they have one")


def _log(settings: Settings, catalog: Catalog) -> str:
    """Verify all of the audit log. Raises ConsentError."""
    path = settings.file.directory / "audit.log"
    noted = None if catalog.new else Journal(catalog).noted()
    known = Head() if noted is None else Head(*noted)
    head = check_lines(log_lines(path), settings.certificates, where=str(path), known=known)
    if head.lines < known.lines:
        require(head, known, where=str(path))
    return f"{head.lines} lines, whole; head {head.digest}"
