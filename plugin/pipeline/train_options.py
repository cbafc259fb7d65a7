"""How training data is made, and what becomes of the ranker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from explorank.errors import DataError
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
    since: float | None = None
    """Requests after this alone teach, in seconds since the Unix epoch, though histories and features know what came
    before. What was learnt from the likes until then, an encoder's adapter say, has seen the answer to none of them.
    `None` is from the first."""
    queries: QueryOptions = field(default_factory=QueryOptions)
    max_queries: int = 2_000
    """At most this many past requests, the latest; they resemble most what will be asked."""
    negatives: int = 60
    """How many items are drawn for a query's positives to be told from."""
    retrieved_share: float = 0.0
    """The share of them, 0 to 1, drawn from what the configured retrievers would have found for the query's user at its
    time; the others are drawn evenly from the catalogue. Neither half nor all gained
    anything on MovieLens-100K. For `interactions`."""
    validation_share: float = 0.2
    """The latest share of the queries, by time, on which training stops early."""
    blocks: int = 8
    """Into how many blocks, by time, the training queries are cut: what is popular, and what has the same users where
    `retrieval.by_use` is set, is told by what happened before a query's block. More are nearer to what serves, and take
    as many fits."""
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

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.retrieved_share <= 1:
            raise DataError(
                f"retrieved_share={self.retrieved_share} is no share of the negatives, so none could be drawn. Set 0, "
                "where all are to be drawn evenly, to 1, where all are to come from retrieval."
            )
