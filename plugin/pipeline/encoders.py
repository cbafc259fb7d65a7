"""The encoder as the settings want it, and its adaptation to what users liked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from explorank.artefacts import ArtefactStore
from explorank.assembly import ENCODER
from explorank.errors import DataError
from explorank.pipeline.checkpoints import checkpoint_folder
from explorank.pipeline.item_tables import item_table
from explorank.pipeline.libraries import library_versions
from explorank.pipeline.modalities import Modality, modalities_of
from explorank.rankers import run_identity
from explorank.retrieval import Encoder
from explorank.retrieval.encoding import Adapter, Behaviour, FineTuning, Pretraining, TextRanking
from explorank.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptOptions:
    """How the encoder is adapted."""

    fine_tuning: FineTuning = field(default_factory=FineTuning)
    pretraining: Pretraining | None = None
    """Read the items' texts for themselves first; `None` skips that."""
    teacher: TextRanking | None = None
    """Train a cross-encoder first, and learn from its scores too; `None` skips that."""
    lessons: int = 2_000
    """Of how many pairs of history and liked item the teacher is asked, each with seven other items."""
    positive_from: float = 1.0
    """An interaction of at least this value is liked."""
    history: int = 10
    """At most so many of the latest liked items stand for what a user was interested in."""
    validation_share: float = 0.1
    """The latest share of the likes, by time: on them the best moment of the training is chosen."""
    seed: int = 0


def items_to_adapt_to(
    settings: Settings, items: Path | None = None, *, until: datetime | None = None
) -> tuple[dict[str, str], tuple[Modality, ...]]:
    """Return the text of each item, by id, and the modalities that a gate is to learn, in that order.

    They are read as `build_catalogue` reads them; without a gate, modalities are none of the adapter's business. Raises
    what `modalities_of` does.
    """
    table = item_table(settings, items, until)
    ids = table["item_id"].to_numpy(np.str_)
    newest = {item: row for row, item in enumerate(ids.tolist())}
    texts = dict(zip(ids.tolist(), table["text"], strict=True))
    if settings.retrieval.fusion != "gated":
        return texts, ()
    rows = np.fromiter(newest.values(), np.int64, len(newest))
    modalities = modalities_of(settings, ids, items, until=until)
    return texts, tuple(replace(modality, places=modality.places[rows]) for modality in modalities)


def configured_encoder(settings: Settings, *, adapted: bool = True) -> Encoder:
    """Return the encoder of the settings; without its adapter and with all its dimensions unless `adapted`.

    Raises `DataError` where a published adapter is asked for and there is none, `CorruptArtefact` or
    `DamagedArtefact` where it is not intact.
    """
    retrieval = settings.retrieval
    return Encoder(
        retrieval.encoder,
        adapter=adapter_folder(settings) if adapted else None,
        truncate_dim=retrieval.truncate_dim if adapted else None,
        cache=settings.folder_path / "embeddings.db",
    )


def adapt_encoder(
    settings: Settings,
    interactions: pd.DataFrame,
    texts: dict[str, str],
    *,
    modalities: Sequence[Modality] = (),
    options: AdaptOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
    begins: Callable[[str], None] | None = None,
) -> tuple[str, Adapter]:
    """Return the published version and the adapter, trained on what users liked one after another.

    `interactions` is what `past_interactions` returns, `texts` what the encoder reads of each item. Where
    `retrieval.fusion` is `gated`, a gate is learnt in place of the head, for the `modalities` of the items in the order
    of `texts`. What was trained is kept under `adapting/` in the settings' folder until it is published, so that the
    same run goes on after it was cut off, and any other begins anew. Raises `DataError` where there is too little to
    learn from or to choose by.
    """
    from explorank.retrieval.encoding import (  # noqa: PLC0415 - torch
        TextRanker,
        fine_tune_encoder,
        pretrain_encoder,
        teach,
    )

    options = options or AdaptOptions()
    train, valid = behaviours(interactions, texts, options)
    encoder = configured_encoder(settings, adapted=False)
    others = None
    if settings.retrieval.fusion == "gated":
        others = {modality.feature: modality[:] for modality in modalities}
        options = replace(options, fine_tuning=replace(options.fine_tuning, head="gated"))
    run = run_identity(
        encoder.base_fingerprint,
        options,
        *sorted((modality.feature, modality.digest()) for modality in modalities),
        sorted(texts.items()),
        pd.util.hash_pandas_object(interactions, index=False).to_numpy().tobytes(),
        sorted(library_versions().items()),
    )
    say = begins or (lambda _: None)

    def write(folder: Path, work: Path) -> None:
        start = encoder
        if options.pretraining is not None:
            say("reading the items' texts")
            pretrained = pretrain_encoder(
                encoder,
                list(texts.values()),
                work / "pretrained",
                options=options.pretraining,
                seed=options.seed,
                progress=progress,
                checkpoint=work / "pretraining",
            )
            start = Encoder(
                encoder.model, adapter=pretrained.folder, cache=settings.folder_path / "embeddings.db"
            )
        lessons = None
        if options.teacher is not None:
            say("training the teacher")
            teacher = TextRanker.fit(
                encoder,
                train,
                options=options.teacher,
                seed=options.seed,
                progress=progress,
                checkpoint=work / "teacher",
            )
            say("asking the teacher")
            lessons = teach(teacher, train, pairs=options.lessons, seed=options.seed, progress=progress)
        say("learning what is liked together")
        fine_tune_encoder(
            start,
            train,
            folder,
            valid=valid,
            lessons=lessons,
            others=others,
            options=options.fine_tuning,
            seed=options.seed,
            progress=progress,
            checkpoint=work / "fine-tuning",
        )

    store = ArtefactStore(settings.folder_path / "artefacts")
    with checkpoint_folder(settings.folder_path / "adapting", run[:16]) as work:
        version = store.publish(ENCODER, partial(write, work=work))
    return version, Adapter.load(store.verify(ENCODER, version))


def behaviours(
    interactions: pd.DataFrame, texts: dict[str, str], options: AdaptOptions
) -> tuple[Behaviour, Behaviour]:
    """Return the pairs to learn from and those, later by time, to choose by."""
    liked = interactions[interactions["value"] >= options.positive_from]
    liked = liked.sort_values("timestamp", kind="stable")
    place = int(len(liked) * (1.0 - options.validation_share))
    if not 0 < place < len(liked):
        raise DataError(
            f"{len(liked)} interactions have a value of at least {options.positive_from:g}, too few to learn from the "
            "earlier and to choose by the later ones. Bring more, or lower `features.positive_from`."
        )
    split = liked["timestamp"].iloc[place]
    times = liked["timestamp"].astype("int64") / 1e6  # microseconds, as `past_interactions` has it
    window = (float(times.iloc[0]), float(times[liked["timestamp"] < split].max()))
    histories = liked.groupby("user_id", sort=True)
    early, late, starts = [], [], []
    for _, events in histories:
        before = int((events["timestamp"] < split).sum())
        items = events["item_id"].tolist()
        early.append(items[:before])
        late.append(items)
        starts.append(before)
    train = Behaviour.from_histories(early, texts, history=options.history, window=window)
    later = (float(times[liked["timestamp"] >= split].min()), float(times.iloc[-1]))
    return train, Behaviour.from_histories(
        late, texts, history=4 * options.history, from_event=starts, window=later
    )


def adapter_folder(settings: Settings) -> Path | None:
    """Return where the adapter of the settings lies, intact; None where they name none.

    Raises `DataError` where a published one is asked for and there is none, `DamagedArtefact` where it is not intact.
    """
    chosen = settings.retrieval.adapter
    if chosen is None:
        return None
    if chosen != "published":
        return settings.path(chosen)
    store = ArtefactStore(settings.folder_path / "artefacts")
    current = store.current(ENCODER)
    if current is None:
        raise DataError(
            "`retrieval.adapter` is `published`, and no adapter was published yet. Run `explorank adapt`, or remove "
            "the key to build with the encoder as it is."
        )
    return store.verify(ENCODER, current[0])
