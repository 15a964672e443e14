"""A bridge that the bus throws out says that it is not ready, and comes back by itself."""

from pathlib import Path

import pytest

from fabwafer.records import migrate
from tests.support.nats_servers import NatsServer
from tests.support.running import Bridge, unready, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]


def test_a_bridge_whose_user_is_gone_says_so_and_works_when_it_is_back(tmp_path: Path, nats_server: NatsServer) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    # It asks no model server before there are images.
    bridge = Bridge(tmp_path, nats_url=nats_server.url, inference_url="http://127.0.0.1:9", database_url=url)
    try:
        bridge.start()
        users = nats_server.users_file.read_text()
        nats_server.users_file.write_text('users = [ {user: nobody, password: "x"} ]\n')
        nats_server.reload()
        wait_until(lambda: unready(bridge.url) == "the bus is away", "the bridge takes itself for ready")
        nats_server.users_file.write_text(users)
        nats_server.reload()
        bridge.wait_ready()
    finally:
        bridge.stop()
