"""`fabwafer retrain`: a new version from the champion and the reviews."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data, Json, StoreAddress
from fabwafer_training.limits import Limits

if TYPE_CHECKING:
    from fabwafer.records import Records
    from fabwafer_training.retrain import Outcome
    from fabwafer_training.train import Epoch

GATE = Limits()

app = Commands()

EPOCHS: Final = 8
MAPS_PER_EPOCH: Final = 8_000
AUTHOR: Final = "fabwafer retrain"
"""Who starts a trial, in the history of the rollout."""
REFUSED: Final = 3
"""Exit code when the gate refuses; 2 is wrong usage."""
UNUSABLE: Final = 4
"""Exit code when maps or champion cannot be used. A retry cannot help, unlike after 1: records or store unavailable."""


@app.command()
def retrain(
    *,
    store: StoreAddress = None,
    work: Annotated[
        Path | None,
        typer.Option(
            envvar="FABWAFER_WORK",
            help="The folder in which versions are made for a store by URL; else one in the temporary directory. "
            "A store in a folder has its own.",
        ),
    ] = None,
    data: Data = None,
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
            help="The champion's folder; else the champion that the records name, and without records the model "
            "that came with this release.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often to draw maps and train on them.")] = EPOCHS,
    maps_per_epoch: Annotated[int, typer.Option(min=1, help="Maps drawn in an epoch.")] = MAPS_PER_EPOCH,
    seed: Annotated[int, typer.Option(min=0, help="Of all random numbers.")] = 0,
    gold_maps: Annotated[
        int, typer.Option(help="Gate: gold maps a class needs before it decides.")
    ] = GATE.maps_per_class,
    macro_f1_fall: Annotated[
        float, typer.Option(help="Gate: allowed lower bound of the macro-F1 difference.")
    ] = GATE.macro_f1_fall,
    recall_fall: Annotated[float, typer.Option(help="Gate: allowed fall of any class's recall.")] = GATE.recall_fall,
    recall_floor: Annotated[
        float, typer.Option(help="Gate: no class's recall may fall below this.")
    ] = GATE.recall_floor,
    missed_as_none: Annotated[
        float, typer.Option(help="Gate: the largest share of defects called none.")
    ] = GATE.missed_as_none,
    macro_f1_floor: Annotated[
        float, typer.Option(help="Gate: the smallest macro-F1 on all gold maps, however few.")
    ] = GATE.macro_f1_floor,
    as_json: Json = False,
) -> None:
    """Train the champion further on reviewed maps; a version that passes the gate is published into the store.

    Where there are records it is also put on trial. While the gold maps are too few for the gate, a person promotes it.

    Ends with 3 when the gate refuses, after naming each class and figure; with 4 when the maps or the champion cannot
    be used; with 1 when the records or the store cannot be used now.
    """
    import json
    import tempfile
    from dataclasses import asdict

    from fabwafer.commands.system import store_address
    from fabwafer.commands.text import console
    from fabwafer.errors import FabwaferError
    from fabwafer.models import rollout
    from fabwafer.models.card import ModelRefusedError
    from fabwafer.models.shipped import default_model
    from fabwafer.models.store import DamagedError, open_store
    from fabwafer.records import SchemaError
    from fabwafer_training import processes
    from fabwafer_training.dataset import DataError, UnreachableError
    from fabwafer_training.readers import read
    from fabwafer_training.retrain import retrain as run

    terminal = console(stderr=True, soft_wrap=True, markup=False, quiet=not processes.is_first())

    def show(done: "Epoch") -> None:
        terminal.print(f"epoch {done.number} of {done.of}: loss {done.loss:.4f}, {done.seconds:.0f} s")

    on_trial = False
    try:
        opened = open_store(store_address(store, data), work)
        url = _records_url(store, data)
        with _opened(url) as records, tempfile.TemporaryDirectory(prefix="fabwafer-champion-") as folder:
            if records:
                rollout.current(records)  # raises now, not after hours of training
            if champion is None:
                champion = rollout.champion_folder(records, opened, Path(folder)) if records else default_model()
            reviewed = read(f"records:{url}" if url and reviews == "records" else reviews)
            if len(reviewed) == 0 and not reviewed.unread:
                terminal.print("No wafer was reviewed: there is nothing to retrain on.")
                return
            outcome = run(
                read(base),
                reviewed,
                champion,
                opened,
                epochs=epochs,
                maps_per_epoch=maps_per_epoch,
                limits=Limits(gold_maps, macro_f1_fall, recall_fall, recall_floor, missed_as_none, macro_f1_floor),
                seed=seed,
                tell=terminal.print,
                report=show,
            )
            if outcome is None:
                return
            if records and outcome.published and outcome.verdict.passed:
                on_trial = rollout.start_first_trial(records, outcome.version, author=AUTHOR)
    except (FabwaferError, OSError) as error:
        terminal.print(str(error))
        lasting = isinstance(error, (DamagedError, DataError, ModelRefusedError, SchemaError))
        raise typer.Exit(UNUSABLE if lasting and not isinstance(error, UnreachableError) else 1) from None
    if as_json:
        print(json.dumps(asdict(outcome), default=str))
    for sentence in _summary(outcome, on_trial=on_trial, records=url is not None):
        terminal.print(sentence)
    if not outcome.published:
        raise typer.Exit(REFUSED)


def _summary(outcome: "Outcome", *, on_trial: bool, records: bool) -> list[str]:
    """Return sentences for people: the gate's reasons, where the version is, and what happens with it next."""
    from fabwafer.models.rollout import TRIAL_SHARE

    version, location = outcome.version, outcome.location
    reviews = f"reviewed maps: {outcome.learned} learned, {outcome.held_out} held out to calibrate and compare with"
    if not outcome.published:
        return [reviews, *outcome.verdict.reasons, f"the gate refuses {version}; its report is in {location}/report"]
    if on_trial:
        then = f"it is the candidate in the records, with {TRIAL_SHARE:.0%} of the images"
    elif not outcome.verdict.passed:
        then = f"a person decides on it; to promote it: fabwafer model promote {version}"
    elif records:
        then = "it was candidate or champion in the records before, and they are left as they are"
    else:
        then = f"no records here; to put it on trial: fabwafer model candidate {version}"
    return [reviews, *outcome.verdict.reasons, f"{version} is in {location}", then]


def _records_url(store: str | None, data: Path | None) -> str | None:
    """Return the URL of the records that name the champion, or None where there are none.

    A store that is named without a system does not belong to the system in the default data directory, so the records
    there are not used.
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
    """Open the records, if there are any, and check that their tables fit."""
    from fabwafer.records import Records

    if url is None:
        yield None
        return
    with Records(url) as records:
        records.check()
        yield records
