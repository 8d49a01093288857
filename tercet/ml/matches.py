"""What a join that matches few rows may have gone wrong by, as far as public facts say.

Only where the nodes are told how many rows match, and with that everyone: of noisy or hidden sizes nothing is
looked at. What is suggested follows from the schemas of keys. Nobody looks at a key, and nodes are asked
nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tercet.errors import FewMatchesWarning
from tercet.ml.join_options import How, Sizes
from tercet.ml.normalising import DIFFERENCES

if TYPE_CHECKING:
    from tercet.ml.table import Table


def count_told(tables: Sequence[Table], joined: Table, how: How, sizes: Sizes) -> int | None:
    """How many rows of all tables match, if that follows from what a join has told; else None.

    Rows that a filter has left out in secret are among them.
    """
    if sizes != "exact":
        return None
    first, second = tables[:2]
    match how:
        case "inner" | "semi":
            return joined.rows
        case "outer":
            return first.rows + second.rows - joined.rows
        case "anti" if not second.selection:
            return first.rows - joined.rows
    return None


def warn_of_few_matches(
    tables: Sequence[Table], joined: Table, *, how: How, sizes: Sizes, min_share: float
) -> Table:
    """The joined table. Warns if no row matches, or fewer than a share of those of the smallest table."""
    count = count_told(tables, joined, how, sizes)
    smallest = min(table.rows for table in tables)
    if count is not None and smallest and (count == 0 or count < min_share * smallest):
        sides = " and ".join(f"{table.name!r} ({table.rows} rows)" for table in tables)
        few = f"{count} row{'s' * (count > 1)}, less than a share of {min_share:.3g} of the smallest"
        warnings.warn(
            f"the join of {sides} matches {few if count else 'no rows'}; {_look_at(tables[0])}",
            FewMatchesWarning,
            stacklevel=2,
        )
    return joined


def _look_at(table: Table) -> str:
    """Where to look, by the names and types of keys, which are the same in all tables of a join."""
    names = ", ".join(table.key_names)
    found = []
    if len(table.key_names) > 1:
        found.append(f"all of {names} have to agree in a row")
    for name, written in zip(table.key_names, table.key_types, strict=True):
        kind, _, done = written.partition(" ")
        left = [one for one in DIFFERENCES if one not in done.strip("()").split(", ")]
        if kind != "string":
            found.append(
                f"{name} is whole numbers, which match by value, so look whether all owners number the same "
                f"things; codes with leading zeros are text, everywhere: types={{{name!r}: 'string'}}"
            )
        elif left:
            differ = ", ".join(DIFFERENCES[one] for one in left)
            found.append(
                f"{name} is text, which differs by {differ}; if that does not count, all owners upload with "
                f"normalise={[*done.strip('()').split(', '), *left] if done else left}"
            )
        else:
            found.append(f"{name} is text, normalised in all ways, so look whether all owners mean the same")
    return "; ".join(found)
