"""Clusters: all nodes of a lake on one machine, in this process or as one operating-system process each.

Both speak through the same nodes, links and client; only who starts them differs. Node processes are told
everything on their standard input and say their address on standard output; when this process goes, their
input closes and they go too. With TLS, every node and the client get a fresh key and a certificate that the
others pin, which never touch the disk here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from tercet.actors.engine import Engine, MakeTransport, engine
from tercet.actors.line import plain_errors
from tercet.actors.muster import Muster
from tercet.actors.node import Node
from tercet.actors.party import Party
from tercet.actors.progress import Watch
from tercet.client.client import Asked, Client
from tercet.client.connection import close_link
from tercet.client.node_processes import STOP_S, NodeProcess, start, stop
from tercet.compiled import load_all
from tercet.errors import PeerLost, PlanError, TercetError, TransportError, from_wire
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tercet.plans.types import TILE_ROWS
from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.transports import Identity, MemoryTransport, Shaping, Transport, make_identity
from tercet.transports import registry as transports
from tercet.transports.forks import Home
from tercet.transports.names import CLIENT, party_name

MEMORY = "memory"
"""The transport whose ends have to be in one process."""
START_S = 60.0
STOP_WORKERS_S = 15.0
"""How long nodes may take to stop their workers."""


@attrs.frozen(kw_only=True)
class ClusterOptions:
    """How to start a cluster; see `tercet.local` for what each means to users."""

    protocol: str = "replicated"
    parties: int | None = None
    processes: bool = False
    transport: str | None = None
    latency_ms: float = 0.0
    bandwidth_mbit: float | None = None
    jitter_ms: float = 0.0
    timeout_s: float = 6.0
    threads: int = 1
    tile_rows: int = TILE_ROWS
    workers: int = 0
    engine: str | Callable[[int, MakeTransport | None], Engine] = "dask"
    """What starts the workers of a party; for tests, given how many and how to make links."""
    route: Callable[[int, int, str], str] | None = None
    """For tests: where party i finds party j, given j's own address; a proxy can stand in between."""

    def addresses(self, party: int, addresses: list[str]) -> list[str]:
        """Where a party finds all parties."""
        route = self.route
        return addresses if route is None else [route(party, j, one) for j, one in enumerate(addresses)]

    def resolve(self) -> tuple[type[Protocol], int, str]:
        """The protocol class, the number of parties and the transport, checked."""
        cls = registry.get(self.protocol)
        parties = self.parties if self.parties is not None else cls.sizes[0]
        if parties not in cls.sizes:
            raise PlanError(
                f"protocol {self.protocol!r} runs with {', '.join(map(str, cls.sizes))} parties, not "
                f"{parties}; leave parties= out or choose another protocol"
            )
        apart = self.processes or (self.workers > 0 and isinstance(self.engine, str))
        transport = self.transport or ("tls" if apart else "memory")
        transports.get(transport)
        if apart and transport == MEMORY:
            usable = [name for name in transports.names() if name != MEMORY]
            raise TransportError(
                f"transport {transport!r} is not usable here; choose one of {', '.join(usable)}"
            )
        for name, value, least in (
            ("latency_ms", self.latency_ms, 0.0),
            ("jitter_ms", self.jitter_ms, 0.0),
            ("timeout_s", self.timeout_s, 0.1),
            ("threads", self.threads, 1),
            ("workers", self.workers, 0),
            ("bandwidth_mbit", 1.0 if self.bandwidth_mbit is None else self.bandwidth_mbit, 1e-3),
            ("tile_rows", self.tile_rows, 64),
        ):
            if not value >= least:
                raise PlanError(f"{name}={value} is too small; it must be at least {least:g}")
        if self.jitter_ms > self.latency_ms:
            raise PlanError(
                f"jitter_ms={self.jitter_ms} is more than latency_ms={self.latency_ms}; a frame cannot "
                "arrive before it is sent"
            )
        if self.tile_rows % 64:
            raise PlanError(f"tile_rows={self.tile_rows} must be a multiple of 64")
        return cls, parties, transport

    def engine_of(self, make: MakeTransport | None = None) -> Engine:
        """What starts the workers of one party."""
        if isinstance(self.engine, str):
            return engine(self.engine).make(self.workers, {}, Path())
        return self.engine(self.workers, make)

    @property
    def shaping(self) -> Shaping:
        """What every link is slowed down to."""
        bandwidth = None if self.bandwidth_mbit is None else self.bandwidth_mbit * 1e6
        return Shaping(self.latency_ms / 1e3, bandwidth, self.jitter_ms / 1e3)


@attrs.define(eq=False)
class Cluster:
    """A running cluster: its client, and the process identifiers of nodes that are processes.

    `caller` is how the nodes know this client, where they tell clients apart.
    """

    client: Client
    protocol: str
    parties: int
    transport: str
    pids: list[int] = attrs.field(factory=list)
    caller: str = CLIENT

    async def run(self, plan: Plan, watch: Watch | None = None, asked: Asked | None = None) -> RunResult:
        """Run a plan; see `Client.run`."""
        return await self.client.run(plan, watch, asked=asked)

    async def fetch(self, job: bytes, watch: Watch | None = None) -> RunResult:
        """What a job gave; see `Client.fetch`."""
        return await self.client.fetch(job, watch)


@contextlib.asynccontextmanager
async def open_cluster(options: ClusterOptions) -> AsyncIterator[Cluster]:
    """Start all nodes, link them up, connect a client.

    Stop everything at the end, whatever state it is in.
    """
    cls, parties, transport = options.resolve()
    names = [party_name(index) for index in range(parties)]
    known = transports.get(transport).authenticated
    identities = {name: make_identity(name) for name in [*names, CLIENT]} if known else {}
    starter = _start_processes if options.processes else _start_tasks
    async with plain_errors(), trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        try:
            nodes = await stack.enter_async_context(starter(options, parties, transport, identities, nursery))
            dialler = nodes.dialler or transports.make(transport, identities, CLIENT)
            links = []
            for name, address in zip(names, nodes.addresses, strict=True):
                link = options.shaping.apply(await dialler.connect(address, peer=name))
                stack.push_async_callback(close_link, link)
                links.append(link)
            client = await Client.connect(
                cls, links, nursery=nursery, timeout_s=options.timeout_s, tile_rows=options.tile_rows
            )
            yield Cluster(client, options.protocol, parties, transport, nodes.pids)
        finally:
            nursery.cancel_scope.cancel()


@attrs.frozen(eq=False)
class _Nodes:
    addresses: list[str]
    pids: list[int]
    dialler: Transport | None = None


@contextlib.asynccontextmanager
async def _start_tasks(
    options: ClusterOptions,
    parties: int,
    transport: str,
    identities: dict[str, Identity],
    nursery: trio.Nursery,
) -> AsyncIterator[_Nodes]:
    """All nodes as tasks of this event loop."""
    cls = registry.get(options.protocol)
    await trio.to_thread.run_sync(load_all)
    shared = MemoryTransport() if transport == MEMORY else None
    nodes, addresses, musters = [], [], []
    for index in range(parties):
        party = Party(
            index, parties=parties, protocol=cls, timeout_s=options.timeout_s, threads=options.threads
        )
        own = shared or transports.make(transport, identities, party_name(index))
        node = Node(party, own, shaping=options.shaping, trusted_names=own.authenticated)
        address = party_name(index) if shared else "127.0.0.1:0"
        addresses.append(await node.listen(address, nursery=nursery))
        nodes.append(node)
        if options.workers:
            make = None if shared is None else shared_by_all(shared)
            musters.append(
                Muster(party, options.engine_of(make), transport, make=make, shaping=options.shaping)
            )
    async with trio.open_nursery() as starting:
        for index, node in enumerate(nodes):
            starting.start_soon(nursery.start, node.serve, options.addresses(index, addresses))
    async with trio.open_nursery() as starting:
        for muster in musters:
            starting.start_soon(nursery.start, muster.run)
    yield _Nodes(addresses, [], shared)


def shared_by_all(transport: Transport) -> MakeTransport:
    """Makes transports that all are this one."""
    return lambda _identity, _pins: transport


@contextlib.asynccontextmanager
async def _start_processes(
    options: ClusterOptions,
    parties: int,
    transport: str,
    identities: dict[str, Identity],
    nursery: trio.Nursery,
) -> AsyncIterator[_Nodes]:
    """Each node as a process of its own, on loopback."""
    _ = nursery
    home = Home()
    processes: list[NodeProcess] = []
    try:
        with trio.move_on_after(START_S) as scope:
            processes += await start(parties, options.protocol)
            configs = [_config(options, index, parties, transport, identities) for index in range(parties)]
            addresses = [told["address"] for told in await _converse(processes, configs)]
            routed = [options.addresses(index, addresses) for index in range(parties)]
            await _converse(processes, routed)
        if scope.cancelled_caught:
            raise TransportError(f"the nodes did not start within {START_S:g} s; is this machine overloaded?")
        yield _Nodes(addresses, [process.pid for process in processes])
    finally:
        if home.here:  # a fork's nodes are its parent's
            with trio.CancelScope(shield=True):
                await stop(processes, STOP_WORKERS_S if options.workers else STOP_S)


async def _converse(processes: list[NodeProcess], messages: list[Any]) -> list[Any]:
    """Say something to every node process and hear its answer. Raises what the first one fails with."""
    answers: list[Any] = [None] * len(processes)
    failures: list[TercetError] = []

    async def converse(index: int) -> None:
        try:
            await _tell(processes[index], messages[index], index)
            answers[index] = await _hear(processes[index], index)
        except TercetError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index in range(len(processes)):
            nursery.start_soon(converse, index)
    if failures:
        raise failures[0]
    return answers


def _config(
    options: ClusterOptions, index: int, parties: int, transport: str, identities: dict[str, Identity]
) -> dict[str, Any]:
    config = {
        "index": index,
        "parties": parties,
        "protocol": options.protocol,
        "timeout_s": options.timeout_s,
        "threads": options.threads,
        "transport": transport,
        "shaping": attrs.asdict(options.shaping),
        "workers": options.workers,
        "engine": options.engine,
    }
    if identities:
        own = party_name(index)
        config["identity"] = attrs.asdict(identities[own])
        config["pins"] = {name: one.certificate_pem for name, one in identities.items() if name != own}
    return config


async def _tell(process: NodeProcess, message: Any, index: int) -> None:
    try:
        await process.stdin.send_all(json.dumps(message).encode() + b"\n")
    except trio.BrokenResourceError as error:
        raise PeerLost(
            f"party {index} ended while it started; its messages are above", peer=party_name(index)
        ) from error


async def _hear(process: NodeProcess, index: int) -> Any:
    line = b""
    while not line.endswith(b"\n"):
        some = await process.stdout.receive_some(1 << 12)
        if not some:
            raise PeerLost(
                f"party {index} ended while it started; its messages are above", peer=party_name(index)
            )
        line += some
    try:
        message = json.loads(line)
    except ValueError as error:
        raise TransportError(
            f"{party_name(index)} said {line!r:.80} while it started; something other than a node "
            "prints there"
        ) from error
    if "error" in message:
        raise from_wire(message["error"])
    return message
