"""Formulas: the columns that `"y ~ C(stage) + age * bmi + log(cost)"` means, as statsmodels would make them.

`formula_terms` reads a formula into terms and factors. A factor is evaluated here, as column arithmetic on
secret columns: nothing is executed, and what is not a column, a number or a known function is refused. Which
terms get all levels of a category and which all but the reference follows patsy, by which statsmodels goes: a
term stands for all its parts that earlier ones do not (Wilkinson and Rogers 1973). Columns have its names.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from tercet.errors import SchemaError
from tercet.ml.association import categories_of
from tercet.ml.computations import Calls, called
from tercet.ml.expressions import Expression
from tercet.ml.formula_terms import MOST_COLUMNS, terms_of
from tercet.ml.schema import suggest
from tercet.options import TABLE, Text, takes
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.table import Table

FORMULA = Text(what="a formula", error=SchemaError, advice="as in 'y ~ age + C(stage)'")
MOST_CATEGORIES = 9
"""Of a term: more have more than MOST_COLUMNS combinations, and coding them goes through all subsets."""
_SIGNS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_FUNCTIONS: Mapping[str, Callable[..., Expression]] = {
    "log": Expression.log,
    "exp": Expression.exp,
    "sqrt": Expression.sqrt,
    "abs": Expression.abs,
    "round": Expression.round,
    "I": lambda x: x,
}
"""What a formula may call, also as `np.log`; and `C`, which is a factor by itself."""


def is_formula(text: Any, table: Table) -> bool:
    """Whether a target is a formula, and no column's name."""
    return isinstance(text, str) and "~" in text and text not in table.column_names


# -- factors -------------------------------------------------------------------------------------------------


Levels = tuple[tuple[str, Any], ...]
"""Levels of a factor with their labels, the reference first."""


@attrs.frozen(eq=False)
class Factor:
    """A factor of terms: what it reads as, its column, and its levels with their labels if it has some.

    The first of `levels` is the reference.
    """

    text: str
    column: Expression
    levels: Levels = ()

    def columns(self, *, whole: bool) -> list[tuple[str, Expression]]:
        """Its columns by name: of a category, those of all levels, or of all but the reference."""
        if not self.levels:
            return [(self.text, self.column)]
        mark = "" if whole else "T."
        chosen = self.levels if whole else self.levels[1:]
        return [(f"{self.text}[{mark}{label}]", self.column.isin([level])) for label, level in chosen]


def _factor(table: Table, text: str, known: Levels = ()) -> Factor:
    """A factor of a formula, with levels of a fit if there was one. Raises SchemaError for what is none."""
    where = f"the formula's {text!r:.400}"
    if text in table.column_names:
        return _plain(table, text, table[text], known)
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "C":
            return _category(table, text, tree, where, known)
        found = _evaluated(table, tree, where)
    except SyntaxError as error:
        raise SchemaError(f"{where} cannot be read ({error.msg})") from error
    except (RecursionError, MemoryError) as error:
        raise SchemaError(f"{where} is nested too deeply") from error
    if not isinstance(found, Expression):
        raise SchemaError(f"{where} is no column")
    return _plain(table, text, found, known)


def _known(table: Table, text: str, column: Expression, levels: Levels) -> Factor:
    """A factor with the levels of a fit, which knows nothing of others."""
    new = sorted({*column.labels} - {level for _, level in levels})
    if new:
        raise SchemaError(
            f"table {table.name!r}: {text} has the label {new[0]!r}, which the fit did not know, and a model "
            "says nothing of such rows; assign the columns of the formula by hand to take them for others"
        )
    return Factor(text, column, levels)


def _plain(table: Table, text: str, column: Expression, known: Levels) -> Factor:
    if column.kind == "category":
        if known:
            return _known(table, text, column, known)
        return Factor(text, column, tuple((label, label) for label in column.labels))
    if column.meaning is not None:
        raise SchemaError(
            f"table {table.name!r}: {text} is a {column.kind}, and no column of a fit; take a part or a "
            "difference of it first, as in table.assign(age=table['born'].dt.age('2024-12-31'))"
        )
    return Factor(text, column)


def _category(table: Table, text: str, call: ast.Call, where: str, fitted: Levels) -> Factor:
    """`C(x)`, `C(x, Treatment("II"))` or `C(x, levels=[...])`."""
    if not call.args or len(call.args) > 2:
        raise SchemaError(f"{where}: C takes a column and how it is coded, as in C(stage, Treatment('II'))")
    column = _evaluated(table, call.args[0], where)
    if not isinstance(column, Expression):
        raise SchemaError(f"{where}: C takes a column")
    if fitted:
        return _known(table, text, column, fitted)
    coding = call.args[1] if len(call.args) == 2 else None
    levels: list[Any] | None = None
    for keyword in call.keywords:
        if keyword.arg == "levels":
            levels = _given_levels(keyword.value, where)
        elif keyword.arg == "contrasts" and coding is None:
            coding = keyword.value
        else:
            raise SchemaError(f"{where}: C has no option {keyword.arg!r} here; it has levels")
    known = _levels(table, column, call.args[0], levels, where)
    reference = known[0] if coding is None else _reference(coding, where)
    if reference not in known:
        raise SchemaError(f"{where}: the reference {reference!r} is none of the levels {known}")
    known = [reference, *(level for level in known if level != reference)]
    return Factor(text, column, tuple((_label(level), level) for level in known))


def _given_levels(tree: ast.expr, where: str) -> list[Any]:
    given = _literal(tree, where)
    single = isinstance(given, list | tuple) and all(isinstance(one, int | float | str) for one in given)
    if not single or len(set(given)) < len(given) or not 1 <= len(given) <= MOST_COLUMNS:
        raise SchemaError(f"{where}: levels are a list of numbers or labels, each one once, as in [1, 2, 3]")
    return list(given)


def _levels(
    table: Table, column: Expression, tree: ast.expr, given: list[Any] | None, where: str
) -> list[Any]:
    if column.labels:
        if given is not None and set(given) != set(column.labels):
            raise SchemaError(f"{where}: levels={given} are others than the labels {list(column.labels)}")
        return list(column.labels) if given is None else given
    if given is not None:
        return given
    if column.kind == "boolean":
        return [0, 1]
    if isinstance(tree, ast.Name) and tree.id in table.column_names:
        return [_whole(one) for one in categories_of(table, table.column(tree.id), None)]
    raise SchemaError(f"{where} has no public levels; name them, as in C(grade, levels=[1, 2, 3])")


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _label(level: Any) -> str:
    return str(_whole(level))


def _reference(coding: ast.expr, where: str) -> Any:
    """The reference level of a treatment coding, the only one that there is."""
    name = coding.func if isinstance(coding, ast.Call) else coding
    called = name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")
    given = []
    if isinstance(coding, ast.Call):
        given = [*coding.args, *(one.value for one in coding.keywords if one.arg in ("reference", "base"))]
    if called.lower() != "treatment" or len(given) != 1:
        raise SchemaError(
            f"{where}: categories are coded by Treatment(reference) here, as in Treatment('II')"
        )
    return _literal(given[0], where)


def _literal(tree: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError) as error:
        raise SchemaError(f"{where}: {ast.unparse(tree)} is no plain value") from error


def _applied(sign: ast.AST, operands: list[Any], where: str) -> Any:
    """What an operator makes of columns, numbers and text. Raises SchemaError for what it does not take."""
    apart = not any(isinstance(one, Expression) for one in operands)
    if apart and any(isinstance(one, str) for one in operands):
        raise SchemaError(f"{where} joins text with what is no column")
    try:
        if apart and isinstance(sign, ast.Pow):
            operands = list(map(float, operands))  # whole powers of whole numbers have no end
        found = _SIGNS[type(sign)](*operands)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise SchemaError(f"{where} cannot be computed ({error})") from error
    if isinstance(found, complex):
        raise SchemaError(f"{where} cannot be computed; a root of it is no number")
    return int(found) if apart and isinstance(found, float) and found.is_integer() else found


def _evaluated(table: Table, tree: ast.expr, where: str) -> Any:
    """Column arithmetic as it is written. Raises SchemaError for anything else."""
    match tree:
        case ast.Constant(value=bool() | int() | float() | str()):
            return tree.value
        case ast.Name(id=name):
            if name not in table.column_names:
                raise SchemaError(
                    f"{where} names {name!r}, which is no column of table {table.name!r}. "
                    f"{suggest(name, table.column_names)}"
                )
            return table[name]
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            return _applied(sign, [_evaluated(table, operand, where)], where)
        case (
            ast.BinOp(left=left, op=sign, right=right)
            | ast.Compare(left=left, ops=[sign], comparators=[right])
        ) if type(sign) in _SIGNS:
            return _applied(sign, [_evaluated(table, left, where), _evaluated(table, right, where)], where)
        case ast.Call(func=function, args=arguments, keywords=[]):
            name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            package = getattr(getattr(function, "value", None), "id", "np")
            if name in _FUNCTIONS and package in ("np", "numpy") and arguments:
                given = [_evaluated(table, one, where) for one in arguments]
                if isinstance(given[0], Expression) and len(given) <= (2 if name == "round" else 1):
                    return _FUNCTIONS[name](*given)
    raise SchemaError(
        f"{where}: {ast.unparse(tree)} is no column arithmetic; a formula has columns, numbers, + - * / ** "
        f"within I(...), comparisons, C(...) and {', '.join(_FUNCTIONS)}"
    )


# -- which columns terms have --------------------------------------------------------------------------------

Part = tuple[frozenset[str], frozenset[str]]
"""Categories of a part of a term, and those of them that have all of their levels."""


def _parts(categories: Sequence[str], used: set[frozenset[str]]) -> list[Part]:
    """How a term codes its categories such that no column follows from those of earlier terms (patsy)."""
    subsets = [
        frozenset(some)
        for size in range(len(categories) + 1)
        for some in itertools.combinations(categories, size)
    ]
    left: list[Part] = [(some, frozenset[str]()) for some in subsets if some not in used]
    used.update(subsets)
    while _absorbed(left):
        pass
    return left


def _absorbed(parts: list[Part]) -> bool:
    """Have one part take in another, by all levels of the one category that it has more, if two fit."""
    for short, (few, few_whole) in enumerate(parts):
        for place in range(short + 1, len(parts)):
            many, whole = parts[place]
            more = many - few
            if few < many and len(more) == 1 and not more & whole and few_whole == whole & few:
                parts[place] = many, whole | more
                del parts[short]
                return True
    return False


def _by_numbers(
    terms: Sequence[Sequence[str]], factors: Mapping[str, Factor]
) -> Iterator[tuple[Sequence[str], list[Part]]]:
    """Terms in patsy's order, with the parts of each: by their numeric factors, and then by degree."""
    groups: dict[frozenset[str], list[Sequence[str]]] = {frozenset(): []}
    for term in terms:
        numeric = frozenset(name for name in term if not factors[name].levels)
        groups.setdefault(numeric, []).append(term)
    for some in groups.values():
        used: set[frozenset[str]] = set()
        for term in sorted(some, key=len):
            categories = [name for name in term if factors[name].levels]
            if len(categories) > MOST_CATEGORIES:
                raise SchemaError(
                    f"the formula's {':'.join(term)!r:.400} combines {len(categories)} categories, and "
                    f"{MOST_CATEGORIES} will do"
                )
            yield term, _parts(categories, used)


def _count(term: Sequence[str], part: Part, factors: Mapping[str, Factor]) -> int:
    """How many columns a part of a term has."""
    some, whole = part
    return math.prod(len(factors[name].levels) - (name not in whole) for name in term if name in some)


def _columns(
    term: Sequence[str], part: Part, factors: Mapping[str, Factor]
) -> Iterator[tuple[str, Expression]]:
    """Columns of a part of a term; of its first factor they change fastest."""
    some, whole = part
    sides = [
        factors[name].columns(whole=name in whole)
        for name in term
        if not factors[name].levels or name in some
    ]
    for chosen in itertools.product(*reversed(sides)):
        names, columns = zip(*reversed(chosen), strict=True)
        product = columns[0]
        for column in columns[1:]:
            product = product * column
        yield ":".join(names), product


# -- designs -------------------------------------------------------------------------------------------------


@short_tracebacks
@attrs.frozen
class Design:
    """A formula, to make the columns of a fit that it means, on any table with those that it names.

    `LogisticRegression.fit(table, formula)` uses one, and what it fits predicts for tables like the first.
    `transform` gives the table with the new columns, for anything else.
    """

    formula: str = attrs.field(validator=FORMULA)

    @property
    def has_intercept(self) -> bool:
        """Whether it has an intercept, which it has unless it says `0 +` or `- 1`."""
        return [] in terms_of(self.formula)[1]

    def factor(self, table: Table, text: str) -> Factor:
        """A factor by its text. Raises SchemaError for what cannot be one."""
        return _factor(table, text)

    def fitted(self, table: Table) -> Design:
        """The design of a fit on a table: on others, categories have the levels that they had there."""
        texts = itertools.chain(*terms_of(self.formula)[1])
        return FittedDesign(self.formula, {text: _factor(table, text).levels for text in texts})

    def target(self, table: Table) -> tuple[str, Expression]:
        """The outcome: its name, and the column. Raises SchemaError unless there is one."""
        left, _ = terms_of(self.formula)
        if len(left) != 1 or len(left[0]) != 1:
            raise SchemaError(
                f"the formula {self.formula!r:.400} has to have one outcome, to the left of its ~"
            )
        found = _factor(table, left[0][0])
        return found.text, found.column

    def features(self, table: Table) -> dict[str, Expression]:
        """The columns of the fit by name, in their order, without the intercept. Raises SchemaError."""
        _, right = terms_of(self.formula)
        factors = {name: self.factor(table, name) for name in dict.fromkeys(itertools.chain(*right))}
        made: dict[str, Expression] = {}
        for term, parts in _by_numbers(right, factors):
            for part in parts:
                if not term or (not part[0] and all(factors[name].levels for name in term)):
                    continue  # the intercept, which fits add by themselves
                if (count := len(made) + _count(term, part, factors)) > MOST_COLUMNS:
                    raise SchemaError(
                        f"the formula {self.formula!r:.400} means {count:,} columns, and "
                        f"{MOST_COLUMNS} will do"
                    )
                made |= dict(_columns(term, part, factors))
        if not made:
            raise SchemaError(f"the formula {self.formula!r:.400} has no column but the intercept")
        return made

    def lacking(self, table: Table, *, outcome: bool) -> dict[str, Expression]:
        """Those of its columns that a table lacks, by name; with the outcome, if that is wanted."""
        wanted = self.features(table)
        if outcome:
            name, column = self.target(table)
            wanted[name] = column
        there = table.column_names
        return {name: column for name, column in wanted.items() if column.text != name or name not in there}

    def applied(self, table: Table, *, outcome: bool) -> Calls[Table]:
        """The computation of the columns that a table lacks; see `lacking`."""
        return (yield from assigned(table, self.lacking(table, outcome=outcome)))

    @takes(table=TABLE)
    def transform(self, table: Table) -> Any:
        """The table with the columns of the formula; on an `AsyncLake`, an awaitable of it.

        Discloses what `Table.assign` does.
        """
        return table.lake.perform(self.applied(table, outcome=False), "transform")


@attrs.frozen
class FittedDesign(Design):
    """A design that a fit has gone by, with the levels that its factors had."""

    levels: Mapping[str, Levels] = attrs.field(repr=False, eq=False)

    def factor(self, table: Table, text: str) -> Factor:
        """A factor with the levels of the fit. Raises SchemaError for labels that it did not know."""
        return _factor(table, text, self.levels.get(text, ()))


def assigned(table: Table, columns: Mapping[str, Expression]) -> Calls[Table]:
    """The computation of a table with new columns; of none, it is the table."""
    if not columns:
        return table
    made: Table = yield called("assign")(table, columns)
    return made


class Designed(Protocol):
    """What may have been fitted by a formula."""

    design_: Design | None


D = TypeVar("D", bound=Designed)


@attrs.frozen(eq=False)
class FitColumns:
    """What a fit goes by: an outcome and features by name, and the columns that have to be computed first.

    All fits are given these, of one model, of folds or of a grid, at once or as a job. `design` is that of
    the formula, if there was one. Nothing in it was learned from rows: levels are the public labels, or ends
    of public ranges, so a fold has the columns that it would have by itself.
    """

    target: str
    features: str | Sequence[str] | None
    new: Mapping[str, Expression] = attrs.field(factory=dict)
    design: Design | None = None

    @classmethod
    def of(
        cls, table: Table, target: str, features: str | Sequence[str] | None, *, intercept: bool
    ) -> FitColumns:
        """What `target`, a column or a formula, means to fits on a table, with an intercept or without one.

        Raises SchemaError for a formula that means no columns, or says otherwise.
        """
        if not is_formula(target, table):
            return cls(target, features)
        design = Design(target)
        if features is not None:
            raise SchemaError(f"the formula {target!r} says what the features are; leave out features=")
        if design.has_intercept != intercept:
            raise SchemaError(
                f"the formula {target!r} has {'an' if design.has_intercept else 'no'} intercept, and the "
                f"model fit_intercept={intercept}; write 0 + in the formula just if that is False"
            )
        outcome, _ = design.target(table)
        new = design.lacking(table, outcome=True)
        return cls(outcome, list(design.features(table)), new, design.fitted(table))

    def applied(self, table: Table) -> Calls[Table]:
        """The computation of the columns that have to be there first."""
        return (yield from assigned(table, self.new))

    def fitted(self, model: D) -> D:
        """A model that was fitted by these, which then knows the formula."""
        model.design_ = self.design
        return model
