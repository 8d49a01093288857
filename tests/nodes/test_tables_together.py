"""Tables of several owners put together at lasting nodes: by their word, under the rules of all."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import SchemaError

ROWS = 60


def columns(first, level):
    rng = np.random.default_rng(first)
    return {
        "id": np.arange(first, first + ROWS),
        "age": rng.normal(level, 8, ROWS).round(1),
        "sick": np.arange(ROWS) % 3 == 0,
    }


async def test_rows_of_two_owners(in_process):
    """The hospital signs, the insurer has named it as free; the stricter rule holds for both."""
    north, south = columns(0, 50), columns(500, 55)
    named = Allow(computations=["concat", "tables", "statistics"])
    await in_process.hospital.upload(
        north, name="north", key="id", owner="hospital", min_count=20, allow=Allow(plans="any")
    )
    await in_process.insurer.upload(south, name="south", key="id", owner="insurer", min_count=30, allow=named)
    ann = in_process.ann
    tables = [await ann.table(name) for name in ("north", "south")]
    async with in_process.signing() as signed:
        both = await tercet.concat(tables, site="secret")
    assert signed == ["concat north|south"]
    ages = np.concatenate([north["age"], south["age"]])
    told = (await both.describe(["age", "site"], statistics=["mean"])).values
    np.testing.assert_allclose(told["age"]["mean"], ages.mean(), atol=1e-2)
    few = await both.filter(both["sick"] & (both["site"] == 1))
    assert np.isnan(
        (await few.describe("age", statistics=["mean"]))["age"]["mean"]
    )  # 20 rows, and 30 are due
    with pytest.raises(SchemaError, match="at least 30 rows, not single rows"):
        await both.reveal("age")
    async with in_process.signing():
        with pytest.raises(SchemaError, match="60 rows have a key that another row has"):
            await tercet.concat([tables[0], tables[0]])
