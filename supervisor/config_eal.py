# SPDX-License-Identifier: Apache-2.0
"""Which EAL arguments `--eal` may carry, and what to use instead of the others.

The driver builds the EAL command line itself; an argument that contradicts it would be ignored in one DPDK
version and end the process in the next. EAL reads its arguments with getopt_long(3), so an unambiguous
beginning of a long name counts as that name, and short ones may be run together.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from halo_mp.supervisor.config_values import refusal

_CORES = "use --cores and --driver-cores"
_MEMORY = "use --pool-size and --hugepages"
_DEVICES = "use --pci and --vdev"
_OWN = "halo-mp sets it itself"
_PRIVATE = "halo-mp keeps all DPDK memory private to the driver and never shares it with another DPDK process"

_REFUSED = {
    "-l": _CORES,
    "-c": _CORES,
    "-s": _CORES,
    "-S": _CORES,
    "-n": "use --mem-channels",
    "-m": _MEMORY,
    "-a": _DEVICES,
    "-b": _DEVICES,
    "-h": "it would end the driver; dpdk-testpmd --help lists what EAL takes",
    "--lcores": _CORES,
    "--main-lcore": _CORES,
    "--allow": _DEVICES,
    "--block": _DEVICES,
    "--vdev": _DEVICES,
    "--no-pci": _DEVICES,
    "--no-huge": "use --hugepages off",
    "--huge-dir": "use --hugepages; no hugetlbfs is mounted",
    "--huge-unlink": _PRIVATE,
    "--huge-worker-stack": _MEMORY,
    "--socket-mem": _MEMORY,
    "--socket-limit": _MEMORY,
    "--legacy-mem": _PRIVATE,
    "--in-memory": _OWN,
    "--no-shconf": _OWN,
    "--file-prefix": "use --name",
    "--proc-type": _PRIVATE,
    "--mbuf-pool-ops-name": _OWN,
    "--help": "it would end the driver; dpdk-testpmd --help lists what EAL takes",
}

# Long names of EAL that pass: needed to tell an abbreviation of ours from one of theirs.
_PASSED = (
    "--base-virtaddr",
    "--create-uio-dev",
    "--force-max-simd-bitwidth",
    "--iova-mode",
    "--log-level",
    "--match-allocations",
    "--no-hpet",
    "--no-telemetry",
    "--single-file-segments",
    "--syslog",
    "--telemetry",
    "--trace",
    "--trace-bufsz",
    "--trace-dir",
    "--trace-mode",
    "--vfio-intr",
    "--vfio-vf-token",
    "--vmware-tsc-map",
)
_SHORT_WITHOUT_VALUE = "vh"


def eal_words(flag: str, text: str) -> tuple[str, ...]:
    """Return the words of --eal, split as a shell would; raises ValueError for what halo-mp sets itself."""
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        raise refusal(flag, text, "a quotation mark is not closed", "'--log-level=lib.eal:debug'") from None
    complaint = _complaint(words)
    if complaint:
        raise ValueError(f"{flag} {shlex.quote(text)}: {complaint}.")
    return words


def _complaint(words: Sequence[str]) -> str:
    """Say why the driver cannot take these EAL arguments and what to use instead, or nothing."""
    for word in words:
        if word == "--":
            return "'--' would end the EAL arguments; leave it out"
        if word.startswith("--log-level") and word.endswith("=help"):
            return f"{word} would end the driver; dpdk-testpmd --log-level=help lists the names"
        name = _long(word) if word.startswith("--") else _short(word)
        if name:
            return f"{name} does not belong there: {_REFUSED[name]}"
    return ""


def _long(word: str) -> str:
    """Return the refused long name that a word is or abbreviates."""
    name = word.partition("=")[0]
    if name in _PASSED:
        return ""
    return next((refused_name for refused_name in _REFUSED if refused_name.startswith(name)), "")


def _short(word: str) -> str:
    """Return the refused short name in a word such as -l0-3 or -vl."""
    if not word.startswith("-"):
        return ""
    for letter in word[1:]:
        if f"-{letter}" in _REFUSED:
            return f"-{letter}"
        if letter not in _SHORT_WITHOUT_VALUE:
            return ""  # the rest of the word is its value
    return ""
