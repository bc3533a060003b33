# SPDX-License-Identifier: Apache-2.0
"""Logs as events with fields, one line each, on stderr, written so that the caller never waits.

    log = logs.get("supervisor")
    log.info("worker.up", slot=0, pid=12)

    2026-11-22T15:24:48.123Z INFO  supervisor worker.up slot=0 pid=12

A caller renders its line and puts it on a bounded queue; one daemon thread writes. When stderr is a pipe
that nobody reads, or a terminal that was stopped, the queue fills and further lines are counted instead of
written: a data plane must not stop for its own log. Lines that nobody can read any more are counted too.
What a person is told past the log (`say`) waits as little.
Into a process's black box each line goes at once, also those that are dropped here.
Who wants events as values, of a level of its own, listens (`listen`).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from halo_mp.blackbox import LineBox

Format = Literal["text", "json"]

ROOT = "halo_mp"
QUEUE_LINES = 4096  # at 200 octets a line under 1 MiB
MOST_TEXT = 16384  # of what an exception says, in characters
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_LABELS = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}
_BARE = re.compile(r"[A-Za-z0-9_.:/,+@%*\[\]-]+")


class Log:
    """Writes events under one name. Fields are rendered at once, so they may change afterwards."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, **fields: object) -> None:
        """Write an event that only somebody who searches a fault wants to see."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Write an event of normal operation."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Write an event that somebody should look at, though all goes on."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Write an event after which something does not work."""
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Write an error with the exception that is being handled, its traceback in one field."""
        self._emit(logging.ERROR, event, {**fields, **_exception_fields(sys.exception())})

    def enabled(self, level: str) -> bool:
        """Tell whether events of that level are written, for fields that are costly to make."""
        return self._logger.isEnabledFor(LEVELS[level])

    def _emit(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


def get(name: str) -> Log:
    """Return the log of that name; it may be taken before `configure` and used after."""
    return Log(logging.getLogger(f"{ROOT}.{name}"))


class _Writer(logging.Handler):
    """Renders in the caller's thread, writes in its own. `_pending` counts lines that are not yet written."""

    def __init__(self, process: str, style: Format, fd: int, queue_lines: int, box: LineBox | None) -> None:
        super().__init__()
        self.box = box
        self.dropped = 0  # by callers that found the queue full, and by the writer
        self._counting = threading.Lock()
        self.process = process
        self._render = _render_json if style == "json" else _render_text
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(queue_lines)
        self._told = 0
        self._thread = threading.Thread(target=self._run, name="halo-mp-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record.created, record.levelno, *_event(record))
        except MemoryError:
            self._count_dropped()
            return
        except Exception:
            self.handleError(record)
            return
        if (box := self.box) is not None:
            box.write(line)
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._count_dropped()

    def flush_lines(self, timeout_s: float) -> bool:
        """Wait until everything logged so far is written; False when that took too long."""
        with self._lines.all_tasks_done:
            return self._lines.all_tasks_done.wait_for(lambda: self._lines.unfinished_tasks == 0, timeout_s)

    def close(self) -> None:
        """End the thread once it has written what is queued; a blocked stderr holds up nobody."""
        super().close()
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass

    def _line(self, created: float, level: int, event: str, fields: Mapping[str, object]) -> bytes:
        return self._render(created, level, self.process, event, fields).encode("utf-8", "backslashreplace")

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if _write(self._fd, line):
                self._tell_dropped()
            else:
                self._count_dropped()
            self._lines.task_done()
        self._lines.task_done()

    def _count_dropped(self) -> None:
        with self._counting:
            self.dropped += 1

    def _tell_dropped(self) -> None:
        missing = self.dropped - self._told
        if missing and _write(
            self._fd, self._line(time.time(), logging.WARNING, "log.dropped", {"lines": missing})
        ):
            self._told += missing


class _Listener(logging.Handler):
    """Passes on our own events; its `level` is its own, whatever is written."""

    def __init__(self, on_event: Callable[[float, int, str, Mapping[str, object]], None]) -> None:
        super().__init__()
        self._on_event = on_event

    def emit(self, record: logging.LogRecord) -> None:
        self._on_event(record.created, record.levelno, *_event(record))


_writer: _Writer | None = None
_listener: _Listener | None = None
_written = logging.INFO


def configure(
    process: str,
    level: str,
    style: Format = "text",
    *,
    fd: int = 2,
    queue_lines: int = QUEUE_LINES,
    box: LineBox | None = None,
) -> None:
    """Send all logs of this process to `fd` and `box`: ours from `level` on, those of libraries from warnings on."""
    global _writer
    root = logging.getLogger()
    if _writer is not None:
        root.removeHandler(_writer)
        _writer.close()
    _writer = _Writer(process, style, fd, queue_lines, box)
    _writer.addFilter(_is_written)
    root.addHandler(_writer)
    root.setLevel(logging.WARNING)
    set_level(level)


def keep(box: LineBox | None) -> None:
    """Put lines into another box from now on, or into none any more."""
    if _writer is not None:
        _writer.box = box


def set_level(level: str) -> None:
    """Log from another level on."""
    global _written
    _written = LEVELS[level]
    _make_events()


def listen(level: str, on_event: Callable[[float, int, str, Mapping[str, object]], None]) -> None:
    """Have our own events from `level` on passed on: when, the level as logging(3) counts it, event and fields.

    By whichever thread logs, while it does. There is one listener, and this takes the place of the one before.
    """
    global _listener
    if _listener is not None:
        unlisten()
    _listener = _Listener(on_event)
    _listener.setLevel(LEVELS[level])
    logging.getLogger(ROOT).addHandler(_listener)
    _make_events()


def unlisten() -> None:
    """Listen no more. May be called twice."""
    global _listener
    if _listener is not None:
        logging.getLogger(ROOT).removeHandler(_listener)
        _listener = None
        _make_events()


def _make_events() -> None:
    """Let those events be made that are written or listened to."""
    levels = [_written] if _listener is None else [_written, _listener.level]
    logging.getLogger(ROOT).setLevel(min(levels))


def _is_written(record: logging.LogRecord) -> bool:
    """Whether a line is for our log: not what only the listener wants. What `line` writes has no level."""
    return record.levelno >= _written or not record.name.startswith(f"{ROOT}.")


def rename(process: str) -> None:
    """Call this process something else from the next line on."""
    if _writer is not None:
        _writer.process = process


def line(event: str, /, **fields: object) -> None:
    """Write an event past all loggers and their levels: their handlers may be what it came from."""
    if _writer is not None:
        record = logging.LogRecord(ROOT, logging.INFO, "", 0, event, None, None)
        record.fields = fields
        _writer.handle(record)


def describe(error: BaseException) -> str:
    """Return type and text of an exception, whatever its __str__ does."""
    try:
        text = str(error)
    except Exception as failure:
        text = f"<its __str__ raised {type(failure).__name__}>"
    return _shorten(f"{type(error).__name__}: {text}")


def dropped() -> int:
    """Return how many lines were counted instead of written."""
    return _writer.dropped if _writer else 0


def flush(timeout_s: float = 1.0) -> bool:
    """Wait, at the end of a process, until all lines are written; False when that took too long."""
    return _writer.flush_lines(timeout_s) if _writer else True


def say(text: str, *, fd: int, wait_s: float) -> None:
    """Write what a person reads to `fd`, and return when it is written, at the latest after `wait_s` seconds.

    It is written by a thread of its own: a terminal that was stopped would hold up whoever writes to it.
    """
    octets = text.encode("utf-8", "backslashreplace")
    writing = threading.Thread(target=_write, args=(fd, octets), name="halo-mp-say", daemon=True)
    writing.start()
    writing.join(wait_s)


def _event(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    """Return event and fields; what a library logged becomes the event `log` with its text as a field."""
    fields: Mapping[str, object] | None = getattr(record, "fields", None)
    if fields is not None:
        return record.msg, fields
    error = record.exc_info[1] if record.exc_info else None
    return "log", {"logger": record.name, "message": record.getMessage(), **_exception_fields(error)}


def _exception_fields(error: BaseException | None) -> dict[str, object]:
    if error is None:
        return {}
    text = "".join(traceback.format_exception(error))
    return {"error": describe(error), "traceback": _shorten(text)}


def _shorten(text: str) -> str:
    """Return a text without its middle, where it is longer than anybody reads."""
    half = MOST_TEXT // 2
    return text if len(text) <= MOST_TEXT else f"{text[:half]} [...] {text[-half:]}"


def _time(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _render_text(created: float, level: int, process: str, event: str, fields: Mapping[str, object]) -> str:
    label = _LABELS.get(level, str(level))
    words = [_time(created), f"{label:<5}", process, event]
    words += [f"{name}={_value(value)}" for name, value in fields.items()]
    return " ".join(words) + "\n"


def _render_json(created: float, level: int, process: str, event: str, fields: Mapping[str, object]) -> str:
    label = _LABELS.get(level, str(level)).lower()
    head = {"time": _time(created), "level": label, "process": process, "event": event}
    return json.dumps({**fields, **head}, default=_plain) + "\n"


def plain(fields: Mapping[str, object]) -> dict[str, Any]:
    """Return the fields of an event as what JSON and msgpack can hold."""
    found: dict[str, Any] = json.loads(json.dumps(fields, default=_plain))
    return found


def level_name(level: int) -> str:
    """Return what a level is called."""
    return next((name for name, number in LEVELS.items() if number == level), str(level))


def _plain(value: object) -> object:
    """Return what JSON can hold instead of a value that it can not."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex(":")
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)


def _value(value: object) -> str:
    """Render one field as a word without spaces, or as JSON: whatever it holds, the line stays one line."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value).hex(":")
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_value(item)}" for name, item in value.items()) + "}"
    return json.dumps(value, default=_plain)


def _write(fd: int, line: bytes) -> bool:
    """Write a whole line, also to a non-blocking descriptor; False when its reader is gone."""
    view = memoryview(line)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return False
    return True
