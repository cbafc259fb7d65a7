"""The plugin manager of the ranking stage, and what puts the contract into a host's own.

`RankingManager` is pluggy's manager with isolation: plugins are registered through
`explorank.hooks.isolation`, found by entry point, and report how they fare.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import logging
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import pluggy

from explorank.hooks import specs
from explorank.hooks.breaker import CircuitBreaker
from explorank.hooks.errors import InvalidPlugin, UnknownComponent
from explorank.hooks.isolation import (
    HookFailure,
    HookResult,
    Implementation,
    Implementations,
    PluginGuard,
    attributed,
    collect_failures,
    find_implementations,
)
from explorank.hooks.markers import PROJECT_NAME
from explorank.hooks.registry import Registry, did_you_mean

ENTRY_POINT_GROUP: Final = "explorank.plugins"

PluginState: TypeAlias = Literal["active", "failed", "disabled", "open"]

__all__ = [
    "ENTRY_POINT_GROUP",
    "HookFailure",
    "HookResult",
    "PluginState",
    "PluginStatus",
    "RankingManager",
    "collect_failures",
    "implementations_for",
    "specs_for",
]

_log = logging.getLogger(__name__)
_reporting: ContextVar[bool] = ContextVar("_reporting", default=False)


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """How one plugin fares."""

    name: str
    distribution: str | None
    """The installed package it came from, where an entry point named it."""
    version: str | None
    """The version of that package."""
    hooks: tuple[str, ...]
    state: PluginState
    """`active`; `failed`: refused when it was loaded; `disabled`: by the settings; `open`: its circuit
    breaker is open or on probation, or too many of its abandoned calls still run, so it is skipped."""
    failures: int = 0
    """How many of its calls raised or were late so far."""
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class _Registered:
    plugin: object
    """What was given to `register`."""
    instance: object
    """What implements the hooks: an instance where a class was given, else the plugin itself."""
    guard: PluginGuard
    stand_in: Implementations
    """What pluggy knows instead of the plugin."""
    status: PluginStatus


class RankingManager(pluggy.PluginManager):
    """A pluggy manager whose plugins are isolated from each other.

    Everything of pluggy's works as documented there: `hook`, wrappers, ordering, blocking, tracing. Methods
    that take or return plugins speak of the plugins themselves, never of their isolated stand-ins; a class
    stands for the instance made of it.
    """

    def __init__(
        self,
        *,
        on_error: Callable[[HookFailure], None] | None = None,
        make_breaker: Callable[[], CircuitBreaker] = CircuitBreaker,
    ) -> None:
        """Make a manager that knows the contract.

        `on_error` is the first observer of failures; while there is none, failures are logged.
        `make_breaker` is asked for the circuit breaker of each plugin that comes without one.
        """
        super().__init__(PROJECT_NAME)
        self._make_breaker = make_breaker
        self._registered: dict[str, _Registered] = {}
        self._refused: dict[str, PluginStatus] = {}
        self._observers: list[Callable[[HookFailure], None]] = [] if on_error is None else [on_error]
        self.add_hookspecs(specs)

    def register(
        self,
        plugin: object,
        name: str | None = None,
        *,
        budget_ms: float | None = None,
        breaker: CircuitBreaker | None = None,
        distribution: importlib.metadata.Distribution | None = None,
    ) -> str | None:
        """Register a module, an instance, or a class to make one of, and return its name.

        `budget_ms` is the time each of its calls may take, None for no limit and no thread. The name is that
        of the module or class where none is given. A blocked name is not registered and returns None.
        Raises `InvalidPlugin` for one that breaks the contract; `status` then lists it as failed.
        """
        name = name or getattr(plugin, "__name__", None) or type(plugin).__name__
        if self.is_blocked(name):
            return None
        if self._entry(plugin) is not None or name in self._registered:
            raise InvalidPlugin(
                f"Plugin {plugin!r} cannot be registered as {name!r}: the name or the plugin is registered "
                f"already, and its hooks would be called twice. Registered: {', '.join(self._registered)}. "
                "Give each plugin a `name` of its own."
            )
        blank = _blank_status(name, distribution)
        try:
            entry = self._isolate(plugin, blank, budget_ms, breaker)
            # First ours, then pluggy's: a historic hook is replayed in `super().register`.
            self._registered[name] = entry
            super().register(entry.stand_in, name)
        except (InvalidPlugin, pluggy.PluginValidationError) as error:
            self._registered.pop(name, None)
            self._refused[name] = replace(blank, last_error=str(error))
            if isinstance(error, InvalidPlugin):
                raise
            raise InvalidPlugin(f"Plugin {name!r} does not fit the contract: {error}") from error
        self._refused.pop(name, None)
        return name

    def _isolate(
        self, plugin: object, blank: PluginStatus, budget_ms: float | None, breaker: CircuitBreaker | None
    ) -> _Registered:
        name = blank.name
        instance = _instantiate(plugin, name) if inspect.isclass(plugin) else plugin
        found = find_implementations(instance, name)
        for implementation in found:
            self._check(implementation, name)
        guard = PluginGuard(
            name, report=self._report, budget_ms=budget_ms, breaker=breaker or self._make_breaker()
        )
        hooks = tuple(sorted({implementation.hook for implementation in found}))
        return _Registered(
            plugin, instance, guard, guard.implementations(found), replace(blank, hooks=hooks, state="active")
        )

    def _check(self, implementation: Implementation, name: str) -> None:
        caller = getattr(self.hook, implementation.hook, None)
        if caller is None or caller.spec is None:
            if implementation.options.get("optionalhook"):
                return
            known = [hook for hook, known_caller in vars(self.hook).items() if known_caller.has_spec()]
            raise InvalidPlugin(
                f"Plugin {name!r} implements `{implementation.hook}`, a hook that does not exist, so it "
                f"would never be called.{did_you_mean(implementation.hook, known)} The hooks are "
                f"{', '.join(sorted(known))}."
            )
        available = (*caller.spec.argnames, *caller.spec.kwargnames)
        for parameter in inspect.signature(implementation.function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            # One with a default may belong to a later version of the contract than this one.
            passed = parameter.name in available and parameter.kind is not parameter.KEYWORD_ONLY
            if not passed and parameter.default is parameter.empty:
                raise InvalidPlugin(
                    f"Plugin {name!r} implements `{implementation.hook}` with the argument "
                    f"{parameter.name!r}, which that hook does not pass."
                    f"{did_you_mean(parameter.name, available)} Available arguments: "
                    f"{', '.join(available) or 'none'}; take those you need, by these names."
                )

    def load_entry_points(
        self, disabled: Collection[str] = (), *, budget_ms: Mapping[str, float | None] | None = None
    ) -> tuple[str, ...]:
        """Register every installed plugin of the group `explorank.plugins` and return their names.

        A plugin is a module, a class or an object. One that cannot be imported or breaks the contract is
        listed in `status` as failed, with the reason, and the others are loaded. `disabled` names are not
        even imported. `budget_ms` limits single plugins by name. Explorank's own come first, the others
        follow by name, so a third party's `ranking_score` or `ranking_explore` is asked before ours.

        Raises `UnknownComponent` where `disabled` or `budget_ms` names no installed plugin.
        """
        budgets = budget_ms or {}
        points = sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=_load_order)
        known = {point.name for point in points}
        for name in (*disabled, *budgets):
            if name not in known:
                raise UnknownComponent(
                    f"No installed plugin is called {name!r}.{did_you_mean(name, known)} Installed: "
                    f"{', '.join(sorted(known)) or 'none'}. Correct the name, or remove it from the settings."
                )
        return tuple(
            point.name for point in points if self._load(point, disabled, budgets.get(point.name)) is not None
        )

    def _load(
        self, point: importlib.metadata.EntryPoint, disabled: Collection[str], budget_ms: float | None
    ) -> str | None:
        status = _blank_status(point.name, point.dist)
        if point.name in disabled:
            self._refused[point.name] = replace(status, state="disabled")
            return None
        try:
            return self.register(point.load(), point.name, budget_ms=budget_ms, distribution=point.dist)
        except Exception as error:
            _log.warning("Plugin %r was not loaded (%s): %s", point.name, point.value, error)
            reason = str(error) if isinstance(error, InvalidPlugin) else f"{type(error).__name__}: {error}"
            self._refused[point.name] = replace(status, last_error=reason)
            return None

    def unregister(self, plugin: object | None = None, name: str | None = None) -> Any | None:
        """Unregister a plugin, given itself or its name, and return it; None where it is not registered."""
        entry = self._entry(plugin) if plugin is not None else self._registered.get(name or "")
        if entry is None:
            return super().unregister(plugin, name)
        super().unregister(entry.stand_in, name)
        del self._registered[entry.status.name]
        return entry.instance

    def get_plugin(self, name: str) -> Any | None:
        """Return the plugin registered as `name`; the instance, where a class was registered."""
        entry = self._registered.get(name)
        return None if entry is None else entry.instance

    def get_name(self, plugin: object) -> str | None:
        """Return the name that a plugin is registered under, None where it is not."""
        entry = self._entry(plugin)
        return None if entry is None else entry.status.name

    def get_plugins(self) -> set[Any]:
        """Return all registered plugins."""
        return {entry.instance for entry in tuple(self._registered.values())}

    def is_registered(self, plugin: object) -> bool:
        """Return whether a plugin is registered."""
        return self._entry(plugin) is not None

    def list_name_plugin(self) -> list[tuple[str, Any]]:
        """Return names and plugins, None for a blocked name."""
        return [(name, self.get_plugin(name)) for name, _ in super().list_name_plugin()]

    def get_hookcallers(self, plugin: object) -> list[pluggy.HookCaller] | None:
        """Return the callers of the hooks that a plugin implements, None where it is not registered."""
        entry = self._entry(plugin)
        return None if entry is None else super().get_hookcallers(entry.stand_in)

    def subset_hook_caller(self, name: str, remove_plugins: Iterable[object]) -> pluggy.HookCaller:
        """Return a caller of a hook for all plugins but `remove_plugins`."""
        entries = (self._entry(plugin) for plugin in remove_plugins)
        return super().subset_hook_caller(name, [entry.stand_in for entry in entries if entry is not None])

    def _entry(self, plugin: object) -> _Registered | None:
        # A copy: another thread may register a plugin meanwhile.
        for entry in tuple(self._registered.values()):
            if plugin is entry.instance or plugin is entry.plugin or plugin is entry.stand_in:
                return entry
        return None

    def call_each(self, hook_name: str, /, **kwargs: Any) -> list[HookResult]:
        """Call a hook and return what each plugin answered, in pluggy's order, failures included.

        An ordinary hook lists every implementation. A firstresult hook lists those up to the first answer,
        which is the only value that is not None. A failed wrapper is listed with its failure and no value.
        A historic hook is remembered for plugins that are registered later.
        """
        return self._call_each(getattr(self.hook, hook_name), kwargs)

    def _call_each(self, caller: pluggy.HookCaller, kwargs: dict[str, Any]) -> list[HookResult]:
        if caller.is_historic():
            return attributed(lambda: caller.call_historic(kwargs=kwargs), firstresult=False)
        firstresult = caller.spec is not None and bool(caller.spec.opts.get("firstresult"))
        return attributed(lambda: caller(**kwargs), firstresult=firstresult)

    def register_components(self, registry: Registry) -> list[HookResult]:
        """Let each plugin add its components to `registry`, in order of registration, under its name.

        A plugin that fails keeps what it had added before, and its failure is in the result.
        """
        results: list[HookResult] = []
        plugins = self.list_name_plugin()
        for name, plugin in plugins:
            if plugin is not None:
                others = [other for _, other in plugins if other is not plugin]
                with registry.registering(name):
                    caller = self.subset_hook_caller("ranking_register_components", others)
                    results += self._call_each(caller, {"registry": registry})
        return results

    def on_error(self, observer: Callable[[HookFailure], None]) -> Callable[[], None]:
        """Tell `observer` of every failure and every skipped call; return how to undo it.

        It is called in the thread of the hook call and should be quick. What it raises is logged.
        """
        self._observers.append(observer)
        return functools.partial(self._observers.remove, observer)

    collect_failures = staticmethod(collect_failures)

    def _report(self, failure: HookFailure, request: Any) -> None:
        skipped = failure.kind not in ("raised", "late")
        if not self._observers:
            # An open breaker skips every request for a while; the failures that opened it say why.
            if skipped:
                _log.debug("%s", failure)
            else:
                _log.warning("%s", failure, exc_info=failure.error)
        for observer in tuple(self._observers):
            try:
                observer(failure)
            except Exception:
                _log.exception("An observer of hook failures raised")
        # A skipped call is the consequence of failures that were told of already. And whoever fails while
        # being told of a failure is not told of.
        if skipped or failure.hook == "ranking_stage_error" or _reporting.get():
            return
        token = _reporting.set(True)
        try:
            tell = self.subset_hook_caller("ranking_stage_error", [self.get_plugin(failure.plugin)])
            tell(
                error=failure.error,
                stage=failure.hook.removeprefix("ranking_"),
                plugin=failure.plugin,
                request=request,
            )
        finally:
            _reporting.reset(token)

    def status(self) -> list[PluginStatus]:
        """Return how every plugin fares, those that were refused or disabled included, sorted by name."""
        active = [
            replace(
                entry.status,
                state="open" if entry.guard.skips else "active",
                failures=entry.guard.failures,
                last_error=entry.guard.last_error,
            )
            for entry in tuple(self._registered.values())
        ]
        return sorted([*active, *self._refused.values()], key=lambda status: status.name)


def specs_for(project_name: str) -> types.ModuleType:
    """Return the contract's specs, marked for a host whose plugin manager has another project name.

    Use: `host_manager.add_hookspecs(specs_for(host_manager.project_name))`.
    """
    if project_name == PROJECT_NAME:
        return specs
    marked = types.ModuleType(f"{specs.__name__} for {project_name}", specs.__doc__)
    mark = pluggy.HookspecMarker(project_name)
    parser = pluggy.PluginManager(PROJECT_NAME)
    for name in dir(specs):
        options = parser.parse_hookspec_opts(specs, name)
        if options is not None:
            setattr(marked, name, mark(_copy(getattr(specs, name)), **options))
    return marked


def implementations_for(plugin: object, project_name: str) -> Implementations:
    """Return the hook implementations of `plugin`, marked for a host with another project name.

    Use: `host_manager.register(implementations_for(plugin, host_manager.project_name), "explorank")`. They
    are called as they are; `explorank.hooks.isolation.isolated` isolates them as well.
    """
    name = getattr(plugin, "__name__", None) or type(plugin).__name__
    found = find_implementations(plugin, name)
    return Implementations(name, [(one, _copy(one.function)) for one in found], project_name)


def _copy(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def copied_wrapper(*args: Any, **kwargs: Any) -> Any:
            return (yield from function(*args, **kwargs))

        return copied_wrapper

    @functools.wraps(function)
    def copied(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return copied


def _instantiate(plugin: type, name: str) -> object:
    try:
        return plugin()
    except Exception as error:
        raise InvalidPlugin(
            f"Plugin {name!r} is the class `{plugin.__qualname__}`, which cannot be made without arguments "
            f"({type(error).__name__}: {error}). Register an instance, or give its arguments defaults."
        ) from error


def _blank_status(name: str, distribution: importlib.metadata.Distribution | None) -> PluginStatus:
    if distribution is None:
        return PluginStatus(name, None, None, hooks=(), state="failed")
    return PluginStatus(name, *_identity(distribution), hooks=(), state="failed")


@functools.lru_cache(maxsize=64)
def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Return the name and version, for which each access reads the whole metadata again."""
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _load_order(point: importlib.metadata.EntryPoint) -> tuple[bool, str]:
    own = point.dist is not None and _identity(point.dist)[0] == PROJECT_NAME
    return not own, point.name
