"""The plans that can be compared: work on made-up tables, which follows from its number of rows alone.

A workload is a function of a lake and a number of rows. It does its work there, in as many plans as it takes,
and returns figures by name, numbers or arrays of them; how far these are from the figures of the clear
reference is the accuracy. A workload of your own is such a function in a Python file or module.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.client.lake import Lake
from tercet.errors import PlanError
from tercet.ml import LogisticRegression
from tercet.plans import sigmoid

FEATURES = 6
SCALE = 15
KEY, TARGET = "id", "outcome"

Figures = Mapping[str, npt.ArrayLike]
"""Numbers, or arrays of them, by name."""
Workload = Callable[[Lake, int], Figures]


def _columns(rows: int, seed: int = 1) -> dict[str, Any]:
    """Features of unit spread, and an outcome that follows a logistic model of them."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((FEATURES, rows))
    odds = np.linspace(-1.0, 1.0, FEATURES) @ X
    outcome = random.random(rows) < 1 / (1 + np.exp(-odds))
    return {KEY: np.arange(rows), **{f"x{i}": x for i, x in enumerate(X)}, TARGET: outcome.astype(np.int64)}


def _two_owners(lake: Lake, rows: int) -> Any:
    """Two tables that share nine keys of ten, joined."""
    columns = _columns(rows)
    order = np.random.default_rng(2).permutation(rows)[: max(1, rows * 9 // 10)]
    left = {name: columns[name] for name in (KEY, "x0", "x1", "x2", TARGET)}
    right = {KEY: columns[KEY][order], **{f"x{i}": columns[f"x{i}"][order] for i in range(3, FEATURES)}}
    ours = lake.upload(left, name="left", key=KEY, owner="left")
    theirs = lake.upload(right, name="right", key=KEY, owner="right")
    return ours.join(theirs, on=KEY)


def join(lake: Lake, rows: int) -> Figures:
    """Join two tables of so many rows."""
    return {"rows": float(len(_two_owners(lake, rows)))}


def train(lake: Lake, rows: int) -> Figures:
    """Fit a logistic regression to one table, and reveal its coefficients."""
    table = lake.upload(_columns(rows), name="table", key=KEY, owner="owner")
    return _coefficients(LogisticRegression(C=1.0).fit(table, target=TARGET))


def evaluate(lake: Lake, rows: int) -> Figures:
    """Fit a logistic regression to one table, and reveal its metrics on the same rows."""
    table = lake.upload(_columns(rows), name="table", key=KEY, owner="owner")
    return _metrics(LogisticRegression(C=1.0).fit(table, target=TARGET), table)


def demo(lake: Lake, rows: int) -> Figures:
    """Join two tables, fit a logistic regression, and reveal its coefficients and metrics."""
    table = _two_owners(lake, rows)
    model = LogisticRegression(C=1.0).fit(table, target=TARGET)
    return {**_coefficients(model), **_metrics(model, table)}


def operations(lake: Lake, rows: int) -> Figures:
    """One plan of products, truncations, a sigmoid, comparisons and equalities; reveals their means."""
    b = lake.builder("operations")
    scales = {f"x{number}": SCALE for number in range(FEATURES)}
    table = lake.upload(_columns(rows), name="table", key=KEY, owner="owner", scales=scales)
    (part,) = table.parts
    units = b.input(part.handle, part.type).select([0]).squeeze()
    x = b.apply("move_point", units, bits=SCALE).bounded(8.0, "eight standard deviations at most")
    y = (x * x).rescale(x.scale)
    p = y.fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=14)[0].rescale(16)
    for name, value in (
        ("square", y.sum()),
        ("sigmoid", p.sum()),
        ("negative", (x < 0).to_ring().sum()),
        ("zero", x.is_zero().to_ring().sum()),
    ):
        value.reveal(name, to="analyst")
    revealed = lake.run(b.plan()).revealed
    return {name: float(np.ravel(total)[0]) / rows for name, total in revealed.items()}


def _coefficients(model: Any) -> dict[str, float]:
    told = model.reveal(to="analyst")
    weights = {
        f"coef {name}": float(w) for name, w in zip(told.feature_names_in_, told.coef_[0], strict=True)
    }
    return {**weights, "intercept": float(told.intercept_[0])}


def _metrics(model: Any, table: Any) -> dict[str, float]:
    scores = model.evaluate(table).reveal(to="analyst")
    return {name: float(getattr(scores, name)) for name in ("accuracy", "log_loss", "roc_auc")}


WORKLOADS: dict[str, Workload] = {
    "join": join,
    "train": train,
    "evaluate": evaluate,
    "demo": demo,
    "operations": operations,
}


def find(name: str) -> Workload:
    """A workload by name, from a file or from a module.

    As in `study.py` (its function `workload`), `study.py:fit`, or `package.studies:fit`, which has to be
    importable. Raises PlanError if there is none, or what it is in does not load.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    home, _, function = name.partition(":")
    if Path(home).suffix == ".py" and Path(home).exists():
        module = _of_file(Path(home))
    elif function and all(part.isidentifier() for part in home.split(".")):
        if not _is_there(home):
            raise PlanError(
                f"no module {home!r} can be imported; if it is a file, write {home}.py:{function}"
            )
        module = _loaded(home, lambda: importlib.import_module(home))
    else:
        raise PlanError(
            f"there is no plan {name!r} to compare; choose one of {', '.join(WORKLOADS)}, or name a function "
            "workload(lake, rows) that returns figures by name, as in study.py:fit or package.module:fit"
        )
    wanted = function or "workload"
    found = getattr(module, wanted, None)
    if not callable(found) or len(inspect.signature(found).parameters) != 2:
        raise PlanError(f"{home} has no function `{wanted}(lake, rows)`; write it, or name one: {home}:NAME")
    workload: Workload = found
    return workload


def _is_there(module: str) -> bool:
    """Whether a module can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it would be in
        return False


def _of_file(path: Path) -> Any:
    """The module that a file holds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PlanError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    _loaded(str(path), lambda: loader.exec_module(module))
    return module


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    """What is loaded. PlanError for whatever its code raises."""
    try:
        return load()
    except Exception as cause:
        raise PlanError(f"{name} does not load: {type(cause).__name__}: {cause}") from cause


__all__ = ["WORKLOADS", "Figures", "Workload", "find"]
