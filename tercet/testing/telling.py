"""One line on a terminal that says what is under way, for checks that take a minute or two."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

_CLEAR = "\r\x1b[2K"


class Line:
    """A line at the standard error that is written over, and goes at the end; nothing but on a terminal."""

    def __init__(self) -> None:
        self._to = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None

    def write(self, text: str) -> None:
        """Say this, in the place of what was said before."""
        if self._to is not None:
            self._to.write(_CLEAR + text)
            self._to.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.write("")


__all__ = ["Line"]
