"""What the owners of the demonstration have: the Wisconsin breast cancer data, split between two of them.

569 patients, 30 measurements of cell nuclei each (Street, Wolberg, Mangasarian 1993; it comes with
scikit-learn). The hospital has the means and the standard errors of ten measurements and the diagnosis, the
insurer has the worst values. Both know patients by policy number, each lacks some, and each has its own
order.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import attrs
import numpy as np

from tercet.errors import TercetError

KEY = "policy_number"
TARGET = "malignant"
ONLY_AT_HOSPITAL = 29
ONLY_AT_INSURER = 24
_SEED = 569


@attrs.frozen(eq=False)
class Owners:
    """The tables of both owners, as pandas frames, and their inner join in the clear, for the comparison."""

    hospital: Any
    insurer: Any
    merged: Any
    features: tuple[str, ...]


def require(*, plot: bool = False) -> None:
    """Raise TercetError, with the command that mends it, unless what the demonstration needs is installed."""
    needed = {"sklearn": "scikit-learn", "pandas": "pandas", **({"matplotlib": "matplotlib"} if plot else {})}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise TercetError(
            f"the demo needs {' and '.join(missing)}, which Tercet itself does not; they come with its extra "
            f"`ml`, or by: pip install {' '.join(missing)}"
        )


def owners() -> Owners:
    """Split the data by columns, drop some rows of each side, and shuffle: the same way every time."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer

    source = load_breast_cancer(as_frame=True)
    features = [str(name) for name in source.data.columns]
    worst = [name for name in features if name.startswith("worst")]
    others = [name for name in features if name not in worst]
    generator = np.random.default_rng(_SEED)
    rows = len(source.data)
    everyone = source.data.copy()
    # In scikit-learn's copy of the data, 0 stands for malignant.
    everyone[TARGET] = (source.target == 0).astype(int)
    numbers = 10_000_000 + generator.choice(90_000_000, size=rows, replace=False)
    everyone.insert(0, KEY, [f"P-{number}" for number in numbers])

    order = generator.permutation(rows)
    at_hospital = generator.permutation(order[: rows - ONLY_AT_INSURER])
    at_insurer = generator.permutation(order[ONLY_AT_HOSPITAL:])
    hospital = everyone.iloc[at_hospital][[KEY, *others, TARGET]].reset_index(drop=True)
    insurer = everyone.iloc[at_insurer][[KEY, *worst]].reset_index(drop=True)
    merged = pd.merge(hospital, insurer, on=KEY, validate="one_to_one")
    return Owners(hospital, insurer, merged, tuple(others + worst))
