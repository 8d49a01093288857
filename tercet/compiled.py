"""Kernels: functions of arrays that are compiled for the machine they run on, when they are first called.

A kernel declares the types of its arguments, and is compiled for these alone, or loaded from numba's cache,
where compiled code is kept. Until then nothing of numba is imported: whoever deals tables and asks for
results needs none of it. Nodes call `load_all` before they serve anybody, so that no run has to wait. Kernels
are loaded under a lock between processes: when three parties start on one machine, the first compiles and the
others load what it left. Who compiles says so.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

UINT64, INT64, FLOAT64, BOOLEAN, UINT8 = "uint64", "int64", "float64", "boolean", "uint8"


@attrs.frozen
class Array:
    """The type of a C-contiguous array of `item`s; what comes in may be read-only, or not aligned."""

    item: str
    ndim: int
    readonly: bool = False
    aligned: bool = True


def _numba_type(kind: str | Array) -> Any:
    from numba import types

    if isinstance(kind, str):
        return getattr(types, kind)
    item = getattr(types, kind.item)
    return types.Array(item, kind.ndim, "C", readonly=kind.readonly, aligned=kind.aligned)


class Inline:
    """A function that kernels of the same file call; it is compiled into each of them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        """The function itself, as it is outside of kernels."""
        return self.function(*args)

    def compiled(self) -> Any:
        """What kernels call."""
        import numba

        return numba.njit(nogil=True, error_model="numpy")(self.function)


class Instruction(Inline):
    """An instruction of the processor: the function gives the types of a call, and what emits it."""

    def compiled(self) -> Any:
        """What kernels call."""
        from numba.extending import intrinsic

        return intrinsic(self.function)


def inline(function: Function) -> Function:
    """Mark a function that kernels of the same file call."""
    return cast("Function", Inline(function))


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that returns the signature of a call, and what emits the instruction for it."""
    return Instruction(function)


class Kernel:
    """A function that is compiled when it is first called, and never again; it runs without the GIL.

    Floating point is strict IEEE (no contraction, no reassociation): two parties on unlike machines must get
    the same bits.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[str | Array, ...]) -> None:
        self.function = function
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self._arguments = arguments
        self._call: Callable[..., Any] = self._first_call
        self.compiled_here = False
        """Whether this process did not find it in the cache."""

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self._call(*args)

    def _first_call(self, *args: Any) -> Any:
        self.load()
        return self._call(*args)

    def load(self) -> None:
        """Compile it, or load it from the cache, unless that was done. In any thread."""
        if self._call != self._first_call:
            return
        import numba

        names = self.function.__globals__
        for name, value in list(names.items()):
            if isinstance(value, Inline):
                names[name] = value.compiled()
        dispatcher = numba.njit(nogil=True, cache=True, error_model="numpy")(self.function)
        with _only_process(Path(str(dispatcher.stats.cache_path))):
            dispatcher.compile(tuple(map(_numba_type, self._arguments)))
        if dispatcher.stats.cache_misses:
            self.compiled_here = True
            if sum(kernel.compiled_here for kernel in _kernels) == 2:  # one takes no time worth a word
                what = "compiles its numerical kernels for this machine, once; it takes a minute or two"
                logger.warning("Tercet %s", what)  # where no log is set up, on standard error
        dispatcher.disable_compile()
        self._call = dispatcher


_kernels: list[Kernel] = []


def kernel(*arguments: str | Array) -> Callable[[Function], Function]:
    """Make a function a kernel for arguments of these types."""

    def build(function: Function) -> Function:
        made = Kernel(function, arguments)
        _kernels.append(made)
        return cast("Function", made)

    return build


def load_all() -> None:
    """Load all kernels of the modules that are imported, which takes half a second. In any thread."""
    for one in _kernels:
        one.load()


@contextlib.contextmanager
def without_scipy() -> Iterator[None]:
    """Hide SciPy from numba while it starts: it would import it for products of floats, which no kernel has.

    That is a quarter of the time that loading takes. For a process that has no other threads, which might
    want SciPy meanwhile; changes nothing where that was imported before.
    """
    if "scipy" in sys.modules:
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Python's way to say that there is none
    try:
        yield
    finally:
        del sys.modules["scipy"]


@contextlib.contextmanager
def _only_process(cache: Path) -> Iterator[None]:
    """Keep other processes that use the same numba cache from compiling meanwhile."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tercet-kernels.lock").open("ab") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, or its process dies
        yield


__all__ = [
    "BOOLEAN",
    "FLOAT64",
    "INT64",
    "UINT8",
    "UINT64",
    "Array",
    "inline",
    "instruction",
    "kernel",
    "load_all",
    "without_scipy",
]
