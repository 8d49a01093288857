"""Steps that are copied make the very plan that steps make which are all written."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from tercet.errors import PlanError
from tercet.ml import LogisticRegression, cross_validate
from tercet.ml.descent import Descent
from tercet.ml.newton import Newton
from tercet.plans import Builder, Form, Type, Value, builder
from tercet.plans.loops import Loop
from tercet.plans.passes import optimise

RNG = np.random.default_rng(5)
X = np.round(RNG.normal(size=(120, 3)), 3)
Y = (X @ [0.8, -0.5, 0.0] + RNG.logistic(size=120) > 0).astype(float)
FITS = {
    "default": {},
    "no intercept": {"fit_intercept": False},
    "no penalty": {"penalty": None},
    "balanced": {"class_weight": "balanced"},
    "many steps": {"max_iter": 12, "z_bound": 24.0},
    "weights": {"sample_weight": "w"},
    "offset": {"offset": "o"},
    "tolerance": {"tol": 1e-3},
    "descent": {"solver": "gd", "max_iter": 5},
    "momentum": {"solver": "gd", "max_iter": 5, "momentum": 0.5},
    "folds": {"cv": 3},
}
CALL = {"sample_weight", "offset"}


@pytest.fixture(scope="module")
def table(plain):
    columns = {f"x{place}": X[:, place] for place in range(3)}
    columns |= {"y": Y, "w": np.round(RNG.uniform(0.5, 2, 120), 2), "o": np.round(RNG.normal(size=120), 2)}
    return plain.upload({**columns, "id": np.arange(120)}, name="looped", key="id", owner="owner")


def plans_of(plain, table, options):
    """The bodies of all plans of a fit, and the steps that were written."""
    found, written = [], []
    with pytest.MonkeyPatch.context() as patched:
        run = type(plain.cluster).run

        async def noted(self, plan, *more):
            found.append(optimise(plan).to_body()[0])
            return await run(self, plan, *more)

        patched.setattr(type(plain.cluster), "run", noted)
        for solver in (Newton, Descent):
            step = solver.step

            def counted(self, state, number, step=step):
                written.append(number)
                return step(self, state, number)

            patched.setattr(solver, "step", counted)
        call = {name: value for name, value in options.items() if name in CALL}
        made = {name: value for name, value in options.items() if name not in CALL | {"cv"}}
        features = ["x0", "x1", "x2"]
        if "cv" in options:
            scored = LogisticRegression(max_iter=6)
            cross_validate(scored, table, target="y", features=features, cv=options["cv"])
        else:
            LogisticRegression(**made).fit(table, target="y", features=features, **call)
    return found, written


@pytest.mark.parametrize("name", FITS)
def test_copied_steps_are_those_that_would_be_written(plain, table, name, monkeypatch):
    copied, few = plans_of(plain, table, FITS[name])
    monkeypatch.setattr(Loop, "__call__", lambda self, step, state, number: step(state, number))
    written, all_of_them = plans_of(plain, table, FITS[name])
    assert len(copied) == len(written)
    for one, other in zip(copied, written, strict=True):
        assert one == other
    # With a tolerance plans have one step each; bounds of short descents grow from step to step.
    same = name in ("tolerance", "descent", "momentum")
    assert few == all_of_them if same else len(few) < len(all_of_them)


# -- what a loop takes care of -------------------------------------------------------------------------------


@attrs.frozen
class Pair:
    """A state of two values."""

    x: Value
    y: Value
    z: Value | None = None


def begun():
    b = Builder("loop", tile_rows=64)
    kind = Type(Form.RING, (10,), 16, 2.0**30)
    return b, Pair(b.input("x", kind), b.input("y", kind))


def walked(step, count=6, *, loop=True):
    """The plan of some steps, and which of them were written."""
    b, state = begun()
    written = []

    def noted(state, number):
        written.append(number)
        with b.scope(f"step {number}"):
            return step(b, state, number)

    again = Loop(b) if loop else lambda step, state, number: step(state, number)
    for number in range(1, count + 1):
        state = again(noted, state, number)
    state.x.store("found")
    state.y.store("other")
    return b.plan(), written


def mixed(_, state, number):
    half = (state.x + state.y).shifted(1).rescale(16).bounded(2.0**10, "by design")
    return Pair(half, (state.x - state.y).shifted(1).rescale(16).bounded(2.0**10, "by design"))


def swapped(b, state, number):
    """What one step has computed, the next finds, under its own name."""
    total = (state.x + state.y).shifted(1).rescale(16).bounded(2.0**10, "by design")
    return Pair(total, state.x.bounded(2.0**10, "by design"))


def first_differs(b, state, number):
    if number == 1:
        return Pair(state.x.bounded(2.0**10, "x"), state.y.bounded(2.0**10, "x"))
    return mixed(b, state, number)


def grows(b, state, number):
    return Pair(state.x + state.y, state.y)


def shuffles(b, state, number):
    x = b.apply_all("shuffle", state.x)[0]
    return mixed(b, Pair(x, state.y), number)


def tells(b, state, number):
    state.x.checkpoint(number, f"x {number}")
    return mixed(b, state, number)


@pytest.mark.parametrize("step", [mixed, swapped, first_differs, grows, shuffles, tells])
def test_the_plan_is_the_same(step):
    looped, _ = walked(step)
    plain, every = walked(step, loop=False)
    assert every == [1, 2, 3, 4, 5, 6]
    assert optimise(looped).nodes == optimise(plain).nodes
    assert [node.label for node in optimise(looped).nodes] == [node.label for node in optimise(plain).nodes]


def test_what_is_written():
    assert walked(mixed)[1] == [1, 2]
    assert walked(first_differs)[1] == [1, 2]
    assert walked(grows)[1] == [1, 2, 3, 4, 5, 6]  # bounds grow, so no step is like another
    assert walked(shuffles)[1] == walked(tells)[1] == [1, 2, 3, 4, 5, 6]


def test_a_plan_may_not_grow_beyond_what_may_be_written(monkeypatch):
    monkeypatch.setattr(builder, "MOST_WRITTEN", 60)
    with pytest.raises(PlanError, match="takes more than 60 operations to write"):
        walked(mixed, 1000)
