"""What adapts an encoder to behaviour, on disk: small weights, and a manifest of what they fit and how they came."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from explorank.retrieval._files import file_digest, read_manifest, write_manifest
from explorank.retrieval.errors import AdapterMismatch, EncoderUnavailable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from explorank.retrieval.encoding.heads import HeadKind

_FORMAT: Final = "explorank.encoder-adapter/1"
MANIFEST: Final = "adapter.json"
LORA_WEIGHTS: Final = "adapter_model.safetensors"
"""Named and laid out as PEFT does it, with its `adapter_config.json` beside, so that PEFT loads it too."""
LORA_CONFIG: Final = "adapter_config.json"
HEAD_WEIGHTS: Final = "head.safetensors"
_PEFT_PREFIX: Final = "base_model.model."
"""What PEFT's files have before each name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """The shape of low-rank changes to a model's linear layers (LoRA, Hu et al., 2021)."""

    rank: int
    alpha: int
    target_modules: tuple[str, ...] = ()
    """The layers by the end of their names; none means all linear ones."""
    dropout: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """The shape of a head over the text's vector."""

    kind: HeadKind
    dim: int
    hidden: int = 0
    modalities: tuple[tuple[str, int], ...] = ()
    """What a gate joins with the text: the name and length of each vector, in the order in which it reads them."""

    def check_modalities(self, lengths: Mapping[str, int], called: str) -> None:
        """Raise `AdapterMismatch`, naming both, unless `lengths` are those of the vectors that it was trained with."""
        if dict(self.modalities) != dict(lengths):
            raise AdapterMismatch(
                f"{called} joins texts with {_told(dict(self.modalities))} by a gate, and {_told(lengths)} is brought; "
                "its weights mean nothing for other vectors. Bring those it was trained with, or adapt anew with "
                "these (`explorank adapt`)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter that lies, intact, in a folder."""

    folder: Path
    version: str
    """Follows from the weights' bytes."""
    base_name: str
    """The model it was trained on, as it was called."""
    base_fingerprint: str
    """What identifies that model; on another the weights mean nothing."""
    lora: LoraSpec | None
    head: HeadSpec | None
    dims: tuple[int, ...] = ()
    """The numbers of first dimensions that the vectors may be cut to; none but all of them where it is empty."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained with."""
    window: tuple[float, float] | None = None
    """First and last moment of the training data, in seconds since the Unix epoch."""
    validation_window: tuple[float, float] | None = None
    """The same of the later data by which the best moment of the training was chosen."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the training."""
    lineage: tuple[str, ...] = ()
    """Versions of the adapters that it goes on from, the first one first."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return the adapter in `folder`; raise `CorruptArtefact`, naming the file that is not intact."""
        folder = Path(folder)
        facts = read_manifest(folder / MANIFEST, _FORMAT)
        lora, head = facts["lora"], facts["head"]
        if lora is not None:
            lora = LoraSpec(**{**lora, "target_modules": tuple(lora["target_modules"])})
        if head is not None:
            # Of adapters without a gate, earlier ones do not say so.
            modalities = tuple((name, length) for name, length in head.get("modalities", ()))
            head = HeadSpec(**{**head, "modalities": modalities})
        return cls(
            folder=folder,
            version=facts["version"],
            base_name=facts["base_name"],
            base_fingerprint=facts["base_fingerprint"],
            lora=lora,
            head=head,
            dims=tuple(facts["dims"]),
            options=facts["options"],
            window=_window(facts["window"]),
            validation_window=_window(facts.get("validation_window")),
            metrics=facts["metrics"],
            lineage=tuple(facts["lineage"]),
        )

    def check_base(self, fingerprint: str, name: str) -> None:
        """Raise `AdapterMismatch` unless it was trained on the model of that fingerprint."""
        if fingerprint != self.base_fingerprint:
            raise AdapterMismatch(
                f"The adapter in {self.folder} was trained on {self.base_name!r} "
                f"(fingerprint {self.base_fingerprint[:12]}), and the model {name!r} is another one "
                f"({fingerprint[:12]}); its changes to those weights would mean nothing. Name the model it was trained "
                "on, or train an adapter for this one."
            )

    @property
    def modalities(self) -> Mapping[str, int]:
        """The length of each kind of vector that its gate joins with the text's, by name; none where it has no gate."""
        return {} if self.head is None else dict(self.head.modalities)

    @property
    def learnt_until(self) -> float | None:
        """The last moment of all that it has seen, in seconds since the Unix epoch; None where nobody said.

        A request before that may be one whose answer it has learnt.
        """
        return max(
            (window[1] for window in (self.window, self.validation_window) if window is not None),
            default=None,
        )

    @property
    def lora_digest(self) -> str:
        """The SHA-256 of the changes to the model itself; empty where it has none."""
        return "" if self.lora is None else file_digest(self.folder / LORA_WEIGHTS)

    def lora_weights(self) -> dict[str, Tensor]:
        """Return the changes to the model itself, by PEFT's names; none where it has none."""
        from safetensors.torch import load_file  # noqa: PLC0415 - torch, for encoding only

        if self.lora is None:
            return {}
        weights = load_file(self.folder / LORA_WEIGHTS)
        return {name.removeprefix(_PEFT_PREFIX): value for name, value in weights.items()}

    def attach(self, body: nn.Module) -> None:
        """Put the changes into a transformer's layers, in place."""
        if self.lora is not None:
            inject_lora(body, self.lora)
            set_lora_weights(body, self.lora_weights())

    def load_head(self) -> nn.Module | None:
        """Return the trained head, on the CPU; None where it has none."""
        if self.head is None:
            return None
        from safetensors.torch import load_file  # noqa: PLC0415 - torch, for encoding only

        from explorank.retrieval.encoding.heads import make_head  # noqa: PLC0415

        spec = self.head
        other_dim = sum(length for _, length in spec.modalities)
        head = make_head(spec.kind, spec.dim, hidden=spec.hidden, other_dim=other_dim)
        head.load_state_dict(load_file(self.folder / HEAD_WEIGHTS))
        return head

    def apply_head(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vectors (n, d) as the head maps them; the very array where there is none.

        A gate reads more than these: see `explorank.retrieval.encoding.Gate`.
        """
        head = self.load_head()
        if head is None:
            return vectors
        import torch  # noqa: PLC0415 - for encoding only

        with torch.inference_mode():
            mapped: NDArray[np.float32] = head(torch.from_numpy(np.array(vectors, np.float32))).numpy()
        return mapped


def save_adapter(
    folder: str | Path,
    *,
    base_name: str,
    base_fingerprint: str,
    lora: tuple[LoraSpec, Mapping[str, Tensor]] | None = None,
    head: tuple[HeadSpec, Mapping[str, Tensor]] | None = None,
    **facts: Any,
) -> Adapter:
    """Write an adapter and return it as `Adapter.load` does; `facts` are further fields of `Adapter`."""
    from safetensors.torch import save_file  # noqa: PLC0415 - torch, for training only

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    if lora is not None:
        weights = {_PEFT_PREFIX + name: value.contiguous() for name, value in lora[1].items()}
        save_file(weights, folder / LORA_WEIGHTS)
        config = lora_config(lora[0]).to_dict()
        config["base_model_name_or_path"] = base_name
        text = json.dumps(config, indent=1, sort_keys=True, default=_listed)
        (folder / LORA_CONFIG).write_text(text, encoding="utf-8")
        files += [LORA_WEIGHTS, LORA_CONFIG]
    if head is not None:
        save_file({name: value.contiguous() for name, value in head[1].items()}, folder / HEAD_WEIGHTS)
        files.append(HEAD_WEIGHTS)
    version = _version([file_digest(folder / name) for name in files], lora and lora[0], head and head[0])
    content = {
        "format": _FORMAT,
        "version": version,
        "base_name": base_name,
        "base_fingerprint": base_fingerprint,
        "lora": None if lora is None else asdict(lora[0]),
        "head": None if head is None else asdict(head[0]),
        "dims": (),
        "options": {},
        "window": None,
        "validation_window": None,
        "metrics": {},
        "lineage": (),
        **facts,
    }
    write_manifest(folder / MANIFEST, content, files)
    return Adapter.load(folder)


def body_of(model: Any) -> nn.Module:
    """Return the transformer of a sentence-transformers model, without its pooling."""
    body: nn.Module = model[0].auto_model
    return body


def lora_config(spec: LoraSpec) -> Any:
    """Return PEFT's configuration of that shape; raise `EncoderUnavailable` where PEFT is not installed."""
    try:
        from peft import LoraConfig  # noqa: PLC0415 - torch, for encoding only
    except ImportError as error:
        raise EncoderUnavailable(
            "peft is not installed, which changes a model's layers as an adapter says. Install it with "
            "`pip install 'explorank[train]'`, or adapt with a head alone."
        ) from error
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules) or "all-linear",
    )


def inject_lora(body: nn.Module, spec: LoraSpec) -> None:
    """Put untrained low-rank changes, which change nothing yet, into a transformer's layers; they alone train."""
    from peft import inject_adapter_in_model  # noqa: PLC0415 - torch, for encoding only

    config = lora_config(spec)
    inject_adapter_in_model(config, body)


def lora_weights(body: nn.Module) -> dict[str, Tensor]:
    """Return the low-rank changes in a transformer by PEFT's names."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - torch, for encoding only

    weights: dict[str, Tensor] = get_peft_model_state_dict(body)
    return weights


def set_lora_weights(body: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set the low-rank changes that `inject_lora` put there."""
    from peft import set_peft_model_state_dict  # noqa: PLC0415 - torch, for encoding only

    set_peft_model_state_dict(body, dict(weights))


def _version(digests: Sequence[str], *specs: LoraSpec | HeadSpec | None) -> str:
    return hashlib.sha256("\0".join([*digests, *map(repr, specs)]).encode()).hexdigest()[:16]


def _window(moments: Sequence[float] | None) -> tuple[float, float] | None:
    return None if moments is None else (moments[0], moments[1])


def _told(modalities: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} ({length} values)" for name, length in modalities.items()) or "nothing"


def _listed(value: Any) -> Any:
    """Return what JSON has no word for as it has one: sets as sorted lists, the rest as text."""
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
