"""Columns as they are stored: their public schema, and where at the nodes their shares lie."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs

from tercet.ml.schema import SPREAD_BITS, ColumnSchema
from tercet.plans import Type

UNIT_BITS = SPREAD_BITS
"""Fractional bits of a feature in units: its stored integer over 2^16, of spread at most one (see
`Column.is_wide`)."""

WIDE_SPREAD = 16.0
"""Largest spread, in units, of an integer column that is stored exactly."""


def recipe_of(*made: Any) -> str:
    """A digest of how a column is made, from plain values and the recipes of others."""
    return hashlib.blake2b(repr(made).encode(), digest_size=16, person=b"tercet-recipe").hexdigest()


@attrs.frozen
class Part:
    """A matrix at the nodes that holds some columns of a table: its handle, columns and type."""

    handle: str
    type: Type


@attrs.frozen
class Column:
    """A column: its public schema, and in which part and at which place of it the shares lie.

    `grain` is how far a computed value may be from the number that is meant, as rounding goes; None for what
    was rounded once, when it was stored.
    """

    schema: ColumnSchema
    owner: str
    part: int
    place: int
    grain: float | None = None
    sources: frozenset[tuple[str, str]] = frozenset()
    """Tables and columns that owners have uploaded, of which it was made."""
    recipe: str = ""
    """A digest of how its values follow from what owners have uploaded, whatever rows there are of it."""

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.schema.name

    @property
    def unit_exponent(self) -> int:
        """A value of the column is its unit number times 2 to this power."""
        return 0 if self.schema.kind == "boolean" else UNIT_BITS - self.schema.scale

    @property
    def widest_spread(self) -> float:
        """A bound on its standard deviation over the rows of its source, in units."""
        return WIDE_SPREAD if self.is_wide else 1.0

    @property
    def is_wide(self) -> bool:
        """Whether its spread may exceed one unit: integers stored as they are."""
        return self.schema.kind == "integer" and self.schema.scale == 0
