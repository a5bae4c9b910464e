"""Safe defaults at the start: no public address without a valid key, and a key from the first start."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from urllib.parse import quote

import structlog

from service.addresses import is_loopback
from service.errors import MaskloopError
from service.keys.api_key import KEY_FILE, configured_digests, write_local_key
from service.keys.key_ring import KeyRing
from service.keys.key_store import KeyStore, is_valid, open_keys
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

FIRST_KEY = "first"


class PublicWithoutKey(MaskloopError):  # noqa: N818 - raised at the start, never over HTTP
    """The service would listen on a public address without a valid key."""


def check_exposure(settings: Settings) -> None:
    """Refuse to listen on a public address if no caller could authenticate; an empty keys table is allowed.

    Raises PublicWithoutKey if all keys are revoked or expired and none is configured, or KeyFileInvalid.
    """
    if configured_digests(settings) or settings.anonymous_scopes or is_loopback(settings.host):
        return
    with open_keys(settings) as keys:
        rows = keys.list()
    if rows and not any(is_valid(row) for row in rows):
        raise PublicWithoutKey(
            f"{settings.host or 'every address'} is reachable from other machines, and every key is revoked or expired."
            " Create one with `maskloop keys create NAME --scope all` (with the same --data-dir), set "
            "MASKLOOP_API_KEY, or omit --host and MASKLOOP_HOST to serve this machine only."
        )


def create_first_key(settings: Settings, ring: KeyRing, store: KeyStore) -> str | None:
    """Create a key with every scope, if none was ever created or configured, and store its text in the data folder.

    Returns the text, or None. Of several processes that start at once, one creates the key.
    """
    if ring.any_known:
        return None
    text = store.create_first(FIRST_KEY, partial(write_local_key, settings.data_dir))
    ring.refresh()
    return text


def print_first_key(settings: Settings, text: str, url: str) -> None:
    """Print the new key, with a link that logs a browser in; in JSON logs, only where to find it."""
    file = settings.data_dir / KEY_FILE
    show = f"maskloop keys show --data-dir {shlex.quote(str(settings.data_dir))}"
    if settings.log_format == "json":
        log.info("created an API key with every scope", file=str(file), show=show)
        return
    sys.stderr.write(
        f"Created an API key with every scope and stored it in {file}; `{show}` prints it again.\n"
        f"To use it in a browser, open:\n    {url}/?key={quote(text, safe='')}\n"
    )
    sys.stderr.flush()
