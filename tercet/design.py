"""Designing studies: a lake of made-up rows beside the real one.

An analyst who may not see a row designs on rows that nobody has to hide: `rehearse` gives an ordinary lake on
this machine whose tables have the public schemas of the real ones, and nothing else of them.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import trio

from tercet.actors import Plan
from tercet.actors.client import RunResult
from tercet.actors.cluster import Cluster, ClusterOptions, open_cluster
from tercet.driver import Allow, Driver, Sent, reveals_of, schema_of
from tercet.errors import SchemaError
from tercet.ml.ingest import EncodedTable
from tercet.ml.made_up import LEAST_ROWS, MadeUp
from tercet.ml.schema import TableSchema, suggest
from tercet.ml.table import ANALYST, Table
from tercet.ml.upload import describe
from tercet.nodes.entries import TABLE
from tercet.options import Number, takes

ROWS = Number(whole=True, least=LEAST_ROWS, most=1 << 24)
SEED = Number(whole=True)
ON_ONE = ClusterOptions(protocol="plain")
"""Made-up rows are no secret: one party, in this process, is all that they need."""


class Design(Driver):
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
        return describe(*self._tables[name], lake)

    async def _schemas(self) -> dict[str, TableSchema]:
        """The public schemas of all tables that the nodes keep."""
        return {one.name: schema_of(one) for one in await self._desk().entries() if one.kind == TABLE}

    def _sent(self, plan: Plan, result: RunResult) -> Sent | None:
        """What is for others; where tables are made up, what would be."""
        if self.made_up is None:
            return super()._sent(plan, result)
        mine = ANALYST, self.made_up.caller
        return Sent.of([(name, to) for name, to in reveals_of(plan) if to not in mine])


class Designs(Design, abc.ABC):
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

        `table(name)` gives them, with the same names, kinds, scales, ranges, indicators and keys; four in
        five keys of a table are in every other. All follows from the public schemas and `seed`. No owner's
        least count holds for rows that are nobody's. What is revealed to other members gives a `Sent`, as at
        the real lake. Close it, or use it as a context manager. Raises PlanError on a lake on one machine.
        """
        made_up = MadeUp(self._wait(self._schemas), rows, seed, self.cluster.caller)
        beside = self._beside(lambda: open_cluster(ON_ONE))
        beside.made_up = made_up
        return beside


class AsyncDesigns(Design):
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
