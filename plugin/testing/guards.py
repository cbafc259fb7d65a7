"""The suite that a guard inherits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from explorank.hooks.exploration import Uniform, build_slate
from explorank.hooks.guards import Guard, guard_name, with_snapshots
from explorank.hooks.registry import Registry
from explorank.hooks.types import BoolArray, IndexArray, RankingBatch, RankingRequest
from explorank.settings import json_schema
from explorank.testing.batches import taken
from explorank.testing.demands import demand, without_warnings
from explorank.testing.operations import operations
from explorank.testing.options import WORD

_UNKNOWN_IDS = ("", " ", "never-seen", "ünknown", "'; --", "0", "-1", "nan", "x" * 300)


@dataclass(frozen=True, slots=True)
class GuardCase:
    """One question to a guard, and what it must answer."""

    item_ids: Sequence[str]
    blocked: Collection[str]
    """Ids that the guard must not allow."""
    placed: Sequence[str] = ()
    """Ids in the slots above; the slot asked for is the next one."""
    allowed: Collection[str] = ()
    """Ids that the guard must allow."""
    request: RankingRequest | None = None
    """Who asks; `None` is the suite's `make_request`."""


class GuardTests:
    """Holds a guard to the whole contract.

        class TestNotTwice(GuardTests):
            def make_guard(self):
                return NotTwice()

            def cases(self):
                yield GuardCase(["a", "b"], placed=["a"], blocked=["a"], allowed=["b"])

    `make_guard` and `cases` are needed; `make_batch` and `make_request` may give the suite other data. Where
    the guard reads a file, an `@pytest.fixture(autouse=True)` method of the subclass may write it first. Each
    test's docstring says what it demands and why.
    """

    operations_per_candidate: ClassVar[float] = 3.0
    """Bytecode instructions that one more candidate may cost; the shortest loop needs 5."""

    def make_guard(self) -> Guard:
        """Return the guard under test."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say which guard to test. Give it `def make_guard(self)` that "
            "returns one."
        )

    def cases(self) -> Iterable[GuardCase]:
        """Return questions whose answer is known, at least one of which blocks an item."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say what its guard blocks. Give it `def cases(self)` that "
            "yields `GuardCase`s."
        )

    def make_batch(self, n: int) -> RankingBatch:
        """Return `n` candidates; override it for a guard that reads other columns."""
        return RankingBatch(
            item_ids=np.array([f"item-{row}" for row in range(n)], np.str_),
            scores=np.arange(n, dtype=np.float64),
        )

    def make_request(self) -> RankingRequest:
        """Return who asks where nothing else is said: by default somebody anonymous, without any context."""
        return RankingRequest(decision_id="conformance", slots=10)

    def test_a_mask_says_who_is_eligible(self) -> None:
        """`eligible` returns (n,) bool, in slot 0 and below others.

        Anything else counts as a failure at serving: nobody is eligible, or everybody, as `fails` says.
        """
        batch = self.make_batch(8)
        for placed in _slates(len(batch)):
            self._ask(self.make_guard(), batch, placed)

    def test_a_mask_is_a_function(self) -> None:
        """The same question has the same answer, to it and to an equal guard, and nothing given is changed.

        Every slot asks, and so does whoever computes the probability of a slate afterwards. What a guard
        reads of the outside belongs into `snapshot`, which is taken once per request.
        """
        guard, batch = self.make_guard(), self.make_batch(8)
        request = self._snapped(guard, self.make_request())
        ids, scores = batch.item_ids.copy(), batch.score_values.copy()
        for placed in _slates(len(batch)):
            given = placed.copy()
            once = self._ask(guard, batch, given, request).copy()
            for other in (guard, self.make_guard()):
                again = self._ask(other, batch, given, request)
                demand(
                    np.array_equal(once, again),
                    f"{guard_name(guard)} answered {once} and then {again} for placed {placed}; the log of a "
                    "slate could not be trusted. Take what changes in `snapshot`.",
                )
            demand(
                np.array_equal(given, placed)
                and np.array_equal(batch.item_ids, ids)
                and np.array_equal(batch.score_values, scores),
                f"{guard_name(guard)} wrote into the batch or into `placed`; they are the slate's.",
            )

    def test_the_order_of_candidates_does_not_matter(self) -> None:
        """Candidates in another order get the same answers: a mask is about items, `placed` about rows."""
        guard, batch = self.make_guard(), self.make_batch(8)
        turned = np.random.default_rng(3).permutation(len(batch))
        permuted = taken(batch, turned)
        for placed in _slates(len(batch)):
            here = self._ask(guard, batch, placed)
            there = self._ask(guard, permuted, np.argsort(turned)[placed])
            demand(
                np.array_equal(here[turned], there),
                f"{guard_name(guard)} answered {here}, and {there} for the candidates in the order {turned}, "
                f"placed {placed}. Look at ids and columns, not at where a row stands.",
            )

    def test_a_static_guard_keeps_its_promise(self) -> None:
        """`static = True` means: neither `placed` nor `slot` nor anything but the ids matters.

        Such a guard is asked once per request, for all slots, and before anything is scored. One that looks
        at more would let blocked items through in the slots that were not asked about.
        """
        guard = self.make_guard()
        if not getattr(guard, "static", False):
            return
        questions = [(self.make_request(), self.make_batch(8))]
        questions += [(case.request or self.make_request(), _batch(case)) for case in self.cases()]
        for request, batch in questions:
            first = self._ask(guard, batch, np.zeros(0, np.int64), request).copy()
            for placed in _slates(len(batch)):
                answer = self._ask(guard, batch, placed, request)
                demand(
                    np.array_equal(first, answer),
                    f"{guard_name(guard)} promises to be static and answered {first} for slot 0, {answer} for "
                    f"slot {len(placed)} below rows {placed}; it is asked once for all. Drop `static = True`.",
                )
            bare = self._ask(guard, RankingBatch(batch.item_ids), np.zeros(0, np.int64), request)
            demand(
                np.array_equal(first, bare),
                f"{guard_name(guard)} promises to be static and answered {first}, but {bare} for the same ids "
                "without scores and columns; it is asked before those are known. Drop `static = True`.",
            )

    def test_it_blocks_what_it_says(self) -> None:
        """Each case's `blocked` ids are not allowed and its `allowed` ids are, also in slates that are drawn.

        At least one case must block something, or the suite has seen nothing.
        """
        guard, cases = self.make_guard(), list(self.cases())
        demand(any(case.blocked for case in cases), "No case of `cases` blocks an item; give one that does.")
        for case in cases:
            batch = _batch(case)
            ids = batch.item_ids.tolist()
            strangers = {*case.blocked, *case.allowed, *case.placed} - set(ids)
            demand(not strangers, f"A case speaks of {sorted(strangers)}, which are not in its `item_ids`.")
            placed = np.array([ids.index(item) for item in case.placed], np.int64)
            request = self._snapped(guard, case.request or self.make_request())
            mask = self._ask(guard, batch, placed, request)
            admitted = {item for item, allowed in zip(ids, mask.tolist(), strict=True) if allowed}
            passed, missed = admitted & set(case.blocked), set(case.allowed) - admitted
            demand(not passed, f"{guard_name(guard)} allows {sorted(passed)} in {case}; it must not.")
            demand(not missed, f"{guard_name(guard)} bars {sorted(missed)} in {case}; it must allow them.")
            if case.placed:
                continue
            for seed in range(10):
                slate = build_slate(
                    Uniform(), Uniform().initial_state(), batch, 1, guards=[guard], request=request, seed=seed
                )
                shown = set(batch.item_ids[slate.order].tolist()) & set(case.blocked)
                demand(not shown, f"A slate guarded by {guard_name(guard)} shows {sorted(shown)} in {case}.")

    def test_no_candidates_have_an_empty_mask(self) -> None:
        """Where nobody was retrieved, or others removed everybody, it answers (0,) bool.

        An empty list becomes an array of floats, which counts as a failure.
        """
        self._ask(self.make_guard(), self.make_batch(0), np.zeros(0, np.int64))

    def test_unknown_items_and_users_have_an_answer(self) -> None:
        """Ids it has never heard of, odd ones among them, and a request that says nothing of anybody.

        An exception counts as a failure, and a guard that fails closed on a new item empties the slate.
        """
        guard = self.make_guard()
        batch = self.make_batch(len(_UNKNOWN_IDS))
        strange = replace(batch, item_ids=np.array(_UNKNOWN_IDS, np.str_))
        bare = RankingRequest(decision_id="", slots=1)
        for request in (self.make_request(), bare, replace(bare, user_id="nobody-knows", surface="new")):
            with without_warnings(f"{guard_name(guard)} was asked about ids it has never seen"):
                for placed in _slates(len(strange)):
                    self._ask(guard, strange, placed, request)

    def test_its_declarations_are_valid(self) -> None:
        """`name` is a word, `fails` is "closed" or "open", `static` a boolean, `snapshot` a method.

        A misspelt `fails` would quietly mean "closed", and a misspelt `static` that it is asked every time.
        """
        guard = self.make_guard()
        kind = type(guard).__name__
        name = guard_name(guard)
        demand(
            isinstance(getattr(guard, "name", name), str) and name.isidentifier(),
            f"`name` of {kind} is {name!r}; it must be a word, for reports and `request.guard_state`.",
        )
        fails = getattr(guard, "fails", "closed")
        demand(fails in {"closed", "open"}, f'`fails` of {kind} is {fails!r}; write "closed" or "open".')
        static = getattr(guard, "static", False)
        demand(isinstance(static, bool), f"`static` of {kind} is {static!r}; write True or False.")
        demand(
            callable(getattr(guard, "snapshot", guard.eligible)),
            f"`snapshot` of {kind} is no method; it is called with the request.",
        )
        version = getattr(guard, "version", "")
        demand(isinstance(version, str), f"`version` of {kind} is {version!r}; decisions record a text.")

    def test_settings_can_name_it(self) -> None:
        """Its class can be registered, and the JSON Schema of explorank.yaml then knows it.

        Editors complete and explain settings with the schema.
        """
        guard = self.make_guard()
        name = guard_name(guard)
        demand(
            hasattr(guard, "name") and WORD.fullmatch(name),
            f"`name` of {type(guard).__name__} is {name!r}; settings need a word of small letters, digits and "
            "underscores.",
        )
        registry = Registry()
        registry.guard(name, type(guard))
        schema = json_schema(registry)
        json.dumps(schema)
        (own,) = schema["$defs"]["GuardComponent"]["oneOf"]
        demand(own["description"], f"{name} has no docstring; its first paragraph is its description.")

    def test_a_mask_does_not_loop_over_candidates(self) -> None:
        """Nine hundred more candidates cost hardly more bytecode: the work is done on whole arrays.

        It runs for every slot. Instructions are counted, not milliseconds.
        """
        guard, counted, placed = self.make_guard(), {}, np.arange(3)
        request = self._snapped(guard, self.make_request())
        for n in (100, 1_000):
            ask = partial(guard.eligible, request, self.make_batch(n), placed, len(placed))
            ask()  # what is computed once is not a request's cost
            counted[n] = operations(ask)
        each = (counted[1_000] - counted[100]) / 900
        demand(
            each <= self.operations_per_candidate,
            f"{guard_name(guard)} executes {each:.1f} more bytecode instructions for each further candidate "
            f"({counted[100]} for 100, {counted[1_000]} for 1,000); it loops over them in Python, at every "
            "slot. Work on whole arrays.",
        )

    def _snapped(self, guard: Guard, request: RankingRequest) -> RankingRequest:
        return with_snapshots([guard], request, _raised)

    def _ask(
        self,
        guard: Guard,
        batch: RankingBatch,
        placed: IndexArray,
        request: RankingRequest | None = None,
    ) -> BoolArray:
        __tracebackhide__ = True
        asked = self._snapped(guard, self.make_request() if request is None else request)
        answer = guard.eligible(asked, batch, placed, len(placed))
        mask = np.asarray(answer)
        demand(
            mask.shape == (len(batch),) and mask.dtype == np.bool_,
            f"{guard_name(guard)} answered {answer!r} for {len(batch)} candidates, rows {placed} placed; it "
            f"must be bool of shape ({len(batch)},), one for each candidate.",
        )
        return mask


def _slates(n: int) -> list[IndexArray]:
    """Return what may stand above a slot: nothing, one row, some."""
    return [np.array(rows[: max(n - 1, 0)], np.int64) for rows in ([], [0], [n - 1, 0], [1, 3, 2])]


def _batch(case: GuardCase) -> RankingBatch:
    return RankingBatch(item_ids=np.array(case.item_ids, np.str_))


def _raised(name: str, error: Exception) -> None:
    raise AssertionError(f"`snapshot` of {name} raised {type(error).__name__}: {error}") from error
