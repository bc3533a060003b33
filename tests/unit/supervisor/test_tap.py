# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of TAPs, on real ones, in a network namespace of the test's own."""

import os
import subprocess
import sys

PRELUDE = """
import asyncio, fcntl, json, os, struct, subprocess
from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor import tap
from halo_mp.supervisor.config import AddressConfig, TapConfig

def make_tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))  # TUNSETIFF, a TAP
    fcntl.ioctl(fd, 0x400454CB, 1)  # TUNSETPERSIST
    os.close(fd)

def links():
    shown = subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout
    return {link["ifname"]: link for link in json.loads(shown) if link["ifname"] != "lo"}

def addresses(link):
    return [(a["local"], a["prefixlen"]) for a in link["addr_info"] if a["family"] == "inet"]

ONE = TapConfig("x.0", (AddressConfig(0x0A4D0002, 24), AddressConfig(0x0A4E0002, 31)))
"""


def inside(script: str) -> None:
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-X", "dev", "-c", PRELUDE + script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr


def test_configure_sets_addresses_and_link_and_may_be_repeated() -> None:
    inside("""
make_tap("x.0")
for _ in range(3):
    asyncio.run(tap.configure([ONE]))
(link,) = links().values()
assert "UP" in link["flags"]
assert addresses(link) == [("10.77.0.2", 24), ("10.78.0.2", 31)]
""")


def test_take_away_leaves_the_others_and_may_be_repeated() -> None:
    inside("""
make_tap("x.0")
asyncio.run(tap.configure([ONE]))
for _ in range(2):
    asyncio.run(tap.take_away("x.0", ONE.addresses[:1]))
(link,) = links().values()
assert addresses(link) == [("10.78.0.2", 31)]
asyncio.run(tap.take_away("not.there", ONE.addresses))
""")


def test_twin_gets_its_mac_while_it_is_up_and_keeps_its_addresses() -> None:
    inside("""
make_tap("x.0")
asyncio.run(tap.configure([ONE]))
for mac in ("02:00:00:00:00:07", "02:00:00:00:00:08"):
    for _ in range(2):
        asyncio.run(tap.configure_twin("x.0", bytes.fromhex(mac.replace(":", ""))))
        (link,) = links().values()
        assert (link["address"], "UP" in link["flags"]) == (mac, True)
        assert addresses(link) == [("10.77.0.2", 24), ("10.78.0.2", 31)]
try:
    asyncio.run(tap.configure_twin("not.there", bytes(6)))
except EnvironmentProblem as error:
    assert "no interface not.there" in str(error)
else:
    raise AssertionError
""")


def test_configure_interface_that_is_not_there_is_a_sentence() -> None:
    inside("""
try:
    asyncio.run(tap.configure([ONE]))
except EnvironmentProblem as error:
    assert "no interface x.0" in str(error)
else:
    raise AssertionError
""")


def test_configure_address_the_kernel_refuses_is_a_sentence() -> None:
    inside("""
make_tap("x.0")
try:
    asyncio.run(tap.configure([TapConfig("x.0", (AddressConfig(0x0A4D0002, 77),))]))
except EnvironmentProblem as error:
    assert "can not be configured" in str(error)
else:
    raise AssertionError
""")


def test_delete_removes_taps_and_nothing_else() -> None:
    inside("""
for name in ("x.0", "x.1", "other"):
    make_tap(name)
subprocess.run(["ip", "link", "add", "x.2", "type", "veth", "peer", "name", "x.3"], check=True)
assert asyncio.run(tap.delete(["x.1", "x.0", "x.2", "gone", "x.0"])) == ["x.0", "x.1"]
assert sorted(links()) == ["other", "x.2", "x.3"]
assert asyncio.run(tap.delete([])) == []
""")


def test_repeated_a_hundred_times_leaves_no_descriptor() -> None:
    inside("""
async def main():
    await tap.warm_up()
    make_tap("x.0")
    counts = set()
    for _ in range(100):
        await tap.configure([ONE])
        counts.add(len(os.listdir("/proc/self/fd")))
    assert len(counts) == 1, counts

asyncio.run(main())
""")
