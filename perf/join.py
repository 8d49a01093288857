"""`join`: link two tables of equal length by a secret key, all rows of which match.

So every kind of join has the same rows, and whether sizes are told makes no difference to what comes out.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

import tercet
from perf import tables
from perf.lakes import Conditions, open_lake, repeat
from perf.report import Measured, median
from tercet.ml.join_options import How, Sizes


def clear_seconds(left: tables.Columns, right: tables.Columns, repeats: int) -> float:
    """What pandas takes to merge the same tables."""
    import pandas as pd

    frames = pd.DataFrame(left), pd.DataFrame(right)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        frames[0].merge(frames[1], on=tables.KEY)
        found.append(time.perf_counter() - began)
    return median(found)


async def run(
    rows: int, features: int, conditions: Conditions, how: How = "inner", sizes: Sizes = "exact"
) -> Measured:
    """Join two tables of `rows` rows that have `features` columns besides their keys between them."""
    left, right = tables.linkable(rows, features)
    async with open_lake(conditions) as lake:
        ours, theirs = await tables.upload(lake, left, "left"), await tables.upload(lake, right, "right")

        async def join() -> Any:
            return await ours.table.join(theirs.table, on=tables.KEY, how=how, sizes=sizes)

        def made(joined: Any) -> list[str]:
            return [one for one in handles(joined) if one not in handles(ours.table)]

        spent = await repeat(lake, join, conditions, forget=made)
        error = await _error(lake, spent.result, left, right)
        shares = ours.shares_mb + theirs.shares_mb
    clear = clear_seconds(left, right, conditions.repeat)
    return Measured(
        name="join",
        seconds=spent.seconds,
        rounds=spent.rounds,
        bytes_per_party=spent.bytes_per_party,
        peak_rss_mb=spent.peak_rss_mb,
        error=error,
        error_of="largest difference of a cross moment of two joined columns, in units of the last place",
        more={
            "rows": rows,
            "features": features,
            "how": how,
            "sizes": sizes,
            **conditions.describe(),
            "bytes_per_input_row": spent.bytes_per_party / (2 * rows),
            "bytes_by_party": spent.bytes_by_party,
            "upload_seconds": ours.seconds + theirs.seconds,
            "table_shares_mb": shares,
            "rss_before_mb": spent.rss_before_mb,
            "peak_over_shares": spent.peak_rss_mb / shares,
            "clear_seconds": clear,
            "over_clear": spent.seconds / clear,
        },
    )


def handles(table: Any) -> list[str]:
    """What a table has stored at the nodes."""
    return [part.handle for part in (*table.parts, table.keys) if part is not None]


async def _error(lake: tercet.AsyncLake, joined: Any, left: tables.Columns, right: tables.Columns) -> float:
    """Rows that met the wrong partner would change the moments between columns of the two tables."""
    builder = lake.builder("check join")
    names = [name for name in joined.column_names if not name.endswith("_missing")]
    features = joined.features(builder, names, filled=True).shifted(-tables.SCALE)  # as stored integers
    counted = joined.selected(builder)
    if counted is not None:
        most = math.ldexp(features.type.limit, -features.scale)
        features = (features * counted).bounded(most, "as they are, or zero")
    rows = len(joined)
    features.dot(features, magnitude=2.0 ** (2 * tables.SCALE + 5) * max(rows, 1)).reveal(
        "moments", to="analyst"
    )
    found = (await lake.run(builder.plan())).revealed["moments"]
    order, other = np.argsort(left[tables.KEY]), np.argsort(right[tables.KEY])
    aligned = {**{k: v[order] for k, v in left.items()}, **{k: v[other] for k, v in right.items()}}
    stored = np.stack([np.rint(np.ldexp(aligned[name], tables.SCALE)) for name in names])
    return float(np.max(np.abs(found - stored @ stored.T)))
