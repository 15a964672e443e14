"""`fabwafer rollout`: brings a cluster's model servers to the champion and the candidate."""

import asyncio

from fabwafer.commands.app import Commands

app = Commands()


@app.command()
async def rollout() -> None:
    """Let a cluster's model servers follow champion and candidate in the records. `fabwafer up` does it by itself.

    Settings come from the environment, FABWAFER_NAMESPACE and so on: see docs/rollout.md.
    """
    import structlog

    from fabwafer.models.cluster import Cluster, connect
    from fabwafer.models.kubernetes import ClusterReconciler, RolloutSettings
    from fabwafer.records import Records
    from fabwafer.service.health import HealthServer
    from fabwafer.service.logs import configure
    from fabwafer.service.process import end, first_of, until_signal

    settings = RolloutSettings.read()
    cluster = Cluster(connect(), settings.namespace, settings.kind)
    configure()
    log = structlog.get_logger()

    async def run(stopping: asyncio.Event) -> None:
        with Records(settings.records_url) as records:
            reconciler = ClusterReconciler(records, cluster, log.info, ready_seconds=settings.ready_seconds)
            health = HealthServer(lambda: reconciler.unready)
            log.info("metrics", address=await health.start(settings.metrics_host, settings.metrics_port))
            work = asyncio.create_task(reconciler.run())
            await first_of(stopping, work)
            await end([work])
            await health.stop()

    await until_signal(run)
