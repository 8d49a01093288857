"""Plans written as formulas: where numbers come from, and where they go.

`lake.plan(name)` gives `Formulas`. Columns of tables are numbers there, with all that their public schemas
say; what is done with them is recorded, and run when the `with` block ends. Nothing is known of a number but
to whom it is revealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import Public
from tercet.ml.computations import Apart
from tercet.ml.join import require_alike_keys
from tercet.ml.numbers import checks, functions, inverses, saved, series, systems
from tercet.ml.numbers.by_row import Rows
from tercet.ml.numbers.facts import Facts, Reals
from tercet.ml.numbers.number import Number, bounds_of, secret
from tercet.ml.numbers.ring import Held
from tercet.ml.numbers.saved import SavedNumber, Saving
from tercet.ml.numbers.source import line
from tercet.ml.open_join import match_rows
from tercet.ml.schema import INTEGER_BITS, check_name
from tercet.ml.spreads import widest_variance
from tercet.ml.table import Steps, Table
from tercet.plans import Builder, DisclosureClass, Plan, Type
from tercet.plans.results import RunResult
from tercet.tracebacks import short_tracebacks

SOUND = "whether the bounds hold that {} rests on"
ANALYST = "analyst"


@attrs.frozen
class _Told:
    """A number that is revealed: how to read what comes."""

    name: str
    to: str
    unit: Reals
    shape: tuple[int, ...]
    flipped: bool
    sound: bool


@short_tracebacks
class Formulas:
    """A plan that is being written in numbers; its functions have NumPy's names.

    Use it with `with`, or `async with` on an `AsyncLake`: at the end of the block the plan is run, and
    `revealed` has what the analyst was told, by name. `plan()` is the plan so far, to be explained or drawn.
    """

    def __init__(self, builder: Builder, lake: Any = None) -> None:
        self.builder = builder
        self.least = 1
        """The strictest minimum count of the tables that are read."""
        self.revealed: Mapping[str, npt.NDArray[np.float64]] = {}
        """What the analyst was told, by name, once the plan has run; NaN where a bound did not hold."""
        self._lake = lake
        self._told: list[_Told] = []
        self._saved: list[Saving] = []
        self._stored: Mapping[str, Type] = {}
        """What the nodes say that the plan has stored, once it has run."""

    # -- in --------------------------------------------------------------------------------------------------

    def columns(self, table: Table, *names: str) -> list[Number]:
        """Columns of a table, each `(rows,)`: all of them, if none is named.

        Raises SchemaError for columns that do not exist or may have missing values, and for tables that are
        filtered, whose rows do not all count.
        """
        chosen = names or tuple(table.column_names)
        self._admit(table, chosen)
        return [self._column(table, name) for name in chosen]

    def column(self, table: Table, name: str) -> Number:
        """One column of a table, `(rows,)`."""
        (found,) = self.columns(table, name)
        return found

    def matrix(self, table: Table, names: Sequence[str] | None = None) -> Number:
        """Columns of a table side by side, `(rows, columns)`: all of them, if none is named."""
        given = (names,) if isinstance(names, str) else names or ()
        if not isinstance(given, Iterable):
            raise PlanError(f"{line()}: columns are a list of names, not a {type(given).__name__}")
        return functions.column_stack(self.columns(table, *given))

    def intersection(self, *tables: Table) -> Number:
        """How many keys are in all of some tables, `()`: keys are unique, and of the same names and types.

        The nodes learn pseudonyms of shuffled keys, which are random words, and this number.
        """
        for table in tables:
            self._admit(table, ())
        require_alike_keys(tables, tables[0].key_names if tables else ())
        if odd := [table.name for table in tables if not table.unique]:
            raise SchemaError(f"{line()}: keys of table {odd[0]!r} may repeat, so they are not counted")
        if not tables[0].parts:
            raise SchemaError(
                f"{line()}: table {tables[0].name!r} has no column but its key; upload it with one"
            )
        symbol = f"rows of {' and '.join(table.name for table in tables)}"
        if symbol in self.builder.maxima:
            raise PlanError(
                f"{line()}: these tables are matched already; use the number that was made of them"
            )
        matched, shuffled = match_rows(self.builder, tables, symbol)
        ones = shuffled[0][1].select([0]).squeeze() * 0 + 1
        count = ones.take(matched).sum().reshape(1)
        return Number(self, Held.of(count, 1.0, Facts.of(0.0, min(table.rows for table in tables))), ())

    def load(self, number: SavedNumber) -> Number:
        """A number that an earlier plan has saved, as `lake.number(name)` gives it. Free.

        It comes with its shape and bounds, and what it is derived from: whoever must consent to a plan that
        reads these tables must consent to this one. Its `error` counts from what was saved. Conditions come
        as numbers, and are conditions again as `x > 0`. A vector of one element comes as a scalar. Raises
        SchemaError for what is of another lake, or no saved number.
        """
        if saved.require_saved(number).lake is not self._require_lake("loads"):
            raise SchemaError(
                f"{line()}: number {number.name!r} is of another lake; ask this one for it, by lake.number"
            )
        self.least = max(self.least, number.least)
        return saved.read(self, number)

    def _require_lake(self, does: str) -> Any:
        if self._lake is None:
            raise PlanError(
                f"{line()}: a computation for others {does} no numbers by name: what it reads is its "
                "arguments, and what comes of it is revealed; use lake.plan"
            )
        return self._lake

    def _admit(self, table: Table, names: Sequence[str]) -> None:
        if not isinstance(table, Table):
            raise SchemaError(f"{line()}: columns are those of a table, not of a {type(table).__name__}")
        table.require_present(names)
        if table.selection:
            raise SchemaError(
                f"{line()}: table {table.name!r} is filtered, so not all of its rows count; filter with "
                "compact=True, or write the condition into the formula"
            )
        table.require_rows("a formula", max(1, table.min_count))
        self.least = max(self.least, table.min_count)

    def _column(self, table: Table, name: str) -> Number:
        column = table.column(name)
        public, scale = Public.of(column), column.schema.scale
        (value,) = table.raw(self.builder, [name])
        unit = 2.0**-scale
        spread = widest_variance(table, [name]) ** 0.5 * 2.0**16 * unit
        if column.schema.kind == "boolean":
            spread = 0.5
        facts = Facts.of(
            public.low, public.high, error=public.grain, spread=spread + 2 * public.grain,
            usual=2.0**public.unit,
        )  # fmt: skip
        most = 1.0 if column.schema.kind == "boolean" else 2.0**INTEGER_BITS
        held = Held.of(value.squeeze().bounded(most, "checked by the owner at upload"), unit, facts)
        return Number(self, held, (table.rows,), rows=Rows.of_table(table.min_count))

    # -- NumPy's functions -----------------------------------------------------------------------------------

    def where(self, condition: Number, x: Any, y: Any) -> Number:
        """Elements of x where a condition holds, else of y. 1 round."""
        return functions.where(condition, x, y)

    def column_stack(self, numbers: Sequence[Any]) -> Number:
        """Vectors `(n,)` and matrices `(n, d)`, one of them secret, as the columns of one matrix. Free."""
        return functions.column_stack(numbers)

    def concatenate(self, numbers: Sequence[Any]) -> Number:
        """Vectors, one of them secret, one after the other: up to a tile of elements in all."""
        return functions.concatenate_vectors(numbers)

    def sort(self, key: Number, *others: Number) -> Any:
        """A vector in ascending order; with others, all of them in the order of the first.

        Elements that differ by less than the vector's `error` afterwards may come in either order.
        The nodes learn comparisons of shuffled rows, which are a random order. Up to about 2 log2(n) steps.
        """
        found = functions.sort(key, *others)
        return found if others else found[0]

    def shuffle(self, first: Number, *others: Number) -> Any:
        """Rows in a random order that nobody knows, the same for all; 3 rounds with three parties."""
        found = functions.shuffle(first, *others)
        return found if others else found[0]

    def take(self, x: Number, places: Sequence[int]) -> Number:
        """Elements, or rows, at public places."""
        listed = isinstance(places, Iterable) and not isinstance(places, str | np.ndarray | Number)
        return functions.taken(secret(x, "a slice"), list(places) if listed else places)

    def dot(self, x: Any, y: Any) -> Number:
        """As `x @ y`."""
        return functions.product_of_matrices(x, y)

    def part(self, x: Number, key: Any) -> Number:
        """As `x[key]`, for whole numbers, slices, lists, masks along one axis, and None for a new axis."""
        return functions.taken(secret(x, "a slice"), key)

    def max(self, x: Number) -> Number:
        """The largest element of a vector: about 11 rounds for each halving; opens nothing."""
        return functions.extreme(x, 1, x)[0]

    def min(self, x: Number) -> Number:
        """The smallest element of a vector, as `max`."""
        return functions.extreme(x, -1, x)[0]

    def argmax(self, x: Number) -> Number:
        """The place of the largest element of a vector, or of one of them, a secret number."""
        return self._place(x, 1)

    def argmin(self, x: Number) -> Number:
        """The place of the smallest element of a vector, as `argmax`."""
        return self._place(x, -1)

    def _place(self, x: Number, sign: int) -> Number:
        return functions.extreme(x, sign, functions.places_of(x))[1]

    def maximum(self, x: Any, y: Any) -> Number:
        """The larger one of each two elements: `maximum(x, 0)` is known to be zero or more."""
        return functions.larger(x, y)

    def minimum(self, x: Any, y: Any) -> Number:
        """The smaller one of each two elements."""
        return functions.smaller(x, y)

    def clip(self, x: Number, low: float, high: float) -> Number:
        """Elements that lie outside of public bounds at the nearer one."""
        return functions.clip(secret(x, "a choice"), low, high)

    def solve(self, matrix: Number, right: Number, *, condition: float = 2.0**12) -> Number:
        """The x with `matrix @ x = right`, `(d,)`, for a symmetric positive definite matrix of up to 64 rows.

        Whatever rests on it is NaN when it is revealed, and its receiver is told whether that is so, if the
        matrix is nearly singular: scaled to a diagonal of ones, so that its eigenvalues are one on average,
        it is sure to be solved if none of them is below its number of rows over `condition` (2^16 at most),
        and sure not to be if one is below a quarter of that; nor is it if the solution of the scaled
        equations is more than 64 times as large as their right side usually is. `error` counts from the
        solution of the equations as they are held: how far that of the exact ones is depends on the
        condition, too. About 96 rounds.
        """
        return systems.solve(secret(matrix, "a system"), secret(right, "a system"), condition)

    def checked(self, x: Number, low: float, high: float) -> Number:
        """As `x.within(low, high)`, where nothing proves these."""
        return checks.checked(secret(x, "a bound"), *bounds_of(low, high))

    # -- functions on ranges ---------------------------------------------------------------------------------

    def quotient(self, x: Number, y: Number) -> Number:
        """`x / y` for y on one side of zero, whose bounds differ by 2^30 at most. About 19 rounds.

        It is within 1e-8 of itself, as far as 64 bits of the largest that it may be have places for that,
        beside what errors of x and y make of it. `x / plan.sqrt(y)` takes no more: no root is made.
        """
        return inverses.quotient(secret(x, "a quotient"), secret(y, "a quotient"))

    def reciprocal(self, x: Number) -> Number:
        """`1 / x`, within 1e-8 of itself, as `quotient`; of what `sqrt` gives, the inverse root."""
        return inverses.reciprocal(secret(x, "a reciprocal"))

    def sqrt(self, x: Number) -> Number:
        """The root of numbers of zero or more. About 19 rounds.

        It is within 1e-8 of itself, beside what the error of x makes of it, where bounds of x differ by 2^30
        at most; else what is below 2^-30 of the bound of x has a root of zero.
        """
        return inverses.sqrt(secret(x, "a root"))

    def log(self, x: Number) -> Number:
        """The natural logarithm, within 2e-6, of x above zero whose bounds differ by 2^14 at most."""
        return series.log(secret(x, "a logarithm"))

    def exp(self, x: Number) -> Number:
        """The exponential, within 1.1e-6 of its bound; zero for what is 20 below that of x. 30 rounds."""
        return series.exp(secret(x, "an exponential"))

    def sigmoid(self, x: Number) -> Number:
        """`1 / (1 + exp(-x))`, within 4e-6. 1 or 2 rounds; about 12 more if |x| may be beyond 56."""
        return series.logistic(secret(x, "a sigmoid"))

    # -- out -------------------------------------------------------------------------------------------------

    def note_reveal(self, x: Number, name: str, to: str, kind: DisclosureClass) -> None:
        """Have a number revealed; what `Number.reveal` calls."""
        if not (isinstance(name, str) and name and isinstance(to, str) and to):
            raise PlanError(
                f"{line()}: a result has a name, and a receiver, as in reveal('mean', to='analyst')"
            )
        if any(one.name == name for one in self._told):
            raise PlanError(f"{line()}: two results are called {name!r:.80}")
        held = secret(x, "a result").held if to == ANALYST else functions.readable(x.held)
        value = held.value
        if x.sound is not None:
            sound = x.sound.held.value
            mask = sound if len(value.shape) == 1 else sound.reshape(1, 1)
            value = value.times(mask, magnitude=max(value.type.limit, 1.0))
            sound.reveal(SOUND.format(name), to=to, kind="check")
        unit = held.unit
        if to != ANALYST:
            value, unit = functions.at_its_scale(value, unit)
        value.reveal(name, to=to, kind=kind)
        self._told.append(_Told(name, to, unit, x.shape, x.flipped, x.sound is not None))

    def note_save(self, x: Number, name: str, readers: Sequence[str], days: float | None) -> None:
        """Have a number saved; what `Number.save` calls."""
        lake = self._require_lake("saves")
        check_name(name, "A number's name")
        if any(one.name == name for one in self._saved):
            raise PlanError(f"{line()}: two numbers are saved as {name!r:.80}")
        held = saved.at_rest(x)
        values = [functions.at_its_scale(held.value, held.unit)[0]]
        values += [x.sound.held.value] if x.sound is not None else []
        handles = tuple(lake.handle(name) for _ in values)
        for handle, value in zip(handles, values, strict=True):
            value.store(handle)
        self._saved.append(Saving(name, handles, x.rows.told, self.least, tuple(readers), days))

    def plan(self) -> Plan:
        """The plan so far, for `explain`, `draw` and `lake.run`; `read` makes numbers of its result."""
        return self.builder.plan()

    def read(self, result: RunResult) -> dict[str, npt.NDArray[np.float64]]:
        """What a run has revealed here, by name; NaN where a bound did not hold that it rests on."""
        found = {}
        for told in self._told:
            if told.name not in result.revealed:
                continue
            numbers = np.asarray(result.revealed[told.name], dtype=np.float64) * told.unit
            if told.sound and not result.revealed[SOUND.format(told.name)][0] > 0.5:
                numbers = np.full_like(numbers, np.nan)
            found[told.name] = (numbers.T if told.flipped else numbers).reshape(told.shape)[()]
        return found

    def steps(self) -> Apart[dict[str, npt.NDArray[np.float64]]]:
        """The plan as a computation, as `lake.submit` takes it. Raises PlanError for one that saves."""
        if self._saved:
            raise PlanError(
                f"{line()}: a job gives what its plan reveals, and this one also saves "
                f"{self._saved[0].name!r:.80}; have it run by its with block"
            )
        return Apart(self._steps())

    def _steps(self) -> Steps[dict[str, npt.NDArray[np.float64]]]:
        result = yield self.plan()
        self._stored = result.stored
        return self.read(result)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self._saved:
            self._lake.require_names(self._saved)
        self.revealed = self._lake.perform(Apart(self._steps()), "plan")
        if self._saved:
            self._lake.keep_numbers(self._saved, self._stored)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if self._saved:
            await self._lake.require_names(self._saved)
        self.revealed = await self._lake.perform(Apart(self._steps()), "plan")
        if self._saved:
            await self._lake.keep_numbers(self._saved, self._stored)
