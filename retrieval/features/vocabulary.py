"""Numbers for texts: an append-only list of values per feature, so that a code never changes its meaning."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval.errors import FeatureRepositoryError

DATA_FOLDER: Final = "data"
VOCABULARIES: Final = "vocabularies.json"


class Vocabularies:
    """The codes of text features, kept in a JSON file: `{feature: [values]}`, a code is a position.

    A value that is not listed has no code and is read as missing (NaN). Values are only ever appended, so
    a ranker's codes stay right across rebuilds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._codes = {
            name: {value: code for code, value in enumerate(values)} for name, values in _read(path)
        }

    @classmethod
    def of_repository(cls, repository: Path) -> Vocabularies:
        """Return those of a Feast repository's folder; empty ones where it has none."""
        return cls(repository / DATA_FOLDER / VOCABULARIES)

    def __contains__(self, feature: object) -> bool:
        return feature in self._codes

    def codes(self, feature: str, values: Iterable[object]) -> NDArray[np.float32]:
        """Return the code of each value, (n,) float32, NaN for unlisted and missing ones."""
        get = self._codes.get(feature, {}).get
        return np.fromiter((get(value, np.nan) for value in values), np.float32)  # type: ignore[call-overload]  # any key may be asked for

    def texts(self, feature: str) -> tuple[str, ...]:
        """Return the values of `feature` in the order of their codes; none where it is no text."""
        return tuple(self._codes.get(feature, ()))

    def extend(self, feature: str, values: Iterable[str]) -> None:
        """Append the values of `feature` that are not listed yet, in alphabetical order."""
        known = self._codes.setdefault(feature, {})
        for value in sorted(set(values) - known.keys()):
            known[value] = len(known)

    def save(self) -> None:
        """Write the file so that a reader sees the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: list(codes) for name, codes in self._codes.items()}
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)


def _read(path: Path) -> Iterable[tuple[str, list[str]]]:
    if not path.exists():
        return ()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(value, str) for values in content.values() for value in values):
            raise TypeError("a value is not a text")  # noqa: TRY301 - reported with the unreadable files below
    except (ValueError, AttributeError, TypeError) as error:
        raise FeatureRepositoryError(
            f"{path} is no vocabulary of the form {{feature: [texts]}} ({error}); without it the codes of "
            "text features would change their meaning. Restore the file, or delete it and retrain the ranker."
        ) from error
    return content.items()  # type: ignore[no-any-return]  # checked just above
