"""A gradient-boosted ranker: trained deterministically, saved as text, exact about the features it takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, get_args

import lightgbm
import numpy as np
from lightgbm.basic import LightGBMError
from numpy.typing import NDArray

from explorank.rankers._checkpoint import run_identity
from explorank.rankers._lightgbm_rounds import can_go_on, checkpoint_of, train
from explorank.rankers._lightgbm_text import trees_in
from explorank.rankers._training import (
    Objective,
    check_enough,
    check_labels,
    check_names,
    monotone_constraints,
)
from explorank.rankers.data import RankingData
from explorank.rankers.errors import CorruptRanker, InvalidTraining
from explorank.rankers.explanation import Explanation, Link
from explorank.rankers.forest import Forest
from explorank.rankers.manifest import (
    MANIFEST_FILE,
    WAY_OUT,
    RankerManifest,
    column_scales,
    feature_hash,
    read_intact,
)
from explorank.rankers.position_bias import PositionBias, check_examination, corrected
from explorank.rankers.ranker import Progress
from explorank.rankers.scoring import Scoring, exact_forest

_log: Final = logging.getLogger(__name__)

_CHEAPER: Final = 5
_MODEL_FILE: Final = "model.txt"
_METRICS: Final[Mapping[str, Mapping[str, Any]]] = {
    "lambdarank": {"metric": "ndcg", "eval_at": [10]},
    "binary": {"metric": ["binary_logloss", "auc"], "first_metric_only": True},
    "regression": {"metric": "l2"},
    "poisson": {"metric": "poisson"},
    "tweedie": {"metric": "tweedie"},
}
_RAW_TO_SCORE: Final[Mapping[str, Link]] = {
    "binary": "logistic",
    "poisson": "exponential",
    "tweedie": "exponential",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LightGBMOptions:
    """How trees are grown.

    The defaults are small and shrunken trees: counts drift with time, and deep ones learn their thresholds.
    """

    # Read by pydantic where settings are checked; this package itself does not need pydantic.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    objective: Objective = "lambdarank"
    """`lambdarank` orders the rows of a request by grades 0, 1, 2, …; `binary` takes 0 and 1, and its scores are
    probabilities; `regression` foresees an amount, such as a revenue, by squared error, and `poisson` and `tweedie` one
    that is never below 0, the latter where most are exactly 0."""
    rounds: int = 400
    """Trees at most."""
    learning_rate: float = 0.03
    """How much of each tree counts."""
    num_leaves: int = 15
    """Leaves of a tree at most."""
    min_data_in_leaf: int | None = None
    """Rows in each leaf at least; `null` takes 100, or 2 % of the rows where that is less, 10 at least."""
    feature_fraction: float = 0.5
    """The share of the features that each tree is offered, drawn anew for each."""
    lambda_l2: float = 10.0
    """Shrinks the leaves towards 0, by this many rows' worth of curvature."""
    early_stopping_rounds: int = 30
    """Training stops after so many rounds without a better metric on the later slice."""
    num_threads: int = 0
    """While training; 0 takes all cores."""
    monotone: Mapping[str, int] = field(default_factory=dict)
    """Features by name whose growth may only raise (1) or only lower (-1) the score: `{price: -1}`."""
    position_bias: PositionBias = "none"
    """How training allows for slots that are looked at more often: `weights` by inverse propensities from
    `examination`; `lightgbm` by the bias of each slot that LightGBM estimates beside its trees (`lambdarank` only).
    Both read the positions of the training data."""
    examination: tuple[float, ...] = ()
    """The probability that each slot is looked at, from the first on, above 0 and at most 1; for `weights`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Any others of LightGBM's own, such as `max_bin`; they win over the above. What makes training deterministic is
    set apart from them."""

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise InvalidTraining(
                f"`objective` is {self.objective!r}, none of {', '.join(get_args(Objective))}. Name one of them."
            )
        for name, least in (("rounds", 1), ("early_stopping_rounds", 1), ("num_leaves", 2)):
            if getattr(self, name) < least:
                raise InvalidTraining(
                    f"`{name}` is {getattr(self, name)}; nothing could be learnt with less than {least}. Raise it."
                )
        if not self.learning_rate > 0:
            raise InvalidTraining(
                f"`learning_rate` is {self.learning_rate}; trees would count nothing, or the wrong way. Use a number "
                "above 0, such as 0.03."
            )
        for name, sign in self.monotone.items():
            if sign not in (-1, 1):
                raise InvalidTraining(
                    f"monotone={{{name}: {sign!r}}} is neither 1, scores rise with the feature, nor -1, they fall. "
                    "Leave out features that may do both."
                )
        if self.position_bias not in get_args(PositionBias):
            raise InvalidTraining(
                f"position_bias={self.position_bias!r} is none of {', '.join(get_args(PositionBias))}. Name one of "
                "them."
            )
        if self.position_bias == "lightgbm" and self.objective != "lambdarank":
            raise InvalidTraining(
                f"position_bias='lightgbm' works within 'lambdarank', and objective is {self.objective!r}. Use "
                "`position_bias: weights` with an `examination`."
            )
        if self.position_bias == "weights":
            check_examination(self.examination)
            if not self.examination:
                raise InvalidTraining(
                    "position_bias='weights' needs to know how likely each slot is looked at. Set `examination`, which "
                    "`explorank examination` estimates from the log, and `examination_from_random_slots` from arrays."
                )

    def of_lightgbm(self, rows: int) -> dict[str, Any]:
        """Return LightGBM's own parameters for that many training rows."""
        leaf = self.min_data_in_leaf
        return {
            **_METRICS[self.objective],
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": min(100, max(10, rows // 50)) if leaf is None else leaf,
            "feature_fraction": self.feature_fraction,
            "lambda_l2": self.lambda_l2,
            **self.params,
        }


class LightGBMRanker:
    """Scores a LightGBM model on the calling thread; immutable, and safe for use from many threads.

    Scores come from a compiled forest (see `Forest`), and are LightGBM's own to the last bit. Where they would
    not be, LightGBM scores; `scoring` says which, and why.
    """

    Options: ClassVar = LightGBMOptions

    def __init__(self, model_text: str, manifest: RankerManifest) -> None:
        """Take a model in LightGBM's text format; use `fit`, `from_booster` or `load`."""
        self._text = model_text
        self._manifest = manifest
        self._booster = lightgbm.Booster(model_str=model_text)
        self._forest, self._scoring = exact_forest(model_text, self._booster)
        self._rounds = self._booster.current_iteration()
        self._fewer_rounds = -(-self._rounds // _CHEAPER)
        self._fewer_trees = None
        if self._forest is not None and self._fewer_rounds < self._rounds:
            self._fewer_trees = Forest.of(self._booster.model_to_string(num_iteration=self._fewer_rounds))
        if self._forest is None:
            _log.warning(
                "Ranker %r version %s is scored by LightGBM itself, several times slower than compiled: %s",
                manifest.name, manifest.version, self._scoring.reason,
            )  # fmt: skip

    @property
    def scoring(self) -> Scoring:
        """Whether the compiled forest scores, or LightGBM, and why."""
        return self._scoring

    @property
    def manifest(self) -> RankerManifest:
        """What the ranker says of itself."""
        return self._manifest

    @classmethod
    def fit(
        cls,
        data: RankingData,
        *,
        valid: RankingData | None = None,
        options: LightGBMOptions | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint: Path | None = None,
    ) -> LightGBMRanker:
        """Train on `data`; stop when the metric on `valid`, a later slice, no longer improves.

        That metric is NDCG@10, log loss, or the loss of the amounts; the best round is kept. Where clicks are weighed,
        they are weighed in both slices. The same data, seed and options give the same trees, whatever `num_threads` is.
        With `checkpoint`, a run that was cut off goes on and ends in the same model; with options under which it could
        not (see `can_go_on`), it starts anew, which ends so too.

        Raises `InvalidTraining` for data or options from which no useful ranker can come, and `CorruptRanker` for a
        checkpoint that is damaged, or of an unfinished run over other data, options or seed.
        """
        options = options or LightGBMOptions()
        params = options.of_lightgbm(len(data))
        position_bias = options.position_bias == "lightgbm"
        resumable = can_go_on(params, position_bias=position_bias)
        check_names(data.feature_names)
        check_labels(data, options.objective)
        check_enough(data, int(params["min_data_in_leaf"]))
        params |= {
            "objective": options.objective,
            "seed": seed,
            "num_threads": options.num_threads,
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
        }
        if options.monotone:
            params["monotone_constraints"] = monotone_constraints(data, options.monotone)
        watched = None
        training = _dataset(_seen(data, options), positions=position_bias)
        if valid is not None:
            data.check_same_features(valid)
            check_labels(valid, options.objective)
            watched = _dataset(_seen(valid, options), training)
        saves = None
        if checkpoint is not None and resumable:
            run = run_identity(data, valid, options, seed, lightgbm.__version__)
            saves = checkpoint_of(checkpoint, run)
        try:
            text, best = train(
                params, training, options.rounds,
                valid=watched, patience=options.early_stopping_rounds, progress=progress, checkpoint=saves,
            )  # fmt: skip
        except LightGBMError as error:
            said = str(error).partition(" at /")[0].strip()
            raise InvalidTraining(
                f"LightGBM does not train with these options: {said}. Correct the option that it names, or the one "
                "among `params`."
            ) from error
        mean, std = column_scales(data.features)
        metrics = {"rows": float(len(data)), "trees": float(trees_in(text)), **best.metrics}
        ranker = cls(
            text,
            RankerManifest.of(
                text.encode(),
                name="lightgbm",
                objective=options.objective,
                feature_names=data.feature_names,
                categorical=data.categorical,
                feature_mean=mean,
                feature_std=std,
                training_window=data.window,
                metrics=metrics,
            ),
        )
        ranker._check_splits()
        return ranker

    @classmethod
    def from_booster(
        cls,
        booster: lightgbm.Booster,
        name: str = "lightgbm",
        *,
        features: NDArray[np.float32] | None = None,
    ) -> LightGBMRanker:
        """Return a ranker of a booster trained elsewhere; its feature names are the manifest's.

        Where the booster stopped early, its best round is kept. `features` (n, d) are what it was trained on: their
        means and deviations scale what exploration sees, which else scales within each request.

        Raises `InvalidTraining` for a booster that gives several scores per row.
        """
        if booster.num_model_per_iteration() > 1:
            raise InvalidTraining(
                f"The booster gives {booster.num_model_per_iteration()} scores per row, and items are ranked "
                "by one. Train it with a ranking, binary or regression objective."
            )
        text = booster.model_to_string(num_iteration=booster.best_iteration)
        mean, std = (None, None) if features is None else column_scales(features)
        header = dict(line.split("=", 1) for line in text.partition("\n\n")[0].splitlines() if "=" in line)
        return cls(
            text,
            RankerManifest.of(
                text.encode(),
                name=name,
                objective=header.get("objective", "custom").partition(" ")[0],
                feature_names=tuple(booster.feature_name()),
                feature_mean=mean,
                feature_std=std,
            ),
        )

    def check(self, names: Sequence[str]) -> None:
        """Raise `FeatureMismatch`, listing every difference, unless `names` are this ranker's features."""
        self._manifest.check(names)

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return one score per row, (n,) float64, for features (n, d) float32; NaN is missing.

        More is better; with objective `binary` a score is a probability, with the objectives of amounts what is
        expected. Raises `FeatureMismatch` where d is
        not the number of features; `check` compares their names.
        """
        features = self._manifest.check_matrix(features)
        if self._forest is not None:
            return self._forest.predict(features)
        if not len(features):
            return np.zeros(0, np.float64)
        scores: NDArray[np.float64] = self._booster.predict(features, num_threads=1)
        return scores

    @property
    def prompt(self) -> bool:
        """True, unless a subclass scores in a way of its own."""
        return type(self).score is LightGBMRanker.score

    @property
    def cheaper_way(self) -> str:
        """The first fifth of the trees, which correct the most; empty for a booster that is not compiled."""
        if self._fewer_trees is None:
            return ""
        return f"the first {self._fewer_rounds} of {self._rounds} rounds of trees"

    def score_cheaply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what `score` would if boosting had ended after a fifth of its rounds."""
        features = self._manifest.check_matrix(features)
        return self.score(features) if self._fewer_trees is None else self._fewer_trees.predict(features)

    def explain(self, features: NDArray[np.float32]) -> Explanation:
        """Return what each feature adds to each row's raw score.

        For `binary` that is the log-odds, for `poisson` and `tweedie` the logarithm of the amount.
        Exact SHAP values (Lundberg et al. 2020, TreeSHAP, path-dependent). Takes several times as long as `score`.
        """
        features = self._manifest.check_matrix(features)
        names = self._manifest.feature_names
        parts = np.zeros((0, len(names) + 1), np.float64)
        if len(features):
            parts = np.asarray(self._booster.predict(features, num_threads=1, pred_contrib=True), np.float64)
        return Explanation(
            feature_names=names,
            attributions=parts[:, :-1],
            base=parts[:, -1],
            method="tree_shap",
            link=_RAW_TO_SCORE.get(self._manifest.objective, "identity"),
        )

    def save(self, folder: str | Path) -> None:
        """Write `model.txt` (LightGBM's text) and `manifest.json` into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MODEL_FILE).write_bytes(self._text.encode())
        (folder / MANIFEST_FILE).write_text(self._manifest.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> LightGBMRanker:
        """Return the ranker that `save` wrote; raise `CorruptRanker` naming the file that is not intact."""
        manifest = RankerManifest.read(Path(folder) / MANIFEST_FILE)
        file = Path(folder) / _MODEL_FILE
        content = read_intact(file, manifest.model_sha256, "its scores could be anything")
        ranker = cls(content.decode(), manifest)
        names = tuple(ranker._booster.feature_name())
        if names != manifest.feature_names or manifest.feature_hash != feature_hash(
            names, manifest.categorical
        ):
            raise CorruptRanker(
                f"{Path(folder) / MANIFEST_FILE} lists other features than {file}, so columns would be "
                f"mixed up. {WAY_OUT}"
            )
        return ranker

    def _check_splits(self) -> None:
        if not self._booster.feature_importance("split").any():
            raise InvalidTraining(
                f"LightGBM found no split in {int(self._manifest.metrics['rows'])} rows, so every item would "
                "score the same. Gather more rows or better features, or lower min_data_in_leaf."
            )


def _seen(data: RankingData, options: LightGBMOptions) -> RankingData:
    """Return the data as the options allow for slots."""
    if options.position_bias == "weights":
        return corrected(data, options.objective, options.examination)
    if options.position_bias == "lightgbm" and data.positions is None:
        raise InvalidTraining(
            f"`position_bias` asks in which slot each row was shown, and the {data.called} data has no positions. Pass "
            "them, or set `position_bias: none`."
        )
    return data


def _dataset(
    data: RankingData, reference: lightgbm.Dataset | None = None, *, positions: bool = False
) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        data.features,
        data.labels,
        reference=reference,
        group=data.groups,
        weight=data.weights,
        position=data.positions if positions else None,
        feature_name=list(data.feature_names),
        categorical_feature=list(data.categorical),
    )
