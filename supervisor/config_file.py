# SPDX-License-Identifier: Apache-2.0
"""From a TOML file to flags: each key stands for a flag, so that both are checked by the same code and mean the same.

A text from a file remembers its place, for sentences about it (`config_reader`). What is no key, or has a value of
another kind, is a problem like a flag that does not exist; all problems are told at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Literal

from halo_mp.supervisor.config_open import read_file
from halo_mp.supervisor.config_reader import FileText
from halo_mp.supervisor.config_values import NO_ADDRESS, shown

Kind = Literal["text", "list", "commas", "true", "false", "either", "optional"]
"""How a value becomes a flag's: one text; one text for each entry; entries behind commas; a flag without value that is
there when the value is true, or when it is false; one that has two forms; or one whose value may be left out: true."""

KEYS: dict[str, dict[str, tuple[str, Kind]]] = {
    "instance": {
        "name": ("--name", "text"),
        "ports": ("--ports", "commas"),
        "user": ("--user", "text"),
        "control_group": ("--control-group", "text"),
        "spare": ("--spare", "text"),
        "restart_limit": ("--restart-limit", "text"),
        "hang_timeout": ("--hang-timeout", "text"),
        "orphan_timeout": ("--orphan-timeout", "text"),
        "adopt": ("--no-adopt", "false"),
    },
    "application": {
        "app": ("--app", "text"),
        "directory": ("--app-dir", "text"),
        "debug": ("--app-debug", "true"),
    },
    "devices": {
        "pci": ("--pci", "list"),
        "vdev": ("--vdev", "list"),
        "queues": ("--queues", "text"),
        "spread": ("--spread", "text"),
        "mtu": ("--mtu", "list"),
        "promiscuous": ("--promiscuous", "either"),
    },
    "routing": {
        "forward": ("--no-forward", "false"),
        "probe": ("--probe", "true"),
        "routes_file": ("--routes-file", "text"),
        "icmp_rate": ("--icmp-rate", "text"),
        "reachable_time": ("--reachable-time", "text"),
        "ecmp_seed": ("--ecmp-seed", "text"),
    },
    "cores": {
        "workers": ("--cores", "commas"),
        "driver": ("--driver-cores", "commas"),
        "idle": ("--idle", "text"),
    },
    "memory": {
        "ring_size": ("--ring-size", "text"),
        "pool_size": ("--pool-size", "text"),
        "hugepages": ("--hugepages", "text"),
        "mem_channels": ("--mem-channels", "text"),
        "eal": ("--eal", "list"),
    },
    "packets": {
        "rx_checksum": ("--rx-checksum", "true"),
        "tx_checksum": ("--tx-checksum", "true"),
        "tx_only": ("--tx-only", "true"),
    },
    "logs": {
        "stats": ("--stats-log", "text"),
        "debug": ("--debug-log", "true"),
        "level": ("--log-level", "text"),
        "format": ("--log-format", "text"),
    },
}
"""[table] and key of what concerns the whole instance."""

NAMED: dict[str, dict[str, tuple[str, Kind]]] = {
    "ports": {
        "mac": ("--mac", "text"),
        "mtu": ("--device-mtu", "text"),
        "macswap": ("--macswap", "text"),
        "kernel": ("--kernel", "optional"),
    },
    "slots": {"feeds": ("--slot", "commas")},
    "interfaces": {
        "addresses": ("--address", "list"),
        "mtu": ("--mtu", "text"),
        "up": ("--down", "false"),
        "forward": ("--no-forward-from", "false"),
        "proxy_arp": ("--proxy-arp", "true"),
        "directed_broadcast": ("--directed-broadcast", "true"),
        "redirects": ("--redirects", "true"),
    },
}
"""[table.name] and key: the flag's value is `name=value`, or `name` alone."""

LISTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "routes": ("--route", ("prefix", "via"), "{prefix}={via}"),
    "neighbors": ("--neighbor", ("interface", "address", "mac"), "{interface}={address},{mac}"),
}
"""[[table]]: a flag, and how its value is made of the keys, all of which are needed."""

_VLAN_FLAG = "--vlan"  # [interfaces."0.100"] by itself
_WHERE = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)", re.DOTALL)
_TWICE = {"Cannot overwrite a value": "the key before this place is there twice"}
"""What the parser says, where that needs words."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_INTERFACE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_MOST_BITS = 64
_TABLES = [*KEYS, *NAMED, *LISTS]


class FileReader:
    """One file as flags: `values` by their names in argparse's namespace, and `problems`, a sentence each."""

    def __init__(self, path: str, text: str | None = None) -> None:
        """Read a file, or `text` as if it stood there."""
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.implies_ports = False
        """Whether `values` has --ports only because tables name ports: named devices bring theirs."""
        self._ports: set[str] = set()
        self._path = path
        self._text = text
        self._name = Path(path).name
        for table, content in self._load().items():
            self._read_table(table, content)
        if "ports" not in self.values and not {"pci", "vdev"} & self.values.keys():
            self._imply_ports()

    def _load(self) -> dict[str, Any]:
        try:
            text = read_file(self._path) if self._text is None else self._text
            return tomllib.loads(text.removeprefix("\ufeff"))
        except OSError as error:
            self.problems.append(f"--config {self._path}: it can not be read: {error.strerror}.")
        except UnicodeDecodeError:
            self.problems.append(f"{self._name}: it is not TOML, which is text in UTF-8.")
        except tomllib.TOMLDecodeError as error:
            what, where = match.groups() if (match := _WHERE.fullmatch(str(error))) else (str(error), "")
            place = f"{self._name}, {where}" if where else self._name
            self.problems.append(f"{place}: it is not TOML: {_TWICE.get(what, what)}.")
        except (RecursionError, ValueError):  # which the parser leaves to Python's own limits
            self.problems.append(
                f"{self._name}: it is nested deeper, or a number in it is longer, than in any configuration."
            )
        return {}

    def _read_table(self, table: str, content: object) -> None:
        if table in KEYS:
            self._each_key(table, content, KEYS[table], lambda key, value: self._set(table, key, value))
        elif table in NAMED and isinstance(content, Mapping):
            for name, inner in content.items():
                self._read_named(table, name, inner)
        elif table in LISTS and isinstance(content, list):
            for number, entry in enumerate(content):
                self._read_entry(table, f"{table}[{number}]", entry)
        elif table in NAMED or table in LISTS:
            form = f"[{table}.0]" if table in NAMED else f"[[{table}]]"
            self._complain(table, f"expected a table such as {form}")
        else:
            self._unknown(table, table, _TABLES)

    def _read_named(self, table: str, name: str, content: object) -> None:
        place = _place(table, name)
        if not (_INTERFACE if table == "interfaces" else _NUMBER).fullmatch(name):
            example = '[interfaces."0.100"]' if table == "interfaces" else f"[{table}.0]"
            self._complain(place, f"{name!r} is no number of one, as in {example}")
            return
        if table != "slots":
            self._ports.add(name.partition(".")[0])
        if table == "interfaces" and "." in name:
            self._add(_VLAN_FLAG, FileText(name, self._where(place)))

        def read(key: str, value: object) -> None:
            flag, kind = NAMED[table][key]
            where = f"{place}.{key}"
            if kind in ("true", "false") or (kind == "optional" and isinstance(value, bool)):
                truth = self._truth(where, value)
                if truth is not None and truth != (kind == "false"):
                    self._add(flag, FileText(name, self._where(where)))
                return
            if flag == "--address" and value == []:
                value = NO_ADDRESS
            for text in self._texts(where, kind, value):
                self._add(flag, FileText(f"{name}={text}", self._where(where)))

        self._each_key(place, content, NAMED[table], read)

    def _read_entry(self, table: str, place: str, content: object) -> None:
        flag, keys, form = LISTS[table]
        found: dict[str, str] = {}

        def read(key: str, value: object) -> None:
            kind: Kind = "commas" if key == "via" else "text"
            found[key] = ",".join(self._texts(f"{place}.{key}", kind, value))

        before = len(self.problems)
        self._each_key(place, content, dict.fromkeys(keys), read)
        missing = [key for key in keys if key not in found]
        if len(self.problems) > before:
            return
        if missing:
            self._complain(place, f"{missing[0]} is missing, it needs {', '.join(keys)}")
        else:
            self._add(flag, FileText(form.format(**found), self._where(place)))

    def _each_key(
        self, place: str, content: object, known: Iterable[str], read: Callable[[str, object], None]
    ) -> None:
        if not isinstance(content, Mapping):
            self._complain(place, "expected a table")
            return
        for key, value in content.items():
            if key in known:
                read(key, value)
            else:
                self._unknown(f"{place}.{key}", key, list(known))

    def _set(self, table: str, key: str, value: object) -> None:
        flag, kind = KEYS[table][key]
        where = f"{table}.{key}"
        if kind in ("true", "false", "either"):
            truth = self._truth(where, value)
            if truth is not None:
                self.values[_dest(flag)] = not truth if kind == "false" else truth
            return
        for text in self._texts(where, kind, value):
            if key == "routes_file":
                text = str(Path(self._path).absolute().parent / text)
            entry = FileText(text, self._where(where))
            if kind == "list":
                self._add(flag, entry)
            else:
                self.values[_dest(flag)] = entry

    def _add(self, flag: str, text: FileText) -> None:
        self.values.setdefault(_dest(flag), []).append(text)

    def _truth(self, where: str, value: object) -> bool | None:
        if isinstance(value, bool):
            return value
        self._complain(where, f"expected true or false, not {_shown_value(value)}")
        return None

    def _texts(self, where: str, kind: Kind, value: object) -> list[str]:
        """Return what a value stands for: one text, but of a list each entry."""
        entries = value if isinstance(value, list) and kind in ("list", "commas") else [value]
        if not all(type(entry) in (str, int, float) for entry in entries):
            several = " or several in brackets" if kind in ("list", "commas") else ""
            self._complain(where, f"expected a text or a number{several}, not {_shown_value(value)}")
            return []
        if any(type(entry) is int and entry.bit_length() > _MOST_BITS for entry in entries):
            self._complain(where, "no number is that large here")
            return []
        texts = [str(entry) for entry in entries]
        return [",".join(texts)] if kind == "commas" else texts

    def _imply_ports(self) -> None:
        """Let tables say which ports there are where nothing else does."""
        numbers = sorted(map(int, self._ports))
        if numbers:
            self.values["ports"] = FileText(",".join(map(str, numbers)), self._where("ports"))
            self.implies_ports = True

    def _unknown(self, where: str, key: str, known: list[str]) -> None:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(known)}"
        self._complain(where, f"there is no such key; {hint}")

    def _complain(self, where: str, reason: str) -> None:
        self.problems.append(f"{self._where(where)}: {reason}.")

    def _where(self, place: str) -> str:
        return f"{self._name}, {shown(place)}"


def _shown_value(value: object) -> str:
    """Return a value as a sentence shows it. repr() of what is nested very deeply, or is very long, is refused."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, date | time):
        return value.isoformat()
    try:
        return shown(repr(value))
    except (RecursionError, ValueError):
        return "that"


def _place(table: str, name: str) -> str:
    """Return a table's name as it is written between brackets."""
    return f'{table}."{name}"' if "." in name else f"{table}.{name}"


def _dest(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
