"""The secret of webhooks, in the form of the Standard Webhooks specification."""

from __future__ import annotations

import base64
import binascii

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64


def decode_secret(secret: str) -> bytes:
    """Decode a secret, `whsec_` and 24 to 64 bytes in base64. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(
            f"the secret must be {PREFIX} and {MIN_BYTES} to {MAX_BYTES} bytes in base64; create one with "
            f'`echo "{PREFIX}$(openssl rand -base64 32)"`'
        )
    return key
