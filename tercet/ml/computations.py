"""Computations by name: what a member can ask of nodes, as data that says nothing of how it is done.

A computation is one of the generators of plans in this package, declared with `computation`. Calling one
gives a `Computed`: the generator, with the name and the arguments that it was called with. A lake on one
machine just drives it. A lake of several organisations sends these as a `Request`; every node calls the same
function with the same arguments, made from its own catalog, and gets the same plan. Handles of what a
computation stores follow from its name (16 random bytes) and their order, at clients and nodes alike, so
nobody has to say them; tables and models that earlier ones gave are referred to by that name and a path.

Arguments travel as plain values; what stands for something else is a dict of one key: `{"$table": name}` and
`{"$model": name}` for what is kept, `{"$result": [name, path]}` for what a computation gave, `{"$columns":
[table, names]}`, `{"$renamed": [table, {old: new}]}`, `{"$estimator": [class, options]}` and `{"$expression":
[table, operations]}`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import math
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib.metadata import entry_points
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

import attrs
import msgpack
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, TercetError
from tercet.options import Rule
from tercet.plans import Plan
from tercet.plans.passes import telling_checks
from tercet.plans.results import RunResult

P = ParamSpec("P")
T = TypeVar("T")
Calls = Generator["Computed[Any]", Any, T]
"""Computations one after the other, each with what it gives sent back in."""
Data = Any
"""None, booleans, whole and real numbers, text, and lists and dicts of such by name."""

NAME_BYTES = 16
MOST_REQUEST = 1 << 20
"""Bytes of a request."""
MOST_STEPS = 1 << 12
"""Plans of one computation."""
TEMPORARY = "~"
"""What handles of values begin with that plans of one computation store for each other; no name has it."""
CELLS_TO_CHECKPOINT = 1 << 23
STEPS_TO_CHECKPOINT = 25
"""A fit has a checkpoint when its steps have gone over so many cells, at the latest after so many steps."""


@attrs.frozen(eq=False)
class Computation:
    """A declared computation: the group that rules name it by, and the rules of its arguments.

    `fresh` are parameters that stand for an estimator's options alone, whatever it has learned before.
    `driven` says that its plans tell the nodes what the next one depends on, so that nodes can go on alone.
    """

    name: str
    group: str
    call: Callable[..., Generator[Any, Any, Any]]
    fresh: frozenset[str]
    rules: Mapping[str, Rule]
    signature: inspect.Signature
    driven: bool = False
    whole: bool = False
    """Whether it counts as using every column of its tables, whatever its arguments are called."""


COMPUTATIONS: dict[str, Computation] = {}
"""All that are declared in modules that were imported, by name."""
MODULES = (
    *("table", "secret_column", "join", "splitting", "preparation", "stacking", "describe", "association"),
    *("grouping", "key_groups"),
    *("transformers", "models", "submitting", "linear_model", "model_selection", "metrics.evaluation"),
)
"""Those of this package that declare some."""
GROUP = "tercet.computations"


@attrs.define(eq=False)
class Wrapped(Generator[Plan, RunResult, T], Generic[T]):
    """A generator of plans, of which something is known."""

    _steps: Generator[Plan, RunResult, T]

    def send(self, value: Any) -> Plan:
        """The next plan."""
        return self._steps.send(value)

    def throw(self, *error: Any) -> Plan:
        """An error in the place of a result."""
        return self._steps.throw(*error)

    def close(self) -> None:
        """End it."""
        self._steps.close()

    @property
    def apart(self) -> bool:
        """Whether it reads what is for its caller also where other members are told something."""
        return isinstance(self._steps, Wrapped) and self._steps.apart


class Apart(Wrapped[T]):
    """Plans of which the caller's results are read, whatever they tell other members."""

    @property
    def apart(self) -> bool:
        """So it is."""
        return True


@attrs.define(eq=False)
class Computed(Wrapped[T]):
    """A computation that was called: a generator of plans, with its name and arguments."""

    known: Computation
    arguments: Mapping[str, Any]

    def then(self, change: Callable[[T], T]) -> Computed[T]:
        """The same at nodes; here, what it gives goes through a function."""

        def changed() -> Generator[Plan, RunResult, T]:
            return change((yield from self._steps))

        return Computed(changed(), self.known, self.arguments)


def computation(
    name: str,
    driven: Literal["", "driven"] = "",
    /,
    *,
    group: str,
    fresh: Sequence[str] = (),
    **rules: Rule,
) -> Callable[[Callable[P, Generator[Any, Any, T]]], Callable[P, Computed[T]]]:
    """Declare a generator of plans as a computation that members can ask nodes for by name.

    `rules` are those of its arguments, which nodes hold requests against.
    """

    def declare(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Computed[T]]:
        signature = inspect.signature(function)
        if name in COMPUTATIONS:
            raise TypeError(f"there are two computations {name!r}")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Computed[T]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return Computed(function(*args, **kwargs), known, bound.arguments)

        known = Computation(name, group, call, frozenset(fresh), rules, signature, bool(driven))
        COMPUTATIONS[name] = known
        return call

    return declare


def telling(steps: Generator[Plan, RunResult, T], *, to: str) -> Generator[Plan, RunResult, T]:
    """The plans of a computation; each tells the nodes the check bits that it reveals to a receiver."""
    advance: Callable[[], Plan] = functools.partial(next, steps)
    while True:
        try:
            plan = advance()
        except StopIteration as stop:
            value: T = stop.value
            return value
        try:
            result = yield telling_checks(plan, to=to)
        except TercetError as error:
            advance = functools.partial(steps.throw, error)
        else:
            advance = functools.partial(steps.send, result)


def find(name: str) -> Computation:
    """A computation by its name: one of Tercet's, or one that a package on this machine offers.

    Such a package names, as an entry point of that name in the group `tercet.computations`, the module that
    declares it. Raises PlanError if there is none.
    """
    for module in MODULES:
        importlib.import_module(f"tercet.ml.{module}")
    if name not in COMPUTATIONS:
        for entry in entry_points(group=GROUP, name=name):
            try:
                entry.load()
            except Exception as error:
                raise PlanError(f"computation {name!r:.80} is offered as {entry.value}: {error}") from error
    if name not in COMPUTATIONS:
        raise PlanError(f"there is no computation {name!r:.80}; known are {', '.join(sorted(COMPUTATIONS))}")
    return COMPUTATIONS[name]


def called(name: str) -> Callable[..., Computed[Any]]:
    """What gives a computation of that name, wherever it is declared."""
    return cast("Callable[..., Computed[Any]]", find(name).call)


# -- names of what is stored ---------------------------------------------------------------------------------


@attrs.define(eq=False)
class Naming:
    """Gives handles in a computation, each from its name and how many it gave before."""

    computation: bytes
    every: int | None = None
    """Steps between checkpoints of a fit, None for the default."""
    given: int = 0

    def handle(self, hint: str) -> str:
        """The next handle."""
        self.given += 1
        number = self.given.to_bytes(8, "little")
        digest = hashlib.blake2b(self.computation + number, digest_size=16, person=b"tercet-handle")
        return f"{hint}#{digest.hexdigest()}"


_COMPUTED = re.compile(r"#[0-9a-f]{32}\Z")
_NAMING: ContextVar[Naming | None] = ContextVar("naming", default=None)


def is_computed(handle: str) -> bool:
    """Whether a handle is of the form that computations give: nobody else gives one of these."""
    return _COMPUTED.search(handle) is not None


def naming() -> Naming | None:
    """That of the computation which is being advanced here, if there is one."""
    return _NAMING.get()


@contextlib.contextmanager
def within(names: Naming) -> Iterator[None]:
    """Inside, lakes give handles by these names."""
    token = _NAMING.set(names)
    try:
        yield
    finally:
        _NAMING.reset(token)


def checkpoint_steps(cells: int, every: int | None) -> int:
    """After how many steps over a table of so many cells a fit has a checkpoint, unless that is said."""
    return every or max(1, min(STEPS_TO_CHECKPOINT, CELLS_TO_CHECKPOINT // max(1, cells)))


# -- requests ------------------------------------------------------------------------------------------------

Answers = Mapping[str, Sequence[float]]
"""Check bits that a plan has revealed, by name: what the next one of the computation may depend on."""


@attrs.frozen
class Request:
    """A step of a computation, as a member asks for it.

    `name` is that of this call of it, 16 random bytes. Step `len(answers)` is asked for, after steps that
    gave these answers. `digest` is that of the plan which the member's client makes of it, to notice releases
    that differ. `every` is the number of steps between checkpoints, None for the default.
    """

    computation: str
    arguments: Mapping[str, Data]
    name: bytes
    answers: tuple[Answers, ...] = ()
    every: int | None = None
    digest: bytes = b""
    study: bytes = b""

    MAGIC = b"tercet request 1\n"

    @property
    def step(self) -> int:
        """The number of the plan that is asked for, from zero."""
        return len(self.answers)

    def to_bytes(self) -> bytes:
        """As it travels. Raises PlanError for one that is too large."""
        answers = [{name: list(bits) for name, bits in one.items()} for one in self.answers]
        fields = [
            self.computation, dict(self.arguments), self.name, answers, self.every, self.digest, self.study
        ]  # fmt: skip
        packed: bytes = self.MAGIC + msgpack.packb(fields)
        if len(packed) > MOST_REQUEST:
            raise PlanError(
                f"{self.computation} with all its arguments takes {len(packed)} bytes, and nodes read "
                f"{MOST_REQUEST}; name fewer columns, categories or operations"
            )
        return packed

    def packed_for(self, digest: bytes) -> bytes:
        """As it travels, of a client that has made a plan of that digest."""
        return attrs.evolve(self, digest=digest).to_bytes()

    @classmethod
    def is_one(cls, packed: bytes) -> bool:
        """Whether bytes say that they are a request."""
        return packed.startswith(cls.MAGIC)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Request:
        """What `to_bytes` gave. Raises PlanError for anything else."""
        if not cls.is_one(packed) or len(packed) > MOST_REQUEST:
            raise PlanError(f"{len(packed)} bytes came as a request and are none, or too many")
        try:
            fields = msgpack.unpackb(packed[len(cls.MAGIC) :], max_map_len=1 << 16, max_array_len=1 << 18)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise PlanError(f"what came as a request cannot be read ({error})") from error
        match fields:
            case [
                str(name),
                dict(arguments),
                bytes(called),
                list(answers),
                int() | None as every,
                bytes(digest),
                bytes(study),
            ] if len(called) == NAME_BYTES and len(answers) <= MOST_STEPS:
                known = tuple(_answers(one) for one in answers)
                if all(isinstance(one, str) for one in arguments) and (every is None or 1 <= every < 1 << 31):
                    return cls(name, arguments, called, known, every, digest, study)
        raise PlanError("what came as a request has other fields than one has; look at the client's release")


def checks_of(plan: Plan, revealed: Mapping[str, npt.NDArray[Any]]) -> Answers:
    """The check bits among what a plan has revealed; all else stays with who it was revealed to."""
    names = [
        str(node.get("name"))
        for node in plan.nodes
        if node.kind == "reveal" and dict(node.attributes).get("kind") == "check"
    ]
    return {name: [float(bit) for bit in np.ravel(revealed[name])] for name in names if name in revealed}


def _answers(given: Any) -> Answers:
    if isinstance(given, dict):
        bits = [bit for listed in given.values() if isinstance(listed, list) for bit in listed]
        plain = all(isinstance(bit, float) and math.isfinite(bit) for bit in bits)
        if plain and all(isinstance(name, str) and isinstance(one, list) for name, one in given.items()):
            return given
    raise PlanError("what came as answers of a computation are no numbers by name")


# -- arguments as data ---------------------------------------------------------------------------------------


def encoded(known: Computation, arguments: Mapping[str, Any]) -> dict[str, Data]:
    """Arguments as they travel. Raises PlanError for what no node could make anew."""
    return {
        name: as_data(value, f"{known.name}, {name}", fresh=name in known.fresh)
        for name, value in arguments.items()
    }


def defaults_of(name: str) -> dict[str, Data]:
    """Arguments that a computation need not be given, as they travel; none of one that is not known."""
    known = COMPUTATIONS.get(name)
    parameters = {} if known is None else known.signature.parameters
    return {
        one: as_data(parameter.default, f"{name}, {one}")
        for one, parameter in parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def as_data(value: Any, where: str, *, fresh: bool = False) -> Data:
    """A value as it travels; `where` is what it is, for the PlanError about one that cannot."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [as_data(one, where) for one in value]
    if isinstance(value, Mapping):
        return {str(name): as_data(one, where) for name, one in value.items()}
    if hasattr(value, "to_data"):
        return value.to_data(fresh=fresh)
    raise PlanError(f"{where}: a {type(value).__name__} cannot be sent to nodes")


def referred(origin: Data, *, what: str) -> Data:
    """How something is referred to. Raises PlanError if it is not known to the nodes."""
    if origin is None:
        raise PlanError(
            f"{what} is not known to the nodes under any name: it was made by hand or in a computation that "
            "did not end; use what lake.table, join, fit and the like have given"
        )
    return origin


def placed(value: T, name: bytes, path: Sequence[int | str] = ()) -> T:
    """What a computation has given, and all in it that others can refer to, told where it comes from."""
    if isinstance(value, tuple | list):
        return cast("T", type(value)(placed(one, name, [*path, place]) for place, one in enumerate(value)))
    if hasattr(value, "from_computation"):
        return cast("T", value.from_computation({"$result": [name.hex(), list(path)]}))
    return value
