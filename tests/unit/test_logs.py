# SPDX-License-Identifier: Apache-2.0
"""Log lines as a reader gets them from a pipe, also from one that nobody reads."""

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from halo_mp import blackbox, logs
from halo_mp.blackbox import LineBox
from halo_mp.supervisor.boxes import Boxes

Lines = Callable[[], list[str]]


class Reader:
    """The reading end of what logs are written to."""

    def __init__(self) -> None:
        self.fd, self.writing = os.pipe()

    def read(self) -> bytes:
        """Return what is there now."""
        os.set_blocking(self.fd, False)
        octets = b""
        try:
            while part := os.read(self.fd, 1 << 20):
                octets += part
        except BlockingIOError:
            pass
        return octets

    def lines(self) -> list[str]:
        assert logs.flush(5.0)
        return self.read().decode().splitlines()


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    os.close(made.fd)  # a writer that is blocked ends with EPIPE
    logs.flush(5.0)
    writer = logs._writer
    assert writer is not None
    logging.getLogger().removeHandler(writer)
    logging.getLogger(logs.ROOT).setLevel(logging.NOTSET)
    logs._writer = None
    writer.close()
    for thread in threading.enumerate():
        if thread.name == "halo-mp-log":
            thread.join(5.0)
    os.close(made.writing)


def test_text_line_has_time_level_process_event_and_fields(reader: Reader) -> None:
    logs.configure("supervisor", "info", fd=reader.writing)
    logs.get("x").info("worker.up", slot=0, pid=12)
    (line,) = reader.lines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  supervisor worker\.up slot=0 pid=12", line
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("new\nline", r'"new\nline"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("ünï", r'"\u00fcn\u00ef"'),
        ("\ud800", r'"\ud800"'),
        (b"\x02\xff", "02:ff"),
        (b"", '""'),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"rx_full": 3, "runt": 1}, "{rx_full: 3, runt: 1}"),
        ([1, "a b"], '[1, "a b"]'),
        ({3}, "[3]"),
        (ValueError("no"), '"no"'),
    ],
)
def test_text_value_stays_on_its_line(reader: Reader, value: object, text: str) -> None:
    logs.configure("t", "info", fd=reader.writing)
    logs.get("x").info("e", value=value)
    (line,) = reader.lines()
    assert line.endswith(f" t e value={text}")


def test_json_line_is_one_object(reader: Reader) -> None:
    logs.configure("worker.3", "debug", "json", fd=reader.writing)
    logs.get("x").debug("e", mac=b"\x02\x01", drops={"runt": 1}, text="a\nb", event="other")
    (line,) = reader.lines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "debug",
        "process": "worker.3",
        "event": "e",
        "mac": "02:01",
        "drops": {"runt": 1},
        "text": "a\nb",
    }


def test_level_below_is_not_written(reader: Reader) -> None:
    logs.configure("t", "warning", fd=reader.writing)
    log = logs.get("x")
    assert not log.enabled("info")
    log.info("no")
    log.warning("yes")
    log.error("also")
    assert [line.split()[1:4] for line in reader.lines()] == [["WARN", "t", "yes"], ["ERROR", "t", "also"]]


def test_log_taken_before_configure_is_written_after(reader: Reader) -> None:
    log = logs.get("early")
    logs.configure("t", "info", fd=reader.writing)
    log.info("e")
    assert len(reader.lines()) == 1


def test_fields_that_change_afterwards_are_written_as_they_were(reader: Reader) -> None:
    logs.configure("t", "info", fd=reader.writing)
    drops = {"runt": 1}
    logs.get("x").info("e", drops=drops)
    drops["runt"] = 2
    assert "runt: 1" in reader.lines()[0]


def test_exception_is_one_line_with_its_traceback(reader: Reader) -> None:
    logs.configure("t", "info", fd=reader.writing)
    try:
        raise OSError("gone\naway")
    except OSError:
        logs.get("x").exception("e", slot=1)
    (line,) = reader.lines()
    assert r'slot=1 error="OSError: gone\naway" traceback="Traceback' in line


def test_library_record_becomes_an_event(reader: Reader) -> None:
    logs.configure("t", "debug", fd=reader.writing)
    logging.getLogger("asyncio").warning("task %s was lost", "x")
    logging.getLogger("asyncio").info("not this")
    (line,) = reader.lines()
    assert line.endswith('WARN  t log logger=asyncio message="task x was lost"')


def test_pipe_nobody_reads_costs_lines_and_the_caller_nothing(reader: Reader) -> None:
    logs.configure("t", "info", fd=reader.writing, queue_lines=512)
    log = logs.get("x")
    for number in range(5_000):  # a caller that waited would wait for ever
        log.info("e", number=number, filling="x" * 200)
    lost = logs.dropped()
    assert lost > 4_000
    assert not logs.flush(0.01)
    octets = b""
    while not logs.flush(0.02):
        octets += reader.read()
    lines = (octets + reader.read()).decode().splitlines()
    told = [int(line.split("lines=")[1]) for line in lines if "log.dropped" in line]
    assert sum(told) == logs.dropped() == lost
    assert len(lines) - len(told) == 5_000 - lost


def test_descriptor_non_blocking_gets_whole_lines(reader: Reader) -> None:
    os.set_blocking(reader.writing, False)
    logs.configure("t", "info", fd=reader.writing)
    for _ in range(10):
        logs.get("x").info("e", filling="x" * 30_000)
    octets = b""
    while octets.count(b"\n") < 10:
        octets += os.read(reader.fd, 1 << 16)
    assert {len(line) for line in octets.splitlines()} == {30_000 + len(octets.splitlines()[0]) - 30_000}


def test_reader_gone_is_nobodys_business(reader: Reader) -> None:
    logs.configure("t", "info", fd=reader.writing)
    os.close(reader.fd)
    logs.get("x").info("e")
    assert logs.flush(5.0)
    reader.fd = os.open("/dev/null", os.O_RDONLY)


def test_configure_again_writes_each_line_once(reader: Reader) -> None:
    for _ in range(3):
        logs.configure("t", "info", fd=reader.writing)
    logs.get("x").info("e")
    assert len(reader.lines()) == 1


def test_line_that_is_dropped_is_in_the_black_box(reader: Reader, tmp_path: Path) -> None:
    with Boxes(tmp_path).new("t") as made:
        logs.configure("t", "info", fd=reader.writing, queue_lines=4, box=LineBox(made.fds[0]))
        while not logs.dropped():
            logs.get("x").info("fill", text="x" * 1000)
        logs.get("x").info("last", number=1)
        dropped = logs.dropped()
        box = str(made.path)
        assert dropped >= 2
        assert [line.split(" t ")[1].split()[0] for line in blackbox.read_lines(box, 2)] == ["fill", "last"]
