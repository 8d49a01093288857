"""What a guided study gave: figures in the clear, which are the analyst's, kept in a file beside her key.

The file is JSON, so that it can be read without this release; figures that are not defined are `NaN` there.
"""

from __future__ import annotations

import json
from typing import Any, Self

import attrs
import numpy as np

from tercet.errors import StorageError
from tercet.ml.metrics import Calibration, RevealedMetrics, RocCurve
from tercet.ml.summary import Summary


@attrs.frozen(eq=False)
class Outcome:
    """A summary, and what of metrics and curves was asked for."""

    summary: Summary
    metrics: RevealedMetrics | None
    roc: RocCurve | None
    calibration: Calibration | None

    @classmethod
    def of(cls, summary: Any, metrics: Any, roc: Any, calibration: Any) -> Self:
        """Of what the calls gave, all of which came to this member."""
        return cls(summary, metrics, roc, calibration)

    def to_text(self) -> str:
        """For a file."""
        parts = {name: _plain(part) for name, part in attrs.asdict(self, recurse=False).items()}
        return json.dumps(parts, indent=1)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `to_text` gave. Raises StorageError for anything else."""
        try:
            told = json.loads(text)
            summary = dict(told["summary"])
            values = {name: _array(one) for name, one in summary.pop("values").items()}
            names, without = tuple(summary.pop("names_")), tuple(summary.pop("without"))
            found = cls(
                Summary(values=values, names_=names, without=without, **summary),
                None if told["metrics"] is None else RevealedMetrics(**_arrays(told["metrics"], "values")),
                None if told["roc"] is None else RocCurve(**_arrays(told["roc"])),
                None if told["calibration"] is None else Calibration(**_arrays(told["calibration"])),
            )
            found.summary.cells(), found.summary.facts(), found.summary.notes()  # which pages show
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise StorageError(f"the results of a study cannot be read ({error!r})") from error
        return found


def _plain(part: Any) -> Any:
    """Figures as what JSON has."""
    if part is None:
        return None
    found = attrs.asdict(part, recurse=False) if attrs.has(type(part)) else part
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    if isinstance(found, np.ndarray | np.generic):
        return found.tolist()
    return list(found) if isinstance(found, tuple) else found


def _array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, list) else value


def _arrays(told: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Lists as arrays, those of one entry only if it is named."""
    if within:
        return {**told, within: {name: _array(value) for name, value in told[within].items()}}
    return {name: _array(value) for name, value in told.items()}
