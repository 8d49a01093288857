"""Predictions come back to an owner of their rows with her own keys, and to nobody else."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

import tercet
from tercet.errors import SchemaError
from tercet.ml import LogisticRegression

ROWS = 60
RNG = np.random.default_rng(3)
FRAME = pd.DataFrame({"site": ["A", "B"] * 30, "patient": np.arange(ROWS), "x": RNG.normal(size=ROWS)})
FRAME["y"] = RNG.random(ROWS) < 1 / (1 + np.exp(-FRAME["x"]))


@pytest.mark.cases
def test_predictions_come_back_with_keys(lake):
    table = lake.upload(FRAME, name="t", key=["site", "patient"], owner="clinic")
    model = LogisticRegression().fit(table, "y", features=["x"])
    mixed = table.split(test_size=0.4)[1]
    lake.disclosed.clear()
    found = model.predict_proba(mixed).reveal_keyed(to="clinic")
    kinds = {(item.what, item.kind, item.to) for item in lake.disclosed}
    assert kinds == {(what, "rows", "clinic") for what in (found.what, f"hashed keys of {found.what}")}
    frame = found.to_frame(FRAME)
    assert list(frame.columns) == ["site", "patient", found.what]
    assert frame["patient"].is_monotonic_increasing
    rows = FRAME.loc[frame["patient"]]
    np.testing.assert_allclose(frame[found.what], model.reveal().predict_proba(rows)[:, 1], atol=2e-4)
    np.testing.assert_array_equal(frame["site"], rows["site"])
    pd.testing.assert_frame_equal(found.to_frame(FRAME.set_index(["site", "patient"])), frame)


def test_normalised_keys_are_found_as_they_are_written(plain):
    frame = pd.DataFrame({"id": [f" 0{n} " for n in range(ROWS)], "x": FRAME["x"], "y": FRAME["y"]})
    table = plain.upload(frame, name="n", key="id", owner="clinic", normalise=["strip", "zeros"])
    labels = LogisticRegression().fit(table, "y").predict(table).reveal_keyed(to="clinic")
    assert labels.to_frame(frame)["id"].tolist() == frame["id"].tolist()


def test_keys_come_from_whatever_was_uploaded(plain, tmp_path):
    frame = FRAME.assign(site=FRAME["site"] + "-1")
    table = plain.upload(frame, name="sources", key=["site", "patient"], owner="clinic")
    found = (
        LogisticRegression().fit(table, "y", features=["x"]).predict_proba(table).reveal_keyed(to="clinic")
    )
    expected = found.to_frame(frame)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    sources = {
        "text": str(tmp_path / "t.csv"),
        "path": tmp_path / "t.csv",
        "parquet": tmp_path / "t.parquet",
        "polars": pl.from_pandas(frame),
        "lazy": pl.from_pandas(frame).lazy(),
        "columns": {name: frame[name].to_numpy() for name in ("site", "patient")},
        "chunks": [frame.iloc[:7], frame.iloc[7:]],
        "iterator": iter([frame.iloc[:7], frame.iloc[7:]]),
    }
    for name, source in sources.items():
        pd.testing.assert_frame_equal(found.to_frame(source), expected, check_dtype=False, obj=name)
    for source, message in (
        (tmp_path / "none.csv", "there is no file"),
        (5, "a int is no table"),
        ({"site": 5}, "which is no column"),
        ({"site": ["A"]}, "no column 'patient'"),
    ):
        with pytest.raises(SchemaError, match=message):
            found.to_frame(source)


def test_rows_that_share_a_key_come_back_with_it(plain):
    frame = FRAME[["x", "y"]].assign(id=np.repeat(np.arange(ROWS // 3), 3)[::-1])
    table = plain.upload(frame, name="repeated", key="id", owner="clinic", unique=False)
    column = LogisticRegression().fit(table, "y").predict_proba(table)
    found = column.reveal_keyed(to="clinic").to_frame(frame)
    assert found["id"].tolist() == frame["id"].tolist()
    expected = frame.assign(p=column.reveal()).groupby("id")["p"].apply(sorted)
    for key, some in found.groupby("id"):
        np.testing.assert_allclose(sorted(some.iloc[:, 1]), expected[key], atol=1e-4)


def test_who_gets_hashes(plain):
    table = plain.upload(FRAME.drop(columns="site"), name="t", key="patient", owner="clinic")
    ones = {"patient": np.arange(40), "z": np.ones(40)}
    other = plain.upload(ones, name="u", key="patient", owner="insurer")
    model = LogisticRegression().fit(table, "y", features=["x"])
    column = model.predict_proba(table.join(other, on="patient"))
    assert len(column.reveal_keyed(to="insurer").to_frame({"patient": np.arange(40)})) == 40
    with pytest.raises(
        SchemaError, match="who has the keys of all rows, clinic or insurer, and not to 'analyst'"
    ):
        column.reveal_keyed(to="analyst")
    with pytest.raises(SchemaError, match="who has the keys of all rows, clinic, and not to 'insurer'"):
        model.predict(table).reveal_keyed(to="insurer")
    with pytest.raises(SchemaError, match="20 of 40 rows have keys that this table has not"):
        column.reveal_keyed(to="insurer").to_frame({"patient": np.arange(20)})


@pytest.mark.parametrize(
    ("options", "holders"),
    [
        ({"how": "left"}, {"clinic"}),
        ({"how": "right"}, {"insurer"}),
        ({"how": "outer"}, set()),
        ({"how": "anti"}, {"clinic"}),
        ({"how": "semi"}, {"clinic", "insurer"}),
        ({"sizes": "noisy"}, set()),
        ({"sizes": "noisy", "how": "left"}, set()),
        ({"sizes": "hidden"}, {"clinic"}),
        ({"sizes": "hidden", "how": "semi"}, {"clinic"}),
        ({"sizes": "hidden", "how": "right"}, {"insurer"}),
        ({"sizes": "hidden", "how": "outer"}, set()),
    ],
)
def test_who_has_the_keys_of_all_rows(plain, options, holders):
    """Whoever gets hashes of keys that are not hers could find them by trying keys."""
    columns = {"patient": np.arange(30), "x": FRAME["x"][:30]}
    table = plain.upload(columns, name="t", key="patient", owner="clinic")
    columns = {"patient": np.arange(20, 50), "z": np.arange(30.0)}
    other = plain.upload(columns, name="u", key="patient", owner="insurer")
    joined = table.join(other, on="patient", **options)
    assert joined.key_holders == holders
    assert joined.filter(joined[joined.column_names[0]] > 0).key_holders == holders


def test_nobody_has_the_keys_of_stacked_rows(plain):
    some = {"x": FRAME["x"][:30], "y": FRAME["y"][:30]}
    tables = [
        plain.upload({"id": np.arange(30) + first, **some}, name=owner, key="id", owner=owner)
        for owner, first in (("a", 0), ("b", 50))
    ]
    both = tercet.concat(tables)
    column = LogisticRegression().fit(both, "y").predict(both)
    with pytest.raises(SchemaError, match="that is nobody, and not to 'a'"):
        column.reveal_keyed(to="a")
