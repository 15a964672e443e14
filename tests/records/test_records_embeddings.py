"""Embeddings are read as blocks of ids and numbers, of the wafers whose current prediction is of one model."""

import numpy as np
import pytest

from fabwafer.records import Filter, Records
from tests.support.records import predicted


def test_embeddings_come_in_blocks_with_the_ids_of_their_wafers(records: Records) -> None:
    expected = {f"i{number}": [number, -0.5, 0.1] for number in range(25)}
    records.store_predictions([predicted(imgid=name, embedding=values) for name, values in expected.items()])
    names = {row.id: row.imgid for row in records.rows()}

    blocks = list(records.embeddings("v1", size=10))

    assert [ids.shape for ids, _ in blocks] == [(10,), (10,), (5,)]
    assert {(ids.dtype.name, matrix.dtype.name, matrix.shape[1]) for ids, matrix in blocks} == {("int64", "float32", 3)}
    found = {names[int(row)]: values for ids, matrix in blocks for row, values in zip(ids, matrix, strict=True)}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], np.array(values, np.float16).astype(np.float32))


def names_of(records: Records, model: str, wanted: Filter, size: int = 10) -> list[str]:
    names = {row.id: row.imgid for row in records.rows()}
    return sorted(names[int(row)] for ids, _ in records.embeddings(model, wanted, size=size) for row in ids)


@pytest.mark.parametrize("size", [1, 10])
def test_only_current_predictions_of_the_model_that_match_are_read(records: Records, size: int) -> None:
    records.store_predictions(
        [
            predicted(imgid="old", model="v1", embedding=[1, 2]),
            predicted(imgid="both", model="v1", embedding=[1, 2]),
            predicted(imgid="both", model="v2", embedding=[1, 2], received=2),
            predicted(imgid="tried", model="v1", embedding=[1, 2]),
            predicted(imgid="tried", model="v2", embedding=[1, 2], received=2, shadow=True),
            predicted(imgid="other", model="v2", embedding=[1, 2], prediction="Donut"),
            predicted(imgid="no-wafer", model="v2"),
            predicted(imgid="device", model="v2", source="device", embedding=[1, 2]),
        ]
    )

    assert names_of(records, "v1", Filter(), size) == ["old", "tried"]
    assert names_of(records, "v2", Filter(), size) == ["both", "other"]
    assert names_of(records, "v2", Filter(label="Donut"), size) == ["other"]
    assert names_of(records, "v3", Filter(), size) == []


def test_an_embedding_of_another_width_is_left_out(records: Records) -> None:
    widths = {"a": 2, "b": 0, "c": 3, "d": 2}
    for name, width in widths.items():
        records.store_predictions([predicted(imgid=name, embedding=[0.5] * width)])

    assert names_of(records, "v1", Filter()) == ["a", "d"]
    assert names_of(records, "v1", Filter(), size=1) == ["a", "d"]


def test_without_records_there_is_no_block(records: Records) -> None:
    assert list(records.embeddings("v1")) == []
