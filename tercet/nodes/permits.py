"""Permits: whether owners' rules let a member have a plan run, and who has to sign it first.

A computation is decided by what it says of itself (see `tercet.members.decisions`), a plan by hand by a walk
over it, and by every owner whose data it reads.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

import attrs
import msgpack
import trio

from tercet.errors import ConsentError
from tercet.members.config import Member
from tercet.members.decisions import TO_CALLER, Asked, assigns, decide, results_of, sizes_told, used_up
from tercet.members.rules import LATEST, TABLE, Rules
from tercet.ml.declarations import counted
from tercet.ml.uses import Uses, uses_of
from tercet.nodes.ledger import MOST_ATTEMPTS
from tercet.nodes.requests import Built
from tercet.nodes.roster import Roster
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import run_of
from tercet.plans.plan import Plan
from tercet.plans.review import Review, Tables
from tercet.storage.catalog import Entry
from tercet.storage.step_journal import StepJournal


@attrs.frozen
class Permits:
    """Decides from the rules in a node's catalog, and counts uses in its journal."""

    roster: Roster
    vault: Vault
    _steps: StepJournal = attrs.field(init=False)

    @_steps.default
    def _of_catalog(self) -> StepJournal:
        return StepJournal(self.vault.catalog)

    def member(self, name: str) -> Member:
        """A member by name. Raises ConsentError if there is none."""
        return self.roster.member(name)

    async def table(self, identity: str) -> Entry:
        """A table by its identity. Raises ConsentError once it is gone, also if there is one of its name."""
        found = await self.vault.ask(self.vault.catalog.identified, identity)
        if found is None or found.kind != TABLE or (found.expires or LATEST) <= time.time():
            raise ConsentError("a table from which this was made is no longer in the lake; make it anew")
        if found.owner in self.roster.cluster.removed:
            raise ConsentError(f"table {found.name!r} is {found.owner}'s, who is no member any more")
        return found

    async def names(self, identities: Iterable[str]) -> str:
        """What tables are called, as far as they are there."""
        found = [await self.vault.ask(self.vault.catalog.identified, one) for one in identities]
        return ", ".join(sorted(one.name for one in found if one is not None)) or "tables that are gone"

    async def owners_to_ask(
        self,
        member: Member,
        session: bytes,
        plan: Plan,
        built: Built | None,
        found: Review,
        sources: Tables,
        over: Tables | None,
    ) -> set[str]:
        """The owners who must approve a plan; of one by hand, all. Raises ConsentError if one forbids it.

        A computation goes `over` the rows of these of its `sources`.
        """
        for receiver in found.receivers:
            if receiver != TO_CALLER:
                self.member(receiver)
        entries = {source: await self.table(source) for source in sorted(sources)}
        named = found.named({source: entry.name for source, entry in entries.items()})
        rules = {entry.name: (entry.owner, Rules.from_bytes(entry.rules)) for entry in entries.values()}
        for table, (owner, rule) in rules.items():
            walked = named if built is None else attrs.evolve(named, rows=())
            rule.check(table, owner, member.name, member.roles, walked)
        met = None if over is None else frozenset(entries[one].name for one in over if one in entries)
        uses, name = {}, await self._name(session, built)
        for source, entry in entries.items():
            uses[entry.name] = await self.vault.ask(self._steps.uses, source, name)
        verdict = decide(
            rules, await trio.to_thread.run_sync(self._asked, member, plan, built, named, uses, met)
        )
        if verdict.refusal:
            raise ConsentError(verdict.refusal)
        own = frozenset(entry.name for entry in entries.values() if entry.owner == member.name)
        looked = named if built is None else named.needs_none
        wary = {entry.owner for entry in entries.values() if looked.needs_look(entry.name, own)}
        return (wary | verdict.owners) - {member.name}

    def _asked(
        self,
        member: Member,
        plan: Plan,
        built: Built | None,
        found: Review,
        uses: dict[str, int],
        over: frozenset[str] | None,
    ) -> Asked:
        by_row = {told.rpartition(" to ")[0]: tables for told, tables in found.rows}
        results = [
            attrs.evolve(one, tables=by_row.get(repr(one.what))) for one in results_of(plan, member.name)
        ]
        used = Uses({}) if built is None else uses_of(built.known, built.arguments)
        columns = {} if built is None else dict.fromkeys(uses, frozenset[str]()) | dict(used.columns)
        return Asked(
            caller=member.name,
            roles=frozenset(member.roles),
            computation="" if built is None else built.known.name,
            group="" if built is None else built.known.group,
            by_hand=built is None,
            assigns=built is not None and assigns(built.known.name, built.arguments),
            columns=columns,
            results=tuple(results),
            over=over,
            now=time.time(),
            parameters=used.parameters,
            rows=used.rows,
            sizes=None if built is None else sizes_told(built.known.name, built.arguments, counted(plan)),
            uses=uses,
            analysts=frozenset(one.name for one in self.roster.cluster.members if "analyst" in one.roles),
        )

    async def count(self, caller: str, session: bytes, built: Built | None, sources: Tables) -> None:
        """Count that a member's computation, or plan by hand, uses tables of others.

        Raises ConsentError if one of them was used so often already, as of when it is counted.
        """
        await self._use(caller, await self._name(session, built), sources)

    async def ended(self, caller: str, built: Built, sources: Tables, ends: int) -> None:
        """A step has come to its end, so often by now: each time after the first counts as a computation.

        Raises ConsentError if that is one too many, or has been often enough for a study.
        """
        if built.request.study and ends > MOST_ATTEMPTS:
            raise ConsentError(
                f"this request of the study was made {MOST_ATTEMPTS} times; begin another run of it"
            )
        if ends > 1:
            await self._use(caller, _name_of(built, ends - 1), sources)

    async def _use(self, caller: str, name: bytes, sources: Tables) -> None:
        entries = {source: await self.table(source) for source in sources}
        rules = {
            source: Rules.from_bytes(entry.rules)
            for source, entry in entries.items()
            if entry.owner != caller
        }
        most = {source: rule.uses for source, rule in rules.items()}
        full = await self.vault.ask(self._steps.use, most, name)
        if full is not None:
            used = await self.vault.ask(self._steps.uses, full, b"")
            entry = entries[full]
            raise ConsentError(used_up(entry.name, entry.owner, used, rules[full]))

    async def _name(self, session: bytes, built: Built | None) -> bytes:
        if built is None:
            return run_of(session)
        request = built.request
        ends = await self.vault.ask(self._steps.ends, request.name, request.step)
        return _name_of(built, ends)


def _name_of(built: Built, ends: int) -> bytes:
    """What counts as one use: a computation by its name and arguments, whatever its steps and attempts.

    A step that has come to its end before is asked for anew, and may give something else.
    """
    request = built.request
    again = [request.step, ends] if ends else []
    asked = attrs.evolve(request, answers=(), digest=b"", study=b"").to_bytes()
    return hashlib.blake2b(msgpack.packb([asked, again]), digest_size=16, person=b"tercet-use").digest()
