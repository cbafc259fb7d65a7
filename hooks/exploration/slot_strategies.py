"""Slot allocation: a bandit per slot chooses a strategy, and the strategy chooses the item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from explorank.hooks.errors import InvalidPolicy
from explorank.hooks.exploration.item_sums import ItemMeans, ItemPolicy
from explorank.hooks.exploration.linear_model import residuals
from explorank.hooks.exploration.options import check_finite, check_positive
from explorank.hooks.exploration.policy import NOBODY
from explorank.hooks.exploration.rewards import required_column, row_weights
from explorank.hooks.exploration.strategies import StrategyValues, column_of
from explorank.hooks.exploration.thompson import check_options
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch, RewardBatch


@dataclass(frozen=True)
class SlotStrategies(ItemPolicy[ItemMeans]):
    """Let a bandit of each slot's own choose a strategy, which shows its best remaining item there.

        r = μ_sz + N(0, noise²),   μ_sz ~ N(prior_mean, 1 / prior_precision)    slot s, strategy z
        π_s(z) = #{draws of μ_s that z wins} / draws
        p(i) = (1 - floor) · Σ_z π_s(z) · [i is best by z] / #{best by z} + floor · [i is best by any] / #{such}

    An item that several strategies would place has the sum of their shares. A strategy may serve any number
    of slots: below its first item it places its next.

    Strategies: `score`, the ranker's; `newest`, `popular` and `uncertain`, the highest `first_seen`,
    `popularity` and uncertainty; `diverse`, the candidate whose features lie furthest from the nearest one
    above (on top, the best score); `random`, all alike. Any other word names a column of the candidates,
    whose highest value is best, with a `-` before it the lowest. A missing value is worse than any other.

    Propensity: exact given the seed's draws, conditional on the slate above the slot; an importance weight is
    at most #{items best by any strategy} / floor, where values do not tie the number of strategies / floor.

    Learning: for each item drawn, one of the strategies that could have placed it is named, with its
    probability given the item, and logged. The pair then has the law of drawing the strategy first, so that
    rewards need no weights to be fair to a strategy that often agrees with others. Rewards that name no
    strategy (of slots that did not explore, and of the floor) are left out; a batch without `slots` and
    `strategies` is refused, since they cannot be told from the item.

    When: it is known which *kinds* of items deserve a place, and not which kind where; items themselves come
    and go. When not: rewards depend on the item more than on why it was chosen (a policy over items learns
    that), or the strategies nearly always agree.

    Source: the bandit over base rankers of Radlinski, Kleinberg and Joachims, *Learning Diverse Rankings with
    Multi-Armed Bandits* (2008), with strategies in place of documents as the arms of each slot. It departs
    from the paper in that an arm's choice moves on where its item is placed already, that the bandit is
    Thompson sampling with the shares of M draws instead of UCB1 or EXP3, and that a floor is mixed in.
    """

    name: ClassVar[str] = "slot_strategies"
    learns_from: ClassVar[frozenset[str]] = frozenset({"slots", "strategies"})
    sees_slate: ClassVar[bool] = True

    strategies: tuple[str, ...] = ("score", "random")
    """What a slot may follow: `score`, `newest`, `popular`, `uncertain`, `diverse`, `random`, a column, or a
    column after `-`; each once."""
    prior_mean: float = 0.0
    """The mean reward that a strategy is credited with in a slot before its first, in the reward's unit."""
    prior_precision: float = 1.0
    """1 / variance of the mean reward among strategies, before any reward. Above 0."""
    noise: float = 1.0
    """Standard deviation of a reward around its strategy's mean, in the reward's unit. Above 0."""
    floor: float = 0.05
    """The share of an explored slot spread evenly over what any strategy would place; above 0, at most 1."""
    draws: int = 256
    """Posterior draws per request; more make propensities finer and requests slower."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self.name, self.floor, 1, self.draws)
        check_finite(self.name, "prior_mean", self.prior_mean)
        for option, value in (("prior_precision", self.prior_precision), ("noise", self.noise)):
            check_positive(
                self.name, option, value, otherwise="there is no posterior to draw from", example=1.0
            )
        if not 0.0 < self._prior_weight < np.inf:
            raise InvalidPolicy(
                f"`noise` of {self.name} is {self.noise!r} with a `prior_precision` of {self.prior_precision!r}; "
                "squared and multiplied they leave the range of float64, and a strategy has no posterior before "
                "its first reward. Scale the rewards, so that both are nearer to 1."
            )
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise InvalidPolicy(
                f"`strategies` of {self.name} is {list(self.strategies)!r}; it names each strategy once, and "
                "at least one, or there is nothing to choose from. Try ['score', 'random']."
            )
        if not all(strategy.strip("-") for strategy in self.strategies):
            raise InvalidPolicy(
                f"`strategies` of {self.name} is {list(self.strategies)!r}, with a name of no letters; it "
                "would name no column. Write 'score', 'random' or a column."
            )

    @property
    def _prior_weight(self) -> float:
        """How many rewards the prior counts for."""
        return self.prior_precision * self.noise * self.noise

    @property
    def exploration_floor(self) -> float:
        """The option `floor`."""
        return self.floor

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the strategies compare."""
        columns = (column_of(strategy) for strategy in self.strategies)
        return tuple(dict.fromkeys(column for column in columns if column is not None))

    def initial_state(self) -> ItemMeans:
        """Return a state without rewards: in every slot all strategies have the prior."""
        return ItemMeans()

    def contest(
        self,
        state: ItemMeans,
        batch: RankingBatch,
        eligible: BoolArray,  # noqa: ARG002 - no pool is formed
        rng: np.random.Generator,
    ) -> _StrategyContest:
        """Return the contest of one request; raise `InvalidBatch` without what the strategies read."""
        standard = rng.standard_normal((len(self.strategies), self.draws))
        return _StrategyContest(self, state, StrategyValues(self.strategies, batch), standard)

    def posterior(self, state: ItemMeans, slot: int) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of what each strategy is worth in `slot`, both (N,)."""
        arms = [_arm(slot, strategy) for strategy in self.strategies]
        counts, totals = state.at(state.rows(arms))
        weight = self._prior_weight + counts
        mean: FloatArray = self._prior_weight / weight * self.prior_mean + totals / weight
        return mean, self.noise / np.sqrt(weight)

    def learn(self, state: ItemMeans, rewards: RewardBatch) -> ItemMeans:
        """Return the state with each reward (less its offset) added to its strategy's sums in its slot.

        Raises `InvalidBatch` without slots and strategies, and where a sum is no longer finite.
        """
        slots = required_column(self.name, rewards, "slots").astype(np.int64)
        strategies = required_column(self.name, rewards, "strategies").astype(np.str_)
        arms = np.array(list(map(_arm, slots.tolist(), strategies.tolist())), np.str_)
        weights = row_weights(rewards)
        with np.errstate(over="ignore", invalid="ignore"):  # `plus` refuses the sum
            totals = weights * residuals(rewards)
        named = strategies != ""
        return state.plus(self.name, arms[named], counts=weights[named], totals=totals[named])

    def pack(self, state: ItemMeans) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the sums of each slot and strategy, named `slot:strategy`."""
        return state.pack()

    def unpack(self, meta: dict[str, Any], packed: dict[str, NDArray[Any]]) -> ItemMeans:
        """Return the state; raise `CorruptState` where the arrays are not sums of distinct arms."""
        return ItemMeans.unpack(self.name, meta, packed)


_Choices: TypeAlias = tuple[IndexArray, IndexArray, IndexArray]


def _arm(slot: int, strategy: str) -> str:
    return f"{slot}:{strategy}"


class _StrategyContest:
    """One request's draws, the same for all slots, and what each strategy thinks of the candidates."""

    def __init__(
        self, policy: SlotStrategies, state: ItemMeans, values: StrategyValues, standard: FloatArray
    ) -> None:
        self._policy: Final = policy
        self._state: Final = state
        self._values: Final = values
        self._standard: Final = standard  # (N, M)
        self._shares: Final[dict[int, FloatArray]] = {}  # (N,) each, by slot
        self._latest: tuple[tuple[bytes, bytes], _Choices] | None = None

    def distribution(self, eligible: BoolArray, slot: int = 0, placed: IndexArray = NOBODY) -> FloatArray:
        """Return p over what the strategies would place, (n,) float64."""
        strategies, rows, counts = self._choices(eligible, placed)
        shares = self._shares_of(slot) / counts
        placeable = np.zeros(len(eligible), np.bool_)
        placeable[rows] = True
        distribution: FloatArray = placeable * (self._policy.floor / np.count_nonzero(placeable))
        # Adds up in the order of the strategies, whoever else is eligible, so that replay is exact.
        chosen = np.bincount(rows, weights=shares[strategies], minlength=len(eligible))
        distribution += chosen * (1.0 - self._policy.floor)
        return distribution

    def strategy(
        self, row: int, uniform: float, eligible: BoolArray, slot: int = 0, placed: IndexArray = NOBODY
    ) -> str:
        """Return who chose `row`, given that it was drawn: empty text is the floor."""
        strategies, rows, counts = self._choices(eligible, placed)
        could = strategies[rows == row]
        placeable = np.zeros(len(eligible), np.bool_)
        placeable[rows] = True
        parts = np.cumsum((1.0 - self._policy.floor) * (self._shares_of(slot) / counts)[could])
        total = parts[-1] + self._policy.floor / np.count_nonzero(placeable)
        chosen = int(parts.searchsorted(uniform * total, side="right"))
        return self._policy.strategies[could[chosen]] if chosen < len(could) else ""

    def _choices(self, eligible: BoolArray, placed: IndexArray) -> _Choices:
        """Return who would place what, as pairs of a strategy and a row, and how many rows each has, (N,)."""
        # A slot asks twice, for its distribution and for the strategy behind the draw.
        asked = eligible.tobytes(), placed.tobytes()
        if self._latest is None or self._latest[0] != asked:
            self._latest = asked, self._chosen(eligible, placed)
        return self._latest[1]

    def _chosen(self, eligible: BoolArray, placed: IndexArray) -> _Choices:
        values = np.where(eligible, self._values.above(placed), -np.inf)
        best = (values == values.max(axis=1, keepdims=True)) & eligible
        strategies, rows = np.divmod(np.flatnonzero(best), len(eligible))
        return strategies, rows, np.bincount(strategies)

    def _shares_of(self, slot: int) -> FloatArray:
        """Return how many of the draws each strategy wins in `slot`, as shares (N,)."""
        if slot not in self._shares:
            mean, deviation = self._policy.posterior(self._state, slot)
            winners = (self._standard * deviation[:, None] + mean[:, None]).argmax(axis=0)
            self._shares[slot] = np.bincount(winners, minlength=len(mean)) / len(winners)
        return self._shares[slot]
