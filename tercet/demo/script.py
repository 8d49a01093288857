"""The demonstration itself: the script that an analyst would write, with a stopwatch around its phases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.client.lake import Lake, local
from tercet.demo import check
from tercet.demo.data import KEY, TARGET, owners
from tercet.ml import LogisticRegression, StandardScaler
from tercet.plans import Disclosure

Reals = npt.NDArray[np.float64]

PHASES = ("upload", "join", "train", "evaluate", "predict")
"""What is timed. Join includes the split into train and test rows, train the standardisation of both."""
START, CHECK = "start", "check"
"""What comes before and after, and is shown as progress only."""
TEST_SIZE = 0.25
CHECKER = "the demo itself, for the comparison only"


@attrs.frozen(kw_only=True)
class Settings:
    """How to run the demonstration; see `tercet.local`."""

    protocol: str = "replicated"
    parties: int | None = None
    processes: bool = True
    latency_ms: float = 3.0
    threads: int = 1


@attrs.frozen
class Cost:
    """What a phase cost: seconds on the clock, rounds in sequence, bytes among nodes and with the client."""

    seconds: float
    rounds: int
    bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.rounds + other.rounds, self.bytes + other.bytes)


class Watcher:
    """Is told how far the demonstration is, and does nothing with it.

    `step` may be called from another thread.
    """

    def begin(self, phase: str) -> None:
        """A phase begins."""

    def step(self, what: str) -> None:
        """The phase has come to a plan of this name."""

    def end(self, phase: str, cost: Cost) -> None:
        """A phase has ended."""


@attrs.frozen(kw_only=True, eq=False)
class Report:
    """What the demonstration found."""

    settings: Settings
    transport: str
    processes: int
    rows: Mapping[str, int]
    """Of the hospital, the insurer, both joined, the train and the test set."""
    features: tuple[str, ...]
    owners: Mapping[str, str]
    """Of each feature."""
    coef: Reals
    intercept: float
    metrics: Mapping[str, float]
    probabilities: Reals
    """Of the test rows, as revealed to the hospital."""
    reference: check.Reference
    costs: Mapping[str, Cost]
    """By phase, in order."""
    disclosed: tuple[Disclosure, ...]

    @property
    def total(self) -> Cost:
        """All phases together."""
        return sum(self.costs.values(), Cost(0.0, 0, 0))

    @property
    def coef_max_abs_diff(self) -> float:
        """Largest difference from scikit-learn's coefficients of standardised columns."""
        return float(np.max(np.abs(self.coef - self.reference.coef)))

    def difference(self, metric: str) -> float:
        """Absolute difference from scikit-learn's metric."""
        return abs(self.metrics[metric] - self.reference.metrics[metric])

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain values, for `--json`."""

        def by_phase(number: Callable[[Cost], float]) -> dict[str, float]:
            return {
                **{phase: number(cost) for phase, cost in self.costs.items()},
                "total": number(self.total),
            }

        return {
            "rows": {name: self.rows[name] for name in ("hospital", "insurer", "joined")},
            "coef_max_abs_diff": self.coef_max_abs_diff,
            "auc": self.metrics["roc_auc"],
            "auc_diff": self.difference("roc_auc"),
            "log_loss_diff": self.difference("log_loss"),
            "seconds": by_phase(lambda cost: round(cost.seconds, 4)),
            "rounds": by_phase(lambda cost: cost.rounds),
            "bytes": by_phase(lambda cost: cost.bytes),
            "protocol": self.settings.protocol,
            "transport": self.transport,
            "processes": self.processes,
            "disclosed": [attrs.asdict(item) for item in self.disclosed],
        }


class _Stopwatch:
    """Measures phases of a lake, from what the lake records."""

    def __init__(self, watcher: Watcher) -> None:
        self.costs: dict[str, Cost] = {}
        self.watcher = watcher

    @contextlib.contextmanager
    def phase(self, name: str, lake: Lake | None = None) -> Iterator[None]:
        """Time what is done inside; count rounds and bytes of the plans that `lake` runs meanwhile."""
        self.watcher.begin(name)
        first, began = len(lake.phases) if lake else 0, time.perf_counter()
        yield
        seconds, ran = time.perf_counter() - began, lake.phases[first:] if lake else []
        cost = Cost(seconds, sum(one.rounds for one in ran), sum(one.total_bytes for one in ran))
        if name in PHASES:
            self.costs[name] = cost
        self.watcher.end(name, cost)


def run(settings: Settings | None = None, watcher: Watcher | None = None) -> Report:
    """Start the nodes, link, train, evaluate and predict, then compare with scikit-learn.

    Needs the extra `ml`. Raises TercetError for settings that make no sense and for nodes that are lost.
    """
    settings, watcher = settings or Settings(), watcher or Watcher()
    tables = owners()
    watch = _Stopwatch(watcher)
    with contextlib.ExitStack() as stack:
        with watch.phase(START):
            lake = stack.enter_context(local(**attrs.asdict(settings), progress=False))
            lake.on_phase = lambda _, plan: watcher.step(plan)
        with watch.phase("upload", lake):
            hospital = lake.upload(tables.hospital, name="hospital", key=KEY, owner="hospital")
            insurer = lake.upload(tables.insurer, name="insurer", key=KEY, owner="insurer")
        with watch.phase("join", lake):
            patients = hospital.join(insurer, on=KEY)
            train, test = patients.split(test_size=TEST_SIZE)
        with watch.phase("train", lake):
            scaler = StandardScaler().fit(train)
            scaled_train, scaled_test = scaler.transform(train), scaler.transform(test)
            model = LogisticRegression(C=1.0).fit(scaled_train, target=TARGET)
            fitted = model.reveal(to="analyst")
        with watch.phase("evaluate", lake):
            scores = model.evaluate(scaled_test).reveal(to="analyst")
        with watch.phase("predict", lake):
            probabilities = model.predict_proba(scaled_test).reveal(to="hospital")
        with watch.phase(CHECK, lake):
            in_train, in_test = (
                check.find_rows(tables.merged, part.reveal(check.IDENTIFYING, to=CHECKER))
                for part in (train, test)
            )
            reference = check.fit_in_the_clear(in_train, in_test, tables.features)
        coef = dict(zip(fitted.feature_names_in_, fitted.coef_[0].tolist(), strict=True))
        return Report(
            settings=settings,
            transport=lake.cluster.transport,
            processes=len(lake.cluster.pids) or 1,
            rows={
                "hospital": len(tables.hospital),
                "insurer": len(tables.insurer),
                "joined": len(patients),
                "train": len(train),
                "test": len(test),
            },
            features=tables.features,
            owners={column.name: column.owner for column in patients.columns},
            coef=np.array([coef[name] for name in tables.features]),
            intercept=float(fitted.intercept_[0]),
            metrics={name: float(getattr(scores, name)) for name in check.METRICS},
            probabilities=np.ravel(probabilities),
            reference=reference,
            costs=watch.costs,
            disclosed=tuple(lake.disclosed),
        )
