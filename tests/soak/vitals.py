"""What a node process holds on to: files, threads, memory, clients, runs. Read in pauses, when all is quiet.

Nodes let the C library keep memory that plans have freed, so what counts is whether it grows from pause to
pause once a node has seen every kind of plan.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.nodes.on_disk import NodesOnDisk

MOST_NEW_FILES = 10
"""What a process that has served may hold besides: the pool of connections to the catalog, above all."""
MOST_NEW_BYTES = 48 << 20
"""Between the middle of the time without faults and its end."""


@attrs.frozen
class Vitals:
    """What one node holds at one moment; `resident` is without the values that it is there to hold."""

    pid: int
    files: int
    threads: int
    resident: int
    values: int
    clients: int
    runs: int


def vitals(nodes: NodesOnDisk, index: int) -> Vitals:
    """Look at a node."""
    pid = nodes.processes[index].pid
    status = dict(re.findall(r"^(\w+):\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    with urllib.request.urlopen(f"http://{nodes.network.metrics[index]}/metrics", timeout=10) as answer:
        told = dict(re.findall(r"^tercet_(\w+) (\S+)$", answer.read().decode(), re.MULTILINE))
    number = {name: int(float(value)) for name, value in told.items()}
    return Vitals(
        pid=pid,
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
        resident=int(status["VmRSS"]) * 1024 - number["bytes_in_memory"],
        values=number["values_in_memory"],
        clients=number["clients"],
        runs=number["runs_under_way"],
    )


def excess(pauses: Sequence[Sequence[Vitals]]) -> Iterator[str]:
    """What nodes hold too much of: files against the first pause, memory against the last but one.

    There were no faults between the last two pauses, so the processes are the same.
    """
    first, middle, last = pauses[0], pauses[-2], pauses[-1]
    for index, (one, before, now) in enumerate(zip(first, middle, last, strict=True)):
        if now.files > one.files + MOST_NEW_FILES:
            yield f"n{index} has {now.files} files open, {one.files} when it started"
        if now.pid != before.pid:
            yield f"n{index} was not the same process before and after the time without faults"
        elif now.resident > before.resident + MOST_NEW_BYTES:
            grown = f"from {before.resident >> 20} to {now.resident >> 20} MiB"
            yield f"n{index} has grown {grown} in the time without faults"
