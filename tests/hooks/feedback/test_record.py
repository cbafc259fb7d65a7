"""A decision survives the bytes, to the last bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explorank.hooks.errors import CorruptState, InvalidBatch
from explorank.hooks.feedback.record import decode, encode
from explorank.hooks.types import DecisionRecord, Fallback, RankingRequest, Slate

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
item_ids = st.one_of(
    st.lists(text, unique=True, max_size=12).map(lambda ids: np.array(ids, dtype=np.str_)),
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=12).map(
        lambda ids: np.array(ids, np.int64)
    ),
)


@st.composite
def slates(draw: st.DrawFn, n: int) -> Slate:
    k = draw(st.integers(0, n))
    masks = hnp.arrays(np.bool_, (k, n))
    return Slate(
        order=np.array(draw(st.permutations(range(n)))[:k], dtype=np.int64),
        propensities=draw(hnp.arrays(np.float64, k, elements=st.floats(0, 1))),
        method=tuple(draw(st.lists(st.sampled_from(["score", "explore"]), min_size=k, max_size=k))),
        policy=draw(text),
        policy_version=draw(st.integers(0, 2**53)),
        eligible=draw(masks),
        support=draw(masks),
        seed=draw(st.integers(0, 2**128)),
        floor=draw(st.floats(0, 1)),
        strategies=draw(st.just(()) | st.tuples(*[text] * k)),
        reads=tuple(draw(st.lists(text, max_size=2))),
    )


@st.composite
def decisions(draw: st.DrawFn) -> DecisionRecord:
    ids = draw(item_ids)
    n = len(ids)
    slate = draw(slates(n))
    rows = np.array(sorted(draw(st.sets(st.integers(0, n - 1), max_size=n))) if n else [], dtype=np.int64)
    names = tuple(draw(st.lists(text, max_size=4)))
    request = RankingRequest(
        decision_id=draw(text),
        slots=draw(st.integers(0, 100)),
        user_id=draw(st.none() | text),
        surface=draw(text),
        time=draw(finite),
        context=draw(st.dictionaries(text, json_values, max_size=3)),
        exclude=draw(st.frozensets(text, max_size=3)),
        similar_to=draw(st.none() | text),
    )
    return DecisionRecord(
        request=request,
        mode=draw(st.sampled_from(["off", "shadow", "apprentice", "live"])),
        arm=draw(st.sampled_from(["explore", "baseline", "holdout"])),
        item_ids=ids,
        scores=draw(hnp.arrays(np.float64, n)),
        slate=slate,
        baseline_order=slate.order[::-1],
        feature_names=names,
        feature_rows=rows,
        features=draw(hnp.arrays(np.float32, (len(rows), len(names)))),
        columns=draw(
            st.dictionaries(
                text,
                st.sampled_from([np.float32, np.int64]).flatmap(lambda kind: hnp.arrays(kind, len(rows))),
                max_size=2,
            )
        ),
        shadow=draw(st.none() | slates(n)),
        sources=tuple(tuple(draw(st.lists(text, max_size=2))) for _ in range(len(slate))),
        fallbacks=tuple(draw(st.lists(st.builds(Fallback, text, text, text, text), max_size=2))),
        versions=draw(st.dictionaries(text, text, max_size=3)),
        propensity_known=draw(st.booleans()),
        held_back=draw(st.text(max_size=10)),
    )


def assert_same(left: Any, right: Any) -> None:
    """Equal in every field, arrays in dtype, shape and bits."""
    if dataclasses.is_dataclass(left):
        assert type(left) is type(right)
        for field in dataclasses.fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name))
    elif isinstance(left, Mapping):
        assert left.keys() == right.keys()
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    else:
        assert left == right


@given(decisions())
def test_a_record_survives_the_bytes_to_the_last_bit(record: DecisionRecord) -> None:
    assert_same(record, decode(encode(record)))


def test_what_json_does_not_know_becomes_its_nearest(records: ModuleType) -> None:
    context = {"set": {"b", "a"}, "tuple": (1, 2), "array": np.arange(3), "object": 1j, 5: np.float32(0.5)}
    request = RankingRequest(decision_id="d", slots=1, context=context, guard_state={"seen": object()})
    decoded = decode(encode(records.make_record(request=request)))
    assert decoded.request.context == {
        "set": ["a", "b"],
        "tuple": [1, 2],
        "array": [0, 1, 2],
        "object": "1j",
        "5": 0.5,
    }
    assert decoded.request.guard_state == {}


def test_object_arrays_of_text_are_stored_as_text(records: ModuleType) -> None:
    ids = np.array([f"i{row}" for row in range(6)], dtype=object)
    assert decode(encode(records.make_record(item_ids=ids))).item_ids.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"item_ids": np.array([1, "a", 2, 3, 4, 5], dtype=object)}, "dtype object"),
        ({"request": RankingRequest(decision_id="d", slots=1, context={"big": 2**80})}, "context"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(
    records: ModuleType, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidBatch, match=named):
        encode(records.make_record(**change))


def test_damage_is_noticed(records: ModuleType) -> None:
    data = bytearray(encode(records.make_record()))
    data[len(data) // 2] ^= 1
    with pytest.raises(CorruptState, match="checksum"):
        decode(bytes(data))


def test_a_wide_record_is_compact(records: ModuleType) -> None:
    """500 candidates, 10 slots, 60 support rows of 20 features: scores 4,000 + features 4,800 bytes must be
    there; ids take a byte per character (2,000) and each mask a bit per cell (630)."""
    rng = np.random.default_rng(0)
    record = records.make_record(
        n=500,
        slots=10,
        feature_names=tuple(f"f{column}" for column in range(20)),
        feature_rows=np.arange(60),
        features=rng.normal(size=(60, 20)).astype(np.float32),
    )
    assert len(encode(record)) < 15_000
