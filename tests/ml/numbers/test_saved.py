"""Numbers that plans save for later ones: under every protocol, and what is known of them then."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, SchemaError, StorageError
from tercet.ml.numbers.saved import USUAL_BITS, SavedNumber, describe
from tercet.plans import Form, Type

PROTOCOLS = ("plain", "replicated", "shamir", "rep4", "additive")
ROWS = 120
RNG = np.random.default_rng(5)
A, B = RNG.normal(58, 12, ROWS), RNG.normal(2e6, 3e5, ROWS)
DATA = {"id": np.arange(ROWS), "a": A, "b": B, "e": RNG.uniform(4, 20, ROWS), "d": A > 60}
X = np.column_stack([A - A.mean(), (B - B.mean()) / 2e4])


def put(lake, name="t", **options):
    return lake.upload(DATA, name=name, key="id", owner="o", ranges={"e": (4, 20)}, **options)


def save(plan, table):
    """Numbers of every shape, some by row, and some that rest on bounds."""
    a, e, M = plan.column(table, "a"), plan.column(table, "e"), plan.matrix(table, ["a", "b"])
    M = (M - M.mean(axis=0)) / [1, 2e4]
    saved = {
        "scalar": a.mean(),
        "vector": plan.column_stack([a, e]).mean(axis=0),
        "gram": M.T @ M,
        "matrix": M[:, 0][:, None].T @ plan.column_stack([a, e, e]),
        "rows": M[:, 0],
        "turned": M.T[:1],
        "condition": a > 60,
        "count": (a > 60).sum(),
        "inside": e.within(4, 20.5).sum(),
        "outside": a.within(0, 60).mean(),
        "nothing": e.sum() * 0.0,
    }
    for name, number in saved.items():
        number.save(name)


@pytest.fixture(scope="module")
def plain():
    with tercet.local(protocol="plain") as lake:
        table = put(lake)
        with lake.plan("save") as plan:
            save(plan, table)
        yield lake


@pytest.fixture
def plan(plain):
    return plain.plan("later")


@pytest.mark.cases("replicated")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_saved_is_there_for_later_plans(protocol):
    old = A > 60
    with tercet.local(protocol=protocol) as lake:
        table = put(lake)
        with lake.plan("save") as plan:
            save(plan, table)
            plan.column(table, "a").sum().reveal("total")
        assert plan.revealed["total"] == pytest.approx(A.sum(), rel=1e-5)
        with lake.plan("load") as plan:
            names = ("scalar", "vector", "gram", "count", "matrix")
            one = {name: plan.load(lake.number(name)) for name in names}
            for name, number in one.items():
                number.reveal(name)
            plan.solve(one["gram"], one["gram"] @ [1.0, -2.0]).reveal("solved")
            rows, old_ones = plan.load(lake.number("rows")), plan.load(lake.number("condition")) > 0
            (rows * old_ones + (1 - old_ones)).sum().reveal("mixed")
            (rows @ (plan.column(table, "b") - 2e6)).reveal("beside")
            for name in ("inside", "outside", "nothing"):
                plan.load(lake.number(name)).reveal(name)
        found = plan.revealed
        wanted = {
            "scalar": A.mean(),
            "vector": [A.mean(), DATA["e"].mean()],
            "gram": X.T @ X,
            "count": old.sum(),
            "matrix": [X[:, 0] @ np.column_stack([A, DATA["e"], DATA["e"]])],
            "solved": [1.0, -2.0],
            "mixed": X[old, 0].sum() + (~old).sum(),
            "beside": X[:, 0] @ (B - 2e6),
            "inside": DATA["e"].sum(),
            "outside": np.nan,
            "nothing": 0,
        }
        for name, want in wanted.items():
            assert np.shape(found[name]) == np.shape(want)
            np.testing.assert_allclose(found[name], want, rtol=2e-3 if name == "solved" else 1e-4, atol=1e-5)


SHAPES = {
    "scalar": (), "vector": (2,), "gram": (2, 2), "matrix": (1, 3), "rows": (ROWS,), "turned": (1, ROWS),
    "condition": (ROWS,), "count": (), "nothing": (),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_bounds_come_back(plain, plan, name):
    found, loaded = plain.number(name), plan.load(plain.number(name))
    assert found.shape == loaded.shape == SHAPES[name]
    assert found.bounds == loaded.bounds
    assert loaded.error.max(initial=0) == 0


def test_what_is_known_of_a_number_holds_of_it(plain, plan):
    """Its bound is one, and it has the digits that its scale says."""
    gram, bound = plain.number("gram"), np.abs(X.T @ X).max()
    assert bound <= gram.bounds[1] <= 64 * bound
    usual = float(plan.load(gram).held.facts.usual.max())
    assert 2.0**-6 <= usual / bound <= 2.0**6
    assert gram.types[0].scale == USUAL_BITS - np.log2(usual)
    assert plain.number("condition").bounds == (-1, 1)
    assert plain.number("count").bounds == (-ROWS, ROWS)


def test_rows_stay_rows(plain):
    strict = put(plain, "strict", min_count=5)
    with plain.plan("save") as plan:
        plan.column(strict, "a").save("strict rows")
        plan.column(strict, "a")[3].save("strict row")
        plan.column(strict, "a").mean().save("strict mean")
    with plain.plan("load") as plan:
        for name in ("strict rows", "strict row"):
            with pytest.raises(SchemaError, match="rest on at least 5 rows, not rows"):
                plan.load(plain.number(name)).reveal("rows")
        plan.load(plain.number("strict rows")).mean().reveal("mean")
        plan.load(plain.number("strict mean")).reveal("same")
        with pytest.raises(SchemaError, match="and this one on 4"):
            plan.load(plain.number("strict rows"))[:4].mean().reveal("few")
    assert plan.revealed["mean"] == pytest.approx(plan.revealed["same"], rel=1e-5)
    plan = plain.plan("kinds")
    plan.load(plain.number("rows")).reveal("by row")
    plan.load(plain.number("gram")).reveal("figures")
    assert [one.kind for one in plan.plan().disclosures()] == ["rows", "figure"]


def test_a_name_is_the_latest_number_of_it(plain):
    table = put(plain, "again")
    saved = []
    for factor in (1.0, 3.0):
        with plain.plan("save") as plan:
            (plan.column(table, "a").mean() * factor).save("twice")
        saved.append(plain.number("twice"))
    with plain.plan("load") as plan:
        plan.load(plain.number("twice")).reveal("it")
    assert plan.revealed["it"] == pytest.approx(3 * A.mean(), rel=1e-5)
    with pytest.raises(PlanError, match="nothing is stored under"), plain.plan("gone") as plan:
        plan.load(saved[0]).reveal("it")
    plain.number("twice").drop()
    with pytest.raises(SchemaError, match=r"there is no number 'twice' in the lake"):
        plain.number("twice")


def test_nothing_is_kept_of_a_plan_that_does_not_run(plain):
    table = put(plain, "unkept")
    with pytest.raises(ZeroDivisionError), plain.plan("save") as plan:
        plan.column(table, "a").mean().save("unkept")
        raise ZeroDivisionError
    with pytest.raises(SchemaError, match="there is no number 'unkept'"):
        plain.number("unkept")


async def test_in_trio_programs():
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(DATA, name="t", key="id", owner="o")
        async with lake.plan("save") as plan:
            plan.column(table, "a").mean().save("mean")
        mean = await lake.number("mean")
        async with lake.plan("load") as plan:
            plan.load(mean).reveal("mean")
        assert plan.revealed["mean"] == pytest.approx(A.mean(), rel=1e-5)
        await mean.drop()
        with pytest.raises(SchemaError, match="no number 'mean'"):
            await lake.number("mean")


WRONG = {
    "a name of two": (lambda p, a: [a.sum().save("x") for _ in range(2)], "two numbers are saved as 'x'"),
    "no name": (lambda p, a: a.save("a/b"), "a name has letters"),
    "a number as name": (lambda p, a: a.save(3), "A number's name is 3"),
    "one reader as text": (lambda p, a: a.save("x", readers="ann"), "readers="),
    "no time": (lambda p, a: a.save("x", days=0), "days="),
    "a name to load": (lambda p, a: p.load("gram"), r"what lake\.number\(name\) gives, and not a str"),
    "unlike units": (lambda p, a: p.column_stack([a, a * 1e-9]).save("x"), "in units that are more alike"),
    "a job": (lambda p, a: (a.sum().save("x"), p.steps()), "have it run by its with block"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_at_its_line(plain, plan, what):
    write, match = WRONG[what]
    a = plan.column(put(plain, f"wrong {what}"), "a")
    with pytest.raises((PlanError, SchemaError), match=match):
        write(plan, a)


def test_numbers_of_another_lake_are_refused(plain, plan):
    with tercet.local(protocol="plain") as other:
        table = put(other)
        with other.plan("save") as saving:
            saving.column(table, "a").mean().save("scalar")
        with pytest.raises(SchemaError, match=r"number 'scalar' is of another lake; .* lake\.number"):
            plan.load(other.number("scalar"))


def test_computations_for_others_save_and_load_nothing(plain, declaring):
    @tercet.computation(discloses=["figure"])
    def saving(plan, table: tercet.Table, name: str):
        plan.column(table, "a").mean().save(name)

    with pytest.raises(PlanError, match="a computation for others saves no numbers by name"):
        saving(plain.table("t"), "mean")


@pytest.mark.parametrize(
    "types",
    [
        [],
        [Type(Form.BITS, (3,))],
        [Type(Form.RING, (3,), 0, 2.0**62)],
        [Type(Form.RING, (3,), 500, 1.0)],
        [Type(Form.RING, (2, 2, 2), 0, 1.0)],
        [Type(Form.RING, (0,), 0, 1.0)],
        [Type(Form.RING, (1,), 0, 1.0), Type(Form.RING, (1,), 0, 2.0)],
        [Type(Form.RING, (1,), 0, 1.0)] * 3,
    ],
)
def test_what_no_plan_of_numbers_saves_is_none(types):
    with pytest.raises(PlanError, match="is no number as plans of numbers save them"):
        describe(types, rows=False, least=1)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03"])
def test_no_other_description_is_read(body):
    with pytest.raises(StorageError, match="the description of number 'x' is malformed"):
        SavedNumber.of(None, "x", "ann", ["h"], body)
    with pytest.raises(StorageError, match="another number of values"):
        SavedNumber.of(None, "x", "ann", [], describe([Type(Form.RING, (1,), 0, 1.0)], rows=False, least=1))
