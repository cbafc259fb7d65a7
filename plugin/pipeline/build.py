"""From item texts to a catalogue: embed, index, publish."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from explorank.artefacts import ArtefactStore
from explorank.assembly import CATALOGUE
from explorank.catalogues import gpu_options, neighbours
from explorank.errors import DamagedArtefact, DataError
from explorank.pipeline.by_use import table_by_use
from explorank.pipeline.embeddings import fit_embeddings, sampled_users
from explorank.pipeline.features import feature_access
from explorank.pipeline.interests import sampled_interests
from explorank.pipeline.item_encoders import item_encoder
from explorank.pipeline.item_tables import RECENT_POPULARITY, item_table
from explorank.pipeline.liked_events import events_of_learners
from explorank.pipeline.modalities import modalities_of
from explorank.pipeline.user_features import PastUserFeatures
from explorank.retrieval import Catalogue, LearnedEmbeddings, RetrievalError
from explorank.retrieval.catalogue import vectors_to_fill
from explorank.retrieval.collaborative import EmbeddingSpace, NeighbourTable
from explorank.retrieval.provenance import Provenance
from explorank.settings import Settings


def build_catalogue(
    settings: Settings,
    *,
    items: Path | None = None,
    interactions: pd.DataFrame | None = None,
    until: datetime | None = None,
    recall: float | None = None,
    tune_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    begins: Callable[[str], None] | None = None,
) -> tuple[str, Catalogue]:
    """Return the published version and the catalogue of `items`, or of the feature repository's.

    `items` is a table with `item_id`, `text` (or `title`) and optionally `popularity` and `first_seen` (Unix seconds);
    `retrieval.trending` asks it for `recent_popularity`, or a repository for statistics over as many days.
    `retrieval.by_use` and `retrieval.learned_embeddings` learn from `interactions`: what `past_interactions` returns,
    by default of the table that the settings name. `until` ignores what is known of later times. The vectors that
    `retrieval.modalities` names are columns of that table, or array features of the repository.

    Embeddings of texts are cached by content, so that only new texts are encoded (all of them, where an adapter changed
    the encoder's layers). They go straight to the file that is published: memory holds the index and the modalities'
    own vectors, and the catalogue's only as far as the system likes. `recall` and `tune_s` take the place of the
    settings'. `progress` counts the texts and then the passes of what is learnt, `begins` is told each step after the
    texts. Needs the extra `train`.

    Raises `DataError` where nothing names interactions that are asked for, for user features that nobody serves, and
    where `retrieval.fusion` asks for a gate and the adapter has none; `AdapterMismatch` for one of other modalities;
    and where interactions are too few for `by_use` or `learned_embeddings`, once the catalogue is published without it.
    """
    table = item_table(settings, items, until)
    item_ids = table["item_id"].to_numpy(np.str_)
    # First, since all may be refused, and encoding takes the longest.
    modalities = modalities_of(settings, item_ids, items, until=until)
    encoder = item_encoder(settings, modalities)
    events = events_of_learners(settings, interactions, until)
    wanted = settings.retrieval
    access = None if settings.features is None else feature_access(settings)
    people = PastUserFeatures.of(wanted.learned_embeddings, access)
    store = ArtefactStore(settings.folder_path / "artefacts")
    former = _current_catalogue(store) if modalities else None
    index = settings.retrieval.index
    reached = index.recall if recall is None else recall
    seconds = index.tune_s if tune_s is None else tune_s
    built: list[Catalogue] = []
    left_out: dict[str, str] = {}

    def users_shared() -> NeighbourTable | None:
        if wanted.by_use is None:
            return None
        try:
            return table_by_use(wanted.by_use, events["by_use"], item_ids)
        except (DataError, RetrievalError) as error:
            left_out["by_use"] = str(error)
            return None

    def learned(vectors: NDArray[np.float32]) -> EmbeddingSpace | None:
        if wanted.learned_embeddings is None:
            return None
        liked = events["learned_embeddings"]
        try:
            if people is not None and len(liked):
                liked = people.beside(liked)
            model = fit_embeddings(
                wanted.learned_embeddings,
                liked,
                item_ids,
                vectors,
                people=people,
                progress=progress,
                begins=begins,
            )
            histories, users = sampled_users(liked, item_ids, people)
            return EmbeddingSpace.build(
                model,
                recall=reached,
                neighbours=neighbours(settings, LearnedEmbeddings.name),
                tune_s=seconds,
                histories=histories,
                users=users,
                progress=begins,
            )
        except (DataError, RetrievalError) as error:
            left_out["learned_embeddings"] = str(error)
            return None

    def write(folder: Path) -> None:
        allocate = partial(vectors_to_fill, folder)
        vectors = encoder.encode(table["text"].tolist(), progress, allocate=allocate)
        table_of_use, space = users_shared(), learned(vectors)
        catalogue = Catalogue.build(
            item_ids,
            vectors,
            popularity=table["popularity"].to_numpy(),
            recent_popularity=table.get(RECENT_POPULARITY),
            first_seen=table["first_seen"].to_numpy(),
            by_use=table_of_use,
            embeddings=space,
            encoder_name=encoder.name,
            encoder_fingerprint=encoder.fingerprint(item_ids, vectors, former),
            made=Provenance(
                encoder=wanted.encoder,
                adapter="" if encoder.adapter is None else encoder.adapter.version,
                learnt_until=None if encoder.adapter is None else encoder.adapter.learnt_until,
                modalities={modality.feature: modality.weight for modality in modalities},
                user_features={}
                if space is None or people is None
                else {name: str(meaning) for name, meaning in people.meanings.items()},
                left_out=left_out,
            ),
            kind=index.kind,
            device=index.device,
            recall=reached,
            neighbours=neighbours(settings),
            tune_s=seconds,
            interests=sampled_interests(settings, item_ids, vectors, until=until),
            gpu=gpu_options(settings),
            progress=begins,
        )
        catalogue.save(folder)
        built.append(catalogue)

    version = store.publish(CATALOGUE, write)
    if left_out:
        missing = " and ".join(f"`{part}`" for part in left_out)
        raise DataError(
            f"Catalogue {version} is published without {missing}, so that nothing is found by it: "
            + " ".join(left_out.values())
        )
    return version, built[0]


def _current_catalogue(store: ArtefactStore) -> Catalogue | None:
    """Return the catalogue that serves, to compare with; None where there is none, or it is damaged."""
    try:
        current = store.current(CATALOGUE)
        return None if current is None else Catalogue.load(current[1], device="cpu")
    except (DamagedArtefact, RetrievalError):
        return None
