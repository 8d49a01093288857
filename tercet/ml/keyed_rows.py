"""Rows that come back to their owner: a number for each, and the hash of its key, which she looks up.

The nodes know no keys, only hashes in shares. These go to an owner of the rows, and to nobody else: whoever
knows which keys there may be can find those of hashes. Her own table says which key each hash is of.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import views
from tercet.ml.ingest import encode


@attrs.frozen(eq=False)
class KeyedRows:
    """Revealed numbers `(n,)` with the hashes of their rows' keys, uint64 `(2, n)`.

    `key_types` say what keys held before they were hashed, and what was done to them, as schemas do:
    "integer", "string", or "string (strip, case)".
    """

    what: str
    values: npt.NDArray[np.float64]
    hashes: npt.NDArray[np.uint64] = attrs.field(repr=False)
    key_names: tuple[str, ...]
    key_types: tuple[str, ...]

    __repr__ = views.as_printed

    def __str__(self) -> str:
        return f"{self.what}: {len(self.values)} rows by hashed key; to_frame(table) has your own keys"

    def to_frame(self, source: Any) -> Any:
        """A pandas data frame of keys and values, in the order of `source`: the table that was uploaded.

        Anything that pandas makes a frame of, with the key columns by their names. Raises SchemaError for
        rows whose keys it has not, and for what is no key.
        """
        import pandas as pd

        frame = source if isinstance(source, pd.DataFrame) else pd.DataFrame(source)
        frame = frame.reset_index() if set(self.key_names) & set(frame.index.names) else frame
        kinds = [kind.partition(" (") for kind in self.key_types]
        done = {name for _, _, names in kinds for name in names.rstrip(")").split(", ") if name}
        texts: Any = {name: kind for name, (kind, _, _) in zip(self.key_names, kinds, strict=True)}
        encoded = encode(
            frame,
            name="keys",
            key=list(self.key_names),
            owner="owner",
            columns=[],
            types={} if done else texts,
            normalise=sorted(done),
        )
        places = {tuple(pair): row for row, pair in enumerate(encoded.keys.T.tolist())}
        rows = [places.get(tuple(pair), -1) for pair in self.hashes.T.tolist()]
        if lost := rows.count(-1):
            raise SchemaError(
                f"{self.what}: {lost} of {len(rows)} rows have keys that this table has not; give the "
                "one that was uploaded"
            )
        order = np.argsort(rows, kind="stable")
        found = frame[list(self.key_names)].iloc[np.array(rows, dtype=np.int64)[order]]
        return found.reset_index(drop=True).assign(**{self.what: self.values[order]})
