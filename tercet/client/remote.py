"""Reaching a lake whose nodes run elsewhere: a member's key, the lake's file, and a link to every node."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import trio

from tercet.actors.jobs import MOST_PATIENCE_S
from tercet.actors.line import plain_errors
from tercet.actors.node import CONNECT_S
from tercet.client.client import Client
from tercet.client.cluster import Cluster, close_link
from tercet.client.member_api import Desk
from tercet.errors import ConfigError, PeerLost
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.transports import Identity, Link, TlsTransport
from tercet.transports.names import is_party, party_name

PATIENCE_S = 120.0
"""How long a plan that was interrupted waits for lost nodes, unless told otherwise."""


@attrs.define(eq=False, kw_only=True)
class Remote(Cluster):
    """A cluster whose nodes run elsewhere, and the member's desk."""

    desk: Desk


def who_am_i(cluster: ClusterFile, identity: Identity, where: Path) -> str:
    """The member to whom an identity belongs. Raises ConfigError."""
    name = cluster.name_of(identity.certificate_pem)
    if name is None or is_party(name):
        raise ConfigError(
            f"{where} lists no member with the certificate of {identity.name}; merge its public part into "
            "it, and give the file to all nodes"
        )
    return name


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


@contextlib.asynccontextmanager
async def open_remote(
    path: str | Path, identity: str | Path, *, timeout_s: float = 6.0, patience_s: float = PATIENCE_S
) -> AsyncIterator[Remote]:
    """Connect to all nodes of a lake as a member, and hang up at the end.

    A plan that is interrupted, since a node was lost, waits for up to `patience_s` and goes on.

    Raises ConfigError for files that do not fit, PeerLost or TransportError for nodes that do not answer.
    """
    cluster, own = ClusterFile.read(Path(path)), Identity.read(Path(identity))
    caller = who_am_i(cluster, own, Path(path))
    transport = TlsTransport(own, cluster.pins(nodes_only=True))
    async with plain_errors(), trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        try:

            async def link_up(index: int) -> Link:
                link = await dial(cluster, transport, index)
                stack.push_async_callback(close_link, link)
                return link

            links = [await link_up(index) for index in range(len(cluster.nodes))]
            client = await Client.connect(
                cluster.protocol_class, links, nursery=nursery, timeout_s=timeout_s, lake=cluster.digest()
            )

            one_at_a_time = trio.Lock()

            async def mend() -> None:
                async with one_at_a_time:
                    for index in client.lost:
                        await client.relink(index, await link_up(index))

            client.mend, client.patience_s = mend, min(patience_s, MOST_PATIENCE_S)
            yield Remote(
                client=client,
                protocol=cluster.protocol,
                parties=len(links),
                transport="tls",
                caller=caller,
                desk=Desk(client, cluster, MemberKeys(attrs.evolve(own, name=caller))),
            )
        finally:
            nursery.cancel_scope.cancel()
