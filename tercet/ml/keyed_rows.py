"""Rows that come back to their owner: a number for each, and the hash of its key, which she looks up.

The nodes know no keys, only hashes in shares. These go to an owner of the rows, and to nobody else: whoever
knows which keys there may be can find those of hashes. Her own table says which key each hash is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import narwhals as nw
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml import views
from tercet.ml.cells import Cells
from tercet.ml.ingest import encode
from tercet.ml.reading import Request, read


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

        Whatever an upload takes, with the key columns by their names. Of rows that have one key, as there may
        be with `unique=False`, nobody can tell which value is whose: they stand where the first of them does,
        with its key. Raises SchemaError for rows whose keys it has not, and for what is no key.
        """
        source = list(source) if isinstance(source, Iterator) else source  # read twice
        kinds = [kind.partition(" (") for kind in self.key_types]
        done = {name for _, _, names in kinds for name in names.rstrip(")").split(", ") if name}
        texts: Any = {name: kind for name, (kind, _, _) in zip(self.key_names, kinds, strict=True)}
        encoded = encode(
            source,
            name="keys",
            key=list(self.key_names),
            owner="owner",
            columns=[],
            types={} if done else texts,
            normalise=sorted(done),
            unique=False,
        )
        places: dict[tuple[int, ...], int] = {}
        for row, pair in enumerate(encoded.keys.T.tolist()):
            places.setdefault(tuple(pair), row)
        rows = [places.get(tuple(pair), -1) for pair in self.hashes.T.tolist()]
        if lost := rows.count(-1):
            raise SchemaError(
                f"{self.what}: {lost} of {len(rows)} rows have keys that this table has not; give the "
                "one that was uploaded"
            )
        order = np.argsort(rows, kind="stable")
        found = self._keys(source, texts).iloc[np.array(rows, dtype=np.int64)[order]]
        return found.reset_index(drop=True).assign(**{self.what: self.values[order]})

    def _keys(self, source: Any, kinds: Mapping[str, str]) -> Any:
        """The keys of a table as a pandas data frame, as its owner has written them."""
        import pandas as pd

        def column(name: str, values: Any) -> Any:
            if isinstance(values, Cells):
                texts = pd.Series(values.texts, dtype=object)
                return texts.astype(np.int64) if kinds[name] == "integer" else texts
            if isinstance(values, nw.Series):
                native = values.implementation.is_pandas()
                return values.to_native().reset_index(drop=True) if native else pd.Series(values.to_list())
            return pd.Series(values)

        request = Request.of("keys", list(self.key_names), [], None, None, None, "refuse")
        parts = [
            {name: column(name, part[name]) for name in self.key_names} for part in read(source, request)
        ]
        return pd.concat(map(pd.DataFrame, parts), ignore_index=True)
