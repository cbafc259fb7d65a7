"""How much Python runs: counted in bytecode instructions, so that no clock and no other load has a say."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def operations(call: Callable[[], object]) -> int:
    """Return how many bytecode instructions `call` executes, compiled code left out.

    A debugger's or a coverage tool's trace function is put back afterwards.
    """
    counted = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001 - `sys.settrace` passes it
        nonlocal counted
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            counted += 1
        return trace

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()  # what runs with a collection is not the call's
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return counted
