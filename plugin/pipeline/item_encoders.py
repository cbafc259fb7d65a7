"""What makes the vectors of a catalogue's items: their texts, and what else is known of them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.errors import DataError
from explorank.pipeline.encoders import configured_encoder
from explorank.pipeline.modalities import Modality, how_joined
from explorank.retrieval import Catalogue, Encoder
from explorank.retrieval.encoding import Adapter, concatenate
from explorank.settings import Settings

_ROWS_AT_ONCE: Final = 16_384
_COMPARED: Final = 1_000
"""Items whose vectors are compared with the former ones; the median over them is sure."""
_SAME: Final = 0.99
"""The cosine of two vectors of one model for one thing: what computes it may differ, and round."""

Vectors = NDArray[np.float32]


class ItemEncoder(Protocol):
    """Encodes the items of a catalogue."""

    @property
    def name(self) -> str:
        """The encoder's, and each modality with how it is joined."""

    @property
    def adapter(self) -> Adapter | None:
        """What adapts it to behaviour."""

    def encode(
        self,
        texts: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        *,
        allocate: Callable[[tuple[int, int]], Vectors],
    ) -> Vectors:
        """Return unit rows (n, d) of the items with these `texts`; see `Encoder.encode`."""

    def fingerprint(
        self, item_ids: NDArray[np.str_], vectors: Vectors, former: Catalogue | None = None
    ) -> str:
        """Return what identifies the space of a catalogue of `item_ids` (n,) with `vectors` (n, d).

        It is made of the encoder's fingerprint and each modality's name, weight, length and values: a model of images
        that took another's place under the same name makes another space. New items bring new values and do not, so
        where most items that `former` has too are in its place there, its fingerprint holds.
        """


def item_encoder(settings: Settings, modalities: Sequence[Modality]) -> ItemEncoder:
    """Return what the settings ask for, with the `modalities` in the rows of the catalogue to be.

    Raises what `configured_encoder` does, `DataError` where the settings ask for a gate and the adapter has none, or
    the other way round, and `AdapterMismatch` where its gate is of other modalities; all before anything is encoded.
    """
    encoder = configured_encoder(settings)
    learnt = {} if encoder.adapter is None else encoder.adapter.modalities
    if settings.retrieval.fusion == "weighted":
        if learnt:
            raise DataError(
                f"The adapter {encoder.name!r} joins texts with {', '.join(f'`{name}`' for name in learnt)} by a gate, "
                "which `retrieval.fusion: weighted` would leave out. Set `fusion: gated` with these modalities, or run "
                "`explorank adapt` for an adapter of the texts alone."
            )
        return WeightedEncoder(encoder, modalities)
    if encoder.adapter is None or encoder.adapter.head is None or not learnt:
        raise DataError(
            f"`retrieval.fusion` is `gated`, and {encoder.name!r} has no gate: it was adapted to texts alone. Run "
            "`explorank adapt`, which learns one, or set `fusion: weighted`."
        )
    lengths = {modality.feature: modality.length for modality in modalities}
    encoder.adapter.head.check_modalities(lengths, f"The adapter {encoder.name!r}")
    return GatedEncoder(encoder, modalities)


class _OfModalities(ABC):
    """An encoder of texts, and what else is known of the items."""

    def __init__(self, encoder: Encoder, modalities: Sequence[Modality]) -> None:
        self._encoder = encoder
        # Their order moves dimensions about and changes no cosine.
        self._modalities = sorted(modalities, key=lambda modality: modality.feature)

    @property
    def name(self) -> str:
        return self._encoder.name + "".join(
            f" + {how_joined(modality.feature, modality.weight)}" for modality in self._modalities
        )

    @property
    def adapter(self) -> Adapter | None:
        return self._encoder.adapter

    def fingerprint(
        self, item_ids: NDArray[np.str_], vectors: Vectors, former: Catalogue | None = None
    ) -> str:
        if not self._modalities:
            return self._encoder.fingerprint
        joined = [(modality.feature, modality.weight, modality.length) for modality in self._modalities]
        facts = hashlib.sha256(json.dumps([self._encoder.fingerprint, joined]).encode()).hexdigest()
        if former is not None and former.encoder_fingerprint.startswith(f"{facts}-"):
            rows = former.rows(item_ids)
            if self._are_as_in(former, rows, vectors):
                return former.encoder_fingerprint
        values = "".join(modality.digest() for modality in self._modalities)
        return f"{facts}-{hashlib.sha256(values.encode()).hexdigest()[:16]}"

    @abstractmethod
    def _decided(self, dim: int) -> Iterator[tuple[Modality, slice]]:
        """Yield which of the vectors' `dim` dimensions each modality has a say in."""

    def _are_as_in(self, former: Catalogue, rows: NDArray[np.int64], vectors: Vectors) -> bool:
        """Return whether most items have the `vectors` (n, d) that they have in `former`, in `rows` (n,) of it.

        Compared is what each modality decides, of the items that have one; -1 is an item that is not there.
        """
        shared = np.flatnonzero(rows >= 0)
        shared = shared[:: max(1, len(shared) // _COMPARED)]
        for modality, dims in self._decided(vectors.shape[1]):
            known = shared[modality.places[shared] >= 0]
            there, here = former.vectors[rows[known], dims], vectors[known, dims]
            lengths = np.linalg.norm(there, axis=1) * np.linalg.norm(here, axis=1)
            known_there = lengths > 0
            cosines = np.einsum("ij,ij->i", there, here)[known_there] / lengths[known_there]
            if not known_there.any() or np.median(cosines) < _SAME:
                return False
        return True


class WeightedEncoder(_OfModalities):
    """Joins by weights, as `concatenate` does it: each modality has dimensions of its own, behind the text's."""

    def encode(
        self,
        texts: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        *,
        allocate: Callable[[tuple[int, int]], Vectors],
    ) -> Vectors:
        """Return unit rows (n, d) of the items; see `ItemEncoder`.

        They are joined in parts, in the array that `allocate` returned: memory holds the modalities' own vectors, and
        no second copy of the joined ones.
        """
        if not self._modalities:
            return self._encoder.encode(texts, progress, allocate=allocate)
        more = sum(modality.length for modality in self._modalities)
        whole: list[Vectors] = []

        def allocate_text(shape: tuple[int, int]) -> Vectors:
            whole.append(allocate((shape[0], shape[1] + more)))
            return whole[0][:, : shape[1]]

        text = self._encoder.encode(texts, progress, allocate=allocate_text)
        if not whole:
            return np.zeros((0, text.shape[1] + more), np.float32)
        weights = {modality.feature: modality.weight or 0.0 for modality in self._modalities}
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            these = slice(start, start + _ROWS_AT_ONCE)
            others = {modality.feature: modality[these] for modality in self._modalities}
            whole[0][these] = concatenate(text[these], others, weights)
        return whole[0]

    def _decided(self, dim: int) -> Iterator[tuple[Modality, slice]]:
        start = dim - sum(modality.length for modality in self._modalities)
        for modality in self._modalities:
            yield modality, slice(start, start + modality.length)
            start += modality.length


class GatedEncoder(_OfModalities):
    """Joins by the gate that the adapter has learnt: each modality has a say in every dimension."""

    def encode(
        self,
        texts: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        *,
        allocate: Callable[[tuple[int, int]], Vectors],
    ) -> Vectors:
        """Return unit rows (n, d) of the items; see `ItemEncoder`. They are joined in parts, as they are encoded."""
        others = {modality.feature: modality for modality in self._modalities}
        return self._encoder.encode(texts, progress, others=others, allocate=allocate)

    def _decided(self, dim: int) -> Iterator[tuple[Modality, slice]]:
        for modality in self._modalities:
            yield modality, slice(0, dim)
