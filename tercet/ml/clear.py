"""Rows, outcomes and weights in the clear, as a revealed model is given them: checked before they are used.

numpy computes with almost anything: it broadcasts, reads text as numbers and compares what cannot be equal.
So whatever is not what it has to be is refused here, in one sentence.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.options import described

Reals = npt.NDArray[np.float64]


def features(X: Any, names: Sequence[str]) -> Reals:
    """Finite numbers `(n, len(names))`, n at least 1, of a frame, a dict of columns, or an array.

    Frames and dicts may have other columns besides. Raises SchemaError for anything else.
    """
    if isinstance(X, Mapping) or hasattr(X, "columns"):
        columns = [_reals(_column(X, name, names), f"column {name!r} of X") for name in names]
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(
                f"{name!r} has {len(column)}" for name, column in zip(names, columns, strict=True)
            )
            raise SchemaError(f"columns of X differ in their number of rows: {lengths}; give them alike")
        rows = np.column_stack(columns)
    else:
        needed = f"X is no table of numbers with {len(names)} columns, in this order: {', '.join(names)}"
        try:
            rows = _reals(X, "X", needed)
        except (ValueError, TypeError) as error:
            raise SchemaError(f"{needed} ({error})") from error
        if rows.ndim != 2 or rows.shape[1] != len(names):
            raise SchemaError(needed)
    if not len(rows):
        raise SchemaError("X has no rows; give at least one")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        row, place = wrong[0]
        raise SchemaError(
            f"X has {rows[row, place]} in row {row} for {names[place]!r}, and features have to be finite "
            "numbers; fill it, or leave the row out"
        )
    return rows


def outcomes(y: Any, count: int, classes: npt.NDArray[np.int64]) -> Reals:
    """Outcomes `(count,)`, each of them in `classes`. Raises SchemaError for anything else."""
    codes = " or ".join(map(str, classes))
    found = _vector(y, "y", count, f"one outcome for each of the {count} rows of X, {codes}")
    other = np.flatnonzero(~np.isin(found, classes))
    if len(other):
        raise SchemaError(
            f"y has {found[other[0]]:g} in row {other[0]}, and outcomes have to be {codes}: "
            "write 1 for the one that the model tells the probability of, and 0 for the other"
        )
    return found


def weights(sample_weight: Any, count: int) -> Reals | None:
    """Weights `(count,)` of rows as parts of the largest one; None if none are given.

    They have to be finite and not negative, and one of them above zero. Raises SchemaError for others.
    """
    if sample_weight is None:
        return None
    needed = f"one weight for each of the {count} rows of X"
    found = _vector(sample_weight, "sample_weight", count, needed)
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        raise SchemaError(
            f"sample_weight has {found[wrong[0]]:g} in row {wrong[0]}, and weights have to be finite and not "
            "negative; leave such rows out"
        )
    if not found.any():
        raise SchemaError("sample_weight is zero for every row; some row has to count")
    beside: Reals = found / found.max()
    return beside


def _column(X: Any, name: str, names: Sequence[str]) -> Any:
    """A column of a frame or dict by name."""
    try:
        return X[name]
    except Exception as error:  # each library of frames has errors of its own for this
        raise SchemaError(
            f"X has no column {name!r} to read; it has to have numeric columns {', '.join(names)}"
        ) from error


def _vector(values: Any, what: str, count: int, needed: str) -> Reals:
    """Numbers `(count,)`."""
    found = _reals(values, what, f"{what} has to be {needed}")
    if found.ndim != 1 or len(found) != count:
        shape = " x ".join(map(str, found.shape)) or "a single number"
        shaped = f"{shape} values" if found.ndim else shape
        raise SchemaError(f"{what} is {shaped}, and has to be {needed}, in one dimension")
    return found


def _reals(values: Any, what: str, needed: str | None = None) -> Reals:
    """Numbers as floats, of any shape if `needed` says what they have to be, otherwise `(n,)`."""
    told = needed or f"{what} has to be numbers in one dimension"
    if np.ma.is_masked(values):
        raise SchemaError(f"{told}, and some are masked; fill them, or leave their rows out")
    try:
        found = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise SchemaError(f"{told} ({error})") from error
    if found.dtype.kind == "O":
        for place, one in np.ndenumerate(found):
            if not isinstance(one, numbers.Real | Decimal | np.bool_):
                where = f" in row {place[0]}" if place else ""
                raise SchemaError(f"{told}, and there is {described(one)}{where}")
    elif found.dtype.kind not in "biuf":
        raise SchemaError(f"{told}, and not {found.dtype.name}")
    if needed is None and found.ndim != 1:
        raise SchemaError(f"{told}, and not {found.ndim}")
    try:
        reals: Reals = found.astype(np.float64)
    except (OverflowError, ValueError) as error:
        raise SchemaError(f"{told} of ordinary size ({error})") from error
    return reals
