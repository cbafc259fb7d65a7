"""A trained network on disk: a graph, a sealed manifest, what it knows by code, and torch's weights."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import CorruptRanker
from explorank.rankers.manifest import WAY_OUT, RankerManifest, read_folder, write_folder
from explorank.rankers.neural.columns import ColumnLayout
from explorank.rankers.neural.items import ItemVocabulary

MODEL: Final = "model.onnx"
VOCABULARY: Final = "vocabulary.npz"
WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """All of a trained network; it needs torch for nothing but what is done with `weights`."""

    manifest: RankerManifest
    model: bytes
    """The ONNX graph."""
    vocabulary: bytes
    """See `pack_vocabulary`."""
    weights: bytes
    """Torch's, as safetensors: to explain scores, or to train further."""

    def sealed(self) -> Artefact:
        """Return the same with a manifest that knows the files, and a version that follows from them."""
        others = {VOCABULARY: self.vocabulary, WEIGHTS: self.weights}
        return replace(self, manifest=self.manifest.of_files(self.model, others))

    def save(self, folder: str | Path) -> None:
        """Write all files into `folder`, the manifest last."""
        files = {MODEL: self.model, VOCABULARY: self.vocabulary, WEIGHTS: self.weights}
        write_folder(folder, self.manifest, files)

    @classmethod
    def load(cls, folder: str | Path, kind: str) -> Artefact:
        """Return what `save` wrote; raise `CorruptRanker` naming the file that is not intact or of another kind."""
        manifest, (model, vocabulary, weights) = read_folder(folder, kind, MODEL, (VOCABULARY, WEIGHTS))
        return cls(manifest=manifest, model=model, vocabulary=vocabulary, weights=weights)


def pack_vocabulary(layout: ColumnLayout, items: ItemVocabulary) -> bytes:
    """Return the layout and the items as a npz archive; the same ones give the same bytes."""
    arrays: dict[str, Any] = {
        "items": items.ids,
        "dense": np.array(layout.dense, np.int64),
        "categorical": np.array(layout.categorical, np.int64),
        **{f"codes_{number}": codes for number, codes in enumerate(layout.known)},
    }
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    return archive.getvalue()


def unpack_vocabulary(content: bytes) -> tuple[ColumnLayout, ItemVocabulary]:
    """Return what `pack_vocabulary` packed."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CorruptRanker(f"{VOCABULARY} cannot be read ({error}). {WAY_OUT}") from error
    layout = ColumnLayout(
        dense=tuple(arrays["dense"].tolist()),
        categorical=tuple(arrays["categorical"].tolist()),
        known=tuple(arrays[f"codes_{number}"] for number in range(len(arrays["categorical"]))),
    )
    return layout, ItemVocabulary(arrays["items"])
