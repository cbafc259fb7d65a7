"""Failing, slow and failing-again plugins: each loses its own results only."""

from __future__ import annotations

import contextvars
import inspect
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pluggy
import pytest

from explorank.hooks import hookimpl, specs
from explorank.hooks.breaker import CircuitBreaker
from explorank.hooks.deadlines import Deadline
from explorank.hooks.errors import InvalidPlugin, PluginLate, PluginSkipped
from explorank.hooks.isolation import LIFECYCLE_HOOKS, collect_failures, isolated
from explorank.hooks.manager import RankingManager, specs_for
from explorank.hooks.types import RankingRequest

REQUEST = RankingRequest(decision_id="d1", slots=3)
HOOKS = {
    name: list(inspect.signature(function).parameters)
    for name, function in vars(specs).items()
    if hasattr(function, "explorank_spec")
}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Answering:
    """Answers `ranking_retrieve` with a value, or with what a function returns or raises."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    @hookimpl
    def ranking_retrieve(self, request):
        self.calls += 1
        return self.answer() if callable(self.answer) else self.answer


def fail():
    raise ValueError("broken")


def plugin_for(hook, body):
    """Return a plugin whose only implementation, of `hook`, takes all arguments and runs `body`."""
    names = ", ".join(HOOKS[hook])
    scope = {"body": body}
    exec(f"def {hook}({names}): return body()", scope)  # noqa: S102 - pluggy reads real signatures
    holder = type("Holder", (), {hook: staticmethod(hookimpl(scope[hook]))})
    return holder()


def call(manager, hook):
    return manager.call_each(hook, **dict.fromkeys(HOOKS[hook], REQUEST))


@pytest.mark.parametrize("hook", sorted(HOOKS))
@pytest.mark.parametrize("budget_ms", [None, 60_000.0])
def test_a_raising_plugin_loses_only_its_own_result_in_every_hook(hook, budget_ms):
    manager = RankingManager()
    seen = []
    manager.on_error(seen.append)
    firstresult = getattr(manager.hook, hook).spec.opts["firstresult"]
    manager.register(plugin_for(hook, lambda: "first"), "first")
    manager.register(plugin_for(hook, fail), "failing", budget_ms=budget_ms)
    manager.register(plugin_for(hook, lambda: None if firstresult else "last"), "last")
    results = call(manager, hook)
    assert [(r.plugin, r.value) for r in results] == [
        ("last", None if firstresult else "last"),
        ("failing", None),
        ("first", "first"),
    ]
    failure = results[1].failure
    assert (failure.plugin, failure.hook, failure.kind) == ("failing", hook, "raised")
    assert str(failure) == f"failing, {hook}: raised: ValueError: broken"
    assert seen == [failure]
    if hook != "ranking_startup":
        plain = getattr(manager.hook, hook)(**dict.fromkeys(HOOKS[hook], REQUEST))
        assert plain == ("first" if firstresult else ["last", "first"])


def test_a_firstresult_hook_stops_at_the_first_answer():
    manager = RankingManager()
    manager.register(plugin_for("ranking_score", fail), "never asked")
    manager.register(plugin_for("ranking_score", lambda: "score"), "answers")
    manager.register(plugin_for("ranking_score", lambda: None), "abstains")
    assert [(r.plugin, r.value, r.failure) for r in call(manager, "ranking_score")] == [
        ("abstains", None, None),
        ("answers", "score", None),
    ]


@pytest.mark.parametrize("budget_ms", [None, 60_000.0])
@pytest.mark.parametrize("exit_type", [KeyboardInterrupt, SystemExit])
def test_an_exit_passes_through(exit_type, budget_ms):
    def leave():
        raise exit_type

    manager = RankingManager()
    manager.register(Answering(leave), "leaving", budget_ms=budget_ms)
    with pytest.raises(exit_type):
        manager.hook.ranking_retrieve(request=REQUEST, k=1)
    assert manager.status()[0].failures == 0


def test_stage_error_tells_the_others_once_and_never_itself():
    manager = RankingManager()
    told = []

    class Alerting:
        def __init__(self, name):
            self.name = name

        @hookimpl
        def ranking_stage_error(self, error, stage, plugin, request):
            told.append((self.name, str(error), stage, plugin, request))
            raise RuntimeError("the alert failed too")

        @hookimpl
        def ranking_retrieve(self, request):
            return fail() if self.name == "broken" else self.name

    for name in ("broken", "one", "two"):
        manager.register(Alerting(name), name)
    with collect_failures() as failures:
        results = call(manager, "ranking_retrieve")
    assert sorted(told) == [(name, "broken", "retrieve", "broken", REQUEST) for name in ("one", "two")]
    assert [(r.plugin, r.value) for r in results] == [("two", "two"), ("one", "one"), ("broken", None)]
    assert [(f.plugin, f.hook) for f in failures] == [
        ("broken", "ranking_retrieve"),
        ("two", "ranking_stage_error"),
        ("one", "ranking_stage_error"),
    ]


def test_an_observer_that_raises_is_not_in_the_way_and_can_leave():
    manager = RankingManager()
    seen = []
    manager.on_error(lambda failure: 1 / 0)
    undo = manager.on_error(seen.append)
    manager.register(Answering(fail), "failing")
    call(manager, "ranking_retrieve")
    undo()
    call(manager, "ranking_retrieve")
    assert len(seen) == 1


def test_what_nobody_observes_is_logged(caplog):
    manager = RankingManager()
    manager.register(Answering(fail), "failing", breaker=CircuitBreaker(failures=1))
    for _ in range(3):
        call(manager, "ranking_retrieve")
    observed = RankingManager(on_error=lambda failure: None)
    observed.register(Answering(fail), "observed")
    call(observed, "ranking_retrieve")
    (told,) = [record for record in caplog.records if record.name == "explorank.hooks.manager"]
    assert told.getMessage() == "failing, ranking_retrieve: raised: ValueError: broken"
    assert told.exc_info


def test_hook_calls_made_by_a_plugin_are_not_attributed_to_the_outer_call():
    manager = RankingManager()
    manager.register(plugin_for("ranking_score", lambda: "inner"), "scorer")
    manager.register(
        Answering(lambda: manager.hook.ranking_score(request=REQUEST, candidates=None, features=None)),
        "nested",
    )
    assert [(r.plugin, r.value) for r in call(manager, "ranking_retrieve")] == [("nested", "inner")]


def test_failures_are_collected_per_context():
    manager = RankingManager()
    manager.register(Answering(fail), "failing", breaker=CircuitBreaker(failures=1000))

    def request(n):
        with manager.collect_failures() as failures:
            for _ in range(n):
                manager.hook.ranking_retrieve(request=REQUEST, k=1)
        return len(failures)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(request, range(20))) == list(range(20))
    assert manager.status()[0].failures == sum(range(20))


def test_nested_collections_both_see_a_failure():
    manager = RankingManager()
    manager.register(Answering(fail), "failing")
    with collect_failures() as outer:
        with collect_failures() as inner:
            call(manager, "ranking_retrieve")
        call(manager, "ranking_retrieve")
    assert (len(outer), len(inner)) == (2, 1)


# --- wrappers


class Wrapping:
    """Wraps `ranking_retrieve` and `ranking_score` with the given steps."""

    def __init__(self, before=lambda: None, after=lambda result: result):
        self.before = before
        self.after = after

    @hookimpl(wrapper=True)
    def ranking_retrieve(self):
        self.before()
        result = yield
        return self.after(result)

    @hookimpl(wrapper=True)
    def ranking_score(self, request):
        self.before()
        result = yield
        return self.after(result)


def wrapped(wrapper, **limits):
    manager = RankingManager()
    manager.register(Answering("a"), "a")
    manager.register(Answering("b"), "b")
    manager.register(plugin_for("ranking_score", lambda: "score"), "scorer")
    manager.register(wrapper, "wrapper", **limits)
    return manager


def values(manager, hook="ranking_retrieve"):
    return [(r.plugin, r.value) for r in call(manager, hook) if r.value is not None]


def spoil(result):
    result.clear()
    fail()


@pytest.mark.parametrize(
    "wrapper",
    [
        Wrapping(before=fail),
        Wrapping(after=lambda result: fail()),
        Wrapping(after=spoil),
        Wrapping(after=lambda result: None),
        Wrapping(after=tuple),
    ],
    ids=["before the yield", "after the yield", "after changing the list", "without a return", "no list"],
)
def test_a_failing_wrapper_leaves_the_result_alone(wrapper):
    manager = wrapped(wrapper)
    results = call(manager, "ranking_retrieve")
    assert sorted((r.plugin, r.value) for r in results if r.failure is None) == [("a", "a"), ("b", "b")]
    assert [(r.plugin, r.failure.kind) for r in results if r.failure] == [("wrapper", "raised")]
    assert sorted(manager.hook.ranking_retrieve(request=REQUEST, k=1)) == ["a", "b"]


def test_a_failing_wrapper_of_a_firstresult_hook_leaves_the_answer_alone():
    assert values(wrapped(Wrapping(after=lambda result: None)), "ranking_score") == [("scorer", "score")]


class Stubborn:
    """Yields never or twice."""

    def __init__(self, yields):
        self.yields = yields

    @hookimpl(wrapper=True)
    def ranking_retrieve(self):
        for _ in range(self.yields):
            yield


@pytest.mark.parametrize(("yields", "reason"), [(0, "did not yield"), (2, "second yield")])
def test_a_wrapper_yields_once(yields, reason):
    manager = wrapped(Stubborn(yields))
    assert values(manager) == [("b", "b"), ("a", "a")]
    assert reason in next(status.last_error for status in manager.status() if status.name == "wrapper")


def test_what_a_wrapper_changes_is_attributed_to_it():
    assert values(wrapped(Wrapping(after=lambda result: [*result, "c"]))) == [
        ("b", "b"),
        ("a", "a"),
        ("wrapper", "c"),
    ]
    assert values(wrapped(Wrapping(after=lambda result: result[1:]))) == [("a", "a")]
    assert values(wrapped(Wrapping(after=list))) == [("b", "b"), ("a", "a")]
    assert values(wrapped(Wrapping(after=lambda result: "other")), "ranking_score") == [("wrapper", "other")]


def test_the_own_time_of_a_wrapper_is_its_budget():
    slow = Wrapping(before=lambda: time.sleep(0.25), after=lambda result: [*result, "c"])
    results = call(wrapped(slow, budget_ms=200), "ranking_retrieve")
    assert [(r.plugin, r.failure.kind) for r in results if r.failure] == [("wrapper", "late")]
    assert "c" not in [r.value for r in results]

    never_opens = CircuitBreaker(failures=100)
    manager = wrapped(Wrapping(after=lambda result: [*result, "c"]), budget_ms=200, breaker=never_opens)
    manager.register(Answering(lambda: time.sleep(0.25)), "slow, but not the wrapper")
    # A busy machine may hold the wrapper itself up now and then, not each time.
    assert any("c" in [r.value for r in call(manager, "ranking_retrieve")] for _ in range(20))


def test_a_wrapper_cleans_up_when_an_exit_passes():
    cleaned = []

    class Closing:
        @hookimpl(wrapper=True)
        def ranking_retrieve(self):
            try:
                return (yield)
            finally:
                cleaned.append(True)

    def leave():
        raise KeyboardInterrupt

    manager = wrapped(Closing())
    manager.register(Answering(leave), "leaving")
    with pytest.raises(KeyboardInterrupt):
        call(manager, "ranking_retrieve")
    assert cleaned == [True]


def test_the_breaker_takes_a_failing_wrapper_out():
    manager = wrapped(Wrapping(before=fail), breaker=CircuitBreaker(failures=1))
    call(manager, "ranking_retrieve")
    results = call(manager, "ranking_retrieve")
    assert [r.failure.kind for r in results if r.failure] == ["breaker open"]
    assert [r.value for r in results if r.failure is None] == ["b", "a"]


# --- the circuit breaker


def test_the_breaker_opens_probes_and_closes():
    clock = Clock()
    breaker = CircuitBreaker(failures=3, window_s=30, open_s=10, clock=clock)
    for _ in range(2):
        breaker.failed()
    assert breaker.allow()
    breaker.failed()
    assert breaker.state == "open"
    assert not breaker.allow()
    clock.now += 10
    assert breaker.allow()
    assert breaker.state == "half-open"
    assert not breaker.allow()
    breaker.failed()
    assert not breaker.allow()
    clock.now += 10
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.state == "closed"
    # Closing starts afresh: the failures from before do not count.
    breaker.failed()
    assert breaker.state == "closed"


def test_failures_spread_over_more_than_the_window_do_not_open():
    clock = Clock()
    breaker = CircuitBreaker(failures=3, window_s=30, clock=clock)
    for _ in range(20):
        breaker.failed()
        clock.now += 15.5
    assert breaker.state == "closed"


def test_a_probe_that_never_reports_is_replaced():
    clock = Clock()
    breaker = CircuitBreaker(failures=1, open_s=10, clock=clock)
    breaker.failed()
    clock.now += 10
    assert breaker.allow()
    clock.now += 9
    assert not breaker.allow()
    clock.now += 1
    assert breaker.allow()


def test_one_probe_passes_however_many_threads_ask():
    clock = Clock()
    breaker = CircuitBreaker(failures=1, clock=clock)
    breaker.failed()
    clock.now += 10
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return breaker.allow()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


@pytest.mark.parametrize("limits", [{"failures": 0}, {"window_s": 0}, {"open_s": float("nan")}])
def test_a_breaker_that_could_not_work_is_refused(limits):
    with pytest.raises(InvalidPlugin):
        CircuitBreaker(**limits)


def test_an_open_breaker_skips_the_plugin_says_so_and_lets_it_back():
    clock = Clock()
    manager = RankingManager()
    plugin = Answering(fail)
    told = []
    manager.register(plugin_for("ranking_stage_error", lambda: told.append(True)), "alerts")
    manager.register(plugin, "flaky", breaker=CircuitBreaker(failures=2, clock=clock))
    for _ in range(5):
        failure = call(manager, "ranking_retrieve")[0].failure
    assert plugin.calls == 2
    assert failure.kind == "breaker open"
    assert isinstance(failure.error, PluginSkipped)
    assert "ValueError: broken" in str(failure.error)
    assert len(told) == 2  # skipped calls raise no new alarm
    status = {one.name: one for one in manager.status()}["flaky"]
    assert (status.state, status.failures) == ("open", 2)
    plugin.answer = "recovered"
    clock.now += 10
    assert call(manager, "ranking_retrieve")[0].value == "recovered"
    assert {one.name: one.state for one in manager.status()}["flaky"] == "active"


def test_an_open_breaker_does_not_keep_a_plugin_from_shutting_down():
    closed = []

    class Plugin(Answering):
        @hookimpl
        def ranking_shutdown(self):
            closed.append(True)

    manager = RankingManager()
    manager.register(Plugin(fail), breaker=CircuitBreaker(failures=1))
    call(manager, "ranking_retrieve")
    manager.hook.ranking_shutdown()
    assert closed == [True]


# --- time budgets


def test_a_late_call_is_dropped_and_its_thread_comes_back():
    release = threading.Event()
    manager = RankingManager()
    plugin = Answering(lambda: release.wait(60) and "late answer")
    manager.register(Answering("quick"), "quick", budget_ms=60_000)
    manager.register(plugin, "slow", budget_ms=10, breaker=CircuitBreaker(failures=100))
    for _ in range(4):
        results = call(manager, "ranking_retrieve")
        assert [(r.plugin, r.value) for r in results] == [("slow", None), ("quick", "quick")]
        assert results[0].failure.kind == "late"
        assert isinstance(results[0].failure.error, PluginLate)
        assert results[0].failure.elapsed_ms >= 10
    # Four abandoned calls still run: the plugin is not called until one returns.
    assert call(manager, "ranking_retrieve")[0].failure.kind == "too many abandoned calls"
    assert plugin.calls == 4
    assert {one.name: one.state for one in manager.status()} == {"quick": "active", "slow": "open"}
    release.set()
    wait_for(lambda: {one.name: one.state for one in manager.status()}["slow"] == "active")
    plugin.answer = "in time"
    manager.register(Answering("in time"), "same again", budget_ms=60_000)
    assert "in time" in [r.value for r in call(manager, "ranking_retrieve")]


def test_lateness_opens_the_breaker():
    release = threading.Event()
    manager = RankingManager()
    manager.register(
        Answering(lambda: release.wait(60)), "slow", budget_ms=5, breaker=CircuitBreaker(failures=2)
    )
    kinds = [call(manager, "ranking_retrieve")[0].failure.kind for _ in range(3)]
    release.set()
    assert kinds == ["late", "late", "breaker open"]


def test_a_budgeted_call_reads_the_callers_context_and_keeps_its_own():
    variable = contextvars.ContextVar("variable", default="unset")
    threads = []

    def read_and_write():
        threads.append(threading.current_thread())
        value = variable.get()
        variable.set("changed by the plugin")
        return value

    manager = RankingManager()
    manager.register(Answering(read_and_write), "reader", budget_ms=60_000)
    variable.set("the caller's")
    assert call(manager, "ranking_retrieve")[0].value == "the caller's"
    assert variable.get() == "the caller's"
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


def test_threads_are_reused():
    manager = RankingManager()
    threads = set()
    manager.register(
        Answering(lambda: threads.add(threading.get_ident())), "one after the other", budget_ms=60_000
    )
    for _ in range(50):
        call(manager, "ranking_retrieve")
    # One, plus those that other tests abandoned and that come back meanwhile.
    assert len(threads) < 10


def test_there_are_as_many_threads_as_calls_at_once():
    everyone = threading.Barrier(40)
    manager = RankingManager()
    manager.register(Answering(lambda: everyone.wait(60)), "waits for the others", budget_ms=60_000)
    for _ in range(2):
        with ThreadPoolExecutor(40) as pool:
            results = list(pool.map(lambda _: call(manager, "ranking_retrieve")[0], range(40)))
        assert sorted(result.value for result in results) == list(range(40))


FORKING = """
import os
from explorank.hooks import hookimpl
from explorank.hooks.manager import RankingManager

class Plugin:
    @hookimpl
    def ranking_retrieve(self, k):
        return k

manager = RankingManager()
manager.register(Plugin, budget_ms=60_000)
answer = lambda: manager.call_each("ranking_retrieve", request=None, k=1)[0].value
assert answer() == 1
child = os.fork()
if child == 0:
    os._exit(0 if answer() == 1 else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_a_forked_worker_starts_threads_of_its_own():
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=300)


def test_lifecycle_hooks_have_no_deadline():
    manager = RankingManager()
    for hook in sorted(LIFECYCLE_HOOKS):
        manager.register(plugin_for(hook, lambda: time.sleep(0.02) or "done"), hook, budget_ms=1)
        assert call(manager, hook)[0].value == "done"


@pytest.mark.parametrize("budget_ms", [0, -1, float("nan")])
def test_a_budget_that_could_not_be_kept_is_refused(budget_ms):
    with pytest.raises(InvalidPlugin, match="budget"):
        Deadline(budget_ms)


@pytest.mark.parametrize("budget_ms", [None, 60_000])
def test_many_threads_at_once(budget_ms):
    manager = RankingManager()
    manager.register(Answering(threading.get_ident), "a", budget_ms=budget_ms)
    manager.register(Answering(fail), "b", budget_ms=budget_ms, breaker=CircuitBreaker(failures=10**6))
    manager.register(Wrapping(after=lambda result: [*result, "c"]), "w")

    def request(_):
        return [(r.plugin, r.failure is None) for r in call(manager, "ranking_retrieve")]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(request, range(400)))
    assert all(answer == [("b", False), ("a", True), ("w", True)] for answer in answers)
    assert {one.name: one.failures for one in manager.status()} == {"a": 0, "b": 400, "w": 0}


def wait_for(condition, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.001)


# --- a host's own manager


def test_plugins_can_be_isolated_in_a_plain_plugin_manager():
    host = pluggy.PluginManager("shop")
    host.add_hookspecs(specs_for("shop"))
    failures = []

    def report(failure, request):
        failures.append((failure.plugin, failure.kind, request))

    host.register(isolated(Answering("fine"), "fine", project_name="shop", report=report))
    host.register(isolated(Answering(fail), "failing", project_name="shop", report=report))
    assert host.hook.ranking_retrieve(request=REQUEST, k=5) == ["fine"]
    assert failures == [("failing", "raised", REQUEST)]


class OldStyle:
    @hookimpl(hookwrapper=True)
    def ranking_retrieve(self):
        yield


class Coroutine:
    @hookimpl
    async def ranking_retrieve(self, request):
        return None


class NoYield:
    @hookimpl(wrapper=True)
    def ranking_retrieve(self):
        return None


@pytest.mark.parametrize(
    ("plugin", "way_out"),
    [(OldStyle, "Use `wrapper=True`"), (Coroutine, "Use `def`"), (NoYield, "Add `result = yield`")],
)
def test_what_cannot_be_isolated_is_refused(plugin, way_out):
    manager = RankingManager()
    with pytest.raises(InvalidPlugin, match=way_out):
        manager.register(plugin)
    assert manager.status()[0].state == "failed"
