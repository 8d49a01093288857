"""`study`: what a hospital's study takes, call by call, in a fresh interpreter as a script is.

One table for each of two owners, linked, split, scaled, described, fitted, validated and used to predict,
over TLS between three processes. Every call is timed where the script waits for it. What it costs a party is
read from the kernel's books of that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf.report import Measured

LONGEST_S = 1800.0
PATIENCE_S = 60.0
"""How long a party may be silent: long, since all share the cores of one machine."""
TICK = os.sysconf("SC_CLK_TCK")
PENALTIES = [0.01, 0.1, 1.0, 10.0]
FOLDS = 5


def run(rows: int, features: int, latency_ms: float) -> list[Measured]:
    """The study in an interpreter of its own: its stages, and `whole` from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "perf.everyday", str(rows), str(features), str(latency_ms)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LONGEST_S,
    )
    seconds = time.perf_counter() - began
    stages = [Measured(**one) for one in json.loads(done.stdout)]
    more = {"rows": rows, "features": features, "latency_ms": latency_ms, "transport": "tls"}
    rounds = sum(one.rounds or 0 for one in stages)
    return [*stages, Measured(name="whole", seconds=seconds, rounds=rounds, more=more)]


def processor_seconds(pid: int) -> float:
    """What a process has used of processors since it began, by itself."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def script(rows: int, features: int, latency_ms: float) -> list[dict[str, Any]]:
    """What an analyst would run; each stage with its seconds, rounds, bytes and processor time a party."""
    found: list[dict[str, Any]] = []
    lake: Any = None

    def stage(name: str, work: Callable[[], Any]) -> Any:
        pids = [] if lake is None else lake.cluster.pids
        mark, before = (0 if lake is None else len(lake.phases)), [processor_seconds(pid) for pid in pids]
        mine, began = time.process_time(), time.perf_counter()
        given = work()
        seconds = time.perf_counter() - began
        used = [processor_seconds(pid) - old for pid, old in zip(pids, before, strict=True)]
        phases = [] if lake is None else lake.phases[mark:]
        sent = [sum(one) for one in zip(*(phase.bytes_sent for phase in phases), strict=True)]
        found.append(
            {
                "name": name,
                "seconds": seconds,
                "rounds": sum(phase.rounds for phase in phases),
                "bytes_per_party": max(sent, default=0),
                "more": {
                    "cpu_seconds_a_party": max(used, default=0.0),
                    "cpu_seconds_of_the_script": time.process_time() - mine,
                },
            }
        )
        return given

    def load() -> Any:
        import tercet
        import tercet.ml

        return tercet

    tercet = stage("import", load)
    from perf.tables import KEY, TARGET, feature_names, learnable

    ml = tercet.ml
    columns = learnable(rows, features)
    names = feature_names(features)
    half = features // 2
    left = {KEY: columns[KEY], **{name: columns[name] for name in names[:half]}, TARGET: columns[TARGET]}
    right = {KEY: columns[KEY], **{name: columns[name] for name in names[half:]}}
    lake = stage("open", lambda: tercet.local(processes=True, latency_ms=latency_ms, timeout_s=PATIENCE_S))
    with lake:
        one = stage("upload", lambda: lake.upload(left, name="clinic", key=KEY, owner="clinic"))
        other = stage("upload, second", lambda: lake.upload(right, name="insurer", key=KEY, owner="insurer"))
        joined = stage("join", lambda: one.join(other, on=KEY))
        train, test = stage("split", lambda: joined.split(test_size=0.25, stratify=TARGET))
        scaler = stage("scale", lambda: ml.StandardScaler().fit(train[names]))
        train, test = stage("transform", lambda: (scaler.transform(train), scaler.transform(test)))
        stage("describe", train.describe)
        model = stage("fit", lambda: ml.LogisticRegression().fit(train, target=TARGET))
        stage("fit, again", lambda: ml.LogisticRegression().fit(train, target=TARGET))
        stage("summary", model.summary)
        stage("cross-validation", lambda: ml.cross_validate(ml.LogisticRegression(), train, TARGET, cv=FOLDS))
        grid = ml.GridSearch(ml.LogisticRegression(), C=PENALTIES, cv=FOLDS)
        stage("grid search", lambda: grid.fit(train, TARGET))
        stage("all metrics", lambda: model.evaluate(test).reveal())
        stage("predict", lambda: model.predict_proba(test).reveal())
        began = time.perf_counter()
    found.append({"name": "close", "seconds": time.perf_counter() - began})
    return found


if __name__ == "__main__":
    print(json.dumps(script(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
