"""`fabwafer gateway`: connects devices on an external MQTT broker to the bus."""

from fabwafer.commands.app import Commands

app = Commands()


@app.command()
async def gateway() -> None:
    """Carry images and predictions from an external MQTT broker, such as Mosquitto or EMQX, and the answers back.

    Settings come from the environment: FABWAFER_EXTERNAL_BROKER_URL, FABWAFER_NATS_URL and more, see docs/gateway.md.
    """
    from fabwafer.service.logs import configure
    from fabwafer.service.process import until_signal
    from fabwafer_bridge.gateway import Gateway, GatewaySettings

    settings = GatewaySettings.read()
    configure()
    await until_signal(Gateway(settings).run)
