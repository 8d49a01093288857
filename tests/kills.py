"""What a process does, killed at each of its steps in turn: for programs of their own, since this forks.

Steps are statements that change a database, commits, and what the interpreter tells its audit hooks.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa


def killed(
    act: Callable[[], object],
    at: int,
    *,
    statement: Callable[[str], bool],
    event: Callable[[str, tuple[Any, ...]], bool] = lambda *_: False,
) -> bool:
    """Whether a child that acts was killed before its step of that number; else it has acted to the end.

    `statement` says of SQL whether it is a step, and `event` of what an audit hook hears.
    """
    child = os.fork()
    if child == 0:
        steps = iter(range(at))

        def step(*_: object) -> None:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def executed(*told: Any) -> None:
            if statement(told[2]):
                step()

        def audited(name: str, told: tuple[Any, ...]) -> None:
            if event(name, told):
                step()

        sa.event.listen(sa.Engine, "before_cursor_execute", executed)
        sa.event.listen(sa.Engine, "commit", step)
        sys.addaudithook(audited)
        act()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0
