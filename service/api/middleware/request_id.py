"""The name of a request, by which a client, a proxy and our log lines speak of the same one: `X-Request-Id`."""

from __future__ import annotations

import re
import secrets

from starlette.types import Scope

HEADER = b"x-request-id"
# What proxies and clients use as ids, and nothing that could end a line of a log or fill it.
SOUND = re.compile(rb"[A-Za-z0-9._:/+=@~-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The one that the request brought, if it is sound; else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if SOUND.fullmatch(value) else secrets.token_hex(16)
    return secrets.token_hex(16)
