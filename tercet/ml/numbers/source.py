"""Where in somebody's source a plan is being written: what messages about a formula begin with."""

from __future__ import annotations

import inspect
import linecache
from pathlib import Path

HERE = str(Path(__file__).parents[2])
LONGEST = 80


def line() -> str:
    """The line outside this package that is being run: `study.py:12, 'c = a @ b'`."""
    frame = inspect.currentframe()
    if frame is None:  # a Python that does not tell
        return "a formula"
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    code = linecache.getline(str(path), frame.f_lineno, frame.f_globals).strip()
    text = f", {code[:LONGEST]!r}" if code and path.suffix == ".py" else ""
    return f"{path.name}:{frame.f_lineno}{text}"
