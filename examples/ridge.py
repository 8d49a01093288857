"""A workload of one's own for `tercet compare`: ridge regression by the normal equations.

The nodes multiply the columns, and reveal the matrix of their products; the analyst solves the equations.
"""

from typing import Any

import numpy as np

from tercet import Lake

NAMES = ["a", "b", "c", "y"]


def columns(rows: int) -> dict[str, Any]:
    """Made-up columns, of which `y` depends on the others."""
    random = np.random.default_rng(3)
    X = random.standard_normal((rows, 3))
    y = X @ [0.5, -1.0, 2.0] + random.standard_normal(rows)
    return dict(zip(NAMES, [*X.T, y], strict=True))


def workload(lake: Lake, rows: int) -> dict[str, Any]:
    """Coefficients, and how far they are from NumPy's."""
    made = columns(rows)
    table = lake.upload({"id": np.arange(rows), **made}, name="rows", key="id", owner="owner")
    plan = lake.builder("ridge")
    x = table.features(plan, NAMES).bounded(8.0, "eight deviations at most")
    x.dot(x).reveal("products", to="analyst")
    units = np.exp2([table.column(name).unit_exponent for name in NAMES])
    products = lake.run(plan.plan()).revealed["products"] * np.outer(units, units)
    coefficients = np.linalg.solve(products[:3, :3] + np.eye(3), products[:3, 3])
    X, y = np.stack([made[name] for name in NAMES[:3]]), made["y"]
    exact = np.linalg.solve(X @ X.T + np.eye(3), X @ y)
    return {"coefficients": coefficients, "off by": np.max(np.abs(coefficients - exact))}
