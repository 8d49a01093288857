"""Studies at a node: proposed, signed by the owners of all tables that they name, run so often, until a time.

A node goes by its own catalog, by signatures that it checks each time, and by what its journal has counted.
What a study may do is decided in `Standing`, from plain data; the rest here asks the journal, the catalog and
the cluster's file, and writes down what was decided. A request is let through once for each run, as the
computation that it was first: the steps of one computation, and attempts at them, have one name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import attrs
import msgpack

from tercet.actors import pages
from tercet.actors.threads import in_thread
from tercet.errors import ConsentError, ProtocolError
from tercet.members import decisions
from tercet.members.audit import AuditLog
from tercet.members.decisions import TO_CALLER, Result, Verdict, decide
from tercet.members.rules import LATEST, MODEL, TABLE, Rules, moment
from tercet.members.studies import RUN_BYTES, Asked, Study, StudyApproval, matches, plain, read_step
from tercet.members.study_pages import (
    DOES,
    Facts,
    TableFacts,
    kind_of,
    named_columns,
    origins,
    page,
    row_origins,
    sum_origins,
)
from tercet.ml.computations import COMPUTATIONS, Request, defaults_of
from tercet.nodes.entries import GONE
from tercet.nodes.refusals import cut
from tercet.nodes.requests import Recent
from tercet.nodes.roster import Roster
from tercet.nodes.vault import Vault
from tercet.storage.catalog import Entry
from tercet.storage.study_journal import RunRow, StudyJournal, StudyRow

MOST_STUDIES = 64
"""Studies of one member that a node keeps, until their time is up."""
PAGE_STUDIES = 8
"""Studies of a page of their list."""
LONGEST_S = 2 * 366 * 86400.0
"""A study ends within so long."""
VERBS = frozenset(
    {
        "propose-study",
        "studies",
        "study",
        "approve-study",
        "refuse-study",
        "begin-study",
        "end-study",
    }
)


@attrs.frozen
class Standing:
    """Where a study stands: whose approvals hold, whose are missing, how often it may run, and until when."""

    study: Study
    runs: int
    refusal: str
    approvals: tuple[StudyApproval, ...]
    missing: tuple[str, ...]

    @property
    def uses(self) -> int:
        """How often all who have signed allow it."""
        return min([self.study.uses, *(one.uses for one in self.approvals)])

    @property
    def until(self) -> int:
        """Until when all who have signed allow it."""
        return min([self.study.until, *(one.expires for one in self.approvals)])

    def require(self, now: float) -> None:
        """Raise ConsentError unless requests of it may be let through now."""
        number = self.study.number
        if self.refusal:
            raise ConsentError(self.refusal)
        if now > self.until:
            raise ConsentError(f"study {number} ended on {moment(self.until)}; propose one with a later end")
        if self.missing:
            raise ConsentError(
                f"study {number} waits for {', '.join(self.missing)}, who can `tercet approve {number}`"
            )

    def used_up(self) -> NoReturn:
        """Say that it was run as often as it may be. Raises ConsentError."""
        raise ConsentError(
            f"study {self.study.number} has been run {self.runs} times of {self.uses}; propose one with "
            "more uses, or another purpose"
        )


@attrs.frozen
class Admitted:
    """A request that is let through: of which study, at which position, with whose consent."""

    study: Study
    position: int
    owners: frozenset[str]


class Studies:
    """The studies of one node."""

    def __init__(self, vault: Vault, roster: Roster, audit: AuditLog) -> None:
        self._vault, self._roster, self._audit = vault, roster, audit
        self._journal = StudyJournal(vault.catalog)
        self._read = Recent[Study]()
        """Studies that were read lately, by digest."""
        self._asked: dict[bytes, tuple[Any, frozenset[str]]] = {}
        """Whose approval they take, by digest, and by what that follows from."""

    async def answer(self, caller: str, verb: str, args: Sequence[Any]) -> dict[str, Any]:
        """Answer a member. Raises ConsentError, or ProtocolError for what no client of this release asks."""
        match verb, args:
            case "propose-study", [bytes(packed)]:
                return {"digest": await self.propose(caller, packed)}
            case "studies", [*mark] if len(mark) <= 1:
                return await self.listed(*mark)
            case "study", [bytes(digest)]:
                return await self.show(digest)
            case "approve-study", [dict(fields)]:
                await self.approve(caller, fields)
            case "refuse-study", [bytes(digest), str(why)]:
                await self.refuse(caller, digest, why)
            case "begin-study", [bytes(digest), bytes(run)] if len(run) == RUN_BYTES:
                await self.begin(caller, digest, run)
            case "end-study", [bytes(run)]:
                await self.end(caller, run)
            case _:
                raise ProtocolError(f"{caller} asked {verb!r:.40} in a way that nodes do not know")
        return {}

    # -- before it runs --------------------------------------------------------------------------------------

    async def propose(self, caller: str, packed: bytes) -> bytes:
        """Take a study of a member's, for owners to look at; its digest. A second time does nothing."""
        study = await in_thread(Study.from_bytes, packed)
        if study.analyst != caller:
            raise ConsentError(
                f"the study is {study.analyst}'s, and {caller} proposes it: record it as {caller}, or write "
                f'"analyst": "{caller}" into its file'
            )
        now = time.time()
        if not now < study.until <= now + LONGEST_S:
            raise ConsentError(
                f"study {study.number} ends on {moment(study.until)}; let it end after today, and within two "
                "years"
            )
        for name in study.receivers:
            if self._roster.cluster.member(name) is None:
                raise ConsentError(f"study {study.number} sends results to {name!r}, who is no member")
        facts, entries = await self._facts(study)
        await in_thread(page, study, facts)
        for verdict, _ in await in_thread(self._verdicts, study, facts, entries):
            if verdict.refusal:
                raise ConsentError(f"study {study.number}: {verdict.refusal}")
        digest = study.digest()
        fields = {
            "analyst": caller,
            "packed": study.to_bytes(),
            "proposed": now,
            "until": float(study.until),
        }
        if not await self._vault.ask(self._journal.propose, digest, fields, MOST_STUDIES, facts.models):
            raise ConsentError(
                f"{caller} has {MOST_STUDIES} studies at this node already; they go when their time is up"
            )
        found = await self._standing(digest)
        if found.refusal:
            raise ConsentError(f"{found.refusal}; propose another")
        self._audit.append(
            "proposed",
            caller=caller,
            study=digest.hex(),
            purpose=cut(study.purpose),
            owners=list(found.missing),
            uses=study.uses,
            until=study.until,
        )
        return digest

    def _verdicts(
        self, study: Study, facts: Facts, entries: Mapping[str, Entry]
    ) -> list[tuple[Verdict, frozenset[str]]]:
        """What owners' rules say of each request, as far as that is known before it runs; and all owners.

        Takes long, of many requests: called in a thread.
        """
        rules = {name: (one.owner, Rules.from_bytes(one.rules)) for name, one in entries.items()}
        values = {name: frozenset(one.columns) - set(one.keys) for name, one in facts.tables.items()}
        found = []
        analyst = study.analyst
        member = self._roster.cluster.member(analyst)
        analysts = frozenset(one.name for one in self._roster.cluster.members if "analyst" in one.roles)
        each = zip(study.requests, origins(study, facts), row_origins(study), sum_origins(study), strict=True)
        for request, names, by_row, met in each:
            there = [name for name in names if name in entries]
            receiver = analyst if request.receiver == TO_CALLER else request.receiver
            kind = kind_of(request)
            gives = Result(DOES[request.computation].gives, kind, receiver, tables=frozenset(by_row))
            chosen = frozenset(named_columns(request))
            asked = decisions.Asked(
                caller=analyst,
                roles=frozenset(() if member is None else member.roles),
                computation=request.computation,
                group=COMPUTATIONS[request.computation].group,
                by_hand=False,
                assigns=decisions.assigns(request.computation, request.arguments),
                columns={name: chosen & values[name] for name in there},
                results=(gives,),
                over=frozenset(met),
                sizes=decisions.sizes_told(request.computation, request.arguments),
                now=time.time(),
                analysts=analysts,
            )
            verdict = decide({name: rules[name] for name in there}, asked)
            found.append((verdict, frozenset(rules[name][0] for name in there)))
        return found

    async def listed(self, mark: Any = None) -> dict[str, Any]:
        """A page of studies, as the list of them says; see `pages`. Each is read, so they are few."""
        match pages.after(mark, list):
            case None:
                start = 0.0, b""
            case [float(proposed), bytes(digest)]:
                start = proposed, digest
            case _:
                raise ProtocolError(f"{mark!r:.80} is not where a page of studies begins")
        rows = await self._vault.ask(self._journal.page, start, PAGE_STUDIES + 1)
        shown = [self._summary(row, await self._stand(row)) for row in rows[:PAGE_STUDIES]]
        last = [rows[len(shown) - 1].proposed, rows[len(shown) - 1].digest] if shown else mark
        return {"studies": shown, "last": last, "more": len(rows) > PAGE_STUDIES}

    async def show(self, digest: bytes) -> dict[str, Any]:
        """A study as it was proposed, and what it does, in this node's sentences."""
        row = await self._row(digest)
        found = await self._stand(row)
        facts, _ = await self._facts(found.study, there=False)
        lines = await in_thread(page, found.study, facts)
        return {**self._summary(row, found), "packed": row.packed, "page": lines}

    def _summary(self, row: StudyRow, found: Standing) -> dict[str, Any]:
        return {
            "digest": row.digest,
            "analyst": row.analyst,
            "purpose": found.study.purpose,
            "proposed": row.proposed,
            "until": found.until,
            "uses": found.uses,
            "runs": row.runs,
            "missing": list(found.missing),
            "approved": [one.approver for one in found.approvals],
            "refusal": row.refusal,
        }

    async def approve(self, caller: str, fields: Mapping[str, Any]) -> None:
        """Note an owner's signature."""
        match fields:
            case {
                "digest": bytes(digest),
                "approver": str(),
                "uses": int(),
                "expires": int(),
                "signature": bytes(),
            } if len(fields) == 5:
                approval = StudyApproval(**fields)
            case _:
                raise ProtocolError(f"an approval of {caller} is malformed; look at the client's release")
        found = await self._standing(digest)
        if found.refusal:
            raise ConsentError(found.refusal)
        facts, entries = await self._facts(found.study)
        if approval.approver != caller or caller not in await self._owners(found.study, facts, entries):
            raise ConsentError(f"{caller} is not asked to approve study {found.study.number}")
        approval.check(self._roster.cluster.lake, found.study, [self._roster.member(caller).certificate])
        await self._vault.ask(self._journal.approve, attrs.asdict(approval))
        self._audit.append(
            "approved",
            caller=caller,
            study=digest.hex(),
            uses=approval.uses,
            expires=approval.expires,
            signature=approval.signature.hex(),
        )

    async def refuse(self, caller: str, digest: bytes, why: str) -> None:
        """End a study, also one that runs: an owner who is asked may, and its analyst."""
        found = await self._standing(digest)
        facts, entries = await self._facts(found.study, there=False)
        asked = found.study.analyst, *await self._owners(found.study, facts, entries)
        if caller not in asked:
            raise ConsentError(f"{caller} is not asked about study {found.study.number}")
        verb = "withdrawn" if caller == found.study.analyst else "refused"
        reason = cut(why[:200]) or "no reason was given"
        await self._vault.ask(
            self._journal.refuse, digest, f"{caller} has {verb} study {found.study.number}: {reason}"
        )
        self._audit.append("refused-study", caller=caller, study=digest.hex(), why=reason)

    # -- while it runs ---------------------------------------------------------------------------------------

    async def begin(self, caller: str, digest: bytes, run: bytes) -> None:
        """Count a run of a study. A second time, of the same run, does nothing."""
        found = await self._standing(digest)
        if found.study.analyst != caller:
            raise ConsentError(f"study {found.study.number} is {found.study.analyst}'s, not {caller}'s")
        found.require(time.time())
        if not await self._vault.ask(self._journal.begin_run, run, digest, found.uses, time.time()):
            found.used_up()
        self._audit.append("begins", caller=caller, study=digest.hex(), run=run.hex())

    async def signed(self, caller: str, request: Request | None) -> frozenset[str]:
        """The owners who have signed the study that a request says it belongs to; nobody if it says none.

        Raises ConsentError if it is not the one that the study has there.
        """
        if request is None or not request.study:
            return frozenset()
        run, position = read_step(request.study)
        asked = Asked(request.computation, request.arguments)
        return (await self.admit(caller, run, position, asked, request.name)).owners

    async def admit(
        self, caller: str, run: bytes, position: int, request: Asked, computation: bytes
    ) -> Admitted:
        """Let a request through that is the one at a position of the study of a run. Raises ConsentError."""
        row = await self._run(caller, run)
        found = await self._standing(row.digest)
        found.require(time.time())
        if row.ended:
            raise ConsentError(f"this run of study {found.study.number} has ended; begin another")
        done = {known.hex(): place for place, known in row.steps.items()}
        matches(found.study, position, request, done, defaults_of(request.computation))
        if not await self._vault.ask(self._journal.take_step, run, position, computation):
            raise ConsentError(
                f"request {position}, {request.computation}, was made in this run of study "
                f"{found.study.number} before; each is made once, so begin another run"
            )
        if position not in row.steps:
            self._audit.append(
                "admitted",
                caller=caller,
                study=row.digest.hex(),
                run=run.hex(),
                position=position,
                computation=request.computation,
                name=computation.hex(),
            )
        return Admitted(found.study, position, frozenset(one.approver for one in found.approvals))

    async def end(self, caller: str, run: bytes) -> None:
        """A run takes no more requests."""
        await self._run(caller, run)
        await self._vault.ask(self._journal.end_run, run)

    async def sweep(self) -> None:
        """Forget studies whose time is up."""
        for digest in await self._vault.ask(self._journal.sweep, time.time()):
            self._read.pop(digest, None)
            self._asked.pop(digest, None)

    # -- who and what ----------------------------------------------------------------------------------------

    async def _run(self, caller: str, run: bytes) -> RunRow:
        row = await self._vault.ask(self._journal.run, run)
        if row is None or (await self._row(row.digest)).analyst != caller:
            raise ConsentError(f"{caller} has begun no such run of a study here; begin one")
        return row

    async def _row(self, digest: bytes) -> StudyRow:
        row = await self._vault.ask(self._journal.find, digest)
        if row is None:
            raise ConsentError(
                f"there is no study {digest.hex()[:8]} here; `tercet propose` gives one to all nodes, and "
                "they keep it until its time is up"
            )
        return row

    async def _standing(self, digest: bytes) -> Standing:
        return await self._stand(await self._row(digest))

    async def _stand(self, row: StudyRow) -> Standing:
        study = self._read.get(row.digest)
        if study is None:
            study = self._read.keep(row.digest, await in_thread(Study.from_bytes, row.packed))
        facts, entries = await self._facts(study, there=False)
        owners = await self._owners(study, facts, entries)
        valid = [one for given in row.approvals if self._holds(one := StudyApproval(**given), study)]
        held = {one.approver for one in valid}
        missing = tuple(sorted(owners - held))
        if any(name not in entries for name in facts.tables):
            missing = (*missing, "the owner of a table that is gone")
        gone = ", ".join(sorted(owners & {*self._roster.cluster.removed}))
        refusal = row.refusal or _other_models(study, row.models, facts.models)
        if gone and not refusal:
            refusal = f"study {study.number} reads tables of {gone}, no member of the lake any more"
        return Standing(study, row.runs, refusal, tuple(valid), missing)

    def _holds(self, approval: StudyApproval, study: Study) -> bool:
        """Whether an approval still is one: keys are revoked, members go, and time passes."""
        try:
            trusted = self._roster.member(approval.approver).trusted
            approval.check(self._roster.cluster.lake, study, trusted)
        except ConsentError:
            return False
        return True

    async def _owners(self, study: Study, facts: Facts, entries: Mapping[str, Entry]) -> frozenset[str]:
        """Whose approval it takes: of the tables that it reads, those whose rules leave something to ask."""
        digest = study.digest()
        rules = {one.identity: Rules.from_bytes(one.rules) for one in entries.values()}
        over = [identity for identity, one in rules.items() if (one.until or math.inf) <= time.time()]
        number = self._roster.cluster.number
        known = number, tuple(sorted(rules)), tuple(sorted(over)), tuple(sorted(facts.models.items()))
        before = self._asked.get(digest)
        if before is None or before[0] != known:
            found = set[str]()
            for verdict, owners in await in_thread(self._verdicts, study, facts, entries):
                found |= owners if verdict.refusal else verdict.owners
            before = self._asked[digest] = known, frozenset(found - {study.analyst})
        return before[1]

    async def _facts(self, study: Study, *, there: bool = True) -> tuple[Facts, dict[str, Entry]]:
        """What the catalog has on tables and models of a study. Raises ConsentError for one that is gone."""
        entries: dict[str, Entry] = {}
        models: dict[str, tuple[str, ...]] = {}
        for name in study.models():
            entry = await self._entry(MODEL, name)
            if entry is None:
                if there:
                    raise _no_such(study, MODEL, name)
                models[name] = (GONE,)
                continue
            sources = [await self._vault.ask(self._vault.catalog.identified, one) for one in entry.sources]
            models[name] = tuple(sorted({GONE if one is None else one.name for one in sources}))
        names = dict.fromkeys([*study.tables(), *(name for listed in models.values() for name in listed)])
        tables: dict[str, TableFacts] = {}
        for name in names:
            entry = await self._entry(TABLE, name)
            if entry is None:
                if there:
                    raise _no_such(study, TABLE, name)
                tables[name] = TableFacts(GONE, ())
                continue
            entries[name] = entry
            tables[name] = _table_facts(entry)
        return Facts(tables, models), entries

    async def _entry(self, kind: str, name: str) -> Entry | None:
        found = await self._vault.ask(self._vault.catalog.find, kind, name)
        return None if found is None or (found.expires or LATEST) <= time.time() else found


def _no_such(study: Study, kind: str, name: str) -> ConsentError:
    return ConsentError(
        f"study {study.number} reads {kind} {name!r:.80}, and there is none in the lake; what a study reads "
        "has to be there when it is proposed"
    )


def _other_models(study: Study, before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> str:
    """Why a study may not go on with a model that was kept meanwhile; nothing if it may.

    Owners sign what they were shown, and a model of that name made from other tables is another one.
    """
    for name, tables in now.items():
        if not set(tables) <= {GONE, *before.get(name, tables)}:
            made, is_made = (", ".join(map(plain, one)) or "no table" for one in (before[name], tables))
            return (
                f"model {name!r:.80} was made from {made} when study {study.number} was proposed, and is "
                f"made from {is_made} now; propose another"
            )
    return ""


def _table_facts(entry: Entry) -> TableFacts:
    """A table's columns, keys first, from its description; its owner has written it."""
    try:
        columns = msgpack.unpackb(entry.body)["columns"]
        names = tuple(str(column["name"]) for column in columns)
        keys = tuple(str(column["name"]) for column in columns if column["kind"] == "key")
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ConsentError(f"the description of table {entry.name!r} is malformed ({error})") from error
    return TableFacts(entry.owner, names, keys)
