"""The plans of `docs/plans.md`, under every protocol, beside NumPy; and how many rounds they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tercet
from tercet.actors.estimate import explain

PAGE = Path(__file__).parents[3] / "docs" / "plans.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PLANS = [block for block in BLOCKS if "with lake.plan" in block][:5]
QUOTIENTS = [
    block for block in BLOCKS if re.search('plan\\("(correlation|chi-square|ridge regression)"', block)
]


def run(protocol, monkeypatch, plans=PLANS):
    """What plans of the page reveal under a protocol, by name, and what they were made of."""
    local, names, found = tercet.local, dict[str, Any](), {}
    monkeypatch.setattr(tercet, "local", lambda: local(protocol=protocol))
    exec(BLOCKS[0], names)
    given = dict(names)
    for block in plans:
        lines = [one for one in block.splitlines() if not one.startswith(("print", "model"))]
        exec("\n".join(lines), names)
        found |= names["plan"].revealed
    names["lake"].close()
    return found, given


def logistic(X, y, w):
    p = 1 / (1 + np.exp(-X @ w))
    return w + np.linalg.solve((X.T * (p * (1 - p))) @ X, X.T @ (y - p))


@pytest.mark.cases("replicated")
@pytest.mark.parametrize("protocol", ["plain", "replicated", "shamir", "rep4", "additive"])
def test_the_plans_of_the_page(protocol, monkeypatch):
    """To 1e-4 of them. Truncations are rounded at random: over 64 runs under four protocols results were off
    by at most 0.11 of that, with standard deviations of at most 0.06 of it, so that a false alarm is less
    likely than 1e-6. What is proved of them in the worst case is far wider.
    """
    found, names = run(protocol, monkeypatch)
    age, bmi, ill = (names[name][40:] for name in ("age", "bmi", "ill"))
    X = np.column_stack([age - age.mean(), bmi - bmi.mean(), np.ones(len(age))])
    gradient = X.T @ (ill - 0.5)
    near = np.argsort((age - 61) ** 2 + (bmi - 29) ** 2)[:9]
    wanted = {
        "covariance": np.cov(age, bmi, bias=True)[0, 1],
        "patients of both": 360,
        "gradient step": gradient * 1e-6,
        "Newton": logistic(X, ill, logistic(X, ill, np.zeros(3))),
        "winner": 6,
        "price": 120,
        "share of the nine nearest who are ill": ill[near].mean(),
    }
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-9, err_msg=name)


@pytest.mark.cases("rep4")
@pytest.mark.parametrize("protocol", ["plain", "replicated", "shamir", "rep4", "additive"])
def test_the_quotients_of_the_page(protocol, monkeypatch):
    """To 1e-5 of them, since columns are rounded to 16 bits of their spread; predictions are cut to fewer."""
    assert len(QUOTIENTS) == 3
    assert all(len(block.partition("\n\n")[0].splitlines()) <= 12 for block in QUOTIENTS)
    found, names = run(protocol, monkeypatch, QUOTIENTS)
    age, bmi, ill = (names[name][40:] for name in ("age", "bmi", "ill"))
    heavy = bmi > 26
    counts = np.array([[np.sum(a & b) for b in (ill, ~ill)] for a in (heavy, ~heavy)])
    expected = np.outer(counts.sum(1), counts.sum(0)) / len(ill)
    X = np.column_stack([age, bmi])
    X, y = X - X.mean(axis=0), ill - ill.mean()
    w = np.linalg.solve(X.T @ X + 10 * np.eye(2), X.T @ y)
    wanted = {
        "correlation": np.corrcoef(age, bmi)[0, 1],
        "chi-square": ((counts - expected) ** 2 / expected).sum(),
        "coefficients": w,
        "explained": 1 - (y - X @ w).var() / y.var(),
    }
    for name, want in wanted.items():
        rtol = 1e-3 if name == "explained" else 1e-5
        np.testing.assert_allclose(found[name], want, rtol=rtol, err_msg=name)


def test_the_plans_are_short_and_say_no_scale_or_bound():
    assert len(PLANS) == 5
    for block in PLANS:
        body = block.partition("with lake.plan")[2].split("\n\n")[0].splitlines()
        assert len(body) <= 12
        assert not re.search(r"scale|within|bound|handle|magnitude", block)


@pytest.fixture(scope="module")
def rounds():
    """Rounds of the plans of the page and of what `ml` has by hand, under three protocols."""
    lake, names = tercet.local(protocol="plain"), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch, lake:
        patch.setattr(tercet, "local", lambda: lake)
        exec(BLOCKS[0], names)
        plans = []
        lake.on_result = lambda plan, _: plans.append(plan)
        of_conditions = QUOTIENTS[1].replace('plan.column(both, "bmi") > 26', 'plan.column(both, "ill")')
        for block in (PLANS[0], QUOTIENTS[0], of_conditions):
            exec(block, names)
        names["both"].corr(["age", "bmi"])
        flags = np.random.default_rng(0).random((2, 360)) < 0.5
        table = lake.upload({"id": range(360), "a": flags[0], "b": flags[1]}, name="t", key="id", owner="o")
        table.crosstab("a", "b", statistics=["chi2"])
    counts = [[explain(one, name).rounds for name in ("replicated", "shamir", "rep4")] for one in plans]
    return dict(zip(["covariance", "correlation", "chi-square", "corr", "crosstab"], counts, strict=True))


@pytest.mark.parametrize(("plan", "by_hand"), [("correlation", "corr"), ("chi-square", "crosstab")])
def test_plans_of_numbers_take_no_more_rounds_than_those_by_hand(rounds, plan, by_hand):
    """Bounds of the page's plans are checked; those by hand go by what is checked at upload."""
    assert all(ours <= theirs for ours, theirs in zip(rounds[plan], rounds[by_hand], strict=True))


def test_a_covariance_of_few_rows_takes_the_round_of_its_product(rounds):
    assert rounds["covariance"] == [1, 1, 1]


def test_a_covariance_of_many_columns_and_rows_takes_few_rounds():
    rng = np.random.default_rng(0)
    with tercet.local(protocol="plain") as lake:
        table = lake.upload({"id": range(2000), "a": rng.normal(size=2000), "b": rng.normal(size=2000)},
                            name="t", key="id", owner="o")  # fmt: skip
        plan = lake.plan("covariance")
        X = plan.matrix(table)
        X = X - X.mean(axis=0)
        (X.T @ X / len(X)).reveal("covariance")
        assert explain(plan.plan(), "replicated").rounds <= 3
