"""What a saved ranker says of itself: the features it needs, what it was trained on, and how well it did."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import CorruptRanker, FeatureMismatch

_FORMAT: Final = "explorank.ranker/1"
WAY_OUT: Final = "Restore an older copy of the folder, or train again."
MANIFEST_FILE: Final = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankerManifest:
    """The facts about one trained ranker."""

    name: str
    """What kind of ranker it is, as in YAML: `lightgbm`."""
    version: str
    """Names the model in logs and decisions; it follows from the model's bytes and its features."""
    objective: str
    """What it was trained for: `lambdarank`, `binary`, or the objective of a foreign booster."""
    feature_names: tuple[str, ...]
    """(d,) the columns it scores, in this order."""
    feature_hash: str
    """`feature_hash(feature_names, categorical)`, to compare two feature sets at a glance."""
    model_sha256: str
    """Of the model's file."""
    created: str
    """When it was trained, in ISO 8601, UTC."""
    categorical: tuple[str, ...] = ()
    """The columns whose numbers are codes without an order."""
    feature_mean: tuple[float, ...] | None = None
    """(d,) means of the training columns without missing values, 0 for a column without any value."""
    feature_std: tuple[float, ...] | None = None
    """(d,) their standard deviations, 1 for a column that does not vary, so that one can divide by them."""
    training_window: tuple[float, float] | None = None
    """First and last moment of the training data, in seconds since the Unix epoch."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256, in hex, of each file beside the model's, by its name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind of ranker keeps, as JSON holds it: the options it was trained with, say."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the training: rows, trees, and metrics of the later slice it stopped on."""

    @classmethod
    def of(cls, content: bytes, **facts: Any) -> RankerManifest:
        """Return the manifest of a ranker that was trained just now, whose model is `content`.

        `facts` are the fields that do not follow from the model and the names: at least `name`, `objective` and
        `feature_names`.
        """
        digest = hashlib.sha256(content).hexdigest()
        names_hash = feature_hash(facts["feature_names"], facts.get("categorical", ()))
        return cls(
            version=hashlib.sha256(f"{digest}{names_hash}".encode()).hexdigest()[:12],
            feature_hash=names_hash,
            model_sha256=digest,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        )

    @property
    def scale(self) -> dict[str, tuple[float, float]]:
        """The training mean and standard deviation of each column; empty where training left none."""
        if self.feature_mean is None or self.feature_std is None:
            return {}
        scales = zip(self.feature_mean, self.feature_std, strict=True)
        return dict(zip(self.feature_names, scales, strict=True))

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch` unless `names` are this ranker's features, in its order."""
        wanted, offered = list(self.feature_names), list(names)
        if wanted == offered:
            return
        missing = [name for name in wanted if name not in offered]
        unexpected = list((Counter(offered) - Counter(wanted)).keys())
        if missing or unexpected:
            problem = "; ".join(
                f"{what} {', '.join(columns)}"
                for what, columns in (("missing", missing), ("unexpected", unexpected))
                if columns
            )
        else:
            place = next(i for i, (a, b) in enumerate(zip(wanted, offered, strict=True)) if a != b)
            problem = (
                f"the order differs from column {place} on, which is {wanted[place]} and came as "
                f"{offered[place]}"
            )
        raise FeatureMismatch(
            f"Ranker {self.name!r} version {self.version} was trained on {len(wanted)} features, and "
            f"{len(offered)} others or differently ordered ones came: {problem}. Its scores would mean "
            "nothing. Serve the features of its manifest, or train it again on these."
        )

    def check_matrix(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features (n, d) as float32; raise `FeatureMismatch` where d is not the number of features."""
        features = np.asarray(features, np.float32)
        wanted = len(self.feature_names)
        if features.ndim != 2 or features.shape[1] != wanted:
            raise FeatureMismatch(
                f"Features of shape {features.shape} for ranker {self.name!r}, which takes "
                f"(n, {wanted}); columns would be mixed up. `check(names)` lists the differences."
            )
        return features

    def to_json(self) -> str:
        """Return the manifest as sealed JSON."""
        content = {"format": _FORMAT, **asdict(self)}
        return json.dumps({"content": content, "seal": seal(content)}, indent=1)

    def of_files(self, model: bytes, others: Mapping[str, bytes]) -> RankerManifest:
        """Return the same with the hashes of the model and of the other files, and a version that follows from them."""
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}
        of_model = hashlib.sha256(model).hexdigest()
        all_of_it = "".join([of_model, self.feature_hash, *hashes.values()]).encode()
        version = hashlib.sha256(all_of_it).hexdigest()[:12]
        return replace(self, version=version, model_sha256=of_model, files=hashes)

    @classmethod
    def read(cls, path: Path) -> RankerManifest:
        """Return the manifest in a file; raise `CorruptRanker` naming it where it is not intact."""
        try:
            envelope = json.loads(path.read_bytes())
            content = dict(envelope["content"])
            sealed = envelope["seal"] == seal(content)
            file_format = content.pop("format")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptRanker(
                f"{path} cannot be read as a ranker's manifest ({error}); without it nobody knows which "
                f"features the model takes. {WAY_OUT}"
            ) from error
        if not sealed:
            raise CorruptRanker(f"{path} was changed after it was written: its seal does not fit. {WAY_OUT}")
        if file_format != _FORMAT or not set(content) <= {one.name for one in fields(cls)}:
            raise CorruptRanker(
                f"{path} is written as {file_format!r}, and this version reads {_FORMAT!r}. {WAY_OUT}"
            )
        for name in ("feature_names", "categorical", "feature_mean", "feature_std", "training_window"):
            content[name] = None if content[name] is None else tuple(content[name])
        return cls(**content)


def feature_hash(feature_names: Sequence[str], categorical: Sequence[str] = ()) -> str:
    """Return the SHA-256, in hex, of the names, their order, and which of them are categorical."""
    canonical = json.dumps([list(feature_names), sorted(categorical)], separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_intact(file: Path, sha256: str | None, so: str) -> bytes:
    """Return a file's content; raise `CorruptRanker` where it is not the one with that hash, and `so` what follows."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CorruptRanker(f"{file} cannot be read ({error}). {WAY_OUT}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptRanker(
            f"{file} is not what its manifest describes: its SHA-256 differs, so {so}. {WAY_OUT}"
        )
    return content


def write_folder(folder: str | Path, manifest: RankerManifest, files: Mapping[str, bytes]) -> None:
    """Write a ranker's files into `folder`, the manifest last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")


def read_folder(
    folder: str | Path, kind: str, model: str, others: Sequence[str]
) -> tuple[RankerManifest, list[bytes]]:
    """Return the manifest of a ranker named `kind`, and what its files hold, the `model` first.

    Raises `CorruptRanker` naming the file that is not intact or of another kind.
    """
    folder = Path(folder)
    manifest = RankerManifest.read(folder / MANIFEST_FILE)
    if manifest.name != kind:
        raise CorruptRanker(
            f"{folder / MANIFEST_FILE} is of a {manifest.name!r} ranker, and a {kind!r} one was asked for; its files "
            "mean something else. Load it by its own name."
        )
    expected = {model: manifest.model_sha256, **manifest.files}
    return manifest, [
        read_intact(folder / name, expected.get(name), "its scores could be anything")
        for name in (model, *others)
    ]


def column_scales(features: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return `feature_mean` and `feature_std` of training columns (n, d), NaN for missing."""
    known = ~np.isnan(features)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.sum(features, axis=0, dtype=np.float64, where=known) / count
    variance = np.sum(np.square(features - mean), axis=0, where=known) / count
    std = np.sqrt(variance)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def seal(content: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of what is stored as JSON, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
