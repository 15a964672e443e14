"""The registry of devices and their credentials: the key-value bucket `devices` on the bus."""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Final, Self

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig
from nats.js.errors import (
    BucketNotFoundError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
)
from nats.js.kv import KeyValue
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fabwafer.errors import FabwaferError
from fabwafer.messages.bodies import Name
from fabwafer.messages.topics import SMOKE_TEST_FAB

BUCKET: Final = "devices"
_STREAM: Final = f"KV_{BUCKET}"
_PREFIX: Final = f"$KV.{BUCKET}."
_NO_MESSAGE: Final = 10037
"""The server's error code for a message that is not in the stream."""
CHANGES: Final = f"{_PREFIX}>"
"""The subjects on which changes of devices are published."""
APPLIED: Final = "fabwafer-device-auth.applied"
"""The subject on which every device-auth answers with the revision of the registry that its server has."""

BCRYPT_COST: Final = 4
"""The lowest there is. A password of 128 random bits needs no slow hash, and the server checks one for every device
that connects: at cost 11, 200 devices that reconnect at once lock each other out."""

_ANSWERS_WITHIN: Final = 0.3

_name: TypeAdapter[str] = TypeAdapter(Name)

log = structlog.get_logger()


class DeviceError(FabwaferError):
    """A device cannot be changed as asked for. The text says why, and what to do instead."""


class DevicesUnavailableError(FabwaferError):
    """There is no registry of devices on the bus yet: device-auth has not started."""


class Device(BaseModel):
    """A device that may connect, as stored in the registry."""

    fab: Name
    camera: Name
    hash: Annotated[str, Field(pattern=r"^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$")]
    """bcrypt hash of the password; the password itself is not stored."""
    created: int
    """Milliseconds since 1970."""

    @property
    def user(self) -> str:
        """Its user name for MQTT, unique since names hold no dot."""
        return f"{self.fab}.{self.camera}"


class Credentials(BaseModel):
    """User and password of a device."""

    user: str
    password: str


class Devices:
    """The registry of devices. Changes are safe beside concurrent changes by others."""

    def __init__(self, client: Client, bucket: KeyValue) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    async def make(cls, client: Client, *, replicas: int) -> Self:
        """Open the registry, and make it where there is none.

        Raises:
            nats.errors.Error: The bus is not ready; try again.
        """
        js = client.jetstream()
        try:
            bucket = await js.key_value(BUCKET)
        except BucketNotFoundError:
            bucket = await js.create_key_value(KeyValueConfig(bucket=BUCKET, replicas=replicas))
        return cls(client, bucket)

    @classmethod
    async def open(cls, client: Client) -> Self:
        """Open the registry.

        Raises:
            DevicesUnavailableError: There is none yet.
        """
        try:
            return cls(client, await client.jetstream().key_value(BUCKET))
        except (BucketNotFoundError, NotFoundError):
            raise DevicesUnavailableError("there is no registry of devices yet: is device-auth running?") from None

    async def add(self, fab: str, camera: str) -> Credentials:
        """Add a device, and return its credentials.

        Raises:
            DeviceError: A name is not allowed, or the device exists.
        """
        if fab == SMOKE_TEST_FAB:
            raise DeviceError(
                f"no fab can be called {SMOKE_TEST_FAB}: the name is that of `fabwafer smoke-test`, whose images raise "
                "no alert and leave no record; choose another"
            )
        return await self._add(fab, camera)

    async def add_for_smoke_test(self, camera: str) -> Credentials:
        """Add a device of the fab that only `fabwafer smoke-test` uses, and return its credentials.

        Raises:
            DeviceError: The name is not allowed, or the device exists.
        """
        return await self._add(SMOKE_TEST_FAB, camera)

    async def _add(self, fab: str, camera: str) -> Credentials:
        key = _key(fab, camera)
        credentials, device = _fresh(fab, camera, _now())
        try:
            await self._bucket.create(key, device)
        except KeyWrongLastSequenceError:
            raise DeviceError(f"device {key} exists: give it a new password with rotate, or revoke it first") from None
        return credentials

    async def rotate(self, fab: str, camera: str) -> Credentials:
        """Give a device a new password in place of the old one.

        Raises:
            DeviceError: There is no such device, or somebody else changed it at the same time.
        """
        key = _key(fab, camera)
        created, revision = await self._found(key)
        credentials, device = _fresh(fab, camera, created)
        try:
            await self._bucket.update(key, device, last=revision)
        except KeyWrongLastSequenceError:
            raise DeviceError(
                f"device {key} was changed by somebody else at the same time: look, and try again"
            ) from None
        return credentials

    async def revoke(self, fab: str, camera: str) -> None:
        """End a device's credentials.

        Raises:
            DeviceError: There is no such device.
        """
        key = _key(fab, camera)
        await self._found(key)
        await self._bucket.delete(key)

    async def take_over(self, devices: Sequence[Device]) -> list[str]:
        """Add devices with the credentials that they have from another registry.

        Returns:
            The users that are here already: they keep the credentials that they have here, unless those are the same.
        """
        here = {device.user: device for device in await self.all()}
        for device in devices:
            if device.user not in here:
                await self._bucket.create(device.user, device.model_dump_json().encode())
        return [device.user for device in devices if here.get(device.user, device).hash != device.hash]

    async def all(self) -> list[Device]:
        """Return all devices, sorted. An entry that is no device is logged and left out."""
        copy = self.copy()
        await copy.catch_up()
        return copy.devices

    def copy(self) -> "DevicesCopy":
        """Return a copy of the registry that is empty until it catches up."""
        return DevicesCopy(self._client.jetstream())

    async def revision(self) -> int:
        """Return the registry's revision, which grows with every change."""
        info = await self._client.jetstream().stream_info(_STREAM)
        return info.state.last_seq

    async def until_applied(self, seconds: float) -> None:
        """Wait until every running device-auth has applied all changes made so far.

        That of a server that is down does not answer; it applies all changes before its server's devices reconnect.

        Raises:
            DeviceError: One has not within this time.
        """
        revision = await self.revision()
        deadline = time.monotonic() + seconds
        while True:
            answers = await self._ask_device_auths()
            if answers and all(answer >= revision for answer in answers):
                return
            if time.monotonic() > deadline:
                late = "a server has not applied it" if answers else "no server applied it"
                hint = "see the log of device-auth" if answers else "is device-auth running?"
                raise DeviceError(f"the change is stored, but {late} within {seconds:.0f} s: {hint}")
            await asyncio.sleep(0.05)

    async def _ask_device_auths(self) -> list[int]:
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        answers = []
        try:
            await self._client.publish(APPLIED, b"", reply=inbox)
            deadline = time.monotonic() + _ANSWERS_WITHIN
            while (left := deadline - time.monotonic()) > 0:
                message = await subscription.next_msg(timeout=left)
                if not message.data:  # no device-auth is running
                    break
                answers.append(int(json.loads(message.data)["revision"]))
                # A server on its own has one device-auth, so no other answer is waited for.
                if "cluster" not in self._client._server_info:
                    break
        except TimeoutError:
            pass
        finally:
            await subscription.unsubscribe()
        return answers

    async def _found(self, key: str) -> tuple[int, int]:
        """Return when a device was created, and its newest revision."""
        try:
            entry = await self._bucket.get(key)
        except KeyNotFoundError:
            raise DeviceError(f"there is no device {key}: see `fabwafer device list`") from None
        assert entry.revision is not None  # noqa: S101 - what was read has one
        return Device.model_validate_json(entry.value or b"").created, entry.revision


def revoked(change: Msg) -> tuple[str, str] | None:
    """Return fab and camera of the device that a change (a message on `CHANGES`) revokes; None for any other change."""
    fab, _, camera = change.subject.removeprefix(_PREFIX).partition(".")
    return (fab, camera) if "KV-Operation" in (change.headers or {}) else None


class DevicesCopy:
    """A copy of the registry that catches up by reading the changes it has not seen, one by one in their order.

    The client's watcher would be less code, but while others add devices its first listing is sometimes empty
    (nats-py 2.16.0: 5 of 903), and a device that is missing here is disconnected.
    """

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._devices: dict[str, Device] = {}
        self.revision = 0
        """The revision of this copy."""

    @property
    def devices(self) -> list[Device]:
        """The devices, sorted by fab and camera."""
        return sorted(self._devices.values(), key=lambda device: (device.fab, device.camera))

    async def catch_up(self) -> bool:
        """Read what changed, and return whether anything did.

        Raises:
            nats.errors.Error: The bus is away, or the registry is gone.
        """
        before = self.revision
        while True:
            try:
                change = await self._js.get_msg(_STREAM, seq=self.revision + 1, subject=CHANGES, next=True)
            except NotFoundError as error:
                if error.err_code != _NO_MESSAGE:
                    raise
                return self.revision != before
            assert change.subject is not None  # noqa: S101 - what was read has them
            assert change.seq is not None  # noqa: S101
            self._change(
                change.subject.removeprefix(_PREFIX), change.data, deleted="KV-Operation" in (change.headers or {})
            )
            self.revision = change.seq

    def _change(self, key: str, value: bytes | None, *, deleted: bool) -> None:
        self._devices.pop(key, None)
        if deleted:
            return
        try:
            device = Device.model_validate_json(value or b"")
        except ValidationError as error:
            log.error("not a device", key=key, error=str(error))
            return
        if device.user == key:
            self._devices[key] = device
        else:
            log.error("not a device", key=key, error=f"holds the device {device.user}")


def _key(fab: str, camera: str) -> str:
    for field, value in (("fab", fab), ("camera", camera)):
        try:
            _name.validate_python(value)
        except ValidationError:
            raise DeviceError(f"{field}: expected 1 to 64 letters, digits, '_' or '-', got {value!r}") from None
    return f"{fab}.{camera}"


def _fresh(fab: str, camera: str, created: int) -> tuple[Credentials, bytes]:
    import bcrypt

    password = secrets.token_hex(16)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    device = Device(fab=fab, camera=camera, hash=hashed, created=created)
    return Credentials(user=device.user, password=password), device.model_dump_json().encode()


def _now() -> int:
    return round(time.time() * 1000)
