"""The machine around a container, as seen from inside: what comes to a published port comes from the gateway's address.

Docker and Podman pass such connections on from there. Other containers of the same network have addresses of their own.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

PROC_NET = Path("/proc/net")
# Of a route that leads everywhere.
ANYWHERE_V4, ANYWHERE_V6 = "0" * 8, "0" * 32
DIRECT_V6 = "0" * 32


def gateways(proc_net: Path = PROC_NET) -> frozenset[str]:
    """The addresses of the default routes, by Linux's own tables; none on another system, or where nothing leads out.

    Read anew each time: a container may be put into another network while it runs.
    """
    return frozenset([*_v4(_rows(proc_net / "route")), *_v6(_rows(proc_net / "ipv6_route"))])


def _rows(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return []


def _v4(rows: list[list[str]]) -> list[str]:
    """Interface, destination, gateway, ...: an address is the number that its four bytes are in this CPU's memory."""
    found = [row[2] for row in rows[1:] if len(row) > 2 and row[1] == ANYWHERE_V4 and row[2] != ANYWHERE_V4]
    return [str(IPv4Address(int(gateway, 16).to_bytes(4, sys.byteorder))) for gateway in found]


def _v6(rows: list[list[str]]) -> list[str]:
    """Destination and its length, source and its length, next hop, ...: hexadecimal, as it is written."""
    found = [row[4] for row in rows if len(row) > 4 and row[:2] == [ANYWHERE_V6, "00"] and row[4] != DIRECT_V6]
    return [str(IPv6Address(bytes.fromhex(gateway))) for gateway in found]
