"""Sign a message as the Standard Webhooks specification (standardwebhooks.com) says: HMAC-SHA256 of id, time, body."""

from __future__ import annotations

import base64
import hashlib
import hmac

from service.webhook_secret import decode_secret


def signed_headers(message_id: str, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    """Return the headers of a message that is sent at a time, in seconds since 1970."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(decode_secret(secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
