"""A trained cross-encoder on disk: a graph, the tokenizer, the texts of its training, and a sealed manifest."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from explorank.cross_encoder.texts import KnownTexts
from explorank.rankers import CorruptRanker, RankerManifest
from explorank.rankers.manifest import WAY_OUT, read_folder, write_folder
from explorank.rankers.neural.items import ItemVocabulary
from explorank.retrieval.encoding import TokenTable

MODEL: Final = "model.onnx"
TOKENIZER: Final = "tokenizer.json"
TEXTS: Final = "texts.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """All of a trained cross-encoder; it needs no torch."""

    manifest: RankerManifest
    model: bytes
    """The ONNX graph."""
    tokenizer: bytes
    """What the package `tokenizers` reads."""
    texts: bytes
    """See `pack_texts`."""

    def sealed(self) -> Self:
        """Return the same with a manifest that knows the files, and a version that follows from them."""
        others = {TOKENIZER: self.tokenizer, TEXTS: self.texts}
        return replace(self, manifest=self.manifest.of_files(self.model, others))

    def save(self, folder: str | Path) -> None:
        """Write all files into `folder`, the manifest last."""
        files = {MODEL: self.model, TOKENIZER: self.tokenizer, TEXTS: self.texts}
        write_folder(folder, self.manifest, files)

    @classmethod
    def load(cls, folder: str | Path, name: str) -> Self:
        """Return what `save` wrote; raise `CorruptRanker` naming the file that is not intact or of another ranker."""
        manifest, (model, tokenizer, texts) = read_folder(folder, name, MODEL, (TOKENIZER, TEXTS))
        return cls(manifest=manifest, model=model, tokenizer=tokenizer, texts=texts)


def pack_texts(texts: KnownTexts) -> bytes:
    """Return the items and the tokens of their texts as a npz archive; the same ones give the same bytes."""
    archive = io.BytesIO()
    np.savez(archive, ids=texts.items.ids, tokens=texts.table.tokens, ends=texts.table.ends)
    return archive.getvalue()


def unpack_texts(content: bytes) -> KnownTexts:
    """Return what `pack_texts` packed."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays: dict[str, Any] = dict(archive)
        return KnownTexts(ItemVocabulary(arrays["ids"]), TokenTable(arrays["tokens"], arrays["ends"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptRanker(f"{TEXTS} cannot be read ({error}). {WAY_OUT}") from error
