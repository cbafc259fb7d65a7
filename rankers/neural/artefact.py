"""A trained network on disk: a graph, a sealed manifest, what it knows by code, and torch's weights."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import CorruptRanker
from explorank.rankers.manifest import MANIFEST_FILE, WAY_OUT, RankerManifest, read_intact
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

    def save(self, folder: str | Path) -> None:
        """Write all files into `folder`, the manifest last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).write_bytes(self.model)
        (folder / VOCABULARY).write_bytes(self.vocabulary)
        (folder / WEIGHTS).write_bytes(self.weights)
        (folder / MANIFEST_FILE).write_text(self.manifest.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, kind: str) -> Artefact:
        """Return what `save` wrote; raise `CorruptRanker` naming the file that is not intact or of another kind."""
        folder = Path(folder)
        manifest = RankerManifest.read(folder / MANIFEST_FILE)
        if manifest.name != kind:
            raise CorruptRanker(
                f"{folder / MANIFEST_FILE} is of a {manifest.name!r} ranker, and a {kind!r} one was asked for; its "
                "files mean something else. Load it by its own name."
            )
        expected = {MODEL: manifest.model_sha256, **manifest.files}
        parts = {
            name: read_intact(folder / name, expected.get(name), "its scores could be anything")
            for name in (MODEL, VOCABULARY, WEIGHTS)
        }
        return cls(
            manifest=manifest, model=parts[MODEL], vocabulary=parts[VOCABULARY], weights=parts[WEIGHTS]
        )


def digest(content: bytes) -> str:
    """Return the SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


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
