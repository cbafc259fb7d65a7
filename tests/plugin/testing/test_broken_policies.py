"""The suite finds what it is there to find: policies that break the contract in one way each.

The base of each of them passes the whole suite (`test_builtin_policies`), so that what is found is the break.
"""

import itertools
import pickle
import unittest
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from explorank.hooks import arrays
from explorank.hooks.exploration import BetaThompson, EpsilonGreedy, LinearThompson
from explorank.testing import PolicyTests


@dataclass(frozen=True)
class Answering:
    """A contest that is a function."""

    distribution: object


def with_answer(answer):
    """ε-greedy whose distribution is what `answer(batch, eligible, rng, honest)` says."""

    @dataclass(frozen=True)
    class Changed(EpsilonGreedy):
        epsilon: float = 0.5

        def contest(self, state, batch, eligible, rng):
            honest = super().contest(state, batch, eligible, rng).distribution
            return Answering(lambda mask: answer(batch, mask, rng, honest))

    return Changed()


def one_hot(row, n):
    return (np.arange(n) == row).astype(float)


@dataclass(frozen=True)
class PlainThompson(BetaThompson):
    """Shows the winner of a single draw, as if it had been certain."""

    def contest(self, state, batch, eligible, rng):
        alpha, beta = np.ones(len(batch)), np.ones(len(batch))
        draw = rng.beta(alpha, beta)
        return Answering(lambda mask: one_hot(np.argmax(np.where(mask, draw, -1.0)), len(mask)))

    @property
    def exploration_floor(self):
        return 0.0


@dataclass(frozen=True)
class DrawnOtherwise:
    """What is drawn from, honest in all it says, which shows `chosen(uniform)` instead."""

    honest: object
    chosen: object

    def draw(self, uniform):
        return self.chosen(uniform)

    def propensity(self, row):
        return self.honest.propensity(row)

    def mark(self, support):
        self.honest.mark(support)


@dataclass(frozen=True)
class EstimateBesideAPlainDraw(BetaThompson):
    """Shows the winner of a draw of its own, and beside it an estimate of how probable that was."""

    draws: int = 2
    floor: float = 0.1

    def contest(self, state, batch, eligible, rng):
        honest = super().contest(state, batch, eligible, rng)
        plain = super().contest(state, batch, eligible, rng).distribution(eligible)
        winner = int(rng.choice(len(batch), p=plain))

        @dataclass(frozen=True)
        class Contest(Answering):
            def drawable(self, mask):
                drawn = honest.drawable(mask)
                return DrawnOtherwise(drawn, lambda uniform: winner if mask[winner] else drawn.draw(uniform))

        return Contest(honest.distribution)


@dataclass(frozen=True)
class Eager(EpsilonGreedy):
    """Shows the best more often than it says."""

    epsilon: float = 0.5

    def contest(self, state, batch, eligible, rng):
        honest = super().contest(state, batch, eligible, rng)

        @dataclass(frozen=True)
        class Contest(Answering):
            def drawable(self, mask):
                drawn = honest.drawable(mask)
                return DrawnOtherwise(drawn, lambda uniform: drawn.draw(uniform**1.5))

        return Contest(honest.distribution)


@dataclass(frozen=True)
class WritesIntoItsState(BetaThompson):
    def learn(self, state, rewards):
        after = super().learn(state, rewards)
        if state.successes.flags.writeable:
            state.successes[:] += 1.0
        else:
            object.__setattr__(state, "successes", state.successes + 1.0)
        return after


@dataclass(frozen=True)
class RemembersRequests(BetaThompson):
    def contest(self, state, batch, eligible, rng):
        object.__setattr__(state, "failures", state.failures + 1.0)
        return super().contest(state, batch, eligible, rng)


@dataclass(frozen=True)
class KeepsItsVersion(BetaThompson):
    def learn(self, state, rewards):
        return replace(super().learn(state, rewards), version=state.version)


@dataclass
class Thawed:
    version: int = 0


class WithAMutableState(EpsilonGreedy):
    def initial_state(self):
        return Thawed()

    def learn(self, state, rewards):
        return Thawed(state.version + 1)

    def unpack(self, meta, packed):
        return Thawed(super().unpack(meta, packed).version)


@dataclass(frozen=True)
class ForgetsByBatch(BetaThompson):
    def learn(self, state, rewards):
        after = super().learn(state, rewards)
        return replace(after, successes=after.successes * 0.9)


@dataclass(frozen=True)
class GuessesFeatures(LinearThompson):
    dim: int = 4

    def contest(self, state, batch, eligible, rng):
        features = np.zeros((len(batch), self.dim))
        return super().contest(state, replace(batch, features=features), eligible, rng)

    def learn(self, state, rewards):
        return super().learn(state, replace(rewards, features=np.zeros((len(rewards), self.dim))))


@dataclass(frozen=True)
class OverflowsOnFeatures(LinearThompson):
    dim: int = 4

    def contest(self, state, batch, eligible, rng):
        weights = np.exp(batch.features.sum(axis=1).astype(float))
        return Answering(lambda mask: mask * weights / (mask * weights).sum())


@dataclass(frozen=True)
class RoundsItsState(BetaThompson):
    def pack(self, state):
        meta, packed = super().pack(state)
        return meta, {**packed, "successes": np.floor(packed["successes"] / 3) * 3}


@dataclass(frozen=True)
class MergesOneTwice(BetaThompson):
    def _merge(self, state, other):
        return super()._merge(state, super()._merge(other, other))


@dataclass(frozen=True)
class UnlearnsNothing(BetaThompson):
    def _unlearn(self, state, rewards):
        return replace(state, version=state.version + 1)


class CountsItsVersionAnew(EpsilonGreedy):
    def unpack(self, meta, packed):
        return replace(super().unpack(meta, packed), version=1)


class Pickles(EpsilonGreedy):
    def save(self, state, path):
        Path(path).write_bytes(pickle.dumps(state.version))

    def load(self, path):
        return replace(self.initial_state(), version=pickle.loads(Path(path).read_bytes()))  # noqa: S301 - the break under test


class TakesAnyState(EpsilonGreedy):
    def loads(self, data):
        meta, packed = arrays.loads(data)
        return self.unpack(meta["state"], packed)

    def unpack(self, meta, packed):
        return replace(self.initial_state(), version=meta.get("version", 0))


class Counted(EpsilonGreedy):
    """Anneals over the requests that the process has answered, not over what it has learnt."""

    asked: ClassVar = itertools.count()

    def contest(self, state, batch, eligible, rng):
        epsilon = 1.0 / (2 + next(self.asked))
        return EpsilonGreedy(epsilon).contest(state, batch, eligible, rng)

    @property
    def exploration_floor(self):
        return 0.0


@dataclass(frozen=True)
class CannotBeMadeOfItsOptions(EpsilonGreedy):
    """Keeps another value than it is given."""

    def __post_init__(self):
        object.__setattr__(self, "epsilon", self.epsilon / 2)


@dataclass(frozen=True)
class ChecksNoOption(EpsilonGreedy):
    def __post_init__(self):
        pass


@dataclass(frozen=True)
class Undocumented(EpsilonGreedy):
    """Has an option of which nothing is said."""

    boldness: float = field(default=1.0)


class BadlyNamed(EpsilonGreedy):
    name: ClassVar[str] = "My best policy!"


def hungry(batch, mask, rng, honest):
    """Insists on its favourite, and has no answer where that is blocked."""
    favourite = int(np.argmax(batch.score_values))
    if not mask[favourite]:
        raise LookupError("my favourite is gone")
    return honest(mask)


def no_answer_for_one(batch, mask, rng, honest):
    scores = np.where(mask, batch.score_values - batch.score_values[mask].mean(), 0.0)
    if np.count_nonzero(mask) < 2:
        return np.full(len(mask), np.nan)
    weights = mask * np.exp(np.clip(scores, -9, 9))
    return weights / weights.sum()


def above_average(batch, mask, rng, honest):
    """Everybody above the average of the eligible, who change once only the possible ones are logged."""
    chosen = mask & (batch.score_values >= batch.score_values[mask].mean())
    return chosen / np.count_nonzero(chosen)


def overflowing(batch, mask, rng, honest):
    weights = mask * np.exp(batch.score_values)
    return weights / weights.sum()


def proportional(batch, mask, rng, honest):
    weights = mask * (np.clip(batch.score_values, -5.0, None) + 6.0)
    return weights / weights.sum()


def first_of_the_best(batch, mask, rng, honest):
    return one_hot(np.argmax(np.where(mask, batch.score_values, -np.inf)), len(mask))


def first_in_the_alphabet(batch, mask, rng, honest):
    return one_hot(np.flatnonzero(mask)[np.argmin(batch.item_ids[mask])], len(mask))


def one_by_one(batch, mask, rng, honest):
    honest = honest(mask)
    return np.array([honest[row] for row in range(len(mask))])


def without_floor(batch, mask, rng, honest):
    weights = mask * (batch.score_values - batch.score_values.min() + 0.01)
    return weights / weights.sum()


BROKEN = [
    # what is wrong, the test that finds it, and words of its explanation
    ("blocked items get a share", "a_distribution_is_over_the_eligible_candidates", "guards removed",
     with_answer(lambda batch, mask, rng, honest: honest(np.ones(len(mask), bool)))),
    ("does not sum to 1", "a_distribution_is_over_the_eligible_candidates", "Divide by the sum",
     with_answer(lambda batch, mask, rng, honest: honest(mask) * 0.99)),
    ("single precision", "a_distribution_is_over_the_eligible_candidates", "float64",
     with_answer(lambda batch, mask, rng, honest: honest(mask).astype(np.float32))),
    ("draws in distribution", "a_distribution_is_a_function_of_the_mask", "must be a function",
     with_answer(lambda batch, mask, rng, honest: rng.dirichlet(np.ones(len(mask))) if mask.all() else honest(mask))),
    ("a generator of its own", "a_seed_gives_the_same_contest_again", "Draw from `rng` alone",
     with_answer(lambda batch, mask, rng, honest: np.random.default_rng().dirichlet(np.ones(len(mask))))),
    ("a floor that is only claimed", "the_floor_is_kept", "claims a floor", with_answer(without_floor)),
    ("scores have a zero", "a_constant_added_to_all_scores_changes_nothing", "Subtract", with_answer(proportional)),
    ("exp overflows", "every_finite_score_has_an_answer", "overflow", with_answer(overflowing)),
    ("exp overflows", "every_finite_feature_has_an_answer", "overflow", OverflowsOnFeatures()),
    ("one candidate is none", "a_sole_candidate_has_probability_one", "must be", with_answer(no_answer_for_one)),
    ("ties go to the first row", "the_order_of_candidates_does_not_matter", "another order",
     with_answer(first_of_the_best)),
    ("ties go to the alphabet", "the_seed_breaks_ties", "Break ties", with_answer(first_in_the_alphabet)),
    ("features are guessed", "missing_features_are_refused", "must check", GuessesFeatures()),
    ("a loop", "a_request_does_not_loop_over_candidates", "loops over them", with_answer(one_by_one)),
    ("one draw is called certain", "inverse_propensities_average_to_one", "misses 1", PlainThompson()),
    ("an estimate beside a plain draw", "inverse_propensities_average_to_one", "misses 1",
     EstimateBesideAPlainDraw()),
    ("shows the best too often", "frequencies_match_the_probabilities", "misses its mean", Eager()),
    ("shows the best too often", "what_is_drawn_from_has_the_probabilities_of_the_distribution", "evenly spaced",
     Eager()),
    ("counts requests", "all_slates_sum_to_one", "must be 1", Counted()),
    ("counts requests", "a_slate_has_the_product_of_its_conditionals", "log-probability", Counted()),
    ("counts requests", "a_seed_gives_the_same_slate_again", "the seed must decide", Counted()),
    ("relative to what cannot be shown", "a_decision_is_replayed_from_its_record", "replay",
     with_answer(above_average)),
    ("learning overwrites", "learning_leaves_the_old_state_alone", "changed the state", WritesIntoItsState()),
    ("ranking overwrites", "a_request_leaves_the_state_alone", "while ranking", RemembersRequests()),
    ("a state that thaws", "a_state_and_a_policy_are_frozen", "frozen dataclass", WithAMutableState()),
    ("the version stays", "the_version_rises_by_one", "each call adds 1", KeepsItsVersion()),
    ("forgets by the call", "no_rewards_teach_nothing", "empty batch", ForgetsByBatch()),
    ("forgets by the call", "the_cut_into_batches_does_not_matter", "batches instead of one", ForgetsByBatch()),
    ("features are guessed", "rewards_without_a_needed_column_are_refused", "needs `features`", GuessesFeatures()),
    ("merges one twice", "what_was_learnt_apart_can_be_merged", "merged versions", MergesOneTwice()),
    ("unlearns nothing", "what_was_learnt_can_be_unlearnt", "Unlearning a part", UnlearnsNothing()),
    ("counts anew", "an_unchanged_state_may_be_given_another_version", "1000 is due", CountsItsVersionAnew()),
    ("rounds when saving", "a_saved_state_is_the_same_state", "`pack`", RoundsItsState()),
    ("pickles", "a_damaged_file_is_refused", "CorruptState", Pickles()),
    ("takes any state", "a_foreign_state_is_refused", "another policy", TakesAnyState()),
    ("takes any state", "an_incomplete_state_is_refused", "without a version", TakesAnyState()),
    ("keeps other options", "settings_can_name_it", "keep options", CannotBeMadeOfItsOptions()),
    ("a name that is no word", "settings_can_name_it", "must be a word", BadlyNamed()),
    ("options unchecked", "wrong_options_are_refused", "accepts", ChecksNoOption()),
    ("an option undocumented", "every_option_is_documented", "`boldness`", Undocumented()),
]  # fmt: skip


def suite_of(policy):
    class Suite(PolicyTests):
        seeds = 4_000
        invalid_options = ({"epsilon": 2.0},) if isinstance(policy, EpsilonGreedy) else ()

        def make_policy(self):
            return policy

    return Suite()


@pytest.mark.parametrize(
    ("test", "words", "policy"), [row[1:] for row in BROKEN], ids=[f"{row[0]}-{row[1]}" for row in BROKEN]
)
def test_a_break_is_found_and_explained(run, test, words, policy):
    with pytest.raises(AssertionError, match=words):
        run(suite_of(policy), f"test_{test}")


def test_a_policy_that_insists_on_its_favourite_fails(run):
    with pytest.raises(LookupError):
        run(suite_of(with_answer(hungry)), "test_a_blocked_item_is_never_shown")


def test_every_test_of_the_suite_is_seen_to_fail():
    failing = {f"test_{row[1]}" for row in BROKEN} | {"test_a_blocked_item_is_never_shown"}
    assert {name for name in dir(PolicyTests) if name.startswith("test_")} == failing


def test_a_suite_without_a_policy_says_what_is_missing(run):
    class Suite(PolicyTests):
        pass

    with pytest.raises(NotImplementedError, match="def make_policy"):
        run(Suite(), "test_the_floor_is_kept")


def test_what_cannot_hold_is_skipped_with_a_reason(run):
    class Suite(PolicyTests):
        batches_matter_because = "it forgets a tenth with every batch"
        shifts_matter_because = "its scores are rewards"

        def make_policy(self):
            return ForgetsByBatch()

    with pytest.raises(unittest.SkipTest, match="a tenth"):
        run(Suite(), "test_the_cut_into_batches_does_not_matter")
    with pytest.raises(unittest.SkipTest, match="are rewards"):
        run(Suite(), "test_a_constant_added_to_all_scores_changes_nothing")
