"""What a portal has while it runs: its member, the link to the lake, and what its pages leave in between.

The lake is opened when the first page needs it, and again when it was lost as a whole; a node that comes back
is linked up with by the lake itself. So the portal starts while nodes are down, and says which.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import attrs
import trio

from tercet.client.lake import AsyncLake, open_lake
from tercet.client.reach import who_am_i
from tercet.errors import TercetError
from tercet.members.config import ClusterFile
from tercet.members.succession import current
from tercet.portal.audit_book import AuditBook
from tercet.portal.drafts import Drafts
from tercet.portal.guard import Sessions
from tercet.portal.mishaps import unforeseen
from tercet.portal.node_watch import NodeWatch
from tercet.portal.study_work import StudyWork
from tercet.transports import Identity

logger = logging.getLogger(__name__)


class Connection:
    """The lake, opened when it is first asked for, and held in a task of the portal's."""

    def __init__(
        self, opened: Callable[[], AbstractAsyncContextManager[AsyncLake]], nursery: trio.Nursery
    ) -> None:
        self._opened = opened
        self._nursery = nursery
        self._lake: AsyncLake | None = None
        self._failure: TercetError | None = None
        self._one_at_a_time = trio.Lock()

    async def lake(self) -> AsyncLake:
        """The lake. Raises what keeps it from being opened, as TercetError."""
        async with self._one_at_a_time:
            if self._lake is None:
                await self._nursery.start(self._hold)
            if self._lake is None:
                raise self._failure or TercetError("the lake was closed; look at the portal's terminal")
            return self._lake

    async def _hold(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with self._opened() as self._lake:
                task_status.started()
                await trio.sleep_forever()
        except Exception as error:  # noqa: BLE001 - a portal goes on
            told = error if isinstance(error, TercetError) else TercetError(unforeseen("the lake", error))
            if self._lake is None:
                self._failure = told
                task_status.started()
            else:
                logger.warning("the lake was lost, and will be opened again: %s", told)
        finally:
            self._lake = None


@attrs.define(eq=False)
class Portal:
    """One member's portal."""

    cluster_path: Path
    identity_path: Path
    cluster: ClusterFile
    identity: Identity
    name: str
    """Of the member."""
    roles: tuple[str, ...]
    sessions: Sessions
    connection: Connection
    drafts: Drafts
    work: StudyWork
    book: AuditBook
    nodes: NodeWatch
    findings: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    """What may not be meant about keys of tables that were uploaded here, by the handle of the keys, which is
    another one after the next upload. For their owner alone, who is this member."""
    changed: str = ""
    """What pages say where the lake's file is not the one any more that this portal has begun with."""

    @classmethod
    def make(
        cls,
        cluster_path: Path,
        identity_path: Path,
        *,
        sessions: Sessions,
        scratch: Path,
        timeout_s: float,
        nursery: trio.Nursery,
    ) -> Portal:
        """Of the member whose key is given; `scratch` is a folder for files until they are uploaded.

        Raises ConfigError for files that do not fit together.
        """
        cluster = current(cluster_path)
        identity = who_am_i(cluster, identity_path, cluster_path).identity
        name = identity.name
        member = cluster.member(name)
        opened = partial(open_lake, cluster_path, identity=identity_path, timeout_s=timeout_s, progress=False)
        connection = Connection(opened, nursery)
        return cls(
            cluster_path,
            identity_path,
            cluster,
            identity,
            name,
            () if member is None else member.roles,
            sessions,
            connection,
            Drafts(scratch),
            StudyWork(identity_path, connection.lake, nursery),
            AuditBook(cluster, identity_path, connection.lake, nursery),
            NodeWatch(cluster, identity, nursery, timeout_s=timeout_s),
        )

    def look_at_file(self) -> None:
        """Note whether the lake's file is still the same. Blocks."""
        try:
            now = current(self.cluster_path)
        except TercetError as error:
            self.changed = f"The lake's file cannot be read any more: {error}"
            return
        before = self.cluster
        same = (now.number, now.digest()) == (before.number, before.digest())
        told = (
            f"{self.cluster_path.name} is another one (number {now.number}) than this portal has begun "
            f"with (number {before.number}): members or nodes have changed. Stop it, and start it again."
        )
        self.changed = "" if same else told

    def at(self, path: str, *names: str) -> str:
        """The path of a page, below which `names`, that anybody may have chosen, are quoted."""
        return f"/{self.sessions.place}{path}" + "".join(f"/{quote(name, safe='')}" for name in names)

    def has(self, *roles: str) -> bool:
        """Whether the member has one of these roles."""
        return not set(roles).isdisjoint(self.roles)

    async def lake(self) -> AsyncLake:
        """The lake. Raises TercetError that says which node cannot be reached, or why not."""
        return await self.connection.lake()
