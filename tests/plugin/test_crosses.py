"""Crossed columns, by hand; and the same from training's path as from serving's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from explorank.crosses import Crosses
from explorank.errors import DataError, SettingsError
from explorank.hooks.types import Features
from explorank.settings import CrossSettings, parse_settings

FEATURES = Features(
    ("price", "usual_price", "genre", "liked_genre"),
    np.array([[6, 4, 1, 1], [3, 0, 2, 1], [np.nan, 4, np.nan, 1]], np.float32),
)


def crosses(*settings: dict[str, Any]) -> Crosses:
    return Crosses([CrossSettings.model_validate(one) for one in settings])


@pytest.mark.parametrize(
    ("kind", "of", "expected"),
    [
        ("difference", ["price", "usual_price"], [2, 3, np.nan]),
        ("ratio", ["price", "usual_price"], [1.5, np.nan, np.nan]),
        ("product", ["price", "usual_price"], [24, 0, np.nan]),
        ("equal", ["genre", "liked_genre"], [1, 0, np.nan]),
    ],
)
def test_by_hand(kind: str, of: list[str], expected: list[float]) -> None:
    extended = crosses({"name": "cross", "kind": kind, "of": of}).extend(FEATURES)
    assert extended.names == (*FEATURES.names, "cross")
    assert extended.values.dtype == np.float32
    np.testing.assert_array_equal(extended.values[:, :4], FEATURES.values)
    np.testing.assert_array_equal(extended.column("cross"), np.array(expected, np.float32))


def test_a_cross_may_be_crossed_again() -> None:
    chain = crosses(
        {"name": "gap", "kind": "difference", "of": ["price", "usual_price"]},
        {"name": "share", "kind": "ratio", "of": ["gap", "price"]},
    )
    assert chain.missing(FEATURES.names) == {}
    np.testing.assert_allclose(chain.extend(FEATURES).column("share"), [1 / 3, 1, np.nan])


def test_what_is_beyond_float32_is_missing() -> None:
    huge = Features(("a", "b"), np.full((1, 2), 3e38, np.float32))
    assert np.isnan(
        crosses({"name": "c", "kind": "product", "of": ["a", "b"]}).extend(huge).column("c")
    ).all()


def test_without_crosses_nothing_is_copied() -> None:
    assert Crosses().extend(FEATURES) is FEATURES


def test_a_part_that_no_plugin_supplied_leaves_its_crosses_out() -> None:
    chain = crosses(
        {"name": "gap", "kind": "difference", "of": ["price", "weight"]},
        {"name": "share", "kind": "ratio", "of": ["gap", "price"]},
        {"name": "match", "kind": "equal", "of": ["genre", "liked_genre"]},
    )
    assert chain.extend(FEATURES).names == (*FEATURES.names, "match")
    assert chain.missing(FEATURES.names) == {"gap": "weight", "share": "gap"}


def test_a_misspelt_column_is_named_with_the_likely_one() -> None:
    with pytest.raises(DataError, match=r"makes 'gap' of 'prise', .* Did you mean 'price'\?"):
        crosses({"name": "gap", "kind": "difference", "of": ["prise", "price"]}).check(FEATURES.names)


@pytest.mark.parametrize("names", [["price"], ["gap", "gap"]])
def test_a_name_that_is_taken_is_refused(names: list[str]) -> None:
    twice = [{"name": name, "kind": "product", "of": ["price", "genre"]} for name in names]
    with pytest.raises(DataError, match=f"makes \\['{names[0]}'\\]"):
        crosses(*twice).check(FEATURES.names)


def test_an_unknown_kind_is_refused_where_the_settings_are_read() -> None:
    cross = {"name": "gap", "kind": "diference", "of": ["a", "b"]}
    with pytest.raises(SettingsError, match="difference"):
        parse_settings({"version": 1, "features": {"crosses": [cross]}})
