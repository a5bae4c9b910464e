"""The machine around a container, by tables of routes as Linux writes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.keys.gateway import gateways

V4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
V6 = """\
fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0
{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0
{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo
""".replace("{zero}", "0" * 32)


@pytest.fixture
def proc_net(tmp_path: Path) -> Path:
    gateway = "010012AC" if sys.byteorder == "little" else "AC120001"
    (tmp_path / "route").write_text(V4.format(gateway=gateway))
    (tmp_path / "ipv6_route").write_text(V6)
    return tmp_path


def test_the_default_routes(proc_net: Path) -> None:
    assert gateways(proc_net) == {"172.18.0.1", "fd00::1"}
    (proc_net / "ipv6_route").unlink()
    assert gateways(proc_net) == {"172.18.0.1"}


def test_a_network_that_leads_nowhere_has_none(proc_net: Path) -> None:
    (proc_net / "route").write_text(V4.format(gateway="00000000"))
    (proc_net / "ipv6_route").write_text("")
    assert gateways(proc_net) == frozenset()


def test_another_system_has_none(tmp_path: Path) -> None:
    assert gateways(tmp_path / "nothing") == frozenset()


def test_the_tables_of_this_system_are_read() -> None:
    """Whatever stands in them, the loopback device leads nowhere."""
    assert not gateways() & {"127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound
