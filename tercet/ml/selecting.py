"""Tables of some columns, or of the same by other names: shares stay where they are, so no node is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from tercet.errors import SchemaError
from tercet.ml.schema import check_column_name, suggest

if TYPE_CHECKING:
    from tercet.ml.faces import F
    from tercet.ml.table import Table

KIND_NAMES = ("real", "integer", "boolean", "category", "date", "datetime", "number")


def without(table: Table, columns: Sequence[str]) -> list[str]:
    """Names of the columns that stay; see `Table.drop`."""
    gone = {name: table.column(name).schema.missing for name in columns}
    left = [one for one in table.columns if one.name not in gone and one.name not in gone.values()]
    for one in left:
        if one.schema.missing in gone:
            raise SchemaError(
                f"table {table.name!r}: {one.schema.missing!r} tells where {one.name!r} is missing; drop "
                "that too, or fill it first"
            )
    return [one.name for one in left]


def renamed(table: Table[F], names: Mapping[str, str]) -> Table[F]:
    """See `Table.rename`."""
    known = [*table.key_names, *table.column_names]
    for old, new in names.items():
        if old not in known:
            raise SchemaError(f"table {table.name!r} has no column {old!r}. {suggest(old, known)}")
        check_column_name(new, f"A new name in table {table.name!r}")
    after = [names.get(name, name) for name in known]
    if len(set(after)) < len(after):
        twice = next(name for place, name in enumerate(after) if name in after[:place])
        raise SchemaError(f"table {table.name!r} would have two columns {twice!r}; give one another name")
    columns = []
    for column in table.columns:
        beside = column.schema.missing
        schema = attrs.evolve(
            column.schema,
            name=names.get(column.name, column.name),
            missing=None if beside is None else names.get(beside, beside),
        )
        columns.append(attrs.evolve(column, schema=schema))
    return attrs.evolve(
        table,
        columns=tuple(columns),
        key_names=tuple(names.get(name, name) for name in table.key_names),
        origin=None if table.origin is None else {"$renamed": [table.origin, dict(names)]},
    )


def of_kinds(
    table: Table, include: str | Sequence[str] | None, exclude: str | Sequence[str] | None
) -> list[str]:
    """Names of the columns of some kinds; see `Table.select_dtypes`."""
    wanted = set(KIND_NAMES) if include is None else _kinds(include)
    wanted -= set() if exclude is None else _kinds(exclude)
    chosen = [column.name for column in table.columns if column.schema.kind in wanted]
    if not chosen:
        kinds = ", ".join(f"{column.name} is {column.schema.kind}" for column in table.columns)
        raise SchemaError(f"table {table.name!r} has no column of these kinds: {kinds}")
    return chosen


def _kinds(given: str | Sequence[str]) -> set[str]:
    """Kinds of columns by their names. Raises SchemaError for others."""
    found = {given} if isinstance(given, str) else set(given)
    if unknown := found - set(KIND_NAMES):
        raise SchemaError(f"there is no kind {min(unknown)!r}; the kinds are {', '.join(KIND_NAMES)}")
    return found - {"number"} | ({"real", "integer"} if "number" in found else set())
