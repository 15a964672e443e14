"""A bridge deletes by age what its settings say, beside its other work."""

from pathlib import Path

from fabwafer.records import Records, migrate
from tests.support.nats_servers import NatsServer
from tests.support.records import predicted, shot
from tests.support.running import Bridge, wait_until

NOWHERE = "http://127.0.0.1:1"
FAR_AHEAD = 2**53
"""Received then, in ms: never too old."""


def test_old_wafers_are_deleted_and_of_old_reviewed_ones_nothing(tmp_path: Path, nats_server: NatsServer) -> None:
    database = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(database)
    bridge = Bridge(
        tmp_path / "bridge",
        nats_url=nats_server.url,
        inference_url=NOWHERE,
        database_url=database,
        only="record",
        image_retention_days=1,
        record_retention_days=1,
    )
    with Records(database) as records:
        for imgid, received in (("old", 1), ("reviewed", 1), ("new", FAR_AHEAD)):
            records.store_shots([shot(imgid=imgid, received=received)])
            records.store_predictions([predicted("none", imgid=imgid, received=received)])
        records.add_review("fab1", "cam1", "reviewed", label="Loc", reviewer="kim")
        try:
            bridge.start()
            wait_until(lambda: records.wafer("fab1", "cam1", "old") is None, bridge.last_words)
        finally:
            bridge.stop()
        left = {one.imgid: records.image("fab1", "cam1", one.imgid) for one in records.wafers()}
    assert left == {"reviewed": b"a file", "new": b"a file"}
