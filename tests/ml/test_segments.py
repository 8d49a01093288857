"""Segmented scans equal pandas' by group, for runs of any length, in the rounds that they state."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import PlanError
from tercet.ml import segments
from tercet.plans import Builder, Form, Type


def expected(starts, values):
    """What pandas says."""
    return pd.DataFrame(values.T).groupby(np.cumsum(starts)).cumsum().to_numpy().T


def runs(rows, seed, *, columns=2):
    """Marks and whole numbers, of both signs."""
    generator = np.random.default_rng(seed)
    starts = generator.random(rows) < generator.choice([0.0, 0.02, 0.3, 1.0])
    return starts.astype(float), generator.integers(-(10**6), 10**6, (columns, rows)).astype(float)


@pytest.fixture(params=[0, segments.MOST_PRODUCTS], ids=["in a tree", "doubling"])
def each_way(request, monkeypatch):
    """Both ways to scan."""
    monkeypatch.setattr(segments, "MOST_PRODUCTS", request.param)


@pytest.mark.usefixtures("each_way")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 70), seed=st.integers(0, 1 << 30))
def test_running_sums(compute, rows, seed):
    starts, values = runs(rows, seed)
    found = compute(segments.running, 0, starts, values)
    np.testing.assert_array_equal(found, expected(starts, values))


@pytest.mark.usefixtures("each_way")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 70), seed=st.integers(0, 1 << 30))
def test_running_sums_backward(compute, rows, seed):
    starts, values = runs(rows, seed)
    found = compute(lambda marks, x: segments.running(marks, x, backward=True), 0, starts, values)
    last = np.append(starts[1:], 1)
    np.testing.assert_array_equal(found[:, ::-1], expected(last[::-1], values[:, ::-1]))


def test_running_sums_keep_the_scale_and_the_bound_that_is_promised(compute):
    starts, values = runs(1000, 1)
    kept = np.where(starts, values, 0)
    found = compute(
        lambda marks, x: segments.running(marks, x.shifted(40), magnitude=2.0**-20), 0, starts, kept
    )
    np.testing.assert_array_equal(found, np.ldexp(expected(starts, kept), -40))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.integers(1, 70), seed=st.integers(0, 1 << 30))
def test_values_are_copied_down(compute, rows, seed):
    marks, values = runs(rows, seed)
    values *= marks
    found = compute(segments.copied, 0, marks, values)
    frame = pd.DataFrame(np.where(marks, values, np.nan).T)
    np.testing.assert_array_equal(found, frame.ffill().fillna(0).to_numpy().T)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_ends_of_runs(compute, rows):
    starts, _ = runs(rows, rows)
    np.testing.assert_array_equal(compute(segments.ends, 0, starts), np.append(starts[1:], 1))


@pytest.mark.parametrize("protocol", ["shamir", "rep4"])
def test_other_protocols(protocol):
    starts, values = runs(41, 7)
    with tercet.local(protocol=protocol) as lake:
        table = lake.upload(
            {"id": np.arange(41), "start": starts, "x": values[0], "y": values[1]},
            name="runs",
            key="id",
            owner="owner",
            types={"start": "boolean", "x": "integer", "y": "integer"},
            scales={"x": 0, "y": 0},
        )
        builder = lake.builder("sums")
        start, x, y = table.raw(builder, ["start", "x", "y"])
        both = builder.apply("concatenate", x, y)
        segments.running(start.squeeze(), both, magnitude=2.0**30).reveal("sums", to="analyst")
        found = lake.run(builder.plan()).revealed["sums"]
    np.testing.assert_array_equal(found, expected(starts, values))


@pytest.mark.parametrize(
    ("rows", "rounds", "most"),
    [
        (1000, 10, 8 * 10 * 4 * 1000),
        (1024, 10, 8 * 10 * 4 * 1024),
        (2500, 12, 8 * 12 * 4 * 2500),
        (4096, 24, (16 * 3 + 8) * 4116),
    ],
)
def test_what_a_scan_takes(rows, rounds, most):
    """Rounds and bytes, as they are stated, and nothing opened."""
    builder = Builder("scan")
    starts = builder.input("starts", Type(Form.RING, (rows,), 0, 1.0))
    values = builder.input("values", Type(Form.RING, (3, rows), 0, 100.0))
    segments.running(starts, values).store("sums")
    plan = builder.plan()
    assert plan.disclosures() == []
    told = tercet.explain(plan)
    assert told.rounds == rounds
    assert max(told.bytes_sent) <= most


def test_shapes_that_do_not_fit():
    builder = Builder("scan")
    starts = builder.input("starts", Type(Form.RING, (5,), 0, 1.0))
    with pytest.raises(PlanError, match="marks"):
        segments.running(starts, builder.input("values", Type(Form.RING, (3, 6), 0, 1.0)))
    with pytest.raises(PlanError, match="marks"):
        segments.running(starts, builder.input("values", Type(Form.RING, (5,), 0, 1.0)))
