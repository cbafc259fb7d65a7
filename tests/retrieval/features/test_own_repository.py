"""A repository that someone else wrote: whole numbers as keys, other types, computed features, short ttls."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from explorank.retrieval.errors import InvalidTable
from explorank.retrieval.features import FeatureAccess

TIME = datetime(2026, 5, 1, tzinfo=UTC)

DEFINITIONS = """
    from datetime import timedelta
    from pathlib import Path

    import pandas as pd
    from feast import Entity, FeatureService, FeatureView, Field, FileSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Array, Bool, Float32, Float64, Int32, String
    from feast.value_type import ValueType

    FOLDER = Path(__file__).resolve().parent
    shopper = Entity(name="shopper", join_keys=["customer"], value_type=ValueType.INT64)
    product = Entity(name="product", join_keys=["sku"], value_type=ValueType.INT64)
    shopper_view = FeatureView(
        name="shopper_view",
        entities=[shopper],
        schema=[Field(name="visits", dtype=Int32)],
        source=FileSource(path=str(FOLDER / "shoppers.parquet"), timestamp_field="at"),
        ttl=timedelta(days=2),
    )
    product_view = FeatureView(
        name="product_view",
        entities=[product],
        schema=[
            Field(name="price", dtype=Float32),
            Field(name="on_sale", dtype=Bool),
            Field(name="colour", dtype=String),
            Field(name="embedding", dtype=Array(Float32)),
        ],
        source=FileSource(path=str(FOLDER / "products.parquet"), timestamp_field="at"),
        ttl=timedelta(days=0),
    )


    @on_demand_feature_view(sources=[product_view], schema=[Field(name="price_squared", dtype=Float64)])
    def computed(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"price_squared": rows["price"] ** 2})


    shoppers = FeatureService(name="shoppers", features=[shopper_view])
    products = FeatureService(name="products", features=[product_view.with_name("goods"), computed])
"""


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, feast_repository: Callable[[Path, str], Path]
) -> FeatureAccess:
    folder = feast_repository(tmp_path_factory.mktemp("shop"), DEFINITIONS)
    at = pd.to_datetime([TIME, TIME - timedelta(days=1)]).as_unit("us")
    pd.DataFrame({"customer": [1, 2], "visits": pd.array([3, 4], "Int32"), "at": at}).to_parquet(
        folder / "shoppers.parquet"
    )
    pd.DataFrame(
        {
            "sku": [10, 20],
            "price": np.float32([1.5, 2.0]),
            "on_sale": [True, False],
            "colour": ["red", "blue"],
            "embedding": [[0.0, 1.0], [1.0, 0.0]],
            "at": at,
        }
    ).to_parquet(folder / "products.parquet")
    access = FeatureAccess(
        folder,
        user_service="shoppers",
        item_service="products",
        history_service=None,
        as_of=(TIME + timedelta(days=1, hours=1)).timestamp(),
    )
    access.apply()
    access.materialize(TIME)
    return access


def entities(*rows: tuple[str, str]) -> pd.DataFrame:
    asked = pd.DataFrame(rows, columns=["user_id", "item_id"])
    return asked.assign(event_timestamp=TIME + timedelta(days=1, hours=1))


def test_lists_are_left_out_and_computed_features_are_taken(shop: FeatureAccess) -> None:
    assert shop.item_names == ("price", "on_sale", "colour", "price_squared")
    assert shop.user_names == ("visits",)


def test_whole_number_keys_are_asked_as_text(shop: FeatureAccess) -> None:
    found = shop.items(["20", "x", "10", "30"])
    np.testing.assert_array_equal(
        found.values[:, :2], np.float32([[2, 0], [np.nan] * 2, [1.5, 1], [np.nan] * 2])
    )


def test_a_short_ttl_is_enforced_online_as_in_training(shop: FeatureAccess) -> None:
    assert shop.user("1").values.tolist() == [3.0]
    late = shop.user("2")
    assert (late.found, late.expired) == (False, 1)
    assert np.isnan(late.values).all()
    frame = shop.training_frame(entities(("1", "10"), ("2", "10")))
    np.testing.assert_array_equal(frame["visits"], np.float32([3, np.nan]))


def test_online_and_training_give_equal_numbers(shop: FeatureAccess) -> None:
    frame = shop.training_frame(entities(("1", "20"), ("1", "10")), extend_vocabularies=True)
    online = shop.items(["20", "10"])
    np.testing.assert_array_equal(frame[list(shop.item_names)].to_numpy(), online.values)
    assert frame["colour"].tolist() == [0.0, 1.0]
    assert frame["price_squared"].tolist() == [4.0, 2.25]


def test_a_training_row_with_a_key_of_another_type_is_refused(shop: FeatureAccess) -> None:
    with pytest.raises(InvalidTable, match=r"'sku' by whole numbers.*'tide'"):
        shop.training_frame(entities(("1", "tide")))


def test_many_threads_may_read_at_once(shop: FeatureAccess) -> None:
    expected = shop.items(["20", "10"]).values
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: shop.items(["20", "10"]), range(200)):
            assert found.failed_views == ()
            np.testing.assert_array_equal(found.values, expected)
