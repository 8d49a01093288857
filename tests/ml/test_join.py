"""Secure joins equal pandas.merge(how="inner") as sets of rows, in an order that says nothing."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tercet

pytestmark = [
    pytest.mark.filterwarnings("ignore::tercet.errors.FewMatchesWarning"),
    pytest.mark.filterwarnings("ignore::tercet.errors.KeyWarning"),
]
COMPOSITE = ("site", "number")


@pytest.fixture(scope="module")
def lakes():
    with tercet.local(protocol="plain") as plain, tercet.local(protocol="replicated") as replicated:
        yield {"plain": plain, "replicated": replicated}


WORDS = st.text(st.sampled_from("abÉ7 \0"), max_size=3)
KEYS = {
    "integers": (("id",), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30)),
    "strings": (("id",), WORDS),
    "composite": (COMPOSITE, st.tuples(WORDS, st.integers(0, 5))),
}


@st.composite
def tables(draw, kind, count):
    """Data frames with unique keys of one kind, of 0 to 40 rows, which overlap more or less."""
    names, keys = KEYS[kind]
    pool = draw(st.lists(keys, unique=True, max_size=40))
    frames = []
    for place in range(count):
        mine = draw(st.lists(st.sampled_from(pool), unique=True)) if pool else []
        mine += draw(st.lists(keys.filter(lambda key: key not in pool), unique=True, max_size=40 - len(mine)))
        rows = [key if isinstance(key, tuple) else (key,) for key in mine]
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        kinds = {
            name: object if all(isinstance(v, str) for v in vs) else "int64" for name, vs in columns.items()
        }
        if not rows:  # an empty column has no type of its own
            kinds = {name: object if kind == "strings" or name == "site" else "int64" for name in columns}
        frame = pd.DataFrame({name: pd.Series(vs, dtype=kinds[name]) for name, vs in columns.items()})
        frames.append(frame.assign(**{f"value{place}": np.arange(len(rows)) * 3 - 20 + place}))
    return frames


def rows(columns, names):
    """Rows as a sorted list of tuples: the values tell which rows were joined with which."""
    return sorted(zip(*(np.asarray(columns[name]).tolist() for name in names), strict=True))


def check_join(lake, frames, keys):
    """Join frames and compare with pandas."""
    on = keys[0] if len(keys) == 1 else list(keys)
    # Any text, also without letters or with spaces at an end, if that is said.
    literal = {name: "string" for name in keys if frames[0][name].dtype == object}
    uploaded = [
        lake.upload(frame, name=f"table {place}", key=on, owner=f"owner {place}", types=literal)
        for place, frame in enumerate(frames)
    ]
    joined = uploaded[0].join(*uploaded[1:], on=on)
    clear = frames[0]
    for frame in frames[1:]:
        clear = clear.merge(frame, on=list(keys), how="inner")
    names = [f"value{place}" for place in range(len(frames))]
    assert len(joined) == joined.rows == len(clear)
    assert joined.column_names == names
    assert rows(joined.reveal(), names) == rows(clear, names)
    return joined


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("count", [2, 3])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_joins_in_the_clear_reference(lakes, kind, count, data):
    check_join(lakes["plain"], data.draw(tables(kind, count)), KEYS[kind][0])


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("count", [2, 3])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_joins_of_shares(lakes, kind, count, data):
    check_join(lakes["replicated"], data.draw(tables(kind, count)), KEYS[kind][0])


def frame(ids, name):
    ids = np.asarray(ids, dtype=np.int64)
    return pd.DataFrame({"id": ids, name: ids % 1000 + 7})


@pytest.mark.parametrize("protocol", ["plain", "replicated"])
@pytest.mark.parametrize(
    ("left", "right"),
    [([], []), ([], [1]), ([1], []), ([1], [1]), ([1], [2]), ([5], range(70)), (range(65), [64])],
)
def test_tables_of_no_and_one_row(lakes, protocol, left, right):
    check_join(lakes[protocol], [frame(left, "value0"), frame(right, "value1")], ("id",))


@pytest.mark.parametrize("protocol", ["plain", "replicated"])
def test_joins_of_joins_and_of_parts(lakes, protocol):
    lake = lakes[protocol]
    sets = [range(60), range(20, 80), range(30, 90, 2), range(0, 90, 3)]
    frames = [frame(ids, f"value{place}") for place, ids in enumerate(sets)]
    one, two, three, four = (
        lake.upload(each, name=f"table{place}", key="id", owner="owner") for place, each in enumerate(frames)
    )
    both = one.join(two, on="id").join(three.join(four, on="id"), on="id")
    together = set.intersection(*map(set, sets))
    assert sorted(both.reveal("value3")["value3"] - 7) == sorted(together)
    assert both.column_names == ["value0", "value1", "value2", "value3"]
    assert both.name == "table0+table1+table2+table3"
    train, test = both.split(test_size=0.5)
    again = [
        part.join(lake.upload(frame(range(90), "more"), name="more", key="id", owner="owner"), on="id")
        for part in (train, test)
    ]
    found = [part.reveal() for part in again]
    for part in found:
        np.testing.assert_array_equal(part["value0"], part["more"])
    assert sorted(np.concatenate([part["more"] for part in found]) - 7) == sorted(together)


def test_a_join_moves_whole_rows(lakes):
    """Columns of every kind stay together, also two uploads deep."""
    generator = np.random.default_rng(0)
    ids = np.arange(300)
    left = {"id": ids, "real": generator.normal(size=300) * 1e5, "whole": ids * 1000, "flag": ids % 2 == 0}
    right = {"id": ids[::-1], "copy": ids[::-1] * 1000}
    lake = lakes["replicated"]
    joined = lake.upload(left, name="left", key="id", owner="a").join(
        lake.upload(right, name="right", key="id", owner="b"), on="id"
    )
    found = joined.reveal()
    np.testing.assert_array_equal(found["whole"], found["copy"])
    order = found["whole"] // 1000
    np.testing.assert_array_equal(found["flag"], left["flag"][order])
    np.testing.assert_allclose(found["real"], left["real"][order], atol=2.0)
    assert [column.owner for column in joined.columns] == ["a", "a", "a", "b"]


def test_rows_come_out_in_an_order_that_says_nothing(lakes):
    """Rank correlation with the input order of 400 rows, 12 times: each beyond 4.5 sigma with probability
    7e-6.

    The chance of a false alarm is 2e-4 for all 24.
    """
    lake = lakes["replicated"]
    generator = np.random.default_rng(1)
    size = 400
    for _ in range(12):
        one, two = frame(np.arange(size), "value0"), frame(generator.permutation(size), "value1")
        joined = lake.upload(one, name="one", key="id", owner="a").join(
            lake.upload(two, name="two", key="id", owner="b"), on="id"
        )
        order = joined.reveal("value0")["value0"] - 7
        assert sorted(order) == list(range(size))
        for before in (order, np.argsort(two["id"].to_numpy())[order]):
            correlation = np.corrcoef(np.arange(size), before)[0, 1]
            assert abs(correlation) * np.sqrt(size - 1) < 4.5


@pytest.mark.parametrize("count", [2, 3])
def test_what_a_join_discloses(count):
    with tercet.local() as lake:
        tables = [
            lake.upload(
                frame(range(place, 50), f"value{place}"), name=f"table{place}", key="id", owner="owner"
            )
            for place in range(count)
        ]
        assert lake.disclosed == []
        tables[0].join(*tables[1:], on="id").split(test_size=0.5)
        told = [(item.what, item.to, item.size) for item in lake.disclosed]
        pseudonyms = [
            ("pseudonyms of shuffled keys, random words", "the nodes", f"2 x {50 - place}")
            for place in range(count)
        ]
        assert told == [*pseudonyms, ("the number of rows that match", "the nodes", "1")]
        if lake.cluster.protocol == "replicated":
            assert [phase.rounds for phase in lake.phases if phase.name == "join"] == [16]


def test_two_hundred_thousand_rows(lakes, request):
    lake = lakes["replicated"]
    size = 200_000
    generator = np.random.default_rng(2)
    left = generator.permutation(3 * size)[:size] * 7919
    right = generator.permutation(3 * size)[:size] * 7919
    one = lake.upload({"id": left, "a": left % 1009}, name="one", key="id", owner="a")
    two = lake.upload({"id": right, "b": right % 1009, "c": right % 2}, name="two", key="id", owner="b")
    began = time.perf_counter()
    joined = one.join(two, on="id")
    seconds = time.perf_counter() - began
    both = np.intersect1d(left, right)
    assert len(joined) == len(both)
    found = joined.reveal()
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(np.sort(found["a"]), np.sort(both % 1009))
    assert found["c"].sum() == (both % 2).sum()
    assert seconds < 60 or request.config.getoption("workers")  # whose tiles are small
