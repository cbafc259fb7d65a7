"""Feast as the stage sees it: what is found, missing, expired, broken, and the same in training."""

import json
import shutil
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from explorank.retrieval.errors import FeatureRepositoryError, InvalidTable
from explorank.retrieval.features import FeatureAccess, OnlineFeatures, copy_repository
from explorank.retrieval.features.sample import build_sample

SAMPLE_TIME = datetime(2026, 2, 1, tzinfo=UTC)
ITEMS = ["tide", "fern", "lamp", "loaf", "reef", "mole"]
USERS = ["ada", "bo", "cy", "di"]


def value(features: OnlineFeatures, row: int, name: str) -> float:
    return float(features.values[row, features.names.index(name)])


def column(view: str) -> slice:
    return slice(0, 8) if view == "item_content" else slice(8, None)


def test_definitions_are_described_tagged_and_owned(access: FeatureAccess) -> None:
    store = access.store
    views = store.list_feature_views()
    assert {view.name for view in views} == {
        "item_content",
        "item_statistics",
        "user_history",
        "user_profile",
        "user_statistics",
    }
    for thing in (*views, *store.list_entities(), *store.list_feature_services()):
        assert thing.name == "__dummy" or (thing.description and thing.tags and thing.owner), thing
    for view in views:
        assert view.ttl > timedelta(0)
        assert view.batch_source.created_timestamp_column == "created_timestamp"
        assert all(field.description for field in view.features)
    assert {source.name for source in store.list_data_sources() if source.name.endswith("_push")} == {
        "item_statistics_push",
        "user_history_push",
        "user_statistics_push",
    }


def test_items_are_float32_in_the_order_asked(access: FeatureAccess) -> None:
    found = access.items(["mole", "tide", "mole"])
    assert found.values.dtype == np.float32
    assert found.values.shape == (3, len(access.item_names))
    assert found.names == access.item_names
    # di gave 4 on January 2nd, bo 2 on January 20th.
    assert value(found, 0, "item_events") == 2.0
    assert value(found, 0, "item_mean_value_30d") == 3.0
    assert value(found, 0, "item_events_7d") == 0.0
    assert np.isnan(value(found, 0, "item_mean_value_7d"))
    assert value(found, 1, "item_events") == 4.0
    np.testing.assert_array_equal(found.values[0], found.values[2])
    assert (found.missing, found.expired, found.failed_views) == (0, 0, ())


def test_texts_become_codes_and_times_become_ages_in_days(access: FeatureAccess) -> None:
    found = access.items(["reef", "fern"])
    assert [value(found, row, "item_binding") for row in (0, 1)] == [0.0, 1.0]  # audio, hardback
    # Last met on 2026-01-05 at 22:00 and 2025-12-28 at 17:20.
    assert value(found, 0, "item_last_event") == pytest.approx(26 + 2 / 24)
    assert value(found, 1, "item_last_event") == pytest.approx(34 + (6 + 40 / 60) / 24)


def test_unknown_items_are_missing_values(access: FeatureAccess) -> None:
    found = access.items(["tide", "nothing", "", "'; DROP TABLE x"])
    assert np.isnan(found.values[1:]).all()
    assert not np.isnan(found.values[0]).all()
    assert (found.missing, found.expired) == (6, 0)  # three items, two views


def test_no_items_give_an_empty_matrix(access: FeatureAccess) -> None:
    assert access.items([]).values.shape == (0, len(access.item_names))


def test_a_user_has_numbers_and_a_history_newest_last(access: FeatureAccess) -> None:
    user = access.user("bo")
    assert user.found
    assert user.names == access.user_names
    assert user.values[user.names.index("user_age")] == 61.0
    assert user.history == ("fern", "reef", "loaf", "mole")
    assert user.history_values.tolist() == [5.0, 4.0, 3.0, 2.0]
    assert user.history_times[-1] == datetime(2026, 1, 20, 7, 50, tzinfo=UTC).timestamp()


def test_an_unknown_user_is_not_found(access: FeatureAccess) -> None:
    user = access.user("nobody")
    assert not user.found
    assert np.isnan(user.values).all()
    assert user.history == ()
    assert user.history_values.shape == user.history_times.shape == (0,)
    assert user.missing == 3


def test_rows_older_than_their_views_ttl_are_expired(sample_repository: Path) -> None:
    later = FeatureAccess(sample_repository, as_of=SAMPLE_TIME.timestamp() + 3660 * 86_400)
    found = later.items(ITEMS)
    # Statistics hold for ten years, content for a hundred.
    assert np.isnan(found.values[:, column("item_statistics")]).all()
    assert not np.isnan(found.values[:, 0]).any()
    assert (found.missing, found.expired) == (0, len(ITEMS))
    user = later.user("ada")
    assert user.found
    assert user.expired == 2
    assert user.history == ()


def test_a_row_expires_one_instant_after_its_ttl(sample_repository: Path) -> None:
    """As in Feast's point-in-time join, a row may still be used at the very end of its ttl."""
    row = datetime(2026, 1, 28, 20, 20, tzinfo=UTC).timestamp() + 1e-6  # loaf's last event is known from then
    end = row + 3650 * 86_400
    for as_of, expired in ((end - 0.001, 0), (end + 0.001, 1)):
        assert FeatureAccess(sample_repository, as_of=as_of).items(["loaf"]).expired == expired


def test_a_view_that_fails_is_missing_and_named(own_repository: Path) -> None:
    with sqlite3.connect(own_repository / "data" / "online_store.db") as database:
        database.execute("DROP TABLE explorank_item_content")
        database.execute("DROP TABLE explorank_user_history")
    database.close()
    broken = FeatureAccess(own_repository, as_of=SAMPLE_TIME.timestamp())
    found = broken.items(ITEMS)
    assert found.failed_views == ("item_content",)
    assert np.isnan(found.values[:, column("item_content")]).all()
    assert not np.isnan(found.values[:, column("item_statistics")]).all(axis=1).any()
    assert found.missing == len(ITEMS)
    user = broken.user("ada")
    assert user.failed_views == ("user_history",)
    assert user.found
    assert user.history == ()


def test_online_and_training_give_equal_numbers(access: FeatureAccess) -> None:
    entities = pd.DataFrame(
        [(user, item, SAMPLE_TIME) for user in (*USERS, "nobody") for item in (*ITEMS, "nothing")],
        columns=["user_id", "item_id", "event_timestamp"],
    ).sample(frac=1.0, random_state=1)
    frame = access.training_frame(entities)
    assert tuple(frame.columns) == (*access.user_names, *access.item_names, "history")
    assert set(frame.drop(columns="history").dtypes) == {np.dtype(np.float32)}
    items = access.items(entities["item_id"].tolist()).values
    np.testing.assert_array_equal(frame[list(access.item_names)].to_numpy(), items)
    users = [access.user(user) for user in entities["user_id"]]
    np.testing.assert_array_equal(
        frame[list(access.user_names)].to_numpy(), np.stack([user.values for user in users])
    )
    assert [tuple(history) for history in frame["history"]] == [user.history for user in users]


def test_a_training_frame_keeps_every_row_in_order(access: FeatureAccess) -> None:
    """Equal rows, rows before anything was known, and strangers: nothing is lost or merged."""
    early = datetime(2020, 1, 1, tzinfo=UTC)
    entities = pd.DataFrame(
        {
            "user_id": ["ada", "ada", "nobody", "ada", "ada"],
            "item_id": ["tide", "tide", "tide", "nothing", "tide"],
            "event_timestamp": [SAMPLE_TIME, early, SAMPLE_TIME, SAMPLE_TIME, SAMPLE_TIME],
        },
        index=[7, 3, 3, 9, 1],
    )
    frame = access.training_frame(entities)
    assert frame.index.tolist() == [7, 3, 3, 9, 1]
    np.testing.assert_array_equal(frame["user_events"], np.float32([5, np.nan, np.nan, 5, 5]))
    np.testing.assert_array_equal(frame["item_events"], np.float32([4, np.nan, 4, np.nan, 4]))
    assert frame["history"].map(len).tolist() == [5, 0, 0, 5, 5]


def test_past_users_are_those_of_a_training_frame(access: FeatureAccess) -> None:
    moments = pd.Series(pd.to_datetime(["2026-01-10", "2026-02-01", "2026-01-10", "2025-01-01"], utc=True))
    users = ["ada", "ada", "nobody", "ada"]
    entities = pd.DataFrame({"user_id": users, "item_id": "tide", "event_timestamp": moments})

    known = access.past_users(users, moments)

    frame = access.training_frame(entities)[list(access.user_names)]
    np.testing.assert_array_equal(known, frame.to_numpy(np.float32))
    assert not np.array_equal(known[0], known[1], equal_nan=True)
    assert np.isnan(known[2:]).all()


def test_texts_of_past_users_get_codes_where_that_is_asked_for(own_repository: Path) -> None:
    (own_repository / "data" / "vocabularies.json").unlink()
    access, moment = FeatureAccess(own_repository), pd.Series([SAMPLE_TIME] * 2)
    place = access.user_names.index("user_reads")
    assert access.user_meanings()["user_reads"].startswith("text 0 ")
    assert np.isnan(access.past_users(["ada", "bo"], moment)[:, place]).all()

    known = access.past_users(["ada", "bo"], moment, extend_vocabularies=True)[:, place]

    texts = FeatureAccess(own_repository).texts("user_reads")
    assert len(texts) == np.isfinite(known).sum() > 0
    np.testing.assert_array_equal(
        FeatureAccess(own_repository).past_users(["ada", "bo"], moment)[:, place], known
    )


def test_what_numbers_mean_is_told_and_compared(own_repository: Path) -> None:
    access = FeatureAccess(own_repository)
    meanings = access.user_meanings()
    assert tuple(meanings) == access.user_names
    assert meanings["user_events"] == "number"
    assert meanings["user_last_event"] == "time"
    assert meanings["user_reads"].startswith("text 2 ")
    assert access.changed_users(meanings) == {}
    assert access.changed_users({"gone": "number", "user_reads": "number"}) == {
        "gone": "not served", "user_reads": meanings["user_reads"]
    }  # fmt: skip

    file = own_repository / "data" / "vocabularies.json"
    codes = json.loads(file.read_text())
    for texts, changed in (
        (["evening", "morning", "night"], set()),  # a text that came later
        (["morning", "evening"], {"user_reads"}),
        (["evening"], {"user_reads"}),
    ):
        file.write_text(json.dumps(codes | {"user_reads": texts}))
        assert {*FeatureAccess(own_repository).changed_users(meanings)} == changed


def test_entities_without_a_column_are_refused(access: FeatureAccess) -> None:
    with pytest.raises(InvalidTable, match="entities has no column 'event_timestamp'"):
        access.training_frame(pd.DataFrame({"user_id": ["ada"], "item_id": ["tide"]}))


def test_a_pushed_row_is_served_at_once(own_repository: Path) -> None:
    later = SAMPLE_TIME + timedelta(days=1)
    access = FeatureAccess(own_repository, as_of=later.timestamp())
    access.push(
        "user_history_push",
        pd.DataFrame(
            {
                "user_id": ["ada"],
                "event_timestamp": [later],
                "history_items": [["tide", "mole"]],
                "history_values": [[5.0, 1.0]],
                "history_times": [[1.0, 2.0]],
            }
        ),
    )
    assert access.user("ada").history == ("tide", "mole")
    assert access.user("bo").history == ("fern", "reef", "loaf", "mole")


def test_a_push_to_an_unknown_source_is_an_error_that_names_it(access: FeatureAccess) -> None:
    with pytest.raises(FeatureRepositoryError, match="'nowhere'"):
        access.push("nowhere", pd.DataFrame({"user_id": ["ada"], "event_timestamp": [SAMPLE_TIME]}))


def test_reset_deletes_registry_and_online_store_and_all_can_begin_anew(own_repository: Path) -> None:
    access = FeatureAccess(own_repository, as_of=SAMPLE_TIME.timestamp())
    access.reset()
    assert not list((own_repository / "data").glob("*.db"))
    access.apply()
    access.materialize(datetime(2025, 12, 2, tzinfo=UTC))
    assert access.items(["tide", "lamp"]).missing == 1  # nobody had met the lamp by then
    access.materialize_incremental(SAMPLE_TIME)
    assert access.items(["tide", "lamp"]).missing == 0


def test_applying_leaves_the_process_as_it_was(
    own_repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (own_repository / "data").glob("*.db"):
        file.unlink()
    mine = object()
    monkeypatch.setitem(sys.modules, "features", mine)  # type: ignore[arg-type] # any module of that name
    before = (Path.cwd(), sys.path[:], sys.dont_write_bytecode)
    FeatureAccess(own_repository).apply()
    assert (Path.cwd(), sys.path, sys.dont_write_bytecode) == before
    assert sys.modules["features"] is mine
    assert capfd.readouterr() == ("", "")


def use_plain_sqlite(repository: Path) -> None:
    settings = yaml.safe_load((repository / "feature_store.yaml").read_text())
    settings["online_store"] = settings["online_store"]["backing"]
    (repository / "feature_store.yaml").write_text(yaml.safe_dump(settings))


def test_a_copied_registry_is_refused_before_it_deletes_the_first_folders_tables(tmp_path: Path) -> None:
    """With Feast's own SQLite store: a registry then names the file of each table."""
    first = copy_repository(tmp_path / "first")
    build_sample(first)
    use_plain_sqlite(first)
    access = FeatureAccess(first, as_of=SAMPLE_TIME.timestamp())
    access.apply()
    access.materialize(SAMPLE_TIME)
    copied = FeatureAccess(shutil.copytree(first, tmp_path / "copied"), as_of=SAMPLE_TIME.timestamp())
    with pytest.raises(FeatureRepositoryError, match="was made for the online store"):
        copied.apply()
    assert access.items(ITEMS).missing == 0
    copied.reset()
    copied.apply()
    assert access.items(ITEMS).missing == 0


def test_applying_a_copied_repository_leaves_the_first_one_alone(
    own_repository: Path, access: FeatureAccess
) -> None:
    copied = FeatureAccess(own_repository, as_of=SAMPLE_TIME.timestamp())
    copied.apply()
    assert copied.items(ITEMS).missing == 0
    copied.reset()
    assert access.items(ITEMS).missing == 0


def test_a_repository_without_definitions_cannot_be_applied(own_repository: Path) -> None:
    FeatureAccess(own_repository).reset()
    (own_repository / "features.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(FeatureRepositoryError, match=r"applying.*nothing_of_that_name"):
        FeatureAccess(own_repository).apply()


def test_a_folder_without_a_repository_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FeatureRepositoryError, match=r"holds no feature_store\.yaml"):
        FeatureAccess(tmp_path).warm_up()


def test_an_unknown_service_is_an_error_that_lists_the_known_ones(sample_repository: Path) -> None:
    access = FeatureAccess(sample_repository, item_service="item_v9")
    with pytest.raises(
        FeatureRepositoryError, match="'item_v9'; registered are: item_v1, user_history_v1, user_v1"
    ):
        access.warm_up()


def test_services_that_share_a_name_are_refused(sample_repository: Path) -> None:
    access = FeatureAccess(sample_repository, user_service="item_v1")
    with pytest.raises(FeatureRepositoryError, match=r"'item_binding'.*more than once"):
        access.warm_up()


def test_a_repository_may_keep_no_histories(sample_repository: Path) -> None:
    access = FeatureAccess(sample_repository, history_service=None, as_of=SAMPLE_TIME.timestamp())
    assert access.user("ada").history == ()
    assert access.user("ada").found
    entities = pd.DataFrame({"user_id": ["ada"], "item_id": ["tide"], "event_timestamp": [SAMPLE_TIME]})
    assert access.training_frame(entities)["history"].tolist() == [[]]


def test_vocabularies_can_be_learnt_from_a_training_frame(own_repository: Path) -> None:
    (own_repository / "data" / "vocabularies.json").unlink()
    entities = pd.DataFrame(
        {"user_id": ["ada"] * 2, "item_id": ["tide", "reef"], "event_timestamp": [SAMPLE_TIME] * 2}
    )
    access = FeatureAccess(own_repository, as_of=SAMPLE_TIME.timestamp())
    assert access.training_frame(entities)["item_binding"].isna().all()
    assert access.training_frame(entities, extend_vocabularies=True)["item_binding"].tolist() == [1.0, 0.0]
    again = FeatureAccess(own_repository, as_of=SAMPLE_TIME.timestamp()).items(["reef", "fern"])
    assert value(again, 0, "item_binding") == 0.0
    assert np.isnan(value(again, 1, "item_binding"))  # hardback was not in the frame
