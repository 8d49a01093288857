"""Owners' minimum counts against a member whose client does not heed check bits.

A bit tells her that too few rows count. She goes on as if they were enough: has later steps made with that
bit as she likes it, refers to what was stored, and has it revealed. What she gets are numbers that no row has
any part in.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import ConsentError, TercetError, UndefinedMetricWarning
from tercet.ml import (
    GridSearch,
    LogisticRegression,
    MeanImputer,
    MinMaxScaler,
    StandardScaler,
    cross_validate,
)
from tercet.ml.computations import Computed
from tercet.ml.declarations import DECLARED
from tercet.ml.fitting import MOVING
from tercet.ml.inference import INEXACT, LOOSE
from tercet.ml.key_groups import NOISY_ROWS
from tests.attacks.lake import heedless

ROWS, LEAST, FEW = 60, 10, 4
SCALES = dict.fromkeys("xwhv", 14)
MORE = {MOVING: np.ones, INEXACT: np.ones, LOOSE: lambda shape: np.arange(*shape) == 0.0}
"""What she says of some bits where not all are zero: that there is more to do."""


def columns(seed, few=FEW):
    """Rows of which `few` are flagged, have a value in `h`, and a weight above zero in `v`."""
    rng = np.random.default_rng(seed)
    x, w, h = rng.normal(size=(3, ROWS))
    flags = np.isin(np.arange(ROWS), rng.permutation(ROWS)[:few])
    return {
        "id": np.arange(ROWS),
        "x": x,
        "w": np.abs(w) + 0.5,
        "h": [float(one) if flag else None for one, flag in zip(h, flags, strict=True)],
        "y": (x + rng.normal(size=ROWS) > 0).astype(int),
        "c": rng.integers(0, 3, ROWS),
        "f": flags.astype(int),
        "v": np.where(flags, np.abs(w) + 0.5, 0.0),
    }


def put(lake, data, name, **more):
    given = {"missing": "indicator", "ranges": {"c": (0, 2)}, "scales": SCALES, "key": "id", **more}
    return lake.upload(data, name=name, **given)


# -- every computation ---------------------------------------------------------------------------------------


class Asker:
    """Ann asks for what can be asked of tables; what fails at her client has been told before."""

    def __init__(self, lake, seed, lies):
        self.lake = lake
        self.table = put(lake, columns(seed), "theirs", owner="hospital", min_count=LEAST)
        self.mine = put(lake, columns(99, few=ROWS // 2), "mine", owner="ann")
        ids = np.arange(ROWS)
        self.other = lake.upload({"id": ids[::-1], "o": ids}, name="other", key="id", owner="ann")
        self.model = LogisticRegression(max_iter=3).fit(self.mine, "y", features=["x", "w"])
        self.few = self.table.filter(self.table["f"])
        self.told = heedless(lake, lies)

    def ask(self, call):
        with contextlib.suppress(TercetError):
            return call()
        return None

    def filters(self):
        table, few = self.table, self.few
        for condition in (table["f"], ~table["f"]):
            self.ask(lambda condition=condition: table.filter(condition, compact=True))
        self.ask(lambda: few.filter(few["x"] > 0, compact=True))
        self.ask(lambda: table.dropna("h", compact=True))

    def learning(self):
        for transformer, of in (
            (StandardScaler(["x", "w"]), self.few),
            (MinMaxScaler(["x", "w"]), self.few),
            (MeanImputer("h"), self.table),
            (MeanImputer("h"), self.few),
        ):
            made = self.ask(lambda one=transformer, of=of: one.fit(of).transform(self.mine))
            if isinstance(transformer, StandardScaler):
                self.ask(transformer.reveal)
            if made is not None:
                made.describe([*transformer.names_], statistics=["mean", "std", "min", "max"])

    def statistics(self):
        few, table = self.few, self.table
        for one, names in ((few, ["x", "w"]), (table, ["h", "x"])):
            self.ask(lambda one=one, names=names: one.corr(names))
        for statistics in (["counts"], ["chi2"]):
            self.ask(lambda statistics=statistics: few.crosstab("c", "y", statistics=statistics))
        self.ask(lambda: few.describe(["x", "y", "c"]))
        self.ask(lambda: few.groupby("c").agg({"x": ["mean", "std", "max"], "h": "count"}))
        self.ask(lambda: few.value_counts("y"))
        self.ask(lambda: table.describe(["h"]))

    def evaluations(self):
        evaluation = self.model.evaluate(self.few)
        self.ask(evaluation.reveal)
        self.ask(lambda: evaluation.roc_curve(points=4))
        self.ask(lambda: evaluation.calibration(bins=2))
        self.ask(lambda: self.model.score(self.few))

    def made_of_others(self):
        """Too few by two filters, in a part, in a join, after other columns were made, without gaps."""
        table, few = self.table, self.few
        for some in (
            table.filter(table["x"] > -9).filter(table["f"]),
            few.split(test_size=0.5)[0],
            few.split(test_size=0.5, stratify="y")[1],
            self.other.join(few, on="id"),
            tercet.concat(few.split(test_size=0.5)),
            few.assign(z=few["x"] * few["w"] * few["w"]),
            StandardScaler("x").fit(self.mine).transform(few),
            table.dropna("h"),
        ):
            self.ask(lambda some=some: some.describe(["x", "y"], statistics=["mean", "50%"]))
            model = LogisticRegression(max_iter=2)
            self.ask(lambda some=some, model=model: model.fit(some, "y", features=["x", "w"]).reveal())

        of_keys = {"x": ["max", "sum"], "w": "mean", "y": "first"}
        for sizes in ("noisy", "hidden"):
            made = few.groupby("id").to_table(of_keys, sizes=sizes)
            self.ask(
                lambda made=made: made.describe(["x_max", "x_sum", "w_mean"], statistics=["mean", "50%"])
            )
            self.ask(lambda made=made: made.value_counts("y_first"))
        self.ask(lambda: few.groupby("id").to_table(of_keys).describe("x_max"))

    def fits(self):
        for options in (
            {},
            {"penalty": None},
            {"tol": 1e-3},
            {"check": False, "fit_intercept": False},
            {"class_weight": "balanced"},
            {"solver": "gd", "momentum": 0.5},
        ):
            self._fit(self.few, LogisticRegression(max_iter=3, **options))
        self._fit(self.few, LogisticRegression(max_iter=7))
        self._fit(self.few, LogisticRegression(max_iter=3), features=["x"], offset="w")

    def weighted_fits(self):
        for weight, options in (
            ("v", {}),
            ("v", {"class_weight": "balanced"}),
            ("v", {"penalty": None}),
            ("f", {}),
            ("f", {"solver": "gd"}),
        ):
            self._fit(self.table, LogisticRegression(max_iter=3, **options), sample_weight=weight)

    def _fit(self, table, model, **more):
        options = {"target": "y", "features": ["x", "w"], **more}
        if self.ask(lambda: model.fit(table, **options)) is not None:
            self.ask(model.reveal)
            self.ask(model.summary)

    def models(self):
        """What can be done with a model of too few rows, and of hers on them."""
        options = {"target": "y", "features": ["x", "w"]}
        job = LogisticRegression(max_iter=3)
        job.collect(job.submit(self.few, **options), self.few, **options)
        job.predict_proba(self.mine).reveal()
        (owner,) = self.mine.key_holders
        job.predict_proba(self.mine).reveal_keyed(to=owner)
        job.evaluate(self.mine, metrics=["roc_auc", "log_loss"]).reveal()
        self.model.save("hers")
        self.ask(lambda: self.lake.model("hers").summary(self.few))
        self.ask(lambda: self.lake.model("hers").predict(self.few))

    def searches(self):
        options = {"target": "y", "features": ["x"], "cv": 2}
        scores = ["accuracy", "roc_auc", "log_loss"]
        model = LogisticRegression(max_iter=2)
        self.ask(lambda: cross_validate(model, self.few, scoring=scores, **options))
        self.ask(lambda: GridSearch(model, C=[1.0, 2.0], cv=2).fit(self.few, "y", features="x"))


PARTS = {
    Asker.filters: {"filter", "dropna"},
    Asker.learning: {"learn", "transform", "reveal_scaler", "describe"},
    Asker.statistics: {"describe", "crosstab", "corr", "groupby"},
    Asker.evaluations: {"evaluate", "metrics", "roc_curve", "calibration", "score"},
    Asker.made_of_others: {
        "split",
        "join",
        "concat",
        "group_rows",
        "assign",
        "filter",
        "dropna",
        "fit",
        "reveal_model",
    },
    Asker.fits: {"fit", "summary", "reveal_model"},
    Asker.weighted_fits: {"fit", "summary", "reveal_model"},
    Asker.models: {
        "fit_alone",
        "summary_of_model",
        "predict",
        "reveal_column",
        "reveal_keyed",
        "evaluate",
        "metrics",
    },
    Asker.searches: {"cross_validate", "grid_search"},
}
"""What she asks for, and the computations that these are."""
NOBODY = {"reveal_rows"}
"""Computations that are refused for every table with a minimum count."""


def test_every_computation_is_asked_for():
    assert set.union(*PARTS.values()) | NOBODY == DECLARED.keys()


def asked_of(seed, part, lies):
    """What the nodes tell, plan by plan, but for numbers with noise; and which computations these were of."""
    names = set()
    send = Computed.send

    def noting(self, value):
        names.add(self.known.name)
        return send(self, value)

    with pytest.MonkeyPatch.context() as patch, tercet.local(protocol="plain") as lake:
        asker = Asker(lake, seed, lies)
        patch.setattr(Computed, "send", noting)
        part(asker)
        return [
            (one.revealed, {name: rows for name, rows in one.symbols.items() if name != NOISY_ROWS})
            for one in asker.told
        ], names


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # her client divides by zeros
@pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::tercet.errors.UndefinedMetricWarning")
@pytest.mark.parametrize(
    ("part", "lies"),
    [*((part, {}) for part in PARTS), (Asker.fits, MORE), (Asker.weighted_fits, MORE), (Asker.models, MORE)],
)
def test_of_too_few_rows_nothing_is_told(part, lies):
    """Of tables with other rows, the same: figures, models, bits and counts, whatever she says of bits."""
    (told, names), (again, _) = (asked_of(seed, part, lies) for seed in (1, 2))
    assert names >= PARTS[part]
    assert sum(len(revealed) for revealed, _ in told) > 3
    assert len(told) == len(again)
    for (revealed, symbols), (other, others) in zip(told, again, strict=True):
        assert symbols == others
        assert revealed.keys() == other.keys()
        for name, numbers in revealed.items():
            np.testing.assert_array_equal(numbers, other[name], err_msg=name)


# -- on real nodes -------------------------------------------------------------------------------------------


@pytest.fixture
async def theirs(attacked):
    """The hospital's table, of which ann may ask for any computation over ten rows or more."""
    rng = np.random.default_rng(3)
    ages, sick = rng.normal(50, 10, ROWS).round(2), np.arange(ROWS) % 10 == 0
    gaps = [None if place % 15 else float(age) for place, age in enumerate(ages)]
    data = {"id": np.arange(ROWS), "age": ages, "gap": gaps, "odd": np.arange(ROWS) % 2, "sick": sick}
    options = {"missing": "indicator", "min_count": LEAST, "allow": Allow(plans="any")}
    await attacked.hospital.upload(data, name="theirs", key="id", owner="hospital", **options)
    return await attacked.ann.table("theirs")


@pytest.fixture
async def hers(attacked):
    """A table of ann's own, with columns like those of the hospital's."""
    rng = np.random.default_rng(4)
    ages = rng.normal(50, 10, ROWS).round(2)
    gaps = [None if place % 2 else float(age) for place, age in enumerate(ages)]
    data = {"id": np.arange(ROWS), "age": ages, "gap": gaps}
    options = {"missing": "indicator", "allow": Allow(plans="any")}
    return await attacked.ann.upload(data, name="hers", key="id", owner="ann", **options)


async def test_what_was_learned_from_too_few_rows_is_nothing(attacked, theirs, hers):
    """Neither what a scaler tells, nor what it makes of rows that she knows."""
    few = await theirs.filter(theirs["age"] > 68)
    told = heedless(attacked.ann)
    scaler = await StandardScaler("age").fit(few)
    assert told[-1].revealed == {"whether a transformer learned from fewer rows than owners allow": 1.0}
    revealed = await scaler.reveal()
    assert (revealed.mean_, revealed.scale_) == (0, 1)
    ends = await MinMaxScaler("age").fit(few)
    await (await ends.transform(hers)).describe(["age"], statistics=["min", "max"])
    assert (told[-1].revealed["quantiles of 'age' on 'hers'"] == 0).all()
    imputer = await MeanImputer("gap").fit(theirs)
    await (await imputer.transform(hers)).describe(["gap"], statistics=["min"])
    assert (told[-1].revealed["quantiles of 'gap' on 'hers'"] == 0).all()


async def test_a_model_of_too_few_rows_is_that_of_none(attacked, theirs, hers):
    few = await theirs.filter(theirs["age"] > 60)
    told = heedless(attacked.ann)
    model = await LogisticRegression().fit(few, "odd", features=["age"])
    assert told[-1].revealed["whether a fit rests on fewer rows than its owners allow"] == 1.0
    assert abs((await model.reveal()).coef_[0, 0]) < 1e-3
    risks = await (await model.predict_proba(hers)).reveal()
    assert np.ptp(risks) < 1e-3, "none of hers has another risk than the others"


async def test_scores_of_too_few_rows_are_none(attacked, theirs):
    """An area over six rows of an outcome, three in each fold; it is undefined, as if there were none."""
    told = heedless(attacked.ann)
    options = {"features": ["age"], "cv": 2, "scoring": ["roc_auc", "accuracy"]}
    with pytest.warns(UndefinedMetricWarning, match="fold 1, 2"):
        scores = await cross_validate(LogisticRegression(max_iter=4), theirs, "sick", **options)
    assert np.isnan(scores["roc_auc"]).all()
    assert (told[-1].revealed["roc_auc of each fold"] == -4).all()
    assert (scores["accuracy"] > 0.8).all()


async def test_a_filter_does_not_tell_how_few_it_keeps(attacked, theirs):
    """Nodes open zeros, and tell her that it is too few or too many."""
    told = heedless(attacked.ann)
    for condition in (theirs["sick"], ~theirs["sick"]):
        with pytest.raises(ConsentError, match="hospital lets figures of 'theirs' rest on no fewer than 10"):
            await theirs.filter(condition, compact=True)
        assert told[-1].revealed == {
            "whether a filter keeps or drops fewer rows than owners allow to tell": 1
        }
