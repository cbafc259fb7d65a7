"""A shop with its own pluggy manager, candidates and scores takes only the exploration.

Run it: `python examples/host.py`. It asks for pages, buys now and then, and prints what was learnt.
"""

import time
from pathlib import Path

import numpy as np
import pluggy

import explorank
from explorank.hooks import specs
from explorank.hooks.types import RankingBatch, RankingRequest, Reward
from explorank.seeds import new_decision_id, seed_of

SLOTS = 3


class Shop:
    def __init__(self, settings: Path) -> None:
        self.manager = pluggy.PluginManager("explorank")
        self.manager.add_hookspecs(specs)
        self.manager.register(explorank.plugin(settings))
        self.items = np.array([f"mug-{number}" for number in range(20)])

    def page(self, user_id: str) -> tuple[str, list[str], list[float]]:
        """Return the decision's id, the items to show and how probable each choice was."""
        request = RankingRequest(
            decision_id=new_decision_id(), slots=SLOTS, user_id=user_id, surface="home", time=time.time()
        )
        scores = 1.0 / np.arange(1, len(self.items) + 1)  # the shop's own ranker
        slate = self.manager.hook.ranking_explore(
            request=request,
            ranking=RankingBatch(item_ids=self.items, scores=scores),
            n_slots=SLOTS,
            seed=seed_of(request.decision_id),
        )
        return request.decision_id, self.items[slate.order].tolist(), slate.propensities.tolist()

    def clicked(self, decision_id: str, slot: int, item_id: str, value: float) -> None:
        reward = Reward(
            decision_id=decision_id, slot=slot, item_id=item_id, kind="click", value=value,
            reward_id=f"{decision_id}:{slot}", time=time.time(),
        )  # fmt: skip
        self.manager.hook.ranking_observe_rewards(rewards=[reward])


if __name__ == "__main__":
    shop = Shop(Path(__file__).with_name("host.yaml"))
    for visit in range(200):
        decision_id, items, propensities = shop.page(f"visitor-{visit % 50}")
        for slot, item in enumerate(items):
            shop.clicked(decision_id, slot, item, float(item == "mug-13"))  # all they want is number 13
    print(*(f"{item} ({p:.2f})" for item, p in zip(items, propensities, strict=True)))
    shop.manager.hook.ranking_shutdown()
