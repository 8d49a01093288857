"""The lake: how scripts and notebooks reach the nodes.

`local()` starts all nodes on this machine and gives a synchronous `Lake`, `connect()` one of nodes that run
elsewhere; trio runs beneath it, in a thread of its own, so it works in a script and in a notebook.
`open_local()` and `open_lake()` are the same inside a trio program: the same names, to be awaited. Either
lake drives the same generators of plans; they differ only in who waits.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
import trio

from tercet.actors import Builder, Disclosure, Form, Plan, Type
from tercet.actors.client import RunResult
from tercet.actors.cluster import Cluster, ClusterOptions, open_cluster
from tercet.actors.plan import TILE_ROWS
from tercet.actors.tracing import write_chrome_trace
from tercet.errors import SchemaError, TercetError
from tercet.ml.ingest import Declared, EncodedTable, encode
from tercet.ml.schema import INTEGER_BITS
from tercet.ml.table import UNIT_BITS, WIDE_SPREAD, Column, Part, Steps, Table
from tercet.nodes.remote import open_remote

T = TypeVar("T")

ROUNDED_SPREAD = 1 + 2.0**-8
"""Rounding may enlarge a spread that is just within its bound by less than this factor."""


@attrs.frozen
class Phase:
    """What one call cost: network rounds on the critical path, payload bytes sent by each party, seconds."""

    name: str
    plan: str
    rounds: int
    bytes_sent: tuple[int, ...]
    client_bytes: int
    seconds: float

    @property
    def total_bytes(self) -> int:
        """Bytes between parties and with the client."""
        return sum(self.bytes_sent) + self.client_bytes


class DisclosureLog(list[Disclosure]):
    """Everything that was opened so far, to whom, in order."""

    def __str__(self) -> str:
        return "\n".join(f"- {item}" for item in self) if self else "nothing"


class _Base:
    """What both lakes share: names, records, and how an upload is encoded."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.disclosed = DisclosureLog()
        self.phases: list[Phase] = []
        self.on_phase: Callable[[str, str], None] | None = None
        """Called with the phase and the plan's name before each plan runs: for progress displays."""

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return self.cluster.protocol

    def builder(self, name: str) -> Builder:
        """A builder for a plan that this lake can run."""
        return Builder(name, tile_rows=self.cluster.client.tile_rows)

    def handle(self, hint: str) -> str:
        """A new name for a value at the nodes."""
        return f"{hint}#{secrets.token_hex(8)}"

    async def _drive(self, steps: Steps[T], phase: str) -> T:
        """Run the plans that a computation yields.

        Plans are made in a worker thread: large ones take a while.
        """
        made = await trio.to_thread.run_sync(_advance, steps, None)
        while isinstance(made, Plan):
            if self.on_phase is not None:
                self.on_phase(phase, made.name)
            result: RunResult | TercetError
            try:
                result = await self._run(made, phase)
            except TercetError as error:
                result = error
            made = await trio.to_thread.run_sync(_advance, steps, result)
        value: T = made.value
        return value

    async def _run(self, plan: Plan, phase: str) -> RunResult:
        result = await self.cluster.client.run(plan)
        self.disclosed.extend(result.disclosed)
        self.phases.append(
            Phase(phase, plan.name, result.rounds, result.bytes_sent, result.client_bytes, result.seconds)
        )
        return result

    async def _upload(self, encoded: EncodedTable, table: Table) -> Table:
        began, moved = time.perf_counter(), self.cluster.client.bytes_moved
        if self.on_phase is not None:
            self.on_phase("upload", f"upload {table.name}")
        client = self.cluster.client
        if table.keys is not None:
            await client.put(table.keys.handle, table.keys.type, encoded.keys)
        for part in table.parts:
            await client.put(part.handle, part.type, encoded.values.view(np.uint64))
        moved = client.bytes_moved - moved
        self.phases.append(Phase("upload", f"upload {table.name}", 0, (), moved, time.perf_counter() - began))
        return table

    def _describe(self, encoded: EncodedTable, lake: Any) -> Table:
        """The handle of a table about to be uploaded."""
        schema = encoded.schema
        limit = 2.0**INTEGER_BITS
        count = len(schema.features)
        part = Part(self.handle(schema.name), Type(Form.RING, (count, schema.rows), 0, limit))
        keys = Part(self.handle(schema.name), Type(Form.WORDS, (2, schema.rows)))
        return Table(
            lake=lake,
            name=schema.name,
            columns=tuple(Column(c, schema.owner, 0, place) for place, c in enumerate(schema.features)),
            rows=schema.rows,
            parts=(part,) if count else (),
            keys=keys,
            key_names=tuple(schema.key_names),
            key_types=tuple(str(c.key_type) for c in schema.columns if c.kind == "key"),
            rows_of_sources=schema.rows,
        )


@attrs.frozen(eq=False)
class _Ended:
    """What a computation returned."""

    value: Any


def _advance(steps: Steps[Any], result: RunResult | TercetError | None) -> Plan | _Ended:
    """The next plan of a computation, or what it returned."""
    try:
        if isinstance(result, TercetError):
            return steps.throw(result)
        return next(steps) if result is None else steps.send(result)
    except StopIteration as stop:
        return _Ended(stop.value)


def encode_for_upload(source: Any, **options: Any) -> EncodedTable:
    """Encode an owner's table; integer columns of zeros and ones become booleans, spreads are checked.

    Raises SchemaError as `tercet.ml.ingest.encode` does.
    """
    encoded = encode(source, **options)
    types = dict(options.get("types") or {})
    binary = [
        column.name
        for column, values in zip(encoded.schema.features, encoded.values, strict=True)
        if column.kind == "integer"
        and column.name not in types
        and values.size
        and _is_binary(values, column.scale)
    ]
    if binary:
        encoded = encode(source, **{**options, "types": {**types, **dict.fromkeys(binary, "boolean")}})
    for column, values in zip(encoded.schema.features, encoded.values, strict=True):
        widest = WIDE_SPREAD if column.kind == "integer" else 1.0
        if values.size and float(np.std(values)) > widest * 2.0**UNIT_BITS * ROUNDED_SPREAD:
            raise SchemaError(
                f"table {encoded.schema.name!r}, column {column.name!r}: at scale {column.scale} its spread "
                f"does not fit the fixed-point range; give a smaller scale with scales={{{column.name!r}: "
                f"...}}, or declare it real with types={{{column.name!r}: 'real'}}"
            )
    return encoded


def _is_binary(values: np.ndarray[Any, np.dtype[np.int64]], scale: int) -> bool:
    return bool(np.all((values == 0) | (values == 1 << scale)))


class AsyncLake(_Base):
    """A lake for trio programs: what computes is awaited.

    Also on tables and models, as in `await table.join(...)`.
    """

    async def upload(
        self,
        source: Any,
        *,
        name: str,
        key: str | Sequence[str],
        owner: str,
        columns: Sequence[str] | None = None,
        scales: Mapping[str, int] | None = None,
        types: Mapping[str, Declared] | None = None,
    ) -> Table:
        """As `Lake.upload`."""
        encoded = await trio.to_thread.run_sync(
            lambda: encode_for_upload(
                source, name=name, key=key, owner=owner, columns=columns, scales=scales, types=types
            )
        )
        return await self._upload(encoded, self._describe(encoded, self))

    def perform(self, steps: Steps[Any], phase: str) -> Any:
        """An awaitable that runs the plans of `steps` and gives their result."""
        return self._drive(steps, phase)

    async def run(self, plan: Plan) -> RunResult:
        """Run one plan of your own."""
        return await self._run(plan, "plan")

    @contextlib.asynccontextmanager
    async def trace(self, path: str | Path = "trace.json") -> AsyncIterator[None]:
        """As `Lake.trace`."""
        client = self.cluster.client
        await client.trace(True)
        try:
            yield
        except TercetError:
            with contextlib.suppress(TercetError):
                write_chrome_trace(path, await client.trace(False))
            raise
        else:
            write_chrome_trace(path, await client.trace(False))


class Lake(_Base):
    """A lake for scripts and notebooks. Use it as a context manager, from `tercet.local`."""

    def __init__(self, cluster: Cluster, token: trio.lowlevel.TrioToken) -> None:
        super().__init__(cluster)
        self._token = token

    def _wait(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return trio.from_thread.run(function, *args, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise TercetError("this lake is closed; open it again") from error

    def upload(
        self,
        source: Any,
        *,
        name: str,
        key: str | Sequence[str],
        owner: str,
        columns: Sequence[str] | None = None,
        scales: Mapping[str, int] | None = None,
        types: Mapping[str, Declared] | None = None,
    ) -> Table:
        """Put an owner's table into the lake, secret-shared.

        `source` is a data frame (pandas, polars, pyarrow), a dict of columns, or a path to CSV or Parquet.
        `key` names the column or columns that link rows; they must be unique. `scales` gives the fractional
        bits of real columns (chosen by their spread otherwise; scales are public and tell the order of
        magnitude of that spread), `types` overrides what a column is taken for. Discloses the row count, the
        names, kinds and scales of columns. Raises SchemaError.
        """
        encoded = encode_for_upload(
            source, name=name, key=key, owner=owner, columns=columns, scales=scales, types=types
        )
        table: Table = self._wait(self._upload, encoded, self._describe(encoded, self))
        return table

    def perform(self, steps: Steps[T], phase: str) -> T:
        """Run the plans of `steps` and return their result."""
        value: T = self._wait(self._drive, steps, phase)
        return value

    def run(self, plan: Plan) -> RunResult:
        """Run one plan of your own."""
        result: RunResult = self._wait(self._run, plan, "plan")
        return result

    @contextlib.contextmanager
    def trace(self, path: str | Path = "trace.json") -> Iterator[None]:
        """Write what every party does meanwhile to a file for chrome://tracing or ui.perfetto.dev.

        It has every step, every wait for the network and every frame sent, by party; no values. Should a node
        be lost, its events are lost with it, and nothing is written.
        """
        client = self.cluster.client
        self._wait(client.trace, True)
        try:
            yield
        except TercetError:
            with contextlib.suppress(TercetError):
                write_chrome_trace(path, self._wait(client.trace, False))
            raise
        else:
            write_chrome_trace(path, self._wait(client.trace, False))


@contextlib.asynccontextmanager
async def open_local(**options: Any) -> AsyncIterator[AsyncLake]:
    """An `AsyncLake` over nodes on this machine; options as for `local`."""
    async with open_cluster(ClusterOptions(**options)) as cluster:
        yield AsyncLake(cluster)


@contextlib.contextmanager
def local(
    *,
    protocol: str = "replicated",
    parties: int | None = None,
    processes: bool = False,
    transport: str | None = None,
    latency_ms: float = 0.0,
    bandwidth_mbit: float | None = None,
    timeout_s: float = 6.0,
    threads: int = 1,
    tile_rows: int | None = None,
) -> Iterator[Lake]:
    """Start all parties' nodes on this machine, and stop them at the end.

    `processes=True` gives each node an operating-system process and TLS 1.3 with pinned certificates on
    loopback; otherwise they are tasks that talk in memory. `transport` may be "memory", "tcp" or "tls".
    `latency_ms` (one way) and `bandwidth_mbit` slow every link down, for experiments. A node that is silent
    for `timeout_s` is given up, with a `PeerLost` that names it. `threads` is the number of cores that each
    party may use.
    """
    options = ClusterOptions(
        protocol=protocol,
        parties=parties,
        processes=processes,
        transport=transport,
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        timeout_s=timeout_s,
        threads=threads,
        tile_rows=TILE_ROWS if tile_rows is None else tile_rows,
    )
    options.resolve()
    with _in_a_thread(lambda: open_cluster(options)) as lake:
        yield lake


@contextlib.asynccontextmanager
async def open_lake(
    cluster: str | Path, *, identity: str | Path, timeout_s: float = 6.0
) -> AsyncIterator[AsyncLake]:
    """An `AsyncLake` over nodes that run elsewhere; options as for `connect`."""
    async with open_remote(cluster, identity, timeout_s=timeout_s) as opened:
        yield AsyncLake(opened)


@contextlib.contextmanager
def connect(cluster: str | Path, *, identity: str | Path, timeout_s: float = 6.0) -> Iterator[Lake]:
    """The lake of nodes that run elsewhere, as the member whose key is given.

    `cluster` is the path of the lake's `cluster.toml`, `identity` that of a key that `tercet init` has made.
    A node that is silent for `timeout_s` is given up, with a `PeerLost` that names it. Raises ConfigError for
    files that do not fit together, TransportError for nodes that cannot be reached or refuse the key.
    """
    with _in_a_thread(lambda: open_remote(cluster, identity, timeout_s=timeout_s)) as lake:
        yield lake


@contextlib.contextmanager
def _in_a_thread(open_it: Callable[[], contextlib.AbstractAsyncContextManager[Cluster]]) -> Iterator[Lake]:
    """Open a cluster in an event loop of its own, and keep it while the caller works."""
    opened: queue.SimpleQueue[tuple[Cluster, trio.lowlevel.TrioToken, trio.Event] | BaseException] = (
        queue.SimpleQueue()
    )

    async def main() -> None:
        async with open_it() as cluster:
            closing = trio.Event()
            opened.put((cluster, trio.lowlevel.current_trio_token(), closing))
            await closing.wait()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            opened.put(error)

    thread = threading.Thread(target=run, name="tercet-lake", daemon=True)
    thread.start()
    first = opened.get()
    if isinstance(first, BaseException):
        raise first
    cluster, token, closing = first
    try:
        yield Lake(cluster, token)
    finally:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(closing.set)
        thread.join()
        if not opened.empty():
            failed = opened.get()
            if isinstance(failed, BaseException):
                raise failed
