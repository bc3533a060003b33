# SPDX-License-Identifier: Apache-2.0
"""The private protocol between the supervisor and its driver and workers, version 1.

A child says `hello` first. The supervisor checks pid and uid with the kernel, version and boot id with the
message, and configures it. Descriptors that ride on a message are listed with it. A message with an `id` is
a request and is answered by a `reply`. This protocol may change with any version of the package: both ends
are of one installation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

from halo_mp.control.channel import ProtocolError
from halo_mp.control.frame import Message

PRIVATE_VERSION = 1

NEIGHBORS_PER_MESSAGE = 1024  # of at most 28 octets each, under half a frame

# A worker's ways to give up root: change the user, drop the capabilities only, or do nothing.
Privileges = Literal["setuid", "capabilities", "keep"]
Idle = Literal["poll", "adaptive", "sleep"]

# port, VLAN (0: untagged), IPv4 address in host order, MAC of 6 octets
Neighbor = tuple[int, int, int, bytes]
Place = tuple[int, int, int]  # without the MAC


class Hello(TypedDict):
    """Child → supervisor, first on every connection."""

    type: Literal["hello"]
    role: Literal["driver", "worker", "spare"]
    slot: NotRequired[int]  # a worker's
    pid: int
    version: int
    boot_id: bytes


class DriverPort(TypedDict):
    """A port to start."""

    port: int
    device: str
    queues: int
    spread: str  # who spreads frames over them: auto, hardware, software
    mtu: int
    promiscuous: bool


class DriverSlot(TypedDict):
    """A slot to serve: by which lcore (an index into `lcores`), fed by which (port, queue) pairs."""

    slot: int
    lcore: int
    feeds: list[tuple[int, int]]


class DriverConfigure(TypedDict):
    """Supervisor → driver.

    Descriptors: pool, owners, ports, then for each slot in order its region and its worker's doorbell, then one
    doorbell for each lcore.
    """

    type: Literal["configure"]
    instance: str
    lcores: list[int]
    main_cores: list[int]
    mem_channels: int | None
    hugepages: int | None
    memory_mb: int
    vdevs: list[str]
    pcis: list[str]
    eal: list[str]
    rx_checksum: bool
    tx_checksum: bool
    tx_only: bool
    idle: Idle
    debug_log: bool
    orphan_timeout_s: float
    resuming: (
        bool  # after a driver that was ready: a port that can not be opened is lost, and keeps nobody waiting
    )
    ports: list[DriverPort]
    slots: list[DriverSlot]


class Adopt(TypedDict):
    """Supervisor → driver or worker, instead of `configure`: go on as you are, I am your supervisor now.

    The driver answers with `ready` as at its start, and with descriptors: the pool, each slot's doorbell in order, each
    lcore's. A worker answers with `attached`, `ready` if its slot is enabled, and all that it has `learned`.
    """

    type: Literal["adopt"]
    orphan_timeout_s: float


class ReadyPort(TypedDict):
    """A port that was started, as it is."""

    port: int
    device: str
    driver: str
    mac: bytes
    mtu: int
    mode: Literal["direct", "copy"]
    rx_queues: int
    tx_queues: int
    spread_queues: int  # that the driver makes of the device's one; 0: it makes none
    link_up: bool


class LostPort(TypedDict):
    """A port that has no device at present."""

    port: int
    reason: str


class DriverReady(TypedDict):
    """Driver → supervisor: ports started, lcores run, slots as they were found."""

    type: Literal["ready"]
    ports: list[ReadyPort]
    lost: list[LostPort]
    withheld: int


class PortLost(LostPort):
    """Driver → supervisor: the device of a port went away. The port is closed, and its device looked for."""

    type: Literal["port.lost"]
    device: str


class PortReturned(TypedDict):
    """Driver → supervisor: a lost port (one, in a list) was opened again, and is fed from as before."""

    type: Literal["port.returned"]
    ports: list[ReadyPort]


class Failed(TypedDict):
    """Child → supervisor: it can not start, and this is why; then it exits with 5."""

    type: Literal["failed"]
    kind: str
    error: str


class WorkerUser(TypedDict):
    """Who a worker becomes."""

    uid: int
    gid: int


class WorkerApp(TypedDict):
    """The application that a worker runs: a file, or else a module."""

    file: str
    module: str
    name: str  # of the variable that holds the App
    directory: str  # where modules are looked for first
    debug: bool


class WorkerConfigure(TypedDict):
    """Supervisor → worker.

    Descriptors: pool, slot region, tables and FIB (both read-only), the worker's doorbell, its home lcore's doorbell.
    """

    type: Literal["configure"]
    slot: int
    instance: str
    idle: Idle
    spin_ns: int  # that it polls, adaptive, before it sleeps
    user: WorkerUser | None
    privileges: Privileges
    debug_log: bool
    orphan_timeout_s: float
    slots: list[int]  # that there are: frames may be handed to their workers
    probe: bool  # static addresses before they are used
    icmp_rate: int  # errors in a second, 0: none
    reachable_time_s: float  # of a neighbor that has answered, on the average
    macswap: list[tuple[int, int]]
    twins: list[
        tuple[int, int, int]
    ]  # port, its twin, of our addresses the one that is ours on the port or 0
    ports: list[int]  # that feed the slot: the worker answers for their addresses
    shared_ports: list[int]  # of those, the ones whose addresses another worker announces and defends
    app: WorkerApp | None


class SlotRequest(TypedDict):
    """Supervisor → driver, a request.

    `slot.enable`: a worker is attached. `slot.reset`: it died; disable, reclaim, empty the rings, one generation on,
    and stay disabled. The reply says how many buffers were `reclaimed`.
    """

    type: Literal["slot.enable", "slot.reset"]
    slot: int


class Attached(TypedDict):
    """Worker → supervisor: everything is mapped, privileges are gone, it polls. `ready` follows once enabled."""

    type: Literal["attached"]
    pid: int


class Notice(TypedDict):
    """Supervisor → worker.

    `interfaces`: the tables' epoch moved. `ping`, to a spare, is a request, and is answered. So are `leave` and `stop`,
    the latter also to the driver; then the child exits with 0. Once `leave` is answered, another worker may attach to
    the slot, whose rings are as they were.
    """

    type: Literal["interfaces", "ping", "leave", "stop"]


class Announce(TypedDict):
    """Supervisor → worker: these ports were away and are back; the addresses on them are to be announced again."""

    type: Literal["announce"]
    ports: list[int]


class Neighbors(TypedDict):
    """Worker → supervisor as `learned`, supervisor → the other workers as `neighbors`."""

    type: Literal["learned", "neighbors"]
    neighbors: list[Neighbor]


class Places(TypedDict):
    """Neighbors that are named and nothing more.

    `forgotten`: worker → supervisor → the other workers: the home worker of the port knows them no more. `used`:
    worker → supervisor → the home worker of the port: packets were sent to them. `hops.up`, `hops.down`: home worker
    → supervisor: gateways that it watches, also to a new supervisor.
    """

    type: Literal["forgotten", "used", "hops.up", "hops.down"]
    neighbors: list[Place]


class Watch(TypedDict):
    """Supervisor → worker: these gateways are to be watched, and no others, once there are no `more`."""

    type: Literal["watch"]
    neighbors: list[Place]
    more: bool


class SocketsOpen(TypedDict):
    """Worker → supervisor: it has these sockets too, each number, address, port, peer, peer's port, protocol, flags.

    ``first``: instead of all that it has said before.
    """

    type: Literal["sockets.open"]
    first: NotRequired[bool]
    sockets: list[list[int]]


class SocketNumbers(TypedDict):
    """`sockets.close`: worker → supervisor. `sockets.accepted`: supervisor → worker, they stand in the tables now.
    `sockets.refused`: another worker has their place.
    """

    type: Literal["sockets.close", "sockets.accepted", "sockets.refused"]
    numbers: list[int]


class Echo(TypedDict):
    """Supervisor → worker, a request: ping, and reply with `outcomes` once the last request has ended.

    `number` is the supervisor's, to end it early by; `dst` and `source` (0: the router's choice) are in host order.
    """

    type: Literal["echo"]
    number: int
    dst: int
    count: int
    interval_s: float
    timeout_s: float
    size: int
    df: bool
    ttl: int
    source: int


class Kcp(TypedDict):
    """Supervisor → worker, a request: reply with `kcp`, what `halo_mp.kcp.report` says, or None without any KCP."""

    type: Literal["kcp"]


class EchoEnd(TypedDict):
    """Supervisor → worker: nobody waits for the outcomes of this `echo` any more."""

    type: Literal["echo.end"]
    number: int


class CaptureStart(TypedDict):
    """Supervisor → worker, a request: copy frames into the ring whose descriptor rides on this; reply with `hooks`.

    `filter` holds steps as in struct halo_filter_step, `points` and `ports` bits (0: all ports). It ends
    with `capture.stop`, and when another supervisor takes over.
    """

    type: Literal["capture.start"]
    number: int
    filter: bytes
    points: int
    ports: int
    snap: int


class CaptureStop(TypedDict):
    """Supervisor → worker: nobody reads that ring any more."""

    type: Literal["capture.stop"]
    number: int


class Static(TypedDict):
    """Supervisor → worker: these neighbors are neither asked for nor forgotten, whatever was learned of them."""

    type: Literal["static"]
    neighbors: list[Neighbor]


class Forget(TypedDict):
    """Supervisor → worker: nothing is known of these neighbors any more, static or learned."""

    type: Literal["forget"]
    neighbors: list[Place]


N = TypeVar("N", bound=tuple[object, ...])
T = TypeVar("T", int, str, bytes, bool, list[Any])


def field(message: Message, name: str, kind: type[T]) -> T:
    """Return a field that must be there and of that type. Raises ProtocolError."""
    value = message.get(name)
    if type(value) is not kind:  # not isinstance: True is no int here
        raise ProtocolError(
            f"sent {message.get('type')} with {name}={value!r:.80}, which is no {kind.__name__}"
        )
    return value


def chunks(neighbors: Iterable[N]) -> Iterator[list[N]]:
    """Yield the neighbors in lists that fit in one message."""
    rest = iter(neighbors)
    while chunk := list(islice(rest, NEIGHBORS_PER_MESSAGE)):
        yield chunk


def parse_neighbors(message: Message) -> list[Neighbor]:
    """Return the neighbors of `learned` or `neighbors`. Raises ProtocolError."""
    found = field(message, "neighbors", list)
    return [_neighbor(entry) for entry in found]


def parse_places(message: Message) -> list[Place]:
    """Return the places of `forgotten`, `used` and the like. Raises ProtocolError."""
    found = field(message, "neighbors", list)
    return [_place(entry) for entry in found]


def _place(entry: object) -> Place:
    match entry:
        case [int(port), int(vlan), int(address)] if (
            0 <= port < 256 and 0 <= vlan < 4095 and 0 < address < 2**32
        ):
            return port, vlan, address
    raise ProtocolError(f"sent {entry!r:.80} as the place of a neighbor")


def _neighbor(entry: object) -> Neighbor:
    match entry:
        case [int(port), int(vlan), int(address), bytes(mac)] if (
            0 <= port < 256 and 0 <= vlan < 4095 and 0 < address < 2**32 and len(mac) == 6
        ):
            return port, vlan, address, mac
    raise ProtocolError(f"sent {entry!r:.80} as a neighbor")
