"""One number, four ways: gathered from columns, made of Feast's answers, from the plain store, from training."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray

from explorank.retrieval.features import FeatureAccess
from explorank.retrieval.features.online import read_views
from explorank.retrieval.features.served import numbers_from_messages

MOMENTS = [datetime(2023, 12, day, 11, 7, 13, tzinfo=UTC) for day in (1, 15, 29)]
ITEMS = [*"abcdefgh", "nothing"]
USERS = [*map(str, range(12)), "nobody"]


@pytest.fixture(scope="module", params=MOMENTS, ids=str)
def repositories(
    request: pytest.FixtureRequest, random_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FeatureAccess, FeatureAccess, datetime]:
    """The random interactions, materialised up to one moment, in the columnar store and in Feast's own."""
    accesses = []
    for kind in ("columnar", "plain"):
        folder = Path(shutil.copytree(random_repository, tmp_path_factory.mktemp(kind) / "repository"))
        settings = yaml.safe_load((folder / "feature_store.yaml").read_text())
        if kind == "plain":
            settings["online_store"] = settings["online_store"]["backing"]
        (folder / "feature_store.yaml").write_text(yaml.safe_dump(settings))
        access = FeatureAccess(folder, as_of=request.param.timestamp())
        access.reset()
        access.apply()
        access.materialize(request.param)
        accesses.append(access)
    return accesses[0], accesses[1], request.param


def of_messages(access: FeatureAccess, kind: str, ids: list[str], now: float) -> NDArray[np.float32]:
    """Return the numbers of Feast's own answer, `get_online_features`."""
    opened = access._open
    served = opened.items if kind == "items" else opened.users
    read = read_views(opened.store, served, ids)
    columns = []
    for view in served.views:
        _, alive = read.standing(view, now)
        for feature in view.features:
            if feature.kind != "other":
                numbers = numbers_from_messages(
                    feature, read.messages(view, feature.name), now, opened.vocabularies
                )
                columns.append(np.where(alive, numbers, np.nan))
    return np.array(columns, np.float32).T


def test_items_and_users_are_the_same_numbers_every_way(
    repositories: tuple[FeatureAccess, FeatureAccess, datetime],
) -> None:
    columnar, plain, moment = repositories
    assert columnar._open.columnar_items is not None
    assert plain._open.columnar_items is None
    now = moment.timestamp()
    frame = columnar.training_frame(
        pd.DataFrame(
            [(user, item, moment) for user in USERS for item in ITEMS],
            columns=["user_id", "item_id", "event_timestamp"],
        )
    )
    items = columnar.items(ITEMS)
    in_training = frame[list(columnar.item_names)].to_numpy()[: len(ITEMS)]
    for other in (plain.items(ITEMS).values, of_messages(columnar, "items", ITEMS, now), in_training):
        np.testing.assert_array_equal(items.values, other)
    assert (items.missing, items.expired) == (plain.items(ITEMS).missing, plain.items(ITEMS).expired)
    assert not np.isnan(items.values[:-1]).all()
    table, rows = np.array(ITEMS), np.random.default_rng(0).permutation(len(ITEMS))
    for access in (columnar, plain, columnar):
        chosen = access.items_at(table, rows)
        np.testing.assert_array_equal(chosen.values, items.values[rows])
        assert (chosen.missing, chosen.expired) == (items.missing, items.expired)

    in_training = frame[list(columnar.user_names)].to_numpy()[:: len(ITEMS)]
    from_messages = of_messages(columnar, "users", USERS, now)
    for row, user_id in enumerate(USERS):
        user, other_user = columnar.user(user_id), plain.user(user_id)
        for other in (other_user.values, from_messages[row], in_training[row]):
            np.testing.assert_array_equal(user.values, other)
        assert list(user.history) == frame["history"].iloc[row * len(ITEMS)]
        assert user.history == other_user.history
        np.testing.assert_array_equal(user.history_values, other_user.history_values)
        np.testing.assert_array_equal(user.history_times, other_user.history_times)
        assert (user.found, user.missing, user.expired) == (
            other_user.found,
            other_user.missing,
            other_user.expired,
        )
