"""Tracebacks: what went wrong is a sentence, and where is the caller's own line.

Between a mistake and the line that made it lie generators of plans, an event loop and two threads, which
tell a user nothing. So what users call lets errors of Tercet, and interrupts, out without the frames beneath
it. Who works on Tercet itself sets the environment variable TERCET_TRACEBACK=full, or has the logger
`tercet.tracebacks` at debug.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tercet.errors import TercetError

logger = logging.getLogger(__name__)

VARIABLE = "TERCET_TRACEBACK"
Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

NOT_CALLED_BY_USERS = {
    "__attrs_init__",
    "__attrs_post_init__",
    "__class_getitem__",
    "__delattr__",
    "__getattribute__",
    "__getstate__",
    "__hash__",
    "__init_subclass__",
    "__new__",
    "__repr__",
    "__setattr__",
    "__setstate__",
    "__str__",
}
"""Methods with two underscores that users do not call, as they do operators, indexing and constructors."""


def shorten(error: BaseException) -> None:
    """Take the frames and the earlier errors off an error, unless they are asked for."""
    logger.debug("%s: %s", type(error).__name__, error, exc_info=error)
    if os.environ.get(VARIABLE) != "full":
        error.__traceback__ = error.__cause__ = error.__context__ = None


def short(function: Function) -> Function:
    """The same function, from which errors of Tercet come out as if its caller's line had raised them.

    An error that is raised again as it is gets no frame of who raises it, so not even this one is left.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (TercetError, KeyboardInterrupt) as error:
            shorten(error)
            raise

    @functools.wraps(function)
    async def wait(*args: Any, **options: Any) -> Any:
        try:
            return await function(*args, **options)
        except (TercetError, KeyboardInterrupt) as error:
            shorten(error)
            raise

    return cast("Function", wait if inspect.iscoroutinefunction(function) else call)


def short_tracebacks(cls: Class) -> Class:
    """A class, all of whose own methods that users call are `short`: public ones, operators, constructor."""
    for name, member in list(vars(cls).items()):
        special = name.startswith("__") and name.endswith("__") and name not in NOT_CALLED_BY_USERS
        if isinstance(member, types.FunctionType) and (special or not name.startswith("_")):
            setattr(cls, name, short(member))
    return cls
