"""Data sets that scikit-learn and statsmodels ship, and lakes to fit them in."""

import functools
import itertools

import attrs
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_breast_cancer, load_digits, make_classification

import tercet

_numbers = itertools.count()


@attrs.frozen(eq=False)
class Data:
    """Features `(n, d)`, outcomes of zeros and ones, and the names of features."""

    X: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]


def _named(X, y):
    X = np.asarray(X)
    return Data(X, np.asarray(y).astype(int), tuple(f"x{place}" for place in range(X.shape[1])))


def _classification(rows, share):
    X, y = make_classification(
        rows,
        10,
        n_informative=5,
        n_redundant=0,
        weights=[1 - share],
        flip_y=0.0005,
        class_sep=0.7,
        random_state=3,
    )
    return _named(X, y)


@functools.cache
def _load(name):
    match name:
        case "breast cancer":
            source = load_breast_cancer()
            return _named((source.data - source.data.mean(0)) / source.data.std(0), 1 - source.target)
        case "fair":
            frame = sm.datasets.fair.load_pandas().data
            return _named(frame.drop(columns="affairs"), frame.affairs > 0)
        case "spector":
            frame = sm.datasets.spector.load_pandas().data
            return _named(frame.drop(columns="GRADE"), frame.GRADE)
        case "heart":
            frame = sm.datasets.heart.load_pandas().data
            return _named(frame[["survival", "age"]], frame.censors)
        case "star98":
            frame = sm.datasets.star98.load_pandas().data
            passed = frame.NABOVE / (frame.NABOVE + frame.NBELOW)
            columns = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "AVYRSEXP", "PTRATIO"]
            return _named(frame[columns], passed > passed.median())
        case "anes96":
            frame = sm.datasets.anes96.load_pandas().data
            return _named(frame[["logpopul", "selfLR", "age", "educ", "income"]], frame.vote)
        case "tumours":
            source = load_breast_cancer()
            chosen = [1, 4, 9, 14, 19]
            return _named(source.data[:, chosen], 1 - source.target)
        case "randhie":
            frame = sm.datasets.randhie.load_pandas().data
            return _named(frame.drop(columns="mdvis"), frame.mdvis > 0)
        case "digits":
            source = load_digits()
            often = (source.data > 0).mean(0) > 0.02
            return _named(source.data[:, often], source.target >= 5)
        case "1 in 100":
            return _classification(5000, 0.01)
        case "1 in 1000":
            return _classification(20_000, 0.001)
        case "large":
            generator = np.random.default_rng(0)
            X = generator.normal(size=(40_000, 5))
            p = 1 / (1 + np.exp(-X @ [1, 0.5, 0, -1, 0.2]))
            return _named(X, generator.random(40_000) < p)
    raise ValueError(name)


@pytest.fixture(scope="session")
def data():
    """Data sets by name."""
    return _load


@pytest.fixture(scope="module", params=["plain", "replicated"])
def lake(request):
    """A lake of each protocol."""
    with tercet.local(protocol=request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def put(lake):
    """Upload a data set, or some of its rows, under keys 0, 1, 2, ..., with the target `y`."""

    def upload(source, rows=slice(None), into=None, **options):
        columns = dict(zip(source.names, source.X[rows].T, strict=True))
        columns |= {"y": source.y[rows], "id": np.arange(len(source.y[rows]))}
        name = f"table{next(_numbers)}"
        return (into or lake).upload(columns, name=name, key="id", owner="owner", **options)

    return upload
