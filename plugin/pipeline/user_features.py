"""What was known of users at past times, for a learnt space that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from explorank.errors import DataError
from explorank.hooks.registry import did_you_mean
from explorank.retrieval import UserFeatures
from explorank.retrieval.features import FeatureAccess, Meaning
from explorank.settings import LearnedEmbeddingsSettings

_COLUMN: Final = "user feature "
"""In front of the name of a feature where it is a column beside others; no feature's name has a space."""


@dataclass(frozen=True, slots=True)
class PastUserFeatures:
    """Reads the columns that `retrieval.learned_embeddings.user_features` names, as of any time."""

    access: FeatureAccess
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, learned: LearnedEmbeddingsSettings | None, access: FeatureAccess | None
    ) -> PastUserFeatures | None:
        """Return those that settings name, None where they name none.

        Raises `DataError` naming the first that the user service does not serve.
        """
        if learned is None or not learned.user_features or access is None:
            return None
        meanings = access.user_meanings()
        for name in learned.user_features:
            if name not in meanings:
                raise DataError(
                    f"`retrieval.learned_embeddings.user_features` names {name!r}, which the feature service "
                    f"{access.user_service!r} does not serve as a number or a text, so the towers cannot read it."
                    f"{did_you_mean(name, list(meanings))} Correct the name, or serve the feature."
                )
        return cls(access, learned.user_features)

    @property
    def meanings(self) -> dict[str, Meaning]:
        """What the numbers of each mean now, as `FeatureAccess.user_meanings` tells."""
        meanings = self.access.user_meanings()
        return {name: meanings[name] for name in self.names}

    @property
    def categories(self) -> frozenset[str]:
        """Which of them are codes of texts."""
        return frozenset(name for name, meaning in self.meanings.items() if meaning.is_category)

    def known_at(self, user_ids: pd.Series[str], times: pd.Series[pd.Timestamp]) -> UserFeatures:
        """Return what was known of users (r,) at `times` (r,), (r, g)."""
        # A repository that `explorank features` did not write has no codes before somebody asks for them.
        uncoded = any(meaning.is_without_codes for meaning in self.meanings.values())
        values = self.access.past_users(user_ids.tolist(), times, extend_vocabularies=uncoded)
        places = [self.access.user_names.index(name) for name in self.names]
        return UserFeatures(self.names, values[:, places], self.categories)

    def beside(self, events: pd.DataFrame) -> pd.DataFrame:
        """Return `events` with what was known of each user when it happened, for `among` to find."""
        told = self.known_at(events["user_id"], events["timestamp"])
        return events.assign(
            **{_COLUMN + name: told.values[:, place] for place, name in enumerate(self.names)}
        )

    def among(self, events: pd.DataFrame) -> UserFeatures:
        """Return what `beside` put beside `events` (e,), or some of them, (e, g)."""
        values = events[[_COLUMN + name for name in self.names]].to_numpy("float32")
        return UserFeatures(self.names, values, self.categories)
