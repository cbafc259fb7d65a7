"""How a suite says what is wrong: in words, whatever `assert` is set to."""

from __future__ import annotations

import contextlib
import unittest
import warnings
from collections.abc import Iterator


def demand(holds: object, otherwise: str) -> None:
    """Fail the test with the message `otherwise` unless `holds`."""
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(otherwise)


def skip_because(reason: str | None) -> None:
    """Leave the test out, and let the report show why, where there is a `reason`."""
    __tracebackhide__ = True
    if reason is not None:
        raise unittest.SkipTest(reason)  # which pytest knows, and needs no import of it


@contextlib.contextmanager
def refused(error: type[Exception], why: str) -> Iterator[None]:
    """Demand that the block raises `error`; `why` says what follows where it does not."""
    __tracebackhide__ = True
    try:
        yield
    except error:
        return
    except Exception as other:
        raise AssertionError(
            f"{type(other).__name__} was raised instead of {error.__name__} ({other}). {why}"
        ) from other
    raise AssertionError(f"Nothing was raised; {error.__name__} is due. {why}")


@contextlib.contextmanager
def without_warnings(doing: str) -> Iterator[None]:
    """Demand that the block neither raises nor warns, as a service that treats warnings as errors would."""
    __tracebackhide__ = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(
            f"{type(error).__name__} while {doing}: {error}. A request must be answered; handle the case, or "
            "silence the warning where its outcome is the one you mean."
        ) from error
