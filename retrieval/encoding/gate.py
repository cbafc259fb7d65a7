"""A gate that behaviour teaches: how much of each item's vector its text is, and how much what else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from explorank.retrieval._torch import as_array, seeded
from explorank.retrieval._vectors import unit_rows
from explorank.retrieval.encoding.adapter import Adapter, HeadSpec, save_adapter
from explorank.retrieval.encoding.behaviour import Behaviour
from explorank.retrieval.encoding.fine_tuning import train_gate
from explorank.retrieval.encoding.fusion import side_by_side
from explorank.retrieval.encoding.heads import GatedHead
from explorank.retrieval.encoding.options import FineTuning, Progress
from explorank.retrieval.errors import AdapterMismatch

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Gate:
    """A trained gate (see `explorank.retrieval.encoding.heads.GatedHead`), a function of vectors alone.

    So it joins what is known of any item, one that nobody had liked when it was trained too.
    """

    spec: HeadSpec
    """Which vectors it joins, by name and length."""
    head: nn.Module

    @classmethod
    def fit(
        cls,
        text: Vectors,
        others: Mapping[str, Vectors],
        behaviour: Behaviour,
        *,
        valid: Behaviour | None = None,
        options: FineTuning | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Return a gate for vectors of any text encoder, trained on `text` (n, d) and `others` (n, d_i) of the items.

        It is trained as `fine_tune_encoder` trains a head, which also takes `others` where the encoder is an `Encoder`.
        Where nothing is known of an item in `others`, its rows there are zeros or NaN.
        """
        beside = side_by_side(others, len(text))
        with seeded(seed):
            head = GatedHead(text.shape[1], beside.shape[1])
        train_gate(
            head,
            text,
            beside,
            behaviour,
            valid=valid,
            options=options,
            seed=seed,
            progress=progress,
            checkpoint=checkpoint,
        )
        modalities = tuple((name, others[name].shape[1]) for name in sorted(others))
        return cls(HeadSpec(kind="gated", dim=text.shape[1], modalities=modalities), head)

    @classmethod
    def of(cls, adapter: Adapter) -> Self:
        """Return the gate of an adapter; raise `AdapterMismatch` for one that reads texts alone."""
        head = adapter.load_head()
        if adapter.head is None or head is None or not adapter.modalities:
            raise AdapterMismatch(
                f"The adapter in {adapter.folder} has no gate: it was trained on texts alone, and joins them with "
                "nothing. Train one with `others`."
            )
        return cls(adapter.head, head)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the gate in `folder`, saved or of an adapter; raise `CorruptArtefact` for what is not intact."""
        return cls.of(Adapter.load(folder))

    def save(self, folder: str | Path) -> None:
        """Write it to `folder`, as an adapter of no model."""
        save_adapter(folder, base_name="", base_fingerprint="", head=(self.spec, self.head.state_dict()))

    def join(self, text: Vectors, others: Mapping[str, Vectors]) -> Vectors:
        """Return unit rows (n, d) of the vectors of n items: `text` (n, d), and `others` (n, d_i) by name.

        Rows of `others` are zeros or NaN where nothing is known, and the rest speaks for the item. Raises
        `AdapterMismatch` for other names or lengths than it was trained with, `InvalidVectors` for other rows.
        """
        lengths = {name: vectors.shape[-1] for name, vectors in others.items()}
        self.spec.check_modalities(lengths, "The adapter")
        if text.shape[-1] != self.spec.dim:
            raise AdapterMismatch(
                f"The gate was trained on text vectors of {self.spec.dim} values, and these have {text.shape[-1]}, so "
                "they come from another encoder. Encode with the one it was trained on, or train a gate for this one."
            )
        read = np.concatenate([text, side_by_side(others, len(text))], axis=1, dtype=np.float32)
        with torch.inference_mode():
            joined = as_array(self.head(torch.from_numpy(read)))
        return unit_rows(joined, range(len(text)))


def fuse(
    text: Vectors,
    others: Mapping[str, Vectors],
    behaviour: Behaviour,
    *,
    valid: Behaviour | None = None,
    options: FineTuning | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Vectors:
    """Return unit rows (n, d) of the vectors that a gate was trained on, joined by it: `Gate.fit`, and then `join`."""
    gate = Gate.fit(text, others, behaviour, valid=valid, options=options, seed=seed, progress=progress)
    return gate.join(text, others)
