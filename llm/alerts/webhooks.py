"""Webhooks by the Standard Webhooks scheme: signed, so that the receiver knows that they are ours and unmodified.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime

import httpx2

from llm.models import Account
from llm.secretstore import SecretUnavailable, seal, unseal

SECRET_MARK = "whsec_"  # noqa: S105 - how a secret begins
SECRET_BYTES = 32
ALLOWED_SECRET_BYTES = range(24, 65)
TIMEOUT_SECONDS = 10.0
"""From name lookup to the end of the response's headers, however slowly they arrive."""


class WebhookError(Exception):
    """The receiver didn't accept it; the message says why, without its address, which may contain a secret."""


def ensure_webhook_secret(account: Account) -> str:
    """The account's secret, created on first use. Never a second one, even under concurrent calls.

    Raises WebhookError if LLM_SECRETS_KEY is missing or lost.
    """
    try:
        if not account.webhook_secret:
            sealed = seal(SECRET_MARK + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
            Account.objects.filter(pk=account.pk, webhook_secret="").update(webhook_secret=sealed)
            account.refresh_from_db(fields=["webhook_secret"])
        return unseal(account.webhook_secret)
    except SecretUnavailable as error:
        raise WebhookError(str(error)) from error


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature that the receiver computes too. Raises WebhookError for a malformed secret."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(_key_of(secret), signed, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def post_webhook(url: str, body: bytes, *, secret: str, message_id: str, moment: datetime) -> str:
    """Send JSON to a receiver and return a description of its response. Raises WebhookError unless it is a success.

    message_id: the same for each attempt at a message, so that the receiver can detect duplicates.
    moment: of this attempt.
    """
    timestamp = int(moment.timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "llm-gateway",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message_id=message_id, timestamp=timestamp, body=body),
    }
    try:
        status = asyncio.run(_post(url, body, headers))
    except TimeoutError:
        raise WebhookError(f"no answer within {TIMEOUT_SECONDS:g} seconds") from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        # Not its text, which may contain the URL.
        raise WebhookError(f"no answer: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise WebhookError(f"answered {status}")
    return f"answered {status}"


async def _post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The response's status. Its body isn't read. Raises TimeoutError."""
    # asyncio's timeout: the client's own restart with each byte. trust_env: no proxy and no credentials of ours.
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=None) as client,
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        return response.status_code


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_MARK), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in ALLOWED_SECRET_BYTES or not secret.startswith(SECRET_MARK):
        raise WebhookError(f"its secret must be {SECRET_MARK} followed by 24 to 64 bytes in base64")
    return key
