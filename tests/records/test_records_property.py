"""Whatever order messages are stored in, and however often, the records are the same: the order of receipt decides."""

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabwafer.records import ReceivedPrediction, Records, Shot, WaferRecord
from tests.support.records import empty, predicted, shot

Message = Shot | ReceivedPrediction

names = st.sampled_from(["a", "b"])
moments = st.integers(1, 3)
lots = st.sampled_from([None, "L1", "L2"])
# Two messages of the same key are equal, as those are that a device or a redelivery sends again.
shots = st.builds(
    lambda name, timestamp, take: (
        lambda **receipt: shot(
            f"{name}{take}".encode(), imgid=name, timestamp=timestamp, lot=[None, "L1", "L2"][take], **receipt
        )
    ),
    names,
    moments,
    st.integers(0, 2),
)
predictions = st.builds(
    lambda name, timestamp, model, source, shadow: (
        lambda **receipt: predicted(
            "Loc" if timestamp > 1 else "none",
            imgid=name,
            timestamp=timestamp,
            model=model,
            source=source,
            shadow=shadow and source == "cluster",
            tool=f"T{timestamp}" if model == "v1" else None,
            **receipt,
        )
    ),
    names,
    moments,
    st.sampled_from(["v1", "v2"]),
    st.sampled_from(["device", "cluster"]),
    st.booleans(),
)


def store(records: Records, batch: list[Message]) -> int:
    records.store_shots([one for one in batch if isinstance(one, Shot)])
    return len(records.store_predictions([one for one in batch if isinstance(one, ReceivedPrediction)]).alerts)


def stored(database: str, batches: list[list[Message]]) -> tuple[list[WaferRecord], int, set[Any], list[Any]]:
    empty(database)
    with Records(database) as records:
        alerts = sum(store(records, batch) for batch in batches)
        images = [records.image("fab1", "cam1", name) for name in ("a", "b")]
        return list(records.wafers()), alerts, {waiting.id for waiting in records.pending_alerts()}, images


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(st.one_of(shots, predictions), max_size=12),
    seed=st.integers(0, 2**32),
)
def test_any_order_with_repetitions_gives_the_same_records(database: str, made: list[Any], seed: int) -> None:
    # Two of a millisecond each, distinguished by their sequence.
    messages = [make(received=number // 2, sequence=number) for number, make in enumerate(made)]
    expected = stored(database, [[message] for message in messages])

    chance = random.Random(seed)
    shuffled = [*messages, *chance.choices(messages, k=len(messages))] if messages else []
    chance.shuffle(shuffled)
    size = chance.randint(1, 8)
    batches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]

    assert stored(database, batches) == expected
