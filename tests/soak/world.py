"""The tables of a soak in the clear, so that whatever the lake says of them can be compared.

Every upload has a number of rows that no other has. So the public row count of a table that the lake gives
tells which upload it is, also when owners replace tables while others use them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import attrs
import numpy as np
import pandas as pd

from tercet.ml.models import RevealedModel
from tests.soak.record import WrongResultError
from tests.soak.witness import ASKS

COLUMNS = {"hospital": ("age", "bmi", "sick"), "insurer": ("cost", "visits")}
"""What the owners know of people."""
FREE = "-free"
NAMES = {owner: (f"{owner}{FREE}", f"{owner}{ASKS}") for owner in COLUMNS}
"""Tables of each owner: one that analysts may use as they like, one for which the owner signs every plan."""
OWNERS = {name: owner for owner, names in NAMES.items() for name in names}
FEWEST_ROWS, MANY_ROWS = 300, 3000


@attrs.define(eq=False)
class World:
    """All uploads, what plans must reveal, and models that were kept."""

    uploads: dict[tuple[str, int], pd.DataFrame] = attrs.field(factory=dict)
    """By table and number of rows."""
    sums: dict[str, float] = attrs.field(factory=dict)
    """What plans must reveal, by the name of what they reveal."""
    models: dict[str, list[RevealedModel]] = attrs.field(factory=dict)
    """By name: what may be kept under it, the newest last."""
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def new_upload(self, owner: str, name: str, rng: random.Random) -> pd.DataFrame:
        """Rows that an owner uploads under a name."""
        number = next(self._numbers)
        rows = (MANY_ROWS if rng.random() < 0.25 else FEWEST_ROWS) + number
        frame = self.uploads[name, rows] = _people(rows, rng.randrange(2**32), COLUMNS[owner])
        return frame

    def rows_of(self, name: str, rows: int) -> pd.DataFrame:
        """What a table of the lake has in it. Raises WrongResultError if nobody uploaded such."""
        if (name, rows) not in self.uploads:
            raise WrongResultError(f"nobody has uploaded {name!r} with {rows} rows")
        return self.uploads[name, rows]


def _people(rows: int, seed: int, columns: tuple[str, ...]) -> pd.DataFrame:
    """Some of the people that there are, and what is known of them."""
    rng = np.random.default_rng(seed)
    age, bmi = rng.normal(50, 15, rows), rng.normal(27, 4, rows)
    sick = 0.06 * (age - 50) + 0.1 * (bmi - 27) + rng.logistic(size=rows) > 0
    known = {
        "id": rng.permutation(rows + rows // 4)[:rows],
        "age": age,
        "bmi": bmi,
        "sick": sick.astype(int),
        "cost": rng.gamma(2.0, 100.0, rows),
        "visits": rng.poisson(3, rows),
    }
    return pd.DataFrame({name: known[name] for name in ("id", *columns)})
