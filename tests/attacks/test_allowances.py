"""What owners allow is counted and bounded whatever order, names and times a member's requests have."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from tercet import Allow
from tercet.client.under_way import Run
from tercet.errors import ConsentError, TercetError
from tercet.ml import LogisticRegression, computations
from tercet.ml.computations import NAME_BYTES, Naming
from tercet.ml.model_selection import cross_validate
from tercet.nodes import requests
from tests.attacks.lake import ROWS

COLUMNS = {
    "id": np.arange(ROWS),
    "age": np.linspace(20, 80, ROWS).round(2),
    "income": np.linspace(1, 9, ROWS)[::-1].round(3),
    "old": np.arange(ROWS) % 3 == 0,
}


async def upload(attacked, **allowed):
    """The hospital's table under some rules, as ann finds it."""
    allow = Allow(plans="any", **allowed)
    await attacked.hospital.upload(COLUMNS, name="ages", key="id", owner="hospital", min_count=5, allow=allow)
    return await attacked.ann.table("ages")


@pytest.fixture
def one_name(monkeypatch):
    """All computations that begin have one name."""
    name = bytes(range(NAME_BYTES))
    monkeypatch.setattr(Run, "of", classmethod(lambda cls, steps, _=None: cls(steps, Naming(name))))


async def at_once(calls):
    """What came of calls that were made at once: results, and errors."""
    results, errors = [], []

    async def one(call):
        try:
            results.append(await call())
        except TercetError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    return results, errors


def means(table, columns=("age",) * 6):
    return [lambda name=name: table.describe([name], statistics=["mean"]) for name in columns]


async def test_a_fitted_model_hides_no_column(attacked, monkeypatch):
    """Features that are left out are all columns, also where a model that was fitted on some comes along."""
    table = await upload(attacked, columns=["age", "old"])
    model = await LogisticRegression(max_iter=2, check=False).fit(table, "old", features=["age"])
    assert await cross_validate(model, table, "old", features=["age"], cv=2)
    for fresh, why in ((True, "uses 'income'"), (False, "takes the options of")):
        monkeypatch.setattr(
            computations,
            "encoded",
            lambda _, given, fresh=fresh: {
                name: computations.as_data(one, name, fresh=fresh) for name, one in given.items()
            },
        )
        for attempt in (lambda: cross_validate(model, table, "old", cv=2), lambda: model.fit(table, "old")):
            with pytest.raises(TercetError, match=why):
                await attempt()


async def test_computations_at_once_are_counted_one_by_one(attacked):
    table = await upload(attacked, uses=2)
    results, errors = await at_once(means(table))
    assert len(results) <= 2
    assert all("the owner allows 2" in str(error) or "allows 2" in str(error) for error in errors)
    with pytest.raises(ConsentError, match="has been used by 2 computations, and hospital allows 2"):
        await table.describe(["age"], statistics=["mean"])


@pytest.mark.usefixtures("one_name")
async def test_one_name_is_one_use_of_one_computation(attacked):
    """Also where other arguments come under it before the first has ended; then none of them need run."""
    table = await upload(attacked, uses=2)
    results, _ = await at_once(means(table, ("age", "income", "old")))
    assert len(results) <= 2


@pytest.mark.usefixtures("one_name")
async def test_the_same_again_is_another_use(attacked):
    """Folds are drawn anew each time, so whoever may ask once may not ask for ever."""
    table = await upload(attacked, uses=2)
    model = LogisticRegression(max_iter=2, check=False)
    again = [lambda: cross_validate(model, table, "old", features=["age"], cv=2)] * 4
    results, _ = await at_once(again)
    for call in again:
        found, _ = await at_once([call])
        results += found
    assert len(results) <= 2


async def test_so_many_quantiles_are_rows(attacked):
    table = await upload(attacked)
    assert (await table.describe(["age"], statistics=["25%", "50%", "75%"]))["age"]
    with pytest.raises(ConsentError, match="does not let single rows of table 'ages' be revealed"):
        await table.describe(["age"], statistics=[f"{percent}%" for percent in range(10, 90)])


async def test_one_row_is_no_figure_where_no_count_was_said(attacked):
    """A secret condition that one row fulfils leaves no figure, also on tables without a minimum count."""
    await attacked.hospital.upload(COLUMNS, name="ages", key="id", owner="hospital", allow=Allow(plans="any"))
    table = await attacked.ann.table("ages")
    assert table.min_count == 2
    oldest = await table.filter(table["age"] >= COLUMNS["age"][-1])
    figures = await oldest.describe(["income"], statistics=["mean", "std", "median", "max"])
    assert np.isnan(figures.to_frame().to_numpy(dtype=float)).all()
    two = await table.filter(table["age"] >= COLUMNS["age"][-2])
    figures = (await two.describe(["income"], statistics=["mean"])).to_frame()
    assert figures["income"]["mean"] == pytest.approx(COLUMNS["income"][-2:].mean(), abs=1e-3)


async def test_computations_that_nodes_have_forgotten_are_not_made_again(attacked, monkeypatch):
    """A member whose computations push out an earlier one has its name used no more."""
    table = await upload(attacked, uses=1)
    own = await attacked.ann.upload(COLUMNS, name="mine", key="id", owner="ann", min_count=5)
    names = [bytes([one]) * NAME_BYTES for one in (1, 2, 3, 4, 1)]
    monkeypatch.setattr(Run, "of", classmethod(lambda cls, steps, _=None: cls(steps, Naming(names.pop(0)))))
    monkeypatch.setattr(requests, "MOST_STEPS", 2)
    await table.describe(["age"], statistics=["mean"])
    for _ in range(3):
        await own.describe(["age"], statistics=["mean"])
    with pytest.raises(ConsentError, match="names are used once"):
        await table.describe(["age"], statistics=["mean"])
