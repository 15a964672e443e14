"""`fabwafer evaluate`: how good a model is on labelled wafer maps."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer_training.commands.source import HELP

if TYPE_CHECKING:
    from fabwafer_training.dataset import Dataset

app = Commands()

OVERLOOKED: Final = 0.02
"""The share of maps that may have been trained on without a warning."""


@app.command()
def evaluate(
    data: Annotated[str, typer.Argument(help=HELP)],
    *,
    model: Annotated[Path | None, typer.Option(help="The model's folder; by default the one that is shipped.")] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Measure the float32 file, not the int8 one.")] = False,
    held_out: Annotated[
        int | None,
        typer.Option(metavar="SEED", min=0, help="Only the maps that training with this seed holds out."),
    ] = None,
    known_classes: Annotated[
        bool, typer.Option("--known-classes", help="Leave out maps of classes that the model does not know.")
    ] = False,
    alert_precision: Annotated[
        float, typer.Option(min=0, max=1, help="Find the alert threshold for this share of right alerts.")
    ] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write evaluation.json, pictures and the maps whose labels are contradicted."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure a model on labelled wafer maps."""
    import json

    import numpy as np

    from fabwafer.models.card import ModelRefusedError
    from fabwafer.models.classifier import Classifier
    from fabwafer.models.shipped import default_model
    from fabwafer_training.dataset import DataError
    from fabwafer_training.readers import read
    from fabwafer_training.report import evaluate as measure_model
    from fabwafer_training.report import write_report
    from fabwafer_training.seen_maps import read_seen_maps
    from fabwafer_training.splits import clean, held_out_from_training

    try:
        folder = model or default_model()
        classifier = Classifier(folder, "float32" if float32 else "int8")
        seen = read_seen_maps(folder, classifier.card)
        maps = read(data)
        for sentence in maps.unread:
            typer.echo(sentence, err=True)
        if held_out is not None:
            maps, _ = clean(maps)
            maps = maps.subset(np.flatnonzero(held_out_from_training(maps, held_out)))
        left_out: dict[str, int] = {}
        if known_classes:
            maps, left_out = _of_known_classes(maps, classifier.card.classes)
        evaluation = measure_model(classifier, maps, alert_precision, seen)
        evaluation.figures["left_out"] = left_out
        if out is not None:
            write_report(evaluation, out)
    except (DataError, ModelRefusedError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if warning := _warning(evaluation.figures["trained_on"]):
        typer.echo(warning, err=True)
    if as_json:
        print(json.dumps(evaluation.figures))
        return
    _print_tables(evaluation.figures)
    if out is not None:
        typer.echo(
            f"{len(evaluation.contradicted)} labels are contradicted: {out / 'contradicted.csv'} names the maps, the "
            "surest first."
        )


def _of_known_classes(maps: "Dataset", classes: list[str]) -> "tuple[Dataset, dict[str, int]]":
    """Return the maps of a model's classes, and how many there are of each other one, which are told of."""
    from fabwafer_training.known_classes import of_known_classes

    known = {name.casefold() for name in classes}
    found = of_known_classes(replace(maps, unread=()), classes, "the model")
    for sentence in found.unread:
        typer.echo(sentence, err=True)
    return found, {label: count for label, count in maps.counts().items() if label.casefold() not in known}


def _warning(trained_on: dict[str, Any] | None) -> str:
    """Return a sentence where more maps were trained on than can be overlooked, or where that is not known."""
    if trained_on is None:
        return "which maps the model was trained on is not known: its card names no list of them"
    if trained_on["share"] <= OVERLOOKED:
        return ""
    others = trained_on["figures_of_the_others"]
    without = f"without them macro-F1 is {others['macro_f1']:.4f}" if others else "there are no others"
    return (
        f"the model was trained on {trained_on['maps']} of these maps ({trained_on['share']:.1%}), so the figures "
        f"are too good: {without}"
    )


def _print_tables(result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from fabwafer.commands.text import console

    terminal = console()
    title = f"{result['model']['name']} {result['model']['version']} on {result['data']['name']}"
    figures = Table(title=escape(title))
    figures.add_column("figure")
    figures.add_column("these maps", justify="right")
    figures.add_column(f"natural share of {escape(result['model']['good'] or 'good wafers')}", justify="right")
    natural = result["at_natural_share"] or {}
    trained_on = result["trained_on"] or {"maps": 0}
    others = (trained_on["figures_of_the_others"] or {}) if trained_on["maps"] else {}
    if others:
        figures.add_column("not trained on", justify="right")
    for key, value in result.items():
        if isinstance(value, float):
            more = [natural, others] if others else [natural]
            figures.add_row(key, f"{value:.4f}", *(f"{part[key]:.4f}" if key in part else "" for part in more))
    terminal.print(figures)
    classes = Table(title=f"classes of {result['maps']} maps")
    for heading in ("class", "precision", "recall", "f1", "maps", "mostly taken for"):
        classes.add_column(heading, justify="left" if heading in ("class", "mostly taken for") else "right")
    names = list(result["per_class"])
    for row, (name, figure) in enumerate(result["per_class"].items()):
        others = sorted(
            ((count, names[column]) for column, count in enumerate(result["confusion"][row]) if column != row),
            reverse=True,
        )
        taken = f"{others[0][1]} ({others[0][0]})" if others and others[0][0] else ""
        classes.add_row(
            escape(name),
            *(f"{figure[key]:.3f}" for key in ("precision", "recall", "f1")),
            str(figure["support"]),
            escape(taken),
        )
    terminal.print(classes)
    review, alert = result["review"], result["alert"]
    terminal.print(
        f"{review['share']:.1%} of the maps would go to review; of the others {review['error_rate_of_others']:.2%} "
        f"are wrong."
    )
    threshold = "no threshold reaches it" if alert["threshold"] is None else f"threshold {alert['threshold']:.3f}"
    terminal.print(f"For {alert['precision']:.0%} of alerts to be right: {threshold}.")
