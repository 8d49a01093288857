"""Progress bars: how far a plan or upload is, drawn by tqdm where somebody looks, a terminal or a notebook.

A bar comes up when a plan has taken about a second, and goes when it has ended. It shows the share of the
predicted work that is done, the time since the plan began and the time that is left at that rate, rounds and
bytes. An upload has two: the rows that were read so far, whose number is not known before, and the share that
was dealt. No bar is drawn into a pipe or a file unless that is asked for.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rich.filesize import decimal

from tercet.actors.progress import Reading, Watch

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
NOT_EMPTY = 1e-9
"""A bar is drawn with its first reading, not before."""
COUNT_FORMAT = "{desc}: {n_fmt} rows, {elapsed}"
"""Of what has no end that is known."""
SHOWN_AFTER_S = 1.0
WAITING = "waits for its turn, or for owners"


def somebody_looks() -> bool:
    """Whether standard error is a terminal, or this is a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or (shell is not None and "IPKernelApp" in shell.config)


@contextlib.contextmanager
def watching(title: str, *, wanted: bool) -> Iterator[Watch | None]:
    """A watch that draws a bar while a plan runs, and takes it away at the end; None if none is wanted."""
    if not wanted:
        yield None
        return
    bar = _Bar(title)
    try:
        yield bar.show
    finally:
        bar.close()


@contextlib.contextmanager
def counting(title: str, total: int | None, *, wanted: bool) -> Iterator[Callable[[int], None] | None]:
    """A function to be told of each part that is done, which draws a bar once that takes about a second.

    `total` is all that there is to do, None if nobody knows: parts are rows then. None if no bar is wanted.
    """
    if not wanted:
        yield None
        return
    with _drawn_late(title, total) as drawn:
        yield drawn.update


class _Bar:
    """The bar of one run. It takes no place before the first reading."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._since = time.time()
        self._drawn: Any = None
        self._begun = False
        self._closed = False

    def show(self, reading: Reading) -> None:
        """Draw how far the run is."""
        if self._closed:
            return
        if self._drawn is None:
            self._drawn = _draw(self._title)
            self._drawn.start_t = self._since
        elif reading.begun and not self._begun:
            self._drawn.start_t = time.time()  # waiting for others says nothing about the time that is left
        self._begun = reading.begun
        self._drawn.n = reading.share
        told = f"{reading.rounds} rounds, {decimal(reading.bytes_sent)}" if reading.begun else WAITING
        self._drawn.set_postfix_str(told)

    def close(self) -> None:
        """Take the bar away."""
        self._closed = True
        if self._drawn is not None:
            self._drawn.close()


def _draw(title: str) -> Any:
    return _quiet_bar()(
        total=1.0, desc=title, leave=False, bar_format=FORMAT, dynamic_ncols=True, delay=NOT_EMPTY
    )


def _drawn_late(title: str, total: int | None) -> Any:
    """A bar that comes up after about a second, for what is done part by part."""
    form = COUNT_FORMAT if total is None else FORMAT
    return _quiet_bar()(
        total=total,
        desc=title,
        leave=False,
        bar_format=form,
        dynamic_ncols=True,
        delay=SHOWN_AFTER_S,
        unit_scale=True,
        mininterval=0.0,
        miniters=1,
    )


def _quiet_bar() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without ipywidgets the bars are of text
        from tqdm.auto import tqdm  # not before there is something to draw: it looks for notebooks

    class Quiet(tqdm):  # type: ignore[misc]  # without tqdm's thread, which would outlive the lake
        monitor_interval = 0

    return Quiet
