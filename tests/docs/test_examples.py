# SPDX-License-Identifier: Apache-2.0
"""Each example does what it says, as a person would run it."""

from __future__ import annotations

import json
import os
import runpy
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from halo_mp.app import Packet, Verdict
from halo_mp.control.client import Client
from halo_mp.control.public import InterfaceInfo, RouteInfo
from halo_mp.wire import arp, ethernet, icmpv4, ipv4, udp
from tests.support.instance import Instance
from tests.support.namespace import Namespace, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh"))
MACS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SRC, DST = ipv4.parse_address("192.0.2.1"), ipv4.parse_address("192.0.2.2")


def command(example: str, *arguments: str) -> list[str]:
    program = [sys.executable] if example.endswith(".py") else ["bash"]
    return [*program, str(ROOT / "examples" / example), *arguments]


def run(example: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(example, *map(str, arguments)), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Namespace() as namespace, Instance(namespace) as started:
        assert namespace.ping("10.77.0.1") == 3
        yield started


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short_and_explains_itself(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100
    helped = run(path.name, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "usage" in helped.stdout.lower()


def test_counters_of_a_running_instance(instance: Instance) -> None:
    shown = run("counters.py", instance.name)
    assert shown.returncode == 0, shown.stderr
    port, slot = (line.split() for line in shown.stdout.splitlines() if line.startswith("0 "))
    assert port[1:4] == ["net_tap0", "started", "direct"]
    assert slot[1] == "enabled"
    assert slot[5] == "3", "echo replies"


def test_counters_as_json(instance: Instance) -> None:
    found = json.loads(run("counters.py", instance.name, "--json").stdout)
    assert found["instance"] == instance.name
    assert found["slots"][0]["worker"]["counters"]["echo_replies"] == 3
    assert found["ports"][0]["driver"] == "net_tap"


def test_counters_of_no_instance_say_so() -> None:
    refused = run("counters.py", "not-there")
    assert refused.returncode == 3
    assert (
        refused.stderr
        == "counters: there is no shared memory /halo-mp.not-there.ports: is the instance running, and is that its "
        "name?\n"
    )


def test_configuration_is_taken_back_unless_somebody_answers(instance: Instance, tmp_path: Path) -> None:
    file = tmp_path / "next.toml"
    with Client(instance.name) as client:
        before = client.config.show()
        file.write_text(before.replace('["10.77.0.1/24"]', '["10.77.0.1/24", "10.79.0.1/24"]'))
        words = ("reconfigure.py", file, "--name", instance.name, "--reach")
        alone = run(*map(str, words), "10.79.0.99")
        assert (alone.returncode, alone.stdout.splitlines()[0]) == (1, "+ address 0 10.79.0.1/24")
        assert "taken back" in alone.stdout
        assert client.config.show() == before
        reached = run(*map(str, words), "10.79.0.2")  # the kernel's side follows
        assert reached.returncode == 0, reached
        assert client.config.show() == file.read_text()
        client.addresses.delete("0", "10.79.0.1/24")
    file.write_text("[ports.7]\n")
    refused = run(*map(str, words), "10.77.0.2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("reconfigure: nothing was changed, ")


def test_routes_are_listed_added_and_deleted(instance: Instance) -> None:
    def routes(*words: str) -> subprocess.CompletedProcess[str]:
        return run("routes.py", "--name", instance.name, *words)

    assert routes("add", "10.0.0.0/8", "10.77.0.2", "10.77.0.3*2").returncode == 0
    assert routes("replace", "default", "10.77.0.2").returncode == 0
    listed = [line.split() for line in routes("list", "--static").stdout.splitlines()]
    assert sorted(listed) == [
        ["0.0.0.0/0", "static", "10.77.0.2@0"],
        ["10.0.0.0/8", "static", "10.77.0.2@0", "10.77.0.3@0*2"],
    ]
    assert routes("where", "11.2.3.4").stdout == "0.0.0.0/0 10.77.0.2@0\n"
    assert routes("where", "10.77.0.9").stdout == "10.77.0.0/24 @0\n"
    assert "10.77.0.1/32" in routes("list", "--within", "10.77.0.0/16").stdout
    twice = routes("add", "10.0.0.0/8", "10.77.0.2")
    assert twice.returncode == 1
    assert twice.stderr.startswith("routes: there is a route to 10.0.0.0/8 already; ")
    for prefix in ("10.0.0.0/8", "default"):
        assert routes("delete", prefix).returncode == 0
    assert routes("list", "--static").stdout == ""
    assert (routes("where", "11.2.3.4").returncode, routes("where", "11.2.3.4").stdout) == (1, "no route\n")


def test_watch_keeps_a_copy_of_the_routes(instance: Instance) -> None:
    words = command("watch.py", "--name", instance.name, "--count", "2")
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as watching,
        Client(instance.name) as client,
    ):
        assert watching.stdout is not None
        assert watching.stdout.readline().endswith(" routes\n"), "it has subscribed"
        client.routes.add("10.3.0.0/16", via="10.77.0.2")
        assert watching.stdout.readline() == "10.3.0.0/16 10.77.0.2@0\n"
        client.routes.delete("10.3.0.0/16")
        assert watching.stdout.readline() == "10.3.0.0/16 is gone\n"
    assert watching.returncode == 0


def test_ping_asks_the_instance_and_says_what_came_of_it(instance: Instance) -> None:
    def ping(*words: str) -> tuple[int, list[str]]:
        done = run("ping.py", "--name", instance.name, "--timeout", "30", *words)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    status, lines = ping("10.77.0.2", "--count", "2", "--interval", "0.01")
    assert (status, [line.split()[:4] for line in lines]) == (
        0,
        [[number, "10.77.0.2", "ttl", "64"] for number in "01"],
    )
    status, [line] = ping("10.77.0.2", "--trace")
    assert (status, line.split()[:2]) == (0, ["1", "10.77.0.2"])
    status, [line] = ping("10.77.0.2", "--count", "1", "--size", "1473", "--df")
    assert (status, line.rpartition(" octets")[0]) == (1, "0 here: too big, at most 1500")
    status, [line] = ping("192.0.2.1", "--trace")
    assert (status, line.split()[:4]) == (1, ["1", "here:", "network", "unreachable"])


def test_ping_of_no_instance_says_so() -> None:
    refused = run("ping.py", "--name", "not-there", "10.77.0.2")
    assert refused.returncode == 1
    assert refused.stderr.startswith("ping: nobody answers at ")


def test_routes_of_no_instance_say_so() -> None:
    refused = run("routes.py", "--name", "not-there", "list")
    assert refused.returncode == 1
    assert "is the instance running, and is that its name?" in refused.stderr


def shown(instance: Instance) -> tuple[list[InterfaceInfo], list[RouteInfo]]:
    """Return what a router says of itself, but for what belongs to its name."""
    with Client(path=instance.runtime / "control.sock") as client:
        interfaces = [replace(each, mac="") for each in client.interfaces.list()]
        return interfaces, sorted(client.routes.list(), key=lambda route: route.prefix)


def test_router_is_the_same_as_a_program_and_as_a_file(namespace: Namespace) -> None:
    with Instance(namespace, "--config", str(ROOT / "examples/router.toml")) as router:
        of_file = shown(router)
        assert router.stop() == 0
    with Instance(namespace, program=command("router.py")) as router:
        of_program = shown(router)
        assert namespace.ping("10.77.0.1") == 3
        assert router.stop() == 0
    assert of_program == of_file
    interfaces, routes = of_file
    assert {each.name: len(each.addresses) for each in interfaces} == {"0": 1, "1": 2, "0.100": 1}
    assert [route.hops for route in routes if route.prefix == "0.0.0.0/0"] == [
        ("10.77.0.2@0*2", "10.77.1.2@1")
    ]


def test_ping_report_pings_both_ports(namespace: Namespace) -> None:
    words = command("ping_report.py", "--count", "4", "--name", f"r{os.getpid() % 10**9}")
    report = namespace.run(*words, check=False)
    assert report.returncode == 0, report.stderr
    first, second = report.stdout.splitlines()
    assert first.startswith("port 0 10.77.0.1 ")
    assert second.startswith("port 1 10.77.1.1 ")
    for line in (first, second):
        assert ": 4 of 4 replies, min/median/max " in line
        assert line.endswith(", counted 4")


def test_ping_report_that_can_not_start_has_its_exit_code(instance: Instance) -> None:
    refused = run("ping_report.py", "--name", instance.name)
    assert refused.returncode == 4
    assert "is running" in refused.stderr


def test_veth_answers_the_kernel(namespace: Namespace) -> None:
    done = namespace.run("env", f"PYTHON={sys.executable}", *command("veth.sh"), check=False)
    assert done.returncode == 0, done.stderr
    assert "3 packets transmitted, 3 received" in done.stdout
    assert "net_af_packet0" in done.stdout
    assert "hv-" not in namespace.run("ip", "link").stdout


def frame(ethertype: int, payload: bytes, *tags: ethernet.VlanTag) -> bytes:
    return ethernet.EthernetFrame(MACS[0], MACS[1], ethertype, payload, tags).emit()


def packet(protocol: int, payload: bytes) -> bytes:
    return ipv4.Ipv4Packet(src=SRC, dst=DST, protocol=protocol, payload=payload).emit()


def pcap(
    frames: list[bytes], *, order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1, fraction: int = 500
) -> bytes:
    records = (struct.pack(f"{order}IIII", 7, fraction, len(each), len(each)) + each for each in frames)
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link) + b"".join(records)


def decode(tmp_path: Path, octets: bytes) -> tuple[int, list[str]]:
    file = tmp_path / "frames.pcap"
    file.write_bytes(octets)
    done = run("decode.py", file)
    return done.returncode, (done.stdout or done.stderr).splitlines()


def test_decode_says_what_each_frame_is(tmp_path: Path) -> None:
    request = arp.ArpPacket(
        operation=arp.REQUEST, sender_mac=MACS[1], sender_address=SRC, target_mac=bytes(6), target_address=DST
    )
    datagram = udp.UdpDatagram(53, 4000, b"halo").emit(src=SRC, dst=DST)
    echo = icmpv4.Icmpv4Message(icmpv4.ECHO_REQUEST, 0, 1, b"abc").emit()
    status, lines = decode(
        tmp_path,
        pcap(
            [
                frame(ethernet.ETHERTYPE_ARP, request.emit()),
                frame(ethernet.ETHERTYPE_IPV4, packet(ipv4.PROTOCOL_UDP, datagram), ethernet.VlanTag(7)),
                frame(ethernet.ETHERTYPE_IPV4, packet(ipv4.PROTOCOL_ICMP, echo)),
                frame(0x86DD, bytes(40)),
            ]
        ),
    )
    head = "7.000500 02:00:00:00:00:02 > 02:00:00:00:00:01"
    assert lines == [
        f"{head} ARP who has 192.0.2.2, tell 192.0.2.1",
        f"{head} vlan 7 192.0.2.1 > 192.0.2.2 ttl 64 UDP 53 > 4000, 4 octets",
        f"{head} 192.0.2.1 > 192.0.2.2 ttl 64 ICMP type 8 code 0, 3 octets",
        f"{head} ethertype 0x86dd, 40 octets",
    ]
    assert status == 0


def test_decode_names_what_is_wrong(tmp_path: Path) -> None:
    spoiled = bytearray(packet(ipv4.PROTOCOL_UDP, b"12345678"))
    spoiled[8] ^= 1
    status, lines = decode(tmp_path, pcap([b"short", frame(ethernet.ETHERTYPE_IPV4, bytes(spoiled))]))
    assert (status, [line.split(", ")[1] for line in lines]) == (
        1,
        ["dropped: runt", "dropped: ipv4_checksum"],
    )


def test_decode_reads_either_order_and_nanoseconds(tmp_path: Path) -> None:
    octets = pcap([frame(0x86DD, b"")], order=">", magic=0xA1B23C4D, fraction=500_000)
    status, [line] = decode(tmp_path, octets)
    assert (status, line.split()[0]) == (0, "7.000500")


@pytest.mark.parametrize(
    ("octets", "sentence"),
    [
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "no pcap file of the classic format"),
        (pcap([], link=113), "not Ethernet"),
        (b"", "no pcap file"),
    ],
)
def test_decode_refuses_other_files(tmp_path: Path, octets: bytes, sentence: str) -> None:
    status, [line] = decode(tmp_path, octets)
    assert status == 2
    assert sentence in line


# ---- applications


@contextmanager
def application(name: str, *flags: str) -> Iterator[Instance]:
    """An example that is an application, started as a person does."""
    program = (sys.executable, str(ROOT / "examples" / name))
    with Namespace() as namespace, Instance(namespace, *flags, program=program) as started:
        yield started


def test_packet_filter_closes_ports_of_what_goes_on() -> None:
    module = runpy.run_path(str(ROOT / "examples/packet_filter.py"))
    decide = module["packet_filter"]
    for port, verdict in ((23, Verdict.DROP), (445, Verdict.DROP), (22, None)):
        segment = (40000).to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(16)
        frame = ethernet.EthernetFrame(MACS[0], MACS[1], ethernet.ETHERTYPE_IPV4, b"").emit()
        packet = ipv4.Ipv4Packet(src=SRC + (1 << 24), dst=DST, protocol=6, payload=segment).emit()
        assert decide(Packet.from_octets(frame + packet)) is verdict
        packet = ipv4.Ipv4Packet(src=SRC, dst=DST, protocol=6, payload=segment).emit()
        assert decide(Packet.from_octets(frame + packet)) is Verdict.DROP


def test_packet_filter_between_two_kernels() -> None:
    """Behind one TAP a kernel sends to the other's network; what is closed does not go on."""
    with application(
        "packet_filter.py", "--ports", "0,1", "--neighbor", "1=10.77.1.9,02:00:00:00:00:09"
    ) as running:
        assert running.events("hook.not_compiled") == []
        run_in = running.namespace.run
        run_in("ip", "route", "add", "10.77.1.9/32", "via", "10.77.0.1")
        for port in ("445", "22"):
            connect = (
                f"import socket; s = socket.socket(); s.settimeout(0.2); s.connect_ex(('10.77.1.9', {port}))"
            )
            run_in(sys.executable, "-c", connect)

        def counted() -> tuple[int, int]:
            slot = running.slot(0)["worker"]
            return slot["drops"]["hook_drop"], slot["counters"]["forwarded"]

        wait_until(lambda: min(counted()) >= 1, what=f"a drop and a forwarded packet: {running.text()}")


def test_top_talkers_are_told() -> None:
    with application("top_talkers.py", "--ports", "0") as running:
        running.namespace.pinged("10.77.0.1", count=5)
        wait_until(
            lambda: any("10.77.0.2 sent" in entry["message"] for entry in running.events("log")),
            timeout_s=30,
            what=f"the top talkers in\n{running.text()}",
        )


# ---- KCP


def test_kcp_file_arrives_whole(tmp_path: Path) -> None:
    file, folder = tmp_path / "sent", tmp_path / "there"
    folder.mkdir()
    file.write_bytes(os.urandom(3_000_000))
    with Namespace() as namespace:
        with namespace.popen(*command("kcp_file.py", "receive", str(folder))) as receiving:
            # Who comes too early is refused by the kernel, and says so.
            wait_until(
                lambda: (
                    namespace.run(
                        *command("kcp_file.py", "send", str(file), "127.0.0.1"), check=False
                    ).returncode
                    == 0
                ),
                what="a transfer",
                timeout_s=30,
            )
            assert receiving.wait(timeout=30) == 0
    assert (folder / "sent").read_bytes() == file.read_bytes()


def test_kcp_client_of_nobody_says_so() -> None:
    with Namespace() as namespace:
        refused = namespace.run(*command("kcp_client.py", "127.0.0.1"), check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("kcp_client: nobody has the peer's address and port")
