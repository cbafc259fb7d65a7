"""Functions compiled to machine code, which is kept beside the source or in the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile `function` for one thread, without the interpreter's lock."""
    return _compiled(function, fastmath=False)


def compiled_in_any_order(function: Function) -> Function:
    """Compile `function`, whose sums may be added up in any order."""
    return _compiled(function, fastmath={"reassoc", "contract"})


def _compiled(function: Function, **options: Any) -> Function:
    try:
        return cast("Function", numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # nowhere to write to: each process compiles for itself
        return cast("Function", numba.njit(nogil=True, **options)(function))
