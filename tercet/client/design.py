"""Studies at a lake: a lake of made-up rows to design on, and what owners and analysts say to nodes of them.

An analyst who may not see a row designs on rows that nobody has to hide: `rehearse` gives an ordinary lake on
this machine whose tables have the public schemas of the real ones, and nothing else of them. What was
designed there is proposed as a file, and signed as a whole.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import trio

from tercet.client.allow import Allow
from tercet.client.asking import Asking
from tercet.client.client import Asked
from tercet.client.cluster import Cluster, ClusterOptions, open_cluster
from tercet.client.driver import Job, Sent, named, reveals_of, schema_of
from tercet.client.recording import Following, Recording
from tercet.client.study_api import KnownStudy, ShownStudy, read_study
from tercet.errors import ConsentError, PlanError, SchemaError
from tercet.members.rules import TABLE
from tercet.members.studies import Study
from tercet.ml.faces import Async, F, Sync, waits
from tercet.ml.ingest import EncodedTable
from tercet.ml.made_up import LEAST_ROWS, MadeUp
from tercet.ml.schema import TableSchema, suggest
from tercet.ml.table import ANALYST, Steps, Table
from tercet.ml.upload import describe
from tercet.options import COUNT, PATH, Number, Text, takes
from tercet.plans import Plan
from tercet.plans.results import RunResult

PURPOSE = Text(what="text that tells owners what a study is for")
DAYS = Number(above=0, most=731)
ROWS = Number(whole=True, least=LEAST_ROWS, most=1 << 24)
SEED = Number(whole=True)
BY_HAND = "plan"
"""The phase of a plan that a member has made."""
ON_ONE = ClusterOptions(protocol="plain")
"""Made-up rows are no secret: one party, in this process, is all that they need."""


class Design(Asking[F]):
    """What both kinds of lake share: tables by name on this machine, also those that are made up."""

    made_up: MadeUp | None = None
    """Where tables are made up: after which, and for whom; see `Lake.rehearse`."""

    def __init__(self, cluster: Cluster, *, progress: bool | None = None) -> None:
        super().__init__(cluster, progress=progress)
        self._tables: dict[str, tuple[TableSchema, list[str]]] = {}
        """Where the nodes keep nothing: what was uploaded, and where it lies, by name."""

    async def _upload(self, encoded: EncodedTable, lake: Any, allow: Allow) -> Table:
        table = await super()._upload(encoded, lake, allow)
        if not self.remote:
            handles = [table.keys.handle, *(part.handle for part in table.parts)]
            self._tables[table.name] = encoded.schema, handles
        return table

    async def _find_table(self, name: str, lake: Any) -> Table:
        if self.remote:
            return await super()._find_table(name, lake)
        made_up = {} if self.made_up is None else self.made_up.schemas
        if self.made_up is not None and name in made_up and name not in self._tables:
            rows = await trio.to_thread.run_sync(self.made_up.encoded, name)
            return await self._upload(rows, lake, Allow())
        if name not in self._tables:
            known = sorted({*self._tables, *made_up})
            raise SchemaError(
                f"there is no table {name!r} in the lake. {suggest(name, known, kind='tables')}"
            )
        return named(describe(*self._tables[name], lake))

    async def _schemas(self) -> dict[str, TableSchema]:
        """The public schemas of all tables that the nodes keep."""
        desk = self._desk()
        return {one.name: schema_of(one, desk.name) for one in await desk.entries() if one.kind == TABLE}

    def _sent(self, plan: Plan, result: RunResult) -> Sent | None:
        """What is for others; where tables are made up, what would be."""
        if self.made_up is None:
            return super()._sent(plan, result)
        mine = ANALYST, self.made_up.caller
        return Sent.of([(name, to) for name, to in reveals_of(plan) if to not in mine])

    @takes(path=PATH, purpose=PURPOSE, uses=COUNT, days=DAYS)
    def record(self, path: str | Path, *, purpose: str, uses: int = 1, days: float = 90.0) -> Recording:
        """Write down what is computed from now on, as a study to propose: for `with`, or `save` it.

        On a lake of made-up rows, or any on this machine. `purpose` is what owners read, `uses` how often the
        study is to be run, and `days` until when, from now. Raises ConsentError on a lake of nodes elsewhere,
        and while another is being recorded.
        """
        if self.remote:
            raise ConsentError(
                "a study is recorded before it is approved, on made-up rows: use lake.rehearse()"
            )
        self._require_free()
        analyst = ANALYST if self.made_up is None else self.made_up.caller
        self.requests = found = Recording(
            path, purpose=purpose, analyst=analyst, uses=uses, days=days, over=self._over
        )
        return found

    def _require_free(self) -> None:
        if self.requests is not None:
            raise ConsentError(f"this lake has a {self.requests!r} under way; end it first")

    def _over(self) -> None:
        self.requests = None

    async def _follow(self, path: str | Path) -> tuple[Study, bytes]:
        """Begin a run of a study."""
        self._require_free()
        study = read_study(path)
        return study, await self._desk().studies.begin(study)

    async def _end(self, run: bytes) -> None:
        """End a run of a study."""
        self._over()
        await self._desk().studies.end(run)

    async def _run(self, plan: Plan, phase: str, asked: Asked | None = None) -> RunResult:
        if self.requests is not None and phase == BY_HAND:
            raise PlanError("a plan by hand is no part of a study: nodes make the plans of its requests")
        return await super()._run(plan, phase, asked)

    async def _submit(self, plan: Plan | Steps[Any], lake: Any) -> Job:
        if self.requests is not None:
            raise PlanError("a job is no part of a study: have it computed while the lake is open")
        return await super()._submit(plan, lake)

    @waits
    @takes(path=PATH)
    async def propose(self, path: str | Path) -> KnownStudy:
        """Ask owners for their consent to a study that was recorded to a file.

        A second time does nothing. Raises ConsentError for what cannot be, before anybody is asked.
        """
        return await self._desk().studies.propose(read_study(path))

    @waits
    async def studies(self) -> list[KnownStudy]:
        """Studies at the nodes, also those that run already or were refused, until their time is up."""
        return await self._desk().studies.listed()

    @waits
    async def show_study(self, number: str) -> ShownStudy:
        """A study by its number, as all nodes have it, and in their sentences: to be read before approval."""
        return await self._desk().studies.show(number)

    @waits
    async def approve_study(
        self, shown: ShownStudy, *, uses: int | None = None, days: float | None = None
    ) -> None:
        """Sign a study that was shown: for all its runs, or fewer, until its end, or sooner."""
        await self._desk().studies.approve(shown, uses=uses, days=days)

    @waits
    async def refuse_study(self, number: str, why: str = "") -> KnownStudy:
        """As `Lake.refuse_study`."""
        return await self._desk().studies.refuse(number, why)


class Designs(Design[Sync]):
    """What a lake for scripts and notebooks has for the design of studies."""

    @abc.abstractmethod
    def _wait(self, function: Callable[..., Any], *args: Any) -> Any:
        """Wait for what an asynchronous function gives."""

    @abc.abstractmethod
    def _beside(self, opened: Callable[[], contextlib.AbstractAsyncContextManager[Cluster]]) -> Self:
        """Another lake of this kind."""

    @takes(rows=ROWS, seed=SEED)
    def rehearse(self, rows: int = 200, seed: int = 0) -> Self:
        """A lake on this machine to design on: its tables have made-up rows of the real ones' schemas.

        `table(name)` gives them, with the same names, kinds, scales, ranges, indicators, keys and least
        counts of owners, for which more `rows` may be needed; four in five keys of a table are in every
        other, but tables with the same columns share these. All follows from the public schemas and `seed`.
        What is revealed to other members gives a `Sent`, as at the real lake. Close it, or use it as a
        context manager. Raises PlanError on a lake on one machine.
        """
        made_up = MadeUp(self._wait(self._schemas), rows, seed, self.cluster.caller)
        beside = self._beside(lambda: open_cluster(ON_ONE))
        beside.made_up = made_up
        return beside

    @takes(path=PATH)
    def study(self, path: str | Path) -> Following:
        """Begin a run of an approved study: what is computed from now on has to be its requests, in order.

        For `with`, or `end` it. No owner is asked any more. Each is one of the runs that owners allow, also
        if it comes to no end. Raises ConsentError if owners have not approved it, if it was run as often as
        it may be, and for a request that is another than the recorded one.
        """
        study, run = self._wait(self._follow, path)
        self.requests = found = Following(study, run, lambda: self._wait(self._end, run))
        return found


class AsyncDesigns(Design[Async]):
    """What a lake for trio programs has for the design of studies."""

    @takes(rows=ROWS, seed=SEED)
    @contextlib.asynccontextmanager
    async def rehearse(self, rows: int = 200, seed: int = 0) -> AsyncIterator[Self]:
        """As `Lake.rehearse`, for `async with`."""
        made_up = MadeUp(await self._schemas(), rows, seed, self.cluster.caller)
        async with open_cluster(ON_ONE) as cluster:
            beside = type(self)(cluster, progress=self.progress)
            beside.made_up = made_up
            yield beside

    @takes(path=PATH)
    @contextlib.asynccontextmanager
    async def study(self, path: str | Path) -> AsyncIterator[Following]:
        """As `Lake.study`, for `async with`."""
        study, run = await self._follow(path)
        self.requests = found = Following(study, run, lambda: self._end(run))
        try:
            yield found
        finally:
            await self._end(run)
