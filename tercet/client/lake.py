"""The lake: how scripts and notebooks reach the nodes.

`local()` starts all nodes on this machine and gives a synchronous `Lake`, `connect()` one of nodes that run
elsewhere; trio runs beneath it, in a thread of its own, so it works in a script and in a notebook.
`open_local()` and `open_lake()` are the same inside a trio program: the same names, to be awaited. Either
lake drives the same generators of plans; they differ only in who waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import trio

from tercet.actors.tracing import write_chrome_trace
from tercet.client.allow import Allow
from tercet.client.cluster import Cluster, ClusterOptions, open_cluster
from tercet.client.design import AsyncDesigns, Designs
from tercet.client.driver import DisclosureLog, Job, Phase, Sent
from tercet.client.lake_options import CONNECT, LOCAL, UPLOAD
from tercet.client.loop import Loop, Opening
from tercet.client.member_api import Desk
from tercet.client.reach import PATIENCE_S
from tercet.client.remote import open_remote
from tercet.errors import TercetError
from tercet.ml.faces import Async, Sync
from tercet.ml.ingest import Missing
from tercet.ml.reading import Declared
from tercet.ml.table import Steps, Table
from tercet.options import JOB, PATH, takes
from tercet.plans.types import TILE_ROWS
from tercet.tracebacks import short, short_tracebacks

T = TypeVar("T")

__all__ = [
    "Allow",
    "AsyncLake",
    "DisclosureLog",
    "Job",
    "Lake",
    "Phase",
    "Sent",
    "connect",
    "local",
    "open_lake",
    "open_local",
]


@short_tracebacks
class AsyncLake(AsyncDesigns):
    """A lake for trio programs: what computes is awaited.

    Also on tables and models, as in `await table.join(...)`.
    """

    @takes(**UPLOAD)
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
        ranges: Mapping[str, tuple[float, float]] | None = None,
        missing: Missing = "refuse",
        categories: Mapping[str, Sequence[str]] | None = None,
        normalise: str | Sequence[str] = (),
        min_count: int = 1,
        unique: bool = True,
        allow: Allow | None = None,
    ) -> Table[Async]:
        """As `Lake.upload`."""
        self._home.require()
        encoded = await trio.to_thread.run_sync(
            lambda: self._encode(
                source,
                allow,
                name=name,
                key=key,
                owner=owner,
                columns=columns,
                scales=scales,
                types=types,
                ranges=ranges,
                missing=missing,
                categories=categories,
                normalise=normalise,
                min_count=min_count,
                unique=unique,
            )
        )
        return await self._upload(encoded, self, allow or Allow())

    @property
    def desk(self) -> Desk:
        """What members ask nodes beyond plans: tables, approvals, results, audit logs."""
        return self._desk()

    def _answer(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return work

    def perform(self, steps: Steps[T], phase: str) -> Awaitable[T]:
        """An awaitable that runs the plans of `steps` and gives their result."""
        return self._drive(steps, phase)

    @takes(job=JOB)
    def collect(self, steps: Steps[T], job: Job) -> Awaitable[T]:
        """As `Lake.collect`, to be awaited."""
        return self._collect(steps, job.session)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """An awaitable of what an asynchronous function gives."""
        return function(*args)

    @takes(path=PATH)
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


@short_tracebacks
class Lake(Designs):
    """A lake for scripts and notebooks, from `tercet.local` or `tercet.connect`.

    Use it as a context manager, or `close` it; else it is closed when neither it nor a table or model of it
    is in use any more. Interrupting a call ends what it had under way at the nodes. Threads may share a lake,
    forked processes may not.
    """

    def __init__(self, loop: Loop[Cluster], *, progress: bool | None = None) -> None:
        super().__init__(loop.opened, progress=progress)
        self._loop = loop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and stop the nodes if they are on this machine. Raises what has ended them before."""
        self._loop.close()

    def _state(self) -> str:
        return super()._state() if self._loop.is_open else "closed"

    def _wait(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._loop.wait(function, *args)

    def _answer(self, work: Coroutine[Any, Any, T]) -> T:
        with contextlib.closing(work):  # which nothing has begun if the lake refuses
            value: T = self._wait(lambda: work)
        return value

    def _beside(self, opened: Callable[[], contextlib.AbstractAsyncContextManager[Cluster]]) -> Self:
        return type(self)(Loop(opened), progress=self.progress)

    @takes(**UPLOAD)
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
        ranges: Mapping[str, tuple[float, float]] | None = None,
        missing: Missing = "refuse",
        categories: Mapping[str, Sequence[str]] | None = None,
        normalise: str | Sequence[str] = (),
        min_count: int = 1,
        unique: bool = True,
        allow: Allow | None = None,
    ) -> Table[Sync]:
        """Put an owner's table into the lake, secret-shared.

        `source` is a data frame (pandas, polars, pyarrow), a dict of columns, a path to CSV or Parquet, or an
        iterator or list of frames or dicts, which are chunks of one table; files and iterators may be larger
        than memory.
        `key` names the column or columns that link rows; no two rows may have the same, unless `unique` is
        False, which everyone may know: then joins take it with `validate="m:1"`. `scales` gives the
        fractional bits of real columns (chosen by their spread otherwise; scales are public and tell the
        order of magnitude of that spread), `types` overrides what a column is taken for: "category" makes the
        texts of a column its public labels, which `categories` declares instead where the data shall not tell
        them; "date" and "datetime" are for what is written as these. `ranges` are public bounds of columns,
        which take their scale from them and not from their values; arithmetic on them needs no checks.
        `missing` is "refuse", or "indicator": then a secret boolean column `<name>_missing` tells where
        values are missing, and everyone may know which columns have one. `normalise` is what owners agree to
        do to keys before they are hashed, of "nfc", "strip", "case" and "zeros": keys are text then, and join
        those that were normalised alike. `min_count` is the owner's rule for disclosures: no row is revealed,
        and no statistic that rests on fewer rows. Nodes that run elsewhere keep the table under its name, and
        `allow` says who else may use it and how; to them a count of 2 applies at least, also to labels that
        the data tell, unless it lets single rows be revealed. The same upload a second time finds the first.
        Discloses the row count, the names, kinds and scales of columns, and labels of categories. Raises
        SchemaError, and ConsentError for the name of another owner's table.
        """
        encoded = self._encode(
            source,
            allow,
            name=name,
            key=key,
            owner=owner,
            columns=columns,
            scales=scales,
            types=types,
            ranges=ranges,
            missing=missing,
            categories=categories,
            normalise=normalise,
            min_count=min_count,
            unique=unique,
        )
        table: Table = self._wait(self._upload, encoded, self, allow or Allow())
        return table

    def perform(self, steps: Steps[T], phase: str) -> T:
        """Run the plans of `steps` and return their result."""
        value: T = self._wait(self._drive, steps, phase)
        return value

    @takes(job=JOB)
    def collect(self, steps: Steps[T], job: Job) -> T:
        """Finish a computation that was submitted, as `LogisticRegression.collect` does."""
        value: T = self._wait(self._collect, steps, job.session)
        return value

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Wait for what an asynchronous function gives."""
        return self._wait(function, *args)

    @takes(path=PATH)
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


@takes(**LOCAL)
def open_local(*, progress: bool | None = None, **options: Any) -> Opening[AsyncLake]:
    """An `AsyncLake` over nodes on this machine, for `async with`; options as for `local`."""

    def opened() -> contextlib.AbstractAsyncContextManager[Cluster]:
        return open_cluster(ClusterOptions(**options))

    return Opening("open_local", opened, lambda cluster: AsyncLake(cluster, progress=progress))


@short
@takes(**LOCAL)
def local(
    *,
    protocol: str = "replicated",
    parties: int | None = None,
    processes: bool = False,
    transport: str | None = None,
    latency_ms: float = 0.0,
    bandwidth_mbit: float | None = None,
    jitter_ms: float = 0.0,
    timeout_s: float = 6.0,
    threads: int = 1,
    tile_rows: int | None = None,
    workers: int = 0,
    progress: bool | None = None,
) -> Lake:
    """Start all parties' nodes on this machine.

    They stop when the lake is closed, when neither it nor a table or model of it is in use any more, and when
    the interpreter ends.

    `processes=True` gives each node an operating-system process and TLS 1.3 with pinned certificates on
    loopback; otherwise they are tasks that talk in memory. `transport` may be "memory", "tcp" or "tls".
    `latency_ms` (one way), give or take `jitter_ms`, and `bandwidth_mbit` slow every link down, for
    experiments. A node that is silent for `timeout_s` is given up, with a `PeerLost` that names it. `threads`
    is the number of cores that each party may use. With `workers`, each party spreads large tables over so
    many processes, on a Dask cluster of its own (`pip install tercet[dask]`), and links are TLS. `progress`
    draws bars for plans and uploads that take more than about a second, with the time that is left; by
    default where standard error is a terminal, and in notebooks.
    """
    options = ClusterOptions(
        protocol=protocol,
        parties=parties,
        processes=processes,
        transport=transport,
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        jitter_ms=jitter_ms,
        timeout_s=timeout_s,
        threads=threads,
        tile_rows=TILE_ROWS if tile_rows is None else tile_rows,
        workers=workers,
    )
    options.resolve()
    return Lake(Loop(lambda: open_cluster(options)), progress=progress)


@takes(**CONNECT)
def open_lake(
    cluster: str | Path,
    *,
    identity: str | Path,
    timeout_s: float = 6.0,
    patience_s: float = PATIENCE_S,
    progress: bool | None = None,
) -> Opening[AsyncLake]:
    """An `AsyncLake` over nodes that run elsewhere, for `async with`; options as for `connect`."""

    def opened() -> contextlib.AbstractAsyncContextManager[Cluster]:
        return open_remote(cluster, identity, timeout_s=timeout_s, patience_s=patience_s)

    return Opening("open_lake", opened, lambda cluster: AsyncLake(cluster, progress=progress))


@short
@takes(**CONNECT)
def connect(
    cluster: str | Path,
    *,
    identity: str | Path,
    timeout_s: float = 6.0,
    patience_s: float = PATIENCE_S,
    progress: bool | None = None,
) -> Lake:
    """The lake of nodes that run elsewhere, as the member whose key is given.

    `cluster` is the path of the lake's `cluster.toml`, `identity` that of a key that `tercet init` has made.
    A node that is silent for `timeout_s` is given up. A plan that this interrupts waits for the nodes to come
    back, for up to `patience_s`, and goes on, a fit from its latest checkpoint; then, or at once if that is
    zero, it raises a `PeerLost` that names the node. `progress` is as for `local`. Raises ConfigError for
    files that do not fit together, TransportError for nodes that cannot be reached or refuse the key.
    """

    def opened() -> contextlib.AbstractAsyncContextManager[Cluster]:
        return open_remote(cluster, identity, timeout_s=timeout_s, patience_s=patience_s)

    return Lake(Loop(opened), progress=progress)
