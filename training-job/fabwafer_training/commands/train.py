"""`fabwafer train`: from labelled wafer maps to a model's folder."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabwafer_training.commands.source import HELP

if TYPE_CHECKING:
    from fabwafer_training.train import Epoch

app = typer.Typer()


@app.command()
def train(
    data: Annotated[str, typer.Argument(help=HELP)],
    out: Annotated[Path, typer.Option(help="The model's folder. A run that was killed goes on from here.")],
    *,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="Go on from this model's weights, layer by layer.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Learn from this model's probabilities as well as from the labels (distillation); may be repeated.",
        ),
    ] = None,
    good: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="The class of wafers without a defect, where none is called none."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs to train; by default 17, or 12 with --from.")
    ] = None,
    maps_per_epoch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maps drawn in an epoch; by default 24000; with --from twice the maps, at least 1000."
        ),
    ] = None,
    widths: Annotated[str, typer.Option(help="Channels of the network's stages; not with --from.")] = "32,64,128,256",
    blocks: Annotated[int, typer.Option(min=1, help="Residual blocks in a stage.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random draws but the split.")] = 0,
    held_out: Annotated[
        int,
        typer.Option(
            metavar="SEED", min=0, help="Seed of the split that holds out a fifth of the maps, as in fabwafer evaluate."
        ),
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads; by default all, shared by the processes of torchrun.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The model's version; by default the time.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="A JSON file with the card's description, limits, notice and citations.")
    ] = None,
) -> None:
    """Train a model on labelled wafer maps, calibrate, quantise and measure it, and write it with its card."""
    from rich.console import Console

    from fabwafer.defects import NONE
    from fabwafer.models.card import ModelRefusedError, read_card
    from fabwafer.models.store import StoreError, checked_version
    from fabwafer_training import processes
    from fabwafer_training.dataset import DataError
    from fabwafer_training.job import prepare, train_model, weights_to_go_on_from
    from fabwafer_training.network import Shape, widths_of
    from fabwafer_training.readers import read
    from fabwafer_training.seen_maps import SeenMaps, read_seen_maps
    from fabwafer_training.train import Settings

    console = Console(stderr=True, soft_wrap=True, quiet=not processes.is_first())

    def show(done: "Epoch") -> None:
        left = (done.of - done.number) * done.seconds / 60
        console.print(
            f"epoch {done.number} of {done.of}: loss {done.loss:.4f}, {done.seconds:.0f} s, about {left:.0f} min left"
        )

    about: dict[str, Any] = {"name": "wafer", "version": version or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")}
    try:
        checked_version(about["version"])
        if card is not None:
            about |= _about(card)
        weights, shape = None, Shape(widths_of(widths), blocks)
        seen_before: SeenMaps | None = frozenset()
        material = prepare(read(data), held_out, console.print)
        if start is not None:
            weights, shape = weights_to_go_on_from(start, material.classes)
            before = read_card(start)
            seen_before = read_seen_maps(start, before)
            # The terms of the data it was trained on hold for what is made of it.
            own = {"limits": before.limits, "notice": before.notice, "citations": before.citations}
            about = {"description": f"Trained on from {before.name} {before.version}."} | own | about
            good = good or (before.good if before.good in material.classes else None)
        about["good"] = _good_class(good, material.classes)
        if about["good"] is None and NONE not in material.classes:
            console.print(
                f"no class is called none: each of {', '.join(material.classes)} counts as a defect and raises alerts; "
                "if one is that of wafers without a defect, name it with --good",
                style="yellow",
                markup=False,
            )
        settings = Settings(
            shape=shape,
            epochs=epochs or (17 if start is None else 12),
            maps_per_epoch=maps_per_epoch
            or (24_000 if start is None else min(24_000, max(1_000, 2 * len(material.data)))),
            seed=seed,
            threads=threads or processes.threads(),
            gradual=start is not None,
        )
        result = train_model(
            material,
            out,
            settings,
            about,
            tell=console.print,
            report=show,
            start=weights,
            teachers=teacher or (),
            seen_before=seen_before,
        )
    except (DataError, ModelRefusedError, OSError, StoreError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if result is None:
        return
    figures = result.metrics
    console.print(
        f"wrote {result.name} {result.version} to {out}: on held-out maps, int8, "
        f"macro-F1 {figures['macro_f1']:.3f}, worst recall {figures['worst_class_recall']:.3f}, "
        f"accuracy {figures['accuracy']:.3f}"
    )


def _good_class(named: str | None, classes: list[str]) -> str | None:
    """Return the class that the card is to name as that of wafers without a defect.

    Raises:
        DataError: It is no class, or another class is called none.
    """
    from fabwafer.defects import NONE, canonical_name
    from fabwafer_training.dataset import DataError

    if named is None:
        return None
    name = canonical_name(named)
    if NONE in classes:
        if name == NONE:
            return None
        raise DataError(f"--good: {NONE} is the class of wafers without a defect already, got {named!r}")
    if name not in classes:
        raise DataError(f"--good: expected one of the classes {', '.join(classes)}, got {named!r}")
    return name


def _about(file: Path) -> dict[str, Any]:
    """Read what a card is to say beside its figures.

    Raises:
        DataError: It is no JSON object, or says something else.
    """
    import json

    from fabwafer_training.dataset import DataError

    kinds = {"name": str, "description": str, "limits": list, "notice": str, "citations": list}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: expected a JSON object: {error}") from None
    if not isinstance(said, dict):
        raise DataError(f"{file}: expected a JSON object, found {type(said).__name__}")
    for key, value in said.items():
        if not isinstance(value, kinds.get(key, ())):
            raise DataError(
                f"{file}: expected {', '.join(kinds)}, texts and lists of texts, found {key} with {value!r}"
            )
    return said
