"""Whether the logged number is the probability with which the item was drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from explorank.hooks.exploration import Policy, build_slate, slate_log_propensity
from explorank.hooks.guards import BlockList
from explorank.hooks.types import BoolArray, FloatArray, IndexArray, RankingBatch
from explorank.testing.bounds import freedman
from explorank.testing.cases import PolicyCases
from explorank.testing.demands import demand
from explorank.testing.restrictions import guards_for

_CANDIDATES: Final = 6
_SLOTS: Final = 3


class PropensityTests(PolicyCases):
    """The part of `PolicyTests` about whole slates: what they hold, how often, and what is logged.

    Guards are active throughout: a blocked item, one that is barred from slot 0, and one that may not stand
    below another, so that eligibility depends on the slot and on the slate above it.
    """

    def test_inverse_propensities_average_to_one(self) -> None:
        """The mean of 1{shown} / propensity is 1, for every item that is possible, in every slot.

        It is what importance weighting needs. Given the slate above, an item is possible if any seed gives
        it a probability above 0: a policy that realises one posterior draw and calls its winner certain
        fails, since the others' rewards could never be weighted. Fails by chance at most `false_alarm` of
        the times (Freedman's bound over all items and slots).
        """
        policy, seen = self._observe()
        possible = seen.possible()
        with np.errstate(divide="ignore"):
            inverse = np.where(seen.probabilities > 0.0, 1.0 / seen.probabilities, 0.0)
        difference = np.where(possible, seen.shown() * inverse - 1.0, 0.0)
        variance = np.where(possible, np.maximum(inverse - 1.0, 0.0), 0.0)
        self._demand_no_drift(
            policy,
            difference,
            variance,
            largest=np.maximum(inverse.max(axis=0), 1.0),
            count=possible.sum(axis=0),
            what="the mean of 1{shown} / propensity misses 1",
        )

    def test_frequencies_match_the_probabilities(self) -> None:
        """Over seeds, each item is shown in each slot as often as the distributions said.

        Given its seed's draws, an item is drawn with the probability that was returned; a policy that looks
        ahead at the generator, or shares draws with it, is found out here. Fails by chance at most
        `false_alarm` of the times (Freedman's bound over all items and slots).
        """
        policy, seen = self._observe()
        self._demand_no_drift(
            policy,
            seen.shown() - seen.probabilities,
            seen.probabilities * (1.0 - seen.probabilities),
            largest=np.ones(seen.probabilities.shape[1:]),
            count=np.full(seen.probabilities.shape[1:], self.seeds),
            what="the share of seeds that show the item misses its mean probability",
        )

    def test_all_slates_sum_to_one(self) -> None:
        """Given a seed's draws, the probabilities of all slates sum to 1.

        Every slate that the process can produce is enumerated, with guards active, where all slots explore
        and where only some do.
        """
        policy, state, batch = self.case(_CANDIDATES)
        for seed, explored in ((0, None), (1, None), (2, (0, 2))):
            log_of = dict(_slates(policy, state, batch, seed, explored))
            total = math.fsum(map(math.exp, log_of.values()))
            demand(
                abs(total - 1.0) <= 1e-9,
                f"{policy.name}, seed {seed}: the {len(log_of)} possible slates have probability {total!r} "
                "in all; it must be 1. `distribution` must sum to 1 for every mask.",
            )

    def test_a_slate_has_the_product_of_its_conditionals(self) -> None:
        """`slate_log_propensity` of a drawn slate is the sum of the logs of its logged propensities.

        Both ask the contest anew; they differ where an answer depends on more than the mask, and then the
        log of a slate cannot be trusted.
        """
        policy, state, batch = self.case(_CANDIDATES)
        for seed in range(self.few_seeds):
            listening = _Listening(policy)
            slate = build_slate(listening, state, batch, _SLOTS, guards=guards_for(batch), seed=seed)  # type: ignore[arg-type] # it answers like the policy it listens to
            given = [answer[row] for answer, row in zip(listening.answers, slate.order, strict=True)]
            demand(
                np.allclose(slate.propensities, given, rtol=1e-9),
                f"{policy.name}, seed {seed}: propensities {slate.propensities} were logged where the "
                f"distributions said {given}.",
            )
            log = slate_log_propensity(policy, state, batch, slate.order, guards=guards_for(batch), seed=seed)
            demand(
                math.isclose(log, float(np.log(slate.propensities).sum()), rel_tol=1e-9, abs_tol=1e-9),
                f"{policy.name}, seed {seed}: the slate {slate.order} was drawn with propensities "
                f"{slate.propensities}, and its log-probability is {log!r}; it must be their product.",
            )

    def test_a_seed_gives_the_same_slate_again(self) -> None:
        """Equal arguments give an equal slate, also from an equal policy that was made separately.

        A shorter slate is the beginning of a longer one, so that asking for more slots changes nothing.
        """
        policy, state, batch = self.case(_CANDIDATES)
        twin = self.make_policy()
        for seed in range(self.few_seeds):
            once = build_slate(policy, state, batch, _SLOTS, guards=guards_for(batch), seed=seed)
            again = build_slate(twin, state, batch, _SLOTS, guards=guards_for(batch), seed=seed)
            for field in fields(once):
                one, other = getattr(once, field.name), getattr(again, field.name)
                demand(
                    np.array_equal(one, other),
                    f"{policy.name}, seed {seed}: `{field.name}` is {one} and then {other}; the seed must "
                    "decide alone. Nothing may be kept between requests outside the state.",
                )
            shorter = build_slate(policy, state, batch, _SLOTS - 1, guards=guards_for(batch), seed=seed)
            demand(
                shorter.order.tolist() == once.order[: _SLOTS - 1].tolist(),
                f"{policy.name}, seed {seed}: {_SLOTS - 1} slots hold {shorter.order}, {_SLOTS} slots "
                f"{once.order}; what a slot holds must not depend on how many follow.",
            )

    def test_a_blocked_item_is_never_shown(self) -> None:
        """Whatever the policy prefers, a guard's word is final, and no item stands in two slots.

        Each item in turn is blocked, the policy's favourite among them; the slate goes on until nobody is
        left.
        """
        policy, state, batch = self.case(_CANDIDATES)
        for seed, item in enumerate(batch.item_ids.tolist()):
            slate = build_slate(policy, state, batch, len(batch), guards=[BlockList(items=[item])], seed=seed)
            shown = batch.item_ids[slate.order].tolist()
            demand(
                sorted(shown) == sorted(set(batch.item_ids.tolist()) - {item}),
                f"{policy.name} showed {shown} where {item!r} is blocked; every other item, once, is due.",
            )

    def _observe(self) -> tuple[Policy[Any], Observed]:
        policy, state, batch = self.case(_CANDIDATES)
        orders = np.zeros((self.seeds, _SLOTS), np.int64)
        probabilities = np.zeros((self.seeds, _SLOTS, len(batch)))
        guards = guards_for(batch)
        for seed in range(self.seeds):
            listening = _Listening(policy)
            slate = build_slate(listening, state, batch, _SLOTS, guards=guards, seed=seed)  # type: ignore[arg-type] # it answers like the policy it listens to
            orders[seed] = slate.order
            probabilities[seed] = listening.answers
        return policy, Observed(orders, probabilities)

    def _demand_no_drift(
        self,
        policy: Policy[Any],
        difference: FloatArray,
        variance: FloatArray,
        *,
        largest: FloatArray,
        count: IndexArray,
        what: str,
    ) -> None:
        __tracebackhide__ = True
        compared = max(int(np.count_nonzero(count)), 1)
        drift = difference.sum(axis=0)
        allowed = freedman(variance.sum(axis=0), largest, self.false_alarm / compared)
        worst = np.unravel_index(int(np.argmax(np.abs(drift) / allowed)), drift.shape)
        demand(
            (np.abs(drift) <= allowed).all(),
            f"{policy.name}: over {self.seeds} seeds {what} for row {worst[1]} in slot {worst[0]} by "
            f"{drift[worst] / max(count[worst], 1):.3g}, where chance allows "
            f"{allowed[worst] / max(count[worst], 1):.3g}. The number returned is not the probability of what "
            "happens: draw from `rng` in `contest` only, and return the very distribution that those draws "
            "define.",
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """What many seeds showed, and with which probabilities."""

    orders: IndexArray  # (seeds, slots)
    probabilities: FloatArray  # (seeds, slots, n)

    def shown(self) -> BoolArray:
        """Return which row stood in which slot, (seeds, slots, n)."""
        rows: BoolArray = self.orders[:, :, None] == np.arange(self.probabilities.shape[2])
        return rows

    def possible(self) -> BoolArray:
        """Return what some seed could have shown in the slot below the same slate, (seeds, slots, n)."""
        possible = self.probabilities > 0.0
        for slot in range(self.orders.shape[1]):
            _, prefix = np.unique(self.orders[:, :slot], axis=0, return_inverse=True)
            for same in range(int(prefix.max(initial=0)) + 1):
                members = prefix.reshape(-1) == same
                possible[members, slot] = possible[members, slot].any(axis=0)
        return possible


class _Listening:
    """A policy whose answers are kept, as the process that fills the slate received them."""

    def __init__(self, policy: Policy[Any]) -> None:
        self._policy = policy
        self.answers: list[FloatArray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def contest(self, *arguments: Any, **named: Any) -> _ListeningContest:
        return _ListeningContest(self._policy.contest(*arguments, **named), self.answers)


class _ListeningContest:
    def __init__(self, contest: Any, answers: list[FloatArray]) -> None:
        self._contest = contest
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._contest, name)

    def distribution(self, *arguments: Any, **named: Any) -> FloatArray:
        answer: FloatArray = self._contest.distribution(*arguments, **named)
        self._answers.append(answer.copy())
        return answer

    @property
    def drawable(self) -> Any:
        drawable = getattr(self._contest, "drawable", None)
        if drawable is None:
            return None

        def listened(eligible: BoolArray) -> Any:
            self._answers.append(self._contest.distribution(eligible).copy())
            return drawable(eligible)

        return listened


def _slates(
    policy: Policy[Any], state: Any, batch: RankingBatch, seed: int, explored: Sequence[int] | None
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every complete slate that the process can produce, with its log-probability."""
    open_slates: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while open_slates:
        prefix, log = open_slates.pop()
        longer = []
        if len(prefix) < _SLOTS:
            for row in set(range(len(batch))) - set(prefix):
                order = (*prefix, row)
                extended = slate_log_propensity(
                    policy, state, batch, order, explored, guards_for(batch), seed=seed
                )
                if extended > -math.inf:
                    longer.append((order, extended))
        if longer:
            open_slates.extend(longer)
        else:
            yield prefix, log
