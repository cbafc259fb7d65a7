"""What a score stands for: hand-made maps, other judges, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit

from explorank.hooks import arrays
from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.exploration import Calibration
from explorank.hooks.exploration.calibration import METHODS, effective_number, reliability

numbers = st.floats(-100, 100, allow_nan=False, width=32)


def test_isotonic_regression_by_hand():
    """Scores 1, 2, 2, 3, 4 earn 1, 0, 4, 1, 5: means 1, 2, 1, 5, of which 2 (twice) and 1 pool to 5/3."""
    found = Calibration.fit([3, 1, 2, 4, 2], [1, 1, 0, 5, 4])
    assert found.scores.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(found.rewards, [1, 5 / 3, 5 / 3, 5])
    np.testing.assert_allclose(found([0, 1.5, 2.5, 3.5, 9]), [1, 4 / 3, 5 / 3, 10 / 3, 5])
    weighed = Calibration.fit([1, 2, 3], [0, 3, 0], [1, 1, 2])
    np.testing.assert_allclose(weighed([1, 2, 3]), [0, 1, 1])


def test_a_line_by_hand():
    found = Calibration.fit([0, 1, 2, 3], [1, 3, 5, 7], method="linear")
    np.testing.assert_allclose(found([-1, 0, 1.5, 3, 99]), [1, 1, 4, 7, 7])
    falling = Calibration.fit([0, 1, 2], [4, 2, 0], method="linear")
    np.testing.assert_allclose(falling([0, 1, 2]), 2.0)


def test_a_logistic_curve_recovers_its_coefficients():
    """20,000 clicks of S(2 x - 1): the standard error of a fitted probability is below 0.005 here; 5 of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 1.5, 20_000)
    clicks = rng.random(20_000) < expit(2.0 * (x - 3.0) - 1.0)
    found = Calibration.fit(x, clicks, method="logistic")
    points = np.linspace(0.0, 6.0, 50)
    assert np.abs(found(points) - expit(2.0 * (points - 3.0) - 1.0)).max() < 0.025
    falls = Calibration.fit(-x, clicks, method="logistic")
    np.testing.assert_allclose(falls(-points), clicks.mean())


def test_separable_clicks_have_a_finite_curve():
    found = Calibration.fit([0, 1, 2, 3], [0, 0, 1, 1], method="logistic")
    assert 0.0 < found(0.0) < 0.5 < found(3.0) < 1.0


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_every_map_is_monotone_and_within_what_was_earned(method, data):
    m = data.draw(st.integers(1, 30))
    x = data.draw(hnp.arrays(np.float64, m, elements=numbers))
    y = data.draw(hnp.arrays(np.float64, m, elements=st.floats(0, 1)))
    w = data.draw(hnp.arrays(np.float64, m, elements=st.floats(0.1, 10)))
    found = Calibration.fit(x, y, w, method=method)
    values = found(np.sort(np.concatenate([x, x + 1e-3, [-1e9, 1e9]])))
    assert (np.diff(values) >= 0.0).all()
    assert np.isfinite(values).all()
    if method != "linear":
        # The curve's prior is worth half a success and half a failure.
        slack = 1e-9 if method == "isotonic" else 1.0
        assert y.min() - slack <= values[0] <= values[-1] <= y.max() + slack
    again = Calibration.loads(found.dumps())
    assert again.version == found.version
    assert again(x).tolist() == found(x).tolist()


def test_a_map_is_carried_over_by_rank():
    """The other ranker's scores are e^(3 s): its map at e^(3 s) is this one's at s."""
    rng = np.random.default_rng(4)
    scores = rng.uniform(-1.0, 1.0, 20_000)
    old = Calibration([-1.0, 1.0], [0.0, 0.5], ranker="old")
    new = old.carried_over(scores, np.exp(3.0 * scores), ranker="new")
    points = np.linspace(-0.95, 0.95, 40)
    np.testing.assert_allclose(new(np.exp(3.0 * points)), old(points), atol=0.005)
    assert new.ranker == "new"
    # A ranker that ties everything earns the mean of all.
    assert old.carried_over(scores, np.zeros(20_000), ranker="flat")(0.0) == pytest.approx(0.25, abs=0.01)


def test_the_version_follows_from_the_content():
    found = Calibration([0, 1], [0, 1], ranker="r1")
    assert found.version == Calibration([0, 1], [0, 1], ranker="r1").version
    others = [
        Calibration([0, 1], [0, 1], ranker="r2"),
        Calibration([0, 1], [0, 2], ranker="r1"),
        Calibration([0, 2], [0, 1], ranker="r1"),
    ]
    assert len({found.version, *(other.version for other in others)}) == 4


def test_a_calibration_is_saved_whole(tmp_path):
    found = Calibration.fit(np.arange(9.0), np.arange(9.0) ** 2, ranker="r1")
    found.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    assert (loaded.version, loaded.method, loaded.ranker) == (found.version, "isotonic", "r1")
    path = tmp_path / "calibration.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptState, match="checksum"):
        Calibration.load(tmp_path)
    for meta, named in (
        ({"calibration": 2}, {"scores": np.zeros(1), "rewards": np.zeros(1)}),
        (
            {"calibration": 1, "method": "linear", "ranker": ""},
            {"scores": np.zeros(2), "rewards": np.zeros(2)},
        ),
        ({"calibration": 1, "method": "linear"}, {"scores": np.zeros(1)}),
    ):
        with pytest.raises(CorruptState, match="no calibration"):
            Calibration.loads(arrays.dumps(meta, named))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([1.0], [1.0, 2.0]), "one of each"),
        (([np.nan], [1.0]), "not finite"),
        (([1.0], [1.0], [-1.0]), "negative"),
        (([1.0], [1.0], [0.0]), "no reward of any weight"),
        (([], []), "no reward of any weight"),
    ],
    ids=str,
)
def test_what_no_map_can_be_fitted_to_is_refused(columns, said):
    with pytest.raises(InvalidBatch, match=said):
        Calibration.fit(*columns)


def test_rewards_that_are_no_shares_have_no_logistic_map():
    with pytest.raises(InvalidBatch, match="isotonic"):
        Calibration.fit([0, 1], [0, 2], method="logistic")


@pytest.mark.parametrize("knots", [([1, 0], [0, 1]), ([0, 1], [1, 0]), ([], []), ([0], [np.inf])], ids=str)
def test_knots_that_are_no_map_are_refused(knots):
    with pytest.raises(InvalidBatch, match="no map"):
        Calibration(*knots)


def test_reliability_by_hand():
    """Two bins: expected ¼ and ¾ where ½ and 1 were observed. The error is the mean of ¼ and ¼."""
    found = reliability(Calibration([0, 1], [0.25, 0.75]), [0, 0, 1, 1], [0, 1, 1, 1], bins=2)
    assert found.error == pytest.approx(0.25)
    assert [(one.count, one.expected, one.observed) for one in found.bins] == [(2, 0.25, 0.5), (2, 0.75, 1.0)]
    assert found.squared_error == pytest.approx((0.25**2 + 0.75**2 + 2 * 0.25**2) / 4)
    tilted = reliability(Calibration([0, 1], [0.25, 0.75]), [0, 1], [0, 1], [3, 1], bins=1)
    assert tilted.error == pytest.approx(abs((3 * 0.25 + 0.75) / 4 - 1 / 4))


def test_a_true_map_has_the_error_of_chance():
    """10 bins of 1,000 clicks: the mean distance is sqrt(2 v / (π m)) = 0.0126 for v = ¼, give or take a half."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.3, 0.7, 10_000)
    found = reliability(Calibration([0, 1], [0, 1]), x, rng.random(10_000) < x)
    assert 0.004 < found.error < 0.022


def test_the_effective_number_of_rewards():
    assert effective_number([1, 1, 1]) == pytest.approx(3.0)
    assert effective_number([100, 1]) == pytest.approx(101**2 / 10_001)
    assert effective_number([]) == 0.0
