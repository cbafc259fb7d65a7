"""What stands beside a trained ranker: what it was trained on, with what, how well it did and for whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from explorank.errors import DamagedArtefact

_FORMAT: Final = "explorank.card/1"
CARD_FILE: Final = "card.json"
PAGE_FILE: Final = "card.md"
_ADDED: Final = {"encoder_fingerprint": "", "sampling": None, "by_use": None, "teaching": None}
"""What cards that were written earlier lack, and what they are read with."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its two-sided 95 % interval."""

    mean: float | None
    """`None` where nothing could be measured."""
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.mean is None or self.low is None or self.high is None:
            return "not measured"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSlice:
    """A part of the past requests, in order of time."""

    requests: int
    users: int
    rows: int
    positives: int
    """How many of the rows were liked."""
    first: str
    """Moment of the first request, in ISO 8601, UTC."""
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the rows were made that a ranker learnt from and was judged on."""

    rows: str
    """`interactions`: past requests made up from what users did. `log`: what was displayed, with no draw of others."""
    requests: Mapping[str, Any]
    """By which options past requests were cut, by name."""
    negatives: int = 0
    """How many items were asked for to tell each request's liked ones from."""
    retrieved_share: float = 0.0
    """The share of them that was asked from retrieval."""
    retrievers: tuple[str, ...] = ()
    """The retrievers that were asked for them."""
    drawn_from_retrieval: int = 0
    """Rows that are such items, in both slices."""
    drawn_evenly: int = 0
    """Rows that are items drawn evenly from the catalogue."""

    def told(self) -> list[Sequence[str]]:
        """Return lines of what and how much."""
        drawn = (
            []
            if self.rows == "log"
            else [
                ("negatives wanted per request", f"{self.negatives:,}"),
                ("negatives drawn evenly", f"{self.drawn_evenly:,}"),
                ("share wanted from retrieval", f"{self.retrieved_share:g}"),
                ("negatives from retrieval", f"{self.drawn_from_retrieval:,}"),
                ("retrievers asked", ", ".join(f"`{name}`" for name in self.retrievers) or "none"),
            ]
        )
        return [
            ("rows from", self.rows),
            *drawn,
            *((name, f"`{value}`") for name, value in self.requests.items()),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """Who else a ranker learnt from, beside what came of its rows."""

    teacher: str
    """The name in YAML."""
    options: Mapping[str, Any]
    """What it was trained with, defaults included."""
    cross_fit: int
    """In how many parts it was trained, each row scored by one that was not trained on its user."""
    rows: int
    """Of how many training rows it spoke."""
    pseudo_labels: int
    """How many of them have no label, so that its word is all that was learnt of them."""
    ndcg_at_10: Estimate
    """Of the teacher, on the training requests, each by one that was not trained on its user."""

    def told(self) -> list[Sequence[str]]:
        """Return lines of what and how much."""
        return [
            ("teacher", f"`{self.teacher}`"),
            ("trained in parts", f"{self.cross_fit}"),
            ("rows it spoke of", f"{self.rows:,}"),
            ("of them without a label", f"{self.pseudo_labels:,}"),
            ("its NDCG@10 on users it had not seen", str(self.ndcg_at_10)),
            *((name, f"`{value}`") for name, value in self.options.items()),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """How well the ranker did for some of the users of the later slice, or for some of the items."""

    by: str
    """What divides the users: a column of theirs, or `activity`. What divides the liked items: `item popularity`."""
    value: str
    requests: int
    users: int
    ndcg_at_10: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Rows of about equal scores: what was said and what came."""

    lowest_score: float
    highest_score: float
    rows: int
    expected: float
    observed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbabilityCheck:
    """How true scores are that mean probabilities, on the rows of the later slice."""

    error: float
    """Expected calibration error: the mean distance of said and observed shares over the bins."""
    squared_error: float
    """The mean square of label less score (Brier)."""
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The new ranker beside the one that was current, on the same later slice."""

    former: str
    """The artefact's version of the one that was current."""
    former_ndcg_at_10: Estimate
    difference: Estimate
    """New less former NDCG@10, paired by request; users are resampled."""
    note: str = ""
    """What to know about it, such as that the former one had been trained on a part of the slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """All of it; written as JSON for programs and as Markdown for people."""

    ranker: str
    """The name in YAML: what it is loaded with."""
    version: str
    """Of the ranker, as decisions name it."""
    objective: str
    created: str
    """In ISO 8601, UTC."""
    model_sha256: str
    feature_hash: str
    features: tuple[str, ...]
    encoder_fingerprint: str = ""
    """Of the encoder whose vectors the similarities were made of; empty where it was not written down."""
    by_use: Mapping[str, Any] | None = None
    """How the tables of what has the same users were fitted, by option; `None` where `similarity_by_use` is no column,
    or it was not written down."""
    sampling: Sampling | None = None
    """`None` where it was not written down."""
    teaching: Teaching | None = None
    """`None` where it learnt from what came of its rows alone."""
    options: Mapping[str, Any]
    """What it was trained with, defaults included."""
    seed: int
    training: DataSlice
    validation: DataSlice
    """The later slice, on which training stopped and all numbers below were measured."""
    metrics: Mapping[str, Estimate]
    comparison: Comparison | None = None
    """`None` for the first one, and where the former could not be read."""
    probabilities: ProbabilityCheck | None = None
    """`None` where scores are no probabilities."""
    segments: tuple[Segment, ...] = ()
    libraries: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write `card.json` and `card.md` into `folder`."""
        content = {"format": _FORMAT, **asdict(self)}
        (folder / CARD_FILE).write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8"
        )
        (folder / PAGE_FILE).write_text(self.to_markdown(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ModelCard | None:
        """Return the card in `folder`; None where there is none.

        Raises `DamagedArtefact` for one that cannot be read.
        """
        file = folder / CARD_FILE
        try:
            content = json.loads(file.read_bytes())
            if content.pop("format") != _FORMAT:
                raise ValueError("another format")  # noqa: TRY301 - told with what cannot be read below
            return cls._of(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtefact(
                f"{file} cannot be read as a model card ({error}), so it is unknown what the ranker beside it is. "
                "Go back with `explorank models rollback`, or train again."
            ) from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> ModelCard:
        content = {**_ADDED, **content}
        values = {field.name: content[field.name] for field in fields(cls)}
        comparison, probabilities = values["comparison"], values["probabilities"]
        sampling, teaching = values["sampling"], values["teaching"]
        values |= {
            "features": tuple(values["features"]),
            "notes": tuple(values["notes"]),
            "training": DataSlice(**values["training"]),
            "validation": DataSlice(**values["validation"]),
            "metrics": {name: Estimate(**one) for name, one in values["metrics"].items()},
            "segments": tuple(
                Segment(**{**one, "ndcg_at_10": Estimate(**one["ndcg_at_10"])}) for one in values["segments"]
            ),
        }
        if sampling is not None:
            values["sampling"] = Sampling(**{**sampling, "retrievers": tuple(sampling["retrievers"])})
        if teaching is not None:
            values["teaching"] = Teaching(**{**teaching, "ndcg_at_10": Estimate(**teaching["ndcg_at_10"])})
        if comparison is not None:
            estimates = {name: Estimate(**comparison[name]) for name in ("former_ndcg_at_10", "difference")}
            values["comparison"] = Comparison(**{**comparison, **estimates})
        if probabilities is not None:
            bins = tuple(ReliabilityBin(**one) for one in probabilities["bins"])
            values["probabilities"] = ProbabilityCheck(**{**probabilities, "bins": bins})
        return cls(**values)

    def to_markdown(self) -> str:
        """Return the card as a page."""
        return "\n".join(
            [
                f"# Ranker `{self.ranker}`, version {self.version}",
                "",
                f"Trained {self.created} for `{self.objective}`, seed {self.seed}. SHA-256 of the model: "
                f"`{self.model_sha256}`.",
                "",
                *_section(
                    "Data", ("", "requests", "users", "rows", "liked", "from, UTC", "to"), self._data()
                ),
                *_section("How rows were made", ("", ""), self.sampling.told() if self.sampling else []),
                *_section("Taught by", ("", ""), self.teaching.told() if self.teaching else []),
                *_section(
                    "Similar by use",
                    ("option", "value"),
                    [(name, f"`{value}`") for name, value in (self.by_use or {}).items()],
                ),
                *_section(
                    "Metrics on the later slice",
                    ("metric", "mean [95 % interval]"),
                    [(name, str(one)) for name, one in self.metrics.items()],
                ),
                *self._comparison(),
                *self._probabilities(),
                *_section(
                    "For whom",
                    ("by", "", "requests", "users", "NDCG@10 [95 % interval]"),
                    [
                        (one.by, one.value, f"{one.requests:,}", f"{one.users:,}", str(one.ndcg_at_10))
                        for one in self.segments
                    ],
                ),
                *_section(
                    "Options",
                    ("option", "value"),
                    [(name, f"`{value}`") for name, value in self.options.items()],
                ),
                f"## {len(self.features)} features",
                "",
                ", ".join(f"`{name}`" for name in self.features),
                "",
                *_section("Libraries", ("library", "version"), list(self.libraries.items())),
                *(["## To know", "", *(f"- {note}" for note in self.notes), ""] if self.notes else []),
            ]
        )

    def _data(self) -> list[Sequence[str]]:
        return [
            (
                name,
                *(f"{number:,}" for number in (one.requests, one.users, one.rows, one.positives)),
                _to_the_minute(one.first),
                _to_the_minute(one.last),
            )
            for name, one in (("training", self.training), ("later", self.validation))
        ]

    def _comparison(self) -> list[str]:
        one = self.comparison
        if one is None:
            return []
        return [
            "## Beside the one that was current",
            "",
            f"`{one.former}`: NDCG@10 {one.former_ndcg_at_10}; new less former {one.difference}. {one.note}".rstrip(),
            "",
        ]

    def _probabilities(self) -> list[str]:
        one = self.probabilities
        if one is None:
            return [
                "## Calibration",
                "",
                "The scores order items and are no probabilities, so they cannot come true or not. A ranker within "
                "`calibrated`, and `objective: binary`, give some; `explorank calibrate` says what scores stand for in "
                "rewards.",
                "",
            ]
        rows = [
            (
                f"{b.lowest_score:.4g}",
                f"{b.highest_score:.4g}",
                f"{b.rows:,}",
                f"{b.expected:.4f}",
                f"{b.observed:.4f}",
            )
            for b in one.bins
        ]
        title = f"Calibration: error {one.error:.4f}, Brier {one.squared_error:.4f}"
        return _section(title, ("scores from", "to", "rows", "said", "observed"), rows)


def moment(seconds: float) -> str:
    """Return a moment, in seconds since the Unix epoch, in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _to_the_minute(told: str) -> str:
    """Return what `moment` returns, short enough for a table on a terminal of 80 columns."""
    return told[: len("2026-11-26T18:45")].replace("T", " ")


def _section(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"## {title}", "", *("| " + " | ".join(_cells(line)) + " |" for line in lines), ""]


def _cells(line: Sequence[str]) -> list[str]:
    return [str(cell).replace("|", "\\|") for cell in line]
