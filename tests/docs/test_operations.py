"""The page on operations lists the calls and the metrics that there are."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from explorank.hooks.feedback import KillSwitch
from explorank.host.handlers import Handlers
from explorank.host.limits import Limits
from explorank.host.metrics import HostMetrics
from explorank.host.operations import operations
from explorank.safety import Safety
from explorank.settings import parse_settings

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
METRICS = HostMetrics(lambda: False, status=lambda: {"safety": limits()})


def limits() -> dict[str, Any]:
    """The status of all limits on what exploration may cost, before any decision."""
    settings = parse_settings(
        {"version": 1, "exploration": {"safety": {"conservative": {}, "stop": {}}}}, PAGE.parent
    )
    safety = Safety.of(settings, KillSwitch(PAGE.with_name("there is no such switch")))
    assert safety is not None
    return safety.status()


def test_every_call_stands_there_with_its_scope() -> None:
    content = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(GET|POST) (\S+)` \| (?:`(\w+)`|open) \|", content, re.MULTILINE)
    told = {(method, re.sub(r"{\w+}", "{}", path), scope) for method, path, scope in rows}
    nobody = cast("Any", SimpleNamespace())
    table = operations(Handlers(nobody, METRICS, Limits()), Limits())
    assert told == {
        (call.method, re.sub(r"{\w+}", "{}", call.path), "" if call.scope is None else str(call.scope))
        for call in table
    } | {("GET", "/openapi.json", "")}


def test_every_metric_it_names_is_exposed() -> None:
    exposed = {
        metric
        for metric in re.findall(r"^# TYPE (\w+)", METRICS.exposition().decode(), re.MULTILINE)
        if metric.startswith("explorank_") and not metric.endswith("_created")
    }
    named = re.findall(r"^\| `(explorank_\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(exposed)
