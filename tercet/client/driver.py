"""Driving: how a lake takes computations through their plans, uploads tables, and records what it did.

A computation is a generator of plans (see `ml.table`). The driver runs each plan at the nodes and sends the
result back in. What a plan reveals to another member ends the computation: its numbers are not for this one.
"""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import attrs
import msgpack
import trio

from tercet.actors.progress import Reading
from tercet.client.allow import Allow
from tercet.client.bars import counting, somebody_looks, watching
from tercet.client.client import Asked
from tercet.client.cluster import Cluster
from tercet.client.member_api import Desk, Kept
from tercet.client.recording import Requests
from tercet.client.remote import Remote
from tercet.client.under_way import Ended, Run
from tercet.errors import ConsentError, KeyWarning, PlanError, SchemaError, StorageError, TercetError
from tercet.members.rules import MODEL, TABLE, Rules
from tercet.ml import computations
from tercet.ml.computations import NAME_BYTES, TEMPORARY, Calls, Computed, Naming, Request
from tercet.ml.faces import F, Faced, computes
from tercet.ml.ingest import EncodedTable
from tercet.ml.models import SecretModel
from tercet.ml.numbers import Formulas
from tercet.ml.schema import TableSchema, check_name, suggest
from tercet.ml.table import Steps, Table
from tercet.ml.upload import describe, encode_for_upload, handles_needed
from tercet.options import Text, takes
from tercet.plans import Builder, Disclosure, Plan
from tercet.plans.passes import optimise
from tercet.plans.results import RunResult
from tercet.plans.types import word_shape
from tercet.tracebacks import short
from tercet.transports.forks import Home

T = TypeVar("T")


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

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return "\n".join(f"- {item}" for item in self) if self else "nothing"


class Driver:
    """What both lakes share."""

    def __init__(self, cluster: Cluster, *, progress: bool | None = None) -> None:
        self._cluster = cluster
        self._home = Home()
        self.progress = somebody_looks() if progress is None else progress
        """Whether bars on standard error show how far long plans are."""
        self._models: dict[str, SecretModel] = {}
        self._submitted: dict[bytes, bytes] = {}
        """Names of computations that were submitted to nodes which make no plans, by job."""
        self.requests: Requests | None = None
        """Where requests are written down, or are those of a study."""
        self.disclosed = DisclosureLog()
        """Everything that was opened so far, to whom."""
        self.phases: list[Phase] = []
        """What each call has cost, in order."""
        self.checkpoint_every: int | None = None
        """Steps of a fit between its checkpoints; None where the table's size decides."""
        self.on_phase: Callable[[str, str], None] | None = None
        """Called with the phase and the plan's name before each plan runs: for progress displays."""
        self.on_progress: Callable[[str, Reading], None] | None = None
        """Called with the plan's name and how far it is, a few times a second: for displays of one's own."""
        self.on_result: Callable[[Plan, RunResult], None] | None = None
        """Called with each plan that has run, and its result: for studies of what plans cost."""

    def __repr__(self) -> str:
        where = "elsewhere" if isinstance(self._cluster, Remote) else "on this machine"
        count = self._cluster.parties
        nodes = f"{count} node{'s' if count > 1 else ''} {where}"
        return f"{type(self).__name__} of {nodes}, protocol {self.protocol}, {self._state()}"

    def _state(self) -> str:
        return "open" if self._home.here else "of another process"

    @property
    def cluster(self) -> Cluster:
        """The nodes. Raises TercetError in a fork of the process that opened the lake."""
        self._home.require()
        return self._cluster

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return self._cluster.protocol

    def __reduce__(self) -> NoReturn:
        raise TercetError(
            "a lake lives in the process that opened it, so neither it nor a table or model of it can be "
            "pickled or copied; open a lake there, or pass on what was revealed"
        )

    def builder(self, name: str) -> Builder:
        """A builder for a plan that this lake can run."""
        return Builder(name, tile_rows=self.cluster.client.tile_rows)

    @takes(name=Text(what="a name for the plan"))
    def plan(self, name: str) -> Formulas:
        """A plan to write as formulas over columns of tables, which runs when its `with` block ends."""
        return Formulas(self.builder(name), self)

    def handle(self, hint: str) -> str:
        """A new name for a value at the nodes; in a computation, the one that follows from its name."""
        names = computations.naming()
        return f"{hint}#{secrets.token_hex(8)}" if names is None else names.handle(hint)

    def temporary(self, hint: str) -> str:
        """A new name for values that later plans of a computation read, and that go when it ends."""
        return self.handle(TEMPORARY + hint)

    def checkpoint_steps(self, cells: int) -> int | None:
        """After how many steps over a table of so many cells a fit has a checkpoint, None for never.

        Only nodes that last keep checkpoints: after about a second of work, and at least every 25 steps.
        """
        return computations.checkpoint_steps(cells, self.checkpoint_every) if self.remote else None

    @short
    async def _drive(self, steps: Steps[T] | Calls[T], phase: str) -> T:
        """Run the plans that a computation yields, or the computations that come one after the other.

        Plans are made in a worker thread: large ones take a while.
        """
        self._home.require()
        temporary: list[str] = []
        try:
            given: T = await self._through(Run.of(steps), phase, temporary)
            return given
        finally:
            if temporary:
                self.cluster.client.post("drop", [temporary])

    async def _through(self, run: Run, phase: str, temporary: list[str], made: Any = None) -> Any:
        """What the computation returns; adds handles of what plans store for each other to `temporary`.

        It has `made` its next plan already, or begins.
        """
        if made is None:
            made = await trio.to_thread.run_sync(run.advance, None)
        while not isinstance(made, Ended):
            if isinstance(made, Computed):
                value = await self._drive(made, phase)
                if isinstance(value, Sent):
                    run.steps.close()
                    return value
                made = await trio.to_thread.run_sync(run.advance, value)
                continue
            handles = (str(node.get("handle")) for node in made.nodes if node.kind == "store")
            temporary += [handle for handle in handles if handle.startswith(TEMPORARY)]
            if self.on_phase is not None:
                self.on_phase(phase, made.name)
            result: RunResult | TercetError
            try:
                result = await self._run(made, phase, self._asked(run))
                run.note(made, result)
            except TercetError as error:
                result = error
            if isinstance(result, RunResult) and (sent := self._sent(made, result)):
                own = {name: one for name, one in result.revealed.items() if name not in sent.what}
                if not own or not run.apart:
                    # The rest of the computation would need numbers that are not for this member.
                    run.steps.close()
                    return sent
                result = attrs.evolve(result, revealed=own)
            made = await trio.to_thread.run_sync(run.advance, result)
        return run.given(made.value)

    def _sent(self, plan: Plan, result: RunResult) -> Sent | None:
        """What a plan has revealed to others."""
        reveals = reveals_of(plan)
        return Sent.of([(name, to) for name, to in reveals if name not in result.revealed])

    def _asked(self, run: Run) -> Asked | None:
        """How nodes that make plans themselves are asked for the next one of a computation."""
        if not self.remote and self.requests is None:
            return None
        request = run.request(self.checkpoint_every)
        if request is not None and self.requests is not None:
            request = self.requests.place(request)
        return request.packed_for if request is not None and self.remote else None

    async def _run(self, plan: Plan, phase: str, asked: Asked | None = None) -> RunResult:
        if not isinstance(plan, Plan):
            raise PlanError(f"a {type(plan).__name__} is no plan; make one with lake.builder(name).plan()")
        with watching(plan.name, wanted=self.progress) as bar:
            told = self.on_progress
            watch = bar if told is None else partial(told, plan.name)
            result = await self.cluster.run(plan, watch, asked)
        if self.on_result is not None:
            self.on_result(plan, result)
        return self._note(result, phase, plan.name)

    def _note(self, result: RunResult, phase: str, plan: str) -> RunResult:
        """Record what a run has cost and disclosed."""
        self.disclosed.extend(result.disclosed)
        self.phases.append(
            Phase(phase, plan, result.rounds, result.bytes_sent, result.client_bytes, result.seconds)
        )
        return result

    async def fetch(self, session: bytes) -> RunResult:
        """What a job gave, once it has ended."""
        title = f"job {session.hex()[:8]}"
        with watching(title, wanted=self.progress) as watch:
            result = await self.cluster.fetch(session, watch)
        return self._note(result, "job", title)

    @short
    async def _collect(self, steps: Steps[T], session: bytes) -> T:
        """Finish a computation that was submitted: `steps` makes it anew, and is told what its plans gave.

        Where nodes have only run the first of them, the others are run now. Raises PlanError if it does not
        make the plans of the job.
        """
        title = f"job {session.hex()[:8]}"
        client = self.cluster.client
        with watching(title, wanted=self.progress) as watch:
            job = await client.ended(session, watch)
        run = Run.of(steps, self._again(session, job.asked))
        made = await trio.to_thread.run_sync(run.advance, None)
        for step in range(job.steps):
            plan = optimise(made) if isinstance(made, Plan) else None
            last = step == job.steps - 1
            if plan is None or (last and plan.digest() != job.plan.digest()):
                run.steps.close()
                raise PlanError(
                    f"{title} is not this computation: it was submitted with other options, on another "
                    "table, or by another release"
                )
            result = self._note(await client.fetch_step(session, plan, step), "job", title)
            run.note(plan, result)
            made = await trio.to_thread.run_sync(run.advance, result)
        if not isinstance(made, Ended) and self.remote:
            run.steps.close()
            raise PlanError(f"{title} has ended before this computation has; submit it again")
        temporary: list[str] = []
        try:
            value: T = await self._through(run, "job", temporary, made)
            return value
        finally:
            if temporary:
                client.post("drop", [temporary])

    def _again(self, session: bytes, asked: bytes) -> Naming:
        """Names for a computation that was submitted, made anew."""
        if Request.is_one(asked):
            request = Request.from_bytes(asked)
            return Naming(request.name, every=request.every)
        return Naming(self._submitted.get(session) or secrets.token_bytes(NAME_BYTES))

    async def _submit(self, plan: Plan | Steps[Any], lake: Any) -> Job:
        self._home.require()
        if isinstance(plan, Plan):
            return Job(lake, await self.cluster.client.submit(plan))
        run = Run.of(plan)
        made = await trio.to_thread.run_sync(run.advance, None)
        if not isinstance(made, Plan):
            raise PlanError("a computation without a plan is no job; have it run")
        session = await self.cluster.client.submit(made, self._asked(run))
        if not self.remote:
            self._submitted[session] = run.names.computation
        return Job(lake, session)

    async def _jobs(self, lake: Any) -> list[Job]:
        answers = await self.cluster.client.ask_all_pages("jobs")
        states = [{one["session"]: one for one in jobs} for jobs in answers]
        found = []
        for session in states[0]:
            told = [one.get(session, {"state": "failed", "why": "a node has lost it"}) for one in states]
            worst = max(told, key=lambda one: ("done", "under way", "failed").index(one["state"]))
            found.append(Job(lake, session, worst["state"], worst["why"]))
        return found

    def _encode(
        self, source: Any, allow: Allow | None, *, name: str, min_count: int, **options: Any
    ) -> EncodedTable:
        """A table as it is dealt; see `encode_for_upload`. Nodes elsewhere tell labels to others."""
        self._home.require()
        options |= {"min_count": min_count, "label_count": 1}
        if self.remote:
            options["label_count"] = (allow or Allow()).least(min_count)
        with counting(f"read {name}", None, wanted=self.progress) as watch:
            encoded = encode_for_upload(source, name=name, watch=watch, **options)
        for finding in encoded.findings:
            warnings.warn(finding, KeyWarning, stacklevel=3)
        return encoded

    async def _upload(self, encoded: EncodedTable, lake: Any, allow: Allow) -> Table:
        """Deal a table to the nodes; where they keep tables, it lasts under its name."""
        schema = encoded.schema
        desk = self._desk() if self.remote else None
        if desk is not None:
            desk.require_members((*allow.readers, *allow.receivers))
        fingerprint = b"" if desk is None else desk.keys.fingerprint(encoded.content)
        if desk is not None and (known := await self._known(desk, schema, fingerprint, allow)) is not None:
            return named(describe(schema, known.handles, lake))
        began, moved = time.perf_counter(), self.cluster.client.bytes_moved
        if self.on_phase is not None:
            self.on_phase("upload", f"upload {schema.name}")
        client = self.cluster.client
        table = describe(schema, [self.handle(schema.name) for _ in range(handles_needed(schema))], lake)
        total = sum(math.prod(word_shape(part.type, {})) for part in (table.keys, *table.parts))
        with counting(f"upload {table.name}", total, wanted=self.progress) as watch:
            await client.put_rows(table.keys.handle, table.keys.type, encoded.key_rows, watch)
            for part in table.parts:
                await client.put_rows(part.handle, part.type, encoded.value_words, watch)
        if desk is not None:
            handles = [table.keys.handle, *(part.handle for part in table.parts)]
            body = msgpack.packb(schema.to_dict())
            rules = allow.rules(schema)
            await desk.keep(
                TABLE, schema.name, body, handles, rules, fingerprint=fingerprint, days=allow.days
            )
        moved = client.bytes_moved - moved
        self.phases.append(Phase("upload", f"upload {table.name}", 0, (), moved, time.perf_counter() - began))
        return named(table)

    async def _known(self, desk: Desk, schema: TableSchema, fingerprint: bytes, allow: Allow) -> Kept | None:
        """The same upload, if it was made before under the same rules. Raises for another table's name."""
        try:
            found = await desk.find(TABLE, schema.name)
        except StorageError:
            return None  # half of an earlier upload, which this one replaces
        if found is None:
            return None
        if found.owner != desk.name:
            raise ConsentError(f"table {schema.name!r} is {found.owner}'s; take another name")
        same = found.fingerprint == fingerprint and found.rules == allow.rules(schema)
        return found if same and found.expires is None and allow.days is None else None

    # -- what only nodes that last have ----------------------------------------------------------------------

    @property
    def remote(self) -> bool:
        """Whether the nodes run elsewhere, keep tables and ask owners."""
        return isinstance(self.cluster, Remote)

    def _desk(self) -> Desk:
        if not isinstance(self.cluster, Remote):
            raise PlanError("a lake on one machine keeps no tables and asks no owners; use tercet.connect")
        return self.cluster.desk

    async def _find_table(self, name: str, lake: Any) -> Table:
        found = await self._desk().find(TABLE, name)
        if found is None:
            known = [one.name for one in await self._desk().entries() if one.kind == TABLE]
            raise SchemaError(
                f"there is no table {name!r} in the lake. {suggest(name, known, kind='tables')}"
            )
        return named(describe(schema_of(found, self._desk().name), found.handles, lake))

    @short
    async def _keep_model(self, model: SecretModel, name: str, readers: Sequence[str]) -> None:
        """Keep a model: at the nodes where they last, else as long as this lake is open."""
        check_name(name, "A model's name")
        if not self.remote:
            self._models[name] = model
            return
        rules = Rules(tuple(readers), "any", 1, rows=False)
        await self._desk().keep_model(name, model.to_data(), rules)

    async def _find_model(self, name: str, lake: Any) -> SecretModel:
        known = list(self._models)
        if self.remote:
            found = await self._desk().find(MODEL, name)
            if found is not None:
                try:
                    facts = msgpack.unpackb(found.body)
                except (ValueError, msgpack.UnpackException) as error:
                    raise StorageError(f"the description of model {name!r} is malformed ({error})") from error
                model = SecretModel.from_dict(facts, name, found.handles, lake)
                return model.from_computation({"$model": name})
            known = [one.name for one in await self._desk().entries() if one.kind == MODEL]
        if name not in self._models:
            there = ", ".join(known) or "none"
            raise SchemaError(f"there is no model {name!r} in the lake; models are: {there}")
        return self._models[name]


def schema_of(found: Kept, caller: str) -> TableSchema:
    """The public schema of a kept table, for a member. Raises StorageError for what is none."""
    try:
        schema = TableSchema.from_dict(msgpack.unpackb(found.body))
        return schema.resting_on(found.rules.least_for(caller, found.owner))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise StorageError(f"the description of table {found.name!r} is malformed ({error})") from error


def named(table: Table) -> Table:
    """A table that nodes know by its name."""
    return table.from_computation({"$table": table.name})


@attrs.frozen(eq=False)
class Job(Faced[F]):
    """A plan that was submitted and runs whether or not anybody waits. `state` is from when it was listed.

    On an `AsyncLake`, `result` and `cancel` give awaitables.
    """

    lake: Any = attrs.field(repr=False)
    session: bytes
    state: str = "under way"
    why: str = ""

    def __repr__(self) -> str:
        return f"job {self.number}: {self.state}" + (f" ({self.why})" if self.why else "")

    @property
    def number(self) -> str:
        """What people call it; the same as in the list of plans that wait for approval."""
        return self.session.hex()[:8]

    @computes
    def result(self) -> RunResult:
        """Wait for the plan, and what it gave. Raises what it failed with; may be asked again."""
        found: RunResult = self.lake.call(self.lake.fetch, self.session)
        return found

    @computes
    def cancel(self) -> None:
        """End it if it is under way, and have the nodes forget it."""
        found: None = self.lake.call(self.lake.cluster.client.ask, "end", [self.session])
        return found


@attrs.frozen
class Sent:
    """What a call gives that reveals something to another member: who can receive what, with their key."""

    to: tuple[str, ...]
    what: tuple[str, ...]

    @classmethod
    def of(cls, sent: Sequence[tuple[str, str]]) -> Sent | None:
        """What was revealed, by name, to whom; None of nothing."""
        return (
            cls(tuple(dict.fromkeys(to for _, to in sent)), tuple(name for name, _ in sent)) if sent else None
        )

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"sent to {', '.join(self.to)}, who can open it: {', '.join(self.what)}"


def reveals_of(plan: Plan) -> list[tuple[str, str]]:
    """What a plan reveals, by name, and to whom."""
    return [(str(node.get("name")), str(node.get("to"))) for node in plan.nodes if node.kind == "reveal"]
