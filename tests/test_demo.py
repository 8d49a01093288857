"""The demonstration: agrees with scikit-learn, costs what it says, discloses what it lists."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import tercet
from tercet.demo import PHASES, Report, Settings, Watcher, check, run
from tercet.demo.data import KEY, ONLY_AT_HOSPITAL, ONLY_AT_INSURER, TARGET, owners
from tercet.demo.plot import draw
from tercet.demo.script import CHECK, CHECKER, START
from tercet.demo.show import LiveWatcher, LogWatcher, show
from tercet.ml import LogisticRegression, StandardScaler

pytestmark = pytest.mark.early
KEYS = {
    "rows", "coef_max_abs_diff", "auc", "auc_diff", "log_loss_diff", "seconds", "rounds", "bytes", "protocol",
    "transport", "processes", "disclosed",
}  # fmt: skip


class Recorder(Watcher):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: list[str] = []

    def begin(self, phase):
        self.told.append(f"begin {phase}")

    def step(self, what):
        self.steps.append(what)

    def end(self, phase, cost):
        self.told.append(f"end {phase}")


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def report(recorder) -> Report:
    return run(Settings(processes=False, latency_ms=0.0), recorder)


def require_agreement(found):
    assert found["coef_max_abs_diff"] <= 0.005
    assert found["auc_diff"] <= 0.001
    assert found["log_loss_diff"] <= 0.001


# -- data ----------------------------------------------------------------------------------------------------


def test_owners_have_unlike_rows_in_unlike_order():
    tables = owners()
    assert len(tables.hospital) == 569 - ONLY_AT_INSURER
    assert len(tables.insurer) == 569 - ONLY_AT_HOSPITAL
    assert len(tables.merged) == 569 - ONLY_AT_INSURER - ONLY_AT_HOSPITAL
    assert len(tables.features) == 30
    assert set(tables.hospital) | set(tables.insurer) == {KEY, TARGET, *tables.features}
    assert set(tables.hospital) & set(tables.insurer) == {KEY}
    assert all(isinstance(key, str) for key in tables.hospital[KEY])
    both = set(tables.hospital[KEY]) & set(tables.insurer[KEY])
    orders = [[key for key in table[KEY] if key in both] for table in (tables.hospital, tables.insurer)]
    assert np.mean([a == b for a, b in zip(*orders, strict=True)]) < 0.05
    assert owners().merged.equals(tables.merged)


def test_malignant_is_the_rarer_outcome():
    assert 0.3 < owners().merged[TARGET].mean() < 0.45


def test_rows_are_found_again():
    merged = owners().merged
    chosen = np.random.default_rng(1).permutation(len(merged))[:100]
    revealed = {name: merged[name].to_numpy()[chosen] + 1e-6 for name in check.IDENTIFYING}
    pd.testing.assert_frame_equal(check.find_rows(merged, revealed), merged.iloc[chosen])


@pytest.mark.parametrize("spoil", ["other rows", "one row twice"])
def test_a_wrong_join_is_noticed(spoil):
    merged = owners().merged
    first, second = check.IDENTIFYING
    revealed = {name: merged[name].to_numpy().copy() for name in check.IDENTIFYING}
    if spoil == "other rows":
        revealed[second] = np.roll(revealed[second], 1)
    else:
        for name in (first, second):
            revealed[name][3] = revealed[name][4]
    with pytest.raises(tercet.TercetError, match="defect"):
        check.find_rows(merged, revealed)


# -- the run -------------------------------------------------------------------------------------------------


def test_it_agrees_with_scikit_learn(report):
    found = report.to_json()
    require_agreement(found)
    assert set(found) == KEYS
    assert found["rows"] == {"hospital": 545, "insurer": 540, "joined": 516}
    assert (found["protocol"], found["transport"], found["processes"]) == ("replicated", "memory", 1)
    assert report.rows["train"] + report.rows["test"] == report.rows["joined"]
    np.testing.assert_allclose(report.probabilities, report.reference.probabilities, atol=0.005)
    for metric in check.METRICS:
        # A row whose probability is one half, to fixed point, may count on either side.
        counted = metric in ("accuracy", "precision", "recall", "f1")
        assert report.difference(metric) <= (0.05 if counted else 0.001), metric


def test_costs_are_by_phase_and_add_up(report):
    found = report.to_json()
    for kind in ("seconds", "rounds", "bytes"):
        assert list(found[kind]) == [*PHASES, "total"]
        assert found[kind]["total"] == pytest.approx(sum(found[kind][phase] for phase in PHASES), abs=0.01)
    assert found["rounds"]["upload"] == 0
    assert found["rounds"]["join"] == 20 + 3
    assert all(found["bytes"][phase] > 0 for phase in PHASES)


def test_the_list_of_disclosures_is_complete(report):
    receivers = {item.to for item in report.disclosed}
    assert {"the nodes", "analyst", "hospital", CHECKER} <= receivers
    # Rows are disclosed for the comparison only, and only what identifies them.
    by_row = [item for item in report.disclosed if "row by row" in item.what]
    assert {item.to for item in by_row} == {CHECKER}
    assert len(by_row) == 2 * len(check.IDENTIFYING)
    json.dumps(report.to_json())


def test_progress_is_told_in_order(report, recorder):
    assert report.costs
    phases = [START, *PHASES, CHECK]
    assert recorder.told == [f"{what} {phase}" for phase in phases for what in ("begin", "end")]
    assert "join hospital+insurer" in recorder.steps


def test_it_is_shown(report):
    console = Console(width=80, record=True, force_terminal=False, file=io.StringIO())
    show(report, console)
    text = console.export_text()
    for wanted in (
        "545",
        "516 match",
        "ROC AUC",
        "worst fractal dimension",
        "scikit-learn",
        CHECKER,
        "total",
    ):
        assert wanted in text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_on_terminals_and_in_logs(report, terminal, tmp_path):
    with (tmp_path / "out.txt").open("w", encoding="utf-8") as file:
        console = Console(file=file, force_terminal=terminal, width=100)
        watcher = LiveWatcher(console) if terminal else LogWatcher(console)
        if isinstance(watcher, LiveWatcher):
            watcher.__enter__()
        for phase, cost in report.costs.items():
            watcher.begin(phase)
            watcher.step("a plan [with brackets]")
            watcher.end(phase, cost)
        if isinstance(watcher, LiveWatcher):
            watcher.__exit__()
    text = (tmp_path / "out.txt").read_text(encoding="utf-8")
    assert "rounds" in text
    assert ("\x1b" in text) is terminal
    assert terminal or len(text.splitlines()) == len(PHASES)


def test_the_picture_is_drawn(report, tmp_path):
    draw(report, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(tercet.TercetError, match="could not be written"):
        draw(report, tmp_path / "nowhere" / "demo.png")


def test_three_processes_over_tls():
    done = subprocess.run(
        [sys.executable, "-m", "tercet", "demo", "--json", "--latency-ms", "3"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    require_agreement(found)
    assert set(found) == KEYS
    assert (found["processes"], found["transport"], found["protocol"]) == (3, "tls", "replicated")
    # At 3 ms a round takes at least that long, whatever the machine.
    assert found["seconds"]["join"] >= 0.003 * found["rounds"]["join"]


# -- the clear reference -------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_plain_protocol_agrees_with_scikit_learn_too():
    require_agreement(run(Settings(protocol="plain", processes=False, latency_ms=0.0)).to_json())


def metrics_of_all_rows(protocol: str) -> dict[str, float]:
    """Metrics of a model on its own training rows: they do not depend on the random order of a join.

    The probability that is nearest to one half differs from it by more than 0.003, so all counts are certain.
    """
    tables = owners()
    with tercet.local(protocol=protocol) as lake:
        hospital = lake.upload(tables.hospital, name="hospital", key=KEY, owner="hospital")
        insurer = lake.upload(tables.insurer, name="insurer", key=KEY, owner="insurer")
        patients = StandardScaler().fit_transform(hospital.join(insurer, on=KEY))
        scores = LogisticRegression(C=1.0).fit(patients, target=TARGET).evaluate(patients).reveal()
        return {name: float(getattr(scores, name)) for name in check.METRICS}


def test_the_plain_protocol_gives_the_same_metrics():
    assert metrics_of_all_rows("plain") == pytest.approx(metrics_of_all_rows("replicated"), abs=1e-4)
