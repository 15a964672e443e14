"""Pods that die under load: nothing is lost, nothing doubled."""

from collections.abc import AsyncIterator
from pathlib import Path

import kr8s.asyncio
import pytest
import pytest_asyncio
from load import camera
from namespaces import new_namespace
from release import Release

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def release(cluster: Path) -> AsyncIterator[Release]:
    """A release on a namespace of its own, ready."""
    api = await kr8s.asyncio.api(kubeconfig=str(cluster))
    async with new_namespace(api) as namespace:
        made = Release(namespace)
        await made.install()
        yield made


@pytest.mark.parametrize("part", ["predictor", "bridge", "nats", "postgresql"])
async def test_a_pod_that_is_killed_under_load_loses_nothing(release: Release, part: str) -> None:
    async with camera(release, f"fab-{part}", rate=20) as ledger:
        [pod] = await release.pods(part)
        await pod.delete(force=True)
        await release.until_replaced(part, pod)
    await ledger.check(release)
