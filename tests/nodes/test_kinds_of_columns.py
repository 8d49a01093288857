"""Nodes of several organisations make anew what is asked of categories, dates, formulas, names and keys."""

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet.errors import ConsentError, SchemaError
from tercet.ml import LogisticRegression
from tercet.ml.keyed_rows import KeyedRows

ROWS = 120
RNG = np.random.default_rng(6)
BORN = np.datetime64("1940-01-01") + RNG.integers(0, 20000, ROWS).astype("m8[D]")
FRAME = pd.DataFrame(
    {
        "patient": [f" P-{n}" for n in range(ROWS)],
        "stage": RNG.choice(["I", "II", "III"], ROWS),
        "cost": RNG.uniform(1, 100, ROWS).round(1),
        "sick": RNG.random(ROWS) < 0.4,
    }
).assign(born=BORN.tolist())
EVERYTHING = ("tables", "statistics", "models", "predictions", "rows")


async def test_a_notebook_of_all_kinds(in_process):
    allow = tercet.Allow(
        computations=EVERYTHING, classes=("check", "count", "figure", "model", "rows"), rows=True
    )
    await in_process.hospital.upload(
        FRAME,
        name="visits",
        key="patient",
        owner="hospital",
        types={"stage": "category"},
        ranges={"cost": (1, 100), "born": ("1940-01-01", "2000-01-01")},
        normalise=["strip", "case"],
        allow=allow,
    )
    table = (await in_process.ann.table("visits")).rename({"cost": "price"})
    assert table["stage"].labels == ("I", "II", "III")
    assert table.key_types == ("string (strip, case)",)
    aged = await table.assign(
        age=table["born"].dt.age("2024-01-01"),
        late=table["stage"].isin(["II", "III"]),
        band=table["price"].cut([0, 50, 101]),
    )
    found = (await aged.describe(["age"], statistics=["mean"]))["age"]["mean"]
    ages = (pd.Timestamp("2024-01-01") - pd.to_datetime(BORN)).days // 365.2425
    assert found == pytest.approx(ages.to_numpy().mean(), abs=0.1)
    parts = [(await aged.split(test_size=0.25, random_state=5))[1] for _ in range(2)]
    means = [(await part.describe(["price"], statistics=["mean"]))["price"]["mean"] for part in parts]
    assert means[0] == means[1]
    model = await LogisticRegression().fit(table, "sick ~ C(stage) + log(price)")
    assert list(model.feature_names_in_) == ["C(stage)[T.II]", "C(stage)[T.III]", "log(price)"]
    column = await model.predict_proba(table)
    assert len(await column.reveal()) == ROWS
    await column.reveal_keyed(to="hospital")
    values, hashes = sorted(
        await in_process.hospital.received(), key=lambda one: one.name.startswith("hashed")
    )
    rows = KeyedRows("risk", values.values, hashes.values, table.key_names, table.key_types)
    frame = rows.to_frame(FRAME)
    assert frame["patient"].tolist() == FRAME["patient"].tolist()
    np.testing.assert_allclose(frame["risk"], await column.reveal(), atol=1e-4)


async def test_keys_go_to_nobody_who_may_not_see_rows(in_process):
    allow = tercet.Allow(computations=("tables", "models", "predictions"), classes=("check", "rows"))
    await in_process.hospital.upload(
        FRAME[["patient", "cost", "sick"]],
        name="costs",
        key="patient",
        owner="hospital",
        normalise="strip",
        allow=allow,
    )
    table = await in_process.ann.table("costs")
    column = await (await LogisticRegression().fit(table, "sick")).predict_proba(table)
    with pytest.raises(ConsentError):
        await column.reveal_keyed(to="hospital")


async def test_labels_of_one_row_stay_with_their_owner(in_process):
    frame = FRAME[["patient", "stage"]].assign(stage=["IV", *FRAME["stage"][1:]])
    options = {"name": "stages", "key": "patient", "owner": "hospital", "normalise": "strip"}
    category = {"types": {"stage": "category"}}
    with pytest.raises(SchemaError, match="the label 'IV' is that of 1 rows, fewer than min_count=2"):
        await in_process.hospital.upload(frame, **options, **category)
    declared = {"categories": {"stage": ["I", "II", "III", "IV"]}}
    for more in (declared, {**category, "allow": tercet.Allow(rows=True)}):
        table = await in_process.hospital.upload(frame, **options, **more)
        assert table["stage"].labels == ("I", "II", "III", "IV")
