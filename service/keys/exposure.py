"""Who can reach the port, and whether that is safe: without keys the service stays on this machine."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from service.errors import MaskloopError
from service.keys.configured_keys import configured_digests
from service.settings import Settings


class OpenToAll(MaskloopError):  # noqa: N818 - reads as what it would be; said at the start, never over HTTP
    """Others would reach the service, and there is no key."""


def plain_address(host: str) -> IPv4Address | IPv6Address | None:
    """An address, and that of IPv4 where it stands in one of IPv6; None of what is none."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name; of a name that is not known the answer is no."""
    address = plain_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def check_exposure(settings: Settings) -> None:
    """Look, before a port is opened, whether anybody who reaches it could do everything.

    Raises:
        OpenToAll: So it is, and nobody said that it should be.
        KeyUnusable: The file of `MASKLOOP_API_KEY_FILE` holds no key.
    """
    address = settings.published_on or settings.host
    if configured_digests(settings) or settings.anonymous_scopes or is_loopback(address) or _any_key(settings):
        return
    raise OpenToAll(
        f"{address or 'every address'} can be reached by others, and there is no key to keep them out: make one with "
        "`python -m service keys create NAME --scope all` (--data-dir as here), or set MASKLOOP_API_KEY; "
        "--insecure or MASKLOOP_ANONYMOUS_SCOPES=all lets everybody in; without --host and MASKLOOP_HOST only this "
        "machine can ask."
    )


def _any_key(settings: Settings) -> bool:
    from service.keys.key_store import open_keys  # noqa: PLC0415 - a database is seldom needed here, and slow to import

    with open_keys(settings) as keys:
        return bool(keys.list())
