"""The gate of a node that lasts: it lets members do what owners allow, and writes down what it did.

Every node decides by itself, from the same public files, its own catalog and signatures that it checks; one
honest node suffices to stop a plan, since all have to run it, and two to hold back a result, since one part
tells nothing. A value that a member stores is that member's alone until it is kept under a name; what it was
computed from goes with it, and so do the rules of those owners.

When a run ends, what it stored, what is for others and that its approvals are used up are written down in one
step, before anything is handed out. A run that was interrupted before that may be made again under the
same approvals, from a checkpoint or from its beginning (see `ledger`).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import trio

from tercet.actors.arrivals import Sink
from tercet.actors.gate import Gate
from tercet.actors.party import Party
from tercet.actors.storage import ValueInParts
from tercet.actors.threads import in_thread
from tercet.actors.values import Outcome, Stored
from tercet.errors import ConsentError, PlanError, ProtocolError
from tercet.members.approvals import Approval
from tercet.members.audit import AuditLog
from tercet.members.config import Member
from tercet.members.decisions import TO_CALLER
from tercet.members.node_file import NodeFile
from tercet.members.rules import Rules
from tercet.ml.computations import Request
from tercet.nodes import keeping, study_runs
from tercet.nodes.disks import free_bytes
from tercet.nodes.jobs import LastingJobs
from tercet.nodes.keeping import Keeping
from tercet.nodes.ledger import MOST_ATTEMPTS, Ledger
from tercet.nodes.listings import entry_of, listed
from tercet.nodes.metrics import resident_bytes
from tercet.nodes.permits import Permits
from tercet.nodes.provenance import goes_over, origin_of
from tercet.nodes.quotas import SHARE_IN_MEMORY, Quotas, client_limits
from tercet.nodes.refusals import Refusals, cut, shortened
from tercet.nodes.requests import Built, Requests
from tercet.nodes.reviewed import Reviewed, by_hand, check_counts, plan_handles, require_given
from tercet.nodes.roster import Roster
from tercet.nodes.study_runs import Studies
from tercet.nodes.turns import Turns
from tercet.nodes.vault import Vault
from tercet.nodes.waiting import Board, Waiting, run_of, sealed_result
from tercet.plans.passes import Since, checkpoint_handle, checkpoints, rest
from tercet.plans.plan import Plan
from tercet.plans.review import Review, Rows, Tables, review
from tercet.plans.types import Type
from tercet.storage.journal import LooseValue

RELEASE = version("tercet")
"""Looking it up takes as long as a hundred requests."""


class LakeGate(Gate):
    """Decides for one node. `audit` has a line for every decision."""

    def __init__(self, party: Party, file: NodeFile, roster: Roster, vault: Vault, audit: AuditLog) -> None:
        self.party = party
        self.roster = roster
        self.vault = vault
        self.audit = audit
        self.quotas = Quotas(file.quota)
        self.clients = client_limits(file.quota)
        self.board = Board(self.quotas)
        self.ledger = Ledger(vault)
        self.jobs = LastingJobs(party, vault, self.ledger, self.quotas)
        self.requests = Requests(vault)
        self.keeping = Keeping(party, vault, self.ledger, self.quotas, self.requests)
        self.jobs.plan_of, self.jobs.requests = self.plan_of, self.requests
        self.permits = Permits(roster, vault)
        self._built: WeakKeyDictionary[Plan, Built] = WeakKeyDictionary()
        """What was made of requests, by the plan."""
        self._file = file
        self._refusals = Refusals(audit)
        self._turns = Turns(file.runs_at_once)
        self.studies = Studies(vault, roster, audit)
        self._plans: dict[bytes, Reviewed] = {}

    queues = True

    async def load(self, handle: str) -> Stored | None:
        """A value on disk; see `Gate.load`."""
        return await self.vault.load(handle)

    # -- values ----------------------------------------------------------------------------------------------

    def begin(self, handle: str, kind: Type, tile_rows: int) -> Sink:
        """A file of the vault; see `Gate.begin`."""
        return self.vault.begin(handle, kind, tile_rows)

    def in_parts(self, handle: str, workers: int) -> ValueInParts | None:
        """Parts in the vault's storage; see `Gate.in_parts`."""
        return self.vault.in_parts(handle, workers)

    async def before_put(self, caller: str, handle: str, kind: Type) -> None:
        """Owners and analysts may deal values under new handles."""
        with self.audited(caller, "put"):
            self._require(caller, ("owner", "analyst"), "upload")
            require_given(handle)
            await self._require_new(handle)
            self.ledger.require_free(handle)  # once more: another may have come while this one waited
            self.admit(caller, handle, kind)
        memory = (self._file.memory_mb << 20) // SHARE_IN_MEMORY
        self.ledger.deal(handle, caller, self.party.bytes_held(kind), memory=memory)

    def admit(self, caller: str, handle: str, kind: Type) -> None:
        """Members have so many values, and so many bytes of them, that are not kept; see `Gate.admit`."""
        if self.ledger.find(handle) is None:
            self._require_room(caller, self.party.bytes_held(kind))

    def _require_room(self, caller: str, size: int, values: int = 1) -> None:
        self.quotas.require(caller, "dealt_mb", self.ledger.bytes[caller], size)
        self.quotas.require(caller, "values", self.ledger.values[caller], values)

    def in_memory(self, handle: str) -> bool:
        """Dealt values of a member take a part of the node's memory; see `Gate.in_memory`."""
        return self.ledger.is_in_memory(handle)

    async def before_drop(self, caller: str, handles: Sequence[str]) -> None:
        """Members may forget values of their own that are not kept."""
        with self.audited(caller, "drop"):
            for handle in handles:
                found = self.ledger.find(handle)
                if found is not None and found.caller != caller:
                    raise ConsentError(f"{handle!r} is a value of {found.caller}, not of {caller}")
        await self.ledger.forget(handles)

    async def before_trace(self, caller: str) -> None:
        """Operators may look at what the node does, step by step."""
        with self.audited(caller, "trace"):
            self._require(caller, ("operator",), "trace a node")

    async def left(self, caller: str, handles: Sequence[str]) -> None:  # noqa: ARG002
        """Dealt values that were not kept go when their dealer leaves; others when nobody uses them."""
        kept = await self.vault.ask(self.vault.catalog.handles)
        gone = [handle for handle in (*handles, *self.ledger.unused()) if handle not in kept]
        self.party.drop(gone)
        await self.ledger.forget(gone)

    async def sweep(self) -> None:
        """Forget entries whose time is up, and runs that nobody goes on with."""
        for entry in await self.vault.ask(self.vault.catalog.expired, time.time()):
            self.audit.append("expired", kind=entry.kind, name=entry.name, owner=entry.owner)
            await self.vault.drop(entry)
        await self.ledger.sweep()
        await self.studies.sweep()
        await self.note_log()

    async def note_log(self) -> None:
        """Note in the catalog how far the audit log has come, to miss it if it is cut. Can be cancelled."""
        head = self.audit.head

        def note() -> None:
            self.audit.settle()
            self.audit.rotate()
            self.vault.journal.note(head.lines, head.digest)

        await trio.to_thread.run_sync(note, abandon_on_cancel=True)

    # -- plans -----------------------------------------------------------------------------------------------

    async def before_name(self, caller: str, session: bytes) -> None:
        """Members name runs and attempts of their own only; see `Gate.before_name`."""
        with self.audited(caller, "run", session=session.hex()):
            if await self.ledger.holder(run_of(session)) not in (None, caller):
                raise ConsentError("a run of this name is another member's; names are random, and used once")

    async def plan_of(self, caller: str, packed: bytes) -> Plan:
        """The plan that this node makes of a request, or one that a member has made by hand."""
        if not Request.is_one(packed):
            return by_hand(await super().plan_of(caller, packed))
        built = await in_thread(self.requests.build, caller, packed)
        self._built[built.plan] = built
        return built.plan

    async def before_run(self, caller: str, session: bytes, plan: Plan) -> None:
        """Check a plan against the rules of all whose data it reads, and wait for those who must approve."""
        built = self._built.get(plan)
        facts = {"session": session.hex(), "plan": cut(plan.name), "digest": plan.digest().hex()}
        facts["computation"] = "by hand" if built is None else built.known.name
        with self.audited(caller, "run", **facts):
            member = self._require(caller, ("analyst", "owner"), "run plans")
            self._require_lines(caller)
            self.quotas.begin(caller, session, plan)
            self._require_room(caller, 0, len(plan_handles(plan, "store")))
            self.ledger.reserve(run_of(session), plan_handles(plan, "store"))
            found, sources = await self._look(caller, plan, run_of(session))
            signed = await self._signed(caller, built)
            over = await goes_over(caller, built, self.vault, self.ledger)
            asked = await self.permits.owners_to_ask(member, session, plan, built, found, sources, over)
            owners = asked - signed
            if owners:
                bound, who = await self._bound(plan), tuple(sorted(owners))
                waiting = Waiting(session, caller, plan, bound, who, self._check_approval)
                await self._wait(waiting, facts, once=built is None and bool(found.unclear or found.promised))
                # Rules, roles and signatures under a study may have changed meanwhile, and tables gone.
                member = self._require(caller, ("analyst", "owner"), "run plans")
                signed = await self._signed(caller, built)
                found, sources = await self._look(caller, plan, run_of(session))
                now = await self.permits.owners_to_ask(member, session, plan, built, found, sources, over)
                if not now <= owners | signed or await self._bound(plan) != waiting.bound:
                    raise ConsentError("rules or values have changed while the plan waited; run it again")
            await self.permits.count(caller, session, built, sources)
        names = sorted([(await self.permits.table(source)).name for source in sources])
        reveals = shortened([str(item) for item in plan.disclosures()])
        self.audit.append("runs", caller=caller, **facts, reads=shortened(names), reveals=reveals)
        await in_thread(self.audit.settle)
        bound = await self._bound(plan)
        if self.party.index == 0:
            await self._turns.take(caller)  # and nothing after it that can be cancelled: `over` gives it back
        self._plans[session] = Reviewed(caller, found, sources, bound, built)

    async def before_start(self, caller: str, session: bytes, plan: Plan) -> None:
        """Look whether values are those that were reviewed, and approvals still count; see `Gate`."""
        with self.audited(caller, "run", session=session.hex()):
            if await self._bound(plan) != self._plans[session].bound:
                raise PlanError("a value that the plan reads was replaced meanwhile; run it again")
            self.board.require_approved(session)
            await self._signed(caller, self._plans[session].built)

    async def _signed(self, caller: str, built: Built | None) -> frozenset[str]:
        """Who has signed the study that a request is of. Raises ConsentError if that does not count now."""
        return await self.studies.signed(caller, None if built is None else built.request)

    async def _bound(self, plan: Plan) -> bytes:
        """The digest of a plan and of the identities of all that it reads."""
        digest = hashlib.blake2b(plan.digest(), digest_size=32, person=b"tercet-inputs")
        for handle in plan_handles(plan, "input"):
            loose = self.ledger.find(handle)
            entry = None if loose else await self.vault.ask(self.vault.catalog.of_handle, handle)
            found = loose or entry
            digest.update(f"{handle}\n{found.identity if found else ''}\n".encode())
        return digest.digest()

    async def _wait(self, waiting: Waiting, facts: Mapping[str, str], *, once: bool) -> None:
        """Wait for approvals. `once`: the plan opens what is not known to be harmless to the nodes."""
        await self.ledger.ask(waiting, most=1 if once else MOST_ATTEMPTS)
        if waiting.missing:
            self.audit.append("waits", caller=waiting.caller, **facts, owners=waiting.missing)
        await self.board.wait(waiting)
        await self.ledger.let_through(waiting.run)

    async def after_run(self, caller: str, session: bytes, plan: Plan, outcome: Outcome) -> Outcome:
        """Hold back what rests on too few rows; seal what is for others; note what was stored."""
        known = self._plans[session]
        found, sources = known.review, known.sources
        with self.audited(caller, "result", session=session.hex()):
            for source in sorted(sources):
                entry = await self.permits.table(source)
                if entry.owner != caller:
                    check_counts(entry, found, outcome.symbols)
        for handle in known.stored:
            await self._require_new(handle, run_of(session))
        sizes = {handle: self.party.bytes_held(one.type) for handle, one in outcome.stored.items()}
        with self.audited(caller, "result", session=session.hex()):
            self._require_room(caller, sum(sizes.values()), len(sizes))
        mine, results = [], []
        for revealed in outcome.revealed:
            to = revealed[1]
            if to in (TO_CALLER, caller):
                mine.append(revealed)
                continue
            run, party = run_of(session), self.party.index
            key = self.permits.member(to).sealing_key
            sealed = sealed_result(run, caller, plan.name, revealed, party=party, sealing_key=key)
            results.append((to, sealed))
        values = {
            handle: LooseValue(
                caller,
                sources,
                frozenset(rows),
                rows.order.value if isinstance(rows, Rows) else "",
                size=sizes[handle],
            )
            for handle, rows in known.stored.items()
        }
        outcome = attrs.evolve(outcome, revealed=mine)
        job, following = self.jobs.alone(session), b""
        if (built := known.built) is not None:
            ends = await in_thread(self.requests.note, caller, built, outcome)
            with self.audited(caller, "result", session=session.hex()):
                await self.permits.ended(caller, built, sources, ends)
            if job is not None and built.known.driven and not results:
                following = await in_thread(self.requests.following, caller, built, outcome)
        ending = None if job is None else await self.jobs.ending(job, outcome, following)
        more = len(b"" if ending is None else ending.answer) + sum(len(body) for _, body in results)
        if more:
            with self.audited(caller, "result", session=session.hex()):
                waits = await self.vault.ask(self.vault.journal.bytes_waiting, caller)
                self.quotas.require(caller, "results_mb", waits, more)
        end, most = self.ledger.end, self.quotas.quota.results
        stored = await end(session, values, outcome.stored, results, ending, sender=caller, most=most)
        return attrs.evolve(outcome, stored=stored)

    async def reached(self, caller: str, session: bytes, point: int, values: Mapping[str, Stored]) -> None:
        """Write a checkpoint down; see `Gate.reached`."""
        await self.ledger.reach(session, caller, self._plans[session].bound, point, values)

    async def resume(
        self, caller: str, session: bytes, plan: Plan, since: Since
    ) -> tuple[Plan, dict[str, Stored]]:
        """What is left of a plan that was let through as a whole; see `Gate.resume`."""
        with self.audited(caller, "resume", session=session.hex()):
            names = checkpoints(plan).get(since[1], ())
            left = await in_thread(rest, plan, since[1])
            bound = self._plans[session].bound
            values = await self.ledger.resume(session, caller, bound, since, names)
        return left, {checkpoint_handle(name): stored for name, stored in values.items()}

    def bytes_held(self) -> int:
        """Bytes of tiles of values that lie in files."""
        return self.vault.files.cache.held

    def over(self, session: bytes) -> None:
        """Forget a run that has ended; the next one may have its turn."""
        self.board.under_way.pop(session, None)
        self.ledger.release(run_of(session))
        self.quotas.end(session)
        reviewed = self._plans.pop(session, None)
        if reviewed is not None and self.party.index == 0:
            self._turns.give_back(reviewed.caller)

    async def _look(self, caller: str, plan: Plan, run: bytes) -> tuple[Review, Tables]:
        """What a plan does, and which tables it reads, directly or in what was made from them."""
        origins: dict[str, Tables] = {}
        sources: set[str] = set()
        for handle in plan_handles(plan, "store"):
            await self._require_new(handle, run)
        for handle in plan_handles(plan, "input"):
            origins[handle], made_from = await origin_of(caller, handle, self.vault, self.ledger)
            sources |= made_from
        found = await in_thread(review, plan, origins.__getitem__, self.party.protocol)
        return found, frozenset(sources)

    # -- what members ask ------------------------------------------------------------------------------------

    async def answer(self, caller: str, verb: str, args: Sequence[Any]) -> dict[str, Any]:
        """Answer a request; see `Gate.answer`. `tercet.client.member_api` has the other end."""
        with self.audited(caller, verb):
            return await self._answer(caller, verb, args)

    async def _answer(self, caller: str, verb: str, args: Sequence[Any]) -> dict[str, Any]:
        match verb, args:
            case "status", []:
                return self._status(caller)
            case "entries" | "plans" | "results", [*mark] if len(mark) <= 1:
                return await listed(self.vault, self.board, caller, verb, *mark)
            case "entry", [str(kind), str(name)]:
                return await entry_of(self.vault, kind, name)
            case "forget", [str(kind), str(name)]:
                await self._forget(caller, kind, name)
                return {}
            case "plan", [bytes(session)]:
                waiting = self.board.find(session)
                return {**waiting.summary(), "packed": waiting.plan.to_bytes()}
            case "approve", [dict(fields)]:
                await self._approve(caller, fields)
                return {}
            case "refuse", [bytes(session), str(why)]:
                self.board.refuse(caller, session, why)
                return {}
            case "received", [bytes(session)]:
                await self.vault.ask(self.vault.journal.take_away, caller, session)
                return {}
            case "audit", [int(start)] if start >= 0:
                self._require(caller, ("auditor", "operator", "owner"), "read the audit log")
                lines = await in_thread(self.audit.lines, start)
                return {"lines": lines, "number": self.audit.head.lines}
            case "amend", [bytes(packed)]:
                self._require(caller, ("operator",), "give nodes a list of members")
                await self._amend(caller, packed)
                return {}
            case "amendment", []:
                return {"packed": self.roster.packed}
            case _ if verb in keeping.VERBS:
                await self._keep(caller, verb, args)
                return {}
            case _ if verb in study_runs.VERBS:
                self._require(caller, ("analyst", "owner", "auditor"), "see studies")
                return await self.studies.answer(caller, verb, args)
            case _:
                return await super().answer(caller, verb, args)

    async def _amend(self, caller: str, packed: bytes) -> None:
        self._require_lines(caller)
        after = await in_thread(self.roster.take, packed)
        self.roster.changed.set()
        signers = sorted(one.node for one in after.signatures)
        self.audit.append(
            "amendment", caller=caller, file=after.number, at=str(after.takes_effect), signers=signers
        )

    async def _keep(self, caller: str, verb: str, args: Sequence[Any]) -> None:
        self._require(caller, ("owner", "analyst"), "keep tables, models or numbers")
        self._require_lines(caller)
        entry = await self.keeping.answer(caller, verb, args)
        if entry is not None:
            rules = str(Rules.from_bytes(entry.rules))
            self.audit.append("kept", caller=caller, kind=entry.kind, name=entry.name, rules=rules)

    def _require_lines(self, caller: str) -> None:
        self.quotas.require(caller, "log_lines", self.audit.lines_this_hour(caller))

    async def _forget(self, caller: str, kind: str, name: str) -> None:
        found = await self.vault.ask(self.vault.catalog.find, kind, name)
        if found is None:
            return  # also the second time that somebody asks
        self._require_lines(caller)
        if found.owner != caller:
            raise ConsentError(f"{kind} {name!r} is {found.owner}'s, not {caller}'s")
        await self.vault.drop(found)
        self.audit.append("dropped", caller=caller, kind=kind, name=name)

    async def _approve(self, caller: str, fields: Mapping[str, Any]) -> None:
        self._require_lines(caller)
        try:
            approval = Approval(**fields)
            waiting = self.board.find(approval.session)
            if approval.approver != caller or caller not in waiting.owners:
                raise ConsentError(f"{caller} is not asked to approve plan {approval.session.hex()[:8]}")
            self._check_approval(waiting, approval, [self.permits.member(caller).certificate])
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"an approval of {caller} is malformed ({error})") from error
        await self.vault.ask(self.vault.journal.approve, attrs.asdict(approval))
        waiting.approvals[caller] = approval
        self.audit.append(
            "approved",
            caller=caller,
            session=waiting.run.hex(),
            digest=approval.digest.hex(),
            expires=approval.expires,
            signature=approval.signature.hex(),
        )
        waiting.changed.set()

    def _check_approval(
        self, waiting: Waiting, approval: Approval, certificates: Sequence[str] | None = None
    ) -> None:
        """Of one that comes now, by the present key; of one that is kept, by all that are not revoked."""
        known = certificates or self.permits.member(approval.approver).trusted
        approval.check(self.roster.cluster.lake, waiting.run, waiting.plan.digest(), known)

    def _status(self, caller: str) -> dict[str, Any]:
        operates = "operator" in self.permits.member(caller).roles
        return {
            "release": RELEASE,
            "missing_parties": self.party.missing(),
            "workers": None if (workers := self.party.presence) is None else workers.to_wire(),
            "runs": self.party.running,
            "waiting": len(self.board.plans),
            "free_bytes": free_bytes(self._file),
            "audit": [self.audit.head.lines, self.audit.head.digest],
            "coming": self.roster.announced,
            "went_back": self.roster.went_back,
            "memory_bytes": resident_bytes() if operates else None,  # which follows what others do
        }

    # -- who and what ----------------------------------------------------------------------------------------

    def _require(self, caller: str, roles: Sequence[str], what: str) -> Member:
        member = self.permits.member(caller)
        if not set(roles) & set(member.roles):
            raise ConsentError(f"{caller} may not {what}: that takes the role {' or '.join(roles)}")
        return member

    @contextlib.contextmanager
    def audited(self, caller: str, request: str, **facts: Any) -> Iterator[None]:
        """Write down what is refused inside; see `Gate.audited`."""
        try:
            yield
        except (ConsentError, PlanError) as error:
            self._refusals.write(caller, request, str(error), facts)
            raise

    async def _require_new(self, handle: str, run: bytes = b"") -> None:
        """No value may come to lie under the handle of another, or under one that a run is going to use."""
        self.ledger.require_free(handle, run)
        if await self.vault.ask(self.vault.catalog.of_handle, handle) is not None:
            raise PlanError(f"something is stored under {handle!r:.80} already; take another handle")
