"""The life of a release under load: upgraded, rolled back, uninstalled, installed again on the data that stayed."""

import pytest
from load import camera
from namespaces import Namespace
from release import Release

pytestmark = pytest.mark.timeout(3600)

_ALL_PODS_ROLL = ("--set", "commonLabels.rolled=yes")


async def uids(release: Release) -> set[str]:
    """Return the identities of the pods that run, but for those that are ending."""
    parts = ("bridge", "nats", "postgresql", "predictor", "rollout")
    return {str(pod.metadata.uid) for part in parts for pod in await release.pods(part)}


async def test_an_upgrade_and_a_rollback_under_load_lose_nothing(namespace: Namespace) -> None:
    release = Release(namespace)
    await release.install()
    before = await uids(release)
    async with camera(release, "fab1", rate=20) as ledger:
        await release.upgrade(*_ALL_PODS_ROLL)
        assert not before & await uids(release), "they were not replaced"
        await release.helm("rollback", "fabwafer", "1", "--wait", "--timeout", "10m")
        await release.until_ready()
    await ledger.check(release)


async def test_data_outlive_the_release(namespace: Namespace) -> None:
    release = Release(namespace)
    await release.install()
    async with camera(release, "fab1", rate=20, most=20) as ledger:
        pass
    await ledger.check(release)
    devices = await release.fabwafer("device", "list")
    history = await release.fabwafer("model", "history")
    await release.helm("uninstall", "fabwafer", "--wait")
    assert {one.name for one in await release.objects("persistentvolumeclaims")} == {
        "fabwafer-models",
        "data-fabwafer-nats-0",
        "data-fabwafer-postgresql-0",
    }
    await release.install()
    assert await release.predictions("fab1") == {imgid: ["0.5.1"] for imgid in ledger.acknowledged}
    assert await release.fabwafer("device", "list") == devices
    assert await release.fabwafer("model", "history") == history
    async with camera(release, "fab2", rate=20, most=20) as ledger:
        pass
    await ledger.check(release)
