"""`fabwafer retrain`: a new version from the champion and the reviews."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fabwafer.records import Records
    from fabwafer_training.retrain import Outcome
    from fabwafer_training.train import Epoch

app = typer.Typer()

EPOCHS = 8
MAPS_PER_EPOCH = 8_000
_REFUSED = 3
"""The exit code when the gate refuses; 2 is wrong usage."""
_UNUSABLE = 4
"""The exit code when maps or champion cannot be used: unlike 1 (something is away), trying again will not help."""


@app.command()
def retrain(
    *,
    store: Annotated[
        str | None,
        typer.Option(
            help="The model store, a folder or s3://BUCKET/PREFIX; "
            "else $FABWAFER_MODEL_STORE, else model-store in the data directory."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            envvar="FABWAFER_WORK",
            help="Where versions are made for a store by URL; else among the temporary files. "
            "A store in a folder has its own place for it.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The system's data directory, for its records and its model store.")
    ] = None,
    base: Annotated[
        str, typer.Option(envvar="FABWAFER_BASE", help="The maps that are replayed: any form that train reads.")
    ] = "synthetic:9000",
    reviews: Annotated[
        str,
        typer.Option(envvar="FABWAFER_REVIEWS", help="The reviewed maps, in any form that train reads."),
    ] = "records",
    champion: Annotated[
        Path | None,
        typer.Option(
            envvar="FABWAFER_CHAMPION",
            help="The champion's folder; else the champion in the records, else the shipped model.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often to draw maps and train on them.")] = EPOCHS,
    maps_per_epoch: Annotated[int, typer.Option(min=1, help="Maps drawn in a round.")] = MAPS_PER_EPOCH,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything that is left to chance.")] = 0,
    gold_maps: Annotated[int, typer.Option(help="Gate: gold maps a class needs before it decides.")] = 30,
    macro_f1_fall: Annotated[float, typer.Option(help="Gate: allowed lower bound of the macro-F1 difference.")] = 0.005,
    recall_fall: Annotated[float, typer.Option(help="Gate: allowed fall of any class's recall.")] = 0.03,
    recall_floor: Annotated[float, typer.Option(help="Gate: no class's recall may fall below this.")] = 0.85,
    missed_as_none: Annotated[float, typer.Option(help="Gate: the largest share of defects called none.")] = 0.02,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on what became of it.")] = False,
) -> None:
    """Go on from the champion with reviewed maps; what passes the gate becomes a new version in the store.

    It is put on trial, too, where there are records. While gold maps are too few for the gate, a person promotes it.

    Ends with 3 when the gate refuses, after naming each class and figure; with 4 when the maps or the champion cannot
    be used; with 1 when the records or the store cannot be reached.
    """
    import json
    import tempfile
    from dataclasses import asdict

    from rich.console import Console

    from fabwafer.commands.system import SystemNotFoundError, store_address
    from fabwafer.models.card import ModelRefusedError
    from fabwafer.models.shipped import default_model
    from fabwafer.models.store import StoreError, open_store
    from fabwafer.records import RecordsUnavailableError, SchemaError
    from fabwafer_training import processes
    from fabwafer_training.dataset import DataError, UnreachableError
    from fabwafer_training.gate import Limits
    from fabwafer_training.readers import read
    from fabwafer_training.retrain import champion_of, put_on_trial
    from fabwafer_training.retrain import retrain as run

    console = Console(stderr=True, soft_wrap=True, quiet=not processes.is_first())

    def show(done: "Epoch") -> None:
        console.print(f"epoch {done.number} of {done.of}: loss {done.loss:.4f}, {done.seconds:.0f} s")

    put = False
    try:
        opened = open_store(store_address(store, data), work)
        url = _records_url(store, data)
        with _opened(url) as records, tempfile.TemporaryDirectory(prefix="fabwafer-champion-") as folder:
            if champion is None:
                champion = champion_of(records, opened, Path(folder), console.print) if records else default_model()
            reviewed = read(f"records:{url}" if url and reviews == "records" else reviews)
            if len(reviewed) == 0 and not reviewed.unread:
                console.print("No wafer was reviewed: there is nothing to retrain on.")
                return
            outcome = run(
                read(base),
                reviewed,
                champion,
                opened,
                epochs=epochs,
                maps_per_epoch=maps_per_epoch,
                limits=Limits(gold_maps, macro_f1_fall, recall_fall, recall_floor, missed_as_none),
                seed=seed,
                tell=console.print,
                report=show,
            )
            if outcome is None:
                return
            if records and outcome.published and outcome.verdict.passed:
                put = put_on_trial(records, outcome.version)
    except (UnreachableError, RecordsUnavailableError, StoreError, SystemNotFoundError, OSError) as error:
        console.print(str(error))
        raise typer.Exit(1) from None
    except (DataError, ModelRefusedError, SchemaError) as error:
        console.print(str(error))
        raise typer.Exit(_UNUSABLE) from None
    if as_json:
        print(json.dumps(asdict(outcome), default=str))
    for sentence in _told(outcome, put=put, records=url is not None):
        console.print(sentence)
    if not outcome.published:
        raise typer.Exit(_REFUSED)


def _told(outcome: "Outcome", *, put: bool, records: bool) -> list[str]:
    """What people are told at the end: why the gate did not pass it, where it is, and what is to be done."""
    from fabwafer_training.retrain import TRIAL_SHARE

    version, place = outcome.version, outcome.place
    if not outcome.published:
        return [*outcome.verdict.reasons, f"the gate refuses {version}; its report is in {place}/report"]
    if put:
        then = f"it is the candidate in the records, with {TRIAL_SHARE:.0%} of the images"
    elif not outcome.verdict.passed:
        then = f"a person decides on it; to promote it: fabwafer model promote {version}"
    elif records:
        then = "it was candidate or champion in the records before, and they are left as they are"
    else:
        then = f"no records here; to put it on trial: fabwafer model candidate {version}"
    return [*outcome.verdict.reasons, f"{version} is in {place}", then]


def _records_url(store: str | None, data: Path | None) -> str | None:
    """Where the records are whose champion is retrained, if there are any.

    A store that is named without a system is for trying things out: the records of the system that happens to be in
    the default data directory have nothing to do with it.
    """
    import os

    from fabwafer.commands.system import STORE_VARIABLE, SystemNotFoundError, address

    named_store = store or os.environ.get(STORE_VARIABLE)
    if data is None and named_store and not os.environ.get("FABWAFER_DATABASE_URL"):
        return None
    try:
        return address("database_url", data)
    except SystemNotFoundError:
        if data is not None:
            raise
        return None


@contextmanager
def _opened(url: str | None) -> "Iterator[Records | None]":
    """Opens the records, if there are any, and checks that they fit."""
    from fabwafer.records import Records

    if url is None:
        yield None
        return
    with Records(url) as records:
        records.check()
        yield records
