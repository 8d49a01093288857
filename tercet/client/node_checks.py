"""Checking a lake from outside: one finding for each thing that can be wrong, as a sentence with its mend.

Every node is looked at by itself, so that one that is down does not hide what is wrong with another. What a
node knows better than anyone outside (its disk, its peers) it is asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.actors.hello import Hello, greet
from tercet.client.client import Client
from tercet.client.remote import dial, who_am_i
from tercet.errors import TercetError, TransportError
from tercet.members.config import ClusterFile
from tercet.transports import Identity, TlsTransport
from tercet.transports.identity import expiry
from tercet.transports.names import CLIENT, party_name

SOON = dt.timedelta(days=30)
LITTLE_DISK = 1 << 30
CLOCK_NOTE_S = 2.0


@attrs.frozen
class Finding:
    """What was found at a node, or in the files (`where`); `good` if nothing has to be done."""

    where: str
    good: bool
    what: str


def check_files(path: Path, key: Path) -> tuple[ClusterFile, Identity, list[Finding]]:
    """Look at the files and at when certificates expire. Raises ConfigError or TransportError."""
    cluster, identity = ClusterFile.read(path), Identity.read(key)
    caller = who_am_i(cluster, identity, path)
    found = [Finding(str(path), True, f"{len(cluster.nodes)} nodes; this is member {caller}")]
    now = dt.datetime.now(dt.UTC)
    for entry in cluster.entries:
        ends = expiry(entry.certificate)
        if ends < now:
            what = f"the certificate expired on {ends:%Y-%m-%d}; make a new one and pass its public part on"
            found.append(Finding(entry.name, False, what))
        elif ends < now + SOON:
            what = f"the certificate expires on {ends:%Y-%m-%d}; make a new one soon"
            found.append(Finding(entry.name, True, what))
    return cluster, identity, found


async def check_nodes(cluster: ClusterFile, identity: Identity) -> list[Finding]:
    """Look at every node: network, certificate, version, protocol, clock, peers, disk."""
    found: list[list[Finding]] = [[] for _ in cluster.nodes]

    async def look(index: int) -> None:
        found[index] = await _check_node(cluster, identity, index)

    async with trio.open_nursery() as nursery:
        for index in range(len(cluster.nodes)):
            nursery.start_soon(look, index)
    return [finding for findings in found for finding in findings]


async def _check_node(cluster: ClusterFile, identity: Identity, index: int) -> list[Finding]:
    where = f"{cluster.nodes[index].name} ({party_name(index)})"
    transport = TlsTransport(identity, cluster.pins(nodes_only=True))
    mine = Hello(CLIENT, cluster.protocol, len(cluster.nodes), cluster.digest())
    try:
        link = await dial(cluster, transport, index)
        async with link:
            theirs = await greet(link, mine, timeout_s=6.0)
            if theirs.role != party_name(index):
                raise TransportError(f"{theirs.role} answered at {cluster.nodes[index].address}")
            async with trio.open_nursery() as nursery:
                client = Client(cluster.protocol_class, [link], timeout_s=6.0)
                client.start(nursery)
                told = (await client.ask("status", []))[0]
                nursery.cancel_scope.cancel()
    except TercetError as error:
        return [Finding(where, False, str(error))]
    return list(_judge(where, cluster, theirs.clock - mine.clock, told))


def _judge(where: str, cluster: ClusterFile, skew: float, told: dict[str, Any]) -> Sequence[Finding]:
    found = []
    missing = [cluster.nodes[int(i)].name for i in told["missing_parties"]]
    if missing:
        what = (
            f"it has no link to {', '.join(missing)}: start them, and look at the network between the nodes"
        )
        found.append(Finding(where, False, what))
    if abs(skew) > CLOCK_NOTE_S:
        what = f"its clock is {skew:+.0f} s off from this machine's; synchronise both"
        found.append(Finding(where, False, what))
    free = int(told["free_bytes"])
    if free < LITTLE_DISK:
        what = f"its storage has {free / 1e6:.0f} MB left; make room, or drop tables"
        found.append(Finding(where, False, what))
    if not found:
        found.append(Finding(where, True, f"ready; Tercet {told['release']}, {told['runs']} runs under way"))
    return found
