"""Which column of a table does what in a fit: target, features, weight of rows, offset.

Checked before anything is computed, so that a mistake is a sentence and not a fit of the wrong thing. What is
said to a column in the place of its name is here too.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tercet import options
from tercet.errors import SchemaError
from tercet.ml.expressions import Expression
from tercet.ml.table import Table, as_names
from tercet.options import COLUMN, MAYBE_COLUMN, MAYBE_COLUMNS, TABLE

COLUMNS_OF_A_FIT = {
    "table": TABLE,
    "target": COLUMN,
    "features": attrs.evolve(MAYBE_COLUMNS, empty=True),
    "sample_weight": MAYBE_COLUMN,
    "offset": MAYBE_COLUMN,
}
"""Rules of what a fit is given."""
OFFSET_SCALES = (0, 40)
"""Scales of columns that can be added to log-odds: values of up to 2^30, in steps of 2^-40 at least."""


@attrs.frozen
class Roles:
    """Names of columns by what they do; `features` in the order of the coefficients."""

    target: str
    features: tuple[str, ...]
    sample_weight: str | None = None
    offset: str | None = None

    @classmethod
    def of(
        cls,
        table: Table,
        target: str,
        features: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        offset: str | None = None,
    ) -> Roles:
        """Roles in a fit on a table; features default to all columns without another one.

        Raises SchemaError if table, columns and roles do not fit together.
        """
        table.require_boolean(target, "target")
        others = {"target": target, "sample_weight": sample_weight, "offset": offset}
        left = [name for name in table.column_names if name not in others.values()]
        names = as_names(left if features is None else features)
        for role, name in others.items():
            if name is not None and name in names:
                what = "the target" if role == "target" else f"named in {role}="
                raise SchemaError(
                    f"column {name!r} is {what} and cannot be a feature too; leave it out of features="
                )
        for name in (*names, *filter(None, others.values())):
            table.column(name)
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise SchemaError(f"features= names column {twice[0]!r} twice; name it once")
        if target in (sample_weight, offset):
            raise SchemaError(f"column {target!r} is the target and cannot be a weight or an offset too")
        if offset is not None:
            _require_offset(table, offset)
        _require_rows(table, target, names)
        return cls(target, names, sample_weight, offset)

    def require_free(self, table: Table, name: str) -> None:
        """Raise SchemaError if a feature has the name that results give to something else."""
        if name in self.features:
            raise SchemaError(
                f"table {table.name!r}, feature {name!r}: results give that name to the intercept of the "
                f"fit; rename it, as in table.assign(renamed=table[{name!r}]), and leave this one out of "
                "features=, or fit with fit_intercept=False"
            )


def _require_offset(table: Table, name: str) -> None:
    low, high = OFFSET_SCALES
    scale = table.column(name).schema.scale
    if not low <= scale <= high:
        raise SchemaError(
            f"table {table.name!r}, offset {name!r}: its scale of {scale} means values of a size of about "
            f"{2.0 ** (15 - scale):.1g}, which are no log-odds; upload it in units of log-odds"
        )


def _require_rows(table: Table, target: str, names: tuple[str, ...]) -> None:
    if not names:
        raise SchemaError(
            f"table {table.name!r} has no column but the target {target!r}, so there is nothing to fit; "
            "join it with a table that has features"
        )
    table.require_rows("a fit", least=2)
    if len(names) >= table.rows:
        raise SchemaError(
            f"table {table.name!r} has {table.rows} rows for {len(names)} features, and a fit needs more "
            "rows than features; name fewer in features="
        )


@options.described.register
def _(given: Expression) -> str:
    return f"the expression {given.text}"


@options.mended.register
def _(given: Expression, name: str) -> str:
    if given.text in given.table.column_names:
        return f"write {name}={given.text!r}"
    rows = f"table.filter({given.text}) keeps rows; " if given.public.kind == "boolean" else ""
    return f"{rows}give it a name first, as in table.assign(new={given.text}), and write {name}='new'"
