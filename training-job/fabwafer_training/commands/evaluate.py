"""`fabwafer evaluate`: how good a model is on labelled wafer maps."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fabwafer_training.commands.source import HELP

app = typer.Typer()


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
    from fabwafer_training.splits import clean, held_out_from_training

    try:
        classifier = Classifier(model or default_model(), "float32" if float32 else "int8")
        maps = read(data)
        if held_out is not None:
            maps, _ = clean(maps)
            maps = maps.subset(np.flatnonzero(held_out_from_training(maps, held_out)))
        evaluation = measure_model(classifier, maps, alert_precision)
        if out is not None:
            write_report(evaluation, out)
    except (DataError, ModelRefusedError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(evaluation.figures))
        return
    _print_tables(evaluation.figures)
    if out is not None:
        typer.echo(
            f"{len(evaluation.contradicted)} labels are contradicted: {out / 'contradicted.csv'} names the maps, the "
            "surest first."
        )


def _print_tables(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    title = f"{result['model']['name']} {result['model']['version']} on {result['data']['name']}"
    figures = Table(title=escape(title))
    figures.add_column("figure")
    figures.add_column("these maps", justify="right")
    figures.add_column(f"natural share of {escape(result['model']['good'] or 'good wafers')}", justify="right")
    natural = result["at_natural_share"] or {}
    for key, value in result.items():
        if isinstance(value, float):
            figures.add_row(key, f"{value:.4f}", f"{natural[key]:.4f}" if key in natural else "")
    console.print(figures)
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
    console.print(classes)
    review, alert = result["review"], result["alert"]
    console.print(
        f"{review['share']:.1%} of the maps would go to review; of the others {review['error_rate_of_others']:.2%} "
        f"are wrong."
    )
    threshold = "no threshold reaches it" if alert["threshold"] is None else f"threshold {alert['threshold']:.3f}"
    console.print(f"For {alert['precision']:.0%} of alerts to be right: {threshold}.")
