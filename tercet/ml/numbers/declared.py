"""Functions of formulas as computations: what nodes can have installed, and owners' rules can name.

A function that writes formulas over tables, with annotated arguments and declared disclosures, is all that
it takes. Calling it runs its plan at the lake of its tables; nodes of several organisations that have it
installed make the same plan themselves, and refuse it if it discloses more than it declares.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, cast

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import computations, declarations
from tercet.ml.computations import COMPUTATIONS, Computed
from tercet.ml.declarations import COMPARISONS, DECLARED, MATCHES, PSEUDONYMS, Declared, require_declared
from tercet.ml.numbers.formulas import Formulas
from tercet.ml.table import Table
from tercet.options import FLAG, NUMBERS, TABLE, Names, Number, Rule, Text
from tercet.plans import CLASSES, DisclosureClass, Plan
from tercet.plans.results import RunResult
from tercet.tracebacks import short_tracebacks

Revealed = dict[str, npt.NDArray[np.float64]]
NAMES = Names(what="names", most=1024, advice="as in ['age', 'bmi']")
RULES: tuple[tuple[Any, Rule], ...] = (
    (Table, TABLE),
    (bool, FLAG),
    (int, Number(whole=True)),
    (float, Number()),
    (str, Text(what="text")),
    (list[str], NAMES),
    (Sequence[str], NAMES),
    (list[float], NUMBERS),
    (Sequence[float], NUMBERS),
)
"""What an argument may be, by how it is annotated."""
OPENS = {"sort": frozenset({COMPARISONS}), "intersection": frozenset({PSEUDONYMS, MATCHES})}
"""What functions of `Formulas` open to the nodes, in the words of plans."""


@short_tracebacks
@attrs.frozen(eq=False)
class FormulaComputation:
    """A function of formulas that is declared as a computation; what `tercet.computation` gives.

    Calling it runs its plan at the lake of its tables, and gives what was revealed, by name; on an
    `AsyncLake`, an awaitable of that.
    """

    name: str
    function: Callable[..., None]
    signature: inspect.Signature

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the plan reveals to the analyst, by name."""
        steps = self.steps(*args, **options)
        return _lake_of(steps.arguments).perform(steps, self.name)

    def steps(self, *args: Any, **options: Any) -> Computed[Revealed]:
        """The computation of these arguments, as `lake.submit` takes it, to be run as a job."""
        given = self.signature.bind(*args, **options)
        known = COMPUTATIONS[self.name]
        for name, rule in known.rules.items():
            if name in given.arguments:
                rule.require(self.name, name, given.arguments[name])
        return cast("Computed[Revealed]", known.call(*args, **options))

    def plan(self, *args: Any, **options: Any) -> Plan:
        """The plan of these arguments, to be explained or drawn; nothing runs."""
        steps = self.steps(*args, **options)
        return self._written(steps.arguments)[0]

    def _written(self, arguments: Any) -> tuple[Plan, Formulas]:
        formulas = Formulas(_lake_of(arguments).builder(self.name))
        self.function(formulas, **arguments)
        return require_declared(self.name, formulas.plan()), formulas

    def run(self, *args: Any, **options: Any) -> Generator[Plan, RunResult, Revealed]:
        """The generator of its plan, as nodes and clients drive it."""
        given = self.signature.bind(*args, **options)
        given.apply_defaults()
        plan, formulas = self._written(given.arguments)
        result = yield plan
        return formulas.read(result)


def computation(
    *, discloses: Sequence[DisclosureClass], opens: Sequence[str] = (), **rules: Rule
) -> Callable[[Callable[..., None]], FormulaComputation]:
    """Declare a function that writes formulas as a computation that nodes can be asked for by its name.

    Its first argument is the plan, a `Formulas`; others are annotated as `tercet.Table`, `str`, `int`,
    `float`, `bool`, or lists of text or numbers, or have rules of options here. `discloses` are the
    classes of what it reveals, and `opens` is "sort" or "intersection" where it uses these. Nodes find it as
    an entry point of its name in the group for computations. Owners' rules name it, or its group: "rows"
    if it discloses rows or a model, else "statistics"; it counts as using every column of its tables. It must
    write the same plan for the same arguments. Raises TypeError for what cannot be declared.
    """
    unknown = {*discloses} - {*CLASSES} | {*opens} - {*OPENS}
    if unknown:
        raise TypeError(
            f"{min(unknown)!r} is no disclosure: discloses= takes {', '.join(CLASSES)}, and opens= "
            f"{', '.join(OPENS)}"
        )

    def declare(function: Callable[..., None]) -> FormulaComputation:
        name, (_, *parameters) = function.__name__, inspect.signature(function).parameters.values()
        signature = inspect.Signature(parameters)
        made = FormulaComputation(name, function, signature)
        _require_free(name, function)
        found = dict(_rules_of(function, parameters, rules))

        def run(*args: Any, **options: Any) -> Generator[Plan, RunResult, Revealed]:
            return computations.Apart(made.run(*args, **options))

        run.__module__, run.__qualname__ = function.__module__, function.__qualname__
        run.__signature__ = signature  # type: ignore[attr-defined]
        group = "rows" if {"rows", "model"} & set(discloses) else "statistics"
        computations.computation(name, "", group=group, fresh=(), **found)(run)
        COMPUTATIONS[name] = attrs.evolve(COMPUTATIONS[name], whole=True)
        classes = (*discloses, *(("check",) if "check" not in discloses else ()))
        opened = frozenset[str]().union(*(OPENS[one] for one in opens))
        declarations.declare(name, Declared(classes, opens=opened))
        return made

    return declare


def _lake_of(arguments: Any) -> Any:
    """The one lake of all tables among arguments."""
    tables = [one for one in arguments.values() if isinstance(one, Table)]
    if not tables or any(one.lake is not tables[0].lake for one in tables):
        raise SchemaError("a computation is of tables of one lake; name one table at least")
    return tables[0].lake


def _require_free(name: str, function: Callable[..., None]) -> None:
    """Raise TypeError for a name that something else has; the same function may be declared anew."""
    known = COMPUTATIONS.get(name)
    if known is None:
        return
    source = getattr(known.call, "__module__", None), getattr(known.call, "__qualname__", None)
    if source != (function.__module__, function.__qualname__):
        raise TypeError(f"there is a computation {name!r} already; call the function otherwise")
    del COMPUTATIONS[name], DECLARED[name]


def _rules_of(
    function: Callable[..., None], parameters: Sequence[inspect.Parameter], given: dict[str, Rule]
) -> Iterator[tuple[str, Rule]]:
    hints = typing.get_type_hints(function)
    by_type = dict(RULES)
    if unknown := given.keys() - {one.name for one in parameters}:
        raise TypeError(f"{function.__name__} has no argument {min(unknown)!r}")
    for one in parameters:
        rule = given.get(one.name) or by_type.get(hints.get(one.name))
        if rule is None or one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise TypeError(
                f"{function.__name__}, argument {one.name!r}: say what it may be, by an annotation (Table, "
                "str, int, float, bool, list[str] or list[float]) or a rule of tercet.options"
            )
        yield one.name, rule
