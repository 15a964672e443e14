"""The users of a nats-server's account for the fab: the file that its configuration includes.

`users.conf` beside this module is the one without devices, which a server needs to start for the first time.
"""

from collections.abc import Iterable
from typing import Final

from fabwafer_bridge.devices import Device

# The server reads the bridge's credentials from its environment, so that no file holds them.
_BRIDGE: Final = "  {user: $FABWAFER_BRIDGE_USER, password: $FABWAFER_BRIDGE_PASSWORD}\n"


def users(devices: Iterable[Device]) -> str:
    """Return the content of the users file: the bridge's user, then the devices'."""
    return "users = [\n" + _BRIDGE + "".join(user_line(device) for device in devices) + "]\n"


def user_line(device: Device) -> str:
    """Return the line of the users file for a device, with its permissions.

    The server needs no more permissions than these for its MQTT sessions. In MQTT `name/#` covers `name` itself, so a
    device that subscribes to all of its own subjects needs that one as well. With publish permissions alone it could
    read everything.
    """
    own = f"fabwafer.{device.fab}.{device.camera}"
    return (
        f'  {{user: "{device.user}", password: "{device.hash}", allowed_connection_types: ["MQTT"], permissions: '
        f'{{publish: ["{own}.img.*", "{own}.prediction.*"], subscribe: ["{own}", "{own}.>"]}}}}\n'
    )
