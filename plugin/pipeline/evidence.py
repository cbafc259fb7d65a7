"""What speaks for a new ranker: both on the same later slice, request by request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from explorank.pipeline.metrics import Interval, bootstrap, ndcg_at, recall_at
from explorank.rankers import RankingData

PromotionRule: TypeAlias = Literal["unless-worse", "if-better", "always", "never"]
"""When a new ranker becomes current: unless it is surely worse than the current one, only if it is surely better, in
any case, or not before `explorank models promote`."""
PROMOTION_RULES: tuple[PromotionRule, ...] = get_args(PromotionRule)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a new ranker becomes current, and why."""

    promoted: bool
    reason: str


def accuracy(scores: NDArray[np.float64], data: RankingData) -> dict[str, NDArray[np.float64]]:
    """Return NDCG@10, recall@10 and the reciprocal rank (MRR) of each request, (g,); NaN where nothing was liked.

    `data` has `groups`. Equal scores keep the order of the rows, which therefore must not tell who was liked.
    """
    sizes = np.ones(len(data), np.int64) if data.groups is None else data.groups
    ends = np.cumsum(sizes)
    found: dict[str, list[float]] = {"ndcg@10": [], "recall@10": [], "mrr": []}
    for end, size in zip(ends.tolist(), sizes.tolist(), strict=True):
        liked = data.labels[end - size : end] > 0
        order = np.argsort(-scores[end - size : end], kind="stable")
        ranked = [str(row) for row in order]
        relevant = [str(row) for row in np.flatnonzero(liked)]
        found["ndcg@10"].append(ndcg_at(ranked, relevant, 10))
        found["recall@10"].append(recall_at(ranked, relevant, 10))
        found["mrr"].append(1.0 / (1 + int(liked[order].argmax())) if relevant else float("nan"))
    return {name: np.array(values) for name, values in found.items()}


def compared(
    new: NDArray[np.float64], former: NDArray[np.float64], users: NDArray[Any], *, seed: int
) -> Interval:
    """Return the mean of new less former, paired by request (g,), and its 95 % interval over users."""
    return bootstrap(new - former, seed=seed, users=users)


def judge(rule: PromotionRule, difference: Interval | None, why_not_compared: str = "") -> Verdict:
    """Return whether the new ranker becomes current by `rule`.

    `difference` is what it gains in NDCG@10, None where there is nothing to compare with. By default a new ranker is
    promoted unless it is surely worse: trained on later data, it knows what no slice of the past can show, and to
    demand a significant gain each time would keep rankers that grow old.
    """
    if rule == "never":
        return Verdict(promoted=False, reason="as asked; `explorank models promote` makes it current")
    if rule == "always":
        return Verdict(promoted=True, reason="as asked")
    if difference is None:
        return Verdict(promoted=True, reason=why_not_compared)
    gain = f"NDCG@10 changes by {difference:+}"
    if rule == "if-better":
        better = difference.low > 0
        return Verdict(better, f"{gain}, surely better" if better else f"{gain}, not surely better")
    worse = difference.high < 0
    return Verdict(not worse, f"{gain}, surely worse" if worse else f"{gain}, not surely worse")
