"""Joins of tables on their keys, in MPC: inner, left, right and outer, and the rows that match or do not.

Which rows match is secret. How many do is told to the nodes, or with noise, or not at all: `open_join` and
`hidden_join` are the two ways. What is missing from the result is missing as it is in uploads: a secret
boolean column beside each column tells where.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.computations import computation
from tercet.ml.hidden_join import hidden_join
from tercet.ml.join_options import HOW, SIZES, SUFFIXES, VALIDATE, How, Sizes, Validate
from tercet.ml.open_join import inner_join, paired_join
from tercet.ml.sides import renamed
from tercet.ml.table import Steps, Table, as_names
from tercet.options import COLUMNS


@computation("join", group="tables", on=COLUMNS, how=HOW, validate=VALIDATE, sizes=SIZES, suffixes=SUFFIXES)
def join(
    tables: Sequence[Table],
    on: str | Sequence[str],
    how: How = "inner",
    validate: Validate = "1:1",
    sizes: Sizes = "exact",
    suffixes: Sequence[str] | None = None,
) -> Steps[Table]:
    """Join tables on their keys, two of them, or more by an inner join of unique keys whose count is told.

    `how` is as in `pandas.merge`; "semi" keeps the rows of the first table whose keys are in the second,
    "anti" the others, with the columns of the first alone. With `validate="m:1"`, several rows of the first
    table may have one key, and the second has to have no minimum count. `suffixes`, one for each table, are
    for columns of one name.

    With `sizes="exact"`, rows come out in random order, and the nodes learn how many match, nothing on which.
    With `sizes="noisy"`, both tables get 512 dummy rows before, each pair of which matches or not by a secret
    coin, and drops out by a secret flag as filtered rows do. So what is told differs from the count by a
    binomial number, and of one row it tells no more than (0.5, 1e-9)-differential privacy allows.
    With `sizes="hidden"` they learn nothing but the sizes of the inputs: the result has all rows of the first
    table (of the second for "right", of both for "outer", and for "right" with "m:1"), some of which do not
    count, as after a filter. Whoever asks learns one bit, that no key occurs more often than the join allows.
    With "m:1", columns of the second table need public ranges, by which their scales may become coarser.

    A cell of a row that has no match is missing: a secret boolean column `<name>_missing` tells where, and
    `fillna`, imputers and `dropna` see to it; what is stored there is the column's mean, the middle of its
    declared range, or zero for booleans. The strictest minimum count among the tables goes on to hold, since
    whoever sees a row of one learns that it is in all.

    A table with a key twice, which owners' clients refuse to upload unless they say so, is not joined:
    openly, the nodes learn how often its keys occur, and the PlanError says how many rows are too many, and
    of which table; hidden, a SchemaError that there are some. Raises SchemaError for keys that differ in name
    or type, for tables whose keys may repeat where they must not, and for columns of one name without
    suffixes.
    """
    keys = as_names(on)
    require_alike_keys(tables, keys)
    _check_kind(tables, how, validate, sizes)
    if how in ("semi", "anti"):
        tables = [tables[0], _without_columns(tables[1])]
    tables = _apart(tables, suffixes)
    name, (left, *others) = "+".join(table.name for table in tables), tables
    turned = how == "right" and validate == "1:1"
    if turned:
        left, others = others[0], [left]
    as_left = "left" if turned else how
    if sizes == "hidden":
        joined = yield from hidden_join(left, others[0], as_left, many=validate == "m:1", name=name)
    elif how in ("inner", "semi") and sizes == "exact":
        joined = yield from inner_join(tables, name)
    else:
        joined = yield from paired_join(left, others[0], as_left, name, noisy=sizes == "noisy")
    if turned:  # columns stand in the order in which the tables were named
        mine = [column for column in joined.columns if column.name in left.column_names]
        rest = [column for column in joined.columns if column.name not in left.column_names]
        joined = attrs.evolve(joined, columns=(*rest, *mine))
    return attrs.evolve(
        joined,
        uploads=frozenset[str]().union(*(table.uploads for table in tables)),
        most_counted=_most_counted(tables, how, many=validate == "m:1"),
        key_holders=_key_holders(tables, how, sizes, turned=turned),
    )


def _key_holders(tables: Sequence[Table], how: How, sizes: Sizes, *, turned: bool) -> frozenset[str]:
    """Who has the keys of all rows of a join, also of those that do not count: of dummies, nobody."""
    first, *others = (table.key_holders for table in tables)
    if sizes == "noisy":
        return frozenset()
    if how in ("inner", "semi") and sizes == "exact":
        return first.union(*others)
    if turned:
        return others[0]
    return first.intersection(*others) if how in ("outer", "right") else first


def _most_counted(tables: Sequence[Table], how: How, *, many: bool) -> int:
    """How many rows of a join count at most, however many match; `many` of the first may match one."""
    sizes = [table.countable for table in tables]
    strictest = max(table.min_count for table in tables)
    match how:
        case "inner" | "semi":  # those of another table that do not match may be few
            strict = [size for table, size in zip(tables, sizes, strict=True) if table.min_count == strictest]
            return sizes[0] if many else min(strict)
        case "left" | "anti":
            return sizes[0]
        case "right":
            return sum(sizes) if many else sizes[1]
        case "outer":
            return sum(sizes)


def _without_columns(table: Table) -> Table:
    """Its keys alone, and which of its rows count."""
    return attrs.evolve(table, columns=(), parts=table.parts if table.selection else ())


def _apart(tables: Sequence[Table], suffixes: Sequence[str] | None) -> list[Table]:
    """Tables without columns of one name: those that are in several get the suffix of their table."""
    seen: dict[str, str] = {}
    clashes: dict[str, tuple[str, str]] = {}
    for table in tables:
        for name in table.column_names:
            if name in seen:
                clashes[name] = seen[name], table.name
            seen[name] = table.name
    if not clashes:
        return list(tables)
    name, (first, second) = next(iter(clashes.items()))
    if suffixes is None:
        raise SchemaError(
            f"column {name!r} is in table {first!r} and in table {second!r}; rename it in one of them, leave "
            "it out with columns=, or give suffixes=, one for each table"
        )
    if len(suffixes) != len(tables):
        raise SchemaError(f"suffixes= has {len(suffixes)} for {len(tables)} tables; give one for each")
    made = []
    for table, suffix in zip(tables, suffixes, strict=True):
        names = {name: f"{name}{suffix}" for name in clashes if name in table.column_names}
        made.append(attrs.evolve(table, columns=tuple(renamed(one, names) for one in table.columns)))
    _apart(made, None)
    return made


def _check_kind(tables: Sequence[Table], how: str, validate: str, sizes: str) -> None:
    """Raise SchemaError for what tables cannot be joined by."""
    for rule, name, value in ((HOW, "how", how), (VALIDATE, "validate", validate), (SIZES, "sizes", sizes)):
        rule.require("join", name, value)
    if len(tables) > 2 and (how != "inner" or sizes != "exact" or validate != "1:1"):
        raise SchemaError(
            f"a join with how={how!r}, validate={validate!r} and sizes={sizes!r} takes two tables, got "
            f"{len(tables)}; join the third with what the first two give"
        )
    if validate == "m:1" and sizes != "hidden":
        raise SchemaError(
            f"with validate='m:1', sizes={sizes!r} would tell the nodes how often every key occurs, not only "
            "how many rows match; join with sizes='hidden'"
        )
    for number, table in enumerate(tables):
        if not table.unique and (validate == "1:1" or number > 0):
            raise SchemaError(
                f"keys of table {table.name!r} may repeat, and validate={validate!r} allows that for "
                + ("the first table only" if validate == "m:1" else "no table; join with validate='m:1'")
            )
    if validate == "m:1" and (least := tables[1].min_count) > 1:
        raise SchemaError(
            f"figures on table {tables[1].name!r} have to rest on {least} rows, and with validate='m:1' so "
            "many rows of the result may all be one of its rows, once for each row of the first table with "
            f"that key; make one row of each key of {tables[0].name!r}, as in groupby(key).to_table(...), "
            "and join that"
        )
    added = how == "outer" or (how == "right" and validate == "m:1")
    if sizes == "hidden" and added and tables[0].selection:
        raise SchemaError(
            f"a filter says in secret which rows of table {tables[0].name!r} count, so it is not known "
            f"which of the other table a {how} join has to add; filter after the join, or with compact=True"
        )


def require_alike_keys(tables: Sequence[Table], keys: tuple[str, ...]) -> None:
    """Raise SchemaError unless tables can be matched by some keys."""
    if len(tables) < 2:
        raise SchemaError(f"a join takes two or more tables, got {len(tables)}; name the tables to join with")
    first = tables[0]
    for table in tables:
        if not isinstance(table, Table):
            raise SchemaError(f"a join takes tables of a lake, not a {type(table).__name__}; upload it first")
        if table.lake is not first.lake:
            raise SchemaError(
                f"tables {first.name!r} and {table.name!r} are in different lakes; upload both to one"
            )
        if set(table.key_names) != set(keys):
            raise SchemaError(
                f"table {table.name!r} was uploaded with key {', '.join(table.key_names)}, so it cannot be "
                f"joined on {', '.join(keys)}; upload it with key={list(keys)!r}"
            )
        if table.key_names != first.key_names:
            raise SchemaError(
                f"tables {first.name!r} and {table.name!r} name their key columns in different order "
                f"({', '.join(first.key_names)}; {', '.join(table.key_names)}); upload both with the same "
                "order"
            )
        for key, ours, theirs in zip(first.key_names, first.key_types, table.key_types, strict=True):
            if ours != theirs:
                alike = ours.split()[0] == theirs.split()[0]
                mend = (
                    "upload one of them with the normalise= of the other"
                    if alike
                    else f"upload one of them with types={{{key!r}: 'string'}} or convert it to integers"
                )
                raise SchemaError(
                    f"key {key!r} is {ours} in table {first.name!r} and {theirs} in table {table.name!r}, so "
                    f"no row could match; {mend}"
                )
