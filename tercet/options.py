"""What options may be: one rule for each kind of them, kept where an option is given.

A rule says whether a value will do, and otherwise raises one sentence that names the option, shows what was
given and says what to write. Rules are validators of attrs classes, so that constructors refuse at once, and
`takes` has functions and methods refuse before they begin anything. Nobody guesses what a wrong value may
have meant: text is no number, True is no count, and an array is no column's name.
"""

from __future__ import annotations

import abc
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import attrs

from tercet.errors import PlanError, SchemaError

P = ParamSpec("P")
T = TypeVar("T")

SHOWN = 60
"""No more characters of a value are shown."""


@functools.singledispatch
def described(value: Any) -> str:
    """What a value is, in words; packages register what their own types are."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, bool):
        return f"a boolean ({value})"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "bytes"
    if hasattr(value, "__array__") or hasattr(value, "__dataframe__"):
        shape = getattr(value, "shape", None)
        sizes = " x ".join(map(str, shape)) if isinstance(shape, tuple) else "some"
        return f"an array ({type(value).__name__}) of {sizes} values"
    if isinstance(value, list | tuple | set | frozenset | dict):
        return f"a {type(value).__name__} of {len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, numbers.Number):
        return "a number"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


@functools.singledispatch
def mended(value: Any, name: str) -> str | None:  # noqa: ARG001 - for what has a mend of its own
    """What to write instead of a value, where its package knows; None where it does not."""
    return None


def shown(value: Any) -> str | None:
    """Text, numbers and lists of them as they were written; None of anything else, and of what is long."""
    plain = value is None or isinstance(value, str | bytes | numbers.Number)
    if isinstance(value, list | tuple):
        plain = all(isinstance(one, str | numbers.Number) for one in value)
    try:
        text = f"{value}" if isinstance(value, numbers.Number) else repr(value)
    except ValueError:  # of more digits than Python writes
        return None
    return text if plain and len(text) <= SHOWN else None


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number, of Python or of numpy, and no boolean."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # larger than all floats
        return False


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, of Python or of numpy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def elements(value: Any) -> Sequence[Any] | None:
    """What is in a list, tuple or range, or an index or array of one dimension; None of anything else."""
    if isinstance(value, list | tuple | range):
        return value
    if hasattr(value, "__array__") and getattr(value, "ndim", 1) == 1 and hasattr(value, "__len__"):
        return list(value)
    return None


@attrs.frozen(kw_only=True)
class Rule(abc.ABC):
    """What an option may be.

    `advice` ends the sentence that refuses others; `none` lets None be one of them, and `error` is what is
    raised.
    """

    advice: str = ""
    none: bool = False
    error: type[PlanError | SchemaError] = PlanError

    @property
    @abc.abstractmethod
    def says(self) -> str:
        """What it may be, as in 'a positive number'."""

    @abc.abstractmethod
    def allows(self, value: Any) -> bool:
        """Whether a value will do."""

    def alike(self, value: Any) -> bool:
        """Whether a value is at least of the right type, so that its own type is not the trouble."""
        return self.allows(value)

    def require(self, where: str, name: str, value: Any) -> None:
        """Raise an error about an option of a class or function unless its value will do."""
        if (value is None and self.none) or self.allows(value):
            return
        told = self.refusal(name, value)
        parts = [told] if mended(value, name) is not None else [told, self.advice]
        raise self.error(f"{where}: {'; '.join(filter(None, parts))}")

    def refusal(self, name: str, value: Any) -> str:
        """What is wrong with a value that will not do: with the first part of it that will not, if any."""
        says = f"{self.says}, or None" if self.none else self.says
        if value is not None and self.alike(value):
            for part, rule, one in self.parts(name, value):
                if not rule.allows(one):
                    return f"{rule.refusal(part, one)}; {name} has to be {says}"
        what = shown(value)
        if what is not None:
            itself = value is None or self.alike(value)
            return f"{name}={what} is {'' if itself else f'{described(value)}, '}not {says}"
        told = f"{name} is {described(value)}, not {says}"
        if (mend := mended(value, name)) is not None:
            return f"{told}: {mend}"
        if isinstance(value, Mapping) and list(value) == [name] and self.allows(value[name]):
            return f"{told}: give what it has under {name!r}, without the dict"
        return told

    def parts(self, name: str, value: Any) -> Iterator[tuple[str, Rule, Any]]:  # noqa: ARG002 - of most rules
        """Parts of a value that is alike: how each is written, what it has to be, and what it is."""
        yield from ()

    def __call__(self, instance: Any, attribute: Any, value: Any) -> None:
        """As a validator of an attrs class."""
        self.require(type(instance).__name__, attribute.alias or attribute.name, value)


@attrs.frozen(kw_only=True)
class Number(Rule):
    """A finite number between bounds: `least` and `most` belong to the range, `above` and `below` do not."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    whole: bool = False

    @property
    def says(self) -> str:
        """A number, and its bounds."""
        what = "a whole number" if self.whole else "a finite number"
        if self.above == 0 and self.most is None and self.below is None:
            return "a positive, whole number" if self.whole else "a positive, finite number"
        bounded = "a whole number" if self.whole else "a number"
        low = next((one for one in (self.least, self.above) if one is not None), None)
        high = next((one for one in (self.most, self.below) if one is not None), None)
        if self.above == 0 and high is not None and self.below is None:
            return f"a positive number of at most {high:g}"
        if low is not None and high is not None:
            ends = f"{bounded} between {low:g} and {high:g}"
            return ends if self.below is None or self.least is None else f"{ends}, and below {high:g}"
        if low is not None:
            return f"{what} of at least {low:g}" if self.above is None else f"{what} above {low:g}"
        if high is not None:
            return f"{what} of at most {high:g}" if self.below is None else f"{what} below {high:g}"
        return what

    def alike(self, value: Any) -> bool:
        """Whether it is a number at all."""
        return isinstance(value, numbers.Real) and not isinstance(value, bool)

    def allows(self, value: Any) -> bool:
        """Whether it is a number within the bounds."""
        if not (is_whole(value) if self.whole else is_number(value)):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


@attrs.frozen(kw_only=True)
class Flag(Rule):
    """True or False."""

    says = "True or False"

    def allows(self, value: Any) -> bool:
        """Whether it is a boolean of Python or of numpy."""
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")


@attrs.frozen(kw_only=True)
class Choice(Rule):
    """One of a few texts."""

    choices: tuple[str, ...]

    @property
    def says(self) -> str:
        """The choices."""
        return " or ".join(repr(choice) for choice in self.choices)

    def alike(self, value: Any) -> bool:
        """Whether it is text."""
        return isinstance(value, str)

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return isinstance(value, str) and value in self.choices


@attrs.frozen(kw_only=True)
class Text(Rule):
    """Some text: the name of a column, a table, a receiver."""

    what: str = "the name of a column"

    @property
    def says(self) -> str:
        """What it names."""
        return self.what

    def alike(self, value: Any) -> bool:
        """Whether it is text."""
        return isinstance(value, str)

    def allows(self, value: Any) -> bool:
        """Whether it is text, and not empty."""
        return isinstance(value, str) and bool(value)


@attrs.frozen(kw_only=True)
class Names(Rule):
    """One name, or a list of at most `most` of them, each once."""

    what: str = "names of columns"
    alone: bool = True
    """Whether one may be given without a list."""
    empty: bool = False
    most: int | None = None

    @property
    def says(self) -> str:
        """What they name."""
        return f"a name or a list of {self.what}" if self.alone else f"a list of {self.what}"

    def alike(self, value: Any) -> bool:
        """Whether it is text or a list."""
        return isinstance(value, str | list | tuple)

    def parts(self, name: str, value: Any) -> Iterator[tuple[str, Rule, Any]]:
        """Each name of a list."""
        if not isinstance(value, str):
            for place, one in enumerate(value):
                yield f"{name}[{place}]", Text(what="a name"), one

    def allows(self, value: Any) -> bool:
        """Whether all of them are text."""
        if isinstance(value, str):
            return self.alone and bool(value)
        found = elements(value)
        if found is None or not (found or self.empty) or (self.most is not None and len(found) > self.most):
            return False
        return all(isinstance(one, str) and one for one in found) and len(set(found)) == len(found)

    def refusal(self, name: str, value: Any) -> str:
        """What is wrong: too many of them, or the first that is there twice, unless one is no name at all."""
        found = [] if isinstance(value, str) else elements(value) or []
        if self.most is not None and len(found) > self.most:
            return f"{name} has {len(found)} {self.what}, and no more than {self.most} will do"
        if found and all(isinstance(one, str) and one for one in found):
            again = next((one for place, one in enumerate(found) if found.index(one) < place), None)
            if again is not None:
                return f"{name} has {again!r:.{SHOWN}} twice; name each once"
        return super().refusal(name, value)


@attrs.frozen(kw_only=True)
class Several(Rule):
    """A list of what a rule allows, of at most `most`."""

    each: Rule | None = None
    """None for anything."""
    empty: bool = False
    most: int | None = None
    what: str | None = None
    """What the list stands for, if that says more than what each of it is."""

    @property
    def says(self) -> str:
        """A list, and of what."""
        if self.what is not None:
            return self.what
        return "a list" if self.each is None else f"a list, each of it {self.each.says}"

    def allows(self, value: Any) -> bool:
        """Whether all of them will do."""
        found = elements(value)
        if found is None or not (found or self.empty) or (self.most is not None and len(found) > self.most):
            return False
        return self.each is None or all(map(self.each.allows, found))

    def refusal(self, name: str, value: Any) -> str:
        """What is wrong: too many of them, or one that will not do."""
        found = elements(value) or ()
        if self.most is not None and len(found) > self.most:
            return f"{name} has {len(found)} items, and no more than {self.most} will do"
        return super().refusal(name, value)

    def alike(self, value: Any) -> bool:
        """Whether it is a list."""
        return isinstance(value, list | tuple)

    def parts(self, name: str, value: Any) -> Iterator[tuple[str, Rule, Any]]:
        """Each of the list."""
        if self.each is not None:
            for place, one in enumerate(value):
                yield f"{name}[{place}]", self.each, one


class _Key(Text):
    """A key of a dict: any text, since tables say which columns they have."""

    def allows(self, value: Any) -> bool:
        """Whether it is text."""
        return isinstance(value, str)


_KEY = _Key()


@attrs.frozen(kw_only=True)
class ByName(Rule):
    """A dict from names, usually of columns, to what each of them gets."""

    of: str
    names: str = "names of columns"
    example: str
    each: Rule

    @property
    def says(self) -> str:
        """The dict, and one as an example."""
        return f"a dict from {self.names} to {self.of}, as in {self.example}"

    def allows(self, value: Any) -> bool:
        """Whether keys are text, and values will do."""
        return isinstance(value, Mapping) and all(
            isinstance(name, str) and self.each.allows(one) for name, one in value.items()
        )

    def parts(self, name: str, value: Any) -> Iterator[tuple[str, Rule, Any]]:
        """Each key, and what it stands for."""
        for key, one in value.items():
            yield f"a key of {name}", _KEY, key
            yield f"{name}[{key!r}]", self.each, one

    def alike(self, value: Any) -> bool:
        """Whether it is a dict."""
        return isinstance(value, Mapping)


@attrs.frozen(kw_only=True)
class Made(Rule):
    """An object of a class, whose name is given, since rules import nothing."""

    of: str
    what: str

    @property
    def says(self) -> str:
        """What the class stands for."""
        return self.what

    def allows(self, value: Any) -> bool:
        """Whether it is one, or of a class that inherits."""
        return any(cls.__name__ == self.of for cls in type(value).__mro__)


@attrs.frozen(kw_only=True)
class Function(Rule):
    """Something to call, and no class."""

    says = "a function"

    def allows(self, value: Any) -> bool:
        """Whether it can be called."""
        return callable(value) and not isinstance(value, type)


@attrs.frozen(kw_only=True)
class Either(Rule):
    """What one of several rules allows."""

    rules: tuple[Rule, ...]

    @property
    def says(self) -> str:
        """What each of them does."""
        return ", or ".join(rule.says for rule in self.rules)

    def alike(self, value: Any) -> bool:
        """Whether it is for one of them."""
        return any(rule.alike(value) for rule in self.rules)

    def allows(self, value: Any) -> bool:
        """Whether it will do for one of them."""
        return any(rule.allows(value) for rule in self.rules)


def _given(signature: inspect.Signature, args: Any, kwargs: Any) -> Iterator[tuple[str, str, Any]]:
    """What a call gives: parameter, option's name and value; none for calls that Python refuses."""
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return
    for parameter, value in given.items():
        if signature.parameters[parameter].kind is inspect.Parameter.VAR_KEYWORD:
            for name, one in value.items():
                yield parameter, name, one
        else:
            yield parameter, parameter, value


def _named(function: Callable[..., Any], args: Sequence[Any]) -> str:
    """A function by name; a method with the class of its object, which may have inherited it."""
    first = next(iter(inspect.signature(function).parameters), "")
    return f"{type(args[0]).__name__}.{function.__name__}" if first == "self" else function.__qualname__


def takes(**rules: Rule) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator of functions and methods: options by name keep to rules, before anything is done.

    Of a function with `**options`, rules are by their names, or one for all of them by that of the parameter.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        others = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
        if not others and (unknown := set(rules) - set(signature.parameters)):
            raise TypeError(f"{function.__qualname__} has no option {', '.join(sorted(unknown))}")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            for parameter, name, value in _given(signature, args, kwargs):
                rule = rules.get(name) or rules.get(parameter)
                if rule is not None:
                    rule.require(_named(function, args), name, value)
            return function(*args, **kwargs)

        return checked

    return decorate


COLUMN = Text(
    error=SchemaError,
    advice="arrays are no columns of a table: upload the values as a column of it, and give its name",
)
COLUMNS = Names(error=SchemaError, advice="as in ['age', 'bmi']")
MAYBE_COLUMN = attrs.evolve(COLUMN, none=True)
MAYBE_COLUMNS = attrs.evolve(COLUMNS, none=True)
KINDS = Names(what="names of kinds", none=True, error=SchemaError, advice="as in ['number', 'boolean']")
RENAMED = ByName(
    of="their new names",
    example="{'bmi': 'body_mass_index'}",
    each=Text(what="a name"),
    error=SchemaError,
)
RECEIVER = Text(what="the name of who receives the result", advice="such as 'analyst' or a member")
NAME = Text(what="a name", error=SchemaError, advice="write text, as in 'patients'")
FLAG = Flag()
TABLE = Made(
    of="Table", what="a table of a lake", error=SchemaError, advice="lake.upload(...) makes a table of data"
)
TABLES = Several(
    each=TABLE, most=64, what="a list of at most 64 tables", error=SchemaError, advice="as in [north, south]"
)
SITE = Choice(choices=("secret", "public"), none=True)
DUPLICATES = Choice(choices=("refuse", "count", "keep"))
NEW_COLUMN = Text(what="a name for a column", error=SchemaError)
NAMES = Names(what="names", none=True, advice="as in ['accuracy', 'roc_auc']")
READERS = Names(what="names of members", alone=False, empty=True, advice="as in ['clinic']")
DAYS = Number(above=0, most=36_500, none=True, advice="say after how many days it is forgotten")
LEVEL = Number(above=0, below=1)
TEST_SIZE = Number(above=0, below=1, error=SchemaError, advice="give the share of rows to test on")
RANDOM_STATE = Number(
    whole=True,
    least=0,
    below=1 << 32,
    none=True,
    advice="the same number deals the same rows to the same parts again",
)
CONDITION = Made(
    of="Expression", what="an expression of a table's columns such as table['age'] > 60", error=SchemaError
)
STATISTICS = Names(what="names of statistics", alone=False, most=128, advice="as in ['mean', 'std']")
AGGREGATES = ByName(
    of="statistics",
    example="{'cost': ['sum', 'mean']}",
    each=Names(what="names of statistics", most=16),
)
SCALES = ByName(
    of="fractional bits",
    example="{'cost_sum': 4}",
    each=Number(whole=True, least=-1000, most=1000),
    none=True,
)
CATEGORIES = ByName(
    of="lists of numbers or labels",
    example="{'sex': [0, 1]}",
    each=Several(
        each=Either(rules=(Number(), Flag(), Text(what="a label"))),
        most=256,
        what="a list of at most 256 numbers or labels",
    ),
    none=True,
)
PATH = Either(rules=(Text(what="a path as text"), Made(of="PurePath", what="one of pathlib")))
PLAN = Made(of="Plan", what="a plan, which a builder's plan() makes")
STEPS = Either(
    rules=(PLAN, Made(of="generator", what="a generator of plans"), Made(of="Computed", what="a computation"))
)
MANY = Several(empty=True, most=1024, advice="as in [1, 2, 3]")
NUMBER = Number()
NUMBERS = Several(each=NUMBER, advice="as in [1, 2, 3]")
ONE_HOT = Several(
    each=Either(rules=(NUMBER, FLAG, Text(what="a label"))),
    most=1024,
    none=True,
    what="a list of numbers or labels",
    advice="as in [1, 2, 3]",
)
REFERENCE = Either(rules=(NUMBER, FLAG, Text(what="a label")), none=True, advice="as in reference='I'")
PREFIX = Text(what="text that names begin with", none=True)
FILLER = Either(rules=(NUMBER, FLAG))
JOB = Made(of="Job", what="a job, which submit(...) gives")
COUNT = Number(whole=True, least=1)
