"""Functions compiled to machine code, for what would take a request ten passes of numpy.

They run where they are called, on one thread and without the interpreter's lock, and compute what they say they
compute: nothing is reordered or rounded otherwise for speed unless a function says so. The machine code is kept
beside the source (or, where that cannot be written, in the user's cache), so that only the first process ever
compiles; `warm_up` makes all of it ready before a request needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

_KERNELS: Final[list[tuple[Any, tuple[tuple[Any, ...], ...]]]] = []


def _readable(dtype: Any, ndim: int, layout: str = "C") -> Any:
    # Arrays that may be written are taken for these too.
    return types.Array(dtype, ndim, layout, readonly=True)


INTEGER: Final = types.int64
WORD: Final = types.uint64
FLOAT: Final = types.float64
FLAG: Final = types.boolean
MASK: Final = _readable(types.boolean, 1)
ROWS: Final = _readable(types.int64, 1)
VECTOR: Final = _readable(types.float64, 1)
MATRIX: Final = _readable(types.float64, 2)
SINGLE_VECTOR: Final = _readable(types.float32, 1)
SINGLE_MATRIX: Final = _readable(types.float32, 2)
FEATURES: Final = _readable(types.float32, 2, "A")
"""(n, d) float32 in any layout: candidates may share one row."""
WRITTEN_MASK: Final = types.Array(types.boolean, 1, "C")
WRITTEN_MASKS: Final = types.Array(types.boolean, 2, "C")
WRITTEN_WORDS: Final = types.Array(types.uint64, 1, "C")
WRITTEN_ROWS: Final = types.Array(types.int64, 1, "C")
WRITTEN_VECTOR: Final = types.Array(types.float64, 1, "C")
WRITTEN_MATRIX: Final = types.Array(types.float64, 2, "C")
WRITTEN_SINGLES: Final = types.Array(types.float32, 1, "C")


def kernel(*signatures: Sequence[Any], reorder: bool = False) -> Callable[[F], F]:
    """Compile a function for arguments of these types; `reorder` lets sums be added up in any order.

    Arrays that it writes must be named so in the signature: the others are read only.
    """
    fastmath: set[str] | bool = {"reassoc", "contract"} if reorder else False

    def decorate(function: F) -> F:
        options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
        try:
            compiled = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to write to: each process compiles for itself
            compiled = numba.njit(**options)(function)
        _KERNELS.append((compiled, tuple(tuple(signature) for signature in signatures)))
        return cast("F", compiled)

    return decorate


def inlined(function: F) -> F:
    """Compile a function for the kernels that call it."""
    return cast("F", numba.njit(nogil=True, error_model="numpy", inline="never")(function))


def warm_up() -> None:
    """Load every kernel, or compile it where no process has before (some seconds); later calls do nothing.

    Afterwards none compiles any more: arguments of other types than it was made for raise `TypeError`.
    """
    while _KERNELS:
        compiled, signatures = _KERNELS.pop()
        for signature in signatures:
            compiled.compile(signature)
        compiled.disable_compile()
