"""How a slate is filled: order, ends, edges of number and size, and guards that fail."""

import inspect
import math
from dataclasses import dataclass, field, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.hooks import exploration
from explorank.hooks.errors import InvalidBatch, InvalidPolicy
from explorank.hooks.exploration import (
    BetaThompson,
    EpsilonGreedy,
    Greedy,
    LinearThompson,
    PlackettLuce,
    RankingBatch,
    Softmax,
    SquareCB,
    Uniform,
    build_slate,
    slate_log_propensity,
)
from explorank.hooks.exploration.distributions import Distribution
from explorank.hooks.exploration.order import BestByScore, best, best_by_score, in_key_order
from explorank.hooks.exploration.randomness import Uniforms, tie_key, tie_seed
from explorank.hooks.exploration.stateless import StatelessPolicy
from explorank.hooks.guards import AlreadySeen, BlockList
from explorank.hooks.types import RankingRequest


def same(left, right):
    return all(np.array_equal(getattr(left, each.name), getattr(right, each.name)) for each in fields(left))


def test_public_names():
    assert {
        "BetaThompson",
        "BootstrappedThompson",
        "Calibration",
        "Cascade",
        "Contest",
        "EXP3",
        "DisjointLinUCB",
        "DisjointLinearThompson",
        "EpsilonGreedy",
        "GaussianThompson",
        "Greedy",
        "LinUCB",
        "LinearThompson",
        "LogisticThompson",
        "PlackettLuce",
        "Policy",
        "PositionBased",
        "PositionPropensities",
        "RankingBatch",
        "RewardBatch",
        "Scorer",
        "Slate",
        "NeuralLinear",
        "PerRepresentation",
        "SlidingWindow",
        "SlotStrategies",
        "Softmax",
        "SquareCB",
        "UCB1",
        "Uniform",
        "best_by_score",
        "build_slate",
        "position_propensities",
        "slate_log_propensity",
    } == set(exploration.__all__)
    head = ["policy", "state", "batch", "n_slots", "explore_slots", "guards", "request", "seed"]
    assert list(inspect.signature(build_slate).parameters)[:8] == head


def test_the_same_seed_gives_the_same_slate(case):
    slates = [build_slate(case.policy, case.state, case.batch, 4, seed=seed) for seed in range(30)]
    for seed, slate in enumerate(slates):
        assert same(slate, build_slate(case.policy, case.state, case.batch, 4, seed=seed))
    assert len({tuple(slate.order.tolist()) for slate in slates}) > 1


def test_a_shorter_slate_is_a_prefix(case):
    long = build_slate(case.policy, case.state, case.batch, 5, seed=9)
    short = build_slate(case.policy, case.state, case.batch, 2, seed=9)
    assert short.order.tolist() == long.order[:2].tolist()
    assert short.propensities.tolist() == long.propensities[:2].tolist()


def test_slots_that_do_not_explore_hold_the_best_eligible_score():
    batch = RankingBatch(["a", "b", "c", "d"], scores=[1.0, 4.0, 3.0, 2.0])
    slate = build_slate(Uniform(), Uniform().initial_state(), batch, 4, [], [BlockList(items=["c"])])
    assert slate.order.tolist() == [1, 3, 0]
    assert slate.propensities.tolist() == [1.0, 1.0, 1.0]
    assert slate.method == ("score", "score", "score")
    assert slate.eligible.tolist() == [
        [True, True, False, True],
        [True, False, False, True],
        [True, False, False, False],
    ]
    assert slate.support.tolist() == [
        [False, True, False, False],
        [False, False, False, True],
        [True, False, False, False],
    ]


def test_explored_slots_may_be_scattered_or_beyond_the_slate():
    batch = RankingBatch(list("abcde"), scores=[5.0, 4.0, 3.0, 2.0, 1.0])
    slate = build_slate(Uniform(), Uniform().initial_state(), batch, 4, [1, 3, 99], seed=3)
    assert slate.method == ("score", "explore", "score", "explore")
    assert slate.propensities.tolist() == [1.0, 1 / 4, 1.0, 1 / 2]
    assert slate.order[0] == 0
    left = [row for row in range(5) if row not in slate.order[:2]]
    assert slate.order[2] == left[0]


def test_ties_of_score_are_broken_by_the_seed():
    batch = RankingBatch(list("abc"), scores=[1.0, 1.0, 0.0])
    state = Uniform().initial_state()
    tops = {int(build_slate(Uniform(), state, batch, 1, [], seed=seed).order[0]) for seed in range(40)}
    assert tops == {0, 1}


@pytest.mark.parametrize(
    ("n", "n_slots", "length"), [(0, 3, 0), (3, 0, 0), (2, 5, 2), (1, 1, 1), (300, 10_000, 300)]
)
def test_the_slate_is_as_long_as_slots_and_candidates_allow(n, n_slots, length):
    batch = RankingBatch([f"i{row}" for row in range(n)], np.ones((n, 3)))
    for policy in (Greedy(), Uniform(), BetaThompson(draws=4), LinearThompson(dim=3, draws=4)):
        slate = build_slate(policy, policy.initial_state(), batch, n_slots)
        assert len(slate) == length
        assert sorted(slate.order.tolist()) == list(range(length))
        assert slate.eligible.shape == slate.support.shape == (length, n)


def test_a_slate_names_its_policy_state_seed_and_floor(case):
    slate = build_slate(case.policy, case.state, case.batch, 2, seed=2**64 + 5)
    assert slate.policy == case.policy.name
    assert slate.policy_version == 1
    assert slate.seed == 2**64 + 5
    assert slate.floor == case.policy.exploration_floor


@pytest.mark.parametrize(
    "scores",
    [[0.0] * 4, [1e300, -1e300, 1e300, 0.0], [1e-300, 0.0, -1e-300, 5e-324], [-1e300] * 4],
    ids=["ties", "huge", "tiny", "low"],
)
@pytest.mark.parametrize("explore_slots", [None, []], ids=["explored", "by score"])
def test_any_finite_scores(scores, explore_slots):
    batch = RankingBatch(list("abcd"), scores=scores)
    policies = (
        EpsilonGreedy(),
        Greedy(),
        Uniform(),
        Softmax(),
        PlackettLuce(),
        SquareCB(gamma=10.0),
        Softmax(floor=0.1),
    )
    for policy in policies:
        slate = build_slate(policy, policy.initial_state(), batch, 4, explore_slots)
        assert sorted(slate.order.tolist()) == [0, 1, 2, 3]
        assert ((slate.propensities > 0) & (slate.propensities <= 1)).all()
        if not isinstance(policy, Greedy) and explore_slots is None:
            continue
        assert np.diff(np.array(scores)[slate.order]).max() <= 0


@pytest.mark.parametrize("name", ["scores", "features"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_naming_the_item(name, value):
    columns = {"scores": np.zeros(3), "features": np.zeros((3, 2))}
    columns[name][1] = value
    with pytest.raises(InvalidBatch, match=f"`{name}` of item 'guilty'"):
        RankingBatch(["a", "guilty", "c"], **columns)


def test_all_blocked_but_one(case):
    guard = BlockList(items=["a", "b", "c", "e"])
    slate = build_slate(case.policy, case.state, case.batch, 3, guards=[guard])
    assert slate.order.tolist() == [3]
    assert slate.propensities.tolist() == [pytest.approx(1.0, abs=1e-15)]


def test_all_blocked(case):
    slate = build_slate(case.policy, case.state, case.batch, 3, guards=[BlockList(items=list("abcde"))])
    assert len(slate) == 0
    assert slate.method == ()


def test_excluded_items_are_never_eligible(case):
    request = RankingRequest(decision_id="1", slots=5, exclude=frozenset({"b", "c"}))
    slate = build_slate(case.policy, case.state, case.batch, 5, request=request)
    assert sorted(slate.order.tolist()) == [0, 3, 4]


def test_already_seen_reads_the_request(case):
    request = RankingRequest(decision_id="1", slots=5, context={"seen": ["a"], "history": ["e"]})
    slate = build_slate(case.policy, case.state, case.batch, 5, guards=[AlreadySeen()], request=request)
    assert sorted(slate.order.tolist()) == [1, 2, 3]


@dataclass
class Recorder:
    """Allows all, and writes down how it was asked."""

    static: bool
    calls: list = field(default_factory=list)

    def eligible(self, request, batch, placed, slot):
        self.calls.append((slot, placed.tolist(), placed.flags.writeable, request))
        return np.ones(len(batch), dtype=bool)


def test_guards_are_asked_once_if_static_and_at_every_slot_if_not():
    static, dynamic = Recorder(static=True), Recorder(static=False)
    batch = RankingBatch(list("abc"), scores=[3.0, 2.0, 1.0])
    slate = build_slate(Greedy(), Greedy().initial_state(), batch, 3, guards=[static, dynamic])
    assert slate.order.tolist() == [0, 1, 2]
    assert [call[:2] for call in static.calls] == [(0, [])]
    assert [call[:2] for call in dynamic.calls] == [(0, []), (1, [0]), (2, [0, 1])]
    assert not any(call[2] for call in dynamic.calls)  # a guard can't rewrite the slate
    assert all(isinstance(call[3], RankingRequest) for call in static.calls + dynamic.calls)


@dataclass
class Failing:
    answer: object
    fails: str = "closed"
    from_slot: int = 0
    name: str = "broken"

    def eligible(self, request, batch, placed, slot):
        if slot < self.from_slot:
            return np.ones(len(batch), dtype=bool)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


WRONG = [RuntimeError("no"), np.ones(2, dtype=bool), np.ones(5), None, True, np.ones((5, 1), dtype=bool)]


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_a_guard_that_fails_closed_ends_the_slate(case, answer):
    reported = []
    slate = build_slate(
        case.policy,
        case.state,
        case.batch,
        4,
        guards=[Failing(answer, from_slot=2)],
        on_guard_error=lambda name, error: reported.append((name, type(error))),
    )
    assert len(slate) == 2
    expected = RuntimeError if isinstance(answer, RuntimeError) else InvalidPolicy
    assert reported == [("broken", expected)]


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_a_guard_that_fails_open_allows_all(case, answer):
    reported = []
    slate = build_slate(
        case.policy,
        case.state,
        case.batch,
        4,
        guards=[Failing(answer, fails="open", from_slot=2), BlockList(items=["d"])],
        on_guard_error=lambda name, error: reported.append(name),
    )
    without = build_slate(case.policy, case.state, case.batch, 4, guards=[BlockList(items=["d"])])
    assert same(slate, without)
    assert reported == ["broken", "broken"]


@dataclass
class Counting:
    """Lets through what its snapshot says, which may be taken once only."""

    name: str
    allowed: object
    fails: str = "closed"
    taken: int = 0

    def snapshot(self, request):
        self.taken += 1
        if isinstance(self.allowed, Exception):
            raise self.allowed
        return self.allowed

    def eligible(self, request, batch, placed, slot):
        return np.isin(batch.item_ids, request.guard_state[self.name])


def test_a_snapshot_is_taken_once_per_request():
    guard = Counting("quota", ["a", "c"])
    batch = RankingBatch(list("abc"), scores=[1.0, 2.0, 3.0])
    slate = build_slate(Greedy(), Greedy().initial_state(), batch, 3, guards=[guard])
    assert slate.order.tolist() == [2, 0]
    assert guard.taken == 1
    # A stage that took it already is not asked again.
    request = RankingRequest(decision_id="1", slots=3, guard_state={"quota": ["b"]})
    slate = build_slate(Greedy(), Greedy().initial_state(), batch, 3, guards=[guard], request=request)
    assert slate.order.tolist() == [1]
    assert guard.taken == 1


@pytest.mark.parametrize(("fails", "length"), [("closed", 0), ("open", 3)])
def test_a_snapshot_that_raises_counts_as_a_failed_guard(fails, length):
    guard, reported = Counting("quota", OSError("down"), fails), []
    batch = RankingBatch(list("abc"))
    slate = build_slate(
        Greedy(),
        Greedy().initial_state(),
        batch,
        3,
        guards=[guard],
        on_guard_error=lambda name, error: reported.append((name, str(error))),
    )
    assert len(slate) == length
    assert reported == [("quota", "down")]


def test_two_snapshots_of_one_name_are_refused():
    guards = [Counting("quota", ["a"]), Counting("quota", ["b"])]
    with pytest.raises(InvalidPolicy, match="quota"):
        build_slate(Greedy(), Greedy().initial_state(), RankingBatch(list("ab")), 1, guards=guards)


@dataclass(frozen=True)
class Fixed(StatelessPolicy):
    """Answers with the same numbers always, right or wrong."""

    name = "fixed"
    answer: tuple = ()

    def contest(self, state, batch, eligible, rng):
        return self

    def distribution(self, eligible):
        return np.array(self.answer)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((0.5, 0.5, 0.5), "sum"),
        ((math.nan, 0.5, 0.5), "sum"),
        ((1.5, -0.5, 0.0), "1 negative"),
        ((0.5, 0.5), "shape"),
        ((0.5, 0.25, 0.25), "guards removed"),
    ],
)
def test_a_policy_that_gives_no_distribution_is_refused(answer, complaint):
    policy = Fixed(answer)
    with pytest.raises(InvalidPolicy, match=complaint):
        build_slate(
            policy, policy.initial_state(), RankingBatch(list("abc")), 1, guards=[BlockList(items=["c"])]
        )


def test_items_of_probability_zero_are_never_drawn():
    probabilities = np.array([0.0, 0.5, 0.0, 1e-300, 0.5, 0.0])
    distribution = Distribution.of(probabilities, np.ones(6, dtype=bool), "any")
    for uniform in (0.0, 5e-324, np.nextafter(0.5, 0), 0.5, np.nextafter(1.0, 0)):
        assert probabilities[distribution.draw(uniform)] > 0
    assert distribution.draw(0.0) == 1
    assert distribution.draw(np.nextafter(1.0, 0)) == 4
    # Sums a little off 1 are divided out, so that what is logged is what the draw does.
    short = Distribution.of(np.array([0.5, 0.5 - 1e-10, 0.0]), np.ones(3, dtype=bool), "any")
    assert short.propensity(0) + short.propensity(1) == pytest.approx(1.0, abs=1e-15)
    assert short.draw(np.nextafter(1.0, 0)) == 1


def keys_of(rows, seed):
    return np.array([tie_key(int(row), seed) for row in rows], np.uint64)


def falling(values, rows, seed):
    """Positions from the largest value to the smallest, the smaller key first among equals."""
    return np.lexsort((keys_of(rows, seed), -values))


@given(
    values=st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1e300, math.inf]), max_size=30),
    count=st.integers(0, 40),
    seed=st.integers(0, 2**64 - 1),
    single=st.booleans(),
)
def test_the_best_come_in_order_with_ties_by_key(values, count, seed, single):
    values = np.array(values, np.float64)
    rows = np.random.default_rng(len(values)).permutation(100)[: len(values)]
    if single:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
    expected = falling(values, rows, np.uint64(seed))[:count]
    assert best(values, rows, count, np.uint64(seed)).tolist() == expected.tolist()


@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=12),
    data=st.data(),
    n_slots=st.integers(0, 14),
    seed=st.integers(0, 2**40),
)
def test_the_best_by_score_are_the_slate_that_does_not_explore(scores, data, n_slots, seed):
    ids = [f"i{row}" for row in range(len(scores))]
    blocked = data.draw(st.sets(st.sampled_from(ids)))
    batch = RankingBatch(ids, scores=scores)
    possible = np.array([item not in blocked for item in ids])
    slate = build_slate(
        Greedy(), Greedy().initial_state(), batch, n_slots, (), [BlockList(items=sorted(blocked))], seed=seed
    )
    assert best_by_score(batch, possible, n_slots, seed).tolist() == slate.order.tolist()


def test_the_best_by_score_are_found_beyond_the_head_that_is_sorted_first():
    scores, seed = np.array([5.0, 4.0, 4.0, 3.0, 2.0, 9.0]), np.uint64(3)
    possible = np.array([True, True, True, True, True, False])
    ranked = np.arange(5)[falling(scores[:5], np.arange(5), seed)]
    assert ranked[[0, 3, 4]].tolist() == [0, 3, 4]
    ranking = BestByScore(scores, seed, possible, depth=2)
    free = possible.copy()
    for row in ranked.tolist():
        assert ranking.among(free) == row
        free[row] = False
    assert not free[ranking.among(free)]
    nobody = BestByScore(scores, seed, np.zeros(6, np.bool_), depth=2)
    assert nobody.among(np.zeros(6, np.bool_)) == 0


def test_tie_keys_are_distinct_and_even():
    seed = tie_seed(2**70 + 3)
    assert len(set(keys_of(range(10_000), seed).tolist())) == 10_000
    assert not np.array_equal(keys_of(range(9), tie_seed(3)), keys_of(range(9), seed))
    assert in_key_order(np.arange(50), seed).tolist() == np.argsort(keys_of(range(50), seed)).tolist()
    # The first of three tied rows is each of them in a third of 3,000 seeds; 4.5 sd = a false alarm of 1e-5.
    firsts = [int(keys_of(range(3), tie_seed(seed)).argmin()) for seed in range(3_000)]
    assert np.abs(np.bincount(firsts, minlength=3) - 1_000).max() < 4.5 * math.sqrt(3_000 * 2 / 9)


def test_the_numbers_of_neighbouring_seeds_are_uniform_and_unrelated():
    first, second = np.array([(stream.next(), stream.next()) for stream in map(Uniforms, range(20_000))]).T
    # Kolmogorov-Smirnov at 1e-4 each, and correlations within 4.5 sd of 0.
    for numbers in (first, second, first - second + (first < second)):
        assert np.abs(np.sort(numbers) - (np.arange(20_000) + 0.5) / 20_000).max() < 2.23 / math.sqrt(20_000)
    for one, other in ((first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / math.sqrt(20_000)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"n_slots": -1}, "n_slots"),
        ({"n_slots": 1, "seed": -1}, "seed"),
        ({"n_slots": 1, "explore_slots": [-1]}, "count from 0"),
    ],
)
def test_negative_arguments_are_refused(arguments, complaint):
    with pytest.raises(InvalidBatch, match=complaint):
        build_slate(Greedy(), Greedy().initial_state(), RankingBatch(["a"]), **arguments)


@pytest.mark.parametrize("order", [[5], [-1], [[0]]])
def test_an_order_that_names_no_rows_is_refused(order):
    with pytest.raises(InvalidBatch, match="rows of 2 candidates"):
        slate_log_propensity(Greedy(), Greedy().initial_state(), RankingBatch(["a", "b"]), order)


def test_only_explorable_candidates_are_explored(case):
    explorable = np.zeros(len(case.batch), np.bool_)
    explorable[[1, 3]] = True
    slates = [
        build_slate(case.policy, case.state, case.batch, 4, explorable=explorable, seed=seed)
        for seed in range(60)
    ]
    best = Greedy()
    for slate in slates:
        # Two can be explored, in the two slots at the top; then the best by score follow.
        assert slate.method == ("explore", "explore", "score", "score")
        assert sorted(slate.order[:2].tolist()) == [1, 3]
        assert slate.support[0].sum() <= 2
        assert slate.propensities[2:].tolist() == [1.0, 1.0]
        rest = build_slate(
            best,
            best.initial_state(),
            case.batch,
            4,
            explorable=~explorable,
            explore_slots=(),
            seed=slate.seed,
        )
        placed = slate.order[:2].tolist()
        left = [row for row in rest.order.tolist() if row not in placed]
        assert slate.order[2] == left[0]


def test_a_slate_with_explorable_candidates_has_the_propensity_it_logs(case):
    explorable = np.arange(len(case.batch)) % 2 == 0
    for seed in range(20):
        slate = build_slate(case.policy, case.state, case.batch, 3, explorable=explorable, seed=seed)
        log = slate_log_propensity(
            case.policy, case.state, case.batch, slate.order, explorable=explorable, seed=seed
        )
        assert log == pytest.approx(np.log(slate.propensities).sum(), abs=1e-12)


@pytest.mark.parametrize("explorable", [np.ones(2, np.bool_), np.ones(3)])
def test_an_explorable_mask_of_another_shape_or_type_is_refused(explorable):
    batch = RankingBatch(np.arange(3))
    with pytest.raises(InvalidBatch, match="explorable"):
        build_slate(Uniform(), Uniform().initial_state(), batch, 1, explorable=explorable)


def test_offsets_are_checked_like_scores():
    with pytest.raises(InvalidBatch, match=r"`offsets` has shape \(2,\)"):
        RankingBatch(np.arange(3), offsets=np.zeros(2))
    with pytest.raises(InvalidBatch, match="`offsets` of item 1 is not finite"):
        RankingBatch(np.arange(2), offsets=np.array([0.0, np.nan]))


@dataclass(frozen=True)
class DrawsAnything(StatelessPolicy):
    """Its distribution is sound, and what it draws from is not."""

    name = "draws_anything"
    row: int = 0
    number: float = 0.5

    def contest(self, state, batch, eligible, rng):
        policy, honest = self, super().contest(state, batch, eligible, rng)

        class Contest:
            distribution = honest.distribution

            def drawable(self, eligible):
                return self

            def draw(self, uniform):
                return policy.row

            def propensity(self, row):
                return policy.number

            def mark(self, support):
                support[policy.row] = True

        return Contest()


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (DrawsAnything(row=1), "drew item 'b', which the guards removed"),
        (DrawsAnything(number=0.0), "drew item 'a' and gives it a probability of 0.0"),
        (DrawsAnything(number=1.5), "probability of 1.5"),
        (DrawsAnything(number=math.nan), "probability of nan"),
    ],
)
def test_what_is_drawn_is_checked(policy, complaint):
    batch = RankingBatch(["a", "b", "c"])
    with pytest.raises(InvalidPolicy, match=complaint):
        build_slate(policy, policy.initial_state(), batch, 1, guards=[BlockList(["b"])])
