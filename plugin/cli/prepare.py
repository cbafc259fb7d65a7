"""Commands that prepare what serving needs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import orjson
import typer
from rich.markup import escape

from explorank.cli.console import errors, output, progress
from explorank.cli.options import (
    DEFAULT_CONFIG,
    Config,
    Interactions,
    Items,
    OptionalInteractions,
    OptionalItems,
    Users,
)

if TYPE_CHECKING:
    from explorank.pipeline.train import TrainReport
Body: TypeAlias = Literal["frozen", "lora"]
Head: TypeAlias = Literal["none", "linear", "mlp"]


def features(
    interactions: Interactions,
    items: Items,
    users: Users = None,
    until: Annotated[datetime | None, typer.Option(help="Use nothing later than this (UTC).")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Build point-in-time feature rows, apply the Feast repository and load its online store."""
    from explorank.cli.tables import tell_of_checks
    from explorank.pipeline.features import prepare_features
    from explorank.pipeline.quarantine import usable_tables
    from explorank.pipeline.tables import read_table
    from explorank.settings import load_settings

    settings = load_settings(config)
    tables = usable_tables(
        settings,
        interactions=read_table(interactions),
        items=read_table(items),
        users=None if users is None else read_table(users),
    )
    tell_of_checks(tables)
    assert tables.interactions is not None  # noqa: S101 - both were given
    assert tables.items is not None  # noqa: S101
    with errors.status("building features, applying and materialising"):
        report = prepare_features(
            settings,
            tables.interactions,
            tables.items,
            tables.users,
            until=None if until is None else until.replace(tzinfo=UTC),
        )
    output.print(
        f"{report.interactions:,} interactions of {report.users:,} users with {report.items:,} items, "
        f"{report.first_event:%Y-%m-%d} to {report.last_event:%Y-%m-%d}, as rows: "
        + ", ".join(f"{view} {rows:,}" for view, rows in report.rows.items())
    )
    for place, count in report.bad_numbers.items():
        output.print(
            f"[yellow]note[/yellow] {escape(place)}: {count} values are no numbers and became missing"
        )
    for place, reason in report.left_out.items():
        output.print(f"[yellow]note[/yellow] {escape(place)}: {escape(reason)}")


def check_data(
    interactions: Interactions,
    items: OptionalItems = None,
    users: Users = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,  # noqa: FBT002 - a flag
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Look tables over by the rules of `data` in the settings; `features` and `train` put aside what breaks them."""
    import time

    from explorank.cli.tables import print_report
    from explorank.pipeline.data_checks import check_tables
    from explorank.pipeline.tables import read_table
    from explorank.settings import Settings, load_settings

    settings = load_settings(config) if config.exists() else Settings(version=1)
    checked = check_tables(
        settings.data,
        interactions=read_table(interactions),
        items=None if items is None else read_table(items),
        users=None if users is None else read_table(users),
        now=time.time(),
        positive_from=None if settings.features is None else settings.features.positive_from,
    )
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(checked.report.to_dict(), option=orjson.OPT_INDENT_2) + b"\n")
        return
    print_report(checked.report, output)


def build(
    items: Annotated[
        Path | None,
        typer.Option(help="Table with item_id and text; the feature repository's items by default."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="The share of the true nearest items to be found; the settings' by default."),
    ] = None,
    tune_seconds: Annotated[
        float | None, typer.Option(help="How long to try out what that takes; the settings' by default.")
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="Table with user_id, item_id, timestamp, value that retrieval.by_use and "
            "retrieval.learned_embeddings learn from; the settings' by default."
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Embed the items' texts, index them and publish the catalogue; a running server takes it up."""
    from explorank.cli.tables import print_tuning, tell_of_checks
    from explorank.pipeline.build import build_catalogue
    from explorank.pipeline.liked_events import usable_interactions
    from explorank.pipeline.tables import past_interactions
    from explorank.settings import load_settings

    settings = load_settings(config)
    events = None
    tables = usable_interactions(settings, interactions)
    if tables is not None and tables.interactions is not None:
        tell_of_checks(tables)
        events = past_interactions(tables.interactions)
    with progress("embedding") as report:
        version, catalogue = build_catalogue(
            settings,
            items=items,
            interactions=events,
            recall=recall,
            tune_s=tune_seconds,
            progress=report,
            begins=report.begin,
        )
    if catalogue.index.tuning is not None:
        print_tuning(catalogue.index.tuning, output)
    output.print(
        f"catalogue {version}: {len(catalogue):,} items, index {catalogue.index.kind}, {catalogue.encoder_name}"
    )
    if catalogue.by_use is not None:
        output.print(f"{catalogue.by_use.known:,} items have others of the same users")
    if catalogue.embeddings is not None:
        space = catalogue.embeddings
        output.print(
            f"{space.known:,} items have a place in the space of {space.model.name}, searched by {space.search_kind}"
        )
        if space.model.user_features:
            output.print(f"it reads {', '.join(space.model.user_features)} of users")


def adapt(
    interactions: Interactions,
    items: Annotated[
        Path | None,
        typer.Option(help="Table with item_id and text; the feature repository's items by default."),
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Learn from nothing later than this (UTC).")] = None,
    body: Annotated[
        Body,
        typer.Option(
            help="frozen trains a head over the encoder's vectors, in seconds; lora its layers too, in minutes."
        ),
    ] = "frozen",
    head: Annotated[
        Head | None,
        typer.Option(
            help="The map over the encoder's vectors; mlp with frozen, none with lora. With retrieval.fusion: gated it "
            "is the gate."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="How long to train; 1,000 steps of a head, 100 of the layers.")
    ] = None,
    pretrain: Annotated[
        int,
        typer.Option(min=0, help="Steps of guessing masked words of the items' texts before that."),
    ] = 0,
    teacher: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps of training a cross-encoder before that, whose scores are learnt from too; 500 are usual, and "
            "take a quarter of an hour on a core.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling and of the training.")] = 0,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Adapt the text encoder to what users liked and publish the adapter; `build` then uses it.

    With `retrieval.fusion: gated` it learns how much each modality tells beside the text.
    """
    import pandas as pd

    from explorank.errors import DataError
    from explorank.pipeline.encoders import AdaptOptions, adapt_encoder, items_to_adapt_to
    from explorank.pipeline.tables import past_interactions, read_table
    from explorank.retrieval.encoding import FineTuning, Pretraining, TextRanking
    from explorank.settings import load_settings

    settings = load_settings(config)
    gated = settings.retrieval.fusion == "gated"
    if gated and head is not None:
        raise DataError(
            f"`--head {head}` reads texts alone, and with `retrieval.fusion: gated` the head is the gate. Leave "
            "`--head` out, or set `fusion: weighted`."
        )
    events = past_interactions(read_table(interactions))
    if until is not None:
        events = events[events["timestamp"] <= pd.Timestamp(until, tz="UTC")]
    texts, modalities = items_to_adapt_to(
        settings, items, until=None if until is None else until.replace(tzinfo=UTC)
    )
    options = AdaptOptions(
        fine_tuning=FineTuning(
            body=body,
            head=head or ("none" if body == "lora" else "mlp"),
            steps=steps or (100 if body == "lora" else 1_000),
            batch_size=64 if body == "lora" else 256,
            decay=settings.retrieval.decay,
        ),
        pretraining=Pretraining(steps=pretrain) if pretrain else None,
        teacher=TextRanking(steps=teacher) if teacher else None,
        positive_from=1.0 if settings.features is None else settings.features.positive_from,
        # Each item of a history is read in each step where the layers train.
        history=2 if body == "lora" else 10,
        seed=seed,
    )
    with progress("embedding") as report:
        version, adapter = adapt_encoder(
            settings,
            events,
            texts,
            modalities=modalities,
            options=options,
            progress=report,
            begins=report.begin,
        )
    before, after = adapter.metrics["valid_recall_before"], adapter.metrics["valid_recall"]
    nearest = f"{adapter.metrics['valid_recall_at']:.0f} nearest items"
    output.print(
        f"encoder {version}: {adapter.metrics['pairs']:,.0f} pairs in {adapter.metrics['seconds']:,.0f} s; of the "
        f"latest likes, {before:.1%} were among the {nearest} before and {after:.1%} are now"
    )
    if gated:
        output.print(f"its gate joins texts with {', '.join(adapter.modalities)}", markup=False)
    if adapter.metrics["best_step"] == 0:
        untouched = "texts nearly alone, as the gate begins" if gated else "the encoder as it is"
        output.print(f"[yellow]note[/yellow] nothing that was tried is better than {untouched}")
    elif settings.retrieval.adapter == "published":
        output.print("next: `explorank build`, and `explorank train`, because similarities have changed")
    else:
        output.print("next: set `retrieval.adapter: published`, then `explorank build` and `explorank train`")


_FROM_LOG = "Learn from the slates that were displayed, each row knowing its slot, instead of interactions."


class Promote(StrEnum):
    """When the new ranker becomes current."""

    UNLESS_WORSE = "unless-worse"
    IF_BETTER = "if-better"
    ALWAYS = "always"
    NEVER = "never"


class TrackWith(StrEnum):
    """Where metrics go."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"
    NONE = "none"


def train(
    interactions: OptionalInteractions = None,
    from_log: Annotated[bool, typer.Option("--from-log", help=_FROM_LOG)] = False,  # noqa: FBT002 - a flag
    ranker: Annotated[
        str | None,
        typer.Option(help="Which ranker, by its name in the settings; the configured one by default."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="NAME=VALUE, over the settings' options of it, the value as in the file: '[64, 32]' is a list. May "
            "be repeated.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Begin as this ranker and adapt it: a published version, or a folder with one of the same kind, such "
            "as another surface's.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Learn from requests after this alone (UTC), such as the moment that `adapt --until` was given."
        ),
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Learn from nothing later than this (UTC).")] = None,
    retrieved_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The share of the items to tell the liked ones from that is drawn from what the retrievers would have "
            "found; the rest is drawn evenly from the catalogue.",
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling and of the training.")] = 0,
    promote: Annotated[
        Promote,
        typer.Option(
            help="When it serves: unless it is surely worse than the one that serves now, only if it is surely better, "
            "always, or not before `models promote`. The first one always does, but for never."
        ),
    ] = Promote.UNLESS_WORSE,
    no_promote: Annotated[bool, typer.Option("--no-promote", help="The same as --promote never.")] = False,  # noqa: FBT002 - a flag
    tracker: Annotated[
        list[TrackWith] | None,
        typer.Option(
            help="Where each round's metrics go; tensorboard where it is installed. May be repeated."
        ),
    ] = None,
    log_dir: Annotated[
        Path | None,
        typer.Option(help="Where trackers write files; runs/ in the settings' folder by default."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Train a ranker on point-in-time features and publish it; a running server takes it up."""
    import pandas as pd

    from explorank.cli.tables import tell_of_checks
    from explorank.errors import DataError
    from explorank.pipeline.quarantine import usable_tables
    from explorank.pipeline.queries import QueryOptions
    from explorank.pipeline.tables import past_interactions, read_table
    from explorank.pipeline.tracking import default_trackers, tracker_names
    from explorank.pipeline.train import train_ranker
    from explorank.pipeline.train_options import TrainOptions
    from explorank.settings import load_settings, ranker_component

    settings = load_settings(config)
    component = ranker_component(settings, ranker, option or ())
    if from_log and interactions is not None:
        raise DataError(
            "`--interactions` and `--from-log` are two sources of rows, and a ranker is trained from one. Name either."
        )
    events: pd.DataFrame | None = None
    if interactions is not None:
        tables = usable_tables(settings, interactions=read_table(interactions))
        tell_of_checks(tables)
        assert tables.interactions is not None  # noqa: S101 - they were given
        events = past_interactions(tables.interactions)
        if until is not None:
            events = events[events["timestamp"] <= pd.Timestamp(until, tz="UTC")]
    positive_from = 1.0 if settings.features is None else settings.features.positive_from
    trackers = default_trackers() if tracker is None else tracker_names(tracker)
    options = TrainOptions(
        rows="log" if from_log else "interactions",
        since=None if since is None else since.replace(tzinfo=UTC).timestamp(),
        until=None if until is None else until.replace(tzinfo=UTC).timestamp(),
        queries=QueryOptions(positive_from=positive_from),
        retrieved_share=retrieved_share,
        seed=seed,
        start=start,
        promote="never" if no_promote else promote.value,
        trackers=trackers,
        log_folder=log_dir,
    )
    with progress("training") as report:
        _, trained = train_ranker(
            settings, events, component=component, options=options, progress=report, begins=report.begin
        )
    _tell_of(trained, "what was displayed" if from_log else "sampled candidates")


def _tell_of(trained: TrainReport, judged: str) -> None:
    if trained.resumed:
        output.print("went on from where a run that was cut off had been saved")
    if trained.start is not None:
        output.print(f"began as the ranker {trained.start}")
    output.print(
        f"ranker {trained.version}: {trained.ranker}, {trained.queries:,} queries ({trained.rows:,} rows, "
        f"{len(trained.features)} features), NDCG@10 {trained.ndcg_at_10} on the "
        f"{trained.validation_queries:,} latest, over {judged}",
        markup=False,
    )
    teaching = trained.teaching
    if teaching is not None:
        output.print(
            f"taught by {teaching.teacher}, in {teaching.cross_fit} parts: NDCG@10 {teaching.ndcg_at_10} on training "
            "queries of users that it had not seen",
            markup=False,
        )
    comparison = trained.comparison
    if comparison is not None:
        output.print(
            f"{comparison.former} serves until now: NDCG@10 {comparison.former_ndcg_at_10} there"
            + (f"; {comparison.note}" if comparison.note else ""),
            markup=False,
        )
    what = "serves now" if trained.verdict.promoted else "does not serve"
    output.print(f"it {what}: {trained.verdict.reason}", markup=False)
    if trained.log_folder is not None:
        output.print(f"metrics of each round: {trained.log_folder}", markup=False)
    if trained.calibration is not None:
        output.print(
            f"calibration {trained.calibration}: the former ranker's, carried over by rank; run `explorank calibrate` "
            "once rewards of this one have come"
        )
