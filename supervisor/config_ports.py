# SPDX-License-Identifier: Apache-2.0
"""From --ports, --vdev, --pci, --address, --mac and --queues to devices and ports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from halo_mp.shm.layout import MAX_INTERFACES, MAX_PORTS
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_model import InterfaceConfig, PortConfig, TapConfig
from halo_mp.supervisor.config_reader import FlagReader

MAX_QUEUES = 64
SPREADS = ("auto", "hardware", "software")

_QUEUE_ARGUMENT = {"net_af_packet": "qpairs", "net_af_xdp": "queue_count"}
"""Of drivers that must hear at creation how many queues they will have."""
_QUEUE_LIMIT = {"net_tap": 16, "net_tun": 16}


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The ports of an instance, and the devices that EAL is asked for."""

    ports: tuple[PortConfig, ...]
    vdevs: tuple[str, ...]
    pcis: tuple[str, ...]


def plan_ports(reader: FlagReader, instance: str, promiscuous: bool) -> PortPlan:
    """Return the ports in the order of --ports: of the devices named, or a TAP each where none is."""
    queues = reader.number("--queues", 1, MAX_QUEUES, example="2", otherwise=1)
    spread = reader.choice("--spread", SPREADS)
    mtu = reader.number("--mtu", 68, 9600, example="1500", otherwise=1500)
    pcis = reader.each("--pci", values.pci)
    vdevs = reader.each("--vdev", values.vdev)
    devices = [values.device_name(device) for device in (*pcis, *vdevs)]
    _check_devices(devices, reader)
    numbers = _port_numbers(devices, reader)
    taps: dict[int, str] = {}
    if not (reader.given("--pci") or reader.given("--vdev")):
        taps = {number: _tap_name(instance, number) for number in numbers}
        vdevs = [f"net_tap{number},iface={tap},persist" for number, tap in taps.items()]
    addresses = _addresses(numbers, bool(taps), reader)
    macs = _macs(numbers, reader)
    ports = tuple(
        PortConfig(
            number=number,
            device=f"net_tap{number}" if taps else devices[number],
            queues=queues,
            spread=spread,
            mtu=mtu,
            promiscuous=promiscuous,
            addresses=tuple(
                InterfaceConfig(int(each.ip), each.network.prefixlen) for each in addresses[number]
            ),
            mac=macs.get(number),
            tap=_tap(taps[number], number, addresses[number], reader) if taps else None,
        )
        for number in numbers
    )
    _check_tap_subnets(ports, reader)
    return PortPlan(ports, tuple(_with_queues(vdev, queues, spread, reader) for vdev in vdevs), tuple(pcis))


def _check_devices(devices: list[str], reader: FlagReader) -> None:
    for name in sorted({name for name in devices if devices.count(name) > 1}):
        flag = "--pci" if ":" in name else "--vdev"
        sentence = f"{flag}: two devices are called {name}; name each once, and number vdevs of one kind"
        reader.refuse(flag, f"{sentence}, such as net_null0 and net_null1.")


def _port_numbers(devices: list[str], reader: FlagReader) -> tuple[int, ...]:
    """Return --ports; by default every named device, and with none of those a TAP as port 0."""
    everything = tuple(range(len(devices))) or (0,)
    parser = partial(values.distinct, high=MAX_PORTS - 1, example="0,1")
    numbers = reader.one("--ports", parser, otherwise=everything)
    if not reader.sound("--ports", "--pci", "--vdev"):
        return ()  # which ports there are is unknown, so nothing can be said about them
    missing = [number for number in numbers if devices and number >= len(devices)]
    if missing:
        found = ", ".join(f"{number} is {name}" for number, name in enumerate(devices))
        sentence = (
            f"--ports: there is no port {missing[0]}; of the devices that --pci and --vdev name {found}"
        )
        reader.refuse("--ports", f"{sentence}. List only these, or name another device.")
        return ()
    return numbers


def _with_queues(vdev: str, queues: int, spread: str, reader: FlagReader) -> str:
    """Return a vdev that is told how many queues it needs, where its driver must hear that at creation."""
    driver = values.device_driver(vdev)
    if spread == "hardware" and queues > _QUEUE_LIMIT.get(driver, queues):
        sentence = f"--queues {queues}: {values.device_name(vdev)} has at most {_QUEUE_LIMIT[driver]}"
        limit = f"write --queues {_QUEUE_LIMIT[driver]} or fewer, or --spread software"
        reader.refuse("--queues", f"{sentence}; {limit}.")
    key = _QUEUE_ARGUMENT.get(driver)
    given = values.device_argument(vdev, key) if key else None
    needed, why = (1, "--spread software") if spread == "software" else (queues, f"--queues {queues}")
    if given is not None and given != str(needed):
        sentence = f"--vdev {vdev}: {key}={given} contradicts {why}"
        reader.refuse("--vdev", f"{sentence}; leave {key} out, it follows from that.")
    return f"{vdev},{key}={needed}" if key and given is None and needed > 1 else vdev


def _listed(flag: str, number: int, numbers: tuple[int, ...], reader: FlagReader) -> bool:
    """Tell whether a port is among the ports; when those are unknown themselves, without complaint."""
    if number not in numbers and reader.sound("--ports", "--pci", "--vdev"):
        found = ", ".join(map(str, numbers))
        reader.refuse(flag, f"{flag}: port {number} is not one of the ports, {found}; add it to --ports.")
    return number in numbers


def _addresses(
    numbers: tuple[int, ...], embedded: bool, reader: FlagReader
) -> dict[int, list[IPv4Interface]]:
    """Return the addresses of each port; an embedded TAP has one even when none is given."""
    found: dict[int, list[IPv4Interface]] = {number: [] for number in numbers}
    owners: dict[IPv4Address, int] = {}
    for number, interface in reader.each("--address", values.port_address):
        if interface.ip in owners:
            sentence = (
                f"--address: {interface.ip} is named for port {owners[interface.ip]} and for port {number}"
            )
            reader.refuse("--address", f"{sentence}; name an address once.")
        elif _listed("--address", number, numbers, reader):
            if found[number]:
                sentence = f"--address: port {number} gets {found[number][0].ip} and {interface.ip}"
                reader.refuse("--address", f"{sentence}; a port has one address for now, so name one.")
            found[number].append(interface)
        owners[interface.ip] = number
    if len(owners) > MAX_INTERFACES:
        sentence = f"--address: {len(owners)} addresses are too many"
        reader.refuse("--address", f"{sentence}; name at most {MAX_INTERFACES}.")
    for number in numbers if embedded else ():
        found[number] = found[number] or [IPv4Interface(f"10.77.{number}.1/24")]
    return found


def _macs(numbers: tuple[int, ...], reader: FlagReader) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number, mac in reader.each("--mac", values.port_mac):
        if number in found:
            reader.refuse("--mac", f"--mac: port {number} is named twice; write one --mac for each port.")
        elif mac in found.values():
            reader.refuse("--mac", f"--mac: {mac.hex(':')} is named for two ports; give each its own.")
        elif _listed("--mac", number, numbers, reader):
            found[number] = mac
    return found


def _tap_name(instance: str, number: int) -> str:
    return f"halo{number}" if instance == "default" else f"{instance}.{number}"


def _tap(name: str, number: int, addresses: list[IPv4Interface], reader: FlagReader) -> TapConfig | None:
    """Return the kernel's side: the first host address of the first subnet that is not ours already."""
    ours = {interface.ip for interface in addresses}
    free = next((host for host in addresses[0].network.hosts() if host not in ours), None)
    if free is None:
        sentence = f"--address {number}={addresses[0]}: no address is left for the kernel's side of the TAP"
        reader.refuse("--address", f"{sentence}; write a shorter prefix, such as {addresses[0].ip}/24.")
        return None
    return TapConfig(name, int(free), addresses[0].network.prefixlen)


def _check_tap_subnets(ports: tuple[PortConfig, ...], reader: FlagReader) -> None:
    """Refuse two TAPs in one subnet: the kernel would send everything for it to one of them."""
    networks: dict[IPv4Network, int] = {}
    for port in ports:
        if port.tap:
            network = IPv4Network((port.tap.kernel_address, port.tap.prefix_length), strict=False)
            other = next((networks[each] for each in networks if each.overlaps(network)), None)
            if other is not None:
                sentence = f"--address: the TAPs of port {other} and port {port.number} are both in {network}"
                reader.refuse("--address", f"{sentence}, where the kernel can use only one; separate them.")
            networks[network] = port.number
