"""The webhook for alerts: an HTTP POST, signed, sent again until it is taken."""

import hashlib
import hmac
import time
from typing import Final

import aiohttp

from fabwafer.errors import FabwaferError
from fabwafer.messages.bodies import Alert

SIGNATURE: Final = "X-Fabwafer-Signature"
TIMESTAMP: Final = "X-Fabwafer-Timestamp"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class WebhookError(FabwaferError):
    """The webhook's receiver did not take an alert; to be tried again."""


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Sign a request: HMAC-SHA256 (RFC 2104) in hex over `<timestamp>.<body>`.

    The time stamp is a part of what is signed, so that a receiver can refuse a replayed request.
    """
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhook:
    """Sends alerts to one address.

    Args:
        session: The HTTP session.
        url: Where to.
        secret: Signs the requests; without one they are not signed.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: bytes | None) -> None:
        self._session = session
        self._url = url
        self._secret = secret

    async def send(self, alert: Alert) -> None:
        """Send one alert; the receiver recognises a repetition by the `Idempotency-Key`, the alert's id.

        Raises:
            WebhookError: It was not taken (no answer, or a status other than 2xx).
        """
        body = alert.to_json()
        headers = {"Content-Type": "application/json", IDEMPOTENCY_KEY: alert.id}
        if self._secret is not None:
            headers[TIMESTAMP] = str(int(time.time()))
            headers[SIGNATURE] = signature(self._secret, headers[TIMESTAMP], body)
        try:
            # A redirect is not followed: that would be a GET without the alert, perhaps of a page to sign in on.
            async with self._session.post(
                self._url,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=10),
                allow_redirects=False,
            ) as response:
                if not 200 <= response.status < 300:
                    raise WebhookError(f"{response.status} {response.reason} from {self._url}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WebhookError(f"no answer from {self._url}: {error!r}") from error
