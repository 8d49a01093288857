"""Requests at a node: it makes the plans itself, from its own catalog and what it has noted of earlier ones.

A member names a computation of `tercet.ml`, its arguments, and for a later step the check bits so far. The
node calls the same generator that the member's client has called, with tables and models as its own catalog
has them, and runs the plan that comes out. What the computation gives, such as a joined table, is an object
here too: later requests refer to it by the computation's name. It is made anew from what the journal has, so
a restart loses none of it.

Nothing here trusts what came: every argument is decoded against the rules of its computation, whatever goes
wrong in a generator ends in a sentence, and a member has one plan made at a time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Generic, NoReturn, TypeVar

import attrs
import msgpack
import numpy as np

from tercet.actors.values import Outcome, read_type, type_fields
from tercet.errors import ConsentError, PlanError, SchemaError, StorageError, TercetError
from tercet.members.rules import Rules
from tercet.ml import computations
from tercet.ml.arguments import Decoder
from tercet.ml.computations import Answers, Computation, Naming, Request
from tercet.ml.declarations import require_declared
from tercet.ml.models import SecretModel
from tercet.ml.schema import TableSchema
from tercet.ml.table import Table
from tercet.ml.upload import describe
from tercet.nodes.vault import Vault
from tercet.plans import Builder, Plan
from tercet.plans.parsing import with_shape
from tercet.plans.passes import optimise
from tercet.plans.results import RunResult
from tercet.plans.types import TILE_ROWS, Type, word_shape
from tercet.storage.catalog import Entry
from tercet.storage.step_journal import StepJournal, StepRow

logger = logging.getLogger(__name__)
T = TypeVar("T")

MOST_STEPS = 4096
"""Steps of computations that a node remembers of a member."""
MOST_BYTES = 1 << 26
"""About what they take at most; where requests are long, fewer are remembered."""
MOST_BUILT = 32
"""Plans, and results, of one member that a node has at hand."""
LONGEST_CHAIN = 4096
"""Computations that a result may rest on, one on the other."""


class Recent(OrderedDict[Any, T], Generic[T]):
    """The latest of what was made; the oldest make room."""

    def keep(self, key: Any, value: T) -> T:
        """Note something, as the latest."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > MOST_BUILT:
            self.popitem(last=False)
        return value


@attrs.define(eq=False)
class Built:
    """A plan that was made for a request, and the generator that waits for what it gives."""

    request: Request
    known: Computation
    plan: Plan
    arguments: Mapping[str, Any]
    steps: Any
    names: Naming


@attrs.define(eq=False)
class _Member:
    """What was made for one member."""

    turn: threading.Lock = attrs.field(factory=threading.Lock)
    built: Recent[Built] = attrs.field(factory=Recent)
    results: Recent[Any] = attrs.field(factory=Recent)


class NodeWorkspace:
    """What computations need of a lake, at a node: they have plans made here, and nothing run."""

    every: int | None = None

    def builder(self, name: str) -> Builder:
        """A builder for a plan; see `Workspace`."""
        return Builder(name, tile_rows=TILE_ROWS)

    def handle(self, hint: str) -> str:
        """The handle that follows from the computation's name."""
        names = computations.naming()
        if names is None:
            raise PlanError("a node gives handles in computations only")
        return names.handle(hint)

    def temporary(self, hint: str) -> str:
        """The same, for values that go when the computation ends."""
        return self.handle(computations.TEMPORARY + hint)

    def checkpoint_steps(self, cells: int) -> int | None:
        """See `Workspace`; what a member said otherwise comes with the computation."""
        names = computations.naming()
        return computations.checkpoint_steps(cells, None if names is None else names.every)

    def perform(self, *what: Any) -> NoReturn:
        """Nothing is run in here."""
        raise PlanError(f"a node makes plans and does not run computations, {what!r:.80} among them")

    submit = collect = keep_model = perform


class Requests:
    """Makes plans of requests. Its methods block: they are called in threads."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._steps = vault, StepJournal(vault.catalog)
        self._lake = NodeWorkspace()
        self._members: dict[str, _Member] = {}
        self._guard = threading.Lock()

    def _member(self, caller: str) -> _Member:
        with self._guard:
            return self._members.setdefault(caller, _Member())

    def build(self, caller: str, packed: bytes) -> Built:
        """The plan that a member asks for. Raises PlanError, SchemaError or ConsentError."""
        request = Request.from_bytes(packed)
        built = self.made(caller, request)
        if request.digest != built.plan.digest():
            raise PlanError(
                f"{request.computation}: this node, of release {version('tercet')}, makes another plan of "
                "the request than the client did; a table or model was replaced since it was opened (open it "
                "again), or the client is of another release"
            )
        return built

    def made(self, caller: str, request: Request) -> Built:
        """The plan of a request, whatever the client made of it. Raises as `build`."""
        if self._steps.forgotten(request.name):
            raise ConsentError(
                f"{request.computation}: this node has forgotten what a computation of this name gave; names "
                "are used once"
            )
        member = self._member(caller)
        with member.turn:
            built = member.built.get((request.name, request.step))
            if built is None or not _same(built.request, request):
                with _sensible(request.computation):
                    built = self._build(caller, member, request)
                member.built.keep((request.name, request.step), built)
        return built

    def value(self, caller: str, data: Any) -> Any:
        """What a member refers to. Raises PlanError, SchemaError or ConsentError."""
        member = self._member(caller)
        with member.turn, _sensible("a reference"):
            return self._decoder(caller, member, {}).value(data)

    def note(self, caller: str, built: Built, outcome: Outcome) -> int:
        """Note what is public of a step that has come to its end; how often it has. Raises StorageError."""
        stored = {handle: type_fields(one.type) for handle, one in outcome.stored.items()}
        facts = msgpack.packb([stored, dict(outcome.symbols)])
        request = built.request
        row = StepRow(request.name, request.step, caller, request.to_bytes(), facts)
        most = min(MOST_STEPS, MOST_BYTES // (len(row.request) + len(facts)))
        return self._steps.put_step(row, most)

    def following(self, caller: str, built: Built, outcome: Outcome) -> bytes:
        """The request for the next step, by the bits that nodes were told; nothing at the end."""
        told = {name: [float(bit) for bit in np.ravel(bits)] for name, bits in outcome.told.items()}
        after = attrs.evolve(built.request, answers=(*built.request.answers, told), digest=b"")
        try:
            made = self.made(caller, after)
            return attrs.evolve(after, digest=made.plan.digest()).to_bytes()
        except (PlanError, SchemaError) as end:
            logger.info("%s %s ends: %s", built.known.name, after.name.hex()[:8], end)
            return b""

    def earlier(self, packed: bytes, steps: int) -> bytes:
        """The request for a step of the same computation, so many before. Raises as `made`."""
        request = Request.from_bytes(packed)
        before = attrs.evolve(request, answers=request.answers[:-steps], digest=b"")
        rows = self._steps.steps(request.name)
        made = self.made(rows[0].caller, before)
        return attrs.evolve(before, digest=made.plan.digest()).to_bytes()

    def stored(self, packed: bytes) -> list[str]:
        """Handles of what a step of a computation and those after it have stored."""
        request = Request.from_bytes(packed)
        rows = [row for row in self._steps.steps(request.name) if row.step >= request.step]
        return [handle for row in rows for handle in msgpack.unpackb(row.facts)[0]]

    def temporary(self, packed: bytes) -> list[str]:
        """Handles of what the steps of a computation have stored for each other."""
        first = attrs.evolve(Request.from_bytes(packed), answers=())
        return [one for one in self.stored(first.to_bytes()) if one.startswith(computations.TEMPORARY)]

    # -- how plans are made ----------------------------------------------------------------------------------

    def _build(self, caller: str, member: _Member, request: Request) -> Built:
        known = computations.find(request.computation)
        rows = self._steps.steps(request.name)
        if any(row.caller != caller for row in rows):
            raise ConsentError(
                "a computation of this name is another member's; names are random, and used once"
            )
        for row in rows:
            earlier = Request.from_bytes(row.request)
            same = (earlier.computation, earlier.arguments, earlier.every) == (
                request.computation, request.arguments, request.every
            )  # fmt: skip
            if not same or earlier.answers[: request.step] != request.answers[: earlier.step]:
                raise PlanError(
                    f"{request.computation}: a computation of this name has other arguments or answers; "
                    "names are used once"
                )
        rows = rows[: request.step]
        if len(rows) < request.step:
            raise PlanError(
                f"{request.computation}: step {request.step} comes after others, of which this node "
                f"knows {len(rows)}"
            )
        before = member.built.pop((request.name, request.step - 1), None)
        if before is not None and before.request.answers == request.answers[:-1]:
            plan = _next(before.steps, before.names, _outcome(before.plan, rows[-1], request.answers[-1]))
            return attrs.evolve(before, request=request, plan=_declared(known, plan))
        arguments = self._decoder(caller, member, {}).arguments(known, request.arguments)
        names = Naming(request.name, every=request.every)
        steps = known.call(**arguments)
        plan = _next(steps, names, None)
        for row, answers in zip(rows, request.answers, strict=True):
            plan = _next(steps, names, _outcome(plan, row, answers))
        return Built(request, known, _declared(known, plan), arguments, steps, names)

    def _decoder(self, caller: str, member: _Member, made: dict[bytes, Any]) -> Decoder:
        def result(name: bytes) -> Any:
            return self._result(caller, member, made, name)

        def kept(kind: str, name: str) -> Any:
            return self._kept(caller, kind, name)

        return Decoder(kept, result)

    def _kept(self, caller: str, kind: str, name: str) -> Any:
        entry: Entry | None = self._vault.catalog.find(kind, name)
        if entry is None:
            back = self._vault.restored
            if back is not None:
                raise SchemaError(
                    f"node {back.node} was put back as it was at {back.made}, and has no {kind} "
                    f"{name!r:.80}; if it was there before, its owner makes it again"
                )
            raise SchemaError(
                f"there is no {kind} {name!r:.80} in the lake; `tercet tables` lists what there is"
            )
        try:
            facts = msgpack.unpackb(entry.body)
            if kind == "table":
                return described(caller, entry, TableSchema.from_dict(facts), self._lake)
            return SecretModel.from_dict(facts, name, entry.handles, self._lake)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise StorageError(f"the description of {kind} {name!r:.80} is malformed ({error})") from error

    def _result(self, caller: str, member: _Member, made: dict[bytes, Any], name: bytes) -> Any:
        """What a computation of a member gave; first what it rests on, one after the other."""
        waiting, seen = [name], set[bytes]()
        while waiting:
            one = waiting[-1]
            if one in made or one in member.results:
                made[one] = made.get(one, member.results.get(one))
                waiting.pop()
                continue
            rows = self._steps.steps(one)
            if not rows or any(row.caller != caller for row in rows) or rows[-1].step != len(rows) - 1:
                raise PlanError(
                    f"{caller} has no computation {one.hex()[:8]} here whose result could be used; it "
                    "may have been interrupted: run it again"
                )
            request = Request.from_bytes(rows[-1].request)
            rests_on = [each for each in _referred(request.arguments) if each not in made]
            if rests_on and one not in seen:
                seen.add(one)
                waiting += rests_on
                if len(seen) > LONGEST_CHAIN:
                    raise PlanError(f"a result rests on more than {LONGEST_CHAIN} computations; join anew")
                continue
            made[one] = member.results.keep(one, self._replayed(caller, member, made, request, rows))
            waiting.pop()
        return made[name]

    def _replayed(
        self, caller: str, member: _Member, made: dict[bytes, Any], request: Request, rows: list[StepRow]
    ) -> Any:
        """What a computation gave whose steps have all come to their end, with check bits that let it end."""
        live = member.built.pop((request.name, request.step), None)
        last: Any = _End.none
        if live is not None and _same(live.request, request):
            last = _end(live.steps, live.names, _outcome(live.plan, rows[-1], {}))
        if last is _End.none:
            known = computations.find(request.computation)
            arguments = self._decoder(caller, member, made).arguments(known, request.arguments)
            names, steps = Naming(request.name, every=request.every), known.call(**arguments)
            plan = _next(steps, names, None)
            for row, answers in zip(rows, request.answers, strict=False):
                plan = _next(steps, names, _outcome(plan, row, answers))
            last = _end(steps, names, _outcome(plan, rows[-1], {}))
        if last is _End.none:
            raise PlanError(f"{request.computation} {request.name.hex()[:8]} has not come to its end")
        return computations.placed(last, request.name)


def _same(one: Request, other: Request) -> bool:
    """Whether the same step is asked for, whatever the client made of it."""
    return attrs.evolve(one, digest=b"") == attrs.evolve(other, digest=b"")


class _End:
    """What stands for no end."""

    none = object()


def described(caller: str, entry: Entry, schema: TableSchema, lake: Any) -> Table:
    """A kept table, as computations of a member take it: under the minimum count of its owner's rules.

    Whose it is and what it is called, the node knows; what its owner's client wrote of that does not count.
    """
    least = Rules.from_bytes(entry.rules).least_for(caller, entry.owner)
    known = attrs.evolve(schema, name=entry.name, owner=entry.owner)
    return describe(known.resting_on(least), entry.handles, lake).from_computation({"$table": entry.name})


def _declared(known: Computation, plan: Plan) -> Plan:
    """A plan as it runs. Raises PlanError if it discloses what its computation does not declare."""
    return with_shape(optimise(require_declared(known.name, plan)))


def _next(steps: Any, names: Naming, result: RunResult | None) -> Plan:
    """The next plan of a computation. Raises PlanError if it has come to its end."""
    with computations.within(names):
        try:
            made = steps.send(result)
        except StopIteration as stop:
            raise PlanError("the computation has come to its end: there is no such step of it") from stop
    if not isinstance(made, Plan):
        raise PlanError("the computation is one of several, which are asked for one after the other")
    return made


def _end(steps: Any, names: Naming, result: RunResult) -> Any:
    """What a computation gives after its last plan; `_End.none` if it goes on."""
    with computations.within(names):
        try:
            steps.send(result)
        except StopIteration as stop:
            return stop.value
    return _End.none


def _outcome(plan: Plan, row: StepRow, answers: Answers) -> RunResult:
    """What a generator is told of a plan that has run: public facts, and check bits as they were answered."""
    stored, symbols = msgpack.unpackb(row.facts)
    revealed = {}
    for node in plan.nodes:
        if node.kind == "reveal":
            name = str(node.get("name"))
            shape = word_shape(_concrete(node.types[0], symbols), {})
            bits = np.asarray(answers.get(name, np.zeros(shape)), dtype=np.float64)
            if bits.size != int(np.prod(shape)):
                raise PlanError(f"{bits.size} numbers came as answer {name!r:.80}, which has {shape}")
            revealed[name] = bits.reshape(shape)
    types = {handle: read_type(fields) for handle, fields in stored.items()}
    return RunResult(revealed, types, symbols, 0, (), 0, 0.0, ())


def _concrete(kind: Type, symbols: Mapping[str, int]) -> Type:
    """A type with the row counts that its symbols have come to."""
    return attrs.evolve(
        kind, shape=tuple(symbols.get(one, one) if isinstance(one, str) else one for one in kind.shape)
    )


def _referred(data: Any) -> Iterator[bytes]:
    """Names of all computations that arguments refer to."""
    stack = [data]
    while stack:
        one = stack.pop()
        if isinstance(one, list):
            stack += one
        elif isinstance(one, dict):
            match one:
                case {"$result": [str(name), list()]}:
                    with contextlib.suppress(ValueError):
                        yield bytes.fromhex(name)
                case _:
                    stack += one.values()


@contextlib.contextmanager
def _sensible(what: str) -> Iterator[None]:
    """Raise PlanError, a sentence, for whatever goes wrong in a computation with what a member has sent."""
    try:
        yield
    except TercetError:
        raise
    except Exception as error:
        logger.info("%s could not be made into a plan", what, exc_info=error)
        raise PlanError(
            f"{what:.80} cannot be made with these arguments ({type(error).__name__}: {error!s:.200})"
        ) from error
