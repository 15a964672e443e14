"""A namespace is backed up under load, lost, and brought back in another one."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import kr8s.asyncio
import pytest
from kr8s.asyncio import Api
from kr8s.asyncio.objects import CronJob, Job, PersistentVolume, PersistentVolumeClaim
from load import camera
from namespaces import FailedError, log, new_namespace, wait
from release import Release

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(1800)]

CLAIM = "fabwafer-backup"

_CONNECT = """
import sys
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
client = mqtt.Client(CallbackAPIVersion.VERSION2)
client.username_pw_set(*sys.argv[1:])
client.on_connect = lambda client, _data, _flags, code, _more: (print(code), client.disconnect())
client.connect("fabwafer-mqtt", 1883)
client.loop_forever()
"""


async def run_backup_job(release: Release, *command: str) -> str:
    """Run a Job made of the chart's CronJob, perhaps with another command; return its log."""
    namespace = release.namespace
    cronjob = await CronJob.get("fabwafer-backup", namespace=namespace.name, api=namespace.api)
    template: dict[str, Any] = cronjob.spec.jobTemplate.to_dict()
    if command:
        template["spec"]["template"]["spec"]["containers"][0]["command"] = list(command)
    template["spec"]["backoffLimit"] = 0
    name = f"backup-{uuid4().hex[:8]}"
    job = await namespace.create(Job, {"metadata": {"name": name}, "spec": template["spec"]})
    await wait(job, "condition=Complete", "condition=Failed")
    [pod] = await namespace.pods(f"job-name={name}")
    text = await log(pod)
    await job.refresh()
    if not dict(job.status).get("succeeded"):
        raise FailedError(f"{command or 'the backup'} failed: {text}")
    return text


async def volume_of_the_backup(api: Api, namespace: str) -> PersistentVolume:
    """Return the volume of the backup, which outlives its namespace from now on."""
    claim = await PersistentVolumeClaim.get(CLAIM, namespace=namespace, api=api)
    volume = await PersistentVolume.get(claim.spec.volumeName, api=api)
    await volume.patch({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    return volume


async def test_a_namespace_is_lost_and_brought_back_in_another_one(cluster: Path) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(cluster))
    backup = ("--set", "backup.enabled=true", "--set", "backup.storage.size=1Gi")
    async with new_namespace(api) as lost:
        first = Release(lost)
        await first.install(*backup)
        async with camera(first, "before", rate=20, most=100) as before:
            pass
        await first.until_recorded("before", before.acknowledged[:1])
        password = await first.add_device("fabx", "cam1")
        await first.fabwafer("threshold", "0.75", "--fab", "fabx")
        await first.fabwafer("review", "before", "camera", before.acknowledged[0], "Donut", "--reviewer", "kim")
        async with camera(first, "during", rate=20) as during:
            print(await run_backup_job(first))
        rollouts = await first.fabwafer("model", "history")
        volume = await volume_of_the_backup(api, lost.name)
    await wait(volume, "jsonpath='{.status.phase}'=Released")

    async with new_namespace(api) as new:
        second = Release(new)
        await volume.patch([{"op": "remove", "path": "/spec/claimRef"}], type="json")
        spec = {
            "accessModes": volume.spec.accessModes,
            "resources": {"requests": {"storage": volume.spec.capacity.storage}},
            "storageClassName": volume.spec.storageClassName,
            "volumeName": volume.name,
        }
        await new.create(PersistentVolumeClaim, {"metadata": {"name": "brought-back"}, "spec": spec})
        await second.install(*backup, "--set", "backup.existingClaim=brought-back")
        await volume.patch({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
        with pytest.raises(FailedError, match="is of another system: restore it into this one"):
            await run_backup_job(second)
        print(await run_backup_job(second, "fabwafer", "restore", "/backup"))

        await before.check(second)
        found = await second.predictions("during")
        assert set(found) <= set(during.acknowledged)
        assert {len(models) for models in found.values()} <= {1}
        assert await second.fabwafer("model", "history") == rollouts
        assert "0.75" in await second.fabwafer("threshold", "--json")
        assert await second.bridge("python", "-c", _CONNECT, "fabx.cam1", password) == "Success\n"
        records = map(json.loads, (await second.fabwafer("records", "--fab", "before", "--json")).splitlines())
        assert [one["imgid"] for one in records if "reviews" in one] == before.acknowledged[:1]
        print(await run_backup_job(second))
