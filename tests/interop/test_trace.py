# SPDX-License-Identifier: Apache-2.0
"""`halo-mp trace`: what it tells of packets is what became of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop.conftest import Tap, running_tap
from tests.support import frames
from tests.support.frames import datagram, echo_request, packet
from tests.support.network import Network

KERNEL, OURS = "10.77.0.2", "10.77.0.1"
ECHO = packet(src=KERNEL, dst=OURS, payload=echo_request())
STRAY = packet(src=KERNEL, dst=OURS, payload=datagram(src=KERNEL, dst=OURS, dst_port=9), protocol=17)


def traced(tap: Tap, words: list[str], *sent: bytes) -> str:
    """Return what a trace says of frames that are sent once it has begun; it ends with as many."""
    command = [
        sys.executable,
        "-m",
        "halo_mp.cli",
        "trace",
        "--name",
        tap.instance.name,
        "-c",
        str(len(sent)),
        *words,
    ]
    process = tap.namespace.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"tracing")
        tap.send(*sent)
        out, told = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, told
    assert f"{len(sent)} packets traced, 0 lost" in told.decode()
    return out.decode()


def steps(tap: Tap, expression: str, *sent: bytes) -> list[list[dict[str, Any]]]:
    *packets, end = map(json.loads, traced(tap, ["--json", expression], *sent).splitlines())
    assert end == {"end": {"packets": len(sent), "lost": 0, "refused": {}}}
    return [packet["steps"] for packet in packets]


def test_echo_is_answered_in_c(tap: Tap) -> None:
    [found] = steps(tap, "icmp", tap.frame(ECHO))
    assert [step["stage"] for step in found[:3]] == ["parse", "input", "route"]
    assert found[0]["verdict"] == found[1]["verdict"] == "none"
    assert found[1]["interface"] == "0"
    assert found[2]["route"].startswith(f"route {OURS}/32 (local)")
    assert (found[-1]["verdict"], found[-1]["port"]) == ("transmit", 0)


def test_drop_has_its_reason_and_its_stage(tap: Tap) -> None:
    [found] = steps(tap, "ip6", tap.frame(b"\x60" + bytes(39), ethertype=0x86DD))
    dropped = next(step for step in found if step["verdict"] == "drop")
    assert (dropped["stage"], dropped["reason"]) == ("input", "ethertype_unknown")


def test_punt_has_what_python_did(tap: Tap) -> None:
    body = frames.arp_packet(1, sender_mac=tap.station.mac, sender=KERNEL, target=OURS)
    request = tap.frame(body, ethertype=frames.ARP, dst=frames.BROADCAST)
    [found] = steps(tap, "arp", request)
    assert "punt" in [step["verdict"] for step in found]
    notes = [step["note"] for step in found if "note" in step]
    assert any(note.startswith("sends ") and note.endswith("0x0806 by port 0") for note in notes)
    assert (found[-1]["stage"], found[-1]["verdict"]) == ("python", "consume")


def test_text_has_a_line_for_each_stage(tap: Tap) -> None:
    first, *lines = traced(tap, ["udp", "port", "9"], tap.frame(STRAY)).splitlines()
    assert f"UDP {KERNEL}:" in first
    assert f"> {OURS}:9 TTL 64" in first
    assert [line.split()[0] for line in lines][:3] == ["parse", "input", "route"]
    assert any("to the Python stack" in line for line in lines)


HOOKS = """
from halo_mp.app import App, Verdict

app = App()

@app.hook("ingress")
def guard(packet):
    if packet.ipv4.protocol == 17 and packet.udp.dport == 9:
        return Verdict.DROP

@app.hook("egress", form="burst")
def watch(burst):
    burst.ipv4.ttl[:] = 33
"""


def test_hooks_have_their_names_and_what_they_made_of_it(tmp_path: Path) -> None:
    file = tmp_path / "application.py"
    file.write_text(HOOKS)
    with running_tap("--app", str(file)) as tap:
        [dropped] = steps(tap, "udp port 9", tap.frame(STRAY))
        [answered] = steps(tap, "icmp", tap.frame(ECHO))
    assert [(step["stage"], step["verdict"]) for step in dropped[:2]] == [("parse", "none"), ("hook", "drop")]
    assert (dropped[1]["hook"], dropped[1]["reason"]) == ("guard", "hook_drop")
    hooks = [
        (step["hook"], step["verdict"], step["rewritten"]) for step in answered if step["stage"] == "hook"
    ]
    assert hooks == [("guard", "none", False), ("watch", "none", True)]
    assert (answered[-1]["stage"], answered[-1]["verdict"], answered[-1]["ttl"]) == ("finish", "transmit", 33)


def test_packet_that_is_handed_over_has_a_second_story() -> None:
    with Network() as network:
        inside, outside = network.hosts
        command = [sys.executable, "-m", "halo_mp.cli", "trace", "--name", network.instance.name, "-n", "2"]
        words = ["icmp", "and", "dst", "host", outside.address]
        process = inside.namespace.popen(*command, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"tracing")
            inside.namespace.run("ping", "-c", "1", "-W", "5", outside.address)
            out, told = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        assert process.returncode == 0, told
    lines = [line.split(maxsplit=1) for line in out.decode().splitlines()]
    assert ["forward", "handed to slot 1"] in lines
    assert ["parse", "handed over by another worker; goes on"] in lines


def test_error_that_is_sent_is_told_before_the_end(tap: Tap) -> None:
    [found] = steps(tap, "udp port 9", tap.frame(STRAY))
    assert [(step["stage"], step["verdict"], step.get("reason")) for step in found[-2:]] == [
        ("python", "punt", None),
        ("python", "drop", "no_listener"),
    ]
    assert found[-2]["note"].startswith("sends ")
    assert [step for step in found if step.get("note", "").startswith("drop")] == []


def test_traced_packets_end_as_others_do(tap: Tap) -> None:
    _, alone = tap.send(tap.frame(ECHO))
    traced(tap, ["icmp"], tap.frame(ECHO))
    _, behind = tap.send(tap.frame(ECHO))
    assert [each.octets for each in alone] == [each.octets for each in behind]
