"""What a network begins as that goes on from another domain's, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.artefact import Artefact, unpack_vocabulary
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import ITEM_CODE, ItemVocabulary
from explorank.rankers.neural.options import TransferOptions
from explorank.rankers.neural.plan import NeuralOptions, Plan, options_from_json

_FREE: Final = frozenset({"objective", "training", "tasks", "transfer"})
"""Options that layers do not follow from."""


@dataclass(frozen=True, slots=True)
class Start:
    """Another domain's trained network; needs no torch."""

    artefact: Artefact
    layout: ColumnLayout
    vocabulary: ItemVocabulary
    options: TransferOptions

    @classmethod
    def of(cls, artefact: Artefact, options: NeuralOptions) -> Self:
        """Return what to begin with; raise `InvalidTraining` where `options` ask for other layers or unknown columns.

        Named are the option, or the column that has no codes to share.
        """
        former = options_from_json(type(options), artefact.manifest.details["options"])
        for name in (field.name for field in fields(options) if field.name not in _FREE):
            if getattr(former, name) != getattr(options, name):
                raise InvalidTraining(
                    f"{name}={getattr(options, name)!r} builds other layers than the ranker to begin with has "
                    f"({getattr(former, name)!r}), so its weights would not fit. Set {name} as it was, or train from "
                    "scratch."
                )
        layout, vocabulary = unpack_vocabulary(artefact.vocabulary)
        coded = [artefact.manifest.feature_names[place] for place in layout.categorical]
        if artefact.manifest.details["id_columns"] and ITEM_CODE not in coded:
            coded.append(ITEM_CODE)
        for name in options.transfer.shared_codes:
            if name not in coded:
                raise InvalidTraining(
                    f"shared_codes names {name!r}, and the ranker to begin with has no embeddings of such a column to "
                    f"take over; it has those of {', '.join(coded) or 'none'}. Correct the name, or leave it out."
                )
        return cls(artefact, layout, vocabulary, options.transfer)

    @property
    def version(self) -> str:
        """Of the network."""
        return self.artefact.manifest.version

    @property
    def lineage(self) -> tuple[str, ...]:
        """The versions that a network which begins as this one goes back to, the first one first."""
        return (*self.artefact.manifest.details.get("lineage", ()), self.version)

    @property
    def shared_codes(self) -> Mapping[str, NDArray[np.float32]]:
        """The known codes of the shared columns, by name; items have ids instead."""
        names = self.artefact.manifest.feature_names
        known = {
            names[place]: codes
            for place, codes in zip(self.layout.categorical, self.layout.known, strict=True)
        }
        return {name: known[name] for name in self.options.shared_codes if name != ITEM_CODE}

    @property
    def shared_items(self) -> list[str]:
        """The ids of the items that have an embedding, where those are shared."""
        return self.vocabulary.ids.tolist() if ITEM_CODE in self.options.shared_codes else []

    def check_columns(self, plan: Plan, called: str) -> None:
        """Raise `InvalidTraining`, listing the differences, unless the network reads what the new one will."""
        manifest = self.artefact.manifest
        wanted, found = manifest.feature_names, plan.feature_names
        if (wanted, manifest.categorical) == (found, plan.categorical):
            return
        lacking = ", ".join(name for name in wanted if name not in found)
        added = ", ".join(name for name in found if name not in wanted)
        differences = [f"without {lacking}"] * bool(lacking) + [f"with {added} beside them"] * bool(added)
        raise InvalidTraining(
            f"The {called} data has other columns than the ranker to begin with reads: "
            f"{'; '.join(differences) or 'the order, or which are categorical, differs'}. Its layers would read one "
            "for the other. Build the same columns for both domains, NaN where one has no value, or train from scratch."
        )
