"""What is known of users and items: entities, feature views, push sources and one service per model version.

A row of a view states what was known from its `event_timestamp` on, and stands until the next row of the
same user or item. Rows are written at every instant at which a value changes, windows' ends included, so a
point-in-time join at any time equals what could have been computed at that time.
"""

import re
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Array, FeastType, Float32, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType

# Feast resolves a source's relative path against the working directory, so these are absolute.
DATA = Path(__file__).resolve().parent / "data"
OWNER = "ranking"
TIMES = {"event_timestamp", "created_timestamp"}

# A row stays true until the next one, so a ttl bounds only how long a silent entity is still remembered.
# It must not be 0: Feast materialises such a view incrementally from the last 52 weeks only.
CATALOGUE_TTL = timedelta(days=36500)
ACTIVITY_TTL = timedelta(days=3650)


def statistics_fields(entity: str, columns: list[str]) -> list[Field]:
    """Return the fields of the windowed statistics whose windows `columns` hold, shortest window first."""
    windows = sorted(int(days) for days in re.findall(rf"\b{entity}_events_(\d+)d\b", " ".join(columns)))
    spans = {f"_{days}d": f"in the {days} days before" for days in windows} | {"": "ever before"}
    return [
        field
        for suffix, span in spans.items()
        for field in (
            Field(
                name=f"{entity}_events{suffix}",
                dtype=Int64,
                description=f"Interactions of the {entity} {span}.",
            ),
            Field(
                name=f"{entity}_mean_value{suffix}",
                dtype=Float64,
                description=f"Mean value of the {entity}'s interactions {span}; missing without any.",
            ),
            Field(
                name=f"{entity}_positive_rate{suffix}",
                dtype=Float64,
                description=f"Share of positive interactions of the {entity} {span}; missing without any.",
            ),
        )
    ] + [
        Field(
            name=f"{entity}_first_event",
            dtype=UnixTimestamp,
            description=f"The {entity}'s first interaction.",
        ),
        Field(
            name=f"{entity}_last_event",
            dtype=UnixTimestamp,
            description=f"The {entity}'s latest interaction.",
        ),
    ]


def feast_type(column: pa.Field) -> FeastType:
    """Return the Feast type of a parquet column."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return Array(feast_type(column.type.value_field))
    if pa.types.is_timestamp(column.type):
        return UnixTimestamp
    if pa.types.is_integer(column.type):
        return Int64
    if pa.types.is_floating(column.type):
        return Float32 if column.type == pa.float32() else Float64
    return String


def source(view: str, description: str) -> FileSource:
    """Return the parquet file that holds the rows of `view`."""
    return FileSource(
        name=f"{view}_rows",
        path=str(DATA / f"{view}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        description=description,
        owner=OWNER,
    )


def with_extra_columns(view: str, entity: Entity, known: list[Field]) -> list[Field]:
    """Return the known fields and one for each further column of the view's parquet file, in its order."""
    declared = {field.name for field in known} | TIMES | {entity.join_key}
    return known + [
        Field(
            name=column.name,
            dtype=feast_type(column),
            description=(column.metadata or {}).get(b"description", b"An extra column of the data.").decode(),
        )
        for column in pq.read_schema(DATA / f"{view}.parquet")
        if column.name not in declared
    ]


user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="Whoever slates are made for.",
    tags={"domain": "ranking"},
    owner=OWNER,
)
item = Entity(
    name="item",
    join_keys=["item_id"],
    value_type=ValueType.STRING,
    description="What can be shown in a slot.",
    tags={"domain": "ranking"},
    owner=OWNER,
)

item_content = FeatureView(
    name="item_content",
    entities=[item],
    schema=with_extra_columns(
        "item_content",
        item,
        [Field(name="item_text", dtype=String, description="The text that is embedded.")],
    ),
    source=source("item_content", "One row per item of the catalogue."),
    ttl=CATALOGUE_TTL,
    description="What an item is: its text and the catalogue's columns.",
    tags={"changes": "seldom"},
    owner=OWNER,
)
user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    schema=with_extra_columns(
        "user_profile",
        user,
        [Field(name="user_has_profile", dtype=Float32, description="1 for a user of the users table.")],
    ),
    source=source("user_profile", "One row per user of the users table."),
    ttl=CATALOGUE_TTL,
    description="What a user told of themselves.",
    tags={"changes": "seldom"},
    owner=OWNER,
)

item_statistics_push = PushSource(
    name="item_statistics_push",
    batch_source=source("item_statistics", "One row per item and change of its statistics."),
    description="Fresh counters of items, between two builds.",
    owner=OWNER,
)
item_statistics = FeatureView(
    name="item_statistics",
    entities=[item],
    schema=with_extra_columns(
        "item_statistics",
        item,
        statistics_fields("item", pq.read_schema(DATA / "item_statistics.parquet").names),
    ),
    source=item_statistics_push,
    ttl=ACTIVITY_TTL,
    description="How an item was received, over windows.",
    tags={"changes": "often"},
    owner=OWNER,
)
user_statistics_push = PushSource(
    name="user_statistics_push",
    batch_source=source("user_statistics", "One row per user and change of their statistics."),
    description="Fresh counters of users, between two builds.",
    owner=OWNER,
)
user_statistics = FeatureView(
    name="user_statistics",
    entities=[user],
    schema=with_extra_columns(
        "user_statistics",
        user,
        statistics_fields("user", pq.read_schema(DATA / "user_statistics.parquet").names),
    ),
    source=user_statistics_push,
    ttl=ACTIVITY_TTL,
    description="How active a user is and how they judge, over windows.",
    tags={"changes": "often"},
    owner=OWNER,
)
user_history_push = PushSource(
    name="user_history_push",
    batch_source=source("user_history", "One row per user and instant with new interactions."),
    description="Fresh histories of users, between two builds.",
    owner=OWNER,
)
user_history = FeatureView(
    name="user_history",
    entities=[user],
    schema=with_extra_columns(
        "user_history",
        user,
        [
            Field(
                name="history_items", dtype=Array(String), description="Ids of the latest items, newest last."
            ),
            Field(
                name="history_values",
                dtype=Array(Float64),
                description="The value of each of those interactions.",
            ),
            Field(
                name="history_times",
                dtype=Array(Float64),
                description="The time of each, in seconds since the Unix epoch.",
            ),
        ],
    ),
    source=user_history_push,
    ttl=ACTIVITY_TTL,
    description="What a user met most recently.",
    tags={"changes": "often"},
    owner=OWNER,
)

item_columns = [field.name for field in item_content.features if field.name != "item_text"]
item_v1 = FeatureService(
    name="item_v1",
    # Without a column list Feast would take the whole view, its text too.
    features=[*([item_content[item_columns]] if item_columns else []), item_statistics],
    description="What a ranker of version 1 reads of items.",
    tags={"model_version": "1"},
    owner=OWNER,
)
user_v1 = FeatureService(
    name="user_v1",
    features=[user_profile, user_statistics],
    description="What a ranker of version 1 reads of users.",
    tags={"model_version": "1"},
    owner=OWNER,
)
# Apart from `user_v1`: retrieval needs the ids of a user's latest items, a ranker can't read lists.
user_history_v1 = FeatureService(
    name="user_history_v1",
    features=[user_history],
    description="What retrieval reads of users.",
    tags={"model_version": "1"},
    owner=OWNER,
)
