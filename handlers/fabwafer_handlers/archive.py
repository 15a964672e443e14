"""The archive (.mar) that TorchServe loads: the model's files, its card, and the name of the handler."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.card import CARD_NAME, read_card, read_verified

_HERE: Final = Path(__file__).parent
_HANDLER: Final = "archived_handler.py"
_CONFIG: Final = "model-config.yaml"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip file can state: the same model gives the same archive, byte for byte."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was built: its file, the model's version and digest (see `ModelCard.digest`)."""

    path: Path
    version: str
    digest: str


def build(model: Path, out: Path, name: str = MODEL_NAME) -> Archive:
    """Builds `<name>.mar` from a model's folder, in a single step in place of an earlier one.

    Args:
        model: The model's folder, with its card.
        out: The folder for the archive, made where it is missing.
        name: The model's name in TorchServe, and the archive's.

    Raises:
        ModelRefusedError: The folder holds no model, or its files are not those its card describes.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    card = read_card(model)
    content = {
        CARD_NAME: (model / CARD_NAME).read_bytes(),
        _HANDLER: (_HERE / _HANDLER).read_bytes(),
        _CONFIG: (_HERE / _CONFIG).read_bytes(),
    }
    for variant, file in card.files.items():
        content[file.name] = read_verified(model, card, variant)
    # The archiver's own packing goes through a folder in the shared temporary directory that is named like the model,
    # where two of them at a time take each other's files; so only its manifest is used.
    manifest = json.loads(
        ModelExportUtils.generate_manifest_json(
            ModelArchiverConfig(name, handler=_HANDLER, version=card.version, config_file=_CONFIG)
        )
    )
    manifest["createdOn"] = card.created
    content["MAR-INF/MANIFEST.json"] = json.dumps(manifest, indent=2).encode()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.mar"
    draft = path.with_suffix(".mar.new")
    with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for file_name in sorted(content):
            archive.writestr(zipfile.ZipInfo(file_name, _EPOCH), content[file_name], zipfile.ZIP_DEFLATED)
    draft.replace(path)
    return Archive(path, card.version, card.digest)
