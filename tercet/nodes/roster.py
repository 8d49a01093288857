"""The roster of a node: by which list of the lake's members it goes now, and which one follows.

What the node has gone by last is in its journal. So a node starts on no earlier list, whatever lies in its
directory, and on a later one only if that follows with the signatures that this takes. A list that takes the
place of another while the node runs is noted before anything goes by it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.errors import ConfigError, ConsentError, PlanError, TransportError
from tercet.members import succession
from tercet.members.config import ClusterFile, Member
from tercet.members.node_file import NodeFile
from tercet.storage.catalog import Catalog
from tercet.storage.journal import LAKE_FILE, Journal
from tercet.transports import Identity


@attrs.define(eq=False)
class Roster:
    """Who is who at a node now. What blocks is to be called in a thread."""

    file: NodeFile
    index: int
    cluster: ClusterFile
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when something has come that follows."""
    went_back: list[list[Any]] = attrs.field(factory=list)
    """Nodes that have gone back lately: from how many lines of their audit log to how many, and when."""
    _seen: list[tuple[int, int] | None] | None = None
    _coming: tuple[ClusterFile, bytes] | None = None
    """As a file, and as it travels."""

    @property
    def coming(self) -> ClusterFile | None:
        """What follows, once its time has come."""
        return None if self._coming is None else self._coming[0]

    @property
    def packed(self) -> bytes:
        """The file that follows; empty if none does."""
        return b"" if self._coming is None else self._coming[1]

    def expect(self, coming: ClusterFile | None) -> None:
        """Know what follows. Blocks: to write it takes long, and many may ask for it."""
        self._coming = None if coming is None else (coming, coming.to_text().encode())

    @property
    def announced(self) -> list[int | str]:
        """Number of the file that follows, when it takes effect, and its digest; empty if none does."""
        coming = self.coming
        return [] if coming is None else [coming.number, str(coming.takes_effect), coming.digest().hex()]

    def member(self, name: str) -> Member:
        """A member by name. Raises ConsentError if there is none."""
        found = self.cluster.member(name)
        if found is None:
            raise ConsentError(
                f"there is no member {name!r} (any more); cluster.toml lists "
                f"{', '.join(one.name for one in self.cluster.members) or 'none'}"
            )
        return found

    def take(self, packed: bytes) -> ClusterFile:
        """Let a file wait beside this node's, to follow it. Blocks; raises PlanError unless it does."""
        try:
            self.identity_of(ClusterFile.parse(packed, "the file"))
            before, after = succession.place(self.file.cluster, packed)
        except (ConfigError, TransportError) as error:
            raise PlanError(str(error)) from error
        if before.digest() == self.cluster.digest() != after.digest():
            self.expect(after)
        return after

    def identity_of(self, cluster: ClusterFile) -> Identity:
        """The key of this node that a file lists. Blocks; raises ConfigError if it is not here."""
        if len(cluster.nodes) != len(self.cluster.nodes):
            raise ConfigError(f"number {cluster.number} has other nodes than number {self.cluster.number}")
        certificate = cluster.nodes[self.index].certificate.strip()
        for identity in Identity.read_all(self.file.key):
            if identity.certificate_pem.strip() == certificate:
                return identity
        raise ConfigError(
            f"number {cluster.number} of cluster.toml lists a certificate of this node that is not in "
            f"{self.file.key}; put that file back, or run `tercet renew` and amend cluster.toml anew"
        )

    def successor(self) -> ClusterFile | None:
        """What has taken effect since, and follows what the node goes by. Blocks; raises ConfigError.

        Sees to it that what waits beside the node's file takes its place when that is due.
        """
        if self._seen == (seen := self._files()) and self.until_due(1.0):
            return None
        found = succession.current(self.file.cluster)
        if found.digest() == self.cluster.digest():
            self.expect(succession.waiting(self.file.cluster, found))
            self._seen = seen
            return None
        self.steps_to(found)
        return found

    def steps_to(self, after: ClusterFile) -> list[ClusterFile]:
        """What has followed this node's list, up to a later one. Blocks; raises ConfigError."""
        if after.number <= self.cluster.number:
            raise ConfigError(_not_earlier(after, self.cluster))
        return succession.steps(self.file.cluster, self.cluster, after)

    def _files(self) -> list[tuple[int, int] | None]:
        """By what a change of the files shows."""
        found: list[tuple[int, int] | None] = []
        for path in (self.file.cluster, succession.next_path(self.file.cluster)):
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_ino))
            except OSError:
                found.append(None)
        return found

    def until_due(self, most: float) -> float:
        """Seconds until what follows takes effect, at most so many."""
        coming = self.coming
        if coming is None or coming.takes_effect is None:
            return most
        left = (coming.takes_effect - dt.datetime.now(dt.UTC)).total_seconds()
        return min(most, max(0.0, left))


def note_start(path: Path, cluster: ClusterFile, journal: Journal, catalog: Catalog) -> None:
    """Note by which file a node goes that starts. Blocks; raises ConfigError as `require_goes_on` does."""
    require_goes_on(path, cluster, journal, catalog)
    journal.note_lake_file(cluster.to_text().encode())


def require_goes_on(
    path: Path, cluster: ClusterFile, journal: Journal, catalog: Catalog
) -> list[ClusterFile]:
    """The file that a node has gone by before, and those that have followed it, up to this one. Blocks.

    Raises ConfigError for a file that is not the one of before, nor follows that, be it by others in between,
    which are kept beside it, at a path. A node that keeps nothing yet may be given another first file, as
    when a lake is set up.
    """
    packed = journal.lake_file() if catalog.has(LAKE_FILE) else None
    if packed is not None:
        before = ClusterFile.parse(packed, "the file in the catalog")
        if before.number == cluster.number == 1 and not catalog.labels():
            before = cluster
        if cluster.number > before.number:
            return [before, *succession.steps(path, before, cluster)]
        if cluster.digest() != before.digest():
            raise ConfigError(_not_earlier(cluster, before))
    return [cluster]


def _not_earlier(cluster: ClusterFile, before: ClusterFile) -> str:
    """Why a node does not go by a file that does not come after the one that it has gone by."""
    if cluster.number < before.number:
        return (
            f"cluster.toml is number {cluster.number} of the lake's, and this node has gone by number "
            f"{before.number} before; get that one from another node"
        )
    return (
        f"cluster.toml is another number {cluster.number} than this node has gone by before; put "
        "that one back. Who is a member changes by `tercet amend`, with the signatures of most nodes"
    )
