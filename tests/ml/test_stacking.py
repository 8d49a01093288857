"""Tables put together equal pandas.concat as sets of rows; what differs between them, and what is refused."""

import itertools

import attrs
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import SchemaError
from tercet.ml import LogisticRegression

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.PrecisionWarning")

numbers = itertools.count()


def frame(rng, ids, *, level=0.0, gaps=False):
    """Columns of every kind, the first a number that tells the row."""
    rows = len(ids)
    made = pd.DataFrame(
        {
            "id": np.asarray(ids, np.int64),
            "mark": np.asarray(ids, np.int64) * 3 + 7,
            "x": rng.normal(level, 1.5, rows),
            "visits": rng.integers(0, 9, rows),
            "sick": rng.random(rows) < 0.4,
        }
    )
    if gaps:
        made["x"] = made["x"].where(rng.random(rows) < 0.8)
    return made


def put(lake, data, owner="o", **options):
    given = {"name": f"t{next(numbers)}", "key": "id", "missing": "indicator", **options}
    return lake.upload(data, owner=owner, **given)


def rows_of(table, clear):
    """The revealed rows beside those in the clear, both in the order of their marks."""
    found = pd.DataFrame(table.reveal()).sort_values("mark", ignore_index=True)
    return found, clear.sort_values("mark", ignore_index=True)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.lists(st.integers(0, 60), min_size=2, max_size=4), st.booleans())
def test_as_pandas_has_it(lake, seed, sizes, ranged):
    rng = np.random.default_rng(seed)
    ids = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    frames = [frame(rng, some, level=place / 2, gaps=place == 1) for place, some in enumerate(ids)]
    ranges = {"mark": (0, 1000), "x": (-20, 20), "visits": (0, 9)}
    bools = {"sick": "boolean", "mark": "integer", "visits": "integer", "x": "real"}
    uploads = [
        put(lake, one, f"owner{place}", types=bools, ranges=ranges if ranged else None)
        for place, one in enumerate(frames)
    ]
    together = tercet.concat(uploads, site="secret")
    clear = pd.concat([one.assign(site=place) for place, one in enumerate(frames)])
    assert len(together) == len(clear)
    found, clear = rows_of(together, clear)
    for name in ("mark", "visits", "sick", "site"):
        np.testing.assert_array_equal(found[name], clear[name].astype(found[name].dtype))
    there = clear["x"].notna()
    if "x_missing" in found:
        np.testing.assert_array_equal(found["x_missing"], ~there)
    scale = together.column("x").schema.scale
    np.testing.assert_allclose(found["x"][there], clear["x"][there], atol=1.5 * 2.0**-scale)


@pytest.mark.parametrize("protocol", ["shamir", "rep4"])
def test_on_other_protocols(protocol):
    rng = np.random.default_rng(3)
    frames = [frame(rng, range(40)), frame(rng, range(40, 70), level=1, gaps=True)]
    with tercet.local(protocol=protocol) as lake:
        together = tercet.concat(
            [put(lake, one, str(place)) for place, one in enumerate(frames)], site="public"
        )
        found, clear = rows_of(together, pd.concat(frames))
        assert together.reveal("site")["site"].tolist() == [False] * 40 + [True] * 30
        there = clear["x"].notna()
        np.testing.assert_allclose(found["x"][there], clear["x"][there], atol=1e-3)
        np.testing.assert_array_equal(found["visits"], clear["visits"])


def test_a_table_like_any_other(lake):
    """Filtered before, joined, split, described and fitted afterwards."""
    rng = np.random.default_rng(5)
    north, south = frame(rng, range(90)), frame(rng, range(90, 150), level=0.4)
    a, b = put(lake, north, "north", min_count=3), put(lake, south, "south", min_count=5)
    both = tercet.concat([a.filter(a["visits"] > 2), b], site="secret")
    kept = pd.concat([north[north.visits > 2], south])
    assert (both.min_count, both.rows_of_sources, len(both.selection)) == (5, 150, 1)
    assert {column.owner for column in both.columns} == {"north+south"}
    told = both.describe(["x", "site"], statistics=["mean", "std"])
    assert told["x"]["count"] == len(kept)
    np.testing.assert_allclose(
        [told["x"]["mean"], told["x"]["std"]], [kept.x.mean(), kept.x.std()], atol=2e-3
    )
    np.testing.assert_allclose(told["site"]["mean"], len(south) / len(kept), atol=1e-4)
    more = put(lake, pd.DataFrame({"id": np.arange(20, 130), "z": rng.normal(size=110)}), "registry")
    joined = both.join(more, on="id")
    assert len(joined) == 110
    assert joined.describe("z", statistics=["mean"])["z"]["count"] == kept.id.between(20, 129).sum()
    train, test = both.split(test_size=0.2)
    model = LogisticRegression().fit(train, target="sick", features=["x", "visits", "site"])
    assert 0 <= model.score(test) <= 1


def test_scales_become_one(lake):
    """Exactly for integers, to the stated half of a place for real numbers; kinds widen."""
    rng = np.random.default_rng(7)
    ids = np.arange(50)
    a = {"id": ids, "n": ids % 5, "w": ids * 10000, "r": rng.normal(0, 1, 50), "m": ids % 2, "mark": ids}
    b = {"id": ids + 50, "n": ids * 7, "w": ids, "r": rng.normal(1, 6, 50), "m": ids % 4, "mark": ids + 50}
    left, right = put(lake, a, "a"), put(lake, b, "b")
    both = tercet.concat([left, right])
    kinds = {column.name: (column.schema.kind, column.schema.scale) for column in both.columns}
    assert kinds["m"][0] == kinds["n"][0] == "integer"
    assert kinds["r"] == ("real", right.column("r").schema.scale - 1)
    assert kinds["w"] == ("integer", 0)
    found, clear = rows_of(both, pd.concat([pd.DataFrame(a), pd.DataFrame(b)]))
    for name in "nwm":
        np.testing.assert_array_equal(found[name], clear[name])
    off = np.abs(found["r"] - clear["r"])
    assert off.max() <= 2.0 ** -(kinds["r"][1] + 1) + 2.0 ** -(right.column("r").schema.scale + 1)
    assert both.column("r").grain >= off.max()


def test_rows_come_in_an_order_that_says_nothing(lake):
    """Unless the site is public. False alarm: mean of 200 of 400 places, beyond 5.2 sigma, 2e-7."""
    ids = np.arange(400)
    parts = [put(lake, {"id": some, "mark": some}) for some in (ids[:200], ids[200:])]
    marks = tercet.concat(parts).reveal("mark")["mark"]
    places = np.flatnonzero(marks < 200)
    sigma = np.sqrt(200 * (401) / 12 / 200)  # of a mean of 200 places drawn from 400 without replacement
    assert abs(places.mean() - 199.5) < 5.2 * sigma
    assert tercet.concat(parts, site="public").reveal("mark")["mark"].tolist() == ids.tolist()


@pytest.mark.parametrize(("left", "right"), [([], [1]), ([1], []), ([], [])])
def test_empty_sides(lake, left, right):
    kinds = {"types": {"mark": "integer"}}
    parts = [
        put(lake, {"id": np.array(some, np.int64), "mark": np.array(some, np.int64)}, **kinds)
        for some in (left, right)
    ]
    assert tercet.concat(parts, site="secret").reveal("mark")["mark"].tolist() == left + right


def test_keys_that_occur_twice(lake):
    rng = np.random.default_rng(9)
    a, b = put(lake, frame(rng, range(30)), "a"), put(lake, frame(rng, range(25, 60)), "b")
    lake.disclosed.clear()
    with pytest.raises(SchemaError, match="5 rows have a key that another row has; leave them out, or let"):
        tercet.concat([a, b])
    counted = tercet.concat([a, b], duplicates="count")
    assert (counted.repeats, len(counted)) == (5, 65)
    assert "the number of different keys (1) to the nodes" in str(lake.disclosed)
    lake.disclosed.clear()
    kept = tercet.concat([a, b], duplicates="keep")
    assert (kept.repeats, len(kept)) == (None, 65)
    assert "key" not in str(lake.disclosed)
    assert tercet.concat([a, put(lake, frame(rng, range(40, 50)), "c")]).repeats == 0


def test_one_row_does_not_count_as_many(plain):
    """Rows of one upload, twice in a table, would be as many as an owner asks for."""
    ids = np.arange(20)
    theirs = put(plain, {"id": ids, "age": ids + 30}, "hospital", min_count=4)
    mine = [put(plain, {"id": ids, f"own{place}": ids}, "ann") for place in range(2)]
    again = [theirs.join(one, on="id")[["age"]] for one in mine]
    for duplicates in ("count", "keep"):
        with pytest.raises(SchemaError, match="a row could count as two"):
            tercet.concat(again, duplicates=duplicates)
    with pytest.raises(SchemaError, match="20 rows have a key that another row has"):
        tercet.concat(again)
    train, test = theirs.split(test_size=0.5)
    assert len(tercet.concat([train, test])) == 20


def test_conditions_of_a_false_upload_count_once(plain):
    """An owner says that tens are zeros and ones."""
    ids = np.arange(12)
    true = put(plain, {"id": ids, "b": ids % 2}, "a")
    false = put(plain, {"id": ids + 12, "b": ids % 2}, "b")
    forged = plain.builder("forge")
    part = false.parts[0]
    (forged.input(part.handle, part.type) * 10).bounded(part.type.limit, "small").store("forged")
    plain.run(forged.plan())
    false = attrs.evolve(false, parts=(attrs.evolve(part, handle="forged"),))
    both = tercet.concat([true, false])
    assert both.filter(both["b"]).describe("b", statistics=["mean"])["b"]["count"] == 12


@pytest.mark.parametrize(
    ("other", "options", "sentence"),
    [
        ({"id": [5], "x": [1.5]}, {}, "have different columns: 'y' is in .* only; choose those"),
        ({"id": ["a"], "x": [1.5], "y": [2.5]}, {}, "key 'id' is integer in .* and string in"),
        (
            {"no": [5], "x": [1.5], "y": [2.5]},
            {"key": "no"},
            "have keys id and no; upload both with the same",
        ),
        (
            {"id": [5, 6], "x": [1.5, 2e6], "y": [2.5, 3.5]},
            {},
            "it measures something else, or in another unit",
        ),
        (
            {"id": [5, 6, 7], "x": [98.5, 100, 101.5], "y": [2.5, 3, 4]},
            {},
            "values of 'x' lie too far apart|'x', 'y' lie",
        ),
    ],
)
def test_what_does_not_go_together(plain, other, options, sentence):
    table = put(plain, {"id": [1, 2, 3, 4], "x": [1.0, 2.0, 3.0, 3.5], "y": [2.0, 2.5, 3.0, 3.5]})
    with pytest.raises(SchemaError, match=sentence):
        tercet.concat([table, put(plain, other, **options)])


def test_options_that_do_not_do(plain):
    table = put(plain, {"id": [1, 2], "x": [1.0, 2.0]})
    other = put(plain, {"id": [3, 4], "x": [1.0, 2.5]})
    with pytest.raises(SchemaError, match="is alone; name the tables"):
        tercet.concat([table])
    with pytest.raises(SchemaError, match="list of at most 64 tables"):
        tercet.concat("ab")
    with pytest.raises(SchemaError, match="have a column 'x'; give that of the site another name"):
        tercet.concat([table, other], site="secret", site_column="x")
    with tercet.local(protocol="plain") as elsewhere, pytest.raises(SchemaError, match="in different lakes"):
        tercet.concat([table, put(elsewhere, {"id": [3, 4], "x": [1.0, 2.5]})])


def test_categories_and_dates(plain):
    """Codes of the same labels are the same; others would be mixed up."""

    def labelled(first, values, **options):
        data = {"id": np.arange(len(values)) + first, "c": values}
        return plain.upload(data, name=f"c{first}", key="id", owner=f"o{first}", **options)

    kind = {"types": {"c": "category"}}
    one, other = labelled(0, ["a", "b", "b"], **kind), labelled(10, ["b", "a", "b"], **kind)
    counted = tercet.concat([one, other]).value_counts("c").to_frame()
    assert counted["count"].to_dict() == {"a": 2, "b": 4}
    dates = np.array(["2020-01-01", "2021-01-01"], "datetime64[D]")
    for wrong, why in (
        (labelled(20, ["a", "q", "q"], **kind), "has not the same labels"),
        (labelled(30, [0, 1, 1]), "has not the same labels"),
        (labelled(40, dates), "has dates or times"),
    ):
        with pytest.raises(SchemaError, match=why):
            tercet.concat([one, wrong])


def test_a_name_that_tells_where_values_are_missing_elsewhere(plain):
    gaps = {"id": [1, 2, 3], "x": [0.5, np.nan, 1.5]}
    own = {"id": [4, 5, 6], "x": [0.5, 1.0, 1.5], "x_missing": [True, True, False]}
    with pytest.raises(SchemaError, match="tells where values are missing in another"):
        tercet.concat([put(plain, gaps), put(plain, own)])
