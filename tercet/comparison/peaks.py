"""What processes use of a machine's memory, at their peak and now. Linux only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MB = 1e6


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
