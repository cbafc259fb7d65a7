"""How a catalogue was made, for whoever compares it with what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What went into a catalogue, and what did not."""

    encoder: str = ""
    """What the settings called the model that embedded the texts; empty where nobody said."""
    adapter: str | None = None
    """The version of the adapter that changed the encoder; empty for none, None where nobody said."""
    learnt_until: float | None = None
    """The last moment of the likes that the vectors were learnt from, in seconds since the Unix epoch; None where none
    were, or nobody said."""
    modalities: Mapping[str, float | None] = field(default_factory=dict)
    """The weight of each kind of vector that was joined with those of the texts; None where a gate joined it."""
    user_features: Mapping[str, str] = field(default_factory=dict)
    """What each column of users was that the learnt space reads, as `FeatureAccess.user_meanings` tells, in
    texts."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a part that was asked for is missing, such as `by_use` after too few interactions."""

    def reason_for(self, part: str) -> str:
        """Return a sentence, after a space, of why `part` was left out; empty where it was not asked for."""
        return f" The build said: {self.left_out[part]}" if part in self.left_out else ""
