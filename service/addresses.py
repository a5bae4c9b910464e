"""Classification of network addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address, an IPv4-mapped IPv6 one as IPv4; None if `host` is no address."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. False for names other than `localhost`."""
    address = parse_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def http_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on `host`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
