"""Models into the store: this release's own, with which the records name the first champion, and anybody's.

One owner runs the set-up: `fabwafer up` on one machine, the set-up Job in a cluster.
"""

import contextlib
import shutil
from pathlib import Path

from fabwafer.models.card import CARD_NAME, ModelCard, read_card, read_checked
from fabwafer.models.rollout import AUTHOR
from fabwafer.models.shipped import default_model
from fabwafer.models.store import Store, StoreError
from fabwafer.records import Records, RolloutChangedError


def set_up(records: Records, store: Store) -> list[str]:
    """Publish this release's model into the store, and name it champion where the records name none.

    Later starts change nothing. The model of a later release is added to the store and serves only when promoted.

    Args:
        records: They name the champion.
        store: Where the model is published.

    Returns:
        Sentences for people on a model that was added, or that differs from the one in the store.

    Raises:
        ModelRefusedError: The model is not complete.
        StoreError: The store cannot be used.
    """
    folder = default_model()
    card = read_card(folder)
    sentences = []
    added = card.version not in store.names() and _publish(store, folder, card)
    if not added and (stored := store.card(card.version)) is not None and stored.digest != card.digest:
        sentences.append(
            f"the version {card.version} in {store} is not the {card.version} in {folder}; the one in the store is used"
        )
    rollout = records.rollout()
    if rollout is None:
        _name_champion(records, card.version)
        return sentences
    if added:
        sentences.append(
            f"model {card.version} came with this release; to let it serve: fabwafer model promote {card.version}"
        )
    return sentences


def add_model(store: Store, folder: Path) -> tuple[ModelCard, bool]:
    """Publish a model's folder into the store; the folder stays as it is.

    Args:
        store: Where the model is published, as the version that its card names.
        folder: The model.

    Returns:
        Its card, and whether it is new in the store.

    Raises:
        ModelRefusedError: The folder holds no model, or a file is not that of its card.
        StoreError: The model has no finite answers, the store has another one of that version, or cannot be used.
    """
    card = read_card(folder)
    if store.card(card.version) is None and _publish(store, folder, card):
        return card, True
    stored = store.card(card.version)
    if stored is None or stored.digest != card.digest:
        raise StoreError(
            f"the version {card.version} is in {store} already, with another content: name yours otherwise"
        )
    return card, False


def _publish(store: Store, folder: Path, card: ModelCard) -> bool:
    """Publish a model; return whether it was this process that did, since another may do so at this moment."""
    work = store.new_work_folder(card.version)
    try:
        for entry in card.entries:
            (work / entry.name).write_bytes(read_checked(folder, entry))
        (work / CARD_NAME).write_bytes((folder / CARD_NAME).read_bytes())
        store.publish(card.version, work)
    except StoreError:
        if card.version not in store.names():
            raise
        return False
    except OSError as error:
        raise StoreError(f"cannot copy {card.version} into {store}: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _name_champion(records: Records, version: str) -> None:
    with contextlib.suppress(RolloutChangedError):  # a champion that somebody names at this moment stays
        records.set_rollout(version, author=AUTHOR, after=0)
