"""How each kind of extra column becomes features."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from explorank.retrieval.features.columns import (
    MOST_CATEGORIES,
    MOST_LIST_VALUES,
    FeatureColumns,
    feature_columns,
)


def columns(**given: Any) -> FeatureColumns:
    return feature_columns(pd.DataFrame(given), "item")


def values(result: FeatureColumns) -> dict[str, list[Any]]:
    return {name: array.to_pylist() for name, array in result.arrays.items()}


def test_numbers_stay_and_what_is_no_number_becomes_missing() -> None:
    result = columns(
        year=["1995", " 1996", *["1997"] * 18, "unkonwn", "V", None], price=[1, 2.5, *[3.0] * 21]
    )
    assert values(result)["item_year"] == [1995.0, 1996.0, *[1997.0] * 18, None, None, None]
    assert result.bad_numbers == {"year": 2}
    assert result.arrays["item_price"].type == pa.float64()


def test_infinities_are_no_numbers() -> None:
    result = columns(price=[1.0, float("inf"), float("nan")])
    assert values(result) == {"item_price": [1.0, None, None]}
    assert result.bad_numbers == {"price": 1}


def test_lists_become_flags_of_their_values() -> None:
    result = columns(genres=[["Comedy", "Sci-Fi"], ("Sci Fi",), [], None])
    assert values(result) == {
        "item_genres_sci_fi": [1.0, 1.0, 0.0, None],
        "item_genres_comedy": [1.0, 0.0, 0.0, None],
    }
    assert {array.type for array in result.arrays.values()} == {pa.float32()}


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_vectors_become_no_flags(number: type[np.floating[Any]]) -> None:
    result = columns(image=[np.array([0.0, 1.0], number), None, np.array([0.5, 1.0], number)])
    assert list(result.left_out) == ["image"]
    assert "`retrieval.modalities`" in result.left_out["image"]
    assert list(columns(grades=[[1.0, np.nan], [2.0]]).arrays) == [
        "item_grades_1_0",
        "item_grades_2_0",
        "item_grades_nan",
    ]


def test_only_the_most_frequent_list_values_become_flags() -> None:
    result = columns(
        tags=[[f"t{number}" for number in range(row + 1)] for row in range(MOST_LIST_VALUES + 5)]
    )
    assert len(result.arrays) == MOST_LIST_VALUES
    assert "item_tags_t0" in result.arrays
    assert f"item_tags_t{MOST_LIST_VALUES}" not in result.arrays
    assert result.left_out == {"tags": "the 5 rarest of its 55 list values"}


def test_texts_are_categories_if_they_are_few() -> None:
    assert values(columns(binding=["paper", None, "audio"])) == {"item_binding": ["paper", None, "audio"]}
    many = columns(link=[f"page {number}" for number in range(MOST_CATEGORIES + 1)])
    assert not many.arrays
    assert list(many.left_out) == ["link"]


def test_codes_with_leading_zeros_are_no_numbers() -> None:
    assert values(columns(zip=["01602", "94043"])) == {"item_zip": ["01602", "94043"]}


@pytest.mark.parametrize("flags", [[True, False, None], pd.array([True, False, None], "boolean")])
def test_booleans_become_zero_and_one(flags: Any) -> None:
    assert values(columns(adult=flags)) == {"item_adult": [1.0, 0.0, None]}


def test_datetimes_stay_times() -> None:
    moment = datetime(2020, 5, 17, tzinfo=UTC)
    result = columns(released=pd.to_datetime([moment, None]))
    assert result.arrays["item_released"].type == pa.timestamp("us", "UTC")
    assert values(result) == {"item_released": [moment, None]}


def test_empty_columns_are_named() -> None:
    result = columns(year=[None, None], tags=[[], []])
    assert not result.arrays
    assert result.left_out == {"year": "it has no values", "tags": "all its lists are empty"}


def test_names_are_plain_and_carry_their_entity_once() -> None:
    assert list(columns(**{"Item Year!": [1], "größe (cm)": [2], "item_age": [3]}).arrays) == [
        "item_year",
        "item_größe_cm",
        "item_age",
    ]
