# SPDX-License-Identifier: Apache-2.0
"""From --ports, --vdev, --pci, --mac, --queues, --spread and --kernel to devices and ports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from halo_mp.shm.layout import MAX_PORTS
from halo_mp.supervisor import config_values as values
from halo_mp.supervisor.config_interfaces import is_port, kernel_side, plan_interfaces
from halo_mp.supervisor.config_model import InterfaceConfig, PortConfig, TapConfig
from halo_mp.supervisor.config_reader import FlagReader
from halo_mp.supervisor.config_twins import plan_twins

MAX_QUEUES = 64
SPREADS = ("auto", "hardware", "software")

_QUEUE_ARGUMENT = {"net_af_packet": "qpairs", "net_af_xdp": "queue_count"}
"""Of drivers that must hear at creation how many queues they will have."""
_QUEUE_LIMIT = {"net_tap": 16, "net_tun": 16}


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The ports of an instance with their interfaces, and the devices that EAL is asked for."""

    ports: tuple[PortConfig, ...]
    interfaces: tuple[InterfaceConfig, ...]
    vdevs: tuple[str, ...]
    pcis: tuple[str, ...]


def plan_ports(reader: FlagReader, instance: str, *, promiscuous: bool, forward: bool) -> PortPlan:
    """Return the ports in the order of --ports: of the devices named, or a TAP each where none is."""
    queues = reader.number("--queues", 1, MAX_QUEUES, example="2", otherwise=1)
    spread = reader.choice("--spread", SPREADS)
    pcis = reader.each("--pci", values.pci)
    vdevs = reader.each("--vdev", values.vdev)
    devices = [values.device_name(device) for device in (*pcis, *vdevs)]
    _check_devices(devices, reader)
    numbers = _port_numbers(devices, reader)
    taps: dict[int, str] = {}
    if not (reader.given("--pci") or reader.given("--vdev")):
        taps = {number: _tap_name(instance, number) for number in numbers}
        vdevs = [f"net_tap{number},iface={tap},persist" for number, tap in taps.items()]
    plan = plan_interfaces(reader, numbers, embedded=bool(taps), forward=forward)
    untagged = {each.port: each for each in plan.interfaces if not each.vlan}
    macs = _macs(numbers, reader)
    twins = plan_twins(reader, instance, plan, embedded=bool(taps))
    ports = tuple(
        PortConfig(
            number=number,
            device=f"net_tap{number}" if taps else devices[number],
            queues=queues,
            spread=spread,
            mtu=plan.mtus[number],
            promiscuous=promiscuous,
            mac=macs.get(number),
            tap=TapConfig(taps[number], kernel_side(untagged[number].addresses)) if taps else None,
            twin=twins.get(number),
        )
        for number in numbers
    )
    vdevs = [_with_queues(vdev, queues, spread, reader) for vdev in vdevs]
    vdevs += [f"{twin.device},iface={twin.interface},persist" for twin in twins.values()]
    return PortPlan(ports, plan.interfaces, tuple(vdevs), tuple(pcis))


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


def _macs(numbers: tuple[int, ...], reader: FlagReader) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number, mac in reader.each("--mac", values.port_mac):
        if number in found:
            reader.refuse("--mac", f"--mac: port {number} is named twice; write one --mac for each port.")
        elif mac in found.values():
            reader.refuse("--mac", f"--mac: {mac.hex(':')} is named for two ports; give each its own.")
        elif is_port("--mac", number, numbers, reader):
            found[number] = mac
    return found


def _tap_name(instance: str, number: int) -> str:
    return f"halo{number}" if instance == "default" else f"{instance}.{number}"
