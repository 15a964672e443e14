"""The workshop's tables and images come into the records once, and change nothing that is there."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.exc import DataError

from fabwafer.imports.die_counts import count_dies
from fabwafer.imports.dynamodb import read_export
from fabwafer.imports.tally import Tally
from fabwafer.imports.workshop import WorkshopImport
from fabwafer.maps.image_file import MAX_BYTES
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.synthetic import sample
from fabwafer.records import Drawing, Filter, ReceivedPrediction, Records, WaferRecord, statement_finder
from tests.support.drawings import UNKNOWN_SCHEMES
from tests.support.records import predicted, shot
from tests.support.workshop import SECONDS, ground_truth, item, map_file, write_lines, write_scan

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
MILLISECONDS = SECONDS * 1000
WHO: dict[str, Any] = {"fab": "faba", "camera": "camera1", "imgid": "img1"}


def run(records: Records, *, exports: tuple[Path, ...] = (), images: Path | None = None) -> Tally:
    tally = Tally(lambda _: None)
    dies = partial(count_dies, set_for=statement_finder(records.drawings()))
    importing = WorkshopImport(records, dies, tally, lambda: None)
    for file in exports:
        importing.import_rows(read_export(file))
    if images is not None:
        importing.import_images(images)
    return tally


def rows(records: Records, folder: Path, *items: dict[str, object] | str) -> Tally:
    return run(records, exports=(write_lines(folder / "a.json.gz", items),))


def the_wafer(records: Records, imgid: str = "img1") -> WaferRecord:
    wafer = records.wafer("faba", "camera1", imgid)
    assert wafer is not None
    return wafer


def write(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_a_prediction_is_stored_as_the_devices_and_read_as_kindly_as_a_message(
    records: Records, tmp_path: Path
) -> None:
    tally = rows(
        records,
        tmp_path,
        item("seconds", timestamp=SECONDS, probability=50.0, prediction="loc", lot="L7", operator="kim"),
        item("claims", source="cluster", wafer=False, review=True, review_reason="unsure"),
        item("text", timestamp=str(SECONDS), probability="0.25"),
        item("milliseconds", timestamp=MILLISECONDS + 7, probability=0.9, prediction="EDGE-RING"),
    )

    assert (tally.new["prediction"], tally.refused) == (4, {})
    [claims] = the_wafer(records, "claims").predictions
    assert (claims.source, claims.wafer, claims.review, claims.review_reason) == ("device", None, None, None)
    [seconds] = the_wafer(records, "seconds").predictions
    assert (seconds.source, seconds.model, seconds.prediction, seconds.probability) == ("device", "unknown", "Loc", 0.5)
    assert (seconds.timestamp, seconds.received) == (MILLISECONDS, MILLISECONDS)
    assert (seconds.context, seconds.extra) == ({"lot": "L7"}, {"operator": "kim"})
    [text] = the_wafer(records, "text").predictions
    assert (text.timestamp, text.probability) == (MILLISECONDS, 0.25)
    [milliseconds] = the_wafer(records, "milliseconds").predictions
    assert (milliseconds.timestamp, milliseconds.prediction) == (MILLISECONDS + 7, "Edge-Ring")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs the workshop's sample messages beside the project")
def test_the_workshops_own_messages_come_in_as_its_rules_would_have_stored_them(
    records: Records, tmp_path: Path
) -> None:
    messages = [json.loads((SAMPLES / f"prediction-img{number}.json").read_text()) for number in (1, 2, 3)]
    image = json.loads((SAMPLES / "image-img3.json").read_text())
    write(tmp_path / "bucket" / "faba" / "camera1" / "img3.png", base64.b64decode(image["bytes"]))
    export = write_lines(tmp_path / "a.json.gz", [item(**message) for message in messages])

    tally = run(records, exports=(export,), images=tmp_path / "bucket")

    assert (tally.new["prediction"], tally.new["image"], tally.uncounted, tally.refused) == (3, 1, 1, {})
    img3 = the_wafer(records, "img3")
    assert (img3.current and img3.current.prediction, img3.timestamp) == ("Loc", 1554134552946)
    assert img3.shots[0].timestamp == 1554134552946
    assert img3.map is None  # the picture is an icon, no wafer map


def test_importing_again_changes_nothing(records: Records, tmp_path: Path) -> None:
    future = 32_503_680_000  # a device's clock may be wrong
    exports = (
        write_scan(tmp_path / "p.json", [item("img1"), item("img2", timestamp=future)]),
        write_scan(tmp_path / "o.json", [ground_truth("img1")]),
    )
    bucket = write(tmp_path / "bucket" / "faba" / "camera1" / "img1.png", map_file()).parents[2]
    first = run(records, exports=exports, images=bucket)
    before = list(records.wafers())

    os.utime(bucket / "faba" / "camera1" / "img1.png", (1, 1))  # as a copy of the folder may have
    second = run(records, exports=exports, images=bucket)

    assert (first.new["prediction"], first.new["image"], first.new["review"]) == (2, 1, 1)
    assert (second.known["prediction"], second.known["image"], second.known["review"]) == (2, 1, 1)
    assert (second.new.total(), second.refused) == (0, {})
    assert list(records.wafers()) == before


def test_history_alerts_nobody(records: Records, tmp_path: Path) -> None:
    rows(records, tmp_path, item(probability=0.99, prediction="Scratch"))

    assert records.count_pending_alerts() == 0
    assert not the_wafer(records).alert


def test_what_the_cluster_predicted_stays_current_and_newest(records: Records, tmp_path: Path) -> None:
    records.store_predictions([predicted("Donut", received=MILLISECONDS + 50_000, **WHO)])

    rows(records, tmp_path, item())

    wafer = the_wafer(records)
    assert (wafer.current and wafer.current.prediction, len(wafer.predictions)) == ("Donut", 2)
    assert wafer.received == MILLISECONDS + 50_000


def test_a_device_that_published_to_both_is_recorded_once(records: Records, tmp_path: Path) -> None:
    sent = predicted("Loc", 0.5, source="device", model="unknown", timestamp=MILLISECONDS, received=9, **WHO)
    records.store_predictions([sent])

    assert rows(records, tmp_path, item()).known["prediction"] == 1
    assert len(the_wafer(records).predictions) == 1


@pytest.mark.parametrize(
    ("bad", "code", "reason"),
    [
        (item("img.1"), "field", "field 'imgid': expected 1 to 64 letters"),
        (item(fab=None), "field", "field 'fab' is missing"),
        (item(timestamp=None), "field", "field 'timestamp' is missing"),
        (item(timestamp="soon"), "field", "field 'timestamp': expected a number"),
        (item(timestamp=-5), "field", "field 'timestamp': expected seconds or milliseconds since 1970"),
        (item(probability=150), "field", "field 'probability': expected 0 to 1, or percent up to 100"),
        (item(prediction=""), "field", "field 'prediction': expected the name of a class"),
        (item(prediction=5), "field", "field 'prediction': expected the name of a class"),
        (item(prediction=None), "field", "expected a field 'prediction', 'ground_truth' or 'bytes'"),
        ({}, "field", "got the fields 'none'"),
        ({**item(), "note": {"S": "\ud800"}}, "field", "half of a surrogate pair"),
        ({**item(), "far": {"N": "1e999"}}, "field", "expected a finite number"),
        ("not JSON", "unreadable", "expected JSON"),
    ],
)
def test_a_bad_row_is_refused_with_the_reason_and_the_others_come_in(
    records: Records, tmp_path: Path, bad: dict[str, object] | str, code: str, reason: str
) -> None:
    tally = rows(records, tmp_path, item("before"), bad, item("after"))

    assert tally.new["prediction"] == 2
    [((_, found), count)] = tally.refused.items()
    assert (found, count) == (code, 1)
    [refusal] = tally.example.values()
    assert reason in refusal.reason
    assert refusal.place.endswith("a.json.gz:2")


def test_what_the_database_refuses_is_refused_alone(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = records.import_predictions

    def refuse_the_second(received: Sequence[ReceivedPrediction]) -> int:
        if any(one.prediction.imgid == "img2" for one in received):
            raise DataError("", {}, Exception("no"))
        return store(received)

    monkeypatch.setattr(records, "import_predictions", refuse_the_second)
    tally = rows(records, tmp_path, item("img1"), item("img2"), item("img3"))

    assert tally.new["prediction"] == 2
    assert tally.refused == {("prediction", "refused_by_records"): 1}


def test_what_a_database_cannot_store_of_a_row_is_left_out_of_it(records: Records, tmp_path: Path) -> None:
    deep = {"M": {"x": {"N": "1"}}}
    odd = {**item("img2"), "nul": {"S": "a\0b"}, "deep": deep}
    tally = rows(records, tmp_path, item("img1"), odd, ground_truth("img1", "L\0c"), item("img3"))

    assert (tally.new["prediction"], tally.new["review"], tally.refused) == (3, 1, {})


def test_copies_of_a_file_are_one_shot(records: Records, tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "faba" / "camera1"
    for number, name in enumerate(("a", "b")):
        file = write(folder / name / "img1.png", map_file())
        os.utime(file, (SECONDS + number, SECONDS + number))
    records.store_shots([shot(**WHO)])  # without a prediction, whose time both would take

    assert run(records, images=tmp_path / "bucket").new["image"] == 1
    assert len(the_wafer(records).shots) == 2


def test_the_buckets_images_become_shots_and_their_dies_are_counted(records: Records, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    write(bucket / "faba" / "camera1" / "img1.png", map_file())
    write(bucket / "faba" / "camera1" / "alone.PNG", map_file(1))
    os.utime(bucket / "faba" / "camera1" / "alone.PNG", (SECONDS + 60, SECONDS + 60))

    tally = run(records, exports=(write_scan(tmp_path / "p.json", [item("img1")]),), images=bucket)

    assert (tally.new["image"], tally.uncounted, tally.refused) == (2, 0, {})
    wafer = the_wafer(records)
    assert (wafer.timestamp, wafer.shots[0].received) == (MILLISECONDS, MILLISECONDS)
    assert wafer.map is not None
    assert wafer.map.failed > 0
    assert records.image("faba", "camera1", "img1") == map_file()
    alone = the_wafer(records, "alone")
    assert (alone.timestamp, alone.predictions) == (MILLISECONDS + 60_000, ())


def test_counts_come_with_images_that_are_imported_later(records: Records, tmp_path: Path) -> None:
    rows(records, tmp_path, item("img1"))
    assert the_wafer(records).map is None

    run(records, images=write(tmp_path / "bucket" / "faba" / "camera1" / "img1.png", map_file()).parents[2])
    assert the_wafer(records).map is not None


def test_counts_of_the_model_server_stay(records: Records, tmp_path: Path) -> None:
    counts = {"rows": 3, "columns": 3, "passed": 5, "failed": 1, "regions": 1, "largest": 1}
    records.store_predictions([predicted(map=counts, received=1, **WHO)])
    rows(records, tmp_path, item("img1"))

    run(records, images=write(tmp_path / "bucket" / "faba" / "camera1" / "img1.png", map_file()).parents[2])
    found = the_wafer(records).map
    assert found is not None
    assert found.model_dump() == counts


def test_a_file_outside_of_its_cameras_folder_belongs_to_the_only_wafer_of_its_imgid(
    records: Records, tmp_path: Path
) -> None:
    rows(records, tmp_path, item("one"), item("two"), item("two", camera="camera2"))
    for name in ("one", "two", "none"):
        write(tmp_path / "flat" / f"{name}.png", map_file())

    tally = run(records, images=tmp_path / "flat")

    assert (tally.new["image"], tally.refused) == (1, {("image", "unknown_wafer"): 2})
    assert len(the_wafer(records, "one").shots) == 1
    assert "got 0 in the records" in tally.example["image", "unknown_wafer"].reason


def test_a_bad_image_is_refused_with_the_reason_and_the_others_come_in(records: Records, tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "faba" / "camera1"
    write(folder / "a.png", map_file())
    write(folder / "b.png", map_file()[:100])
    write(folder / "c.png", b"")
    write(folder / "d.png", b"x" * (MAX_BYTES + 1))
    write(folder / "e.f.png", map_file())
    write(folder / "g.txt", b"notes")
    (folder / "h.png").symlink_to(tmp_path / "absent")
    write(tmp_path / "bucket" / "fab a" / "camera1" / "i.png", map_file())
    write(Path(os.fsdecode(os.fsencode(tmp_path / "bucket") + b"/fab\xe9/camera1/j.png")), map_file())
    write(folder / "z.png", map_file(1))

    tally = run(records, images=tmp_path / "bucket")

    assert tally.new["image"] == 2
    assert tally.refused == {
        ("image", "truncated"): 1,
        ("image", "unreadable"): 2,  # without bytes, and the link
        ("image", "too_large"): 1,
        ("image", "name"): 4,  # the dot, the text, the space, and what is no UTF-8
    }


def test_an_image_in_the_row_itself_is_a_shot_as_well(records: Records, tmp_path: Path) -> None:
    encoded = base64.b64encode(map_file()).decode()
    tally = rows(
        records,
        tmp_path,
        {**item("text", lot="L1"), "bytes": {"S": encoded}},
        {**item("binary", prediction=None, probability=None), "bytes": {"B": encoded}},
        {**item("broken"), "bytes": {"S": "no base64!"}},
        {**item("number"), "bytes": {"N": "5"}},
    )

    assert (tally.new["prediction"], tally.new["image"]) == (3, 2)
    assert tally.refused == {("image", "base64"): 1, ("image", "field"): 1}
    wafer = the_wafer(records, "text")
    assert (wafer.shots[0].context, wafer.shots[0].extra) == ({"lot": "L1"}, {})
    assert wafer.map is not None
    assert records.image("faba", "camera1", "binary") == map_file()


def test_colours_that_are_set_for_a_camera_count(records: Records, tmp_path: Path) -> None:
    [(_, grid)] = sample(0, 1)
    outside, passed, failed = UNKNOWN_SCHEMES["white, blue, yellow"]
    file = tmp_path / "bucket" / "faba" / "camera1" / "img1.png"
    file.parent.mkdir(parents=True)
    pixels = np.array([outside, passed, failed], np.uint8)[grid].repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(pixels).save(file)
    rows(records, tmp_path, item("img1"))

    assert run(records, images=tmp_path / "bucket").uncounted == 1
    assert the_wafer(records).map is None

    stated = StatedColours.model_validate({"passed": ["#0000ff"], "failed": ["#ffff00"]})
    records.set_drawing(Drawing("faba", "camera1", stated))
    run(records, images=tmp_path / "bucket")
    counts = the_wafer(records).map
    assert counts is not None
    assert counts.failed == int((grid == 2).sum())


def test_a_ground_truth_becomes_a_review(records: Records, tmp_path: Path) -> None:
    rows(records, tmp_path, item("img1"))
    tally = rows(
        records,
        tmp_path,
        ground_truth("img1", "scratch", timestamp=SECONDS + 20),
        ground_truth("img1", "Donut", timestamp=SECONDS + 10),
        ground_truth("absent"),
    )

    assert (tally.new["review"], tally.refused) == (2, {("review", "unknown_wafer"): 1})
    reviews = the_wafer(records).reviews
    assert [(one.label, one.reviewer, one.time) for one in reviews] == [
        ("Donut", "import", MILLISECONDS + 10_000),
        ("Scratch", "import", MILLISECONDS + 20_000),
    ]
    assert records.count(Filter(reviewed=True)) == 1


def test_a_later_review_goes_on_to_count(records: Records, tmp_path: Path) -> None:
    rows(records, tmp_path, item("img1"))
    records.add_review("faba", "camera1", "img1", label="Center", reviewer="kim")

    tally = rows(records, tmp_path, ground_truth("img1"))

    assert tally.refused == {("review", "superseded"): 1}
    [review] = the_wafer(records).reviews
    assert review.label == "Center"


def test_what_came_by_mqtt_keeps_its_shot(records: Records, tmp_path: Path) -> None:
    records.store_shots([shot(map_file(), timestamp=MILLISECONDS - 3, received=MILLISECONDS + 5, **WHO)])

    tally = run(records, images=write(tmp_path / "bucket" / "faba" / "camera1" / "img1.png", map_file()).parents[2])

    assert tally.known["image"] == 1
    [stored] = the_wafer(records).shots
    assert (stored.timestamp, stored.received) == (MILLISECONDS - 3, MILLISECONDS + 5)


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from fabwafer.commands.imports import app
app(["aws", *sys.argv[1:], "--json"], standalone_mode=False)
"""


def test_tables_need_no_numpy_and_images_say_so_before_anything_is_imported(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    database = tmp_path / "records.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    environment = {**os.environ, "FABWAFER_DATABASE_URL": f"sqlite:///{database}"}
    export = write_lines(tmp_path / "a.json.gz", [item()])

    def imported(*words: Path | str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_NUMPY, *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with_images = imported(export, "--images", tmp_path)
    assert "ModuleNotFoundError" in with_images.stderr
    with Records(environment["FABWAFER_DATABASE_URL"]) as records:
        assert records.count() == 0
    assert imported(export).returncode == 0


MEASURED = """
import resource, sys
sys.argv = ["fabwafer", "import", "aws", sys.argv[1], "--json"]
from fabwafer.commands.imports import app
try:
    app(["aws", sys.argv[3], "--json"], standalone_mode=False)
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_hundred_thousand_rows_come_in_without_filling_the_memory(migrated_sqlite: Path, tmp_path: Path) -> None:
    database = tmp_path / "records.db"
    database.write_bytes(migrated_sqlite.read_bytes())
    environment = {**os.environ, "FABWAFER_DATABASE_URL": f"sqlite:///{database}"}

    def peak(count: int) -> int:
        items = (item(f"img{number}") if number % 10 else "broken" for number in range(count))
        export = write_lines(tmp_path / f"{count}.json.gz", items)
        command = [sys.executable, "-c", MEASURED, str(export)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        *refused, summary, kilobytes = done.stdout.splitlines()
        assert len(refused) == count // 10
        assert json.loads(summary)["predictions"]["refused"] == 0
        return int(kilobytes)

    few, many = peak(2_000), peak(100_000)
    assert many < few + 30_000
    with Records(environment["FABWAFER_DATABASE_URL"]) as records:
        assert records.count() == 90_000
