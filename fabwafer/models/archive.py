"""The archive (.mar) that TorchServe loads: the model's files, its card, and the name of the handler.

The handler's code is not in it, only the name of its module: an archive that one release of fabwafer built is served by
the code of the release that serves it.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fabwafer.messages.inference import MODEL_NAME
from fabwafer.models.card import CARD_NAME, read_card, read_checked, read_verified
from fabwafer.service.files import replace_file

ARCHIVE_NAME: Final = f"{MODEL_NAME}.mar"
"""The archive's file name in a version's folder and in a cluster's model store."""

_HANDLER: Final = "fabwafer_handlers.torchserve"
"""TorchServe's worker imports this module; it must be installed where the archive is served."""
_CONFIG: Final = "model-config.yaml"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip file can state: the same model gives the same archive, byte for byte."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that was built: its file, the model's version and digest (see `ModelCard.digest`)."""

    path: Path
    version: str
    digest: str


def build(model: Path, path: Path) -> Archive:
    """Build a model's archive, replacing an earlier one in one step.

    Args:
        model: The model's folder, with its card.
        path: The file to write; its folder is made where it is missing.

    Raises:
        ModelRefusedError: The folder holds no model, or its files are not those its card describes.
        OSError: The file cannot be written.
    """
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    card = read_card(model)
    content = {
        CARD_NAME: (model / CARD_NAME).read_bytes(),
        _CONFIG: Path(__file__).with_name(_CONFIG).read_bytes(),
    }
    for variant, file in card.files.items():
        content[file.name] = read_verified(model, card, variant)
    if card.likeness is not None:
        content[card.likeness.name] = read_checked(model, card.likeness)
    # The archiver's own packing uses a folder in the shared temporary directory that is named after the model, where
    # two of them at a time overwrite each other's files; so only its manifest is used.
    manifest = json.loads(
        ModelExportUtils.generate_manifest_json(
            ModelArchiverConfig(MODEL_NAME, handler=_HANDLER, version=card.version, config_file=_CONFIG)
        )
    )
    manifest["createdOn"] = card.created
    content["MAR-INF/MANIFEST.json"] = json.dumps(manifest, indent=2).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(content):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content[name], zipfile.ZIP_DEFLATED)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, packed.getvalue(), mode=0o644)
    return Archive(path, card.version, card.digest)
