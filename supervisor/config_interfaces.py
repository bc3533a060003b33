# SPDX-License-Identifier: Apache-2.0
"""From --address, --vlan, --mtu and the interfaces' flags to the interfaces of an instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from halo_mp.shm.layout import MAX_ADDRESSES, MAX_INTERFACES
from halo_mp.shm.tables import interface_name
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_model import (
    AddressConfig,
    InterfaceConfig,
)
from halo_mp.supervisor.config_reader import FlagReader

LEAST_MTU, MOST_MTU, DEFAULT_MTU = 68, 9600, 1500
_OF_INTERFACES = ("--down", "--no-forward-from", "--proxy-arp", "--directed-broadcast", "--redirects")

Key = tuple[int, int]
"""Port and VLAN."""


@dataclass(frozen=True, slots=True)
class InterfacePlan:
    """The interfaces, those of whole ports first, and the MTU of each port's device."""

    interfaces: tuple[InterfaceConfig, ...]
    mtus: dict[int, int]


def plan_interfaces(
    reader: FlagReader, ports: tuple[int, ...], *, embedded: bool, forward: bool
) -> InterfacePlan:
    """Return an interface for each port, and one for each VLAN that is named; `embedded`: they are our own TAPs."""
    addresses = _addresses(reader, ports)
    vlans = set(_listed("--vlan", reader, ports, values.vlan_of_port))
    vlans |= {key for key in addresses if key[1]}
    for port in ports if embedded else ():
        if not any(key[0] == port for key in addresses):
            addresses[port, 0] = [AddressConfig(int(IPv4Address(f"10.77.{port}.1")), 24)]
    keys = [*((port, 0) for port in ports), *sorted(vlans)]
    if len(keys) > MAX_INTERFACES:
        sentence = f"--vlan: {len(keys)} interfaces are too many"
        reader.refuse("--vlan", f"{sentence}; an instance has at most {MAX_INTERFACES}.")
    mtus = _mtus(reader, ports, keys)
    devices = _device_mtus(reader, ports, mtus)
    named = {flag: set(_existing(flag, reader, keys)) for flag in _OF_INTERFACES}
    interfaces = tuple(
        InterfaceConfig(
            number=number,
            port=key[0],
            vlan=key[1],
            addresses=tuple(addresses.get(key, ())),
            mtu=mtus[key],
            up=key not in named["--down"],
            forward=forward and key not in named["--no-forward-from"],
            proxy_arp=key in named["--proxy-arp"],
            directed_broadcast=key in named["--directed-broadcast"],
            redirects=key in named["--redirects"],
        )
        for number, key in enumerate(keys)
    )
    if reader.sound("--address"):
        if problem := overlap(interfaces):
            reader.refuse("--address", f"--address: {problem}.")
    return InterfacePlan(interfaces, devices)


def overlap(interfaces: Sequence[InterfaceConfig]) -> str:
    """Say which two interfaces are in networks that overlap, or which address is another one's broadcast address;
    or nothing: a packet could go out of only one of them.
    """
    return next(filter(None, map(_broadcast_of_another, interfaces)), "") or _overlap(interfaces)


def _broadcast_of_another(interface: InterfaceConfig) -> str:
    ends = {
        end: net for net in interface.addresses if net.prefix_length < 31 for end in (net.first, net.last)
    }
    for entry in interface.addresses:
        if net := ends.get(entry.address):
            return (
                f"interface {interface.name} has {net}, and {IPv4Address(entry.address)} is a broadcast address of "
                "that network: no station can have it; choose another one"
            )
    return ""


def _overlap(interfaces: Sequence[InterfaceConfig]) -> str:
    entries = sorted(
        (
            (entry.first, entry.prefix_length, interface)
            for interface in interfaces
            for entry in interface.addresses
        ),
        key=lambda entry: entry[:2],
    )
    around: list[tuple[int, int, InterfaceConfig]] = []  # networks are disjoint, or one holds the other
    for first, length, interface in entries:
        while around and first > AddressConfig(*around[-1][:2]).last:
            around.pop()
        if around and around[-1][2].key != interface.key:
            outer = AddressConfig(*around[-1][:2])
            inner = AddressConfig(first, length)
            names = f"interface {around[-1][2].name} is in {outer} and interface {interface.name} in {inner}"
            return f"{names}, and these overlap: nobody could say where a packet leaves; give each a network of its own"
        around.append((first, length, interface))
    return ""


def kernel_side(addresses: Sequence[AddressConfig]) -> tuple[AddressConfig, ...]:
    """Return what the kernel's side of our own TAP is called: in each network the first host that is not us.

    Of a /31 that is the other one; a /32 has no room.
    """
    ours = {entry.address for entry in addresses}
    found: dict[tuple[int, int], AddressConfig] = {}
    for entry in addresses:
        outer = (
            0 if entry.prefix_length >= 31 else 1
        )  # without the network's own name, and its broadcast address
        hosts = range(entry.first + outer, entry.last - outer + 1)
        free = next((host for host in hosts if host not in ours), None)
        if free is not None:
            found.setdefault((entry.first, entry.prefix_length), AddressConfig(free, entry.prefix_length))
    return tuple(found.values())


def _addresses(reader: FlagReader, ports: tuple[int, ...]) -> dict[Key, list[AddressConfig]]:
    """Return the addresses of each interface that --address names."""
    found: dict[Key, list[AddressConfig]] = {}
    owners: dict[int, Key] = {}
    for key, address in reader.each("--address", values.interface_address):
        if address is None:
            if is_port("--address", key[0], ports, reader):
                found.setdefault(key, [])
            continue
        if address.address in owners:
            both = f"{interface_name(*owners[address.address])} and for interface {interface_name(*key)}"
            sentence = f"--address: {IPv4Address(address.address)} is named for interface {both}"
            reader.refuse("--address", f"{sentence}; name an address once.")
        elif is_port("--address", key[0], ports, reader):
            found.setdefault(key, []).append(address)
        owners.setdefault(address.address, key)
    if len(owners) > MAX_ADDRESSES:
        sentence = f"--address: {len(owners)} addresses are too many"
        reader.refuse("--address", f"{sentence}; name at most {MAX_ADDRESSES}.")
    return found


def _mtus(reader: FlagReader, ports: tuple[int, ...], keys: Sequence[Key]) -> dict[Key, int]:
    """Return the MTU of each interface: its own, else its port's, else that of all."""
    given: dict[Key | None, int] = {}
    parser = partial(values.interface_mtu, low=LEAST_MTU, high=MOST_MTU)
    for key, octets in reader.each("--mtu", parser):
        if key in given:
            whose = f"of interface {interface_name(*key)}" if key else "of all interfaces"
            reader.refuse("--mtu", f"--mtu: the MTU {whose} is named twice; write it once.")
        elif key is None or is_interface("--mtu", key, keys, reader):
            given[key] = octets
    every = given.get(None, DEFAULT_MTU)
    found = {(port, 0): given.get((port, 0), every) for port in ports}
    for key in keys:
        most = found[key[0], 0]
        found[key] = given.get(key, most)
        if found[key] > most:
            sentence = (
                f"--mtu {interface_name(*key)}={found[key]}: a VLAN can have no more than its port, {most}"
            )
            reader.refuse("--mtu", f"{sentence}; write --mtu {key[0]}={found[key]} too.")
    return found


def _device_mtus(reader: FlagReader, ports: tuple[int, ...], mtus: dict[Key, int]) -> dict[int, int]:
    """Return the MTU that each port's device is opened for: at least that of its interface."""
    found = {port: mtus[port, 0] for port in ports}
    parser = partial(values.device_mtu, low=LEAST_MTU, high=MOST_MTU)
    for port, octets in reader.each("--device-mtu", parser):
        if not is_port("--device-mtu", port, ports, reader):
            continue
        if octets < mtus[port, 0]:
            sentence = f"--device-mtu {port}={octets}: its interface has an MTU of {mtus[port, 0]}"
            reader.refuse("--device-mtu", f"{sentence}; write --mtu {port}={octets} too, or more here.")
        found[port] = octets
    return found


def is_port(flag: str, number: int, ports: tuple[int, ...], reader: FlagReader) -> bool:
    """Tell whether a port is among the ports; when those are unknown themselves, without complaint."""
    if number not in ports and reader.sound("--ports", "--pci", "--vdev"):
        found = ", ".join(map(str, ports))
        reader.refuse(flag, f"{flag}: port {number} is not one of the ports, {found}; add it to --ports.")
    return number in ports


def is_interface(flag: str, key: Key, keys: Sequence[Key], reader: FlagReader) -> bool:
    """Tell whether an interface is there; when nobody can know, without complaint."""
    if not is_port(flag, key[0], tuple({port for port, _ in keys}), reader):
        return False
    if key not in keys and reader.sound("--address", "--vlan"):
        name = interface_name(*key)
        reader.refuse(
            flag, f"{flag}: there is no interface {name}; make it with --address {name}=... or --vlan {name}."
        )
    return key in keys


def _existing(flag: str, reader: FlagReader, keys: Sequence[Key]) -> list[Key]:
    return [key for key in reader.each(flag, values.interface) if is_interface(flag, key, keys, reader)]


def _listed(flag: str, reader: FlagReader, ports: tuple[int, ...], parser: values.KeyParser) -> list[Key]:
    return [key for key in reader.each(flag, parser) if is_port(flag, key[0], ports, reader)]
