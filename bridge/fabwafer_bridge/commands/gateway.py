"""`fabwafer gateway`: joins the devices on another MQTT broker to the bus."""

import asyncio
import signal

import typer

app = typer.Typer()


@app.command()
def gateway() -> None:
    """Carry images and predictions from another MQTT broker, such as Mosquitto or EMQX, and the cluster's answers back.

    Settings come from the environment: FABWAFER_EXTERNAL_BROKER_URL, FABWAFER_NATS_URL and more, see docs/gateway.md.
    """
    from pydantic import ValidationError

    from fabwafer.service.logs import configure
    from fabwafer_bridge.gateway import Gateway, GatewaySettings

    try:
        settings = GatewaySettings()
    except ValidationError as error:
        wrong = [f"FABWAFER_{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors()]
        raise SystemExit("; ".join(wrong)) from None
    configure()

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await Gateway(settings).run(stopping)

    asyncio.run(run())
