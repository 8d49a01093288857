"""A lake of three lasting nodes in one process, with all that real ones have: gate, vault, journal, TLS.

An attacker is an ordinary member whose client is her own: what it would check or optimise is switched off,
and plans go out as she writes them.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import attrs
import numpy as np
import trio

from tercet import Allow
from tercet.actors.node import Node
from tercet.client.lake import AsyncLake, open_lake
from tercet.client.member_api import WaitingPlan
from tercet.errors import PeerLost, TercetError
from tercet.ml.stored_columns import Column
from tercet.ml.table import Table
from tercet.nodes import program
from tercet.nodes.quotas import client_limits
from tercet.plans import Builder, Form, Type
from tercet.plans.builder import Value
from tercet.plans.plan import Plan
from tercet.plans.results import RunResult
from tests.nodes.on_disk import NodesOnDisk, set_up

ROWS = 100
AGES = {"id": np.arange(ROWS), "age": np.round(np.linspace(20, 80, ROWS), 2)}
TIMEOUT_S = 120.0
BY_HAND: WeakSet[Plan] = WeakSet()
"""Plans that go out as they are written."""


@attrs.define
class Attacked:
    """The lake, its nodes, and those who are connected to it."""

    made: NodesOnDisk
    nodes: list[Node]
    hospital: AsyncLake
    ann: AsyncLake
    insurer: AsyncLake

    async def victim(
        self, *, min_count: int = 50, plans: Any = "any", columns: dict[str, Any] | None = None
    ) -> Table:
        """The hospital's table, no single row of which may be revealed, as ann finds it."""
        data = AGES if columns is None else columns
        allow = Allow(plans=plans)
        await self.hospital.upload(
            data, name="ages", key="id", owner="hospital", min_count=min_count, allow=allow
        )
        return await self.ann.table("ages")

    async def joined(self, *, name: str = "mine", keys: Sequence[int] = range(ROWS)) -> Table:
        """The victim's table, joined with one of ann's own, and stored at the nodes."""
        own = {"id": np.array(keys), "x": np.linspace(0, 1, len(keys))}
        await self.ann.upload(own, name=name, key="id", owner="ann", allow=Allow(plans="any"))
        return await (await self.ann.table("ages")).join(await self.ann.table(name), on="id")

    def builder(self, name: str = "figures") -> Builder:
        """A plan of ann's."""
        return Builder(name, tile_rows=self.ann.cluster.client.tile_rows)

    async def run(self, plan: Plan, who: AsyncLake | None = None) -> RunResult:
        """Have a plan run as it is, under the signatures that plans by hand take."""
        failure = None
        async with self.signing():
            try:
                result = await self.ask(plan, who)
            except TercetError as error:
                failure = error
        if failure is not None:
            raise failure
        return result

    async def ask(self, plan: Plan, who: AsyncLake | None = None) -> RunResult:
        """Have a plan run as it is, if owners sign it."""
        BY_HAND.add(plan)
        return await (who or self.ann).cluster.client.run(plan)

    async def why_not(self, plan: Plan, who: AsyncLake | None = None) -> str:
        """Why the nodes do not run a plan. Fails if they do, or let it wait for its owner."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._refuse_all)
            try:
                with trio.fail_after(TIMEOUT_S / 2):
                    result = await self.ask(plan, who)
            except TercetError as error:
                return str(error)
            finally:
                nursery.cancel_scope.cancel()
        raise AssertionError(f"it ran, and gave {dict(result.revealed)}")

    async def _refuse_all(self) -> None:
        """The hospital looks at each plan that it is asked about, and does not like it."""
        while True:
            for waiting in await self.hospital.plans():
                with contextlib.suppress(TercetError):
                    await self.hospital.refuse(waiting.number, "the owner was asked")
            await trio.sleep(0.05)

    async def waiting(self) -> list[WaitingPlan]:
        """The plans that wait for the hospital, once there is one."""
        with trio.fail_after(TIMEOUT_S / 2):
            while not (found := await self.hospital.plans()):  # noqa: ASYNC110 - nodes tell when asked
                await trio.sleep(0.02)
        return found

    @contextlib.asynccontextmanager
    async def signing(self) -> AsyncIterator[list[str]]:
        """Meanwhile the hospital signs whatever it is asked; the names of those plans."""
        signed: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sign_all, signed)
            yield signed
            nursery.cancel_scope.cancel()

    async def sign_all(self, signed: list[str] | None = None) -> None:
        """The hospital signs whatever it is asked, for ever."""
        signed = [] if signed is None else signed
        while True:
            for waiting in await self.hospital.plans():
                with contextlib.suppress(TercetError):
                    await self.hospital.approve(waiting.number)
                    signed.append(waiting.name)
            await trio.sleep(0.05)

    async def deal(self, words: Sequence[int], handle: str = "", scale: int = 0) -> tuple[str, Type]:
        """A value that ann deals; the handle and type under which her plans read it."""
        handle = handle or f"own#{secrets.token_hex(4)}"
        array = np.asarray(words, dtype=np.int64)
        kind = Type(Form.RING, array.shape, scale, 2.0**20)
        await self.ann.cluster.client.put(handle, kind, array.view(np.uint64))
        return handle, kind


def heedless(
    lake: Any, lies: Mapping[str, Callable[[tuple[int, ...]], Any]] = MappingProxyType({})
) -> list[RunResult]:
    """From now on, a member's client takes check bits for zeros, or for what `lies` makes of their shape.

    Nodes are told so, and the computation goes on as if it were so. Returns what was really revealed, plan by
    plan, to which more is added as plans run.
    """
    told: list[RunResult] = []
    note = lake._note

    def noting(result: RunResult, *about: str) -> RunResult:
        told.append(note(result, *about))
        bits = {one.what for one in result.disclosed if one.kind == "check"} & result.revealed.keys()
        forged = {name: lies.get(name, np.zeros)(result.revealed[name].shape) for name in bits}
        return attrs.evolve(result, revealed={**result.revealed, **forged})

    lake._note = noting
    return told


@contextlib.contextmanager
def apart(lake: Attacked) -> Iterator[None]:
    """Inside, the nodes have lost each other, and so what was under way; clients are linked up with all."""
    for node in lake.nodes:
        node.party.missing = lambda: [0]  # type: ignore[method-assign]
        for session in list(node.party._sessions.values()):
            session.fail(PeerLost("party 0 has fallen silent", peer="party 0"))
    try:
        yield
    finally:
        for node in lake.nodes:
            del node.party.missing


def allow(lake: Attacked, **limits: int) -> None:
    """Change quotas of members at all nodes."""
    for node in lake.nodes:
        quotas = node.gate.quotas  # type: ignore[attr-defined]
        quotas.quota = attrs.evolve(quotas.quota, **limits)
        node.gate.clients = client_limits(quotas.quota)
        for member in ("ann", "hospital", "insurer"):
            node._callers.pop(member, None)


def column(table: Table, name: str = "age") -> Column:
    """What everyone knows of a column."""
    return next(one for one in table.columns if one.name == name)


def values_of(builder: Builder, table: Table, name: str = "age") -> Value:
    """A column of a table in a plan, `(rows,)`."""
    place, part = column(table, name), table.parts[column(table, name).part]
    return builder.input(part.handle, part.type).select([place.place]).reshape(table.rows)


@contextlib.asynccontextmanager
async def attacked_lake(
    root: Path, *, protocol: str = "replicated", nodes: int = 3
) -> AsyncIterator[Attacked]:
    """Nodes that are linked up, the hospital, ann and the insurer."""
    made = set_up(root, protocol=protocol, count=nodes)
    for index in range(nodes):
        made.configure(index, timeout_s=TIMEOUT_S, metrics="")
    async with trio.open_nursery() as nursery:
        running = [
            await nursery.start(program.serve, program.Settings.read(root / f"n{index}" / "node.toml"))
            for index in range(nodes)
        ]
        async with contextlib.AsyncExitStack() as stack:
            lakes = [
                await stack.enter_async_context(
                    open_lake(made.cluster, identity=made.key(name), timeout_s=TIMEOUT_S)
                )
                for name in ("hospital", "ann", "insurer")
            ]
            with trio.fail_after(TIMEOUT_S):
                while any(node.party.missing() for node in running):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            yield Attacked(made, running, *lakes)
        nursery.cancel_scope.cancel()
