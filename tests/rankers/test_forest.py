"""A compiled forest predicts what LightGBM does, bit by bit; its own answers are checked by hand too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba.core import event

from explorank.rankers import FeatureMismatch, Forest, UnsupportedModel
from tests.rankers.random_models import BOOSTINGS, OBJECTIVES, random_model

HEADER = """tree
version=v4
num_class={classes}
num_tree_per_iteration={classes}
label_index=0
max_feature_idx=1
{facts}
feature_names=a b
feature_infos=[0:1] [0:1]

"""
STUMP = """Tree={number}
num_leaves=2
num_cat={sets}
split_feature={feature}
split_gain=1
threshold={threshold}
decision_type={decision}
left_child=-1
right_child=-2
leaf_value={left} {right}
leaf_weight=1 1
leaf_count=1 1
internal_value=0
internal_weight=0
internal_count=2
{categories}is_linear=0
shrinkage=1


"""
NAN, INF = np.nan, np.inf


def stump(
    threshold: float = 0.5, decision: int = 0, feature: int = 0, left: float = -1.0, right: float = 1.0
) -> str:
    return STUMP.format(
        number="{number}", sets=0, feature=feature, threshold=repr(threshold), decision=decision, left=left,
        right=right, categories="",
    )  # fmt: skip


def category_stump(words: list[int]) -> str:
    lines = f"cat_boundaries=0 {len(words)}\ncat_threshold={' '.join(map(str, words))}\n"
    return STUMP.format(
        number="{number}", sets=1, feature=0, threshold=0, decision=1, left=-1.0, right=1.0, categories=lines
    )


def model(*trees: str, facts: str = "objective=custom", classes: int = 1) -> str:
    texts = [tree.replace("{number}", str(number)) for number, tree in enumerate(trees)]
    return HEADER.format(facts=facts, classes=classes) + "".join(texts) + "end of trees\n"


def bits(scores: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(scores).view(np.int64)


def assert_as_lightgbm(text: str, rows: np.ndarray) -> np.ndarray:
    """Compare with LightGBM bit by bit, and return the scores."""
    forest = Forest.of(text)
    scores = forest.predict(rows)
    expected = lightgbm.Booster(model_str=text).predict(rows, num_threads=1)
    assert scores.dtype == np.float64
    assert scores.shape == expected.shape
    np.testing.assert_array_equal(bits(scores), bits(expected))
    return scores


def column(*values: float) -> np.ndarray:
    """Return rows of two features, of which the first has these values."""
    rows = np.zeros((len(values), 2), np.float32)
    rows[:, 0] = values
    return rows


# ---- answers known by hand -------------------------------------------------------------------------------


def test_a_threshold_is_compared_as_the_double_it_is() -> None:
    # 0.1 as float32 is 0.10000000149…, above the double 0.1; the float32 before it is below.
    rows = column(0.1, np.nextafter(np.float32(0.1), np.float32(0)), INF, -INF)
    assert assert_as_lightgbm(model(stump(0.1)), rows).tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("threshold", "left"),
    [
        (1e300, [3.4028235e38, 0.0, -INF]),
        (-1e300, [-INF]),
        (0.0, [0.0, -0.0, 1e-36, -1.0]),  # to LightGBM, 1e-36 is zero
        (-0.0, [0.0, -0.0, 1e-36, -1.0]),
        (1e-50, [0.0, 1e-45]),
        (INF, [INF, 0.0, 3.4028235e38]),
    ],
)
def test_thresholds_at_the_ends_of_the_number_line(threshold: float, left: list[float]) -> None:
    assert assert_as_lightgbm(model(stump(threshold)), column(*left)).tolist() == [-1] * len(left)


@pytest.mark.parametrize(
    ("decision", "goes_left"),
    [
        (0, [True, True, True]),  # nothing is missing: NaN counts as 0, and 0 <= 0.5
        (2, [True, True, True]),
        (4, [False, False, False]),  # zero is missing, and NaN counts as zero; to the right
        (6, [True, True, True]),
        (8, [False, True, True]),  # NaN is missing; to the right
        (10, [True, True, True]),
    ],
)
def test_where_missing_values_go(decision: int, goes_left: list[bool]) -> None:
    scores = assert_as_lightgbm(model(stump(0.5, decision)), column(NAN, 0.0, 1e-35))
    assert (scores < 0).tolist() == goes_left


@pytest.mark.parametrize("decision", [0, 2, 4, 6, 8, 10])
def test_missing_values_go_the_same_way_below_and_above_zero(decision: int) -> None:
    for threshold in (-0.5, -1e-35, 0.0, 1e-35, 0.5):
        assert_as_lightgbm(model(stump(threshold, decision)), column(NAN, 0.0, 1.0, -1.0, 1e-35, -1e-35))


def test_categories() -> None:
    # Bits 0, 3 and 33: the set {0, 3, 33}.
    text = model(category_stump([0b1001, 0b10]))
    inside = [0.0, 3.0, 33.0, 3.9, -0.9, 1e-40]  # cut off towards zero, as a C cast does
    outside = [1.0, 2.0, 32.0, 34.0, 64.0, -1.0, -3.0, 1e6, 2.0**31, 1e30, NAN, INF, -INF]
    scores = assert_as_lightgbm(text, column(*inside, *outside))
    assert (scores < 0).tolist() == [True] * len(inside) + [False] * len(outside)


def test_categories_and_numbers_in_one_forest() -> None:
    # -1 or 1 by category, then -0.25 or 0.25 by the other feature.
    text = model(category_stump([0b100]), stump(0.5, feature=1, left=-0.25, right=0.25))
    rows = np.array([[2, 0], [2, 1], [1, 0], [1, 1]], np.float32)
    assert assert_as_lightgbm(text, rows).tolist() == [-1.25, -0.75, 0.75, 1.25]


def test_trees_are_added_in_order() -> None:
    # In doubles 1e16 + 1 is 1e16, and 1 after both is not lost.
    trees = [stump(left=value) for value in (1e16, 1.0, -1e16, 1.0)]
    assert assert_as_lightgbm(model(*trees), column(0.0)).tolist() == [1.0]


def test_a_leaf_alone_is_a_tree() -> None:
    alone = (
        "Tree={number}\nnum_leaves=1\nnum_cat=0\nsplit_feature=\nthreshold=\ndecision_type=\nleft_child=\n"
    )
    alone += "right_child=\nleaf_value=2.5\nleaf_count=\nis_linear=0\nshrinkage=1\n\n\n"
    assert assert_as_lightgbm(model(alone), column(0.0, NAN)).tolist() == [2.5, 2.5]
    assert assert_as_lightgbm(model(alone, stump(), alone), column(0.0, 1.0)).tolist() == [4.0, 6.0]


def test_a_model_without_trees_scores_zero() -> None:
    assert Forest.of(model()).predict(column(1.0, 2.0)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ("objective=custom", -3.0),
        ("objective=lambdarank", -3.0),
        ("objective=regression sqrt", -9.0),
        ("objective=poisson", np.exp(-3.0)),
        ("objective=binary sigmoid:0.5", 1.0 / (1.0 + np.exp(1.5))),
        ("objective=cross_entropy", 1.0 / (1.0 + np.exp(3.0))),
        ("objective=cross_entropy_lambda", np.log1p(np.exp(-3.0))),
        ("objective=custom\naverage_output", -1.5),
        ("is_custom=1", -3.0),
    ],
)
def test_objectives(facts: str, expected: float) -> None:
    text = model(stump(left=-1.0), stump(left=-2.0), facts=facts)
    np.testing.assert_allclose(assert_as_lightgbm(text, column(0.0)), [expected], rtol=1e-15)


def test_classes_are_columns() -> None:
    trees = [stump(left=-1.0), stump(left=-2.0), stump(left=-4.0), stump(left=-8.0)]
    text = model(*trees, facts="objective=multiclass num_class:2", classes=2)
    # Class 0 adds up -1 and -4, class 1 -2 and -8; their softmax is that of 0 and -5.
    scores = assert_as_lightgbm(text, column(0.0))
    np.testing.assert_allclose(scores, [[1.0 / (1.0 + np.exp(-5.0)), 1.0 / (1.0 + np.exp(5.0))]], rtol=1e-14)
    assert Forest.of(text).classes == 2


# ---- the same as LightGBM, on models of every kind -------------------------------------------------------


@pytest.mark.parametrize("boosting", BOOSTINGS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.filterwarnings("ignore:Found .* in params:UserWarning")
def test_random_models(objective: str, boosting: str) -> None:
    for number in range(3):
        seed = 1_000 * OBJECTIVES.index(objective) + 10 * BOOSTINGS.index(boosting) + number
        text, features = random_model(seed, objective, boosting)
        rng = np.random.default_rng(seed)
        shape = (60, features.shape[1])
        with np.errstate(over="ignore"):
            anything = (rng.standard_normal(shape) * 10.0 ** rng.integers(-40, 39, shape)).astype(np.float32)
        special = np.array([NAN, INF, -INF, 0.0, -0.0, 1e-35, -1e-35, -0.5, 1.0, 2.5, 1e10], np.float32)
        mixed = rng.choice(np.concatenate([features.ravel(), special]), shape)
        assert_as_lightgbm(text, np.concatenate([features, anything, mixed, rng.choice(special, shape)]))


CONTRARY = [
    random_model(*asked)
    for asked in ((1, "binary", "gbdt"), (5, "lambdarank", "dart"), (29, "multiclass", "rf"))
]


@settings(max_examples=150)
@given(data=st.data(), which=st.integers(0, len(CONTRARY) - 1), n=st.integers(0, 40))
def test_any_rows(data: st.DataObject, which: int, n: int) -> None:
    text, features = CONTRARY[which]
    seen = [float(value) for value in np.unique(features[:, 0])[:5]]
    values = st.one_of(st.floats(width=32), st.sampled_from(seen), st.integers(-5, 400).map(float))
    rows = data.draw(hnp.arrays(np.float32, (n, features.shape[1]), elements=values))
    if n:
        assert_as_lightgbm(text, rows)
    else:
        assert len(Forest.of(text).predict(rows)) == 0


# ---- how it is called ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forest_and_rows() -> tuple[Forest, np.ndarray]:
    text, _ = random_model(1, "binary", "gbdt")
    forest = Forest.of(text)
    return forest, np.random.default_rng(0).standard_normal((1_100, forest.features)).astype(np.float32)


def unaligned(rows: np.ndarray) -> np.ndarray:
    records = np.zeros(rows.shape[0], np.dtype([("flag", "i1"), ("row", "f4", rows.shape[1])]))
    records["row"] = rows
    return records["row"]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "columns first": np.asfortranarray,
    "every other row": lambda rows: np.repeat(rows, 2, axis=0)[::2],
    "some columns": lambda rows: np.concatenate([rows, rows], axis=1)[:, rows.shape[1] :],
    "backwards": lambda rows: rows[::-1].copy()[::-1],
    "unaligned": unaligned,
    "broadcast": lambda rows: np.broadcast_to(rows[:1], rows.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str, forest_and_rows: tuple[Forest, np.ndarray]) -> None:
    forest, rows = forest_and_rows
    laid_out = LAYOUTS[layout](rows)
    np.testing.assert_array_equal(forest.predict(laid_out), forest.predict(np.array(laid_out, order="C")))


def test_rows_that_cannot_be_written_are_read(forest_and_rows: tuple[Forest, np.ndarray]) -> None:
    forest, rows = forest_and_rows
    frozen = rows.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(forest.predict(frozen), forest.predict(rows))


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 511, 512, 513, 1_030])
def test_rows_do_not_influence_each_other(n: int, forest_and_rows: tuple[Forest, np.ndarray]) -> None:
    forest, rows = forest_and_rows
    np.testing.assert_array_equal(forest.predict(rows[:n]), forest.predict(rows)[:n])


def test_threads_do_not_influence_each_other(forest_and_rows: tuple[Forest, np.ndarray]) -> None:
    forest, rows = forest_and_rows
    parts = [rows[start : start + 37] for start in range(0, 1_000, 37)] * 4
    expected = [forest.predict(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for scores, alone in zip(pool.map(forest.predict, parts), expected, strict=True):
            np.testing.assert_array_equal(scores, alone)


def test_no_request_compiles() -> None:
    forests = [Forest.of(model(tree)) for tree in (stump(), category_stump([1]))]
    rows = np.random.default_rng(0).standard_normal((20, 2)).astype(np.float32)
    with event.install_recorder("numba:compile") as recorder:
        for forest in forests:
            for change in (lambda r: r, np.asfortranarray, lambda r: r[::2], lambda r: r[:0], unaligned):
                forest.predict(change(rows))
            frozen = rows.copy()
            frozen.flags.writeable = False
            forest.predict(frozen)
    assert recorder.buffer == []


def test_where_no_code_can_be_kept_it_is_compiled_all_the_same() -> None:
    code = (
        "import sys; from explorank.rankers import Forest; import numpy as np;"
        "print(Forest.of(sys.stdin.read()).predict(np.zeros((1, 2), 'f4')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=model(stump()),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == ("[-1.]\n", "")


@pytest.mark.parametrize(
    "rows", [np.zeros((2, 3), np.float32), np.zeros(2, np.float32), np.zeros((2, 2)), np.zeros((2, 2), int)]
)
def test_other_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(FeatureMismatch, match=r"takes \(n, 2\) float32"):
        Forest.of(model(stump())).predict(rows)


# ---- what it does not take -------------------------------------------------------------------------------


def chain(leaves: int) -> str:
    """Return a tree whose every split has a leaf to its left."""
    splits = leaves - 1
    ones = " ".join(["0"] * splits)
    return (
        f"Tree={{number}}\nnum_leaves={leaves}\nnum_cat=0\nsplit_feature={ones}\n"
        f"threshold={' '.join(map(str, range(splits)))}\ndecision_type={ones}\n"
        f"left_child={' '.join(str(-1 - split) for split in range(splits))}\n"
        f"right_child={' '.join(map(str, range(1, splits)))} {-leaves}\n"
        f"leaf_value={' '.join(map(str, range(leaves)))}\n"
        f"leaf_count={' '.join(['1'] * leaves)}\nis_linear=0\nshrinkage=1\n\n\n"
    ).replace("right_child= ", "right_child=")


def test_a_tree_may_have_8192_leaves_and_no_more() -> None:
    # Leaf i holds what lies above i - 1 and not above i.
    rows = column(-1.0, 0.0, 0.5, 8_190.0, 1e9)
    assert assert_as_lightgbm(model(chain(8_192)), rows).tolist() == [0, 0, 1, 8_190, 8_191]
    with pytest.raises(UnsupportedModel, match=r"8193 leaves in a tree.*holds 8192"):
        Forest.of(model(chain(8_193)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (model(stump().replace("is_linear=0", "is_linear=1")), "linear trees"),
        (model(stump(), facts="objective=unheard_of"), "objective is 'unheard_of'"),
        (model(stump(decision=12)), "another kind of missing value"),
        (model(stump(), classes=0), "nobody knows which belongs"),
        (model(stump().replace("num_leaves=2", "num_leaves=0")), "nobody knows which belongs"),
        (model(stump(feature=2)), "a feature that is none of the model's 2"),
        (model(stump(feature=-1)), "a feature that is none of the model's 2"),
        (model(stump(decision=1)), "a set of categories that its tree does not have"),
        (model(category_stump([1]).replace("threshold=0", "threshold=1")), "a set of categories"),
        (model(stump().replace("left_child=-1", "left_child=0")), "no tree at all"),
        (model(stump().replace("left_child=-1", "left_child=-3")), "no tree at all"),
        (model(stump().replace("left_child=-1", "left_child=-2")), "has no parent"),
        (model(stump().replace("leaf_value=-1.0 1.0", "leaf_value=1.0")), "other numbers of splits"),
        (model(stump().replace("threshold=0.5\n", "")), "not as LightGBM 4 writes it"),
        (model(stump().replace("num_leaves=2", "num_leaves=two")), "not as LightGBM 4 writes it"),
        (model(stump(), facts="objective=multiclass num_class:2", classes=2), "nobody knows which belongs"),
        ("", "not as LightGBM 4 writes it"),
    ],
)
def test_what_is_not_taken_is_named(text: str, said: str) -> None:
    with pytest.raises(UnsupportedModel, match=said):
        Forest.of(text)
