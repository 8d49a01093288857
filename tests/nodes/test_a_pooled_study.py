"""Two hospitals and an insurer, at lasting nodes: designed on made-up rows, signed once by each, and run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

import tercet
from tercet import Allow
from tercet.ml import LogisticRegression
from tests.nodes.on_disk import set_up

OWNERS = ("north", "south", "insurer")
MEMBERS = {**dict.fromkeys(OWNERS, "owner"), "ann": "analyst", "aud": "auditor"}
AGREED = {
    "key": "patient",
    "categories": {"stage": ["I", "II", "III"]},
    "ranges": {"bmi": (10, 70), "born": ("1910-01-01", "2025-01-01"), "seen": ("2020-01-01", "2025-01-01")},
    "types": {"born": "date", "seen": "date"},
    "min_count": 10,
}
FORMULA = "relapse ~ C(stage) + age * bmi + log(cost)"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    made = set_up(tmp_path_factory.mktemp("lake"), members=MEMBERS)
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


def patients(rng, first, count):
    return pd.DataFrame(
        {
            "patient": [f"P-{number}" for number in range(first, first + count)],
            "born": np.datetime64("1938-01-01") + rng.integers(0, 18000, count).astype("m8[D]"),
            "seen": np.datetime64("2022-01-01") + rng.integers(0, 700, count).astype("m8[D]"),
            "stage": rng.choice(["I", "II", "III"], count),
            "bmi": rng.normal(27, 4, count).round(1),
        }
    )


def rows():
    """Everybody's tables, and what people cost."""
    rng = np.random.default_rng(3)
    tables = {"north": patients(rng, 1000, 300), "south": patients(rng, 3000, 250)}
    new = patients(rng, 5000, 30)
    everybody = pd.concat([*tables.values(), new])["patient"]
    claims = pd.DataFrame(
        {"patient": rng.choice(everybody, 900), "cost": (5 + rng.gamma(2, 150, 900)).round(2)}
    )
    costs = claims.groupby("patient")["cost"].sum()
    for frame in tables.values():
        logs = np.log(frame["patient"].map(costs).fillna(1))
        odds = 0.7 * (frame["stage"] == "III") + 0.08 * (frame["bmi"] - 27) + 0.2 * (logs - 4)
        frame["relapse"] = rng.random(len(frame)) < 1 / (1 + np.exp(-odds))
    return tables, new, claims, costs


def aged(table):
    return table.assign(age=table["born"].dt.age(table["seen"])).drop(["born", "seen"])


def notebook(lake):
    """The cells: they do not know on which rows they run."""
    pooled = tercet.concat([aged(lake.table("north")), aged(lake.table("south"))])
    by_patient = lake.table("claims").groupby("patient").to_table({"cost": ["sum"]}, sizes="hidden")

    def billed(table):
        linked = table.join(by_patient, on="patient", how="left", sizes="hidden")
        return linked.assign(cost=linked["cost_sum"].clip(1, 5000).fillna(1)).drop("cost_sum")

    study = billed(pooled)
    counts = study.value_counts("stage")
    model = LogisticRegression(penalty=None).fit(study, FORMULA)
    risk = model.predict_proba(billed(aged(lake.table("new")))).reveal_keyed(to="north")
    return counts, model.summary(["coef", "se"]), risk


def test_a_pooled_study(nodes, command):
    tables, new, claims, costs = rows()
    for owner in OWNERS:
        with tercet.connect(nodes.cluster, identity=nodes.key(owner)) as lake:
            if owner == "insurer":
                options = {"key": "patient", "unique": False, "ranges": {"cost": (0, 5000)}}
                lake.upload(claims, name="claims", owner=owner, allow=Allow(rows=True), **options)
            else:
                lake.upload(tables[owner], name=owner, owner=owner, **AGREED)
            if owner == "north":
                lake.upload(new, name="new", owner=owner, allow=Allow(rows=True), **AGREED)
    file = nodes.root / "study.json"
    with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as lake, lake.rehearse(rows=300) as made_up:
        recorded = made_up.record(file, purpose="who relapses", uses=1, days=30)
        notebook(made_up)
        study = recorded.save()
    command("propose", "study.json", "--identity", "ann.key", cwd=nodes.root)
    for owner in OWNERS:
        told = command("approve", study.number, "--yes", "--identity", f"{owner}.key", cwd=nodes.root)
        assert f"you have approved study {study.number}" in told
    with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as lake, lake.study(file):
        counts, summary, _ = notebook(lake)
    clear = pd.concat([tables["north"], tables["south"]]).assign(relapse=lambda frame: frame["relapse"] * 1)
    day = {name: clear[name].dt.month * 100 + clear[name].dt.day for name in ("born", "seen")}
    clear["age"] = clear["seen"].dt.year - clear["born"].dt.year - (day["seen"] < day["born"])
    clear["cost"] = clear["patient"].map(costs).clip(1, 5000).fillna(1)
    assert counts.to_frame()["count"].to_dict() == clear["stage"].value_counts().to_dict()
    wanted = smf.logit(FORMULA.replace("log", "np.log"), clear).fit(disp=False)
    names = {"(intercept)": "Intercept", "log(cost)": "np.log(cost)"}
    coef, errors = (one.rename(names).loc[wanted.params.index] for one in (summary.params, summary.bse))
    assert ((coef - wanted.params).abs() < 0.01 * wanted.bse).all()
    np.testing.assert_allclose(errors, wanted.bse, rtol=1e-3)
    with tercet.connect(nodes.cluster, identity=nodes.key("north")) as lake:
        sent = lake.received()
    assert sent
