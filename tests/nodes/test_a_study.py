"""A study from end to end: designed on made-up rows, asked for once, signed by three, run unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import tercet
from tercet import Allow
from tercet.client import recording
from tercet.client.lake import Sent
from tercet.errors import ConsentError
from tercet.ml import LogisticRegression, StandardScaler
from tests.nodes.on_disk import NodesOnDisk, set_up

pytestmark = pytest.mark.early
MEMBERS = {"clinic": "owner", "laboratory": "owner", "imaging": "owner", "ann": "analyst", "aud": "auditor"}
ROWS = 400


def rows(seed: int) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    texture, radius, symmetry = rng.normal(19, 4, ROWS), rng.normal(14, 3, ROWS), rng.normal(0.18, 0.03, ROWS)
    logits = 0.2 * (texture - 19) + 0.4 * (radius - 14) + 15 * (symmetry - 0.18)
    malignant = (logits + rng.logistic(size=ROWS) > 0).astype(int)
    patient = [f"P-{number:04d}" for number in range(ROWS)]
    data = pd.DataFrame(
        {
            "patient": patient,
            "texture": texture,
            "malignant": malignant,
            "radius": radius,
            "symmetry": symmetry,
        }
    )
    return {
        "clinic": data[["patient", "texture", "malignant"]],
        "laboratory": data[["patient", "radius"]].iloc[20:],
        "imaging": data[["patient", "symmetry"]].iloc[:-20],
    }


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesOnDisk]:
    made = set_up(tmp_path_factory.mktemp("lake"), members=MEMBERS)
    made.start(0, 1, 2)
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.close()


def connect(nodes, member):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


def upload(nodes, seed):
    """All owners upload; the clinic also those whom it wants to hear about, row by row."""
    for owner, table in rows(seed).items():
        with connect(nodes, owner) as lake:
            lake.upload(table, name=owner, key="patient", owner=owner, min_count=20)
    new = rows(seed + 100)["clinic"].head(30).drop(columns="malignant")
    with connect(nodes, "clinic") as lake:
        lake.upload(new, name="new", key="patient", owner="clinic", allow=Allow(rows=True))


def notebook(lake, C=1.0):
    """The cells of a notebook: they do not know on which rows they run."""
    patients = lake.table("clinic").join(lake.table("laboratory"), lake.table("imaging"), on="patient")
    patients = patients.assign(size=patients["radius"] * patients["radius"] / 100)
    train, test = patients.split(test_size=0.3, stratify="malignant")
    scaler = StandardScaler().fit(train)
    features = ["texture", "size", "symmetry"]
    model = LogisticRegression(C=C).fit(scaler.transform(train), target="malignant", features=features)
    summary = model.summary(["coef", "p"], to="clinic")
    found = model.evaluate(scaler.transform(test)).reveal(["roc_auc", "recall"])
    plain = LogisticRegression(C=C).fit(train[["texture", "malignant"]], target="malignant")
    risk = plain.predict_proba(lake.table("new")).reveal(to="clinic")
    return patients.rows, summary, found, risk


def short_notebook(lake, C=1.0, on="clinic"):
    """A model of one table."""
    model = LogisticRegression(C=C).fit(lake.table(on), target="malignant")
    return model.reveal(to="clinic")


def record(nodes, file, purpose, cells=notebook):
    """Design on made-up rows; the study, and what the notebook gave."""
    with connect(nodes, "ann") as lake, lake.rehearse(rows=300) as made_up:
        recorded = made_up.record(file, purpose=purpose, uses=2, days=30)
        given = cells(made_up)
        return recorded.save(), given


def commands(nodes, command, number):
    """Each owner reads and signs with one command."""
    for owner in ("clinic", "laboratory", "imaging"):
        told = command("approve", number, "--yes", "--identity", f"{owner}.key", cwd=nodes.root)
        assert f"you have approved study {number}" in told
    return told


def test_design_ask_once_sign_once_run_unchanged(nodes, command):
    upload(nodes, seed=1)
    file = nodes.root / "study.json"
    study, rehearsed = record(nodes, file, "which tumours to operate on first")
    assert rehearsed[0] == 240
    fields = json.loads(file.read_text())
    names = [one["computation"] for one in fields["requests"]]
    assert names[:3] == ["join", "assign", "split"]
    assert fields["receivers"] == ["ann", "clinic"]

    asked = command("propose", "study.json", "--identity", "ann.key", cwd=nodes.root)
    number = study.number
    assert f"study {number} of ann" in asked
    assert "waits for clinic, imaging, laboratory" in asked
    assert "NOTE: request" in asked  # predictions of the clinic's own new patients, row by row
    with connect(nodes, "ann") as lake, pytest.raises(ConsentError, match="waits for clinic, imaging, lab"):
        lake.study(file)
    told = commands(nodes, command, number)
    assert "fits a model, which stays secret; it reads texture, malignant of clinic (clinic's)" in told

    results = []
    with connect(nodes, "ann") as lake:
        for _ in range(2):
            with lake.study(file):
                results.append(notebook(lake))
        upload(nodes, seed=2)  # other rows, and as many
        with pytest.raises(ConsentError, match="has been run 2 times of 2"):
            lake.study(file)
    for count, summary, found, risk in results:
        assert count == ROWS - 40
        assert isinstance(summary, Sent)
        assert isinstance(risk, Sent)
        assert found.roc_auc > 0.7
    with connect(nodes, "clinic") as lake:
        received = {one.name: one.values for one in lake.received()}
    assert any(values.size == 30 for values in received.values())
    shown = command("plans", "--identity", "aud.key", cwd=nodes.root)
    assert "approved by all; run 2 of 2 times" in shown


def test_more_rows_and_changed_arguments(nodes, command, monkeypatch):
    """A study holds for whatever rows tables come to hold, and for no other arguments."""
    upload(nodes, seed=1)
    file = nodes.root / "again.json"
    study, _ = record(nodes, file, "the same, next year", short_notebook)
    number = study.number
    command("propose", "again.json", "--identity", "ann.key", cwd=nodes.root)
    command("approve", number, "--identity", "clinic.key", "--yes", cwd=nodes.root)
    with connect(nodes, "clinic") as lake:
        lake.upload(rows(3)["clinic"].iloc[:300], name="clinic", key="patient", owner="clinic", min_count=20)
    changed = r"request 1, fit: C was left at its default, and is 2\.0 now"
    with connect(nodes, "ann") as lake:
        with lake.study(file):
            with pytest.raises(ConsentError, match=changed):
                short_notebook(lake, C=2.0)
            assert isinstance(short_notebook(lake), Sent)
            with pytest.raises(ConsentError, match="has 2 requests, and this would be request 3, fit"):
                short_notebook(lake)
        monkeypatch.setattr(recording, "matches", lambda *_: None)  # of a client that checks nothing
        with lake.study(file):
            with pytest.raises(ConsentError, match=changed):
                short_notebook(lake, C=2.0)
            with pytest.raises(ConsentError, match="has 2 requests, and this would be request 3, fit"):
                lake.requests.done.update(another=2)
                short_notebook(lake)
    monkeypatch.undo()
    command("refuse", number, "--reason", "enough", "--identity", "clinic.key", cwd=nodes.root)
    with connect(nodes, "ann") as lake, pytest.raises(ConsentError, match="clinic has refused study"):
        lake.study(file)
