"""Weighted fits, offsets, no intercept, against statsmodels and scikit-learn."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression as Clear

from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, cross_validate

pytestmark = pytest.mark.cases


@pytest.fixture
def put_with(lake, put):
    """Upload a data set with more columns, given by name."""

    def upload(source, **more):
        names = (*source.names, *more)
        types = {name: "boolean" for name, column in more.items() if column.dtype == bool}
        return put(type(source)(np.column_stack([source.X, *more.values()]), source.y, names), types=types)

    return upload


@pytest.fixture
def columns_of(lake):
    """Upload columns by name."""

    def upload(**columns):
        columns["id"] = np.arange(len(columns["x"]))
        return lake.upload(columns, name="table", key="id", owner="owner")

    return upload


def glm(X, y, *, weights=None, offset=None, intercept=True):
    """statsmodels' fit: parameters with the intercept's last, and their standard errors."""
    columns = np.column_stack([X, np.ones(len(X))]) if intercept else X
    fit = sm.GLM(y, columns, family=sm.families.Binomial(), freq_weights=weights, offset=offset).fit(
        tol=1e-12
    )
    return fit.params, fit.bse


def check(model, X, expected, errors, most=0.003):
    """Compare in standard errors."""
    found = model.reveal()
    count = X.shape[1]
    distances = np.abs(found.coef_[0] - expected[:count]) / errors[:count]
    assert distances.max() < most
    if len(expected) > count:
        assert abs(found.intercept_[0] - expected[-1]) / errors[-1] < most
    else:
        assert found.intercept_[0] == 0.0


KINDS = {
    "counts": lambda generator, rows: generator.integers(0, 6, rows),
    "inverse probabilities": lambda generator, rows: 1 / generator.uniform(0.02, 1, rows),
    "tiny": lambda generator, rows: generator.gamma(2.0, 1e-6, rows),
    "some": lambda generator, rows: generator.random(rows) < 0.2,
    "few": lambda generator, rows: generator.permutation(rows) < 40,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["fair", "star98"])
def test_sample_weights(lake, put_with, data, name, kind):
    source = data(name)
    weights = KINDS[kind](np.random.default_rng(8), len(source.y))
    X = source.X if kind != "few" else source.X[:, :2]
    source = type(source)(X, source.y, source.names[: X.shape[1]])
    table = put_with(source, w=weights)
    lake.disclosed.clear()
    model = LogisticRegression(penalty=None).fit(table, target="y", sample_weight="w")
    told = [item.what for item in lake.disclosed]
    assert ("whether a weight is negative or too large" in told) == (kind not in ("some", "few"))
    assert len(set(told)) == (5 if kind not in ("some", "few") else 4)
    assert tuple(model.feature_names_in_) == source.names
    check(model, X, *glm(X, source.y, weights=weights.astype(float)))


@pytest.mark.parametrize("kind", ["counts", "tiny", "some"])
def test_a_penalty_beside_weights(put_with, data, kind):
    """The penalty is on coefficients as they are, beside the sum of weighted losses, as in scikit-learn."""
    source = data("star98")
    weights = KINDS[kind](np.random.default_rng(9), len(source.y))
    C = 0.5 / weights.mean()
    clear = Clear(C=C, solver="newton-cholesky", tol=1e-12)
    scaled = source.X - source.X.mean(0)
    clear.fit(scaled, source.y, sample_weight=weights.astype(float))
    expected = np.append(clear.coef_[0], clear.intercept_[0] - clear.coef_[0] @ source.X.mean(0))
    model = LogisticRegression(C=C).fit(put_with(source, w=weights), target="y", sample_weight="w")
    check(model, source.X, expected, glm(source.X, source.y, weights=weights.astype(float))[1])


@pytest.mark.parametrize("kind", [None, "counts", "some"])
@pytest.mark.parametrize("name", ["fair", "1 in 100"])
def test_balanced_classes(put_with, data, name, kind):
    source = data(name)
    weights = np.ones(len(source.y))
    if kind is not None:
        weights = KINDS[kind](np.random.default_rng(10), len(source.y))
    table = put_with(source, w=weights) if kind else put_with(source)
    model = LogisticRegression(penalty=None, class_weight="balanced")
    model.fit(table, target="y", sample_weight="w" if kind else None)
    share = np.average(source.y, weights=weights)
    balanced = weights * np.where(source.y == 1, 0.5 / share, 0.5 / (1 - share))
    check(model, source.X, *glm(source.X, source.y, weights=balanced))


@pytest.mark.parametrize(("mean", "spread"), [(-1, 1), (-6, 0.5), (5, 3)])
def test_an_offset(lake, put_with, data, mean, spread):
    """Also a large one, such as the logarithm of an exposure."""
    source = data("fair")
    generator = np.random.default_rng(11)
    offset = generator.normal(mean, spread, len(source.y))
    z = (source.X - source.X.mean(0)) @ [0.3, -0.4, 0.01, 0.2, -0.3, 0.1, 0.2, 0.1] + offset - 0.4 * mean
    y = (generator.random(len(z)) < 1 / (1 + np.exp(-z))).astype(int)
    table = put_with(type(source)(source.X, y, source.names), o=offset)
    model = LogisticRegression(penalty=None).fit(table, target="y", offset="o")
    assert model.converged_
    params, errors = glm(source.X, y, offset=offset)
    check(model, source.X, params, errors)
    z = source.X @ params[:-1] + params[-1] + offset
    np.testing.assert_allclose(model.decision_function(table).reveal(), z, atol=3e-3)


@pytest.mark.parametrize("name", ["fair", "star98"])
def test_no_intercept(put_with, data, name):
    source = data(name)
    weights = KINDS["counts"](np.random.default_rng(12), len(source.y)).astype(float)
    plain, weighted = (LogisticRegression(penalty=None, fit_intercept=False) for _ in range(2))
    table = put_with(source, w=weights)
    check(plain.fit(table, "y", features=source.names), source.X, *glm(source.X, source.y, intercept=False))
    weighted.fit(table, target="y", sample_weight="w")
    check(weighted, source.X, *glm(source.X, source.y, weights=weights, intercept=False))


def test_rows_without_weight_do_not_matter(put_with, data):
    """Not even where they would be far out of range."""
    source = data("star98")
    generator = np.random.default_rng(13)
    X = np.concatenate([source.X, 50 * generator.normal(size=(50, source.X.shape[1]))])
    y = np.concatenate([source.y, generator.integers(0, 2, 50)])
    kept = np.arange(len(y)) < len(source.y)
    table = put_with(type(source)(X, y, source.names), kept=kept)
    model = LogisticRegression(penalty=None).fit(table, target="y", sample_weight="kept")
    check(model, source.X, *glm(source.X, source.y), most=0.01)


def test_rows_that_a_filter_drops(lake, put, data):
    """As if they were not there, and nobody learns how many there are."""
    source = data("fair")
    table = put(source)
    old = table.filter(table["x2"] > 7)
    kept = source.X[:, 2] > 7
    lake.disclosed.clear()
    model = LogisticRegression(penalty=None).fit(old, target="y")
    assert len(lake.disclosed) == 4
    X, y = source.X[kept], source.y[kept]
    params, errors = glm(X, y)
    check(model, X, params, errors)
    found = model.summary(["se", "nobs"])
    np.testing.assert_allclose(found.bse, errors, rtol=1e-3)
    np.testing.assert_allclose(found.nobs, kept.sum(), rtol=1e-4)


def test_too_few_rows_for_their_owner(lake, put, data):
    source = data("star98")
    table = put(source, min_count=40)
    few, more = (table.filter(table["x0"] > cut) for cut in np.sort(source.X[:, 0])[[-21, -101]])
    lake.disclosed.clear()
    with pytest.raises(SchemaError, match="fewer than 40 rows count, and their owners do not allow"):
        LogisticRegression().fit(few, target="y", features=["x1", "x2"])
    assert lake.disclosed[0].what == "whether a fit rests on fewer rows than its owners allow"
    assert LogisticRegression().fit(more, target="y", features=["x1", "x2"]).converged_
    with pytest.raises(SchemaError, match="fewer than 40 rows count"):
        LogisticRegression().fit(put(source, slice(0, 30), min_count=40), target="y")


def test_descent_drops_rows(put_with, data):
    source = data("star98")
    X = (source.X - source.X.mean(0)) / source.X.std(0)
    source = type(source)(X, source.y, source.names)
    kept = np.random.default_rng(14).random(len(source.y)) < 0.6
    share = kept.mean()
    model = LogisticRegression(solver="gd", max_iter=20, penalty=None)
    found = model.fit(put_with(source, kept=kept), target="y", sample_weight="kept").reveal()
    some = put_with(type(source)(X[kept], source.y[kept], source.names))
    slower = LogisticRegression(solver="gd", max_iter=20, penalty=None, learning_rate=share)
    np.testing.assert_allclose(found.coef_[0], slower.fit(some, target="y").reveal().coef_[0], atol=5e-4)


def test_what_cannot_be(put_with, data):
    source = data("star98")
    rows = len(source.y)
    table = put_with(
        source,
        negative=np.where(np.arange(rows) == 3, -1.0, 1.0),
        huge=np.where(np.arange(rows) == 3, 1e6, 1.0) + np.linspace(0, 0.1, rows),
        first=source.y == 1,
        nothing=np.zeros(rows),
    )
    with pytest.raises(SchemaError, match="'negative': some weight is negative"):
        LogisticRegression().fit(table, "y", features=source.names, sample_weight="negative")
    for weights in ("first", "nothing"):
        with pytest.raises(SchemaError, match=f"{weights}': no rows with different outcomes of 'y'"):
            LogisticRegression().fit(table, "y", features=source.names, sample_weight=weights)
    with pytest.raises(SchemaError, match="'x0' is named in offset= and cannot be a feature"):
        LogisticRegression().fit(table, "y", features=source.names, offset="x0")
    with pytest.raises(PlanError, match="solver='gd' takes no weights but zeros and ones"):
        LogisticRegression(solver="gd").fit(table, "y", features=source.names, sample_weight="negative")
    with pytest.raises(PlanError, match="class_weight='equal'"):
        LogisticRegression(class_weight="equal").fit(table, "y")


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (lambda x: x, "some weight is negative"),  # of mean about zero
        (lambda x: -np.abs(x) - 1, "some weight is negative"),
        (lambda x: np.where(np.arange(len(x)) == 1, -1e-3, 1.0), "some weight is negative"),
        (lambda x: np.where(np.arange(len(x)) == 0, 1e6, 1.0), "too small beside .* in steps of 2"),
        (lambda x: 0 * x, "no rows with different outcomes of 'y' have a weight"),
        (lambda x: 1e-9 * (np.arange(len(x)) == 7), "no rows with different outcomes"),
    ],
)
@pytest.mark.parametrize("model", [{"penalty": None}, {"class_weight": "balanced"}])
def test_weights_out_of_range_are_told_before_outcomes(columns_of, weights, told, model):
    """Though what is left of them has one outcome, or none."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=200)
    table = columns_of(x=x, y=np.arange(200) % 2, w=weights(x))
    with pytest.raises(SchemaError, match=f"sample_weight 'w': .*{told}"):
        LogisticRegression(**model).fit(table, "y", sample_weight="w")


@pytest.mark.parametrize("outcomes", [np.arange(80) % 2, np.ones(80, dtype=int)])
@pytest.mark.parametrize("far", [2000.0, -1e5])
def test_offsets_out_of_range_are_told_before_outcomes(lake, columns_of, outcomes, far):
    offset = np.where(np.arange(80) == 5, far, 0.5)
    table = columns_of(x=np.random.default_rng(4).normal(size=80), y=outcomes, o=offset)
    lake.phases.clear()
    with pytest.raises(SchemaError, match="offset 'o': some value is beyond 1024"):
        LogisticRegression().fit(table, "y", offset="o")
    assert len(lake.phases) == 1
    with pytest.raises(SchemaError, match="offset 'o' is beyond 1024"):
        cross_validate(LogisticRegression(max_iter=2), table, "y", cv=2, offset="o", stratify=False)
