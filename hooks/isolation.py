"""Isolation: a hook implementation that raises, is late or keeps failing loses its own result, nothing else.

pluggy loses the results of all implementations when one raises. Here each implementation is replaced by a
guarded function before pluggy sees it, so the isolation holds in any plugin manager, a host's own included,
and pluggy's order, `firstresult` and wrappers stay as they are.

What a failure means:

- an ordinary implementation: as if it had returned None;
- a wrapper that fails before its `yield`: as if it were absent;
- a wrapper that fails after its `yield`: the result it was given stands.

Only an `Exception` is a failure. `KeyboardInterrupt`, `SystemExit` and their like pass through.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import pluggy

from explorank.hooks.breaker import CircuitBreaker
from explorank.hooks.deadlines import Deadline
from explorank.hooks.errors import InvalidPlugin, PluginLate, PluginSkipped
from explorank.hooks.markers import PROJECT_NAME

FailureKind: TypeAlias = Literal["raised", "late", "breaker open", "too many abandoned calls"]

LIFECYCLE_HOOKS: Final = frozenset({"ranking_startup", "ranking_shutdown", "ranking_register_components"})
"""Called outside requests: always, and without a deadline. A plugin may load a model at startup, and must
release it at shutdown even while its breaker is open."""


@dataclass(frozen=True, slots=True)
class HookFailure:
    """One call of one hook implementation that gave no result."""

    plugin: str
    hook: str
    kind: FailureKind
    """`raised` or `late`; or the reason why it was not even called."""
    error: Exception
    elapsed_ms: float

    def __str__(self) -> str:
        name = f"{type(self.error).__name__}: " if self.kind == "raised" else ""
        return f"{self.plugin}, {self.hook}: {self.kind}: {name}{self.error}"


@dataclass(frozen=True, slots=True)
class HookResult:
    """What one plugin answered to a hook call; `value` is None where it abstained or failed."""

    plugin: str
    value: Any
    failure: HookFailure | None = None


Report: TypeAlias = Callable[[HookFailure, Any], None]
"""Told of each failure, with the `request` argument of the call or None."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """A function of a plugin that implements a hook."""

    attribute: str
    hook: str
    function: Callable[..., Any]
    options: pluggy.HookimplOpts


def find_implementations(plugin: object, name: str) -> list[Implementation]:
    """Return the hook implementations of `plugin`, a module or an instance.

    Raises `InvalidPlugin` for what could not work: old-style wrappers, wrappers without `yield`, coroutines.
    """
    parser = pluggy.PluginManager(PROJECT_NAME)
    found = []
    for attribute in dir(plugin):
        options = parser.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        function = getattr(plugin, attribute)
        hook = options.get("specname") or attribute
        if options.get("hookwrapper"):
            raise InvalidPlugin(
                f"Plugin {name!r} implements `{hook}` with `hookwrapper=True`, pluggy's old style, which "
                "cannot be isolated. Use `wrapper=True`: `result = yield`, then `return` the result."
            )
        if options.get("wrapper") and not inspect.isgeneratorfunction(function):
            raise InvalidPlugin(
                f"Plugin {name!r} implements `{hook}` with `wrapper=True` but without a `yield`, so there is "
                "nothing for it to wrap. Add `result = yield`, or drop `wrapper=True`."
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidPlugin(
                f"Plugin {name!r} implements `{hook}` with `async def`; hooks are called synchronously, so "
                "it would never run. Use `def`, and run coroutines on an event loop of the plugin's own."
            )
        found.append(Implementation(attribute, hook, function, options))
    return found


class Implementations:
    """What pluggy registers in a plugin's place: its hook implementations and nothing else."""

    def __init__(
        self,
        name: str,
        functions: Iterable[tuple[Implementation, Callable[..., Any]]],
        project_name: str = PROJECT_NAME,
    ) -> None:
        self._name = name
        for implementation, function in functions:
            options = dict(implementation.options, specname=implementation.hook)
            setattr(function, f"{project_name}_impl", options)
            setattr(self, implementation.attribute, function)

    def __repr__(self) -> str:
        return f"<hook implementations of {self._name!r}>"


def isolated(
    plugin: object,
    name: str,
    *,
    project_name: str = PROJECT_NAME,
    report: Report,
    budget_ms: float | None = None,
    breaker: CircuitBreaker | None = None,
) -> Implementations:
    """Return `plugin`, a module or an instance, isolated, for a host's own plugin manager to register.

    `project_name` is that manager's. The other arguments are those of `PluginGuard`.
    """
    guard = PluginGuard(name, report=report, budget_ms=budget_ms, breaker=breaker)
    return guard.implementations(find_implementations(plugin, name), project_name)


@contextlib.contextmanager
def collect_failures() -> Iterator[list[HookFailure]]:
    """Yield a list that fills with the failures of hook calls made inside the block, in this context."""
    failures: list[HookFailure] = []
    token = _failure_lists.set((*_failure_lists.get(), failures))
    try:
        yield failures
    finally:
        _failure_lists.reset(token)


def attributed(call: Callable[[], Any], *, firstresult: bool) -> list[HookResult]:
    """Make one hook call and return who answered what, failures and abstentions included, in call order.

    What a wrapper took away counts as None. What wrappers put in place is attributed to the outermost one
    that changed the result.
    """
    answers = _Answers()
    token = _answers.set(answers)
    try:
        outcome = call()
    finally:
        _answers.reset(token)
    if answers.changed_by is None:
        return answers.results
    values = [outcome] if firstresult else outcome
    kept = {id(value) for value in values}
    given = {id(result.value) for result in answers.results}
    return [
        result if id(result.value) in kept else HookResult(result.plugin, None, result.failure)
        for result in answers.results
    ] + [
        HookResult(answers.changed_by, value)
        for value in values
        if value is not None and id(value) not in given
    ]


class PluginGuard:
    """One plugin's isolation: guards its hook implementations, limits them, counts their failures.

    `budget_ms` is a deadline for each call (see `explorank.hooks.deadlines`), None calls inline. Wrappers
    always run inline: their own time on both sides of the `yield` is measured, and an overrun is a failure.
    `breaker` skips the plugin while it keeps failing. Neither applies to `LIFECYCLE_HOOKS`.
    """

    def __init__(
        self,
        name: str,
        *,
        report: Report,
        budget_ms: float | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.name = name
        self.failures = 0
        """How many calls raised or were late; calls that were skipped are not counted."""
        self.last_error: str | None = None
        self._report = report
        self._deadline = None if budget_ms is None else Deadline(budget_ms)
        self._breaker = breaker or CircuitBreaker()
        self._lock = threading.Lock()

    @property
    def skips(self) -> bool:
        """Whether the plugin is, at present, not called or only on probation."""
        return self._breaker.state != "closed" or self._exhausted

    @property
    def _exhausted(self) -> bool:
        return self._deadline is not None and self._deadline.exhausted

    def implementations(
        self, found: list[Implementation], project_name: str = PROJECT_NAME
    ) -> Implementations:
        """Return the guarded implementations, for a plugin manager to register."""
        return Implementations(self.name, [(one, self._guard(one)) for one in found], project_name)

    def _guard(self, implementation: Implementation) -> Callable[..., Any]:
        if implementation.options.get("wrapper"):
            return self._guard_wrapper(implementation.hook, implementation.function)
        return self._guard_function(implementation.hook, implementation.function)

    def _guard_function(self, hook: str, function: Callable[..., Any]) -> Callable[..., Any]:
        limited = hook not in LIFECYCLE_HOOKS
        deadline = self._deadline if limited else None
        request_of = _request_reader(function)

        def attempt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, HookFailure | None]:
            if limited and (refusal := self._refusal(hook)) is not None:
                self._tell(refusal, request_of(args, kwargs))
                return None, refusal
            started = time.perf_counter()
            try:
                value = (
                    function(*args, **kwargs) if deadline is None else deadline.run(function, args, kwargs)
                )
            except Exception as error:
                failure = self._failed(hook, error, time.perf_counter() - started)
                self._tell(failure, request_of(args, kwargs))
                return None, failure
            if limited:
                self._breaker.succeeded()
            return value, None

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            answers = _answers.get()
            if answers is None:
                return attempt(args, kwargs)[0]
            value, failure = _unattributed(attempt, args, kwargs)
            answers.results.append(HookResult(self.name, value, failure))
            return value

        return guarded

    def _guard_wrapper(
        self, hook: str, function: Callable[..., Generator[None, Any, Any]]
    ) -> Callable[..., Generator[None, Any, Any]]:
        limited = hook not in LIFECYCLE_HOOKS
        request_of = _request_reader(function)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Generator[None, Any, Any]:
            answers = _answers.get()
            request = request_of(args, kwargs)

            def fail(failure: HookFailure) -> None:
                _unattributed(self._tell, failure, request)
                if answers is not None:
                    answers.results.append(HookResult(self.name, None, failure))

            refusal = self._refusal(hook) if limited else None
            if refusal is not None:
                fail(refusal)
                return (yield)
            wrapper = function(*args, **kwargs)
            started = time.perf_counter()
            try:
                _unattributed(next, wrapper)
            except Exception as error:
                reason = RuntimeError("did not yield") if isinstance(error, StopIteration) else error
                fail(self._failed(hook, reason, time.perf_counter() - started))
                return (yield)
            before_s = time.perf_counter() - started
            try:
                given = yield
            except BaseException as error:
                # Not a plugin's failure: those are caught inside. Let the wrapper clean up, then pass it on.
                with contextlib.suppress(Exception):
                    wrapper.throw(error)
                raise
            # A wrapper may change the list and then raise; what stands is what it was given.
            untouched = given.copy() if isinstance(given, list) else given
            started = time.perf_counter()
            try:
                result = _unattributed(_finish, wrapper, given)
                elapsed_s = before_s + time.perf_counter() - started
                self._check_wrapper(untouched, result, elapsed_s)
            except Exception as error:
                fail(self._failed(hook, error, before_s + time.perf_counter() - started))
                return untouched
            if limited:
                self._breaker.succeeded()
            if answers is not None and not _same(untouched, result):
                answers.changed_by = self.name
            return result

        return guarded

    def _check_wrapper(self, given: Any, result: Any, elapsed_s: float) -> None:
        if (result is None and given is not None) or (
            isinstance(given, list) and not isinstance(result, list)
        ):
            raise TypeError(
                f"The wrapper turned the result, a {type(given).__name__}, into {result!r}, which would lose "
                "what all other plugins answered. End it with `return result`."
            )
        if self._deadline is not None and elapsed_s * 1000 > self._deadline.budget_ms:
            raise PluginLate(
                f"The wrapper itself took {elapsed_s * 1000:.1f} ms of a budget of "
                f"{self._deadline.budget_ms:g} ms; its change of the result is dropped."
            )

    def _refusal(self, hook: str) -> HookFailure | None:
        kind: FailureKind
        if self._exhausted:
            kind = "too many abandoned calls"
            reason = "its earlier calls overran their budget and still run"
        elif not self._breaker.allow():
            kind = "breaker open"
            reason = f"it failed too often; the last failure was {self.last_error}"
        else:
            return None
        error = PluginSkipped(f"Plugin {self.name!r} was not called for `{hook}`: {reason}.")
        return HookFailure(self.name, hook, kind, error, 0.0)

    def _failed(self, hook: str, error: Exception, elapsed_s: float) -> HookFailure:
        with self._lock:
            self.failures += 1
            self.last_error = f"{hook}: {type(error).__name__}: {error}"
        if hook not in LIFECYCLE_HOOKS:
            self._breaker.failed()
        kind: FailureKind = "late" if isinstance(error, PluginLate) else "raised"
        return HookFailure(self.name, hook, kind, error, elapsed_s * 1000)

    def _tell(self, failure: HookFailure, request: Any) -> None:
        for failures in _failure_lists.get():
            failures.append(failure)
        self._report(failure, request)


class _Answers:
    """Who answered what to one hook call, as the guarded functions note it down."""

    __slots__ = ("changed_by", "results")

    def __init__(self) -> None:
        self.results: list[HookResult] = []
        self.changed_by: str | None = None


_answers: ContextVar[_Answers | None] = ContextVar("_answers", default=None)
_failure_lists: ContextVar[tuple[list[HookFailure], ...]] = ContextVar("_failure_lists", default=())


def _unattributed(step: Callable[..., Any], *args: Any) -> Any:
    """Run plugin code, whose own hook calls do not belong to the hook call that is being attributed."""
    token = _answers.set(None)
    try:
        return step(*args)
    finally:
        _answers.reset(token)


def _finish(wrapper: Generator[None, Any, Any], given: Any) -> Any:
    try:
        wrapper.send(given)
    except StopIteration as end:
        return end.value
    wrapper.close()
    raise RuntimeError("has a second yield")


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, list):
        return len(before) == len(after) and all(x is y for x, y in zip(before, after, strict=True))
    return before is after


def _request_reader(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], Mapping[str, Any]], Any]:
    """Return how to find the argument `request` in a call of `function`, None where it takes none."""
    names = list(inspect.signature(function).parameters)
    position = names.index("request") if "request" in names else len(names)

    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return args[position] if position < len(args) else kwargs.get("request")

    return read
