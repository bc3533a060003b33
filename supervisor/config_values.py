# SPDX-License-Identifier: Apache-2.0
"""From the text of one flag to a value: the parsers that `config.build` puts together.

Each parser takes the flag's name and its text and raises `ValueError` with one whole sentence for the user:
what was found, what was expected, and what to type. None of them looks at the machine or at another flag.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from halo_mp.supervisor.config_model import AddressConfig, NeighborConfig

INTERFACE_LIMIT = 15
"""Characters of a Linux interface name (IFNAMSIZ, without the final zero)."""

NAME_LIMIT = INTERFACE_LIMIT - len(".63")
"""Characters of an instance name: its TAP interfaces are called `<name>.<port>`."""

KERNEL_DRIVERS = ("net_tap", "net_tun", "net_af_packet", "net_af_xdp")
"""DPDK drivers that lean on an interface of the kernel, and on the privilege to touch it."""

MOST_VLAN = 4094
"""802.1Q keeps 0 for untagged frames and 4095 for nobody."""

SHOWN = 160
"""Characters of a text that a sentence repeats."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])(,.+)?", re.IGNORECASE)
_VDEV = re.compile(r"[A-Za-z][A-Za-z0-9_]*(,\S+)?")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)


def refusal(flag: str, text: str, reason: str, example: str) -> ValueError:
    """Return the error for a flag's text, in the one form that all of them have."""
    return ValueError(
        f"{flag} {shown(text, shlex.quote)}: {shown(reason)}; write for example {flag} {example}."
    )


def shown(text: str, quote: Callable[[str], str] = str) -> str:
    """Return a text as a sentence can hold it: on one line, not endless, and without what a terminal would obey."""
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return quote(cut) if cut.isprintable() else ascii(cut)


def number(flag: str, text: str, low: int, high: int, example: str) -> int:
    """Return the integer from `low` to `high`, both included, that `text` is."""
    value = _digits(text)
    if value is None or not low <= value <= high:
        raise refusal(flag, text, f"expected a whole number from {low} to {high}", example)
    return value


def power_of_two(flag: str, text: str, low: int, high: int, example: str) -> int:
    """Return the power of two from `low` to `high` that `text` is."""
    value = _digits(text)
    if value is None or not low <= value <= high or value & (value - 1):
        reason = f"expected a power of two from {low} to {high}"
        if value is not None and low <= value <= high:
            reason += f" ({1 << (value.bit_length() - 1)} and {1 << value.bit_length()} are the nearest)"
        raise refusal(flag, text, reason, example)
    return value


def numbers(flag: str, text: str, high: int, example: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `0,1,4-7`, in the order written; a number may come twice."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        start, end = _digits(first), _digits(last if dash else first)
        if start is None or end is None:
            raise refusal(flag, text, f"{part!r} is neither a number nor a range of numbers", example)
        if end < start or end > high:
            raise refusal(flag, text, f"{part!r} is not a rising range of numbers up to {high}", example)
        found.extend(range(start, end + 1))
    return tuple(found)


def distinct(flag: str, text: str, high: int, example: str) -> tuple[int, ...]:
    """Return `numbers`, none of which may come twice."""
    found = numbers(flag, text, high, example)
    for value in found:
        if found.count(value) > 1:
            raise refusal(flag, text, f"{value} is named twice", example)
    return found


def seconds(flag: str, text: str, low: float, high: float | None = None, *, example: str) -> float:
    """Return a finite number of seconds of at least `low`, and at most `high` where that is given."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= (math.inf if high is None else high)):
        limits = f"{low:g} or more" if high is None else f"from {low:g} to {high:g}"
        raise refusal(flag, text, f"expected a number of seconds, {limits}", example)
    return value


def choice(flag: str, text: str, choices: Sequence[str]) -> str:
    """Return the one of `choices` that `text` is, whatever its case."""
    for candidate in choices:
        if text.lower() == candidate.lower():
            return candidate
    raise refusal(flag, text, f"expected one of {', '.join(choices)}", choices[0])


def instance_name(flag: str, text: str) -> str:
    """Return `text` if it can be part of a path, of a shared memory name and of an interface name."""
    if not text:
        raise refusal(flag, text, "an instance needs a name", "edge1")
    if "/" in text:
        raise refusal(flag, text, "a name with a slash would leave the runtime directory", "edge1")
    if text.startswith((".", "-")):
        raise refusal(flag, text, f"a name that starts with {text[0]!r} reads as something else", "edge1")
    if not _NAME.fullmatch(text):
        raise refusal(flag, text, "a name is made of A-Z, a-z, 0-9, '_', '.' and '-'", "edge1")
    if len(text) > NAME_LIMIT:
        reason = f"{len(text)} characters are too many, {NAME_LIMIT} fit into the name of a network interface"
        raise refusal(flag, text, reason, text[:NAME_LIMIT])
    return text


def restart_limit(flag: str, text: str) -> tuple[int, float]:
    """Return (count, seconds) of `COUNT/SECONDS`."""
    count, slash, period = text.partition("/")
    if not slash or _digits(count) is None:
        raise refusal(flag, text, "expected how many restarts in how many seconds", "5/10")
    return number(flag, count, 0, 1_000_000, "5/10"), seconds(flag, period, 0.1, example="5/10")


def spares(flag: str, text: str, high: int) -> int | None:
    """Return a number of spare workers, None for `auto`."""
    return None if text == "auto" else number(flag, text, 0, high, "auto")


Key = tuple[int, int]
"""Port and VLAN of an interface; VLAN 0: untagged."""

KeyParser = Callable[[str, str], Key]


def interface(flag: str, text: str) -> Key:
    """Return port and VLAN of `PORT[.VLAN]`."""
    try:
        return parse_interface(text)
    except ValueError as error:
        raise refusal(flag, text, str(error), "0.100") from None


def parse_interface(text: str) -> Key:
    """The same; raises ValueError with no more than the reason."""
    port, dot, vlan = text.partition(".")
    number, tag = _digits(port), _digits(vlan) if dot else 0
    if number is None or tag is None:
        raise ValueError(f"{text!r} is neither a port nor a port and a VLAN, such as 0.100")
    if dot and not 1 <= tag <= MOST_VLAN:
        raise ValueError(f"VLAN {tag} is none of 1 to {MOST_VLAN}")
    return number, tag


def vlan_of_port(flag: str, text: str) -> Key:
    """Return port and VLAN of `PORT.VLAN`."""
    key = interface(flag, text)
    if not key[1]:
        raise refusal(flag, text, "the VLAN is missing", f"{key[0]}.100")
    return key


def interface_mtu(flag: str, text: str, low: int, high: int) -> tuple[Key | None, int]:
    """Return the interface, None for all, and the octets of `OCTETS` or `PORT[.VLAN]=OCTETS`."""
    name, equals, octets = text.rpartition("=")
    example = f"{name}=1500" if equals else "1500"
    return interface(flag, name) if equals else None, number(flag, octets, low, high, example)


NO_ADDRESS = "none"


def interface_address(flag: str, text: str) -> tuple[Key, AddressConfig | None]:
    """Return the interface and its address of `PORT[.VLAN]=ADDRESS/LENGTH`; None for `none`."""
    name, equals, rest = text.partition("=")
    if not equals:
        raise refusal(flag, text, "expected a port number, '=' and the rest", "0=10.1.2.3/24")
    key = interface(flag, name)
    if rest == NO_ADDRESS:
        return key, None
    if "/" not in rest:
        raise refusal(flag, text, "the prefix length is missing", f"{name}={rest}/24")
    try:
        return key, parse_address(rest.strip())
    except ValueError as error:
        raise refusal(flag, text, str(error), f"{name}=10.1.2.3/24") from None


def parse_address(text: str) -> AddressConfig:
    """Return an address of ours, `ADDRESS/LENGTH`. Raises ValueError with the reason why it can not be one."""
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address with a prefix length") from None
    if reason := _not_a_host(found):
        raise ValueError(reason)
    return AddressConfig(int(found.ip), found.network.prefixlen)


def parse_host(text: str) -> int:
    """Return the address of a neighbor. Raises ValueError with the reason why it can not be one."""
    try:
        found = ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address") from None
    if reason := _not_a_host(ipaddress.IPv4Interface(found)):
        raise ValueError(reason)
    return int(found)


def _not_a_host(interface: ipaddress.IPv4Interface) -> str:
    """Say why a host cannot have this address (RFC 1122, 3.2.1.3; RFC 3021 for /31), or nothing."""
    address, network = interface.ip, interface.network
    if network.prefixlen == 0:
        return "a prefix length of 0 would make the whole Internet a neighbor"
    if address.is_multicast or address.is_loopback or address.is_reserved or address in _THIS_NETWORK:
        return f"{address} can not be the address of a host on a network"
    if network.prefixlen < 31 and address == network.network_address:
        return f"{address} is the name of the network {network}, not a host in it"
    if network.prefixlen < 31 and address == network.broadcast_address:
        return f"{address} is the broadcast address of {network}, not a host in it"
    return ""


_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


def port_mac(flag: str, text: str) -> tuple[int, bytes]:
    """Return the port and the six octets of `PORT=MAC`, a unicast address."""
    port, rest = _port_and_rest(flag, text, "0=02:00:00:00:00:01")
    try:
        return port, parse_mac(rest)
    except ValueError as error:
        raise refusal(flag, text, str(error), f"{port}=02:00:00:00:00:01") from None


def parse_mac(text: str) -> bytes:
    """Return the six octets of a unicast MAC address. Raises ValueError with the reason."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address of six pairs of hexadecimal digits")
    octets = bytes.fromhex(text.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        raise ValueError("that is the address of a group or of nobody, not of one station")
    return octets


def device_mtu(flag: str, text: str, low: int, high: int) -> tuple[int, int]:
    """Return port and octets of `PORT=OCTETS`."""
    port, octets = _port_and_rest(flag, text, "0=1500")
    return port, number(flag, octets, low, high, f"{port}=1500")


def neighbor(flag: str, text: str) -> NeighborConfig:
    """Return the neighbor of `PORT[.VLAN]=ADDRESS,MAC`."""
    example = "0=10.1.2.9,02:00:00:00:00:09"
    name, equals, rest = text.partition("=")
    address, comma, mac = rest.partition(",")
    if not equals or not comma:
        raise refusal(flag, text, "expected an interface, '=', an address, ',' and a MAC address", example)
    key = interface(flag, name)
    try:
        return NeighborConfig(*key, parse_host(address.strip()), parse_mac(mac.strip()))
    except ValueError as error:
        raise refusal(flag, text, str(error), example) from None


def group(flag: str, text: str) -> str:
    """Return the name or number of a group; whether there is one is the machine's matter."""
    if not text or not text.isprintable() or ":" in text:
        raise refusal(flag, text, "expected the name or the number of a group", "adm")
    return text


def kernel(flag: str, text: str) -> tuple[int, ipaddress.IPv4Address | None]:
    """Return the port and, where there is one, the address of `PORT[=ADDRESS]`."""
    name, equals, rest = text.partition("=")
    port = _digits(name)
    if port is None:
        raise refusal(flag, text, "expected a port number, and perhaps '=' and an address", "0")
    if not equals:
        return port, None
    try:
        return port, ipaddress.IPv4Address(rest.strip())
    except ValueError:
        reason = f"{rest!r} is not an IPv4 address without a prefix length"
        raise refusal(flag, text, reason, f"{port}=10.1.2.3") from None


def macswap(flag: str, text: str) -> tuple[int, int]:
    """Return (port in, port out) of `IN=OUT`."""
    port, rest = _port_and_rest(flag, text, "0=1")
    out = _digits(rest)
    if out is None:
        raise refusal(flag, text, f"{rest!r} is not a port number", f"{port}=1")
    return port, out


def slot(flag: str, text: str) -> tuple[int, tuple[tuple[int, int | None], ...]]:
    """Return the slot and what feeds it of `N=PORT[.QUEUE],...`; queue None is all queues of the port."""
    name, equals, rest = text.partition("=")
    number_of_slot = _digits(name)
    if number_of_slot is None or not equals:
        raise refusal(flag, text, "expected a slot number, '=' and the ports that feed it", "0=0,1")
    feeds: list[tuple[int, int | None]] = []
    for part in rest.split(","):
        port, dot, queue = part.strip().partition(".")
        if _digits(port) is None or (dot and _digits(queue) is None):
            reason = f"{part!r} is neither a port nor a port and a queue"
            raise refusal(flag, text, reason, f"{number_of_slot}=0.0,1.0")
        feeds.append((int(port), int(queue) if dot else None))
    return number_of_slot, tuple(feeds)


def pci(flag: str, text: str) -> str:
    """Return a PCI address with its domain in lower case; device arguments after a comma stay."""
    match = _PCI.fullmatch(text)
    if not match:
        raise refusal(flag, text, "that is not a PCI address (lspci -D lists them)", "0000:03:00.0")
    domain, bus, device, function, arguments = match.groups()
    return f"{domain or '0000'}:{bus}:{device}.{function}".lower() + (arguments or "")


def vdev(flag: str, text: str) -> str:
    """Return a vdev string: the device's name, then arguments after commas, without blanks."""
    if not _VDEV.fullmatch(text):
        reason = "expected a DPDK device name, then arguments after commas, without blanks"
        raise refusal(flag, text, reason, "net_af_packet0,iface=eth0")
    driver = device_driver(text)
    interface = device_argument(text, "iface") or ""
    if driver in ("net_af_packet", "net_af_xdp") and not interface:
        raise refusal(
            flag, text, f"{driver} needs the interface it binds to", f"{device_name(text)},iface=eth0"
        )
    if len(interface) > INTERFACE_LIMIT:
        reason = f"an interface name has at most {INTERFACE_LIMIT} characters"
        raise refusal(flag, text, reason, f"{device_name(text)},iface={interface[:INTERFACE_LIMIT]}")
    return text


def device_name(device: str) -> str:
    """Return DPDK's name of a device: what stands before the first comma."""
    return device.partition(",")[0]


def device_driver(device: str) -> str:
    """Return the driver of a vdev, `net_tap` of `net_tap0,iface=x`: as in DPDK, how the name begins."""
    name = device_name(device)
    known = next((driver for driver in KERNEL_DRIVERS if name.startswith(driver)), "")
    return known or name.rstrip("0123456789")


def device_argument(device: str, key: str) -> str | None:
    """Return the value of `key=value` among a device's arguments."""
    for argument in device.split(",")[1:]:
        name, equals, value = argument.partition("=")
        if name == key and equals:
            return value
    return None


def file(flag: str, text: str) -> str:
    """Return the path of a file, so that it means the same wherever it is read."""
    if not text or "\0" in text:
        raise refusal(flag, text, "expected the name of a file", "routes.txt")
    return str(Path(text).absolute())


def user(flag: str, text: str) -> str:
    """Return the name or number of a user; whether there is one is the machine's matter."""
    if not text or not text.isprintable() or ":" in text:
        raise refusal(flag, text, "expected the name or the number of a user", "nobody")
    return text


def _port_and_rest(flag: str, text: str, example: str) -> tuple[int, str]:
    """Split `PORT=REST`."""
    name, equals, rest = text.partition("=")
    port = _digits(name)
    if port is None or not equals:
        raise refusal(flag, text, "expected a port number, '=' and the rest", example)
    return port, rest.strip()


def _digits(text: str) -> int | None:
    """Return the number that plain decimal digits are; int() would take '1_0' and other alphabets too."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
