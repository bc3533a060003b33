# SPDX-License-Identifier: Apache-2.0
"""`halo-mp capture`, read by tshark: what is in the files is what went over the wire, and why frames were dropped."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from halo_mp.capture.session import Session
from halo_mp.control.capture_client import AsyncCaptureClient
from halo_mp.control.client import RefusedError
from tests.interop.conftest import Tap, running_tap
from tests.support import frames
from tests.support.frames import echo_request, packet
from tests.support.namespace import wait_until

KERNEL, OURS = "10.77.0.2", "10.77.0.1"
ECHO = packet(src=KERNEL, dst=OURS, payload=echo_request())


class Running:
    """A capture under way."""

    def __init__(self, process: subprocess.Popen[bytes], told: list[str]) -> None:
        self.process = process
        self.told = told

    def end(self, number: int = signal.SIGINT) -> str:
        """End it, and return what it said at last."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> str:
        """Wait for its end, and return what it said at last."""
        assert self.process.stderr is not None
        self.told.append(self.process.stderr.read().decode())
        assert self.process.wait(30) == 0, self.told
        return self.told[-1]


@contextmanager
def capture(tap: Tap, *words: str, **options: Any) -> Iterator[Running]:
    """`halo-mp capture` with these words, that has begun."""
    command = [sys.executable, "-m", "halo_mp.cli", "capture", "--name", tap.instance.name, *words]
    process = tap.namespace.popen(*command, stderr=subprocess.PIPE, **options)
    try:
        assert process.stderr is not None
        first = process.stderr.readline().decode()
        assert first.startswith("capturing"), first + process.stderr.read().decode()
        yield Running(process, [first])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stderr, process.stdout):
            if stream is not None:
                stream.close()


def tshark(path: Path | str, *fields: str, **options: Any) -> list[list[str]]:
    """Return these fields of each packet, as tshark reads the file."""
    command = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-T",
        "fields",
        *(word for name in fields for word in ("-e", name)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    return [line.split("\t") for line in done.stdout.splitlines()]


def send(tap: Tap, *payloads: bytes) -> None:
    tap.send(*(tap.frame(payload) for payload in payloads))


def test_file_has_rx_and_tx_with_nanoseconds_and_direction(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "all.pcapng"
    with capture(tap, "-w", str(path), "--point", "rx,tx", "icmp") as running:
        send(tap, ECHO, ECHO)
        assert "4 frames captured, 0 lost" in running.end()
    found = tshark(
        path, "icmp.type", "frame.packet_flags_direction", "frame.interface_name", "ip.src", "frame.len"
    )
    assert sorted(found) == sorted(
        2 * [["8", "0x00000001", "port 0", KERNEL, str(len(tap.frame(ECHO)))]]
        + 2 * [["0", "0x00000002", "port 0", OURS, str(len(tap.frame(ECHO)))]]
    )
    times = [each[0] for each in tshark(path, "frame.time_epoch")]
    assert times == sorted(times)
    assert all(len(each.partition(".")[2]) == 9 for each in times)
    assert any(not each.endswith("000") for each in times)


def test_drop_has_its_reason_as_a_comment(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    with capture(tap, "-w", str(path), "--point", "drop") as running:
        tap.send(tap.frame(b"\x60" + bytes(39), ethertype=0x86DD), tap.frame(ECHO))
        assert "1 frames captured, 0 lost" in running.end()
    [(comment, ethertype)] = tshark(path, "frame.comment", "eth.type")
    assert comment.startswith("dropped: ethertype_unknown: ")
    assert ethertype == "0x86dd"


def test_drop_by_python_is_there(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    body = frames.arp_packet(1, sender_mac=tap.station.mac, sender=KERNEL, target=OURS)
    with capture(tap, "-w", str(path), "--point", "drop", "arp") as running:
        tap.send(tap.frame(body[:20], ethertype=frames.ARP, dst=frames.BROADCAST))
        assert "1 frames captured" in running.end()
    [(comment,)] = tshark(path, "frame.comment")
    assert comment.startswith("dropped: arp_")


def test_snap_length_cuts_and_tells_the_length(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "short.pcapng"
    with capture(tap, "-w", str(path), "--point", "rx", "-s", "34", "-c", "1", "icmp") as running:
        send(tap, ECHO, ECHO)
        assert "1 frames captured" in running.wait()
    assert tshark(path, "frame.cap_len", "frame.len") == [["34", str(len(tap.frame(ECHO)))]]


def test_rotated_files_are_whole_and_the_oldest_goes(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "row.pcapng"
    options = ("-w", str(path), "--rotate-size", "0.0008", "--keep", "2")
    with capture(tap, *options, "--point", "rx", "icmp") as running:
        send(tap, *[ECHO] * 20)
        assert "20 frames captured" in running.end()
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 2
    assert kept[0].name > "row-00001.pcapng"
    for each in kept:
        assert tshark(each, "icmp.type")


def test_pipe_is_read_live(tap: Tap) -> None:
    with capture(tap, "-w", "-", "--point", "rx", "icmp", stdout=subprocess.PIPE) as running:
        command = ["tshark", "-n", "-l", "-r", "-", "-T", "fields", "-e", "icmp.type", "-c", "2"]
        reader = subprocess.Popen(
            command, stdin=running.process.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        send(tap, ECHO, ECHO)
        octets, _ = reader.communicate(timeout=30)  # while the capture goes on
        assert octets.split() == [b"8", b"8"]
        assert running.process.poll() is None


def test_reader_that_has_seen_enough_ends_it_without_a_word(tap: Tap) -> None:
    with capture(tap, "-w", "-", stdout=subprocess.PIPE) as running:
        assert running.process.stdout is not None
        running.process.stdout.close()  # nothing is sent: no write would fail
        assert running.wait() == ""


def test_lines_without_a_file(tap: Tap) -> None:
    with capture(tap, "-c", "2", "icmp or ip6", stdout=subprocess.PIPE) as running:
        tap.send(tap.frame(ECHO))
        running.wait()
        assert running.process.stdout is not None
        lines = running.process.stdout.read().decode().splitlines()
    assert [line.split(" ", 1)[1].split()[0] for line in lines] == ["rx", "tx"]
    assert f"ICMP echo request {KERNEL} > {OURS}" in lines[0]


def test_client_dies_and_nobody_copies_any_more(tap: Tap, tmp_path: Path) -> None:
    before = len(tap.instance.events("capture.ended"))
    with capture(tap, "-w", str(tmp_path / "x.pcapng")) as running:
        running.process.kill()
        tap.instance.wait_for("capture.ended", count=before + 1)


def test_worker_dies_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "on.pcapng"
    with running_tap() as tap, capture(tap, "-w", str(path), "--point", "rx", "icmp") as running:
        send(tap, ECHO)
        before = len(tap.instance.events("worker.ready"))
        os.kill(tap.instance.slot()["worker_pid"], signal.SIGKILL)
        tap.instance.wait_for("worker.ready", count=before + 1)

        def arrived() -> bool:
            tap.station.send(tap.frame(ECHO))
            return path.stat().st_size > size

        size = path.stat().st_size
        wait_until(arrived, what="packets of the next worker")
        running.end()
    assert len(tshark(path, "icmp.type")) > 1


def test_fifo_that_nobody_reads_is_left_with_ctrl_c(tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    command = [sys.executable, "-m", "halo_mp.cli", "capture", "--name", tap.instance.name, "-w", str(path)]
    process = tap.namespace.popen(*command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"waiting for somebody who reads")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 3
    assert b"nobody has read" in told


def test_reader_that_pauses_does_not_keep_a_capture_from_its_end(tap: Tap) -> None:
    reader, writer = os.pipe()
    try:
        with capture(tap, "-w", "-", stdout=writer) as running:
            send(tap, *[ECHO] * 600)  # more than the pipe takes
            wait_until(lambda: not select.select([], [writer], [], 0)[1], what="a pipe that is full")
            running.process.send_signal(signal.SIGINT)
            assert running.process.wait(30) == 1
            assert running.process.stderr is not None
            assert b"standard output is not read" in running.process.stderr.read()
    finally:
        os.close(reader)
        os.close(writer)


def test_capture_for_asyncio_has_the_same_frames_and_ends_with_its_client(tap: Tap) -> None:
    path = tap.instance.runtime / "control.sock"
    before = len(tap.instance.events("capture.ended"))

    async def play() -> list[bytes]:
        found: list[bytes] = []
        async with AsyncCaptureClient(path=path) as client:
            assert not client.is_open
            with Session(client, await client.capture(points=["rx"])) as session:
                assert client.is_open
                send(tap, ECHO)
                async for batch in session.follow():
                    found += [record.octets for _, record in batch]
                    assert (await client.show()).name == tap.instance.name
                    break
            with pytest.raises(RefusedError, match="is no point of a capture"):
                await client.capture(points=["nowhere"])
        assert not client.is_open
        return found

    assert asyncio.run(play()) == [tap.frame(ECHO)]
    tap.instance.wait_for("capture.ended", count=before + 1)


def test_capture_for_asyncio_that_is_cancelled_leaves_nothing(tap: Tap) -> None:
    before = len(tap.instance.events("capture.ended"))
    descriptors = len(os.listdir("/proc/self/fd"))

    async def play() -> None:
        async with AsyncCaptureClient(path=tap.instance.runtime / "control.sock") as client:
            beginning = asyncio.create_task(client.capture())
            await asyncio.sleep(0)  # its thread has begun
            beginning.cancel()
            with pytest.raises(asyncio.CancelledError):
                await beginning

    asyncio.run(play())
    tap.instance.wait_for("capture.ended", count=before + 1)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == descriptors, what="all descriptors closed")


def refused(tap: Tap, *words: str) -> str:
    command = [sys.executable, "-m", "halo_mp.cli", "capture", "--name", tap.instance.name, *words]
    done = tap.namespace.run(*command, check=False)
    assert done.returncode in (1, 2, 3), done
    return str(done.stderr)


def test_words_that_make_no_sense_are_refused(tap: Tap) -> None:
    assert "pcap-filter(7)" in refused(tap, "udp prt 53")
    assert "there is no port 7; there are 0." in refused(tap, "-i", "7")
    assert "no point 'up'" in refused(tap, "--point", "up")
    assert "name one" in refused(tap, "--rotate-size", "1")
    assert "row of files" in refused(tap, "-w", "-", "--rotate-size", "1")
