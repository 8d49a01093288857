"""Joins of every kind equal pandas.merge, and tell no more than they say."""

import itertools
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import SchemaError
from tercet.ml.hidden_join import REPEATED
from tercet.ml.join_options import Sizes

pytestmark = [
    pytest.mark.filterwarnings("ignore::tercet.errors.PrecisionWarning"),
    pytest.mark.filterwarnings("ignore::tercet.errors.FewMatchesWarning"),
]

_numbers = itertools.count()
SIZES = get_args(Sizes)
PAIRS = ("inner", "left", "right", "outer")
QUICK = settings(deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def lakes():
    with tercet.local(protocol="plain") as plain, tercet.local() as replicated:
        yield {"plain": plain, "replicated": replicated}


def put(lake, frame, key="id", **options):
    options = {"missing": "indicator", "owner": f"owner of {frame.columns[-1]}", **options}
    return lake.upload(frame, name=f"table {next(_numbers)}", key=key, **options)


def clear(table):
    """A table as a data frame: the rows that count, missing cells as NaN."""
    frame = pd.DataFrame(table.reveal(), columns=table.column_names)
    if table.selection:
        builder = table.lake.builder("selection")
        table.selected(builder).reveal("selection", to="analyst")
        frame = frame[table.lake.run(builder.plan()).revealed["selection"] > 0.5]
    beside = {one.name: one.schema.missing for one in table.columns if one.schema.missing}
    for name, missing in beside.items():
        frame[name] = frame[name].astype(float).where(~frame[missing].astype(bool))
    return frame.drop(columns=[*dict.fromkeys(beside.values())])


def same(found, expected):
    """Whether two frames have the same rows, in whatever order; numbers to within what scales allow."""
    names = sorted(expected)
    assert sorted(found) == names
    ours, theirs = (
        sorted(frame[names].astype(float).round(2).fillna(-1e9).to_numpy().tolist())
        for frame in (found, expected)
    )
    assert ours == theirs


def merged(left, right, how, keys):
    """What pandas says, and of "semi" and "anti", what it would."""
    if how in ("semi", "anti"):
        marked = left.merge(right[keys], on=keys, how="left", indicator=True)
        inside = marked["_merge"] == "both"
        return left[(inside if how == "semi" else ~inside).to_numpy()].drop(columns=keys)
    return left.merge(right, on=keys, how=how).drop(columns=keys)


@st.composite
def frames(draw, *, repeats=False):
    """Two data frames with one or two key columns that overlap; cells of one column may be missing."""
    generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    keys = draw(st.sampled_from([["id"], ["site", "number"]]))
    sizes = [draw(st.integers(0, 30)) for _ in range(2)]
    pool = generator.permutation(40)
    made = []
    for place, size in enumerate(sizes):
        some = generator.choice(pool, size, replace=repeats and place == 0)
        parts = {"id": some} if keys == ["id"] else {"site": some // 7, "number": some % 7}
        frame = pd.DataFrame(parts).astype("int64")
        frame[f"n{place}"] = generator.integers(1900, 2000, size)
        frame[f"r{place}"] = generator.integers(0, 400, size) / 4
        frame[f"f{place}"] = generator.random(size) < 0.5
        if size > 2:
            frame.loc[generator.random(size) < 0.2, f"r{place}"] = np.nan
        made.append(frame)
    return made, keys


def check(lake, left, right, keys, how, **options):
    key = keys[0] if len(keys) == 1 else keys
    many = options.get("validate") == "m:1"
    ranges = {name: (0, 2000) for name in right if name in ("n1", "r1", "x1", "y1")} if many else {}
    tables = [put(lake, left, key, unique=not many), put(lake, right, key, ranges=ranges)]
    joined = tables[0].join(tables[1], on=key, how=how, **options)
    same(clear(joined), merged(left, right, how, keys))
    return joined


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("how", [*PAIRS, "semi", "anti"])
@settings(QUICK, max_examples=5)
@given(data=st.data())
def test_unique_keys(lakes, how, sizes, data):
    (left, right), keys = data.draw(frames())
    check(lakes["plain"], left, right, keys, how, sizes=sizes)


@pytest.mark.parametrize("how", [*PAIRS, "semi", "anti"])
@settings(QUICK, max_examples=5)
@given(data=st.data())
def test_keys_that_repeat_on_the_left(lakes, how, data):
    (left, right), keys = data.draw(frames(repeats=True))
    check(lakes["plain"], left, right, keys, how, sizes="hidden", validate="m:1")


def example(rows=(60, 45), *, repeats=False):
    """Two frames of which about half of the rows match."""
    generator = np.random.default_rng(3)
    made = []
    for place, size in enumerate(rows):
        ids = generator.choice(90, size, replace=repeats and place == 0)
        made.append(pd.DataFrame({"id": ids, f"x{place}": ids * 7 + place, f"y{place}": ids / 4.0}))
    return made


CASES = [
    *[("exact", "1:1", how) for how in (*PAIRS, "anti")],
    *[("noisy", "1:1", how) for how in ("inner", "left")],
    *[("hidden", "1:1", how) for how in PAIRS],
    *[("hidden", "m:1", how) for how in ("left", "outer")],
]


@pytest.mark.parametrize(("sizes", "validate", "how"), CASES)
def test_shares(lakes, sizes, validate, how):
    left, right = example(repeats=validate == "m:1")
    check(lakes["replicated"], left, right, ["id"], how, sizes=sizes, validate=validate)


@pytest.mark.parametrize("protocol", ["shamir", "rep4"])
def test_other_protocols(protocol):
    left, right = example((20, 14))
    with tercet.local(protocol=protocol) as lake:
        check(lake, left, right, ["id"], "outer", sizes="exact")
        check(lake, left, right, ["id"], "left", sizes="hidden")


@pytest.mark.thorough
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("how", PAIRS)
@settings(QUICK, max_examples=10)
@given(data=st.data())
def test_more_shares(lakes, how, sizes, data):
    (left, right), keys = data.draw(frames())
    check(lakes["replicated"], left, right, keys, how, sizes=sizes)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("how", [*PAIRS, "semi", "anti"])
def test_rows_of_a_filtered_right_table_match_nothing(lakes, how, sizes):
    lake, (left, right) = lakes["plain"], example()
    kept = put(lake, right)
    kept = kept.filter(kept["x1"] > 300)
    joined = put(lake, left).join(kept, on="id", how=how, sizes=sizes)
    same(clear(joined), merged(left, right[right["x1"] > 300], how, ["id"]))


@pytest.mark.parametrize(
    ("how", "sizes"), [*itertools.product(["left", "inner", "anti"], SIZES), ("outer", "exact")]
)
def test_rows_of_a_filtered_left_table_do_not_count(lakes, how, sizes):
    lake, (left, right) = lakes["plain"], example()
    kept = put(lake, left)
    kept = kept.filter(kept["x0"] > 300)
    joined = kept.join(put(lake, right), on="id", how=how, sizes=sizes)
    same(clear(joined), merged(left[left["x0"] > 300], right, how, ["id"]))


# -- what goes on with the result ----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_missing_cells_are_as_those_of_an_upload(lakes, sizes):
    lake, (left, right) = lakes["plain"], example()
    clear_join = left.merge(right, on="id", how="left")
    joined = put(lake, left).join(put(lake, right), on="id", how="left", sizes=sizes)
    assert joined.column_names == ["x0", "y0", "x1", "x1_missing", "y1", "y1_missing"]
    with pytest.raises(SchemaError, match="may have missing values"):
        tercet.ml.StandardScaler(columns=["x1"]).fit(joined)
    found = joined.corr(["y0", "y1"]).to_frame()
    np.testing.assert_allclose(found, clear_join[["y0", "y1"]].corr(), atol=1e-3)
    described = joined.describe(["y1"], statistics=["mean", "max"]).to_frame()
    expected = clear_join["y1"]
    np.testing.assert_allclose(
        described["y1"].to_numpy(), [expected.count(), expected.mean(), expected.max()], rtol=1e-3
    )
    filled = joined.assign(z=joined["y1"].fillna(-1.0))
    assert np.isclose(clear(filled)["z"].sum(), expected.fillna(-1.0).sum(), rtol=1e-3)
    kept = joined.dropna(compact=True)
    assert kept.rows == expected.count()


def test_hidden_rows_go_on_as_filtered_ones(lakes):
    lake, (left, right) = lakes["plain"], example((80, 70))
    both = left.merge(right, on="id")
    joined = put(lake, left).join(put(lake, right), on="id", sizes="hidden")
    assert joined.rows == len(left)
    again = joined.join(put(lake, left[["id"]].assign(w=left["id"] * 2.0)), on="id", sizes="hidden")
    correlations = again.corr(["x1", "w"]).to_frame()
    assert correlations.loc["x1", "w"] == pytest.approx(1.0, abs=1e-3)
    described = again.describe(["y1"], statistics=["mean"]).to_frame()["y1"]
    np.testing.assert_allclose(described.to_numpy(), [len(both), both["y1"].mean()], rtol=1e-3)
    halves = again.split(test_size=0.5)
    counts = [half.describe(["w"], statistics=["mean"]).to_frame().loc["count", "w"] for half in halves]
    assert sum(counts) == len(both)


def test_columns_of_one_name(lakes):
    lake = lakes["plain"]
    left, right = (frame.rename(columns=lambda name: name.rstrip("01")) for frame in example())
    tables = [put(lake, frame) for frame in (left, right)]
    with pytest.raises(SchemaError, match="suffixes="):
        tables[0].join(tables[1], on="id")
    with pytest.raises(SchemaError, match="2 tables"):
        tables[0].join(tables[1], on="id", suffixes=["_a"])
    joined = tables[0].join(tables[1], on="id", how="left", suffixes=["_l", "_r"])
    same(clear(joined), left.merge(right, on="id", how="left", suffixes=["_l", "_r"]).drop(columns="id"))


def test_what_cannot_be(lakes):
    lake, (left, right) = lakes["plain"], example(repeats=True)
    many, one = put(lake, left, unique=False), put(lake, right)
    with pytest.raises(SchemaError, match="may repeat, and validate"):
        many.join(one, on="id")
    with pytest.raises(SchemaError, match="for the first table only"):
        one.join(many, on="id", validate="m:1", sizes="hidden")
    with pytest.raises(SchemaError, match="how often every key occurs"):
        many.join(one, on="id", validate="m:1")
    with pytest.raises(SchemaError, match="takes two tables"):
        one.join(put(lake, right[["id"]]), put(lake, right[["id"]]), on="id", how="left")
    with pytest.raises(SchemaError, match="has the same key"):
        put(lake, left)
    with pytest.raises(SchemaError, match="'inner' or 'left'"):
        one.join(put(lake, right[["id"]]), on="id", how="cross")


# -- what is told --------------------------------------------------------------------------------------------


def linked(lake, matching, rows=6, **options):
    """Tables of so many rows of which some match, joined; what was opened and revealed, and what it cost."""
    ids = np.arange(rows)
    frames = [pd.DataFrame({"id": ids, "a": 1.5}), pd.DataFrame({"id": ids + rows - matching, "b": 2.5})]
    tables = [put(lake, frame, ranges={frame.columns[1]: (0, 4)}) for frame in frames]
    before = len(lake.disclosed)
    joined = tables[0].join(tables[1], on="id", **options)
    told = [str(item) for item in lake.disclosed[before:]]
    phase = lake.phases[-1]
    return joined, told, (phase.rounds, phase.bytes_sent)


@pytest.mark.parametrize("how", PAIRS)
@pytest.mark.parametrize("validate", ["1:1", "m:1"])
def test_hidden_joins_look_alike_however_many_rows_match(lakes, how, validate):
    """As many rows, rounds, bytes and openings; `test_word_order` has what is opened."""
    options = {"how": how, "validate": validate, "sizes": "hidden"}
    found = [linked(lakes["replicated"], matching, **options) for matching in (0, 3, 6)]
    assert len({joined.rows for joined, *_ in found}) == 1
    assert found[0][1:] == found[1][1:] == found[2][1:]
    assert {what.rsplit(" (")[0].removeprefix("- ") for what in found[0][1]} <= {
        "comparisons of shuffled rows, a random order",
        "places of shuffled rows, a random order",
        REPEATED,
    }


def test_a_false_upload_with_a_key_twice_is_not_joined(lakes, monkeypatch):
    lake, (left, right) = lakes["replicated"], example(repeats=True)
    monkeypatch.setattr("tercet.ml.ingest.find_duplicate_in_parts", lambda *_: None)
    many, one = put(lake, left, ranges={"x0": (0, 700), "y0": (0, 25)}), put(lake, right)
    with pytest.raises(SchemaError, match="more often in one of them than validate='1:1' allows"):
        many.join(one, on="id", sizes="hidden")
    with pytest.raises(SchemaError, match="has to be there once"):
        one.join(many, on="id", sizes="hidden", validate="m:1")


def test_columns_that_many_rows_may_get_need_a_range(lakes):
    """What is linked with an outlier many times spreads as no column does whose spread was checked."""
    lake = lakes["plain"]
    right = pd.DataFrame({"id": np.arange(400), "x": 0.25 * (np.arange(400) % 7)})
    right.loc[0, "x"] = 1000.0
    left = pd.DataFrame({"id": np.arange(300) % 2, "y": np.arange(300) / 100})
    many, one = put(lake, left, unique=False), put(lake, right)
    options = {"on": "id", "validate": "m:1", "sizes": "hidden"}
    with pytest.raises(SchemaError, match=r"needs a public range; clip it"):
        many.join(one, **options)
    joined = many.join(one.assign(x=one["x"].clip(0, 1000)), **options)
    same(clear(joined), merged(left, right, "inner", ["id"]))
    told = joined.describe(["x"], statistics=["std"])["x"]["std"]
    assert told == pytest.approx(left.merge(right, on="id")["x"].std(), rel=1e-3)


# -- large tables --------------------------------------------------------------------------------------------


@pytest.mark.scale
@pytest.mark.parametrize("sizes", ["exact", "noisy", "hidden"])
@pytest.mark.parametrize("protocol", ["replicated", "shamir", "rep4"])
def test_joins_of_200_000_rows(protocol, sizes):
    """Counts, means and spreads of columns are those of `pandas.merge`, for every kind of join."""
    rows, rng = 200_000, np.random.default_rng(8)
    keys = [rng.permutation(2 * rows)[:rows] for _ in range(2)]
    left = pd.DataFrame({"id": keys[0], "a": rng.normal(size=rows).round(3)})
    right = pd.DataFrame({"id": keys[1], "b": rng.normal(size=rows).round(3)})
    left.loc[rng.random(rows) < 0.1, "a"] = np.nan
    with tercet.local(protocol=protocol) as lake:
        tables = put(lake, left), put(lake, right)
        for how in (*PAIRS, "semi", "anti"):
            joined = tables[0].join(tables[1], on="id", how=how, sizes=sizes)
            if how in PAIRS:
                expected = left.merge(right, on="id", how=how)
            else:
                expected = left[left.id.isin(right.id) == (how == "semi")]
            names = [name for name in ("a", "b") if name in expected]
            found = joined.describe(names, statistics=["mean", "std"]).to_frame()[names].astype(float)
            assert (found.loc["count"] == expected[names].count()).all()
            np.testing.assert_allclose(found.loc["mean"], expected[names].mean(), atol=1e-3)
            np.testing.assert_allclose(found.loc["std"], expected[names].std(), atol=1e-3)
