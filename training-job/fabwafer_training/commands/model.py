"""`fabwafer model`: the versions in the model store, and which of them is to serve."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fabwafer.models.card import ModelCard
    from fabwafer.models.store import Store
    from fabwafer.records import Records, Rollout

app = typer.Typer(
    no_args_is_help=True,
    help="The versions in the model store, and which of them is to serve. "
    "A local system takes it up within seconds; in a cluster no part does yet.",
)

Data = Annotated[Path | None, typer.Option(help="The system's data directory.")]
StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="A folder or s3://BUCKET/PREFIX; else $FABWAFER_MODEL_STORE, else model-store in the data directory.",
    ),
]
Author = Annotated[str | None, typer.Option(help="Who says so; else the name of the user.")]

_NOTE: Final = (
    "A local system that runs takes both up within seconds. Model servers in a cluster go on with what they serve: the "
    "part for that is still to come."
)


@app.command("list")
def list_versions(
    *,
    store: StoreAddress = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every version, as JSON, one a line.")] = False,
) -> None:
    """List the versions there are, the oldest first: their figures, what they were made from, and who is to serve."""
    import json

    from fabwafer.commands.system import SystemNotFoundError

    with _in_sentences():
        opened, shipped = _store(store, data), _shipped()
        cards, damaged = opened.versions()
        try:
            with _records(data) as records:
                rollout = records.rollout()
                known = True
        except SystemNotFoundError as error:
            rollout, known = None, False
            print(f"who is to serve is not known: {error}", file=sys.stderr)
    rows = [(card, _states(card.version, shipped, rollout, known)) for card in [shipped, *cards]]
    if as_json:
        for card, states in rows:
            print(json.dumps(_as_json(card, states), separators=(",", ":")))
    else:
        _print(_versions_table(rows))
        print(_NOTE, file=sys.stderr)
    there = {card.version for card in [shipped, *cards]}
    for role, version in (("champion", rollout and rollout.champion), ("candidate", rollout and rollout.candidate)):
        if version and version not in there:
            print(f"the {role} {version} is not among the versions in {opened}", file=sys.stderr)
    for sentence in damaged:
        print(sentence, file=sys.stderr)


@app.command()
def history(*, data: Data = None) -> None:
    """Show who was to serve, when, and by whose word: the last word first."""
    from datetime import datetime

    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    with _in_sentences(), _records(data) as records:
        rollouts = records.rollouts()
    table = Table("when", "who", "champion", "candidate", "share", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in table.columns[1:4]:
        column.overflow = "fold"
    for said in rollouts:
        when = datetime.fromtimestamp(said.time / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        share = f"{said.share:.0%}" if said.candidate else ""
        table.add_row(when, escape(said.author), said.champion or "shipped", said.candidate or "", share)
    _print(table)


@app.command()
def candidate(
    version: Annotated[str | None, typer.Argument(help="The version to try.")] = None,
    *,
    share: Annotated[float, typer.Option(help="Of the images, how many go to it as well, 0 to 1.")] = 0.1,
    none: Annotated[bool, typer.Option("--none", help="End the trial instead.")] = False,
    author: Author = None,
    store: StoreAddress = None,
    data: Data = None,
) -> None:
    """Put a version on trial beside the champion: it gets a share of the images, and answers nobody.

    `fabwafer model trial` compares what it says with what the champion said of the same images.
    """
    if (version is None) != none:
        _refuse("expected the version to try, or --none to end the trial")
    with _in_sentences(), _records(data) as records:
        before = _now(records)
        if version is not None:
            checked = _checked(_store(store, data), version)
            if checked == before.champion:
                _refuse(f"{version} is the champion already")
        if (version, share if version else 0.0) == (before.candidate, before.share):
            print(f"{version} is on trial already" if version else "no version is on trial")
            return
        records.set_rollout(
            before.champion,
            candidate=version,
            share=share if version else 0.0,
            author=author or _user(),
            after=before.number,
        )
        _tell(records, before)


@app.command()
def trial(
    version: Annotated[str | None, typer.Argument(help="A version that was on trial; else the candidate.")] = None,
    *,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compare a candidate with the champion, on the images that both answered and on those that people reviewed."""
    import json
    from dataclasses import asdict

    from fabwafer_training.trial import outcome

    with _in_sentences(), _records(data) as records:
        chosen = version or _now(records).candidate
        if chosen is None:
            _refuse("no version is on trial, so name the one to look at")
        found = outcome(records.compared(chosen))
    if as_json:
        print(json.dumps({"candidate": chosen} | asdict(found), separators=(",", ":")))
        return
    if found.images == 0:
        print(f"{chosen} has answered no image yet that the champion answered too.")
        return
    alike = _of(found.agreed, found.images)
    print(f"Images that both {chosen} and the champion answered: {found.images}, alike: {alike}.")
    if found.reviewed:
        champion, candidate = (_of(right, found.reviewed) for right in (found.champion_right, found.candidate_right))
        print(f"Of them reviewed: {found.reviewed}, the champion right: {champion}, {chosen} right: {candidate}.")
    else:
        print("Nobody reviewed any of them yet, so who is right is not known.")
    if found.differing:
        _print(_differing_table(chosen, found.differing))


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="The version that is to serve; else the candidate.")] = None,
    *,
    author: Author = None,
    store: StoreAddress = None,
    data: Data = None,
) -> None:
    """Make a version the champion. The candidate's trial ends when it is the one, and goes on when it is not."""
    with _in_sentences(), _records(data) as records:
        before = _now(records)
        opened = _store(store, data)
        chosen = version or before.candidate
        if chosen is None:
            _refuse(f"no version is on trial, so name the one to promote; {_there_are(opened)}")
        champion = _checked(opened, chosen)
        if champion == before.champion:
            print(f"{chosen} is the champion already")
            return
        on_trial = None if chosen == before.candidate else before.candidate
        share = before.share if on_trial else 0.0
        records.set_rollout(champion, candidate=on_trial, share=share, author=author or _user(), after=before.number)
        _tell(records, before)


@app.command()
def rollback(*, author: Author = None, store: StoreAddress = None, data: Data = None) -> None:
    """Go back to the champion before the present one, and end the candidate's trial.

    Run again, it goes one further back, down to the shipped model; it never returns to a version that was rolled back,
    or left by promoting an earlier one. Such a version comes back by its name: `fabwafer model promote VERSION`. A
    version that is no longer in the store, or is damaged, is passed over, and named.
    """
    from fabwafer.models.store import DamagedError
    from fabwafer.records.query import earlier_champions

    with _in_sentences(), _records(data) as records:
        before, opened = _now(records), _store(store, data)
        rollouts = records.rollouts()
        for earlier in earlier_champions(rollouts):
            try:
                if earlier is None or opened.published(earlier) is not None:
                    break
                print(f"passed over: there is no version {earlier} in {opened}", file=sys.stderr)
            except DamagedError as error:
                print(f"passed over: {error}", file=sys.stderr)
        else:
            left = dict.fromkeys(said.champion for said in rollouts if said.champion)
            more = f"; to return to one that was left, promote it by name: {', '.join(left)}" if left else ""
            _refuse(f"the shipped model is to serve, and there is none before it{more}")
        records.set_rollout(earlier, author=author or _user(), after=before.number)
        _tell(records, before)
        if before.champion:
            print(f"To return: fabwafer model promote {before.champion}")


def _store(store: str | None, data: Path | None) -> "Store":
    from fabwafer.commands.system import store_address
    from fabwafer.models.store import open_store

    return open_store(store_address(store, data))


def _shipped() -> "ModelCard":
    from fabwafer.models.card import read_card
    from fabwafer.models.shipped import default_model

    return read_card(default_model())


@contextmanager
def _records(data: Path | None) -> Iterator["Records"]:
    from fabwafer.commands.system import address
    from fabwafer.records import Records

    with Records(address("database_url", data)) as records:
        records.check()
        yield records


@contextmanager
def _in_sentences() -> Iterator[None]:
    from fabwafer.commands.system import SystemNotFoundError
    from fabwafer.models.card import ModelRefusedError
    from fabwafer.models.store import StoreError
    from fabwafer.records import RecordsUnavailableError, RolloutChangedError, SchemaError

    try:
        yield
    except (
        ModelRefusedError,
        RecordsUnavailableError,
        RolloutChangedError,
        SchemaError,
        StoreError,
        SystemNotFoundError,
        OSError,
        ValueError,
    ) as error:
        _refuse(str(error))


def _refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise typer.Exit(1) from None


def _now(records: "Records") -> "Rollout":
    """Who is to serve; the shipped model, when nobody said anything yet."""
    from fabwafer.records import Rollout

    return records.rollout() or Rollout(None, None, 0.0, "", 0)


def _checked(store: "Store", version: str) -> str | None:
    """Returns a version as the records name a champion, None for the shipped one, if it can serve."""
    from fabwafer.models.store import DamagedError, StoreError

    if version == _shipped().version:
        return None
    try:
        if store.published(version) is not None:
            return version
        why = f"there is no version {version} in {store}"
    except DamagedError as error:
        why = str(error)
    raise StoreError(f"{why}; {_there_are(store)}")


def _there_are(store: "Store") -> str:
    return f"the versions there are: {', '.join([f'{_shipped().version} (shipped)', *store.names()])}"


def _user() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        return f"user {os.getuid()}"


def _tell(records: "Records", before: "Rollout") -> None:
    after = _now(records)
    shipped = f"{_shipped().version} (shipped)"
    was = f", before it {before.champion or shipped}" if before.champion != after.champion else ""
    print(f"The champion is {after.champion or shipped}{was}.")
    print(f"On trial is {after.candidate}, with {after.share:.0%} of the images." if after.candidate else "No trial.")
    print(_NOTE)


def _states(version: str, shipped: "ModelCard", rollout: "Rollout | None", known: bool) -> list[str]:
    champion = (rollout and rollout.champion) or shipped.version
    found = {
        "champion": known and version == champion,
        "candidate": rollout is not None and version == rollout.candidate,
        "shipped": version == shipped.version,
    }
    return [name for name, true in found.items() if true]


def _as_json(card: "ModelCard", states: list[str]) -> dict[str, object]:
    return {
        "version": card.version,
        "created": card.created,
        "macro_f1": card.metrics.get("macro_f1"),
        "worst_class_recall": card.metrics.get("worst_class_recall"),
        "description": card.description,
        "training_data": card.training_data.name,
        "states": states,
    }


def _versions_table(rows: "list[tuple[ModelCard, list[str]]]") -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table("version", "created", "macro-F1", "worst recall", "", "made from", box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[0].overflow = table.columns[5].overflow = "fold"
    for card, states in rows:
        figures = [card.metrics.get(name) for name in ("macro_f1", "worst_class_recall")]
        table.add_row(
            escape(card.version),
            card.created[:16].replace("T", " "),
            *(f"{figure:.3f}" if isinstance(figure, float) else "" for figure in figures),
            ", ".join(states),
            escape(f"{card.training_data.name}. {card.description}"),
        )
    return table


def _of(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.1%})"


def _differing_table(candidate: str, differing: list[tuple[str, str, int]]) -> "Table":
    from rich.box import SIMPLE
    from rich.markup import escape
    from rich.table import Table

    table = Table("champion", escape(candidate), "images", box=SIMPLE, padding=(0, 1, 0, 0))
    table.columns[2].justify = "right"
    for champion, said, count in differing:
        table.add_row(escape(champion), escape(said), str(count))
    return table


def _print(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)
