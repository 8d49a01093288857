"""What a study does, in sentences for the owners who are asked: written by each node, from data alone.

Nothing that the analyst has written is repeated as it is, but for the purpose, which is shown as a quotation.
Names of tables, owners and columns are those of the node's catalog; what else is in the arguments is shown as
values, in quotes. Whatever a computation can disclose is said by its name, and owners' nodes know no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from tercet.errors import ConsentError
from tercet.members.rules import moment
from tercet.members.studies import (
    COLUMNS,
    EXPRESSION,
    MODEL,
    RENAMED,
    RESULT,
    TABLE,
    TO,
    Asked,
    Study,
    each_value,
    is_tagged,
    plain,
    short,
)
from tercet.plans.types import CLASSES, DisclosureClass

OPEN_ENDED = ("features", "columns")
"""Arguments that mean all columns where they are None."""
COLUMN_ARGUMENTS = frozenset(
    {*OPEN_ENDED, "on", "by", "target", "stratify", "names", "rows", "sample_weight", "offset"}
)
"""Arguments that name columns."""
BY_COLUMN = "aggregates"
"""The argument that says by column what is computed of it."""
LONGEST_VALUE = 400
"""Characters of an argument on the page."""
MOST_NAMES = 24
"""Columns that a sentence names."""


@attrs.frozen
class Does:
    """What a computation does and what comes out of it, and the gravest class of that.

    `learns` says that what it makes rests on many rows together, and is by row of no table.
    """

    what: str
    gives: str
    kind: DisclosureClass = "check"
    learns: bool = False


CHECKS = "bits that say whether it worked"
DOES: Mapping[str, Does] = {
    "join": Does(
        "links rows with the same key", "the number of rows that match, unless sizes are hidden", "count"
    ),
    "concat": Does(
        "puts rows of tables with the same columns together", "the number of different keys", "count"
    ),
    "group_rows": Does(
        "makes one row of those with the same key", "the number of keys, unless sizes are hidden", "count"
    ),
    "split": Does("splits rows at random", CHECKS, "count"),
    "assign": Does("computes new columns", CHECKS),
    "filter": Does(
        "leaves rows out by a condition", "the number of rows left, where it is asked for", "count"
    ),
    "dropna": Does(
        "leaves rows with missing values out", "the number of rows left, where asked for", "count"
    ),
    "learn": Does("learns means, spreads or ends of columns, which stay secret", CHECKS, learns=True),
    "transform": Does("scales or fills columns by what was learned", CHECKS),
    "describe": Does("describes columns", "counts, means, spreads and the like of columns", "figure"),
    "crosstab": Does("counts or averages rows by category", "figures by category", "figure"),
    "groupby": Does("sums or averages columns by category", "figures by category", "figure"),
    "corr": Does("correlates columns", "correlations of columns", "figure"),
    "fit": Does("fits a model, which stays secret", CHECKS, learns=True),
    "fit_alone": Does("fits a model, which stays secret", CHECKS, learns=True),
    "cross_validate": Does(
        "fits and scores models on parts of the rows", "scores of these models", "figure", learns=True
    ),
    "grid_search": Does(
        "chooses a penalty and fits a model", "scores of the penalties", "figure", learns=True
    ),
    "evaluate": Does("evaluates a model, which stays secret", CHECKS),
    "metrics": Does("tells how good a model is", "metrics of a model", "figure"),
    "roc_curve": Does("draws a ROC curve", "points of the curve", "figure"),
    "calibration": Does("compares predictions with outcomes", "means by groups of many rows", "figure"),
    "score": Does("tells how good a model is", "a score", "figure"),
    "summary": Does("summarises a model", "coefficients and their standard errors", "model"),
    "summary_of_model": Does("summarises a model", "coefficients and their standard errors", "model"),
    "reveal_model": Does("reveals a model", "all coefficients of it", "model"),
    "reveal_scaler": Does(
        "reveals what a scaler has learned", "means and spreads, or ends, of columns", "figure"
    ),
    "predict": Does("predicts by a model, which stays secret", CHECKS),
    "reveal_column": Does("reveals predictions", "ONE VALUE FOR EACH ROW", "rows"),
    "reveal_keyed": Does(
        "reveals predictions with hashes of keys", "ONE VALUE FOR EACH ROW, AND WHOSE ROW IT IS", "rows"
    ),
    "reveal_rows": Does("reveals rows", "THE VALUES OF EACH ROW", "rows"),
}
"""Every computation that nodes know, by name."""
FITS = ("fit", "fit_alone", "grid_search")
"""Those that give models."""


@attrs.frozen
class TableFacts:
    """What a node's catalog has on a table: whose it is, its columns, and which of them are keys."""

    owner: str
    columns: tuple[str, ...]
    keys: tuple[str, ...] = ()


@attrs.frozen
class Facts:
    """What a node's catalog has on all that a study names: tables, and the tables that models came from."""

    tables: Mapping[str, TableFacts]
    models: Mapping[str, tuple[str, ...]]


def origins(study: Study, facts: Facts) -> list[tuple[str, ...]]:
    """For each request the names of the tables that it reads, in the end, through earlier results too."""
    found: list[tuple[str, ...]] = []
    for request in study.requests:
        names = set[str](request.tagged(TABLE))
        for model in request.tagged(MODEL):
            names |= set(facts.models.get(model, ()))
        for position, _ in request.tagged(RESULT):
            names |= set(found[position - 1])
        found.append(tuple(sorted(names)))
    return found


def row_origins(study: Study) -> list[tuple[str, ...]]:
    """For each request the tables by whose rows its result is: models are by row of none."""
    found: list[tuple[str, ...]] = []
    for request in study.requests:
        kind_of(request)
        names = set[str]()
        if not DOES[request.computation].learns:
            names |= set(request.tagged(TABLE))
            names = names.union(*(found[position - 1] for position, _ in request.tagged(RESULT)))
        found.append(tuple(sorted(names)))
    return found


def sum_origins(study: Study) -> list[tuple[str, ...]]:
    """For each request the tables over whose rows its result is summed, not those of models only."""
    found: list[tuple[str, ...]] = []
    for request in study.requests:
        learned = ("self",) if request.computation == "transform" else ()
        given = attrs.evolve(
            request, arguments={role: one for role, one in request.arguments.items() if role not in learned}
        )
        names = set[str](given.tagged(TABLE))
        for position, _ in given.tagged(RESULT):
            if study.requests[position - 1].computation not in FITS:
                names |= set(found[position - 1])
        found.append(tuple(sorted(names)))
    return found


def kind_of(request: Asked) -> DisclosureClass:
    """The gravest class of what comes out of a request. Raises ConsentError for no known computation."""
    known = DOES.get(request.computation)
    if known is None:
        raise ConsentError(
            f"nodes know no computation {short(request.computation)}; record the study with their release"
        )
    return known.kind


def page(study: Study, facts: Facts) -> list[str]:
    """The sentences, one a line, for people who decide. Raises ConsentError for no known computation."""
    lines = [
        f"study {study.number} of {study.analyst}",
        f"for the purpose, in the analyst's words: {quotation(study.purpose)}",
        f"to be run {_times(study.uses)}, until {moment(study.until)}, whatever rows the tables hold then",
        *_tables(study, facts),
        f"what comes out goes to {', '.join(study.receivers)}",
        *_gravest(study, facts),
        f"{len(study.requests)} request{'s' * (len(study.requests) > 1)}:",
    ]
    for position, (request, reads) in enumerate(zip(study.requests, _reads(study, facts), strict=True), 1):
        lines.append(f"{position:3}. {_sentence(study, request, facts, reads)}")
    return lines


def quotation(text: str) -> str:
    """What somebody has written, on one line, with nothing in it that hides or turns text."""
    return ascii(text) if not all(char.isprintable() or char == "\n" for char in text) else repr(text)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _tables(study: Study, facts: Facts) -> Iterator[str]:
    named = [*study.tables(), *(source for model in study.models() for source in facts.models.get(model, ()))]
    for name in dict.fromkeys(named):
        yield f"it reads table {plain(name)}, {_owner(facts, name)}"
    for model in study.models():
        made_from = ", ".join(map(plain, facts.models.get(model, ()))) or "no table"
        yield f"it reads model {plain(model)}, made from {made_from}"


def _gravest(study: Study, facts: Facts) -> Iterator[str]:
    """What an owner should not overlook."""
    kinds = [kind_of(request) for request in study.requests]
    if "rows" not in kinds:
        gravest = max(kinds, key=CLASSES.index)
        yield f"no value of a single row comes out; the most that does is {_CLASS_WORDS[gravest]}"
    for position, (kind, names) in enumerate(zip(kinds, row_origins(study), strict=True), 1):
        if kind == "rows":
            receiver = _receiver(study, study.requests[position - 1])
            whose = ", ".join(f"{plain(name)} ({_owner(facts, name)})" for name in names) or "no table"
            yield f"NOTE: request {position} shows {receiver} a value for each row of {whose}"


_CLASS_WORDS = {
    "check": "whether computations worked",
    "count": "how many rows there are",
    "figure": "figures over many rows",
    "model": "the parameters of models",
}


def _owner(facts: Facts, name: str) -> str:
    table = facts.tables.get(name)
    return "a table that is not there" if table is None else f"{table.owner}'s"


def _receiver(study: Study, request: Asked) -> str:
    return study.analyst if request.receiver == "analyst" else request.receiver


def _sentence(study: Study, request: Asked, facts: Facts, read: Reads) -> str:
    kind_of(request)
    does = DOES[request.computation]
    columns = _columns(request, facts, read)
    given = ", ".join(
        f"{plain(name)}={short(value, LONGEST_VALUE)}"
        for name, value in request.arguments.items()
        if name != TO and value is not None
    )
    reads = f"; it reads {columns}" if columns else ""
    return (
        f"{request.computation}: {does.what}{reads}. To {_receiver(study, request)}: {does.gives}. "
        f"Given: {given or 'nothing'}"
    )


@attrs.frozen
class Reads:
    """What a request reads: tables by row, tables that models were learned from, and what columns come from.

    `derived` are columns that were computed, by name, and the tables' own columns that they come from.
    """

    rows: tuple[str, ...]
    learned: tuple[str, ...]
    derived: Mapping[str, frozenset[str]]


def _reads(study: Study, facts: Facts) -> list[Reads]:
    by_row = row_origins(study)
    derived: list[dict[str, frozenset[str]]] = []
    found = []
    for request, names in zip(study.requests, origins(study, facts), strict=True):
        known: dict[str, frozenset[str]] = {}
        rows = set[str](request.tagged(TABLE))
        for position, _ in request.tagged(RESULT):
            rows |= set(by_row[position - 1])
            for name, columns in derived[position - 1].items():
                known[name] = known.get(name, frozenset()) | columns
        own = frozenset().union(*(facts.tables[name].columns for name in rows & facts.tables.keys()))
        for _, renamed in reversed(list(request.tagged(RENAMED))):  # the innermost first
            # Another table may have a column of the new name, and that is read then.
            known |= {
                new: known.get(old, frozenset({old})) | known.get(new, own & {new})
                for old, new in renamed.items()
            }
        read = Reads(tuple(sorted(rows)), tuple(name for name in names if name not in rows), known)
        found.append(read)
        derived.append({**known, **dict(_made(request, read))})
    return found


def _made(request: Asked, read: Reads) -> Iterator[tuple[str, frozenset[str]]]:
    """Columns that a request computes, and the tables' own columns that each comes from."""
    expressions = request.arguments.get("expressions")
    if isinstance(expressions, Mapping):
        for name, expression in expressions.items():
            columns = [read.derived.get(one, frozenset({one})) for one in _in_expressions(expression)]
            yield str(name), frozenset().union(*columns)


def _columns(request: Asked, facts: Facts, read: Reads) -> str:
    """Which columns of whose tables a request reads: those that it names, else all."""
    tables = {name: facts.tables[name] for name in read.rows if name in facts.tables}
    made, written = dict(_made(request, read)), set(_in_expressions(request.arguments))
    own = frozenset[str]()
    for name in named_columns(request):
        own |= made.get(name, frozenset())
        if name in written or name not in made:
            own |= read.derived.get(name, frozenset({name}))
    known = frozenset[str]().union(*(table.columns for table in tables.values()))
    everything = not own or not own <= known
    found = []
    for name, table in tables.items():
        mine = [column for column in table.columns if column in own]
        if everything or mine:
            more = len(mine) - MOST_NAMES
            which = ", ".join(map(plain, mine[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
            found.append(f"{'all columns' if everything else which} of {plain(name)} ({table.owner}'s)")
    if read.learned:
        models = ", ".join(f"{plain(name)} ({_owner(facts, name)})" for name in read.learned)
        found.append(f"what was learned from {models}")
    return "; ".join(found)


def named_columns(request: Asked) -> Iterator[str]:
    """Names of columns in the arguments that name some; none if one of these leaves it open which."""
    given, chosen = request.arguments, [name for _, listed in request.tagged(COLUMNS) for name in listed]
    if not chosen and any(name in given and given[name] is None for name in OPEN_ENDED):
        return
    yield from chosen
    for name in COLUMN_ARGUMENTS & given.keys():
        yield from (value for value in each_value(given[name]) if isinstance(value, str))
    if isinstance(given.get(BY_COLUMN), Mapping):
        yield from map(str, given[BY_COLUMN])
    yield from _in_expressions(given)


def _in_expressions(value: Any) -> Iterator[str]:
    """Columns that expressions in a value name."""
    for one in each_value(value):
        if is_tagged(one, EXPRESSION):
            for operation in one[EXPRESSION][1]:
                match operation:
                    case ["column", [str(column)], _]:
                        yield column
