"""`fabwafer model`: the versions in the model store, and which of them is to serve."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Data, Json, StoreAddress
from fabwafer.commands.text import console

if TYPE_CHECKING:
    from rich.table import Table

    from fabwafer.models.card import ModelCard
    from fabwafer.models.rollout import Change, TrialOutcome
    from fabwafer.models.store import Store
    from fabwafer.records import Rollout

app = Commands(
    no_args_is_help=True,
    help="The versions in the model store, and which of them is to serve. "
    "A running local system follows within seconds, a cluster as soon as a new pod is ready.",
)

Author = Annotated[str | None, typer.Option(help="Who decides it; by default the name of the user.")]

_NOTE: Final = (
    "A running local system follows within seconds, a cluster as soon as a new pod is ready. "
    "A version that cannot serve is put back, and `fabwafer model history` says why."
)

_OTHER_MAPS: Final = (
    "Figures of different maps cannot be compared: to measure versions on the same ones, "
    "fabwafer evaluate SOURCE --model DIR."
)


@app.command("list")
def list_versions(*, store: StoreAddress = None, data: Data = None, as_json: Json = False) -> None:
    """List the versions, the oldest first: their metrics, what they were made from, champion and candidate."""
    from fabwafer.commands.connections import open_records
    from fabwafer.commands.system import SystemNotFoundError
    from fabwafer.models.rollout import RolloutError, current, refusals

    opened = _store(store, data)
    cards, damaged = opened.versions()
    rollout, refused = None, {}
    try:
        with open_records(data) as records:
            rollout = current(records)
            refused = refusals(records.rollouts())
    except (SystemNotFoundError, RolloutError) as error:
        print(f"who is to serve is not known: {error}", file=sys.stderr)
    if as_json:
        for card in cards:
            print(json.dumps(_as_json(card, rollout, refused), separators=(",", ":")))
    else:
        _print(_versions_table(cards, rollout, refused))
        if len({_measured_on(card) for card in cards} - {""}) > 1:
            print(_OTHER_MAPS, file=sys.stderr)
        print(_NOTE, file=sys.stderr)
    versions = {card.version for card in cards}
    for role, version in (("champion", rollout and rollout.champion), ("candidate", rollout and rollout.candidate)):
        if version and version not in versions:
            print(f"the {role} {version} is not among the versions in {opened}", file=sys.stderr)
    for version in sorted(versions & refused.keys()):
        print(f"{version} was refused: {refused[version]}", file=sys.stderr)
    for sentence in damaged:
        print(sentence, file=sys.stderr)


@app.command("set-up")
def set_up_models(*, store: StoreAddress = None, data: Data = None) -> None:
    """Publish this release's model into the store, and name it champion where none is named. `fabwafer up` does it."""
    from fabwafer.commands.connections import open_records
    from fabwafer.models.rollout import current
    from fabwafer.models.setup import set_up

    with open_records(data) as records:
        for sentence in set_up(records, _store(store, data)):
            print(sentence)
        print(f"The champion is {current(records).champion}.")


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder, as fabwafer train writes it.")],
    *,
    store: StoreAddress = None,
    data: Data = None,
) -> None:
    """Publish a model's folder into the store, under the version that its card names. It serves when it is promoted."""
    from fabwafer.models.setup import add_model

    opened = _store(store, data)
    card, new = add_model(opened, folder)
    if not new:
        print(f"{card.version} was in the store already.")
        return
    print(f"{card.version} is in {opened}.")
    print(
        f"To try it: fabwafer model candidate {card.version}. To let it serve: fabwafer model promote {card.version}."
    )


@app.command()
def history(*, data: Data = None) -> None:
    """Show champions and candidates, since when, who decided it, and what could not serve: the newest first."""
    from datetime import datetime

    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    from fabwafer.commands.connections import open_records

    with open_records(data) as records:
        rollouts = records.rollouts()
    table = Table("when", "who", "champion", "candidate", "share", "refused", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in (*table.columns[1:4], table.columns[5]):
        column.overflow = "fold"
    reasons = []
    for rollout in rollouts:
        when = datetime.fromtimestamp(rollout.time / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        share = f"{rollout.share:.0%}" if rollout.candidate else ""
        who = escape(rollout.author)
        table.add_row(when, who, rollout.champion, rollout.candidate or "", share, rollout.refused or "")
        if rollout.refused:
            reasons.append(f"{when} {rollout.refused} was refused: {rollout.reason}")
    _print(table)
    for sentence in reasons:  # too long for a column
        print(sentence)


@app.command()
def candidate(
    version: Annotated[str | None, typer.Argument(help="The version to try.")] = None,
    *,
    share: Annotated[
        float | None,
        typer.Option(help="Share of the images that goes to it as well; default 0.1."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="End the trial instead.")] = False,
    author: Author = None,
    store: StoreAddress = None,
    data: Data = None,
) -> None:
    """Put a version on trial beside the champion: it gets a share of the images, and its answers are only recorded.

    `fabwafer model trial` compares them with the champion's answers on the same images.
    """
    from fabwafer.commands.connections import open_records
    from fabwafer.models.rollout import TRIAL_SHARE, RolloutError, end_trial, start_trial

    if (version is None) != none:
        raise RolloutError("expected the version to try, or --none to end the trial")
    with open_records(data) as records:
        if version is None:
            change = end_trial(records, author=author or _user())
        else:
            wanted = TRIAL_SHARE if share is None else share
            change = start_trial(records, _store(store, data), version, share=wanted, author=author or _user())
    if change.changed:
        _report(change)
    else:
        print(f"{version} is on trial already" if version else "no version is on trial")


@app.command()
def trial(
    version: Annotated[str | None, typer.Argument(help="A version that was on trial; else the candidate.")] = None,
    *,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compare a candidate with the champion, on the images that both answered and on those with a review."""
    from dataclasses import asdict

    from fabwafer.commands.connections import open_records
    from fabwafer.models.rollout import trial_outcome

    with open_records(data) as records:
        outcome = trial_outcome(records, version)
    if as_json:
        print(json.dumps(asdict(outcome), separators=(",", ":")))
    else:
        _print_outcome(outcome)


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="The version that is to serve; else the candidate.")] = None,
    *,
    author: Author = None,
    store: StoreAddress = None,
    data: Data = None,
) -> None:
    """Make a version the champion. A candidate's trial ends when it is promoted; another's goes on."""
    from fabwafer.commands.connections import open_records
    from fabwafer.models.rollout import promote as promote_version

    with open_records(data) as records:
        change = promote_version(records, _store(store, data), version, author=author or _user())
    if change.changed:
        _report(change)
    else:
        print(f"{change.after.champion} is the champion already")


@app.command()
def rollback(*, author: Author = None, store: StoreAddress = None, data: Data = None) -> None:
    """Return to the champion before the present one, and end the candidate's trial.

    Run again, it goes one further back, down to the first champion; it never returns to a version that was rolled back,
    or left by promoting an earlier one. Such a version is promoted by its name: `fabwafer model promote VERSION`. A
    version that is no longer in the store, or is damaged, is passed over, and named.
    """
    from fabwafer.commands.connections import open_records
    from fabwafer.models.rollout import roll_back

    with open_records(data) as records:
        change = roll_back(records, _store(store, data), author=author or _user())
    for sentence in change.passed_over:
        print(sentence, file=sys.stderr)
    _report(change)
    if change.before:
        print(f"To return: fabwafer model promote {change.before.champion}")


def _store(store: str | None, data: Path | None) -> "Store":
    from fabwafer.commands.system import store_address
    from fabwafer.models.store import open_store

    return open_store(store_address(store, data))


def _user() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        return f"user {os.getuid()}"


def _report(change: "Change") -> None:
    before, after = change.before, change.after
    was = f", before it {before.champion}" if before and before.champion != after.champion else ""
    print(f"The champion is {after.champion}{was}.")
    print(f"On trial is {after.candidate}, with {after.share:.0%} of the images." if after.candidate else "No trial.")
    print(_NOTE)


def _states(version: str, rollout: "Rollout | None", refused: dict[str, str]) -> list[str]:
    if rollout is None:
        return []
    roles = {"champion": rollout.champion, "candidate": rollout.candidate}
    return [
        *(role for role, holder in roles.items() if holder == version),
        *(["refused"] if version in refused else []),
    ]


def _as_json(card: "ModelCard", rollout: "Rollout | None", refused: dict[str, str]) -> dict[str, Any]:
    return {
        "version": card.version,
        "created": card.created,
        "macro_f1": card.metrics.get("macro_f1"),
        "worst_class_recall": card.metrics.get("worst_class_recall"),
        "maps": card.metrics.get("maps"),
        "measured_on": card.metrics.get("measured_on"),
        "description": card.description,
        "training_data": card.training_data.name,
        "states": _states(card.version, rollout, refused),
        "refused": refused.get(card.version),
    }


def _measured_on(card: "ModelCard") -> str:
    """Return which maps the card's figures are of: each version holds out its own."""
    maps = card.metrics.get("maps")
    return f"{maps} held out of {card.training_data.name}" if maps else ""


def _versions_table(cards: "list[ModelCard]", rollout: "Rollout | None", refused: dict[str, str]) -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    headings = ("version", "created", "macro-F1", "worst recall", "measured on", "", "made from")
    table = Table(*headings, box=SIMPLE, padding=(0, 1, 0, 0))
    for column in (0, 4, 6):
        table.columns[column].overflow = "fold"
    for card in cards:
        figures = [card.metrics.get(name) for name in ("macro_f1", "worst_class_recall")]
        table.add_row(
            escape(card.version),
            card.created[:16].replace("T", " "),
            *(f"{figure:.3f}" if isinstance(figure, float) else "" for figure in figures),
            escape(_measured_on(card)),
            ", ".join(_states(card.version, rollout, refused)),
            escape(f"{card.training_data.name}. {card.description}"),
        )
    return table


def _print_outcome(outcome: "TrialOutcome") -> None:
    version = outcome.candidate
    if outcome.images == 0:
        print(f"{version} has answered no image yet that the champion answered too.")
        return
    alike = _share(outcome.agreed, outcome.images)
    print(f"Images that both {version} and the champion answered: {outcome.images}, alike: {alike}.")
    if outcome.reviewed:
        champion = _share(outcome.champion_right, outcome.reviewed)
        candidate = _share(outcome.candidate_right, outcome.reviewed)
        print(f"Of them reviewed: {outcome.reviewed}, the champion right: {champion}, {version} right: {candidate}.")
    else:
        print("Nobody reviewed any of them yet, so who is right is not known.")
    if outcome.differing:
        _print(_differing_table(version, outcome.differing))


def _share(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.1%})"


def _differing_table(candidate: str, differing: list[tuple[str, str, int]]) -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table("champion", escape(candidate), "images", box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[2].justify = "right"
    for by_champion, by_candidate, count in differing:
        table.add_row(escape(by_champion), escape(by_candidate), str(count))
    return table


def _print(table: "Table") -> None:
    console().print(table)
