"""Registration, discovery and status of plugins, and hosts with a plugin manager of their own."""

from __future__ import annotations

import sys
import types

import pluggy
import pytest

from explorank.hooks import hookimpl
from explorank.hooks.errors import InvalidPlugin, UnknownComponent
from explorank.hooks.isolation import Implementations
from explorank.hooks.manager import RankingManager, implementations_for, specs_for
from explorank.hooks.registry import Registry
from explorank.hooks.types import RankingRequest

REQUEST = RankingRequest(decision_id="d1", slots=3)


class Retriever:
    @hookimpl
    def ranking_retrieve(self, request, k):
        return (type(self).__name__, request.decision_id, k)


class Scorer:
    @hookimpl
    def ranking_score(self, request):
        return "scores"


def module_plugin():
    module = types.ModuleType("acme_plugin")

    @hookimpl
    def ranking_retrieve(request, k):
        return ("module", request.decision_id, k)

    module.ranking_retrieve = ranking_retrieve
    return module


def retrieve(manager):
    return manager.hook.ranking_retrieve(request=REQUEST, k=5)


# --- what a plugin may be


def test_a_plugin_is_a_module_a_class_or_an_instance():
    manager = RankingManager()
    assert manager.register(module_plugin()) == "acme_plugin"
    assert manager.register(Retriever) == "Retriever"
    assert manager.register(Retriever(), "mine") == "mine"
    assert manager.register(Scorer()) == "Scorer"
    assert retrieve(manager) == [("Retriever", "d1", 5), ("Retriever", "d1", 5), ("module", "d1", 5)]


class Decorated:
    @staticmethod
    @hookimpl
    def ranking_retrieve(request, k):
        return ("static", k)

    @classmethod
    @hookimpl(specname="ranking_retrieve", tryfirst=True)
    def by_another_name(cls, k, request=None):
        return (cls.__name__, k, request)

    @hookimpl(specname="ranking_retrieve", trylast=True)
    def last(self):
        return "last"

    @hookimpl(optionalhook=True)
    def hook_of_another_host(self, anything):
        return anything


def test_pluggys_options_and_kinds_of_functions_are_kept():
    manager = RankingManager()
    manager.register(Decorated)
    assert retrieve(manager) == [("Decorated", 5, REQUEST), ("static", 5), "last"]
    manager.check_pending()


def test_plugins_are_spoken_of_by_themselves():
    manager = RankingManager()
    plugin, module = Retriever(), module_plugin()
    manager.register(plugin, "mine")
    manager.register(module)
    assert manager.get_plugin("mine") is plugin
    assert manager.get_name(plugin) == "mine"
    assert manager.is_registered(plugin)
    assert manager.has_plugin("mine")
    assert manager.get_plugins() == {plugin, module}
    assert manager.list_name_plugin() == [("mine", plugin), ("acme_plugin", module)]
    assert [caller.name for caller in manager.get_hookcallers(plugin)] == ["ranking_retrieve"]
    others = manager.subset_hook_caller("ranking_retrieve", [plugin])
    assert others(request=REQUEST, k=5) == [("module", "d1", 5)]
    assert manager.unregister(plugin) is plugin
    assert manager.unregister(name="acme_plugin") is module
    assert retrieve(manager) == []
    assert manager.status() == []
    assert not manager.is_registered(plugin)
    assert manager.get_hookcallers(plugin) is None
    assert manager.get_plugin("mine") is None


def test_a_class_stands_for_its_instance():
    manager = RankingManager()
    manager.register(Retriever)
    assert isinstance(manager.get_plugin("Retriever"), Retriever)
    assert manager.get_name(Retriever) == "Retriever"
    with pytest.raises(InvalidPlugin, match="already"):
        manager.register(Retriever, "again")
    manager.unregister(Retriever)
    assert retrieve(manager) == []


def test_a_blocked_name_is_not_registered():
    manager = RankingManager()
    manager.register(Retriever)
    manager.set_blocked("Retriever")
    assert retrieve(manager) == []
    assert manager.register(Retriever) is None
    assert manager.unblock("Retriever")
    assert manager.register(Retriever) == "Retriever"


def test_a_name_is_taken_once():
    manager = RankingManager()
    manager.register(Retriever(), "mine")
    with pytest.raises(InvalidPlugin, match=r"'mine'.*`name` of its own"):
        manager.register(Scorer(), "mine")
    assert manager.status()[0].hooks == ("ranking_retrieve",)


def test_pluggys_tracing_still_works():
    manager = RankingManager()
    calls = []
    manager.register(Retriever)
    undo = manager.add_hookcall_monitoring(
        lambda name, impls, kwargs: calls.append((name, [impl.plugin_name for impl in impls])),
        lambda outcome, *rest: calls.append(outcome.get_result()),
    )
    retrieve(manager)
    undo()
    assert calls == [("ranking_retrieve", ["Retriever"]), [("Retriever", "d1", 5)]]


# --- what is refused


class WrongArgument:
    @hookimpl
    def ranking_score(self, request, candidate):
        return None


class WrongHook:
    @hookimpl
    def ranking_scores(self, request):
        return None


class KeywordOnly:
    @hookimpl
    def ranking_score(self, *, request):
        return None


class NeedsArguments:
    def __init__(self, path):
        self.path = path


class HistoricWrapper:
    @hookimpl(wrapper=True)
    def ranking_startup(self):
        return (yield)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (
            WrongArgument,
            r"'WrongArgument' implements `ranking_score` with the argument 'candidate'.* Did you mean "
            r"'candidates'\? Available arguments: request, candidates, features",
        ),
        (WrongHook, r"'WrongHook' implements `ranking_scores`.* Did you mean 'ranking_score'\?"),
        (KeywordOnly, r"'KeywordOnly' implements `ranking_score` with the argument 'request'"),
        (NeedsArguments, r"'NeedsArguments' is the class .* cannot be made without arguments .*path"),
        (HistoricWrapper, r"(?s)'HistoricWrapper'.*ranking_startup.*historic"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_plugin_that_breaks_the_contract_is_refused_alone(plugin, message):
    manager = RankingManager()
    manager.register(Retriever)
    with pytest.raises(InvalidPlugin, match=message):
        manager.register(plugin)
    assert retrieve(manager) == [("Retriever", "d1", 5)]
    status = {one.name: one for one in manager.status()}
    assert status["Retriever"].state == "active"
    assert status[plugin.__name__].state == "failed"
    assert status[plugin.__name__].hooks == ()
    assert plugin.__name__ in status[plugin.__name__].last_error
    assert manager.get_plugin(plugin.__name__) is None


def test_an_argument_of_a_later_contract_has_a_default():
    class Modern:
        @hookimpl
        def ranking_retrieve(self, k, deadline_ms=7):
            return (k, deadline_ms)

    manager = RankingManager()
    manager.register(Modern)
    assert retrieve(manager) == [(5, 7)]


# --- historic startup


class Starting:
    def __init__(self):
        self.started = []

    @hookimpl
    def ranking_startup(self, settings, services):
        self.started.append((settings, services))
        if settings == "bad":
            raise ValueError("cannot start")


def test_startup_reaches_plugins_that_come_late_and_is_isolated():
    manager = RankingManager()
    early, late = Starting(), Starting()
    failures = []
    manager.on_error(failures.append)
    manager.register(early, "early")
    assert [
        (r.plugin, r.failure) for r in manager.call_each("ranking_startup", settings="s", services=1)
    ] == [("early", None)]
    manager.call_each("ranking_startup", settings="bad", services=2)
    assert manager.register(late, "late") == "late"
    assert early.started == late.started == [("s", 1), ("bad", 2)]
    assert [(one.plugin, one.hook) for one in failures] == [
        ("early", "ranking_startup"),
        ("late", "ranking_startup"),
    ]
    assert [(one.state, one.failures, one.last_error) for one in manager.status()] == [
        ("active", 1, "ranking_startup: ValueError: cannot start")
    ] * 2


# --- components


class Registering:
    def __init__(self, *names):
        self.names = names

    @hookimpl
    def ranking_register_components(self, registry):
        for name in self.names:
            registry.policy(name, dict)


def test_components_are_registered_under_their_plugins_name():
    manager, registry = RankingManager(), Registry()
    manager.register(Registering("greedy"), "ours")
    manager.register(Registering("other", "greedy", "never reached"), "theirs")
    manager.register(Registering("third"), "third")
    manager.register(Retriever)
    manager.set_blocked("nobody")
    results = manager.register_components(registry)
    assert [(one.name, one.plugin) for one in registry.components("policy")] == [
        ("greedy", "ours"),
        ("other", "theirs"),
        ("third", "third"),
    ]
    assert [(r.plugin, r.failure is None) for r in results] == [
        ("ours", True),
        ("theirs", False),
        ("third", True),
    ]
    assert isinstance(results[1].failure.error, InvalidPlugin)


# --- entry points


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return how to install a distribution with one module and its entry points, in a folder of its own."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    made = []

    def install(distribution, module, source, points):
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{name} = {target}" for name, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[explorank.plugins]", *lines]))
        (tmp_path / f"{module}.py").write_text(source)
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)


PLUGIN_SOURCE = """
from explorank.hooks import hookimpl

@hookimpl
def ranking_retrieve(request, k):
    return "module"

class Plugin:
    def __init__(self, answer="class"):
        self.answer = answer
    @hookimpl
    def ranking_retrieve(self, request, k):
        return self.answer

plugin = Plugin("object")
"""


def test_entry_points_are_modules_classes_or_objects(install):
    install(
        "acme-ranking",
        "acme_ranking",
        PLUGIN_SOURCE,
        {"b-module": "acme_ranking", "a-class": "acme_ranking:Plugin", "c-object": "acme_ranking:plugin"},
    )
    manager = RankingManager()
    assert manager.load_entry_points() == ("a-class", "b-module", "c-object")
    assert retrieve(manager) == ["object", "module", "class"]
    status = manager.status()[0]
    assert (status.name, status.distribution, status.version) == ("a-class", "acme-ranking", "1.2")
    assert (status.hooks, status.state) == (("ranking_retrieve",), "active")


def test_explorank_comes_first_so_that_others_are_asked_before(install):
    install("acme", "acme_one", PLUGIN_SOURCE, {"a-third-party": "acme_one"})
    install("explorank", "explorank_stand_in", PLUGIN_SOURCE, {"z-own": "explorank_stand_in"})
    assert RankingManager().load_entry_points() == ("z-own", "a-third-party")


def test_a_broken_plugin_is_reported_and_the_others_are_loaded(install):
    install("broken", "broken_import", "import no_such_module_anywhere", {"broken": "broken_import"})
    install("missing", "acme_two", PLUGIN_SOURCE, {"missing": "acme_two:nothing", "fine": "acme_two"})
    misfit = "from explorank.hooks import hookimpl\n@hookimpl\ndef ranking_score(row): ...\n"
    install("misfit", "acme_misfit", misfit, {"misfit": "acme_misfit"})
    manager = RankingManager()
    assert manager.load_entry_points() == ("fine",)
    status = {one.name: one for one in manager.status()}
    assert {name: one.state for name, one in status.items()} == {
        "broken": "failed",
        "missing": "failed",
        "misfit": "failed",
        "fine": "active",
    }
    assert "ModuleNotFoundError" in status["broken"].last_error
    assert "no_such_module_anywhere" in status["broken"].last_error
    assert "nothing" in status["missing"].last_error
    assert "Available arguments: request, candidates, features" in status["misfit"].last_error
    assert (status["misfit"].distribution, status["misfit"].version) == ("misfit", "1.2")


def test_a_disabled_plugin_is_listed_and_not_imported(install):
    install("acme", "acme_three", "raise SystemExit", {"acme": "acme_three"})
    manager = RankingManager()
    assert manager.load_entry_points(disabled=["acme"]) == ()
    assert [(one.name, one.distribution, one.state) for one in manager.status()] == [
        ("acme", "acme", "disabled")
    ]
    assert "acme_three" not in sys.modules


@pytest.mark.parametrize("options", [{"disabled": ["acm"]}, {"budget_ms": {"acm": 5.0}}])
def test_a_misspelt_plugin_name_is_an_error(install, options):
    install("acme", "acme_four", PLUGIN_SOURCE, {"acme": "acme_four"})
    with pytest.raises(UnknownComponent, match=r"'acm'\. Did you mean 'acme'\? Installed: acme"):
        RankingManager().load_entry_points(**options)


def test_a_second_plugin_of_the_same_name_is_refused(install):
    install("acme", "acme_five", PLUGIN_SOURCE, {"same": "acme_five"})
    install("zeta", "zeta_five", PLUGIN_SOURCE, {"same": "zeta_five"})
    manager = RankingManager()
    assert manager.load_entry_points() == ("same",)
    states = {(one.distribution, one.state) for one in manager.status()}
    assert states in (
        {("acme", "active"), ("zeta", "failed")},
        {("zeta", "active"), ("acme", "failed")},
    )


def test_a_budget_is_set_by_name(install):
    slow = "import time\n" + PLUGIN_SOURCE.replace('return "module"', "time.sleep(0.05)")
    install("acme", "acme_six", slow, {"acme": "acme_six"})
    manager = RankingManager()
    manager.load_entry_points(budget_ms={"acme": 5.0})
    assert manager.call_each("ranking_retrieve", request=REQUEST, k=1)[0].failure.kind == "late"


# --- a host with a plugin manager of its own


def test_a_host_with_another_project_name_takes_specs_and_implementations():
    class WithWrapper(Scorer):
        @hookimpl(wrapper=True)
        def ranking_retrieve(self, k):
            return [*(yield), k]

    host = pluggy.PluginManager("shop")
    host.add_hookspecs(specs_for(host.project_name))
    host.register(implementations_for(module_plugin(), "shop"), "module")
    host.register(implementations_for(WithWrapper(), "shop"), "wrapper")
    host.check_pending()
    assert host.hook.ranking_retrieve(request=REQUEST, k=5) == [("module", "d1", 5), 5]
    assert host.hook.ranking_score(request=REQUEST, candidates=None, features=None) == "scores"
    assert host.hook.ranking_startup.is_historic()
    assert host.hook.ranking_explore.spec.opts["firstresult"]


def test_specs_and_implementations_for_another_host_leave_ours_alone():
    plugin = module_plugin()
    specs_for("elsewhere")
    implementations_for(plugin, "elsewhere")
    other = pluggy.PluginManager("elsewhere")
    with pytest.raises(ValueError, match="did not find any 'elsewhere' hooks"):
        other.add_hookspecs(specs_for("explorank"))
    assert not hasattr(plugin.ranking_retrieve, "elsewhere_impl")


def test_a_host_of_the_same_project_name_needs_no_marking():
    host = pluggy.PluginManager("explorank")
    host.add_hookspecs(specs_for("explorank"))
    host.register(Retriever())
    assert host.hook.ranking_retrieve(request=REQUEST, k=5) == [("Retriever", "d1", 5)]
    assert isinstance(implementations_for(Retriever(), "explorank"), Implementations)
