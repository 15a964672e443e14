"""How commands open the records and the bus of a system."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fabwafer.commands.system import MQTT_CA_VARIABLE, address
from fabwafer.errors import FabwaferError

if TYPE_CHECKING:
    from nats.aio.client import Client

    from fabwafer.records import Records
    from fabwafer.service.listener import Listener


class BusUnavailableError(FabwaferError):
    """The bus did not answer. The text says what happened."""


@contextmanager
def open_records(data: Path | None) -> "Iterator[Records]":
    """Open the records of a system, and check that their tables fit.

    Args:
        data: The data directory that a command was given.

    Raises:
        SystemNotFoundError: There is no such system.
        SchemaError: The tables are not those of this program.
        RecordsUnavailableError: The database does not answer.
    """
    from fabwafer.records import Records

    with Records(address("database_url", data)) as records:
        records.check()
        yield records


def mqtt_listener(data: Path | None) -> "Listener":
    """Return where a system's devices connect.

    Args:
        data: The data directory that a command was given.

    Raises:
        SystemNotFoundError: There is no such system.
        ListenerError: Its address, or the file of $FABWAFER_MQTT_CA_FILE, cannot be used.
    """
    from fabwafer.service.listener import read_listener

    ca_file = os.environ.get(MQTT_CA_VARIABLE)
    return read_listener(address("mqtt_url", data), Path(ca_file) if ca_file else None)


@asynccontextmanager
async def open_bus(data: Path | None) -> "AsyncIterator[Client]":
    """Connect to the bus of a system.

    Args:
        data: The data directory that a command was given.

    Raises:
        SystemNotFoundError: There is no such system.
        BusUnavailableError: The bus does not answer, or stopped answering or refused something within the body.
    """
    from nats.errors import Error as NatsError
    from nats.js.errors import APIError

    from fabwafer.commands.bus import PatientClient
    from fabwafer.service.addresses import split_credentials

    bus = split_credentials(address("nats_url", data))
    client = PatientClient()
    try:
        await client.connect(
            bus.servers,
            user=bus.user,
            password=bus.password,
            allow_reconnect=False,
            connect_timeout=5,
            error_cb=_ignore,
        )
    except (NatsError, OSError) as error:
        raise BusUnavailableError(f"the bus did not answer: {error!r}") from None
    try:
        yield client
    except APIError as error:
        raise BusUnavailableError(f"the bus refuses it: {error.description or repr(error)}") from None
    except (NatsError, TimeoutError) as error:
        raise BusUnavailableError(f"the bus did not answer: {error!r}") from None
    finally:
        with contextlib.suppress(NatsError, OSError):
            await client.close()


async def _ignore(_: Exception) -> None:
    """Errors of the connection are raised by the call that they concern; by default the client logs them as well."""
