"""The controller against a clock that a test sets: every number below is worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explorank.effort import Effort
from explorank.host.load_controller import LoadController, Turn

LADDER = tuple(Effort(name=name) for name in ("whole", "fewer", "cheap", "bare"))
BOUND_S = 0.100  # 80 ms are usable; a wait of 40 ms is a standing queue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def controller(clock: Clock) -> LoadController:
    return LoadController(LADDER, bound_s=BOUND_S, threads=1, clock=clock)


def learn(controller: LoadController, rung_costs_s: dict[int, float], times: int = 60) -> None:
    """Let the rungs' costs become known; so often that their deviations are nearly nothing."""
    for rung, cost_s in rung_costs_s.items():
        for _ in range(times):
            controller.finished(Turn(rung, LADDER[rung]), cost_s)


def rung_for(controller: LoadController, waited_s: float) -> int | None:
    turn = controller.begin(waited_s)
    return None if turn is None else turn.rung


def test_without_a_queue_everything_gets_the_whole_effort(controller, clock):
    for _ in range(1000):
        clock.now += 0.010
        assert controller.admits(0)
        turn = controller.begin(0.0)
        assert turn.rung == 0
        assert turn.effort is LADDER[0]
        controller.finished(turn, 0.005)
    assert controller.rung == 0


def test_a_request_takes_the_first_rung_that_fits_into_what_its_wait_left(controller):
    learn(controller, {0: 0.030, 1: 0.020, 2: 0.010, 3: 0.001})
    # 80 ms less the wait: 50.1, 49.9 | 60.1 | 70.1 | 79.1
    waits = {0.0499: 0, 0.0501: 1, 0.0599: 1, 0.0601: 2, 0.0699: 2, 0.0701: 3, 0.0789: 3}
    assert {wait: rung_for(controller, wait) for wait in waits} == waits
    assert rung_for(controller, 0.0791) is None
    assert rung_for(controller, 10.0) is None


def test_a_cost_that_varies_needs_more_room(controller):
    turn = controller.begin(0.0)
    for number in range(400):
        controller.finished(turn, 0.010 if number % 2 else 0.030)
    # The mean is near 20 ms and the mean deviation near 10 ms: 40 ms rarely suffice no more.
    assert rung_for(controller, 0.030) == 0
    assert rung_for(controller, 0.050) == 1


def test_the_first_answer_of_a_rung_pays_for_what_is_done_once_and_does_not_count(controller):
    controller.finished(controller.begin(0.0), 5.0)
    assert rung_for(controller, 0.0) == 0
    controller.finished(controller.begin(0.0), 0.010)
    # Now 10 ms with a deviation of 5 are expected: 20 ms rarely suffice no more.
    assert rung_for(controller, 0.0599) == 0
    assert rung_for(controller, 0.0601) == 1


def test_a_rung_that_was_never_tried_is_taken_to_cost_half_of_the_one_before(controller):
    learn(controller, {0: 0.040})
    assert [rung_for(controller, 0.080 - left) for left in (0.041, 0.021, 0.011, 0.0051)] == [0, 1, 2, 3]
    assert rung_for(controller, 0.080 - 0.0049) is None


def test_a_queue_that_stands_takes_all_requests_a_rung_lower_each_interval(controller, clock):
    learn(controller, {0: 0.001})
    for expected in (0, 1, 2, 3, 3):
        assert rung_for(controller, 0.050) == expected
        clock.now += 0.101
    assert "waited 50.0 ms of 100 ms" in controller.begin(0.050).effort.reason


def test_a_queue_that_empties_now_and_then_is_no_standing_one(controller, clock):
    learn(controller, {0: 0.001})
    for _ in range(20):
        for wait in (0.070, 0.060, 0.001, 0.070):
            assert rung_for(controller, wait) == 0
        clock.now += 0.101


def overload(controller: LoadController, clock: Clock, intervals: int) -> None:
    for _ in range(intervals):
        controller.begin(0.050)
        clock.now += 0.101
    controller.begin(0.050)


def test_it_comes_back_a_rung_at_a_time_once_the_load_fits(controller, clock):
    learn(controller, {0: 0.010, 1: 0.008, 2: 0.004, 3: 0.001})
    overload(controller, clock, 3)
    assert controller.rung == 3
    seen = []
    for _ in range(3):
        for _ in range(5):  # 50 a second: 0.5 of the time at the whole effort
            clock.now += 0.0202
            controller.admits(0)
            seen.append(rung_for(controller, 0.0))
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 3
    assert controller.rung == 0


def test_it_stays_down_while_the_load_would_not_fit_higher_up(controller, clock):
    learn(controller, {0: 0.010, 1: 0.009, 2: 0.009, 3: 0.001})
    overload(controller, clock, 3)
    for _ in range(1_000):  # 1 s at 1,000 a second, which the last rung alone can do, without any wait
        clock.now += 0.001
        controller.admits(0)
        turn = controller.begin(0.0)
        assert turn.rung == 3
        controller.finished(turn, 0.001)


def test_what_was_dear_long_ago_is_tried_again(controller, clock):
    learn(controller, {0: 10.0})
    assert rung_for(controller, 0.0) == 3
    intervals = 0
    while rung_for(controller, 0.0) != 0:
        intervals += 1
        clock.now += 0.100001
        controller.finished(Turn(3, LADDER[3]), 0.001)
    # 10 s must fall to 80 ms at 3 % an interval: ln(125) / -ln(0.97) = 158.5.
    assert intervals == pytest.approx(159, abs=1)


def test_hours_without_requests_end_an_overload(controller, clock):
    learn(controller, {0: 0.020, 3: 0.001})
    overload(controller, clock, 3)
    assert controller.rung == 3
    clock.now += 3600.0
    assert controller.admits(0)
    assert rung_for(controller, 0.0) == 0


def test_a_queue_too_long_for_the_cheapest_rung_takes_nobody_in(controller):
    learn(controller, {0: 0.030, 3: 0.002})
    assert controller.admits(38)
    assert not controller.admits(40)


def test_whoever_finds_nobody_before_him_is_taken_in_and_answered(controller):
    learn(controller, dict.fromkeys(range(4), 5.0))
    assert controller.admits(0)
    assert rung_for(controller, 0.0) == 3
    assert rung_for(controller, 0.041) is None


def test_two_threads_take_in_twice_as_many(clock):
    controller = LoadController(LADDER, bound_s=BOUND_S, threads=2, clock=clock)
    learn(controller, {0: 0.030, 3: 0.002})
    assert controller.admits(76)
    assert not controller.admits(80)


@given(
    costs=st.lists(st.floats(0.0005, 0.05), min_size=4, max_size=4).map(lambda c: sorted(c, reverse=True)),
    gap=st.floats(0.0001, 0.05),
)
def test_one_server_keeps_the_bound_whatever_arrives(costs, gap):
    """A queue with one server in simulated time, costs constant: nobody that is answered is late."""
    clock = Clock()
    controller = LoadController(LADDER, bound_s=BOUND_S, threads=1, clock=clock)
    queue: list[float] = []
    free_at = arrives = clock.now
    answered, late = 0, 0
    for _ in range(1_500):
        # The server takes up whatever it can before the next arrival.
        while queue and free_at <= arrives:
            arrived = queue.pop(0)
            clock.now = max(free_at, arrived)
            turn = controller.begin(clock.now - arrived)
            if turn is None:
                continue
            free_at = clock.now = clock.now + costs[turn.rung]
            controller.finished(turn, costs[turn.rung])
            answered += 1
            late += clock.now - arrived > BOUND_S
        clock.now = max(clock.now, arrives)
        if controller.admits(len(queue) + (free_at > arrives)):
            queue.append(arrives)
        arrives += gap
    assert answered
    # Before the costs are known, the guess may be wrong.
    assert late <= 10
