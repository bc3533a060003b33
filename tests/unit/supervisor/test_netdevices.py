# SPDX-License-Identifier: Apache-2.0
"""rtnetlink, as octets that lie and as the kernel speaks it in a namespace."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from halo_mp.supervisor import netdevices
from halo_mp.supervisor.netdevices import NetDevice, NetDevices, parse_device
from tests.support.namespace import Namespace, wait_until

CLONE_NEWNET = 0x40000000
NAME = struct.pack("=HH", 4 + 6, 3) + b"veth0\0" + b"\0\0"
OTHER = struct.pack("=HHI", 8, 4, 1500)
BODY = struct.pack("=BxHiII", socket.AF_UNSPEC, 1, 7, 0x1 | 0x40, 0) + OTHER + NAME


def test_device_has_index_name_and_link() -> None:
    device = parse_device(BODY)
    assert device == NetDevice(7, "veth0", 0x41)
    assert device.is_up
    assert device.has_link


@pytest.mark.parametrize(("flags", "link"), [(0x0, False), (0x1, False), (0x40, False), (0x1043, True)])
def test_link_needs_both_flags(flags: int, link: bool) -> None:
    assert NetDevice(1, "x", flags).has_link is link


def test_news_of_a_bridge_about_its_port_is_none_of_a_device() -> None:
    assert parse_device(bytes([socket.AF_BRIDGE]) + BODY[1:]) is None


def test_body_truncated_at_every_length() -> None:
    for length in range(len(BODY)):
        device = parse_device(BODY[:length])
        assert (device is None) == (length < 16)
        assert device is None or (device.index, device.name) in ((7, ""), (7, "veth0"))


@pytest.mark.parametrize("length", [0, 1, 3, 0xFFFF])
def test_attribute_whose_length_lies_ends_the_list(length: int) -> None:
    device = parse_device(BODY[:16] + struct.pack("=HH", length, 3) + NAME)
    assert device is not None
    assert device.name == ""


@pytest.mark.parametrize("length", [0, 15, 0xFFFFFFFF])
def test_message_whose_length_lies_ends_the_read(length: int) -> None:
    octets = struct.pack("=IHHII", length, 16, 0, 0, 0) + BODY
    assert list(netdevices._messages(octets)) == []


class Heard:
    """What one listener is called back with."""

    def __init__(self, namespace: Namespace) -> None:
        self.gone: list[str] = []
        self.changed: list[NetDevice] = []
        self.devices = inside(namespace, lambda: NetDevices(self._on_gone, self.changed.append))

    def _on_gone(self, device: NetDevice) -> None:
        self.gone.append(device.name)

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        def met() -> object:
            self.devices.receive()
            return condition()

        wait_until(met, what=what)


def inside(namespace: Namespace, make: Callable[[], NetDevices]) -> NetDevices:
    """Make a listener in a namespace; a socket belongs to the one that its thread was in."""
    made: list[NetDevices] = []

    def work() -> None:
        with Path(namespace.path).open("rb") as file:
            assert ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) == 0
        made.append(make())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def test_devices_come_change_and_go(namespace: Namespace) -> None:
    heard = Heard(namespace)
    assert heard.devices.find("lo") is not None
    assert heard.changed == [], "what was there before is no news"
    namespace.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    heard.wait_for(lambda: heard.devices.find("veth0"), "the new device")
    for name in ("veth0", "veth1"):
        namespace.run("ip", "link", "set", name, "up")
    heard.wait_for(lambda: heard.devices.find("veth0").has_link, "its link")
    namespace.run("ip", "link", "set", "veth1", "down")
    heard.wait_for(lambda: not heard.devices.find("veth0").has_link, "the end of its link")
    namespace.run("ip", "link", "delete", "veth0")
    heard.wait_for(lambda: set(heard.gone) == {"veth0", "veth1"}, "their end")
    assert heard.devices.find("veth0") is None
    heard.devices.close()


def test_socket_that_fails_and_fails_does_not_keep_us(namespace: Namespace) -> None:
    heard = Heard(namespace)
    with open(os.devnull, "rb") as file:  # nobody can receive from that, however often
        os.dup2(file.fileno(), heard.devices.fileno())
    signal.signal(signal.SIGALRM, _interrupt)
    signal.alarm(10)
    try:
        heard.devices.receive()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert heard.devices.find("lo") is not None, "what was known stays"
    assert heard.gone == []
    heard.devices.close()


def _interrupt(*_: object) -> None:
    raise AssertionError("it reads on for ever")


def test_too_slow_a_listener_begins_anew(namespace: Namespace) -> None:
    """More is said than its socket can keep: what it has not heard, it asks for."""
    heard = Heard(namespace)
    heard.devices._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    namespace.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    heard.wait_for(lambda: heard.devices.find("veth0"), "the new device")
    flaps = "for i in 1 2 3 4 5 6 7 8 9; do ip link set veth0 up; ip link set veth0 down; done; "
    namespace.run("sh", "-c", flaps + "ip link delete veth0; ip link add other0 type veth peer name other1")
    heard.wait_for(
        lambda: heard.devices.find("other0") and not heard.devices.find("veth0"), "what there is now"
    )
    assert set(heard.gone) == {"veth0", "veth1"}
    heard.devices.close()
