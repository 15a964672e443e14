"""Readers: the same labelled maps, whatever form they come in, and a clear word on what is wrong with a file."""

import functools
import json
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from fabwafer.defects import canonical_name
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.synthetic import sample
from fabwafer.maps.wafermap import encode
from fabwafer.records import Drawing, Records, migrate
from fabwafer_training.commands.data import app
from fabwafer_training.dataset import DataError, Dataset, joined
from fabwafer_training.readers import read
from fabwafer_training.readers.folder import write_folder
from fabwafer_training.readers.npz import write_npz
from fabwafer_training.splits import held_out_by_name, held_out_from_training
from tests.support.drawings import file, scheme
from tests.support.records import CAPTURED, shot

MAPS = sample(8, 18)
LABELLED = 15
"""The last rows have no label, like most rows of the full data set."""
NO_LABEL = np.zeros((0, 0))


def columns(nested: bool) -> dict[str, list[Any]]:
    """The columns of one copy of the data (labels in nested arrays, empty where there is none) or of the other."""

    def cell(text: str, row: int) -> Any:
        if row >= LABELLED:
            return NO_LABEL if nested else 0
        return np.array([[text]]) if nested else text

    rows = range(len(MAPS))
    return {
        "waferMap": [grid for _, grid in MAPS],
        "dieSize": [1.0 for _ in rows],
        "lotName": [f"lot{row // 3}" for row in rows],
        "waferIndex": [float(row) for row in rows],
        "trianTestLabel" if nested else "trainTestLabel": [
            cell("Training" if row % 2 else "Test", row) for row in rows
        ],
        "failureType": [cell(MAPS[row][0], row) for row in rows],
    }


def assert_all_labelled_maps(data: Dataset) -> None:
    assert data.labels.tolist() == [label for label, _ in MAPS[:LABELLED]]
    for found, (_, grid) in zip(data.grids, MAPS, strict=False):
        np.testing.assert_array_equal(found, grid)
        assert found.dtype == np.uint8


def dump(content: object, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("nested", [True, False])
def test_a_table_of_pandas_is_read_without_pandas(tmp_path: Path, protocol: int, nested: bool) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the file with pandas")
    data = read(str(dump(pandas.DataFrame(columns(nested)), tmp_path / "LSWMD.pkl", protocol)))
    assert_all_labelled_maps(data)
    assert data.groups.tolist() == [f"lot{row // 3}" for row in range(LABELLED)]
    assert data.split.tolist() == ["Training" if row % 2 else "Test" for row in range(LABELLED)]


class _OldFrame:
    def __init__(self, manager: object) -> None:
        self._data = manager


class _OldManager:
    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def __getstate__(self) -> tuple[Any, ...]:
        return self.state


class _OldIndex:
    def __init__(self, names: NDArray[Any]) -> None:
        self.names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_Index, (type(self), {"data": self.names, "name": None})


def _new_Index(kind: type, given: dict[str, Any]) -> None:  # noqa: N802 - pandas calls it so
    raise AssertionError("only its name is written")


@pytest.mark.parametrize("blocks_in", ["the newer place", "the older place"])
def test_a_table_of_an_old_pandas_whose_modules_have_moved_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks_in: str
) -> None:
    kinds: list[Any] = []
    for home in ("pandas", "pandas.core", "pandas.indexes"):
        monkeypatch.setitem(sys.modules, home, ModuleType(home))
    for home, name, base in (
        ("pandas.core.frame", "DataFrame", _OldFrame),
        ("pandas.core.internals", "BlockManager", _OldManager),
        ("pandas.indexes.base", "Index", _OldIndex),
    ):
        kinds.append(type(name, (base,), {"__module__": home}))
        module = ModuleType(home)
        setattr(module, name, kinds[-1])
        monkeypatch.setitem(sys.modules, home, module)
    frame, manager, index = kinds
    monkeypatch.setattr(sys.modules["pandas.indexes.base"], "_new_Index", _new_Index, raising=False)
    monkeypatch.setattr(_new_Index, "__module__", "pandas.indexes.base")

    given = columns(nested=True)
    numbers = ["dieSize", "waferIndex"]
    objects = [name for name in given if name not in numbers]
    values = [np.array([given[name] for name in numbers]), np.empty((len(objects), len(MAPS)), dtype=object)]
    for place, name in enumerate(objects):
        for row, cell in enumerate(given[name]):
            values[1][place, row] = cell
    axes = [index(np.array(list(given), dtype=object)), index(np.arange(len(MAPS)))]
    items = [index(np.array(names, dtype=object)) for names in (numbers, objects)]
    state: tuple[Any, ...] = (axes, values, items)
    if blocks_in == "the newer place":
        places = [np.array([list(given).index(name) for name in names]) for names in (numbers, objects)]
        blocks = [{"values": value, "mgr_locs": place} for value, place in zip(values, places, strict=True)]
        state = (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}})
    file = dump(frame(manager(state)), tmp_path / "LSWMD.pkl", protocol=2)
    assert b"pandas.indexes.base" in file.read_bytes()
    assert_all_labelled_maps(read(str(file)))


def test_plain_lists_and_arrays_are_read_as_columns_and_as_rows(tmp_path: Path) -> None:
    given = columns(nested=False)
    as_columns = read(str(dump(given, tmp_path / "WM811K.pkl")))
    rows = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    as_rows = read(str(dump(rows, tmp_path / "rows.pkl")))
    for data in (as_columns, as_rows):
        assert_all_labelled_maps(data)
    assert as_columns.digest() == as_rows.digest()


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    file = dump(_Hostile(tmp_path / "was here"), tmp_path / "hostile.pkl")
    with pytest.raises(DataError, match=r"asks for \w+\.mkdir"):
        read(str(file))
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__", "exec", "open"])
def test_the_builtins_are_out_of_reach(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pkl").write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(DataError, match=f"asks for builtins.{name}"):
        read(str(tmp_path / "a.pkl"))


class _Call:
    """Pickles as a call of a function, with a state that is set afterwards."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.called = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called


def _filled(shape: tuple[int, ...], dtype: Any, content: Any) -> _Call:
    pickled: Any = np.zeros(1).__reduce__()
    reconstruct, arguments, _ = pickled
    return _Call(reconstruct, arguments, (1, shape, dtype, False, content))


# Objects that lie about what is at which place: NumPy's own `dtype.__setstate__` believes them.
_FORGED = _Call(np.dtype, ("V8", False, True), (3, "|", None, ("o",), {"o": (np.dtype(object), 0)}, 8, 1, 0))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_filled((1,), _FORGED, b"12345678"), id="a dtype with fields"),
        pytest.param(_filled((1,), _Call(np.dtype, ("V8",)), b"12345678"), id="bytes of no kind"),
        pytest.param(_filled((9,), np.dtype(object), [1]), id="fewer objects than the shape has"),
        pytest.param(_filled((9,), np.dtype(np.int64), b"12345678"), id="fewer numbers than the shape has"),
        pytest.param(_filled((-1,), np.dtype(np.int64), b"12345678"), id="a negative side"),
        pytest.param(_Call(np.ndarray, ((1,), np.dtype(object), b"12345678")), id="an array over other memory"),
        pytest.param(_Call(bytes, (10**13,)), id="bytes without end"),
    ],
)
def test_a_pickle_cannot_reach_into_memory(tmp_path: Path, content: _Call) -> None:
    file = dump(columns(nested=False) | {"waferMap": content}, tmp_path / "forged.pkl")
    with pytest.raises(DataError, match="cannot be read as a pickled table"):
        read(str(file))


def test_columns_of_pandas_own_kinds_are_read_or_passed_over(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the file with pandas")
    table = pandas.DataFrame(columns(nested=False))
    table["lotName"] = table["lotName"].astype("category")
    table["trainTestLabel"] = table["trainTestLabel"].replace(0, "").astype("string")
    table["waferIndex"] = table["waferIndex"].astype("Int64")
    table["measured"] = pandas.Timestamp("2026-01-01")
    data = read(str(dump(table, tmp_path / "LSWMD.pkl")))
    assert_all_labelled_maps(data)
    assert data.groups.tolist() == [f"lot{row // 3}" for row in range(LABELLED)]
    assert data.split[1] == "Training"


def test_the_blocks_of_pandas_1_3_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas", reason="writes the file with pandas")

    def new_block(values: Any, places: Any, *, ndim: int) -> Any:
        raise AssertionError("only its name is written")

    home = ModuleType("pandas.core.internals.blocks")
    new_block.__module__, new_block.__qualname__ = home.__name__, "new_block"
    monkeypatch.setattr(home, "new_block", new_block, raising=False)
    monkeypatch.setitem(sys.modules, home.__name__, home)
    given = columns(nested=True)
    values = np.empty((len(given), len(MAPS)), dtype=object)
    for place, column in enumerate(given.values()):
        for row, cell in enumerate(column):
            values[place, row] = cell
    manager = pandas.DataFrame(given)._mgr  # for its axes, which have not changed since
    block = _Call(functools.partial(new_block, ndim=2), (values, slice(0, len(given), 1)))
    frame = _Call(pandas.DataFrame, (), {"_mgr": _Call(type(manager), ((block,), manager.axes))})
    assert_all_labelled_maps(read(str(dump(frame, tmp_path / "LSWMD.pkl", protocol=2))))


def write_matlab(path: Path) -> None:
    """Writes a struct array as MATLAB does: fields of references, text as 16-bit codes, matrices columns first."""
    with h5py.File(path, "w") as file:
        values = file.create_group("#refs#")
        data = file.create_group("data")
        for name, column in columns(nested=False).items():
            field = data.create_dataset(name, (len(column), 1), dtype=h5py.ref_dtype)
            for row, cell in enumerate(column):
                key = f"{name}{row}"
                if isinstance(cell, str):
                    item = values.create_dataset(key, data=np.array([[ord(one)] for one in cell], dtype=np.uint16))
                    item.attrs["MATLAB_class"] = np.bytes_("char")
                elif isinstance(cell, int):
                    item = values.create_dataset(key, data=np.zeros(2, dtype=np.uint64))
                    item.attrs["MATLAB_empty"] = 1
                else:
                    item = values.create_dataset(key, data=np.atleast_2d(cell).T)
                field[row, 0] = item.ref


def test_a_matlab_file_is_read(tmp_path: Path) -> None:
    write_matlab(tmp_path / "WM811K.mat")
    data = read(str(tmp_path / "WM811K.mat"))
    assert_all_labelled_maps(data)
    assert data.groups[3] == "lot1"
    assert data.split[1] == "Training"


def test_maps_come_back_from_npz_and_from_a_folder_of_pictures(tmp_path: Path) -> None:
    first = read(str(dump(columns(nested=False), tmp_path / "WM811K.pkl")))
    for out in ("maps.npz", "pictures"):
        result = CliRunner().invoke(app, ["convert", str(tmp_path / "WM811K.pkl"), str(tmp_path / out)])
        assert result.exit_code == 0, result.stderr
    from_npz, from_pictures = read(str(tmp_path / "maps.npz")), read(str(tmp_path / "pictures"))
    assert from_npz.digest() == first.digest()
    assert from_npz.groups.tolist() == first.groups.tolist()
    assert from_pictures.counts() == first.counts()
    assert set(from_pictures.split.tolist()) == {"train", "valid"}
    assert (tmp_path / "pictures" / "valid" / "Center").is_dir()


def test_a_wafer_without_a_passed_die_comes_back_from_a_folder(tmp_path: Path) -> None:
    failed = np.where(MAPS[0][1] > 0, 2, 0).astype(np.uint8)
    margin = np.pad(MAPS[1][1], 2)
    data = Dataset("odd", [failed, margin], np.array(["Near-full", "Loc"]), np.array(["a", "b"]))
    write_folder(tmp_path / "pictures", data)
    assert read(str(tmp_path / "pictures")).digest() == data.digest()


@pytest.mark.parametrize("label", ["../../else", "/tmp/else", "a/b", "", "..", ".hidden", "x" * 65, "not-a-wafer"])
def test_what_cannot_name_a_class_is_refused_by_readers_and_writers(tmp_path: Path, label: str) -> None:
    data = Dataset("odd", [MAPS[0][1]], np.array([label]), np.array(["a"]))
    write_npz(tmp_path / "a.npz", data)
    with pytest.raises(DataError, match=r"a\.npz: row 0: "):
        read(str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="row 0: "):
        write_folder(tmp_path / "in" / "pictures", data)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_classes_of_a_fab_that_differ_in_the_case_alone_are_refused(tmp_path: Path) -> None:
    data = Dataset("odd", [grid for _, grid in MAPS[:2]], np.array(["Swirl", "swirl"]), np.array(["a", "b"]))
    write_npz(tmp_path / "a.npz", data)
    with pytest.raises(DataError, match="row 1: the classes 'Swirl' and 'swirl' differ in nothing but the case"):
        read(str(tmp_path / "a.npz"))


def test_class_names_are_read_as_in_messages(tmp_path: Path) -> None:
    labels = ["None", " none ", "Near-Full", "EDGE-RING", "Swirl"]
    data = Dataset("odd", [grid for _, grid in MAPS[:5]], np.array(labels), np.array(list("abcde")))
    expected = [canonical_name(label) for label in labels]
    assert data.labels.tolist() == expected == ["none", "none", "Near-full", "Edge-Ring", "Swirl"]
    write_npz(tmp_path / "a.npz", data)
    assert read(str(tmp_path / "a.npz")).labels.tolist() == expected
    folder = pictures(tmp_path / "b", "None", "Near-Full")
    assert read(str(folder)).labels.tolist() == ["Near-full", "none"]


def test_maps_are_not_written_among_others(tmp_path: Path) -> None:
    for code in (0, 1):
        result = CliRunner().invoke(app, ["convert", "synthetic:9", str(tmp_path / "pictures")])
        assert result.exit_code == code
    assert "expected a folder that is new or empty" in result.stderr


def pictures(path: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        (path / folder).mkdir(parents=True)
        (path / folder / "1.png").write_bytes(encode(MAPS[number][1]))
    return path


def test_the_parts_of_a_folder_may_be_called_otherwise_and_what_is_hidden_is_passed_over(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "Train/Loc", "validation/Loc", "Train/.ipynb_checkpoints", ".git/Loc")
    (folder / "Train" / "Loc" / "._1.png").write_bytes(b"of a Mac")
    (folder / "Train" / "Loc" / "Thumbs.db").write_bytes(b"of Windows")
    data = read(str(folder))
    assert (data.labels.tolist(), data.split.tolist()) == (["Loc", "Loc"], ["train", "valid"])
    assert held_out_from_training(data, seed=5).tolist() == [False, True]


def test_pictures_that_would_be_missed_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found Loc beside it"):
        read(str(pictures(tmp_path / "mixed", "train/Loc", "Loc")))
    folder = pictures(tmp_path / "other", "Loc")
    (folder / "Loc" / "2.bmp").write_bytes(b"BM")
    with pytest.raises(DataError, match=r"2\.bmp: expected pictures as \.png"):
        read(str(folder))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": np.arange(9)}, "label should be one row of texts, is int64"),
        ({"label": np.full(9, np.nan)}, "label should be one row of texts, is float64"),
        ({"offsets": np.zeros((2, 5))}, "offsets should be one row of whole numbers"),
        ({"height": np.array("x")}, "height should be one row of whole numbers"),
        ({"group": np.array(3)}, "group should be one row of texts or whole numbers"),
        ({"flat": np.zeros(9)}, "flat should be one row of dies, uint8"),
    ],
)
def test_an_npz_with_an_array_of_another_kind_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    write_npz(tmp_path / "a.npz", read("synthetic:9"))
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive) | change
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"a.npz: {complaint}"):
        read(str(tmp_path / "a.npz"))


def test_a_wrong_die_in_an_npz_is_named_with_its_row(tmp_path: Path) -> None:
    data = read("synthetic:9")
    data.grids[4][1, 1] = 3
    write_npz(tmp_path / "a.npz", data)
    with pytest.raises(DataError, match=r"row 4: flat may hold 0 \(outside\), 1 \(passed\) and 2 \(failed\), has 3"):
        read(str(tmp_path / "a.npz"))


def test_the_synthetic_maps_are_those_of_their_seed() -> None:
    assert read("synthetic:18:8").labels.tolist() == [label for label, _ in MAPS]
    assert read("synthetic:18:8").digest() != read("synthetic:18:9").digest()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"waferMap": [np.full((3, 3), 7)] * len(MAPS)}, "row 0: waferMap may hold"),
        ({"waferMap": [np.zeros(5)] * len(MAPS)}, "row 0: waferMap should have rows and columns"),
        ({"waferMap": ["circle"] * len(MAPS)}, "row 0: waferMap holds str"),
        ({"waferMap": [np.full((3, 3), 2**70, dtype=object)] * len(MAPS)}, "row 0: waferMap may hold"),
        ({"failureType": [3] * len(MAPS)}, "row 0: failureType holds 3, expected the name of a class or nothing"),
        ({"failureType": [0] * len(MAPS)}, "none of its 18 rows has a label in failureType"),
        ({"failureType": ["none"]}, "failureType has 1 rows, waferMap has 18"),
    ],
)
def test_a_mistake_is_named_with_file_field_and_row(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    file = dump(columns(nested=False) | change, tmp_path / "WM811K.pkl")
    with pytest.raises(DataError, match=f"WM811K.pkl: {complaint}"):
        read(str(file))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    file = dump({"waferMap": []}, tmp_path / "a.pkl")
    with pytest.raises(DataError, match="the column 'failureType' is missing; found waferMap"):
        read(str(file))


@pytest.mark.parametrize("name", ["a.pkl", "a.npz", "a.mat"])
def test_files_that_are_nothing_of_the_kind_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80nothing of the kind")
    with pytest.raises(DataError, match=name):
        read(str(tmp_path / name))


def test_an_npz_whose_offsets_do_not_fit_is_refused_with_the_row(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", read("synthetic:9"))
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive)
    arrays["height"][4] += 1
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="row 4: offsets give"):
        read(str(tmp_path / "a.npz"))


def test_a_picture_that_is_no_wafer_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "none").mkdir(parents=True)
    (tmp_path / "train" / "none" / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: expected a PNG or JPEG"):
        read(str(tmp_path))


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:many", "synthetic:0", "nowhere.npz"])
def test_a_source_that_is_not_there_is_refused(source: str) -> None:
    result = CliRunner().invoke(app, ["show", source])
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1


def test_reviewed_wafers_are_read_with_the_last_word_and_their_lots(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    grids = {f"img{number}": grid for number, (_, grid) in enumerate(MAPS[:5])}
    with Records(url) as records:
        records.store_shots(
            [
                shot(
                    encode(grid),
                    sequence=number,
                    imgid=imgid,
                    timestamp=CAPTURED + number * 86_400_000,
                    lot="L7" if number < 2 else None,
                )
                for number, (imgid, grid) in enumerate(grids.items())
            ]
        )
        for imgid, label in [("img0", "Loc"), ("img1", "Scratch"), ("img0", "Center"), ("img2", "none")]:
            records.add_review("fab1", "cam1", imgid, label=label, reviewer="ann")
        records.add_review("fab1", "cam1", "img3", label="not-a-wafer", reviewer="ann")
    data = read(f"records:{url}")
    assert data.labels.tolist() == ["Center", "Scratch", "none"]
    assert data.groups.tolist() == ["fab1/lot/L7", "fab1/lot/L7", "fab1/cam1/img2"]
    for found, grid in zip(data.grids, grids.values(), strict=False):
        np.testing.assert_array_equal(found, grid)


def test_reviewed_drawings_in_unknown_colours_are_learned_only_where_these_are_stated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    grid = MAPS[0][1]
    drawn = file(scheme(grid, "white, blue, yellow"))
    stated = StatedColours(passed=("#0000ff",))
    with Records(url) as records:
        records.set_drawing(Drawing("fab1", "set", stated))
        records.store_shots(
            [
                shot(drawn, camera="set"),
                shot(drawn, camera="sent", sequence=2, colours={"passed": "#00f"}),
                shot(drawn, camera="unknown", sequence=3),
            ]
        )
        for camera in ("set", "sent", "unknown"):
            records.add_review("fab1", camera, "img1", label="Loc", reviewer="ann")
    data = read(f"records:{url}")
    assert sorted(data.names) == ["fab1/sent/img1", "fab1/set/img1"]
    assert all(np.array_equal(found, grid) for found in data.grids)
    (sentence,) = data.unread
    assert sentence.startswith("left out fab1/unknown/img1, reviewed as Loc: expected colours that are known")


def test_a_folders_picture_in_unknown_colours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Loc").mkdir()
    (tmp_path / "Loc" / "a.png").write_bytes(file(scheme(MAPS[0][1], "white, blue, yellow")))
    with pytest.raises(DataError, match=r"a\.png: expected colours that are known"):
        read(str(tmp_path))


def test_a_reviewed_image_that_cannot_be_read_is_told_of_and_keeps_no_other_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_shots(
            [
                shot(file, sequence=number, imgid=f"img{number}")
                for number, file in enumerate([b"no image at all", encode(MAPS[0][1])])
            ]
        )
        for number in range(2):
            records.add_review("fab1", "cam1", f"img{number}", label="Loc", reviewer="ann")
    data = read(f"records:{url}")
    assert data.labels.tolist() == ["Loc"]
    assert len(data.unread) == 1
    assert data.unread[0].startswith("left out fab1/cam1/img0, reviewed as Loc: ")


def test_a_cameras_day_without_lots_is_not_one_group(tmp_path: Path) -> None:
    """Else all of it would be learned from, or nothing."""
    url = with_reviews(tmp_path, {f"img{number}": "Loc" for number in range(111)})
    data = read(f"records:{url}")
    assert len(set(data.groups.tolist())) == 111
    assert 0.1 < held_out_by_name(data.groups).mean() < 0.3


def test_a_review_that_names_no_class_keeps_no_other_back_and_the_wafer_is_named(tmp_path: Path) -> None:
    spelled = {"img1": "Swirl", "img2": "swirl", "img3": "Swirl", "img4": "LOC"}
    data = read(f"records:{with_reviews(tmp_path, {'img0': 'edge/loc', **spelled})}")
    assert data.labels.tolist() == ["Swirl", "Swirl", "Swirl", "Loc"]
    assert data.unread == (
        "left out fab1/cam1/img0, reviewed as 'edge/loc': expected a class of 1 to 64 characters, without slashes and "
        "not beginning with a dot",
    )


def with_reviews(folder: Path, labels: dict[str, str]) -> str:
    """Make records with a wafer for each label, reviewed so; return their URL."""
    url = f"sqlite:///{folder / 'records.db'}"
    migrate(url)
    with Records(url) as records:
        records.store_shots(
            [
                shot(encode(MAPS[number % len(MAPS)][1]), sequence=number, imgid=imgid)
                for number, imgid in enumerate(labels)
            ]
        )
        for imgid, label in labels.items():
            records.add_review("fab1", "cam1", imgid, label=label, reviewer="ann")
    return url


def test_records_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the records: "):
        read(f"records:sqlite:///{tmp_path / 'none.db'}")


def test_joined_data_keeps_groups_of_the_same_name_apart() -> None:
    first, second = read("synthetic:18:0"), read("synthetic:9:0")
    both = joined(first, second)
    assert len(both) == 27
    assert len(set(both.groups.tolist())) == 3


def mixed(folder: Path, maps: Any = None, labels: Any = None) -> Path:
    """Write maps as MixedWM38 comes: of no pattern, of one, and of two."""
    if maps is None:
        maps = np.stack([np.pad(MAPS[0][1][:20, :20], 16) for _ in range(10)]).astype(np.int32)
        for row in range(len(maps)):
            maps[row, 26, 26 + row] = 2
    if labels is None:
        labels = np.concatenate([np.zeros((1, 8)), np.eye(8), [[1, 0, 0, 0, 0, 0, 1, 0]]]).astype(np.int32)
    np.savez(folder / "Wafer_Map_Datasets.npz", maps, labels)
    return folder / "Wafer_Map_Datasets.npz"


def test_maps_of_mixedwm38_are_read_and_those_of_several_patterns_left_out(tmp_path: Path) -> None:
    data = read(str(mixed(tmp_path)))

    assert data.labels.tolist() == [
        "none",
        *("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random"),
    ]
    assert data.grids[3].shape == (52, 52)
    assert data.grids[3].dtype == np.uint8
    assert data.names[8] == "row 8"
    assert data.unread == ("left out 1 of 10 maps, which show several patterns: a map has one label here",)


def test_the_fourth_value_of_mixedwm38_is_read_as_passed_and_told_of(tmp_path: Path) -> None:
    maps = np.ones((10, 52, 52), dtype=np.uint8)
    maps[2, 5, 5:7] = 3
    data = read(str(mixed(tmp_path, maps)))
    assert data.grids[2].max() == 1
    assert data.unread[1] == "read the value 3, which stands for nothing here, as passed in 1 of 9 maps"


@pytest.mark.parametrize(
    ("maps", "labels", "complaint"),
    [
        (np.full((10, 52, 52), 4), None, r"row 0: arr_0 may hold 0 \(outside\), 1 .* and 3 .*, has 4"),
        (np.full((10, 52, 52), -1), None, "row 0: arr_0 may hold .*, has -1"),
        (
            np.zeros((10, 52)),
            None,
            r"arr_0 should be maps as whole numbers \[n, rows, columns\], is float64 of the shape",
        ),
        (np.zeros((0, 52, 52), int), np.zeros((0, 8), int), "there are no maps"),
        (
            np.zeros((9, 52, 52), int),
            None,
            r"arr_1 should be labels as 0 and 1 \[9, 8\], is int32 of the shape \(10, 8\)",
        ),
        (None, np.zeros((10, 9), int), r"arr_1 should be labels as 0 and 1 \[10, 8\]"),
        (None, np.full((10, 8), 2), "row 0: arr_1 may hold 0 and 1, has 2"),
        (None, np.ones((10, 8), int), "all 10 maps show several patterns"),
    ],
)
def test_what_only_looks_like_mixedwm38_is_refused_with_the_row(
    tmp_path: Path, maps: Any, labels: Any, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        read(str(mixed(tmp_path, maps, labels)))


def test_showing_says_what_was_left_out_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    maps = np.stack([np.full((52, 52), 1, np.uint8)] * 10)
    for row in range(3, 10):
        maps[row, 26, row] = 2
    file = mixed(tmp_path, maps)  # rows 0 to 2 are alike, and have three labels

    shown = CliRunner().invoke(app, ["show", str(file)]).stdout
    assert "left out 1 of 10 maps, which show several patterns" in shown
    assert "Training leaves out 3 maps with conflicting labels (row 0, row 1, row 2) and 0 exact duplicates." in shown
    found = json.loads(CliRunner().invoke(app, ["show", str(file), "--json"]).stdout)
    assert len(found["left_out"]) == 1
    assert found["conflicting"] == ["row 0", "row 1", "row 2"]
    converted = CliRunner().invoke(app, ["convert", str(file), str(tmp_path / "out.npz")])
    assert "left out 1 of 10 maps" in converted.stderr


def test_rows_without_a_label_are_told_of(tmp_path: Path) -> None:
    data = read(str(dump(columns(nested=True), tmp_path / "a.pkl")))
    assert data.unread == ("left out 3 of 18 rows, which have no label",)


def test_files_of_a_folder_that_are_no_pictures_are_told_of(tmp_path: Path) -> None:
    write_folder(tmp_path / "maps", read("synthetic:9"))
    assert read(str(tmp_path / "maps")).unread == ()
    (tmp_path / "maps" / "train" / "Loc" / "notes.txt").write_text("seen twice")
    assert read(str(tmp_path / "maps")).unread == ("passed over 1 files that are no pictures",)
