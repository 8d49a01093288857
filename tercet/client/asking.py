"""What a member asks of a lake, whoever waits: tables and models that are kept, plans, jobs, consent.

Each is written once, as an asynchronous method; `waits` makes it a call that waits on a `Lake`.
"""

from __future__ import annotations

import abc
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from tercet.client.cluster import Cluster
from tercet.client.driver import Driver, Job
from tercet.client.member_api import Kept, Received, WaitingPlan
from tercet.errors import ConsentError, SchemaError
from tercet.members.rules import NUMBER, TABLE, Rules
from tercet.members.seals import Head
from tercet.ml.faces import F, Faced, waits
from tercet.ml.models import SecretModel
from tercet.ml.numbers import SavedNumber
from tercet.ml.numbers.saved import Saving
from tercet.ml.schema import suggest
from tercet.ml.table import Steps, Table
from tercet.options import NAME, PLAN, STEPS, takes
from tercet.plans import Plan, Type
from tercet.plans.results import RunResult
from tercet.tracebacks import short_tracebacks


@short_tracebacks
class Asking(Driver, Faced[F], abc.ABC):
    """What both kinds of lake are asked for."""

    def __init__(self, cluster: Cluster, *, progress: bool | None = None) -> None:
        super().__init__(cluster, progress=progress)
        self._numbers: dict[str, tuple[tuple[str, ...], bytes]] = {}
        """Where the nodes keep nothing: numbers that plans have saved, where they lie and what they are."""

    @abc.abstractmethod
    def _answer(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What `work` gives, or an awaitable of it."""

    @waits
    @takes(name=NAME)
    async def table(self, name: str) -> Table[F]:
        """A table that the nodes keep. Raises SchemaError if there is none, StorageError if nodes differ."""
        return await self._find_table(name, self)

    @waits
    @takes(name=NAME)
    async def model(self, name: str) -> SecretModel[F]:
        """A model that was saved, to predict with. Raises SchemaError if there is none."""
        return await self._find_model(name, self)

    @waits
    async def keep_model(self, model: SecretModel, name: str, readers: Sequence[str]) -> None:
        """Keep a model under a name; see `SecretModel.save`."""
        await self._keep_model(model, name, readers)

    @waits
    @takes(name=NAME)
    async def number(self, name: str) -> SavedNumber[F]:
        """A secret number that a plan has saved, for `plan.load`: what is known of it, as all nodes say.

        Raises SchemaError if there is none.
        """
        if not self.remote:
            found = self._numbers.get(name)
            if found is not None:
                return SavedNumber.of(self, name, self.cluster.caller, *found)
            known = list(self._numbers)
        else:
            kept = await self._desk().find(NUMBER, name)
            if kept is not None:
                return SavedNumber.of(self, name, kept.owner, kept.handles, kept.body)
            known = [one.name for one in await self._desk().entries() if one.kind == NUMBER]
        raise SchemaError(f"there is no number {name!r} in the lake. {suggest(name, known, kind='numbers')}")

    @waits
    async def require_names(self, saving: Sequence[Saving]) -> None:
        """Raise ConsentError for numbers that nodes would not keep so, before anybody is asked to sign."""
        if not self.remote:
            return
        desk = self._desk()
        for one in saving:
            desk.require_members(one.readers)
            there = await desk.find(NUMBER, one.name)
            if there is not None and there.owner != desk.name:
                raise ConsentError(f"number {one.name!r} is {there.owner}'s; take another name")

    @waits
    async def keep_numbers(self, saving: Sequence[Saving], stored: Mapping[str, Type]) -> None:
        """Keep what a plan has stored as numbers: at the nodes where they last, else while this is open."""
        client = self.cluster.client
        for place, one in enumerate(saving):
            if not self.remote:
                before, _ = self._numbers.get(one.name, ((), b""))
                self._numbers[one.name] = one.handles, one.description(stored)
                client.post("drop", [list(before)])
                continue
            rules = Rules(one.readers, "any", 1, rows=False)
            try:
                await self._desk().keep_number(one.name, one.handles, rules, days=one.days)
            except BaseException:
                client.post("drop", [[handle for rest in saving[place:] for handle in rest.handles]])
                raise

    @waits
    async def drop_number(self, name: str) -> None:
        """Forget a number of yours; see `SavedNumber.drop`."""
        if self.remote:
            await self._desk().forget(NUMBER, name)
        else:
            before, _ = self._numbers.pop(name, ((), b""))
            self.cluster.client.post("drop", [list(before)])

    @waits
    async def entries(self) -> list[Kept]:
        """All tables, models and numbers that the nodes keep, with owners and rules."""
        return await self._desk().entries()

    @waits
    async def tables(self) -> list[Kept]:
        """All tables that the nodes keep."""
        return [one for one in await self._desk().entries() if one.kind == TABLE]

    @waits
    @takes(name=NAME)
    async def drop(self, name: str) -> None:
        """Have the nodes forget a table of yours, for good."""
        await self._desk().forget(TABLE, name)

    @waits
    async def plans(self) -> list[WaitingPlan]:
        """Plans that wait for the approval of owners."""
        return await self._desk().plans()

    @waits
    async def show(self, number: str) -> tuple[WaitingPlan, Plan]:
        """A waiting plan by its number, as all nodes have it: to be read before it is approved."""
        return await self._desk().show(number)

    @waits
    async def approve(self, shown: str | WaitingPlan) -> WaitingPlan:
        """Sign a waiting plan, for one run: that which `show` or `plans` gave, or whichever has the number.

        Whoever asks for plans chooses their numbers, so give what you have looked at.
        """
        return await self._desk().approve(shown)

    @waits
    async def refuse(self, number: str, why: str = "") -> WaitingPlan:
        """End a waiting plan, with a reason for its analyst."""
        return await self._desk().refuse(number, why)

    @waits
    async def received(self) -> list[Received]:
        """What plans of other members have revealed to you; the nodes keep it no longer."""
        return await self._desk().received()

    @waits
    async def audit(
        self,
        known: Mapping[str, Head] | None = None,
        *,
        again: bool = False,
        by_hash: bool = False,
        keep: bool = True,
        most: int | None = None,
    ) -> dict[str, tuple[Head, list[str]]]:
        """The audit log of each node, verified: where it stands, and its lines, unless `keep` is false.

        With heads `known` of an earlier time, by node, only what has come since, unless `again` is true; then
        `by_hash` does not verify those signatures again that were verified by then: lines that lead to the
        same head are the same lines. Of these lines, the `most` latest.
        """
        return await self._desk().audit(known, again=again, by_hash=by_hash, keep=keep, most=most)

    @waits
    @takes(plan=PLAN)
    async def run(self, plan: Plan) -> RunResult:
        """Run one plan of your own."""
        return await self._run(plan, "plan")

    @waits
    @takes(plan=STEPS)
    async def submit(self, plan: Plan | Steps[Any]) -> Job[F]:
        """Have a plan run whether or not this lake stays open, or a computation.

        Of a computation that is several plans, nodes that last run all if it tells them what the next one
        depends on, as a fit does that is submitted (`LogisticRegression.submit`); else the first. `result` of
        the job waits for it.

        Nodes remember a member's last 64 jobs: `jobs` lists them, also another day. A job that the loss of a
        node interrupts goes on when all nodes are back.
        """
        return await self._submit(plan, self)

    @waits
    async def jobs(self) -> list[Job[F]]:
        """The jobs that you have submitted, also earlier and elsewhere."""
        return await self._jobs(self)
