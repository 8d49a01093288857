"""What this machine can do and what a process uses of it: the speed of a copy, memory at its peak."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from perf.report import median

COPY_BYTES = 1 << 27
"""Larger than caches are."""
WORD = 8
MB = 1e6


def copy_rate() -> float:
    """Bytes that one core moves in a second when it copies memory, those read and those written."""
    source = np.ones(COPY_BYTES // WORD, dtype=np.uint64)
    target = np.zeros_like(source)
    seconds = timed(lambda: np.copyto(target, source), repeat=9)
    return 2 * COPY_BYTES / seconds


def timed(function: Callable[[], object], *, repeat: int, warm: bool = True) -> float:
    """Median seconds of some calls."""
    if warm:
        function()
    found = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return median(found)


def reset_peaks(pids: Sequence[int]) -> None:
    """Have the kernel forget the peak of each process's resident memory (Linux)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peaks_mb(pids: Sequence[int]) -> list[float]:
    """The most resident memory that each process had since the last reset, in 10^6 bytes."""
    return [_status_mb(pid, "VmHWM") for pid in pids]


def resident_mb(pids: Sequence[int]) -> list[float]:
    """The resident memory that each process has now, in 10^6 bytes."""
    return [_status_mb(pid, "VmRSS") for pid in pids]


def _status_mb(pid: int, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status has no {field}; peaks of memory are read on Linux only")
    return int(found[1]) * 1024 / MB
