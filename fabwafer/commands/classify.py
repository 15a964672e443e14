"""`fabwafer classify`: classifies image files, without any server."""

import json
import os
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fabwafer.commands.app import Commands
from fabwafer.commands.options import Json
from fabwafer.commands.text import console

if TYPE_CHECKING:
    from fabwafer.models.classifier import Classification, Classifier

app = Commands()

_AT_ONCE = 64
_STDIN = Path("-")
_SUFFIXES = (".png", ".jpg", ".jpeg")


class _Variant(StrEnum):
    int8 = "int8"
    float32 = "float32"


@app.command()
def classify(
    named: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="PNG or JPEG files, folders of them, or - for one image on stdin."),
    ],
    model: Annotated[Path | None, typer.Option(help="The model's folder; default: the shipped model.")] = None,
    variant: Annotated[_Variant, typer.Option(help="Which of the model's files to run.")] = _Variant.int8,
    heatmap: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a picture for each map that shows where the model sees the pattern."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Name the defect pattern on wafer-map images.

    Exits with 1 when a file cannot be read, and prints the others all the same; with 2 when the model cannot be loaded.
    """
    # Before NumPy is imported: for matrices as small as a map's, BLAS threads only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from fabwafer.models.card import ModelRefusedError
    from fabwafer.models.classifier import Classifier
    from fabwafer.models.shipped import default_model

    try:
        classifier = Classifier(model or default_model(), variant.value)
        if heatmap is not None:
            heatmap.mkdir(parents=True, exist_ok=True)
    except (ModelRefusedError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    images: list[Path] = []
    failed = False
    for one in named:
        found = _pictures(one) if one.is_dir() else [one]
        if not found:
            failed = True
            typer.echo(f"{one}: no .png, .jpg or .jpeg file in it", err=True)
        images += found
    rows: list[tuple[Path, Classification]] = []
    names = _picture_names(images)
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE]
        answers = _answers(classifier, part, names[start : start + _AT_ONCE], heatmap)
        for path, answer in zip(part, answers, strict=True):
            failed |= not answer.label
            if as_json:
                print(json.dumps(_as_json(classifier, path, answer)))
            else:
                rows.append((path, answer))
    if not as_json:
        _print_table(classifier, rows)
    if failed:
        raise typer.Exit(1)


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder and those below it, by name; what is hidden is passed over."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _content(image: Path) -> bytes:
    """Read an image file, or stdin up to a byte more than an image may have."""
    from fabwafer.maps.image_file import MAX_BYTES

    return sys.stdin.buffer.read(MAX_BYTES + 1) if image == _STDIN else image.read_bytes()


def _answers(
    classifier: "Classifier", paths: list[Path], names: list[str], heatmaps: Path | None
) -> "list[Classification]":
    """Classify files; one that cannot be opened gets an answer with an error, like an image that cannot be decoded."""
    from dataclasses import replace

    contents: list[bytes] = []
    unreadable: dict[int, str] = {}
    for row, path in enumerate(paths):
        try:
            contents.append(_content(path))
        except OSError as error:
            contents.append(b"")
            unreadable[row] = f"could not read the file: {error.strerror}"
    answers = classifier.classify(contents, heatmap=heatmaps is not None)
    for row, reason in unreadable.items():
        answers[row] = replace(answers[row], error=reason)
    if heatmaps is not None:
        for name, content, answer in zip(names, contents, answers, strict=True):
            if answer.heatmap is not None:
                _write_overlay(heatmaps / name, content, answer)
    return answers


def _picture_names(images: list[Path]) -> list[str]:
    """Name each heatmap after its image, with the image's number in front where names repeat."""
    stems = ["stdin" if path == _STDIN else path.stem for path in images]
    often = Counter(stems)
    return [
        f"{stem}-heatmap.png" if often[stem] == 1 else f"{number}-{stem}-heatmap.png"
        for number, stem in enumerate(stems, start=1)
    ]


def _as_json(classifier: "Classifier", path: Path, answer: "Classification") -> dict[str, Any]:
    return {
        "image": str(path),
        "label": answer.label,
        "probability": round(answer.probability, 6),
        "defect": answer.defect,
        "wafer": answer.wafer,
        "review": answer.review,
        "review_reason": answer.review_reason,
        "error": answer.error,
        "probabilities": {
            name: round(float(value), 6)
            for name, value in zip(classifier.card.classes, answer.probabilities, strict=True)
        },
        "map": answer.map.model_dump() if answer.map is not None else None,
        "model": classifier.card.version,
    }


def _print_table(classifier: "Classifier", rows: "list[tuple[Path, Classification]]") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption=f"{classifier.card.name} {classifier.card.version}, {classifier.variant}")
    for heading in ("image", "pattern", "probability", "dies failed", "note"):
        right = heading in ("probability", "dies failed")
        table.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    often = Counter(path.name for path, _ in rows)
    for path, answer in rows:
        dies = f"{answer.map.failed} of {answer.map.passed + answer.map.failed}" if answer.map is not None else ""
        note = answer.error or ("a person should look" if answer.review else "")
        if answer.wafer and answer.error:
            note = f"a person should look: {note}"
        probability = f"{answer.probability:.3f}" if answer.wafer else ""
        name = path.name if often[path.name] == 1 else str(path)
        table.add_row(escape(name), answer.label or "unreadable", probability, dies, escape(note))
    console().print(table)


def _write_overlay(path: Path, content: bytes, answer: "Classification") -> None:
    """Draw the dies in grey, coloured by how much they speak for the class; at least 256 pixels high."""
    import numpy as np
    from PIL import Image

    from fabwafer.maps.wafermap import decode

    assert answer.heatmap is not None  # noqa: S101 - the caller asked for it
    grid = decode(content)
    grey = np.array([255, 215, 90], dtype=np.float32)[grid][..., None].repeat(3, axis=2)
    evidence = np.maximum(answer.heatmap, 0)
    strength = (evidence / max(float(evidence.max()), 1e-6))[..., None] * 0.65
    pixels = grey * (1 - strength) + np.array([230, 60, 20], dtype=np.float32) * strength
    zoom = max(1, -(-256 // grid.shape[0]))
    picture = pixels.round().astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    Image.fromarray(picture).save(path)
