"""A transformer over histories: its loss by hand, order where it was planted, numpy that serves what torch trained."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explorank.retrieval import CorruptArtefact, InvalidOption, InvalidTable
from explorank.retrieval.collaborative import Interactions, SASRec, SASRecOptions
from explorank.retrieval.collaborative.sasrec.training import Network, batches, loss

ITEMS = 20
IDS = np.array([f"i{item:02}" for item in range(ITEMS)])
OPTIONS = SASRecOptions(
    dim=16, layers=1, history=8, batch_size=32, learning_rate=0.01, epochs=30, dropout=0.1
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rounds(users: int = 80, seed: int = 0) -> Interactions:
    """Everybody begins somewhere and takes up ten items: after n comes n + 1, and after the last the first."""
    starts = np.random.default_rng(seed).integers(ITEMS, size=users)
    who = np.repeat([f"u{user:03}" for user in range(users)], 10)
    what = IDS[(starts[:, None] + np.arange(10)).ravel() % ITEMS]
    return Interactions.of(who, what, times=np.tile(np.arange(10.0), users))


@pytest.fixture(scope="module")
def fitted() -> SASRec:
    torch.set_num_threads(1)
    return SASRec.fit(rounds(), options=OPTIONS)


def network(seed: int = 0, **options: Any) -> tuple[Network, SASRec]:
    """Return weights by chance, and what serves them."""
    chosen = SASRecOptions(**{"dim": 8, "history": 6, **options})
    torch.manual_seed(seed)
    drawn = Network(ITEMS, chosen).eval()
    with torch.no_grad():
        for parameter in drawn.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return drawn, SASRec(IDS, drawn.arrays(), chosen.heads, {})


# ---- what is learnt -------------------------------------------------------------------------------------


def test_what_follows_on_the_newest_comes_first(fitted: SASRec) -> None:
    hits = 0
    for start in range(ITEMS):
        history = IDS[(start + np.arange(5)) % ITEMS].tolist()
        scores = fitted.scores(history)
        scores[np.isin(IDS, history)] = -1.0
        hits += int(scores.argmax() == (start + 5) % ITEMS)

    assert hits >= 18
    # The same items the other way round end elsewhere.
    assert fitted.scores(["i03", "i04", "i05"]).argmax() != fitted.scores(["i05", "i04", "i03"]).argmax()
    assert fitted.metrics["best_epoch"] <= fitted.metrics["epochs"] <= OPTIONS.epochs
    assert fitted.metrics["recall@100"] > 0.5


def test_the_same_seed_gives_the_same_model_and_leaves_torchs_draws_alone() -> None:
    few = SASRecOptions(dim=4, history=4, epochs=2, negatives=5)
    torch.manual_seed(7)
    wanted = torch.rand(1).item()
    torch.manual_seed(7)
    models = [SASRec.fit(rounds(users=20), options=few, seed=seed) for seed in (1, 1, 2)]

    assert torch.rand(1).item() == wanted
    for name, array in models[0].arrays.items():
        np.testing.assert_array_equal(array, models[1].arrays[name])
    assert not np.array_equal(models[0].item_vectors, models[2].item_vectors)


def test_what_is_kept_is_all_of_the_best_epoch() -> None:
    few = SASRecOptions(dim=8, history=6, epochs=40, patience=3, learning_rate=0.02, negatives=5)
    whole = SASRec.fit(rounds(), options=few)
    best_epoch = int(whole.metrics["best_epoch"])
    assert best_epoch < whole.metrics["epochs"]

    again = SASRec.fit(rounds(), options=replace(few, epochs=best_epoch))

    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)


def test_without_a_validation_cut_all_is_trained_on_and_the_last_epoch_kept() -> None:
    few = SASRecOptions(dim=4, history=4, epochs=3, validation_share=0.0)
    told: list[tuple[int, int]] = []
    metrics = SASRec.fit(rounds(users=5), options=few, progress=lambda *done: told.append(done)).metrics

    assert (metrics["epochs"], metrics["best_epoch"]) == (3.0, 3.0)
    assert told == [(1, 3), (2, 3), (3, 3)]


# ---- the loss -------------------------------------------------------------------------------------------


def one_step(drawn: Network, negatives: list[int], temperature: float = 0.5) -> float:
    """Return the loss of item 4 after items 1 and 2."""
    absent = drawn.absent
    histories = torch.tensor([[absent] * 4 + [1, 2]])
    following = torch.tensor([[absent] * 5 + [4]])
    with torch.no_grad():
        return float(loss(drawn, histories, following, torch.tensor(negatives), temperature))


def test_with_all_items_it_is_the_softmax() -> None:
    drawn, model = network()
    logits = model.scores(["i01", "i02"]).astype(np.float64) / 0.5

    expected = np.log(np.exp(logits).sum()) - logits[4]
    assert one_step(drawn, list(range(ITEMS))) == pytest.approx(expected, rel=1e-5)


def test_drawn_items_estimate_the_softmaxs_sum_without_bias() -> None:
    drawn, model = network()
    drawn.absent = 6  # of which every triple can be drawn
    logits = model.scores(["i01", "i02"])[:6].astype(np.float64) / 0.5
    others = np.exp(np.delete(logits, 4)).sum()

    def estimated(negatives: tuple[int, ...]) -> float:
        absent = torch.tensor([[drawn.absent] * 5 + [4]])
        histories = torch.tensor([[6, 6, 6, 6, 1, 2]])
        with torch.no_grad():
            found = float(loss(drawn, histories, absent, torch.tensor(negatives), 0.5))
        return float(np.exp(found + logits[4]) - np.exp(logits[4]))

    by_hand = 5 / 2 * np.exp(logits[[0, 3]]).sum()  # the wanted item among them is no negative
    assert estimated((0, 3, 4)) == pytest.approx(by_hand, rel=1e-4)
    assert np.mean([estimated(some) for some in combinations(range(6), 3)]) == pytest.approx(others, rel=1e-4)


# ---- what is trained on ---------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    history=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_each_step_is_followed_by_what_came_next(lengths: list[int], history: int, seed: int) -> None:
    who = np.repeat([f"u{user}" for user in range(len(lengths))], lengths)
    what = [f"u{user}-{place}" for user, length in enumerate(lengths) for place in range(length)]
    known = Interactions.of(who, what, times=np.arange(len(what)))
    absent = len(known.item_ids)
    options = SASRecOptions(dim=2, history=history, batch_size=2)

    wanted: list[int] = []
    for histories, following in batches(known, options, np.random.default_rng(seed)):
        assert histories.shape == following.shape == (len(histories), history)
        assert len(histories) <= 2
        assert ((histories == absent) == (following == absent)).all()
        for steps, nexts in zip(histories.tolist(), following.tolist(), strict=True):
            theirs = [row for row in steps if row != absent]
            assert nexts[history - len(theirs) :] == [*theirs[1:], nexts[-1]]
            assert all(later == row + 1 for row, later in pairwise([*theirs, nexts[-1]]))  # ids rise in time
            wanted += nexts[history - len(theirs) :]
    assert len(set(wanted)) == len(wanted)
    firsts = np.cumsum([0, *lengths[:-1]])
    for first, length in zip(firsts.tolist(), lengths, strict=True):
        reached = {row for row in wanted if first <= row < first + length}
        if length <= history + 1:
            assert reached == set(range(first + 1, first + length))
        else:  # of a longer history the newest window ends elsewhere each epoch
            assert len(reached) >= length - history
            assert reached == set(range(first + 1, first + 1 + len(reached)))


def test_events_of_one_instant_come_in_any_order() -> None:
    known = Interactions.of(["u"] * 4, ["a", "b", "c", "d"], times=[0, 1, 1, 2])
    options = SASRecOptions(dim=2, history=3)
    generator = np.random.default_rng(0)

    seen = {tuple(next(iter(batches(known, options, generator)))[0][0].tolist()) for _ in range(30)}

    assert seen == {(0, 1, 2), (0, 2, 1)}


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(InvalidTable, match="no times"):
        SASRec.fit(rounds().without_times())
    with pytest.raises(InvalidTable, match="6 interactions, of which 5"):
        SASRec.fit(Interactions.of(["u"] * 6, list("abcdef"), times=np.arange(6)))
    at_once = Interactions.of(["u"] * 12, list("abcdefghijkl"), times=np.zeros(12))
    with pytest.raises(InvalidTable, match="12 interactions, of which 0"):
        SASRec.fit(at_once)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"layers": 0}, "layers=0"), ({"temperature": 0.0}, "temperature=0"), ({"dropout": 1.0}, "dropout=1"),
     ({"dim": 9, "heads": 2}, "dim=9 cannot be split into heads=2")],
)  # fmt: skip
def test_options_that_leave_nothing_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        SASRecOptions(**options)


# ---- serving --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 6, 9])
def test_numpy_serves_what_torch_trained(layers: int, length: int) -> None:
    drawn, model = network(layers=layers, heads=2)
    rows = np.random.default_rng(length).permutation(ITEMS)[:length]
    padded = np.full((1, 6), ITEMS)
    padded[0, -min(length, 6) :] = rows[-6:]
    with torch.no_grad():
        wanted = drawn.users(torch.from_numpy(padded))[0, -1].numpy()

    found = model.user_vector_at(rows)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(model.user_vector(IDS[rows].tolist()), wanted, atol=1e-5)


def test_training_sees_no_later_step() -> None:
    drawn, _ = network(layers=2)
    one, other = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 9, 8, 7]])
    with torch.no_grad():
        first, second = drawn.users(one)[0], drawn.users(other)[0]

    np.testing.assert_array_equal(first[:3], second[:3])
    assert (first[3:] != second[3:]).any()


def test_unknown_items_are_passed_over_and_the_last_of_two_counts() -> None:
    _, model = network()

    wanted = model.user_vector(["i01", "i02", "i03"])
    np.testing.assert_array_equal(model.user_vector(["i03", "?", "i01", "i02", "i02", "i03"]), wanted)
    assert not model.user_vector(["?"]).any()
    assert not model.scores([]).any()


def test_items_in_other_rows_score_the_same_and_new_ones_have_no_place() -> None:
    known = Interactions.of(*zip(*[("u", item) for item in IDS], strict=True), times=np.arange(ITEMS),
                            all_items=["nobody's"])  # fmt: skip
    model = SASRec.fit(known, options=SASRecOptions(dim=4, epochs=1))
    moved = model.in_rows_of(np.array(["new", "i05", "nobody's", *IDS[6:], *IDS[:5]]))

    assert np.flatnonzero(~moved.places).tolist() == [0, 2]
    history = ["i02", "new", "i09"]
    np.testing.assert_array_equal(moved.scores(history)[1], model.scores(history)[5])
    assert not moved.scores(history)[[0, 2]].any()


def test_a_saved_model_serves_without_torch(fitted: SASRec, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    code = (
        "import sys; from explorank.retrieval.collaborative import SASRec; "
        f"scores = SASRec.load({str(tmp_path)!r}, mapped=True).scores(['i12', 'i14']); "
        "assert 'torch' not in sys.modules; print(*scores.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    np.testing.assert_allclose(
        [float(score) for score in done.stdout.split()], fitted.scores(["i12", "i14"]), atol=1e-6
    )
    file = tmp_path / "positions.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(CorruptArtefact, match=r"positions\.npy"):
        SASRec.load(tmp_path)
