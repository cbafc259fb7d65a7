"""Bytecode is counted the same on any machine, compiled work not at all."""

import sys

import numpy as np

from explorank.testing.operations import operations


def test_a_loop_costs_in_proportion_and_an_array_nothing():
    def loop(n):
        return operations(lambda: [row for row in range(n)])  # noqa: C416 - a loop on purpose

    assert (loop(1_100) - loop(100)) / 1_000 >= 5
    assert operations(lambda: np.arange(10)) == operations(lambda: np.arange(10_000))
    assert loop(50) == loop(50)


def test_what_was_tracing_before_traces_again():
    before = sys.gettrace()

    def tracer(frame, event, argument):
        return None

    sys.settrace(tracer)
    try:
        operations(lambda: None)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer
