"""StandardScaler against scikit-learn's, and models on top of it."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler as Clear

from tercet.ml import StandardScaler

pytestmark = pytest.mark.cases


@pytest.mark.parametrize("name", ["breast cancer", "fair", "star98"])
def test_means_deviations_and_columns(put, data, name):
    source = data(name)
    half = len(source.y) // 2
    train = put(source, slice(half))
    test = put(source, slice(half, None))
    scaler = StandardScaler().fit(train)
    clear = Clear().fit(source.X[:half])
    learned = scaler.reveal()
    assert learned.names_ == source.names == scaler.names_
    np.testing.assert_allclose((learned.mean_ - clear.mean_) / clear.scale_, 0, atol=1e-4)
    np.testing.assert_allclose(learned.scale_, clear.scale_, rtol=1e-4)
    for table, rows in ((train, slice(half)), (test, slice(half, None))):
        scaled = scaler.transform(table)
        assert scaled.column_names == table.column_names
        assert len(scaled) == len(table)
        found = scaled.reveal()
        expected = clear.transform(source.X[rows])
        for place, column in enumerate(source.names):
            np.testing.assert_allclose(found[column], expected[:, place], atol=1e-3, rtol=1e-4)
        np.testing.assert_array_equal(found["y"], source.y[rows])


def test_columns_of_wildly_different_scale(put, data):
    generator = np.random.default_rng(3)
    units = 10.0 ** np.arange(-6, 10, 3)
    X = generator.normal(2, 1, size=(500, len(units))) * units
    source = type(data("fair"))(X, np.arange(500) % 2, tuple(f"x{place}" for place in range(len(units))))
    learned = StandardScaler().fit(put(source)).reveal()
    np.testing.assert_allclose(learned.mean_ / X.mean(0), 1, atol=1e-4)
    np.testing.assert_allclose(learned.scale_ / X.std(0), 1, atol=1e-4)


def test_columns_that_do_not_vary(put, data):
    columns = np.column_stack([np.full(60, 3.7), np.zeros(60), np.arange(60)])
    source = type(data("fair"))(columns, np.arange(60) % 2, ("same", "nothing", "grows"))
    scaler = StandardScaler()
    scaled = scaler.fit_transform(put(source, types=dict.fromkeys(source.names, "real"))).reveal()
    learned = scaler.reveal()
    np.testing.assert_allclose(learned.mean_, [3.7, 0, 29.5], rtol=1e-4)
    np.testing.assert_allclose(learned.scale_, [1, 1, columns[:, 2].std()], rtol=1e-4)
    assert not scaled["same"].any()
    assert not scaled["nothing"].any()
    assert abs(scaled["grows"].std() - 1) < 1e-4


def test_only_some_columns(put, data, lake):
    generator = np.random.default_rng(8)
    columns = np.column_stack(
        [generator.random(80) < 0.3, generator.poisson(4, 80), generator.normal(size=80)]
    )
    source = type(data("fair"))(columns, np.arange(80) % 2, ("flag", "count", "real"))
    table = put(source, types={"flag": "boolean", "count": "integer"})
    lake.disclosed.clear()
    whole = StandardScaler().fit_transform(table)
    one = StandardScaler(columns="flag").fit_transform(whole)
    assert lake.disclosed == []
    found = one.reveal()
    for place, name in enumerate(source.names):
        expected = (columns[:, place] - columns[:, place].mean()) / columns[:, place].std()
        np.testing.assert_allclose(found[name], expected, atol=1e-3)
    assert [column.schema.kind for column in one.columns] == ["real", "real", "real", "boolean"]
