"""How a running installation fares."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from explorank.assembly import Installation


def readiness(installation: Installation) -> dict[str, str]:
    """Return what keeps the stage from answering as configured, by part; empty when it is ready.

    A new artefact that was refused does not count while the last good one still serves. Nor does what keeps
    exploration from happening, be it a stop or a ranker that no calibration was fitted for (`unexplored_because`
    tells): the baseline answers, and a load balancer must not take every process out at once. A calibration is
    fitted to rewards, which only come once the stage is asked.
    """
    problems: dict[str, str] = {}
    settings = installation.settings
    if settings.retrieval.retrievers and installation.catalogue.get() is None:
        problems["catalogue"] = str(installation.catalogue.error or "not built; run `explorank build`")
    if settings.ranker is not None and installation.ranker.get() is None:
        problems["ranker"] = str(installation.ranker.error or "not trained; run `explorank train`")
    for plugin in installation.manager.status():
        if plugin.state == "failed":
            problems[f"plugin {plugin.name}"] = plugin.last_error or "failed to load"
    for name, reason in installation.not_started.items():
        problems[f"plugin {name}"] = f"failed to start: {reason}"
    if (trouble := installation.recorder.trouble) is not None:
        problems["log"] = trouble
    if (exposures := installation.exposures) is not None and exposures.trouble is not None:
        problems["exposures"] = exposures.trouble
    return problems


def unexplored_because(installation: Installation) -> str:
    """Return what keeps every request to the stage from exploring, as far as artefacts do; empty where nothing does.

    Requests whose host says itself what it expects of each item need no calibration.
    """
    if misfit := installation.exploration_features.misfit(installation.ranker.get()):
        return misfit
    if not installation.settings.exploration.warm_start:
        return ""
    calibration, ranker = installation.calibration.get(), installation.decider.versions()["ranker"]
    if calibration is not None and calibration.ranker == ranker:
        return ""
    return str(
        installation.calibration.error
        or "No calibration fits the ranker that serves, so that nothing explores; run `explorank calibrate` once there "
        "are rewards."
    )


def status(installation: Installation) -> dict[str, Any]:
    """Return plugins, versions, artefacts and the learner's figures, as JSON-ready plain types."""
    kill_switch = installation.kill_switch
    return {
        "versions": installation.decider.versions(),
        "policy": installation.policy.name,
        "policy_version": installation.learner.snapshot.version,
        "mode": installation.settings.exploration.mode,
        "kill_switch": {"engaged": kill_switch.engaged, "reason": kill_switch.reason},
        "safety": None if installation.safety is None else installation.safety.status(),
        "learner": asdict(installation.learner.stats),
        "limits": installation.budgets.figures,
        "refused_artefacts": {
            kind: str(watched.error)
            for kind, watched in (
                ("catalogue", installation.catalogue),
                ("ranker", installation.ranker),
                ("calibration", installation.calibration),
            )
            if watched.error is not None
        },
        "unexplored_because": unexplored_because(installation),
        "plugins": [asdict(plugin) for plugin in installation.manager.status()],
    }
