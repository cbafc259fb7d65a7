"""The suite finds what it is there to find: rankers that break the contract in one way each.

Their base passes the whole suite, so that what is found is the break.
"""

import itertools
import pickle
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from explorank.rankers import RankerManifest
from explorank.testing import RankerTests


@pytest.fixture(scope="module")
def linear(module_at):
    return module_at(Path(__file__).with_name("linear_ranker.py"))


def break_score(change):
    """A ranker whose `score` is `change(self, features, honest scores)`."""
    return lambda base: type(
        "Broken", (base,), {"score": lambda self, x: change(self, x, base.score(self, x))}
    )


def single(self, features, scores):
    return scores.astype(np.float32)


def listwise(self, features, scores):
    return scores - scores.max(initial=0.0)


def nan_for_missing(self, features, scores):
    return np.where(np.isnan(features).any(axis=1), np.nan, scores)


def by_position(self, features, scores):
    return scores + np.arange(len(scores))


def by_layout(self, features, scores):
    return scores + (0.0 if features.flags.c_contiguous or len(features) < 2 else 1.0)


def writes(self, features, scores):
    if len(features) and features.flags.writeable:
        features[0, 0] = 0.5
    return scores


_CALLS = itertools.count()


def shares_memory(self, features, scores):
    if threading.current_thread() is threading.main_thread():
        return scores
    return scores + next(_CALLS)


def takes_any_width(base):
    class Broken(base):
        def score(self, features):
            return super().score(np.atleast_2d(features)[:, : len(self.slopes)])

    return Broken


def checks_sets(base):
    class Broken(base):
        def check(self, names):
            self.manifest.check(sorted(names))

    return Broken


def needs_rows(base):
    class Broken(base):
        def score(self, features):
            assert len(features), "no rows"
            return super().score(features)

    return Broken


def uncertain(deviation):
    class Mixin:
        def score_with_uncertainty(self, features):
            return self.score(features), deviation(self.score(features))

    return lambda base: type("Uncertain", (Mixin, base), {})


def represents(beside=lambda hidden: hidden, deviation=1.0):
    class Mixin:
        representation_scale = (np.zeros(2, np.float32), np.full(2, deviation, np.float32))

        def representation(self, features):
            return np.column_stack([self.score(features)] * 2).astype(np.float32)

        def score_with_representation(self, features):
            return self.score(features), beside(self.representation(features))

    return lambda base: type("Representing", (Mixin, base), {})


def adapts(way):
    """A ranker that begins as another by `way(self, the honest other)`."""
    return lambda base: type(
        "Adapting", (base,), {"adapt": lambda self, data, *, seed: way(self, type(self).fit(data, seed=seed))}
    )


def learns_in_place(self, other):
    self.slopes = other.slopes
    return other


def cheaply(way):
    class Mixin:
        cheaper_way = "half of it"

        def score_cheaply(self, features):
            return way(self.score(features))

    return lambda base: type("Hurried", (Mixin, base), {})


def reads_ids(read, columns=("first",)):
    class Mixin:
        id_columns = columns

        def read_ids(self, item_ids, history):
            return read(item_ids, history)

    return lambda base: type("Reading", (Mixin, base), {})


def ignores_data(base):
    class Broken(base):
        def __init__(self, slopes, manifest):
            super().__init__(np.array([0.0, 0.0, 1.0]), manifest)

    return Broken


def unseeded(base):
    class Broken(base):
        def __init__(self, slopes, manifest):
            super().__init__(np.asarray(slopes) + 1e-9 * next(_CALLS), manifest)

    return Broken


def described(**changes):
    class Mixin:
        @classmethod
        def fit(cls, data, **arguments):
            ranker = super().fit(data, **arguments)
            return cls(ranker.slopes, replace(ranker.manifest, **changes))

    return lambda base: type("Described", (Mixin, base), {})


def learns_from_nothing(base):
    class Broken(base):
        @classmethod
        def fit(cls, data, **arguments):
            try:
                return super().fit(data, **arguments)
            except ValueError:
                return cls(
                    np.ones(data.features.shape[1]), cls._manifest(data, np.ones(data.features.shape[1]))
                )

    return Broken


def with_options(options):
    return lambda base: type("Optional", (base,), {"Options": options})


@dataclass
class Thawed:
    penalty: float = 1.0
    """What squared slopes cost."""
    steps: int = 6
    """Passes."""


@dataclass(frozen=True)
class Undocumented:
    penalty: float = 1.0
    steps: int = 6
    """Passes."""


def keeps_quiet(base):
    class Broken(base):
        @classmethod
        def fit(cls, data, *, progress=None, **arguments):
            return super().fit(data, **arguments)

    return Broken


def counts_backwards(base):
    class Broken(base):
        @classmethod
        def fit(cls, data, *, progress=None, **arguments):
            return super().fit(
                data,
                progress=None if progress is None else lambda done, of: progress(of - done, of),
                **arguments,
            )

    return Broken


def forgets_where_it_was(base):
    """Goes on from a checkpoint with half of what it had learnt."""

    class Broken(base):
        @classmethod
        def fit(cls, data, *, checkpoint=None, **arguments):
            again = cls._begin(checkpoint) > 0
            ranker = super().fit(data, checkpoint=checkpoint, **arguments)
            return cls(ranker.slopes / 2, ranker.manifest) if again else ranker

    return Broken


def rounds(base):
    class Broken(base):
        @staticmethod
        def _content(slopes):
            return str([round(float(one), 3) for one in slopes]).encode()

    return Broken


def trusts(base):
    class Broken(base):
        @classmethod
        def load(cls, folder):
            import json

            manifest = RankerManifest.read(Path(folder) / "manifest.json")
            return cls(json.loads((Path(folder) / "slopes.json").read_bytes()), manifest)

    return Broken


def names_no_file(base):
    class Broken(base):
        @classmethod
        def load(cls, folder):
            try:
                return super().load(folder)
            except ValueError as error:
                raise type(error)("Something is wrong. Restore it.") from error

    return Broken


def pickles(base):
    class Broken(base):
        def save(self, folder):
            super().save(folder)
            (Path(folder) / "spare").write_bytes(pickle.dumps(self.slopes))

    return Broken


def explains(**changes):
    def change(self, explained):
        return replace(explained, **{name: value(explained) for name, value in changes.items()})

    return lambda base: type(
        "Explaining", (base,), {"explain": lambda self, x: change(self, base.explain(self, x))}
    )


NAMES = ("first", "second", "third")
BROKEN = [
    (break_score(single), "each_row_has_a_finite_score", "float32"),
    (break_score(nan_for_missing), "each_row_has_a_finite_score", "must be finite"),
    (needs_rows, "no_rows_have_no_scores", "no rows"),
    (break_score(listwise), "a_row_is_scored_by_itself", "each row alone"),
    (break_score(by_position), "a_row_is_scored_by_itself", "in another order"),
    (break_score(by_layout), "memory_does_not_matter", "by columns"),
    (break_score(writes), "memory_does_not_matter", "wrote into"),
    (break_score(shares_memory), "threads_do_not_disturb_each_other", "other threads"),
    (takes_any_width, "other_features_are_refused", "takes features of shape"),
    (checks_sets, "other_features_are_refused", "accepts"),
    (uncertain(np.ones_like), "an_uncertainty_is_a_standard_deviation", "the same for all rows"),
    (uncertain(lambda scores: -np.abs(scores)), "an_uncertainty_is_a_standard_deviation", "below 0"),
    (uncertain(lambda scores: 0.5), "an_uncertainty_is_a_standard_deviation", "has no attribute"),
    (
        reads_ids(lambda ids, history: np.zeros((len(ids), 1)), ("first",)),
        "ids_are_read_per_request",
        "float64",
    ),
    (
        reads_ids(lambda ids, history: np.array([[int(one[5:])] for one in ids], np.float32)),
        "ids_are_read_per_request",
        "ValueError",
    ),
    (represents(lambda hidden: hidden[:, 0]), "a_representation_comes_with_the_score", "due is"),
    (represents(lambda hidden: hidden + 1), "a_representation_comes_with_the_score", "otherwise than beside"),
    (
        represents(lambda hidden: hidden[:, :1]),
        "a_representation_comes_with_the_score",
        "otherwise|its scale",
    ),
    (represents(deviation=0.0), "a_representation_comes_with_the_score", "above 0"),
    (cheaply(lambda scores: scores.astype(np.float32)), "a_cheaper_way_scores_too", "float32"),
    (cheaply(lambda scores: -scores), "a_cheaper_way_scores_too", "otherwise than by all it knows"),
    (cheaply(lambda scores: scores if len(scores) else np.ones(1)), "a_cheaper_way_scores_too", "no rows"),
    (ignores_data, "it_learns_a_known_signal", "of the way"),
    (unseeded, "the_same_seed_gives_the_same_ranker", "one seed"),
    (described(feature_names=NAMES[::-1]), "the_manifest_tells_what_it_was_trained_on", "lists the features"),
    (described(feature_hash="0"), "the_manifest_tells_what_it_was_trained_on", "feature_hash"),
    (described(training_window=None), "the_manifest_tells_what_it_was_trained_on", "window"),
    (described(name="My ranker"), "the_manifest_tells_what_it_was_trained_on", "a word of small letters"),
    (
        described(metrics={"loss": float("nan")}),
        "the_manifest_tells_what_it_was_trained_on",
        "finite numbers",
    ),
    (learns_from_nothing, "data_that_teach_nothing_are_refused", "a single request"),
    (with_options(Thawed), "settings_can_name_its_options", "not frozen"),
    (with_options(Undocumented), "settings_can_name_its_options", "`penalty` of Undocumented"),
    (with_options(Undocumented), "wrong_options_are_refused", "Broken|Optional accepts"),
    (keeps_quiet, "progress_is_told", "never calls"),
    (counts_backwards, "progress_is_told", "must rise"),
    (forgets_where_it_was, "a_run_that_was_cut_off_goes_on", "another ranker where it was cut off"),
    (keeps_quiet, "a_run_that_was_cut_off_goes_on", "swallows"),
    (rounds, "a_saved_ranker_is_the_same_ranker", "scores otherwise after loading"),
    (trusts, "a_damaged_file_is_refused_by_name", "slopes.json"),
    (names_no_file, "a_damaged_file_is_refused_by_name", "does not name manifest.json"),
    (pickles, "its_files_hold_no_code", "spare"),
    (adapts(learns_in_place), "it_can_begin_as_another", "has changed where another began"),
    (adapts(lambda self, other: self), "it_can_begin_as_another", "must learn from the data"),
    (explains(base=lambda given: given.base + 1e-3), "attributions_sum_to_the_score", "off by"),
    (
        explains(attributions=lambda given: given.attributions[:, :-1]),
        "an_explanation_names_its_features",
        "by",
    ),
    (explains(method=lambda given: ""), "an_explanation_names_its_features", "the method ''"),
]


def suite_of(ranker):
    class Suite(RankerTests):
        ranker_class = ranker
        invalid_options = ({"penalty": 0.0},)

    return Suite()


@pytest.mark.parametrize(("broken", "test", "words"), BROKEN)
def test_a_break_is_found_and_explained(run, linear, broken, test, words):
    suite = suite_of(broken(linear.Linear))
    with pytest.raises((AssertionError, AttributeError), match=words):
        run(suite, f"test_{test}")


TESTS = sorted(name for name in dir(RankerTests) if name.startswith("test_"))


@pytest.mark.parametrize("test", TESTS)
def test_the_base_of_the_broken_ones_passes(run, linear, test):
    run(suite_of(linear.Linear), test)
    sure = uncertain(lambda scores: np.abs(scores - 0.1))(linear.Linear)
    sure = adapts(lambda self, other: other)(sure)
    sure = represents()(cheaply(lambda scores: np.round(scores, 1))(sure))
    run(suite_of(reads_ids(lambda ids, history: np.zeros((len(ids), 0), np.float32), ())(sure)), test)


def test_a_resuming_ranker_must_save_steps(run, linear):
    class Starts(linear.Linear):
        @classmethod
        def _begin(cls, checkpoint):
            return 0

    suite = suite_of(Starts)
    run(suite, "test_a_run_that_was_cut_off_goes_on")
    type(suite).resumes = True
    with pytest.raises(AssertionError, match="took 6 steps of 6 again"):
        run(suite, "test_a_run_that_was_cut_off_goes_on")
    type(suite).ranker_class = linear.Linear
    run(suite, "test_a_run_that_was_cut_off_goes_on")


def test_a_listwise_ranker_is_held_to_its_own_word(run, linear):
    declared = break_score(listwise)(linear.Linear)
    declared.listwise = True
    run(suite_of(declared), "test_a_row_is_scored_by_itself")
    ordered = break_score(by_position)(linear.Linear)
    ordered.listwise = True
    with pytest.raises(AssertionError, match="in another order"):
        run(suite_of(ordered), "test_a_row_is_scored_by_itself")


def test_attributions_of_something_else_must_order_alike(run, linear):
    doubled = suite_of(explains(attributions=lambda given: 2 * given.attributions)(linear.Linear))
    type(doubled).explains_no_score_because = "twice as much is as good"
    run(doubled, "test_attributions_sum_to_the_score")
    turned = suite_of(explains(attributions=lambda given: -given.attributions)(linear.Linear))
    type(turned).explains_no_score_because = "it is not"
    with pytest.raises(AssertionError, match="orders rows otherwise"):
        run(turned, "test_attributions_sum_to_the_score")


def test_every_test_of_the_suite_is_seen_to_fail():
    assert set(TESTS) == {f"test_{test}" for _, test, _ in BROKEN}


def test_a_suite_without_a_ranker_says_what_is_missing(run):
    with pytest.raises(NotImplementedError, match="ranker_class = "):
        run(type("Suite", (RankerTests,), {})(), "test_progress_is_told")
