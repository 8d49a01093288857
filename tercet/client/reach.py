"""Reaching nodes that run elsewhere as a member: her key, the lake's file, a link to each node, her desk.

Who reads, signs and lists needs no more than that, so nothing is imported here that computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import trio

from tercet.actors.jobs import MOST_PATIENCE_S
from tercet.actors.line import CONNECT_S, plain_errors
from tercet.client.client import Client
from tercet.client.connection import close_link
from tercet.client.member_api import Desk
from tercet.errors import ConfigError, PeerLost
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.succession import current
from tercet.transports import Identity, Link, TlsTransport
from tercet.transports.names import is_party, party_name

PATIENCE_S = 120.0
"""How long a plan that was interrupted waits for lost nodes, unless told otherwise."""


def who_am_i(cluster: ClusterFile, key: Path, where: Path) -> MemberKeys:
    """The keys of the member to whom a file of keys belongs. Raises ConfigError or TransportError."""
    identities = Identity.read_all(key)
    found = cluster.of_mine(identities)
    if found is None or is_party(found[0]):
        raise ConfigError(
            f"{where} lists no member with the certificate of {identities[0].name}; merge its public part "
            "into it, and give the file to all nodes"
        )
    name, own = found
    place = identities.index(own)
    return MemberKeys(attrs.evolve(own, name=name), identities[place + 1 :], identities[:place])


async def dial(cluster: ClusterFile, transport: TlsTransport, index: int) -> Link:
    """A link to a node. Raises PeerLost or TransportError, with the node's name for people."""
    entry, peer = cluster.nodes[index], party_name(index)
    with trio.move_on_after(CONNECT_S):
        return await transport.connect(entry.address, peer=peer)
    raise PeerLost(
        f"node {entry.name} ({peer}) did not answer at {entry.address} within {CONNECT_S:g} s; is it "
        "running, and is its port open?",
        peer=peer,
    )


@attrs.define(eq=False)
class _Reach:
    """How a member reaches the nodes: by the lake's file as it is now, and with the key that this lists."""

    path: Path
    identity: Path
    cluster: ClusterFile = attrs.field(init=False)
    keys: MemberKeys = attrs.field(init=False)
    transport: TlsTransport = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Read the files, of which one may have followed another. Raises ConfigError or TransportError."""
        self.cluster = current(self.path)
        self.keys = who_am_i(self.cluster, self.identity, self.path)
        self.transport = TlsTransport(self.keys.identity, self.cluster.pins(nodes_only=True))

    async def dial(self, index: int) -> Link:
        """A link to a node."""
        return await dial(self.cluster, self.transport, index)


@contextlib.asynccontextmanager
async def open_desk(
    path: str | Path, identity: str | Path, *, timeout_s: float = 6.0, patience_s: float = PATIENCE_S
) -> AsyncIterator[Desk]:
    """The desk of a member, linked to all nodes of a lake; hang up at the end.

    A plan that is interrupted, since a node was lost, waits for up to `patience_s` and goes on. Where a link
    is made anew, the lake's file is read again: another one may have taken effect.

    Raises ConfigError for files that do not fit, PeerLost or TransportError for nodes that do not answer.
    """
    reach = _Reach(Path(path), Path(identity))
    async with plain_errors(), trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        try:

            async def link_up(index: int) -> Link:
                link = await reach.dial(index)
                stack.push_async_callback(close_link, link)
                return link

            cluster = reach.cluster
            links = [await link_up(index) for index in range(len(cluster.nodes))]
            client = await Client.connect(
                cluster.protocol_class,
                links,
                nursery=nursery,
                timeout_s=timeout_s,
                lake=cluster.digest(),
                number=cluster.number,
            )
            desk = Desk(client, cluster, reach.keys)
            one_at_a_time = trio.Lock()

            async def mend() -> None:
                async with one_at_a_time:
                    if client.lost:
                        reach.look()
                        client.goes_by = reach.cluster.digest(), reach.cluster.number
                        desk.go_by(reach.cluster, reach.keys)
                    for index in client.lost:
                        await client.relink(index, await link_up(index))

            client.mend, client.patience_s = mend, min(patience_s, MOST_PATIENCE_S)
            yield desk
        finally:
            nursery.cancel_scope.cancel()
