"""How training data is made, and what becomes of the ranker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from explorank.pipeline.evidence import PromotionRule
from explorank.pipeline.queries import QueryOptions
from explorank.pipeline.tracking import TrackerName


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How the data is made, and what becomes of the ranker; what it is trained with is the ranker's own."""

    rows: Literal["interactions", "log"] = "interactions"
    """`interactions`: past requests are made up from what users did, and items that nobody was shown are drawn for
    comparison. `log`: what this installation displayed, in which slot, and what was taken up of it."""
    max_decisions: int = 20_000
    """At most this many decisions of the log, the latest; for `log`."""
    until: float | None = None
    """No decision whose horizon ends later teaches, in seconds since the Unix epoch; for `log`. `None` is now."""
    queries: QueryOptions = field(default_factory=QueryOptions)
    max_queries: int = 2_000
    """At most this many past requests, the latest; they resemble most what will be asked."""
    negatives: int = 60
    """How many items are drawn for a query's positives to be told from."""
    validation_share: float = 0.2
    """The latest share of the queries, by time, on which training stops early."""
    tables_by_use: int = 8
    """Into how many blocks, by time, the training queries are cut where `retrieval.by_use` is set: each is told what
    has the same users by what happened before it. More are nearer to what serves, and take as many fits."""
    seed: int = 0
    start: str | None = None
    """What the ranker begins as, such as that of another surface or catalogue: a published version of this
    installation, or a folder with a ranker of the same kind; `None` trains from scratch."""
    promote: PromotionRule = "unless-worse"
    """When the new ranker becomes current; the first one always does, but by `never`."""
    trackers: tuple[TrackerName, ...] = ()
    """Where per-round metrics go, beside `progress`."""
    log_folder: Path | None = None
    """Where trackers may write files; `runs` in the installation's folder by default."""
