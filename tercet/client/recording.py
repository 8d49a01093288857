"""Recording a study, and running one: what a lake does with each request while either is under way.

Both are told of every request before it is made, as plain data, and count them: a `Recording` writes them
down, a `Following` says of each which one of its study it is. Nodes check that for themselves; here it is
checked first, so that a notebook that was changed is told so before anything is sent.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

from tercet.errors import ConsentError
from tercet.members.studies import RESULT, Asked, Study, is_tagged, matches, study_step
from tercet.ml.computations import Request, defaults_of

DAY_S = 86400


class Requests(abc.ABC):
    """Counts the requests that a lake makes, from one; steps of a computation, and attempts, are one."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        """Positions of computations, by id in hexadecimal."""

    @abc.abstractmethod
    def place(self, request: Request) -> Request:
        """A request that is about to be made, with what it says of its study. Raises ConsentError."""


class Recording(Requests):
    """Writes requests down as a study, in `path`, when it is left or told to `save`."""

    def __init__(
        self,
        path: str | Path,
        *,
        purpose: str,
        analyst: str,
        uses: int,
        days: float,
        over: Callable[[], None],
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.requests: list[Asked] = []
        self._purpose, self._analyst, self._uses = purpose, analyst, uses
        self._until = int(time.time() + days * DAY_S)
        self._over = over

    def place(self, request: Request) -> Request:
        """Write a request down, once."""
        if request.name.hex() not in self.done:
            position = len(self.requests) + 1
            arguments = {
                name: self._positioned(value, request.computation, position)
                for name, value in request.arguments.items()
            }
            self.requests.append(Asked(request.computation, arguments))
            self.done[request.name.hex()] = position
        return request

    def _positioned(self, value: Any, computation: str, position: int) -> Any:
        """A value, in which results are those of requests, by their position."""
        if is_tagged(value, RESULT):
            name, path = value[RESULT]
            if name not in self.done:
                raise ConsentError(
                    f"request {position}, {computation}, uses what was computed before the recording began; "
                    "record from the first computation on"
                )
            return {RESULT: [self.done[name], list(path)]}
        if isinstance(value, Mapping):
            return {name: self._positioned(one, computation, position) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._positioned(one, computation, position) for one in value]
        return value

    @property
    def study(self) -> Study:
        """What was recorded so far, as a study. Raises ConsentError if that is nothing."""
        return Study.of(
            self.requests,
            purpose=self._purpose,
            analyst=self._analyst,
            uses=self._uses,
            until=self._until,
        )

    def save(self) -> Study:
        """Write the study down, and record no more."""
        study = self.study
        self.path.write_text(study.to_text(), encoding="utf-8")
        self._over()
        return study

    def __repr__(self) -> str:
        return f"recording of {len(self.requests)} requests for {self.path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.save()
        else:
            self._over()


class Following(Requests):
    """A run of an approved study: every request has to be the next one of it."""

    def __init__(self, study: Study, run: bytes, end: Callable[[], Any]) -> None:
        super().__init__()
        self.study = study
        self._run = run
        self.end = end
        """Say that the run takes no more requests; an awaitable of it on an `AsyncLake`."""

    def place(self, request: Request) -> Request:
        """A request as the next one of the study, or as one that was placed before."""
        position = self.done.get(request.name.hex(), len(self.done) + 1)
        asked = Asked(request.computation, request.arguments)
        matches(self.study, position, asked, self.done, defaults_of(asked.computation))
        self.done[request.name.hex()] = position
        return attrs.evolve(request, study=study_step(self._run, position))

    def __repr__(self) -> str:
        return f"run of study {self.study.number}, at request {len(self.done)} of {len(self.study.requests)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
