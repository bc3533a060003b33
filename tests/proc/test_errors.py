# SPDX-License-Identifier: Apache-2.0
"""What can not work ends with a sentence and the documented exit code: the real program on the real machine.

Each row: flags, the command that makes the circumstances, words of the sentence, exit code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import pytest

import halo_mp
from halo_mp.supervisor import checks
from tests.support.leftovers import leftovers
from tests.support.namespace import Namespace

NAME = f"e{os.getpid() % 100000}"
FLAGS_WRONG, MACHINE, BOOT = 2, 3, 5


def after(command: str) -> tuple[str, ...]:
    """Return what runs a shell command, then the program in mounts of its own."""
    return ("unshare", "--mount", "sh", "-c", f'set -e; {command}; exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Row:
    """One error."""

    name: str
    flags: Sequence[str]
    words: Sequence[str]
    status: int
    via: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


NO_PAGES = (
    "mkdir {0}/hugepages-2048kB; "
    "for which in nr free resv; do echo 0 > {0}/hugepages-2048kB/${which}_hugepages; done; "
    "mount --bind {0} /sys/kernel/mm/hugepages"
)

ROWS = [
    # ---- flags
    Row(
        "flag that is none",
        ["--prots", "0"],
        ["--prots is not a flag", "the nearest is --ports"],
        FLAGS_WRONG,
    ),
    Row("value without flag", ["0,1"], ["0,1 belongs to no flag"], FLAGS_WRONG),
    Row("flag without value", ["--ports"], ["--ports needs a value"], FLAGS_WRONG),
    Row(
        "no such port",
        ["--vdev", "net_null0", "--ports", "0,1"],
        ["--ports: there is no port 1", "0 is net_null0"],
        FLAGS_WRONG,
    ),
    Row("name with a slash", ["--name", "a/b"], ["--name a/b", "slash"], FLAGS_WRONG),
    Row("name that climbs", ["--name", ".."], ["--name .."], FLAGS_WRONG),
    Row(
        "ring size that is no power of two",
        ["--ring-size", "1000"],
        ["--ring-size 1000", "power of two", "512 and 1024 are the nearest"],
        FLAGS_WRONG,
    ),
    Row(
        "several mistakes",
        ["--ring-size", "1000", "--name", "a/b", "--frob", "--mtu", "3", "--hang-timeout", "0"],
        ["--frob is not a flag", "--name a/b", "--mtu 3", "--ring-size 1000", "--hang-timeout 0"],
        FLAGS_WRONG,
    ),
    Row("EAL flag that is ours", ["--eal=--file-prefix=x"], ["--file-prefix", "use --name"], FLAGS_WRONG),
    # ---- the machine
    Row(
        "core that is not there",
        ["--cores", "1023"],
        ["--cores: there is no core 1023, this machine has"],
        MACHINE,
    ),
    Row(
        "interface that is not there",
        ["--vdev", "net_af_packet0,iface=nope0"],
        ["net_af_packet0 binds to the interface nope0", "has only lo", "ip link set nope0 netns"],
        MACHINE,
    ),
    Row(
        "TAP name that is a foreign interface's",
        [],
        [f"There is an interface {NAME}.0 already", f"sudo ip link delete {NAME}.0", "--name"],
        MACHINE,
        after(f"ip link add {NAME}.0 type veth peer name other"),
    ),
    Row(
        "subnet that the kernel is in",
        [],
        [f"{NAME}.0 would be in 10.77.0.0/24", "through eth0", "--address 0="],
        MACHINE,
        after("ip link add eth0 type veth peer name other; ip address add 10.77.0.9/24 dev eth0"),
    ),
    Row(
        "no user's capabilities",
        [],
        ["net_tap0 needs CAP_NET_ADMIN in this network namespace", "sudo ", "unshare -rn "],
        MACHINE,
        ("unshare", "--user"),
        {"XDG_RUNTIME_DIR": "{0}"},
    ),
    Row(
        "nowhere for runtime files",
        [],
        ["nowhere to keep runtime files", "XDG_RUNTIME_DIR"],
        MACHINE,
        ("unshare", "--user", "env", "-u", "XDG_RUNTIME_DIR"),
    ),
    Row(
        "root without a capability",
        [],
        ["net_tap0 needs CAP_NET_ADMIN", "this root does not have it", "--cap-add=NET_ADMIN"],
        MACHINE,
        ("setpriv", "--bounding-set=-net_admin"),
    ),
    Row(
        "user that is not there",
        ["--user", "nosuchuser"],
        ["--user nosuchuser: there is no such user"],
        MACHINE,
    ),
    Row(
        "PCI device that is not there",
        ["--pci", "fffe:ff:1f.7", "--hugepages", "auto"],
        ["There is no PCI device fffe:ff:1f.7", "lspci -D"],
        MACHINE,
    ),
    Row(
        "shared memory too small",
        ["--ring-size", "524288"],
        ["/dev/shm has 8 MiB free, and rings and tables need ", "mount -o remount,size=", "--ring-size"],
        MACHINE,
        after("mount -t tmpfs -o size=8m tmpfs /dev/shm"),
    ),
    Row(
        "no hugepages free",
        ["--hugepages", "2M"],
        ["hugepages of 2 MiB are needed, 0 are free", "nr_hugepages", "--hugepages off"],
        MACHINE,
        after(NO_PAGES),
    ),
    # ---- what only the driver finds out
    Row("vdev of no driver", ["--vdev", "net_nope0"], ["net_nope0", "EAL: "], BOOT),
    Row(
        "vdev that its driver refuses",
        ["--vdev", "net_pcap0,rx_pcap=/nonexistent"],
        ["there is no port 0: DPDK found no device net_pcap0"],
        BOOT,
    ),
    Row("EAL flag that is none", ["--eal=--no-such-flag"], ["EAL did not start"], BOOT),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_error_is_a_sentence_and_an_exit_code(namespace: Namespace, tmp_path: Path, row: Row) -> None:
    via = [word.replace("{0}", str(tmp_path)) for word in row.via]
    environment = {name: value.format(tmp_path) for name, value in row.environment.items()}
    status, said, log = run(namespace, *via, *supervisor("--name", NAME, *row.flags), environment=environment)
    assert status == row.status, said
    for words in row.words:
        assert any(words in sentence for sentence in said), f"{words!r} not in {said}"
    # What is found before anything starts is all that is said; several mistakes are several lines.
    assert row.status == BOOT or not log
    if row.name != "several mistakes":
        assert len(said) == 1


def test_core_that_taskset_took_away(namespace: Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))
    assert len(cores) > 1, "one core is too few to take one away"
    command = ("taskset", "-c", str(cores[0]), *supervisor("--name", NAME, "--cores", str(cores[-1])))
    status, [sentence], log = run(namespace, *command)
    assert status == MACHINE
    assert f"--cores: core {cores[-1]} is there, but this process may use only {cores[0]}" in sentence
    assert not log


def test_no_dpdk_is_a_sentence(namespace: Namespace, tmp_path: Path) -> None:
    """A package as a build without libdpdk leaves it, laid out of links."""
    package = tmp_path / "halo_mp"
    package.mkdir()
    sources = {entry.name: entry for entry in Path(halo_mp.__path__[0]).iterdir()}
    sources["supervisor"] = Path(checks.__file__).parent
    for name, source in sources.items():
        if not name.startswith(("_driver", "__pycache__")):
            (package / name).symlink_to(source.resolve())
    # -S: an editable install would add its own modules.
    command = (sys.executable, "-PS", "-m", "halo_mp.supervisor", "--name", NAME)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    status, [sentence], log = run(namespace, *command, environment=environment)
    assert status == MACHINE
    assert "halo_mp._driver is missing" in sentence
    assert "sudo apt install libdpdk-dev" in sentence
    assert not log


def supervisor(*flags: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "halo_mp.supervisor", *flags)


def run(
    namespace: Namespace, *command: str, environment: Mapping[str, str] | None = None
) -> tuple[int, list[str], list[str]]:
    """Run to the end; return exit code, sentences, and lines of the log. Nothing may be left behind."""
    before = leftovers()
    words = [f"{name}={value}" for name, value in (environment or {}).items()]
    done = namespace.run("env", *words, *command, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert leftovers() == before
    lines = done.stderr.splitlines()
    said = [*takewhile(lambda line: line.startswith("halo-mp: "), reversed(lines))][::-1]
    assert said, f"the last that is read is no sentence:\n{done.stderr}"
    return done.returncode, said, lines[: -len(said)]
