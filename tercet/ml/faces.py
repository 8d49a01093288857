"""Who waits, in types: what computes gives its result on a `Lake`, and an awaitable of it on an `AsyncLake`.

A method is written once and annotated with what it gives in the end; the lake that drives its plans decides
who waits. So that type checkers know too, what belongs to a lake is generic in its kind, as in `Table[Sync]`
and `Table[Async]`, and the decorators here say how what a method gives follows from that. When a program
runs, they hand back the function as it is, but for `waits`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar


class Sync:
    """The kind of a `Lake`, for scripts and notebooks: a call waits, and gives its result."""


class Async:
    """The kind of an `AsyncLake`, in trio programs: a call gives an awaitable of its result."""


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Concatenate, ParamSpec, Protocol, Self, overload

    from typing_extensions import TypeVar as TypeVarWithDefault

    from tercet.ml.table import Table

    F = TypeVarWithDefault("F", default=Any)
    """The kind of a lake; any, where it is not said."""
    M = TypeVarWithDefault("M", default=Sync)
    """The same of an estimator, which takes that of the table that it is fitted to."""
    P = ParamSpec("P")
    T = TypeVar("T")
    X = TypeVar("X")
    X_contra = TypeVar("X_contra", contravariant=True)
    S_co = TypeVar("S_co", covariant=True)
    A_co = TypeVar("A_co", covariant=True)

    class Both(Protocol[S_co, A_co]):
        """What belongs to a lake, and says what it is called on either kind."""

        @property
        def _on_sync(self) -> S_co: ...
        @property
        def _on_async(self) -> A_co: ...

    class _Bound(Protocol[P, S_co, A_co]):
        """Gives one thing for a table of a `Lake`, an awaitable of the other for one of an `AsyncLake`."""

        @overload
        def __call__(self, table: Table[Sync], *args: P.args, **kwargs: P.kwargs) -> S_co: ...
        @overload
        def __call__(self, table: Table[Async], *args: P.args, **kwargs: P.kwargs) -> Awaitable[A_co]: ...

    class _OnTable(Protocol[X_contra, P, S_co, A_co]):
        """A method, or a function of something and a table."""

        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> _Bound[P, S_co, A_co]: ...
        @overload
        def __call__(
            self, first: X_contra, /, table: Table[Sync], *args: P.args, **kwargs: P.kwargs
        ) -> S_co: ...
        @overload
        def __call__(
            self, first: X_contra, /, table: Table[Async], *args: P.args, **kwargs: P.kwargs
        ) -> Awaitable[A_co]: ...

    class computes(Generic[P, T]):  # noqa: N801 - a decorator
        """Of a method that computes at the lake of its object."""

        def __init__(self, method: Callable[Concatenate[Any, P], T]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Faced[Sync], owner: Any) -> Callable[P, T]: ...
        @overload
        def __get__(self, instance: Faced[Async], owner: Any) -> Callable[P, Awaitable[T]]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    class waits(Generic[P, T]):  # noqa: N801
        """Of an asynchronous method of a lake: a `Lake` waits for it."""

        def __init__(self, method: Callable[Concatenate[Any, P], Awaitable[T]]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Faced[Sync], owner: Any) -> Callable[P, T]: ...
        @overload
        def __get__(self, instance: Faced[Async], owner: Any) -> Callable[P, Awaitable[T]]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    def computes_on_table(method: Callable[Concatenate[X, Table, P], T]) -> _OnTable[X, P, T, T]:
        """Of a method, or a function of something, that computes at the lake of its table."""

    def makes_on_table(
        method: Callable[Concatenate[X, Table, P], Both[S_co, A_co]],
    ) -> _OnTable[X, P, S_co, A_co]:
        """The same of one whose result belongs to that lake."""

    class fits(Generic[P]):  # noqa: N801
        """Of a method that gives its own object, which then is of the kind of the table's lake."""

        def __init__(self, method: Callable[Concatenate[Any, Table, P], Any]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Both[S_co, A_co], owner: Any) -> _Bound[P, S_co, A_co]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    class _Collected(Protocol[P, S_co, A_co]):
        """The same of what has been submitted before as a job."""

        @overload
        def __call__(self, job: Any, table: Table[Sync], *args: P.args, **kwargs: P.kwargs) -> S_co: ...
        @overload
        def __call__(
            self, job: Any, table: Table[Async], *args: P.args, **kwargs: P.kwargs
        ) -> Awaitable[A_co]: ...

    class collects(Generic[P]):  # noqa: N801
        """Of a method that ends a fit which runs as a job, and gives its own object, as with `fits`."""

        def __init__(self, method: Callable[Concatenate[Any, Any, Table, P], Any]) -> None: ...
        @overload
        def __get__(self, instance: None, owner: Any) -> Self: ...
        @overload
        def __get__(self, instance: Both[S_co, A_co], owner: Any) -> _Collected[P, S_co, A_co]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

else:
    F = TypeVar("F")
    M = TypeVar("M")

    def _as_it_is(function: Any) -> Any:
        return function

    def waits(method: Any) -> Any:
        """Hands the awaitable to the lake's `_answer`, which waits for it or gives it as it is."""

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return self._answer(method(self, *args, **kwargs))

        return call

    computes = computes_on_table = makes_on_table = fits = collects = _as_it_is


class Faced(Generic[F]):
    """What belongs to a lake of one kind, `Sync` or `Async`."""

    __slots__ = ()


__all__ = [
    "Async",
    "F",
    "Faced",
    "M",
    "Sync",
    "collects",
    "computes",
    "computes_on_table",
    "fits",
    "makes_on_table",
    "waits",
]
