"""The inference tensors are written down once: the README's table is made from it."""

from pathlib import Path

from fabwafer.messages.inference import HEATMAP, INPUT, OUTPUTS, Tensor

README = Path(__file__).parents[2] / "handlers" / "README.md"


def row(tensor: Tensor) -> str:
    shape = ", ".join(str(size) for size in tensor.shape)
    return f"| `{tensor.name}` | {tensor.datatype} | [{shape}] | {tensor.holds} |"


def test_the_readmes_table_is_that_of_the_code() -> None:
    table = "\n".join(["| output | datatype | shape | |", "|---|---|---|---|", *map(row, (*OUTPUTS, HEATMAP))])
    assert table in README.read_text(), f"handlers/README.md should have\n{table}"


def test_the_readmes_request_has_the_input_of_the_code() -> None:
    request = f'{{"name":"{INPUT.name}","datatype":"{INPUT.datatype}","shape":[{INPUT.shape[0]}],'
    assert request in README.read_text()


def test_a_shape_is_known_when_its_symbols_are() -> None:
    assert Tensor("t", "FP32", ("n", "classes", 1), "").sizes(n=3, classes=9) == [3, 9, 1]
