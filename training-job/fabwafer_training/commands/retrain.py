"""`fabwafer retrain`: a new version from the champion and the reviews."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fabwafer_training.train import Round

app = typer.Typer()

_REFUSED = 3
"""The exit code when the gate refuses: not 1 (something is wrong with what came in) nor 2 (wrong usage)."""


@app.command()
def retrain(
    store: Annotated[Path, typer.Option(envvar="FABWAFER_MODEL_STORE", help="The model store's folder.")],
    *,
    base: Annotated[
        str, typer.Option(envvar="FABWAFER_BASE", help="The maps that are replayed: any form that train reads.")
    ] = "synthetic:9000",
    reviews: Annotated[
        str,
        typer.Option(envvar="FABWAFER_REVIEWS", help="The reviewed maps, in any form that train reads."),
    ] = "records",
    champion: Annotated[
        Path | None,
        typer.Option(envvar="FABWAFER_CHAMPION", help="The champion's folder; else the shipped model."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often to draw maps and train on them.")] = 8,
    maps_per_round: Annotated[int, typer.Option(min=1, help="Maps drawn in a round.")] = 8_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that is left to chance.")] = 0,
    gold_maps: Annotated[int, typer.Option(help="Gate: gold maps a class needs before it decides.")] = 30,
    macro_f1_fall: Annotated[float, typer.Option(help="Gate: allowed lower bound of the macro-F1 difference.")] = 0.005,
    recall_fall: Annotated[float, typer.Option(help="Gate: allowed fall of any class's recall.")] = 0.03,
    recall_floor: Annotated[float, typer.Option(help="Gate: the lowest recall of any class.")] = 0.85,
    missed_as_none: Annotated[float, typer.Option(help="Gate: the largest share of defects called none.")] = 0.02,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on what became of it.")] = False,
) -> None:
    """Go on from the champion with reviewed maps; what passes the gate becomes a new version in the store.

    Ends with 3 when the gate refuses, after naming each class and figure.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from fabwafer.modelcard import ModelRefusedError, default_model
    from fabwafer_training.dataset import DataError
    from fabwafer_training.gate import Limits
    from fabwafer_training.readers import read
    from fabwafer_training.retrain import retrain as run
    from fabwafer_training.store import StoreError

    console = Console(stderr=True, soft_wrap=True)

    def show(done: "Round") -> None:
        console.print(f"round {done.number} of {done.of}: loss {done.loss:.4f}, {done.seconds:.0f} s")

    try:
        outcome = run(
            read(base),
            read(reviews),
            champion or default_model(),
            store,
            rounds=rounds,
            maps_per_round=maps_per_round,
            limits=Limits(gold_maps, macro_f1_fall, recall_fall, recall_floor, missed_as_none),
            seed=seed,
            tell=console.print,
            report=show,
        )
    except (DataError, ModelRefusedError, StoreError, OSError) as error:
        console.print(str(error))
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(asdict(outcome), default=str))
    for reason in outcome.verdict.reasons:
        console.print(reason)
    if not outcome.published:
        console.print(f"the gate refuses {outcome.version}; its report is in {outcome.folder}/report")
        raise typer.Exit(_REFUSED)
    whose = "may be promoted" if outcome.verdict.passed else "waits for a person to promote it"
    console.print(f"{outcome.version} is in {outcome.folder} and {whose}")
