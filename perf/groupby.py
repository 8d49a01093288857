"""`groupby`: make one row of those that have the same secret key, with the sum of each column."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import tercet
from perf import tables
from perf.join import handles
from perf.lakes import Conditions, open_lake, repeat
from perf.report import Measured, median
from tercet.ml.join_options import Sizes


def clear_seconds(columns: tables.Columns, repeats: int) -> float:
    """What pandas takes for the same sums."""
    import pandas as pd

    frame, found = pd.DataFrame(columns), []
    for _ in range(repeats):
        began = time.perf_counter()
        frame.groupby(tables.KEY, sort=False).sum()
        found.append(time.perf_counter() - began)
    return median(found)


async def run(
    rows: int, groups: int, features: int, conditions: Conditions, sizes: Sizes = "exact"
) -> Measured:
    """Sum `features` columns over the rows of each of up to `groups` keys."""
    columns = tables.repeating(rows, groups, features)
    async with open_lake(conditions) as lake:
        ours = await tables.upload(lake, columns, "claims", unique=False)
        sums = dict.fromkeys(tables.feature_names(features), "sum")

        async def group() -> Any:
            return await ours.table.groupby(tables.KEY).to_table(sums, sizes=sizes)

        spent = await repeat(lake, group, conditions, forget=handles)
        error = await _error(lake, spent.result, columns)
    clear = clear_seconds(columns, conditions.repeat)
    return Measured(
        name="groupby",
        seconds=spent.seconds,
        rounds=spent.rounds,
        bytes_per_party=spent.bytes_per_party,
        peak_rss_mb=spent.peak_rss_mb,
        error=error,
        error_of="largest difference between the sums of groups in their order, in units of the last place",
        more={
            "rows": rows,
            "groups": len(np.unique(columns[tables.KEY])),
            "features": features,
            "sizes": sizes,
            **conditions.describe(),
            "bytes_per_input_row": spent.bytes_per_party / rows,
            "bytes_by_party": spent.bytes_by_party,
            "upload_seconds": ours.seconds,
            "table_shares_mb": ours.shares_mb,
            "rss_before_mb": spent.rss_before_mb,
            "peak_over_shares": spent.peak_rss_mb / ours.shares_mb,
            "clear_seconds": clear,
            "over_clear": spent.seconds / clear,
        },
    )


async def _error(lake: tercet.AsyncLake, made: Any, columns: tables.Columns) -> float:
    """Sums of the first column, of groups that count, beside those in the clear."""
    _, places = np.unique(columns[tables.KEY], return_inverse=True)
    wanted = np.bincount(places, columns["x0"])
    builder = lake.builder("check groups")
    counted = made.selected(builder)
    found = (await made.reveal("x0_sum"))["x0_sum"]
    if counted is not None:
        counted.reveal("last rows", to="analyst")
        found = found[(await lake.run(builder.plan())).revealed["last rows"] > 0.5]
    scale = made.column("x0_sum").schema.scale
    return float(np.max(np.abs(np.sort(found) - np.sort(wanted)))) * 2.0**scale
