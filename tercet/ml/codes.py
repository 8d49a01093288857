"""Codes: columns of labels, dates and times to the integers that stand for them, at their owner.

What they mean is in `meanings`. Labels of a category are public. They are declared, or, where its owner says
that the column is one, taken from the data: then every label has to stand in as many rows as owners let
figures rest on, or it would tell of fewer.
"""

from __future__ import annotations

import re
from typing import Any

import narwhals as nw
import numpy as np
import numpy.typing as npt

from tercet.ml.meanings import (
    CLOCK_ORIGIN,
    FIRST_DAY,
    LAST_DAY,
    MOST_LABELS,
    MOST_SECONDS,
    Symbolic,
    check_labels,
)
from tercet.ml.row_keys import Text
from tercet.ml.schema import Spot

Numbers = npt.NDArray[np.float64]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.0+)?)?")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


# -- dates and times -----------------------------------------------------------------------------------------


def clock_codes(values: Any, kind: Symbolic, spot: Spot) -> Numbers:
    """Days or seconds of dates and times, or of text that is written as these. Raises SchemaError."""
    if isinstance(values, Text):
        values = _read(values.strings(), kind, spot)
    if values.dtype.kind != "M":
        if values.size == 0:
            return np.zeros(0)
        raise spot.error(
            f"types declares it as a {kind}, and it holds {values.tolist()[0]!r}; give dates, or text like "
            f"{'2024-12-31' if kind == 'date' else '2024-12-31 23:59:00'}.",
            0,
        )
    fine = values.astype("M8[us]")
    unit = "D" if kind == "date" else "s"
    codes = values.astype(f"M8[{unit}]")
    parts = codes.astype("M8[us]") != fine
    if parts.any():
        row = int(np.argmax(parts))
        what = "a day" if kind == "date" else "a whole second"
        mend = "; take .dt.date, or declare it a datetime" if kind == "date" else "; round it"
        raise spot.error(f"{fine[row]} is not {what}{mend}.", row)
    days = codes.astype(np.int64) if kind == "date" else (codes - CLOCK_ORIGIN).astype(np.int64)
    low, high = (FIRST_DAY, LAST_DAY) if kind == "date" else (-MOST_SECONDS, MOST_SECONDS)
    outside = (days < low) | (days > high)
    if outside.any():
        row = int(np.argmax(outside))
        raise spot.error(
            f"{codes[row]} is no day of the years 1800 to 2200, which dates are of; correct it."
            if kind == "date"
            else f"{codes[row]} is not within 34 years of 2010, which times are of; declare the column "
            f'a date with types={{"{spot.column}": "date"}}.',
            row,
        )
    found: Numbers = days.astype(np.float64)
    return found


def _read(texts: list[str], kind: Symbolic, spot: Spot) -> npt.NDArray[Any]:
    pattern, like = (_DAY, "2024-12-31") if kind == "date" else (_TIME, "2024-12-31 23:59:00")
    for row, text in enumerate(texts):
        if not pattern.fullmatch(text):
            raise spot.error(f"{text!r:.80} is not written as a {kind} is, like {like}; convert it.", row)
    try:
        return np.array(texts, "M8[D]" if kind == "date" else "M8[us]")
    except ValueError:
        row = next(row for row, text in enumerate(texts) if not _is_day(text))
        raise spot.error(f"{texts[row]!r:.80} is no {kind} that there is; correct it.", row) from None


def _is_day(text: str) -> bool:
    try:
        np.datetime64(text, "us")
    except ValueError:
        return False
    return True


# -- categories ----------------------------------------------------------------------------------------------


class Labels:
    """The labels of a category, as far as they are known after some chunks."""

    def __init__(self, declared: tuple[str, ...] | None) -> None:
        self.declared = declared is not None
        self._codes = {label: code for code, label in enumerate(declared or ())}
        self._counts = np.zeros(len(self._codes), np.int64)
        self._ordered = False
        """Whether the data says in what order they come."""

    def expect(self, column: Any) -> None:
        """Take the labels of a column whose type has some, in their order."""
        if not isinstance(column, nw.Series) or self.declared:
            return
        labels: list[Any] = []
        if column.implementation.is_pandas() and column.dtype in (nw.Categorical, nw.Enum):
            labels = list(column.to_native().cat.categories)
        elif isinstance(column.dtype, nw.Enum):
            labels = list(column.dtype.categories)
        for label in labels:
            self._codes.setdefault(str(label), len(self._codes))
        self._ordered = self._ordered or bool(labels)

    def add(self, values: Any, spot: Spot) -> Numbers:
        """Codes of a chunk's values. Raises SchemaError for what is no label, and for too many."""
        texts = values.strings() if isinstance(values, Text) else self._texts(values, spot)
        known = self._codes
        for row, text in enumerate(texts):
            if text in known:
                continue
            if self.declared:
                shown = ", ".join(map(repr, list(known)[:10])) + (", ..." if len(known) > 10 else "")
                raise spot.error(
                    f"the value {text!r:.80} is none of its declared labels {shown}; correct it.", row
                )
            check_labels([text], f'Table "{spot.table}", column "{spot.column}"')
            known[text] = len(known)
            if len(known) > MOST_LABELS:
                raise spot.error(
                    f"it has more than {MOST_LABELS} different values, and all would be public as labels; "
                    "leave the column out, or group its values first.",
                    row,
                )
        codes = np.fromiter((known[text] for text in texts), np.int64, len(texts))
        counts = np.bincount(codes, minlength=len(known))
        self._counts = counts + np.pad(self._counts, (0, len(counts) - len(self._counts)))
        return codes.astype(np.float64)

    @staticmethod
    def _texts(values: npt.NDArray[Any], spot: Spot) -> list[str]:
        items = values.tolist()
        for row, item in enumerate(items):
            if not isinstance(item, str | int):
                raise spot.error(
                    f"the value {item!r:.80} is a {type(item).__name__}, and labels are text or "
                    "integers; convert it.",
                    row,
                )
        return [str(item) for item in items]

    def settle(self, least: int, spot: Spot) -> tuple[tuple[str, ...], Numbers]:
        """All labels in their order, and the place of each code among them `(k,)`.

        In the order in which they were declared, or else sorted, as numbers if all are. Raises SchemaError
        for none, and for those that are told by too few rows.
        """
        found = list(self._codes)
        if not found:
            raise spot.error(
                "it has no value, so there are no labels; declare them, as in "
                f'categories={{"{spot.column}": ["yes", "no"]}}.'
            )
        counts = np.pad(self._counts, (0, len(found) - len(self._counts)))
        rare = (counts > 0) & (counts < least)
        if not self.declared and rare.any():
            raise spot.error(
                f"the label {found[int(np.argmax(rare))]!r} is that of {int(counts[rare][0])} rows, fewer "
                f"than min_count={least}, and labels are public; merge it with others, or, if everyone may "
                "know that there is such a label, declare them all with "
                f'categories={{"{spot.column}": [...]}}.'
            )
        labels = found
        if not self.declared and not self._ordered:
            numbers = all(_INTEGER.fullmatch(label) for label in found)
            labels = sorted(found, key=int) if numbers else sorted(found)
        places = {label: place for place, label in enumerate(labels)}
        return tuple(labels), np.array([places[label] for label in found], np.float64)
