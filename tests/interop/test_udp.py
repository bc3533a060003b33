# SPDX-License-Identifier: Apache-2.0
"""UDP endpoints in the workers, kernels behind their ports: which stack, datagrams, errors, who is handed what."""

from __future__ import annotations

import errno
import os
import signal
import socket
import textwrap
from collections.abc import Callable, Iterator

import pytest

from tests.support import lives
from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace, wait_until
from tests.support.remote import REMOTE, Remote, RemoteError
from tests.support.station import socket_in

OURS = "10.77.0.1", "10.77.1.1"
KERNEL = "10.77.0.2", "10.77.1.2"
OPEN = "t, p = await loop.create_datagram_endpoint(lambda: Inbox(echo={echo}), {how})\nkept[{name!r}] = p\n"
NAMES = "return [t.get_extra_info('sockname'), t.get_extra_info('peername'), t.get_extra_info('halo')]"

Sockets = Callable[..., socket.socket]


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Two ports with a worker for each, and one kernel behind both."""
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1", "--app", REMOTE) as instance:
            ledger = Ledger(instance, 0, 1)
            yield instance
            ledger.assert_balanced()
            assert not instance.events("protocol.error")
            assert not instance.events("worker.died")
            assert instance.stop() == 0


@pytest.fixture
def remotes(running: Instance) -> Iterator[tuple[Remote, Remote]]:
    with Remote(running.namespace, 0) as first, Remote(running.namespace, 1) as second:
        yield first, second
        for each in (first, second):
            each.run("for p in kept.values():\n    hasattr(p, 'transport') and p.transport.abort()")
            each.run("kept.clear()")


@pytest.fixture
def sockets(running: Instance) -> Iterator[Sockets]:
    """Sockets of the kernel behind the ports."""
    made = []

    def make(address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        one = socket_in(running.namespace, socket.AF_INET, socket.SOCK_DGRAM)
        made.append(one)
        one.settimeout(10.0)
        one.bind((address, port))
        return one

    yield make
    for each in made:
        each.close()


def endpoint(
    remote: Remote, how: str, *, name: str = "p", echo: bool = False, more: str = NAMES
) -> list[object]:
    """Make an endpoint there; return its name, its peer, and whether it is ours."""
    found: list[object] = remote.run(OPEN.format(how=how, name=name, echo=echo) + more)
    return found


def drops(instance: Instance, slot: int, reason: str) -> int:
    return int(instance.slot(slot)["worker"]["drops"][reason])


# ---- which stack


@pytest.mark.parametrize(
    ("how", "ours"),
    [
        ("local_addr=('10.77.0.1', 0)", True),
        ("local_addr=('10.77.1.1', 0)", True),  # of a port that another worker serves
        ("local_addr=('0.0.0.0', 0)", True),
        ("local_addr=('::', 0)", True),
        ("local_addr=(None, 0)", True),
        ("family=2", True),  # as a client does that names no address, dnspython for one
        ("local_addr=('127.0.0.1', 0)", None),
        ("local_addr=('localhost', 0)", None),
        ("local_addr=('10.77.0.2', 0)", None),  # the kernel's own
        ("local_addr=('0.0.0.0', 0), family=2", True),
        ("remote_addr=('10.77.1.2', 53)", True),
        ("remote_addr=('10.77.0.1', 53)", True),
        ("remote_addr=('127.0.0.1', 53)", None),
        ("local_addr=('0.0.0.0', 0), remote_addr=('10.77.0.2', 53)", True),
        ("sock=__import__('socket').socket(2, 2)", None),
    ],
)
def test_endpoint_gets_the_stack_that_has_its_address(
    remotes: tuple[Remote, Remote], how: str, ours: bool | None
) -> None:
    assert endpoint(remotes[0], how)[2] is ours


def test_wildcard_endpoint_is_the_kernels_when_the_application_says_so(
    remotes: tuple[Remote, Remote],
) -> None:
    remotes[0].run("loop.wildcard = 'kernel'")
    assert endpoint(remotes[0], "local_addr=('0.0.0.0', 0)")[2] is None
    assert endpoint(remotes[0], "local_addr=('10.77.0.1', 0)")[2] is True
    remotes[0].run("loop.wildcard = 'halo'")


def test_connected_endpoint_speaks_from_the_address_next_to_its_peer(remotes: tuple[Remote, Remote]) -> None:
    [name, port], peer, _ = endpoint(remotes[0], "remote_addr=('10.77.1.2', 5353)")  # type: ignore[misc]
    assert (name, peer) == ("10.77.1.1", ["10.77.1.2", 5353])
    assert 32768 <= port <= 60999


def test_workers_choose_different_ports(remotes: tuple[Remote, Remote]) -> None:
    body = """
        found = []
        for _ in range(50):
            t, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("10.77.0.1", 0))
            found.append(t)
        ports = [t.get_extra_info("sockname")[1] for t in found]
        [t.close() for t in found]
        return ports
    """
    chosen = [set(each.run(body)) for each in remotes]
    assert [len(each) for each in chosen] == [50, 50]
    assert not chosen[0] & chosen[1]


# ---- what is refused


def test_place_that_is_taken_is_refused_in_every_worker(remotes: tuple[Remote, Remote]) -> None:
    endpoint(remotes[0], "local_addr=('10.77.0.1', 7001)")
    for remote in remotes:
        for how in ("('10.77.0.1', 7001)", "('0.0.0.0', 7001)"):
            with pytest.raises(RemoteError) as caught:
                endpoint(remote, f"local_addr={how}", name="q")
            assert caught.value.errno == errno.EADDRINUSE
        assert endpoint(remote, "local_addr=('10.77.1.1', 7001)", name=f"r{id(remote)}")[2] is True
        remote.run(f"kept['r{id(remote)}'].transport.abort()\nawait asyncio.sleep(0)")
    remotes[0].run("kept['p'].transport.close()\nawait kept['p'].wait(events=2)")
    assert endpoint(remotes[1], "local_addr=('0.0.0.0', 7001)")[2] is True


def test_place_that_a_busy_worker_has_given_up_is_free_for_the_next(remotes: tuple[Remote, Remote]) -> None:
    """The supervisor hears of the opening before it hears of the close."""
    close = "import time\nloop.call_soon(time.sleep, 0.1)\nt.abort()"
    for i in range(6):
        endpoint(remotes[i % 2], "local_addr=('0.0.0.0', 7004)", more=close)


def test_place_is_shared_by_who_says_so(remotes: tuple[Remote, Remote]) -> None:
    for remote in remotes:
        endpoint(remote, "local_addr=('0.0.0.0', 7002), reuse_port=True")
    with pytest.raises(RemoteError) as caught:
        endpoint(remotes[0], "local_addr=('0.0.0.0', 7002)", name="q")
    assert caught.value.errno == errno.EADDRINUSE


def test_address_that_nobody_has_is_refused(remotes: tuple[Remote, Remote]) -> None:
    with pytest.raises(RemoteError) as caught:
        endpoint(remotes[0], "local_addr=('192.0.2.1', 7003)")
    assert caught.value.errno == errno.EADDRNOTAVAIL


# ---- datagrams


@pytest.mark.parametrize("octets", [0, 1, 2, 17, 18, 19, 512, 1472, 1473, 5000, 65507])
def test_datagram_comes_back_as_it_was(remotes: tuple[Remote, Remote], sockets: Sockets, octets: int) -> None:
    """From 1473 on in fragments, both ways."""
    endpoint(remotes[0], "local_addr=('10.77.0.1', 7010)", echo=True)
    data = os.urandom(octets)
    peer = sockets(KERNEL[0])
    peer.sendto(data, (OURS[0], 7010))
    assert peer.recvfrom(65536) == (data, (OURS[0], 7010))


def test_datagram_for_a_socket_of_another_worker_is_handed_over(
    running: Instance, remotes: tuple[Remote, Remote], sockets: Sockets
) -> None:
    endpoint(remotes[1], "local_addr=('0.0.0.0', 7011)", echo=True)
    peer = sockets(KERNEL[0])
    before = running.slot(0)["worker"]["counters"]["tx_handed"]
    for i in range(20):
        peer.sendto(b"%d" % i, (OURS[0], 7011))
        assert peer.recvfrom(2000) == (b"%d" % i, (OURS[0], 7011))
    assert running.slot(0)["worker"]["counters"]["tx_handed"] - before >= 20


@pytest.mark.parametrize("octets", [1473, 8000, 65507])
def test_datagram_in_fragments_for_a_socket_of_another_worker_is_handed_over(
    remotes: tuple[Remote, Remote], sockets: Sockets, octets: int
) -> None:
    endpoint(remotes[1], "local_addr=('0.0.0.0', 7061)", echo=True)
    peer = sockets(KERNEL[0])
    data = os.urandom(octets)
    peer.sendto(data, (OURS[0], 7061))
    assert peer.recvfrom(65536) == (data, (OURS[0], 7061))


@pytest.mark.parametrize("octets", [0, 1472, 1473, 20000])
def test_two_workers_sockets_talk_to_each_other(
    running: Instance, remotes: tuple[Remote, Remote], octets: int
) -> None:
    """Nothing of it leaves by a port: both addresses are ours."""
    before = [running.slot(slot)["worker"]["counters"]["tx_frames"] for slot in (0, 1)]
    endpoint(remotes[1], f"local_addr=('{OURS[1]}', 7062)", echo=True)
    body = f"""
        found = []
        for i in range(20):
            data = bytes([i]) * {octets}
            t.sendto(data, ({OURS[1]!r}, 7062))
            await p.wait(got=i + 1)
            found.append([p.last == data, *p.got[-1]])
        return found
    """
    found = endpoint(remotes[0], f"local_addr=('{OURS[0]}', 0)", more=textwrap.dedent(body))
    assert found == [[True, octets, OURS[1], 7062]] * 20
    after = [running.slot(slot)["worker"]["counters"]["tx_frames"] for slot in (0, 1)]
    sent = [now - then for now, then in zip(after, before, strict=True)]
    assert max(sent) < 5, "20 datagrams would be more than what a kernel asks for meanwhile, by ARP"


def test_shared_socket_gets_what_comes_in_by_its_workers_port(
    remotes: tuple[Remote, Remote], sockets: Sockets
) -> None:
    for remote in remotes:
        endpoint(remote, "local_addr=('0.0.0.0', 7012), reuse_port=True", echo=True)
    for ours, kernel in zip(OURS, KERNEL, strict=True):
        peer = sockets(kernel)
        peer.sendto(b"x" * int(ours[-3]), (ours, 7012))
        assert peer.recvfrom(100)[1] == (ours, 7012)
    assert [each.run("return [n for n, *_ in kept['p'].got]") for each in remotes] == [[0], [1]]


def test_two_sockets_of_one_place_share_its_flows(remotes: tuple[Remote, Remote], sockets: Sockets) -> None:
    for name in ("p", "q"):
        endpoint(remotes[0], "local_addr=('0.0.0.0', 7013), reuse_port=True", echo=True, name=name)
    peers = [sockets(KERNEL[0]) for _ in range(40)]
    for each in peers * 2:
        each.sendto(b"x", (OURS[0], 7013))
        each.recv(100)
    got = [remotes[0].run(f"return [port for _, _, port in kept[{name!r}].got]") for name in ("p", "q")]
    assert len(got[0]) + len(got[1]) == 80
    assert all(got), "one of them got nothing"
    assert not set(got[0]) & set(got[1]), "a flow went to both"


def test_connected_endpoint_hears_its_peer_alone(remotes: tuple[Remote, Remote], sockets: Sockets) -> None:
    peer, stranger = sockets(KERNEL[0], 7014), sockets(KERNEL[0])
    [_, port], _, _ = endpoint(  # type: ignore[misc]
        remotes[0], "remote_addr=('10.77.0.2', 7014)", more="t.sendto(b'hello')\n" + NAMES
    )
    assert peer.recvfrom(100) == (b"hello", (OURS[0], port))
    stranger.connect((OURS[0], port))
    stranger.send(b"not for you")
    with pytest.raises(ConnectionRefusedError):
        stranger.recv(100)
    peer.sendto(b"back", (OURS[0], port))
    remotes[0].run("await kept['p'].wait(got=1)")
    assert remotes[0].run("return kept['p'].got") == [[4, KERNEL[0], 7014]]
    with pytest.raises(RemoteError, match="Invalid address"):
        remotes[0].run("kept['p'].transport.sendto(b'x', ('10.77.0.9', 1))")


def test_own_sockets_talk_to_each_other(remotes: tuple[Remote, Remote]) -> None:
    endpoint(remotes[0], "local_addr=('10.77.0.1', 7015)", name="server", echo=True)
    endpoint(remotes[0], "remote_addr=('10.77.0.1', 7015)", name="client")
    sizes = remotes[0].run("""
        for octets in (1, 1000, 9000):
            kept["client"].transport.sendto(bytes(octets))
        await kept["client"].wait(got=3)
        return [n for n, *_ in kept["client"].got]
    """)
    assert sizes == [1, 1000, 9000]


def test_packet_of_any_flow_is_routed(remotes: tuple[Remote, Remote], sockets: Sockets) -> None:
    peer = sockets(KERNEL[1], 7016)
    peer.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    for remote in remotes:
        body = "return worker.send_udp(b'of a stranger', src=('10.77.1.99', 5), dst=('10.77.1.2', 7016))"
        assert remote.run(body) is True
        data, ancillary, _, source = peer.recvmsg(100, 100)
        assert (data, source) == (b"of a stranger", ("10.77.1.99", 5))
        assert int.from_bytes(ancillary[0][2][:4], "little") == 64


# ---- to all


@pytest.mark.parametrize("address", ["10.77.0.255", "255.255.255.255"])
def test_broadcast_comes_in_and_goes_out(
    running: Instance, remotes: tuple[Remote, Remote], sockets: Sockets, address: str
) -> None:
    endpoint(remotes[0], "local_addr=('0.0.0.0', 7020)", echo=True)
    peer = sockets("0.0.0.0", 7021)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    peer.setsockopt(socket.SOL_SOCKET, 25, f"{running.name}.0".encode())  # SO_BINDTODEVICE
    peer.sendto(b"everybody", (address, 7020))
    assert peer.recvfrom(100) == (b"everybody", (OURS[0], 7020))
    more = f"t.sendto(b'all', ({address!r}, 7021))\nreturn p.events"
    how = "local_addr=('10.77.0.1', 7022), allow_broadcast="
    assert endpoint(remotes[0], how + "False", more=more, name="q") == ["made", "PermissionError"]
    remotes[0].run("kept['q'].transport.abort()\nawait asyncio.sleep(0)")
    assert endpoint(remotes[0], how + "True", more=more, name="r") == ["made"]
    assert peer.recvfrom(100) == (b"all", (OURS[0], 7022))


def test_broadcast_that_nobody_wants_is_dropped_without_a_word(running: Instance, sockets: Sockets) -> None:
    peer = sockets(KERNEL[0])
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    before = drops(running, 0, "no_listener")
    peer.sendto(b"anybody", ("10.77.0.255", 7029))
    wait_until(lambda: drops(running, 0, "no_listener") == before + 1, what="the drop")


# ---- errors


def test_closed_port_is_told_to_the_kernels_sender(sockets: Sockets) -> None:
    peer = sockets(KERNEL[0])
    peer.connect((OURS[0], 7030))
    peer.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        peer.recv(100)


def test_closed_port_of_the_kernel_is_told_to_a_connected_endpoint(remotes: tuple[Remote, Remote]) -> None:
    body = """
        t.sendto(b"anybody?")
        await p.wait(events=2)
        return p.events
    """
    for remote in remotes:  # the second's error comes in by the first's port, and is handed over
        found = endpoint(
            remote, "local_addr=('10.77.0.1', 0), remote_addr=('10.77.0.2', 7031)", more=textwrap.dedent(body)
        )
        assert found == ["made", "ConnectionRefusedError"]


def test_unconnected_endpoint_hears_of_errors_when_it_asks(remotes: tuple[Remote, Remote]) -> None:
    body = """
        import socket
        t.sendto(b"anybody?", ("10.77.0.2", 7032))
        asked, q = await loop.create_datagram_endpoint(Inbox, local_addr=("10.77.0.1", 0))
        kept["q"] = q
        asked.get_extra_info("socket").setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        asked.sendto(b"anybody?", ("10.77.0.2", 7032))
        await q.wait(events=2)
        return [p.events, q.events]
    """
    found = endpoint(remotes[0], "local_addr=('10.77.0.1', 0)", more=textwrap.dedent(body))
    assert found == [["made"], ["made", "ConnectionRefusedError"]]


def test_what_can_not_be_sent_is_told_at_once(remotes: tuple[Remote, Remote]) -> None:
    body = """
        t.sendto(b"far", ("198.51.100.1", 9))
        t.sendto(bytes(65508), ("10.77.0.2", 9))
        await p.wait(events=3)
        return p.events
    """
    assert endpoint(remotes[0], "local_addr=('0.0.0.0', 0)", more=textwrap.dedent(body)) == [
        "made",
        "OSError",
        "OSError",
    ]


def test_another_thread_is_told_how_to_send(remotes: tuple[Remote, Remote], sockets: Sockets) -> None:
    peer = sockets(KERNEL[0], 7033)
    body = """
        there = ("10.77.0.2", 7033)
        t.sendto(b"first", there)
        await asyncio.sleep(0.1)
        try:
            await loop.run_in_executor(None, t.sendto, b"wrong", there)
        except RuntimeError as error:
            said = str(error)
        await loop.run_in_executor(None, loop.call_soon_threadsafe, t.sendto, b"right", there)
        return said
    """
    said = endpoint(remotes[0], "local_addr=('10.77.0.1', 0)", more=textwrap.dedent(body))
    assert "loop.call_soon_threadsafe(transport.sendto, data, addr)" in str(said)
    assert [peer.recv(10), peer.recv(10)] == [b"first", b"right"]


# ---- the life of endpoints


def test_endpoint_that_is_closed_hears_no_more(
    running: Instance, remotes: tuple[Remote, Remote], sockets: Sockets
) -> None:
    endpoint(remotes[0], "local_addr=('10.77.0.1', 7040)", echo=True)
    peer = sockets(KERNEL[0])
    peer.connect((OURS[0], 7040))
    peer.send(b"x")
    assert peer.recv(10) == b"x"
    events = remotes[0].run("p = kept['p']\np.transport.close()\nawait p.wait(events=2)\nreturn p.events")
    assert events == ["made", "lost"]
    peer.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        peer.recv(10)
    assert remotes[0].run("return len(kept['p'].got)") == 1
    assert remotes[0].run("return repr(kept['p'].transport)").startswith("<HaloDatagramTransport closed")


@pytest.mark.parametrize("error", ["ValueError(data)", "asyncio.CancelledError()", "SystemExit(3)"])
def test_exception_of_a_protocol_costs_one_datagram(error: str) -> None:
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0", "--app", REMOTE) as instance, Remote(namespace) as remote:
            ledger = Ledger(instance, 0)
            body = (
                f"def wrong(data, addr):\n    raise {error}\np.datagram_received = wrong\nt.set_protocol(p)"
            )
            endpoint(remote, "local_addr=('10.77.0.1', 7041)", more=body + "\n" + NAMES)
            endpoint(remote, "local_addr=('10.77.0.1', 7042)", name="q", echo=True)
            with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.settimeout(10.0)
                for i in range(30):
                    peer.sendto(b"x", (OURS[0], 7041))
                    if i % 3 == 0:  # for the Python stack, in the same burst: it gets its turn all the same
                        peer.sendto(bytes(2000), (OURS[0], 7042))
                        assert len(peer.recv(3000)) == 2000
                peer.sendto(b"y", (OURS[0], 7042))
                assert peer.recv(10) == b"y"
            assert instance.slot(0)["worker"]["counters"]["app_errors"] == 30
            [said, *others] = instance.events("protocol.error")
            assert error.partition("(")[0].rpartition(".")[2] in said["traceback"]
            assert len(others) < 5
            assert not instance.events("worker.died")
            ledger.assert_balanced()
            assert instance.stop() == 0


def test_sockets_of_a_dead_worker_are_gone_and_its_successors_are_found() -> None:
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1", "--app", REMOTE) as instance:
            ledger = Ledger(instance, 0, 1)
            with Remote(namespace, 1) as remote:
                endpoint(remote, "local_addr=('0.0.0.0', 7050)", echo=True)
            _echoed(namespace, 7050)
            old = lives.pid(instance, "worker", 1)
            lives.kill(old)
            lives.wait_for_successor(instance, "worker", old, 1)
            with Remote(namespace, 0) as remote:  # nobody has the place any more
                endpoint(remote, "local_addr=('0.0.0.0', 7050)", more="t.close()\nawait asyncio.sleep(0.05)")
            with Remote(namespace, 1) as remote:
                endpoint(remote, "local_addr=('0.0.0.0', 7050)", echo=True)
            _echoed(namespace, 7050)
            instance.signal(signal.SIGUSR1)
            instance.wait_for("worker.replaced", count=2, timeout_s=30)
            with Remote(namespace, 1) as remote:
                endpoint(remote, "local_addr=('0.0.0.0', 7050)", echo=True)
            _echoed(namespace, 7050)
            ledger.assert_balanced()
            assert instance.stop() == 0


def test_sockets_are_known_to_a_new_supervisor() -> None:
    with Namespace() as namespace:
        namespace.silence()
        flags = ("--ports", "0,1", "--app", REMOTE)
        with Instance(namespace, *flags) as first, Remote(namespace, 0) as zero, Remote(namespace, 1) as one:
            endpoint(one, "local_addr=('0.0.0.0', 7051)", echo=True)
            _echoed(namespace, 7051)  # the second worker knows the neighbor from here on
            assert first.process is not None
            lives.kill(first.process.pid)
            first.process.wait()
            _echoed(namespace, 7051)
            endpoint(one, "local_addr=('0.0.0.0', 7052)", echo=True, name="alone")  # nobody is there to ask
            with Instance(namespace, *flags, name=first.name) as second:
                ledger = Ledger(second, 0, 1)
                _echoed(namespace, 7051)
                _echoed(namespace, 7052)
                with pytest.raises(RemoteError) as caught:
                    endpoint(zero, "local_addr=('0.0.0.0', 7052)")
                assert caught.value.errno == errno.EADDRINUSE
                ledger.assert_balanced()
                assert second.stop() == 0


def _echoed(namespace: Namespace, port: int) -> None:
    """Wait until a datagram to the first worker's port comes back."""
    with socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.2)

        def answered() -> bool:
            peer.sendto(b"hello", (OURS[0], port))
            try:
                return peer.recvfrom(100) == (b"hello", (OURS[0], port))
            except OSError:
                return False

        wait_until(answered, timeout_s=15.0, what="an answer")
