"""Rankers made of others: weights and ranks by hand, nobody judged on what they were trained on."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from explorank.rankers import (
    RANKERS,
    Bagging,
    BaggingOptions,
    Blend,
    BlendOptions,
    Calibrated,
    CalibratedOptions,
    CorruptRanker,
    FeatureMismatch,
    IdReadingRanker,
    InvalidTraining,
    LightGBMOptions,
    LightGBMRanker,
    RankingData,
    ReciprocalRank,
    ReciprocalRankOptions,
    Stack,
    StackOptions,
    features_for,
    register_ranker,
    score_data,
)
from explorank.rankers._folds import folds_of
from explorank.rankers.blend import _learnt_weights
from explorank.testing import RankerTests

TREES: dict[str, Any] = {
    "use": "lightgbm",
    "rounds": 10,
    "num_threads": 1,
    "num_leaves": 7,
    "learning_rate": 0.1,
}
TREES |= {"min_data_in_leaf": 20, "feature_fraction": 1.0, "lambda_l2": 0.0}
CLICKS: dict[str, Any] = TREES | {"objective": "binary"}
AMOUNTS: dict[str, Any] = TREES | {"objective": "regression"}


def data(seed: int = 0, requests: int = 60, **changes: Any) -> RankingData:
    """Ten rows a request; the three with the most `signal` plus noise are taken up."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((requests * 10, 3)).astype(np.float32)
    relevance = features[:, 0] + 0.5 * rng.standard_normal(len(features))
    labels = (relevance.reshape(requests, 10).argsort(axis=1).argsort(axis=1) >= 7).ravel()
    parts: dict[str, Any] = {
        "features": features,
        "feature_names": ("signal", "noise", "more"),
        "labels": labels,
        "groups": np.full(requests, 10),
        "item_ids": rng.choice([f"item-{number}" for number in range(20)], len(features)),
        "histories": tuple((f"item-{number % 20}",) for number in range(requests)),
    }
    return RankingData(**(parts | changes))


@pytest.fixture(scope="module")
def ids(module_at: Any) -> Any:
    module: ModuleType = module_at(Path(__file__).with_name("id_ranker.py"))
    register_ranker("item_rates", module.ItemRates)
    yield module
    del RANKERS["item_rates"]


# ---- blends ---------------------------------------------------------------------------------------------------


def test_weights_are_those_of_the_regression_made_to_sum_to_one() -> None:
    # Columns of mean 0 and deviation 1, at right angles: the regression of 6 z₁ + 2 z₂ - z₃ has no other answer.
    scores = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
    rows = RankingData(features=np.zeros((4, 1)), feature_names=("a",), labels=scores @ [6.0, 2.0, -1.0])
    weights = _learnt_weights(scores, rows)
    np.testing.assert_allclose(weights / weights.sum(), [0.75, 0.25, 0.0], atol=1e-12)


def test_weights_compare_rows_of_one_request_only() -> None:
    # Member 0 knows which request has more, and nothing within; member 1 knows the order within.
    scores = np.array([[5, 0], [5, 1], [0, 0], [0, 1]], float)
    rows = RankingData(features=np.zeros((4, 1)), feature_names=("a",), labels=[10, 11, 0, 1], groups=[2, 2])
    assert (_learnt_weights(scores, rows) > 1e-9).tolist() == [False, True]


def test_a_member_that_only_sees_noise_gets_no_weight() -> None:
    members = (CLICKS | {"features": ["noise", "more"]}, CLICKS | {"features": ["signal"]})
    blend = Blend.fit(data(), options=BlendOptions(members=members))
    assert sum(blend.weights) == pytest.approx(1.0)
    assert blend.weights[1] > 0.85
    assert blend.manifest.metrics["weight_1"] == blend.weights[1]
    assert blend.manifest.feature_names == ("signal", "noise", "more")


def test_a_blend_is_the_weighted_sum_of_standardised_scores() -> None:
    training, fresh = data(), data(1, requests=4)
    blend = Blend.fit(training, options=BlendOptions(members=(TREES, AMOUNTS), weights=(1.0, 3.0)))
    due = np.zeros(len(fresh))
    for weight, member in zip((0.25, 0.75), blend.members, strict=True):
        before = member.ranker.score(training.features)
        due += weight * (member.ranker.score(fresh.features) - before.mean()) / before.std()
    np.testing.assert_allclose(blend.score(fresh.features), due, rtol=1e-9)


def test_members_that_know_nothing_cannot_be_blended() -> None:
    class Backwards(LightGBMRanker):
        """Scores against the labels."""

        def score(self, features: Any) -> Any:
            return -super().score(features)

    members = ({**CLICKS, "use": Backwards}, {**AMOUNTS, "use": Backwards})
    with pytest.raises(InvalidTraining, match="no member's scores rise with the labels"):
        Blend.fit(data(), options=BlendOptions(members=members))


# ---- stacks and folds -----------------------------------------------------------------------------------------


class Forgetful(LightGBMRanker):
    """Notes which requests each copy was trained on, and which it scored."""

    trained: ClassVar[list[set[bytes]]] = []
    scored: ClassVar[list[tuple[int, set[bytes]]]] = []

    @classmethod
    def fit(cls, data: RankingData, **arguments: Any) -> Any:
        ranker = super().fit(data, **arguments)
        ranker.number = len(cls.trained)  # type: ignore[attr-defined]
        cls.trained.append({row.tobytes() for row in data.features})
        return ranker

    def score(self, features: Any) -> Any:
        Forgetful.scored.append((self.number, {row.tobytes() for row in features}))  # type: ignore[attr-defined]
        return super().score(features)


@pytest.mark.parametrize("fused", [Stack, Calibrated])
def test_nobody_scores_a_request_they_were_trained_on_before_the_end(fused: Any) -> None:
    Forgetful.trained.clear()
    Forgetful.scored.clear()
    training = data()
    member = {**CLICKS, "use": Forgetful}
    options: Any = StackOptions(members=(member, AMOUNTS), folds=4)
    if fused is Calibrated:
        options = CalibratedOptions(member=member, folds=4)
    fused.fit(training, options=options)
    judged = [(number, rows) for number, rows in Forgetful.scored if number < 4]
    assert len(Forgetful.trained) == 5
    for number, rows in judged:
        assert not rows & Forgetful.trained[number]
        assert len(rows) + len(Forgetful.trained[number]) == len(training)
    assert (
        set.union(*(rows for _, rows in judged)) == Forgetful.trained[4]
    )  # every row is judged, and all train at last


def tastes(*, known: bool) -> RankingData:
    """Users with a taste of their own in kinds of items, six requests each; a signal tells a little for everybody."""
    rng = np.random.default_rng(3)
    users, kinds, requests = 24, 4, 144
    owner = np.repeat(np.arange(users), 6)
    kind = rng.integers(0, kinds, (requests, 10))
    liked = rng.random((users, kinds)) < 0.5
    taste = liked[owner[:, None], kind]
    signal = rng.standard_normal((requests, 10))
    codes = rng.permutation(users * kinds)[
        owner[:, None] * kinds + kind
    ]  # neighbours say nothing of each other
    return RankingData(
        features=np.column_stack([codes.ravel(), signal.ravel()]),
        feature_names=("user_and_kind", "signal"),
        labels=(2 * taste + signal + 0.5 * rng.standard_normal(taste.shape) > 1.0).ravel(),
        groups=np.full(requests, 10),
        user_ids=[f"user-{number}" for number in owner] if known else None,
    )


def test_what_a_member_remembers_of_a_user_earns_it_no_weight() -> None:
    remembers = AMOUNTS | {
        "features": ["user_and_kind"],
        "rounds": 30,
        "num_leaves": 95,
        "min_data_in_leaf": 1,
    }
    options = BlendOptions(members=(remembers, AMOUNTS | {"features": ["signal"]}), folds=3)

    by_request = Blend.fit(tastes(known=False), options=options)
    by_user = Blend.fit(tastes(known=True), options=options)

    # Somebody new has a taste that nobody has learnt, so that the signal is all that foresees it.
    assert by_request.weights[0] > 0.4
    assert by_user.weights[0] < 0.1


@given(
    st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=8, max_size=60),
    st.integers(2, 4),
    st.integers(0, 9),
)
def test_a_users_requests_are_in_one_fold_and_folds_are_even(
    owners: list[str], folds: int, seed: int
) -> None:
    requests = RankingData(
        features=np.zeros((len(owners), 1)),
        feature_names=("x",),
        labels=np.zeros(len(owners)),
        user_ids=owners,
    )
    users = {owner for owner in owners if owner}
    if len(users) + owners.count("") < folds:
        with pytest.raises(InvalidTraining, match=r"users, who cannot be cut into \d folds"):
            folds_of(requests, folds, np.random.default_rng(seed))
        return

    found = folds_of(requests, folds, np.random.default_rng(seed))

    for user in users:
        assert len({fold for owner, fold in zip(owners, found, strict=True) if owner == user}) == 1
    sizes = np.bincount(found, minlength=folds)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= max([1, *(owners.count(user) for user in users)])
    np.testing.assert_array_equal(found, folds_of(requests, folds, np.random.default_rng(seed)))


def test_a_stack_learns_which_member_to_trust() -> None:
    members = (AMOUNTS | {"features": ["noise"]}, AMOUNTS | {"features": ["signal"]})
    stack = Stack.fit(data(), options=StackOptions(members=members))
    assert stack.slopes[1] > 0.5
    assert abs(stack.slopes[0]) < 0.5 * stack.slopes[1]
    probability = Stack.fit(data(requests=400), options=StackOptions(members=members, meta="logistic"))
    fresh = data(1, requests=200)
    scores = score_data(probability, fresh)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores.mean() == pytest.approx(0.3, abs=0.03)
    assert probability.explain(features_for(probability, fresh)).link == "logistic"


def test_a_logistic_stack_needs_zeros_and_ones() -> None:
    graded = data(labels=np.arange(600) % 3)
    with pytest.raises(InvalidTraining, match=r"hold 2\.0"):
        Stack.fit(graded, options=StackOptions(members=(TREES, AMOUNTS), meta="logistic"))


# ---- ranks ----------------------------------------------------------------------------------------------------


def test_reciprocal_ranks_by_hand() -> None:
    fused = ReciprocalRank.fit(data(), options=ReciprocalRankOptions(members=(CLICKS, AMOUNTS), k=60))
    scores = np.array([[0.9, 3.0], [0.1, 5.0], [0.5, 3.0]])
    # Ranks are 1, 3, 2 and 2, 1, 2: equal scores share the best of their ranks.
    due = [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62]
    np.testing.assert_allclose(fused._combine(scores), due, rtol=1e-12)
    assert fused.listwise
    assert not Blend.fit(data(), options=BlendOptions(members=(CLICKS, AMOUNTS), weights=(1, 1))).listwise


def test_a_listwise_member_makes_the_whole_listwise_and_is_scored_by_request() -> None:
    ranks = {"use": "reciprocal_rank", "members": (CLICKS, AMOUNTS)}
    blend = Blend.fit(data(), options=BlendOptions(members=(ranks, CLICKS), weights=(1, 1)))
    assert blend.listwise
    fresh = data(1, requests=3)
    by_request = np.concatenate([blend.score(fresh.features[begin : begin + 10]) for begin in (0, 10, 20)])
    np.testing.assert_array_equal(score_data(blend, fresh), by_request)
    assert not np.array_equal(blend.score(fresh.features), by_request)


# ---- copies ---------------------------------------------------------------------------------------------------


def test_the_uncertainty_is_the_deviation_of_the_copies_and_falls_with_data() -> None:
    fresh = data(9, requests=20).features
    spreads = []
    for requests in (30, 600):
        bagging = Bagging.fit(data(requests=requests), options=BaggingOptions(member=CLICKS, bags=4), seed=1)
        copies = np.column_stack([member.ranker.score(fresh) for member in bagging.members])
        mean, deviation = bagging.score_with_uncertainty(fresh)
        np.testing.assert_allclose(mean, copies.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(deviation, copies.std(axis=1, ddof=1), rtol=1e-9)
        spreads.append(deviation.mean())
        np.testing.assert_array_equal(bagging.score_cheaply(fresh), copies[:, 0])
        assert bagging.cheaper_way == "the first of 4 copies"
    # Twenty times the requests: the spread of a rate would fall by a factor of 4.5.
    assert spreads[1] < spreads[0] / 2


# ---- ids ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ids")
class TestBlendOfRankersThatReadIds(RankerTests):
    ranker_class = Blend

    @property
    def options(self) -> BlendOptions:
        """Made once the members' name is registered."""
        return BlendOptions(
            members=({"use": "item_rates"}, {"use": "item_rates", "prior": 9.0}, CLICKS), weights=(1, 1, 2)
        )


@pytest.mark.usefixtures("ids")
class TestBaggingOfRankersThatReadIds(RankerTests):
    ranker_class = Bagging
    least_skill = 0.3  # most of what there is to learn is in features that it does not read

    @property
    def options(self) -> BaggingOptions:
        """Made once the member's name is registered."""
        return BaggingOptions(member={"use": "item_rates"}, bags=2)


def test_each_member_reads_ids_by_its_own_codes(ids: Any) -> None:
    training, fresh = data(), data(1, requests=5)
    members = (CLICKS, {"use": "item_rates"}, {"use": "item_rates", "prior": 5.0})
    blend = Blend.fit(training, options=BlendOptions(members=members, weights=(1, 1, 1)))
    assert isinstance(blend, IdReadingRanker)
    assert blend.id_columns == ("1.code", "1.before", "2.code", "2.before")
    assert blend.manifest.feature_names == ("signal", "noise", "more", *blend.id_columns)
    assert fresh.item_ids is not None
    read = blend.read_ids(fresh.item_ids[:10].tolist(), fresh.histories[0])  # type: ignore[index]
    one, two = (member.ranker for member in blend.members[1:])
    assert one.codes != two.codes
    np.testing.assert_array_equal(read[:, 0], [one.codes[item] for item in fresh.item_ids[:10]])
    np.testing.assert_array_equal(read[:, 2], [two.codes[item] for item in fresh.item_ids[:10]])
    due = sum(
        (score_data(member.ranker, fresh) - mean) / deviation / 3
        for member, mean, deviation in zip(
            blend.members, blend._learnt["mean"], blend._learnt["deviation"], strict=True
        )
    )
    np.testing.assert_allclose(score_data(blend, fresh), due, atol=1e-12)
    assert features_for(blend, fresh).shape == (50, 7)
    with pytest.raises(FeatureMismatch, match="reads ids, and the training data has no item_ids"):
        features_for(blend, data(item_ids=None))


# ---- folders --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blend")
    Blend.fit(data(), options=BlendOptions(members=(CLICKS, AMOUNTS), weights=(1, 1))).save(folder)
    return folder


def test_a_member_that_was_swapped_for_another_intact_one_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "swapped")
    members = tmp_path / "swapped" / "members"
    (members / "0").rename(members / "2")
    (members / "1").rename(members / "0")
    (members / "2").rename(members / "1")
    with pytest.raises(CorruptRanker, match=r"members/0/manifest\.json is intact, and of another"):
        Blend.load(tmp_path / "swapped")


def test_a_folder_of_another_kind_is_refused_by_both_names(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptRanker, match=r"manifest\.json is of a 'blend' ranker, and a 'stack'"):
        Stack.load(saved)
    LightGBMRanker.fit(data(), options=LightGBMOptions(rounds=3)).save(tmp_path)
    with pytest.raises(CorruptRanker, match="'lightgbm' ranker, and a 'blend'"):
        Blend.load(tmp_path)


def test_a_manifest_with_other_features_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "other")
    manifest = Blend.load(saved).manifest
    file = tmp_path / "other" / "manifest.json"
    file.write_text(dataclasses.replace(manifest, feature_names=("signal", "noise", "less")).to_json())
    with pytest.raises(CorruptRanker, match=r"manifest\.json lists other features"):
        Blend.load(tmp_path / "other")


def test_a_class_may_be_a_member_and_must_be_known_to_be_loaded(ids: Any, tmp_path: Path) -> None:
    members = ({"use": ids.ItemRates}, CLICKS)
    blend = Blend.fit(data(), options=BlendOptions(members=members, weights=(1, 1)))
    blend.save(tmp_path)
    fresh = data(1, requests=2)
    np.testing.assert_array_equal(score_data(Blend.load(tmp_path), fresh), score_data(blend, fresh))
    del RANKERS["item_rates"]
    try:
        with pytest.raises(CorruptRanker, match=r"does not know.*'item_rates'.*`register_ranker`"):
            Blend.load(tmp_path)
    finally:
        register_ranker("item_rates", ids.ItemRates)


def test_a_fold_without_which_one_class_is_left_is_named() -> None:
    """All that was liked is one user's: whoever is to judge that user has seen nothing liked."""
    liked_by_one = dataclasses.replace(
        data(requests=20), labels=np.arange(len(data(requests=20))) == 0, user_ids=np.arange(20).astype(str)
    )
    options = StackOptions(members=(CLICKS, AMOUNTS), folds=4, meta="logistic")
    with pytest.raises(InvalidTraining, match=r"Fold \d of 4 is judged by a 'lightgbm' that has not seen it"):
        Stack.fit(liked_by_one, options=options)


# ---- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"use": "lihgtgbm"}, "Did you mean 'lightgbm'"),
        ({"use": "zzz"}, "Known are bagging, blend"),
        ({"use": "lightgbm", "round": 3}, "no option 'round'.*Did you mean 'rounds'"),
        ({"use": "lightgbm", "zzz": 3}, "It has objective, rounds"),
        ({"use": "lightgbm", "features": ["price"]}, "takes the features price.*It has signal"),
        ({"use": "lightgbm", "features": []}, "takes the features \\[\\]"),
        ({"use": "lightgbm", "features": "signal"}, "Write a list: \\[signal\\]"),
        ({"use": "lightgbm", "rounds": "many"}, "rounds='many', which is no whole number"),
        ({"use": "lightgbm", "rounds": True}, "rounds=True, which is no whole number"),
        ({"use": "lightgbm", "learning_rate": "fast"}, "which is no number"),
        ({"use": "lightgbm", "min_data_in_leaf": "few"}, "which is no whole number or null"),
        ({"use": "lightgbm", "monotone": "signal"}, "which is no mapping"),
        ({"use": "dcn", "hidden": "wide"}, "hidden='wide', which is no list of whole number"),
        ({"use": "dcn", "hidden": [64, "wide"]}, "which is no list of whole number"),
        ({"use": "dcn", "training": 5}, "training=5, which is no mapping of its options"),
        (
            {"use": "dcn", "training": {"epochs": 1.5}},
            "'dcn.training' has epochs=1.5, which is no whole number",
        ),
        ({"rounds": 3}, "does not say what ranker it is"),
        ("lightgbm", "does not say what ranker it is"),
    ],
)
def test_members_that_are_written_wrongly_are_explained(member: Any, said: str) -> None:
    with pytest.raises(InvalidTraining, match=said):
        Bagging.fit(data(), options=BaggingOptions(member=member))


@dataclasses.dataclass(frozen=True)
class Depth:
    leaves: int = 31
    """Of each tree."""


@dataclasses.dataclass(frozen=True)
class NestedOptions:
    depth: Depth = dataclasses.field(default_factory=Depth)
    """How deep."""


class Nested(LightGBMRanker):
    """Options within options, as the neural rankers have them."""

    Options: ClassVar = NestedOptions  # type: ignore[assignment]

    @classmethod
    def fit(cls, data: RankingData, *, options: Any = None, **arguments: Any) -> Any:
        own = LightGBMOptions(rounds=2, num_threads=1, params={"num_leaves": options.depth.leaves})
        return super().fit(data, options=own, **arguments)


def test_options_within_options_may_be_mappings() -> None:
    def leaves(member: Any) -> int:
        bagging = Bagging.fit(data(), options=BaggingOptions(member=member, bags=2))
        return max(
            tree["num_leaves"] for tree in bagging.members[0].ranker._booster.dump_model()["tree_info"]
        )

    assert leaves({"use": Nested, "depth": {"leaves": 3}}) == 3
    assert leaves({"use": Nested, "depth": Depth(leaves=4)}) == 4
    with pytest.raises(
        InvalidTraining, match=r"Nested.*depth.* has no option 'leafs'.*Did you mean 'leaves'"
    ):
        leaves({"use": Nested, "depth": {"leafs": 3}})


def test_options_are_what_yaml_can_hold() -> None:
    written = {
        "members": [{"use": "lightgbm"}, {"use": "stack", "members": [CLICKS, AMOUNTS]}],
        "weights": [1.0, 2.0],
    }
    options = TypeAdapter(BlendOptions).validate_python(written)
    assert options.weights == (1.0, 2.0)
    with pytest.raises(InvalidTraining, match="`weights` are"):
        BlendOptions(members=(CLICKS, AMOUNTS), weights=(1.0, 2.0, 3.0))


def test_a_checkpoint_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    options = BaggingOptions(member=CLICKS, bags=2)
    with pytest.raises(InvalidTraining, match=r"run\.json cannot be read"):
        Bagging.fit(data(), options=options, checkpoint=tmp_path)
    Bagging.fit(data(), options=options, checkpoint=tmp_path / "run")
    with pytest.raises(InvalidTraining, match="other data, options or seed"):
        Bagging.fit(data(), options=options, checkpoint=tmp_path / "run", seed=1)


def test_a_member_that_was_cut_off_while_it_was_saved_is_trained_again(tmp_path: Path) -> None:
    options = BaggingOptions(member=CLICKS, bags=2)
    whole = Bagging.fit(data(), options=options, checkpoint=tmp_path)
    (tmp_path / "001" / "trained" / "model.txt").write_text("half")
    again = Bagging.fit(data(), options=options, checkpoint=tmp_path)
    assert again.manifest.version == whole.manifest.version


def test_an_early_stop_is_on_the_later_slice(ids: Any) -> None:
    later = data(2, requests=20, called="validation")
    stopping = CLICKS | {"rounds": 200, "early_stopping_rounds": 2}
    bagging = Bagging.fit(data(), valid=later, options=BaggingOptions(member=stopping, bags=2))
    assert all(member.ranker.manifest.metrics["trees"] < 200 for member in bagging.members)
    with pytest.raises(InvalidTraining, match="other feature columns"):
        Bagging.fit(data(), valid=data(feature_names=("a", "b", "c")), options=BaggingOptions(member=CLICKS))
