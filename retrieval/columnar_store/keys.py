"""Entity keys: Feast's serialised bytes, and the plain Python values that rows are looked up by."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType

Key: TypeAlias = Any
"""What a row is looked up by: the join key's value, or a tuple of them in the order of the sorted join keys."""

_MEMBERS: Final = {
    ValueType.STRING: "string_val",
    ValueType.BYTES: "bytes_val",
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.UNIX_TIMESTAMP: "unix_timestamp_val",
}
_PLAIN: Final[Mapping[ValueType, set[type]]] = {
    ValueType.STRING: {str},
    ValueType.BYTES: {bytes},
    ValueType.INT32: {int},
    ValueType.INT64: {int},
}
_FORMATS: Final = {"int32_val": "<i", "int64_val": "<q", "unix_timestamp_val": "<q"}


class EntityKeys:
    """The keys of one entity or of one combination of entities.

    Args:
        types: The type of each join key, by its name.

    """

    def __init__(self, types: Mapping[str, ValueType]) -> None:
        self.join_keys = tuple(sorted(types))
        self.types = tuple(types[name] for name in self.join_keys)
        self._members = tuple(_MEMBERS.get(kind) for kind in self.types)
        parts = [struct.pack("<I", len(self.join_keys))]
        for name in self.join_keys:
            encoded = name.encode()
            parts += [struct.pack("<II", ValueType.STRING.value, len(encoded)), encoded]
        self._prefix = b"".join(parts)
        self._hash = hash((self.join_keys, self.types))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntityKeys) and (self.join_keys, self.types) == (
            other.join_keys,
            other.types,
        )

    def __hash__(self) -> int:
        return self._hash

    def of_columns(self, columns: Sequence[Sequence[Any]]) -> list[Key]:
        """Return the keys of n rows from one column of plain values per join key, in the sorted order."""
        if len(columns) == 1:
            return list(columns[0])
        return list(zip(*columns, strict=True))

    def of_proto(self, entity_key: EntityKey) -> Key:
        """Return the key of Feast's message."""
        if len(entity_key.join_keys) == 1:
            return plain_value(entity_key.entity_values[0])
        pairs = sorted(zip(entity_key.join_keys, entity_key.entity_values, strict=True), key=_by_name)
        return tuple(plain_value(value) for _, value in pairs)

    def to_proto(self, key: Key) -> EntityKey:
        """Return Feast's message of a key."""
        values = (key,) if len(self.join_keys) == 1 else key
        return EntityKey(
            join_keys=self.join_keys,
            entity_values=[
                Value() if value is None or member is None else Value(**{member: value})
                for member, value in zip(self._members, values, strict=True)
            ],
        )

    def serialize(self, key: Key) -> bytes | None:
        """Return the bytes that stores keep a row under; `None` for a key that none can be stored under."""
        values = (key,) if len(self.join_keys) == 1 else key
        parts = [self._prefix]
        for kind, member, value in zip(self.types, self._members, values, strict=True):
            if value is None or member is None:
                return None
            try:
                encoded = (
                    value.encode()
                    if member == "string_val"
                    else value
                    if member == "bytes_val"
                    else struct.pack(_FORMATS[member], value)
                )
            except (struct.error, AttributeError):  # out of the type's range, or of another type
                return None
            parts += [struct.pack("<II", kind.value, len(encoded)), encoded]
        return b"".join(parts)

    def parse(self, stored: bytes) -> Key | None:
        """Return the key of stored bytes, `None` where they are the key of another entity."""
        if not stored.startswith(self._prefix):
            return None
        if len(self.join_keys) == 1 and stored[len(self._prefix)] == ValueType.STRING.value:
            return stored[len(self._prefix) + 8 :].decode()
        return self.of_proto(deserialize_entity_key(stored))


def _by_name(pair: tuple[str, Any]) -> str:
    return pair[0]


def stored_key(entity_key: EntityKey) -> bytes:
    """Return the bytes that stores keep a row under; raises what Feast raises for types that it refuses."""
    stored: bytes = serialize_entity_key(entity_key, entity_key_serialization_version=3)
    return stored


def plain_value(value: Value) -> Any:
    """Return the Python value of an entity's message, `None` for an empty one."""
    member = value.WhichOneof("val")
    return None if member is None else getattr(value, member)


def plain_values(values: Any, kind: ValueType) -> list[Any]:
    """Return given entity values as Feast would store them: `"12"` for a whole-number key is refused alike."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    given = list(values) if isinstance(values, Sequence) else list(values.val)
    if set(map(type, given)) <= _PLAIN.get(kind, set()):
        return given
    return [plain_value(message) for message in python_values_to_proto_values(given, kind)]
