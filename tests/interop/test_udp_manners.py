# SPDX-License-Identifier: Apache-2.0
"""One suite of what a protocol sees, over both stacks: our endpoints have the manners of asyncio's own.

Each row is a program in a worker. It runs twice, with `here` an address of the stack and `there` one of the kernel's
next to it, and returns what it saw; both times it has to be the same.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.ledger import Ledger
from tests.support.namespace import Namespace
from tests.support.remote import REMOTE, Remote

HALO = "10.77.0.1", "10.77.0.2"
KERNEL = "127.0.0.1", "127.0.0.1"
PRELUDE = """
import socket
here, there = {here!r}, {there!r}
opened = []

class Log(asyncio.DatagramProtocol):
    def __init__(self):
        self.said, self.news = [], asyncio.Event()
    def say(self, *what):
        self.said.append(what)
        self.news.set()
    def connection_made(self, transport):
        self.transport = transport
        self.say("made")
    def connection_lost(self, exc):
        self.say("lost", exc and type(exc).__name__)
    def datagram_received(self, data, addr):
        self.addr = addr
        self.say("got", type(data).__name__, type(addr).__name__, len(addr), addr[0], data[:20].decode())
    def error_received(self, exc):
        self.say("error", type(exc).__name__, exc.errno)
    def pause_writing(self):
        self.say("pause")
    def resume_writing(self):
        self.say("resume")
    async def wait(self, count, timeout_s=10.0):
        async with asyncio.timeout(timeout_s):
            while len(self.said) < count:
                self.news.clear()
                await self.news.wait()

async def make(address=here, port=0, protocol=Log, **more):
    if "remote_addr" not in more or address is not None:
        more["local_addr"] = (address, port)
    t, p = await loop.create_datagram_endpoint(protocol, **more)
    opened.append(t)
    return t, p

def name(t):
    return t.get_extra_info("sockname")

async def raised(awaitable):
    try:
        result = await awaitable
    except Exception as error:
        return [type(error).__name__, getattr(error, "errno", None)]
    return "nothing raised"

def caught(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return type(error).__name__
    return "nothing raised"

async def row():
{row}

try:
    return await row()
finally:
    for each in opened:
        each.abort()
    await asyncio.sleep(0.01)
"""

ROWS = {
    "a datagram there and back": """
        t, p = await make()
        k, q = await make(there)
        t.sendto(b"hello", name(k))
        await q.wait(2)
        k.sendto(b"back", q.addr)
        await p.wait(2)
        return p.said == [("made",), ("got", "bytes", "tuple", 2, there, "back")] and q.said[1][5]
    """,
    "names": """
        t, p = await make()
        k, q = await make(there)
        c, r = await make(remote_addr=name(k))
        return [
            name(t)[0] == here, 1024 <= name(t)[1] < 65536, type(name(t)).__name__,
            t.get_extra_info("peername"), c.get_extra_info("peername") == name(k),
            t.get_extra_info("nothing"), t.get_extra_info("nothing", 7),
        ]
    """,
    "the socket": """
        t, p = await make()
        s = t.get_extra_info("socket")
        return [
            int(s.family), int(s.type), s.getsockname() == name(t), s.gettimeout(), s.get_inheritable(),
            caught(s.getpeername), caught(s.setblocking, False), caught(s.settimeout, 0),
            caught(s.setblocking, True), caught(s.settimeout, 1.0),
            s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
            s.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST),
            s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 4096,
            s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 4096,
            s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
            list(s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 4)),
            hasattr(s, "sendto"), hasattr(s, "recvfrom"), "sock" in repr(s).lower(),
        ]
    """,
    "options of the socket": """
        t, p = await make()
        s = t.get_extra_info("socket")
        ip = socket.IPPROTO_IP
        seen = []
        for option, value in ((socket.IP_TTL, 7), (socket.IP_TTL, -1), (socket.IP_TTL, 0), (socket.IP_TTL, 256),
                              (socket.IP_TOS, 16), (socket.IP_TTL, (9).to_bytes(4, "little"))):
            seen.append([caught(s.setsockopt, ip, option, value), s.getsockopt(ip, option)])
        seen.append(caught(s.setsockopt, socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20))
        for nonsense in (1 << 40, "7"):
            try:
                s.setsockopt(ip, socket.IP_TTL, nonsense)
            except (TypeError, ValueError, OverflowError):
                seen.append(["refused", s.getsockopt(ip, socket.IP_TTL)])
        seen.append(caught(s.setsockopt, ip, socket.IP_TOS, 8))
        return seen
    """,
    "reuse_port is told": """
        t, p = await make(reuse_port=True)
        k, q = await make(port=name(t)[1], reuse_port=True)
        b, r = await make(allow_broadcast=True)
        option = lambda t, number: t.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, number)
        return [option(t, socket.SO_REUSEPORT), option(b, socket.SO_BROADCAST), name(k) == name(t)]
    """,
    "a place that is taken": """
        t, p = await make()
        seen = [await raised(make(port=name(t)[1])), await raised(make(port=name(t)[1], reuse_port=True))]
        t.close()
        await p.wait(2)
        again, _ = await make(port=name(t)[1])
        return [*seen, p.said]
    """,
    "a place is free after abort": """
        t, p = await make()
        t.abort()
        await p.wait(2)
        again, _ = await make(port=name(t)[1])
        return p.said
    """,
    "two clients of one port and one peer": """
        k, q = await make(there)
        t, p = await make(remote_addr=name(k))
        return await raised(make(port=name(t)[1], remote_addr=name(k)))
    """,
    "arguments that make no sense": """
        return [
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here, 70000))),
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here, -1))),
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here,))),
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here, 0, 0))),
            await raised(loop.create_datagram_endpoint(Log, local_addr=here)),
            await raised(loop.create_datagram_endpoint(Log)),
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here, 0), remote_addr=(there, 70000))),
            await raised(loop.create_datagram_endpoint(Log, local_addr=(here, 0), remote_addr=(there, 1), nonsense=1)),
        ]
    """,
    "a factory that raises leaves no socket": """
        t, p = await make()
        place = name(t)
        t.abort()
        await p.wait(2)
        def wrong():
            raise KeyError("factory")
        seen = await raised(make(port=place[1], protocol=wrong))
        again, _ = await make(port=place[1])
        return seen
    """,
    "a port that nobody has, connected": """
        k, q = await make(there)
        place = name(k)
        k.abort()
        await q.wait(2)
        t, p = await make(remote_addr=place)
        t.sendto(b"anybody?")
        await p.wait(2)
        return p.said
    """,
    "a port that nobody has, not connected": """
        k, q = await make(there)
        place = name(k)
        k.abort()
        await q.wait(2)
        t, p = await make()
        t.sendto(b"anybody?", place)
        await asyncio.sleep(0.05)
        return p.said
    """,
    "a port that nobody has, sent to again": """
        k, q = await make(there)
        place = name(k)
        k.abort()
        await q.wait(2)
        t, p = await make(remote_addr=place)
        for i in range(3):
            t.sendto(b"anybody?")
            await p.wait(2 + i)
        k, q = await make(there, place[1])
        t.sendto(b"there!")
        await q.wait(2)
        return [[each[0] for each in p.said], q.said[1][5]]
    """,
    "sizes": """
        k, q = await make(there)
        t, p = await make()
        for octets in (1, 1472, 1473, 9000, 65507):
            t.sendto(bytes(octets), name(k))
        t.sendto(bytes(65508), name(k))
        t.sendto(b"last", name(k))
        await q.wait(7)
        return [p.said, len(q.said), q.said[-1][5]]
    """,
    "buffers of all kinds": """
        k, q = await make(there)
        t, p = await make()
        import array
        for data in (b"1", bytearray(b"2"), memoryview(b"3"), memoryview(array.array("H", [0x3838]))):
            t.sendto(data, name(k))
        await q.wait(5)
        wrong = [caught(t.sendto, each, name(k)) for each in ("text", None)]
        return [[each[5] for each in q.said[1:]], p.said, wrong]
    """,
    "send to somebody else when connected": """
        k, q = await make(there)
        t, p = await make(remote_addr=name(k))
        return [caught(t.sendto, b"x", (there, 1)), caught(t.sendto, b"x", name(k)), caught(t.sendto, b"x", None)]
    """,
    "send to a host's name": """
        t, p = await make()
        t.sendto(b"x", ("no.such.host.invalid", 9))
        await p.wait(2)
        return [each[:2] for each in p.said]
    """,
    "send to port 0": """
        t, p = await make()
        t.sendto(b"x", (there, 0))
        await p.wait(2)
        return p.said
    """,
    "to oneself": """
        t, p = await make()
        t.sendto(b"me", name(t))
        await p.wait(2)
        return p.said[1][5]
    """,
    "send in connection_made": """
        k, q = await make(there)
        class Eager(Log):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.sendto(b"first", name(k))
        t, p = await make(protocol=Eager)
        await q.wait(2)
        return q.said[1][5]
    """,
    "close in error_received": """
        class Once(Log):
            def error_received(self, exc):
                super().error_received(exc)
                self.transport.close()
        t, p = await make(protocol=Once)
        t.sendto(bytes(65508), (there, 9))
        await p.wait(3)
        return [each[0] for each in p.said]
    """,
    "send what is too long from error_received": """
        class Again(Log):
            def error_received(self, exc):
                super().error_received(exc)
                if len(self.said) < 5:
                    self.transport.sendto(bytes(65508), (there, 9))
        t, p = await make(protocol=Again)
        t.sendto(bytes(65508), (there, 9))
        await p.wait(5)
        return [each[0] for each in p.said]
    """,
    "what is sent before close goes out": """
        k, q = await make(there)
        t, p = await make()
        for i in range(50):
            t.sendto(b"%d" % i, name(k))
        t.close()
        t.close()
        await q.wait(51)
        await p.wait(2)
        return [p.said, q.said[-1][5]]
    """,
    "after close": """
        k, q = await make(there)
        t, p = await make()
        t.close()
        await p.wait(2)
        t.close()
        t.abort()
        await asyncio.sleep(0.02)
        return [p.said, t.is_closing(), t.get_write_buffer_size()]
    """,
    "write buffers": """
        t, p = await make()
        first = [t.get_write_buffer_size(), t.get_write_buffer_limits(), t.is_closing()]
        t.set_write_buffer_limits(high=1000)
        second = t.get_write_buffer_limits()
        t.set_write_buffer_limits(low=10)
        third = t.get_write_buffer_limits()
        t.set_write_buffer_limits(high=0)
        fourth = t.get_write_buffer_limits()
        wrong = [caught(t.set_write_buffer_limits, *each) for each in ((1, 2), (-1,))]
        return [first, second, third, fourth, wrong]
    """,
    "set_protocol": """
        k, q = await make(there)
        t, p = await make()
        other = Log()
        t.set_protocol(other)
        k.sendto(b"x", name(t))
        await other.wait(1)
        t.close()
        await other.wait(2)
        return [p.said, [each[0] for each in other.said]]
    """,
    "a cancelled opening leaves no socket": """
        k, q = await make()
        place = name(k)
        k.abort()
        await q.wait(2)
        task = loop.create_task(loop.create_datagram_endpoint(Log, local_addr=place))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.05)
        t, p = await make(port=place[1])
        return task.cancelled()
    """,
    "a hundred at once": """
        made = await asyncio.gather(*(make() for _ in range(100)))
        ports = {name(t)[1] for t, _ in made}
        k, q = await make(there)
        for t, _ in made:
            k.sendto(b"x", name(t))
        for _, p in made:
            await p.wait(2)
        return len(ports)
    """,
    "the oldest first": """
        k, q = await make(there)
        t, p = await make()
        for i in range(300):
            k.sendto(b"%d" % i, name(t))
            if i % 50 == 49:
                await p.wait(i + 2)
        return [each[5] for each in p.said[1:]] == [str(i) for i in range(300)]
    """,
}  # fmt: skip

for _way in ("close", "abort"):
    ROWS[f"{_way} in connection_made"] = f"""
        class Shy(Log):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.{_way}()
                transport.{_way}()
        t, p = await make(protocol=Shy)
        await p.wait(2)
        return [p.said, t.is_closing()]
    """
    ROWS[f"{_way} in datagram_received"] = f"""
        class Once(Log):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.{_way}()
        t, p = await make(protocol=Once)
        k, q = await make(there)
        for i in range(20):
            k.sendto(b"x", name(t))
        await p.wait(3)
        await asyncio.sleep(0.02)
        return [each[0] for each in p.said]
    """

for _kind in ("made", "got", "error", "lost"):
    _method, _call = {
        "made": ("connection_made", "transport"),
        "got": ("datagram_received", "data, addr"),
        "error": ("error_received", "exc"),
        "lost": ("connection_lost", "exc"),
    }[_kind]
    for _error in ("ValueError", "asyncio.CancelledError", "OSError(1, 'x')"):
        ROWS[f"{_error} in {_method}"] = f"""
        class Wrong(Log):
            def {_method}(self, {_call}):
                super().{_method}({_call})
                raise {_error}
        k, q = await make(there)
        t, p = await make(protocol=Wrong)
        caught(t.sendto, bytes(65508), name(k))
        await p.wait(2)
        k.sendto(b"one", name(t))
        await p.wait(3)
        k.sendto(b"two", name(t))
        await p.wait(4)
        t.close()
        await p.wait(5)
        return [each[0] for each in p.said]
        """


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with Namespace() as namespace:
        namespace.silence()
        with Instance(namespace, "--ports", "0,1", "--app", REMOTE) as instance:
            ledger = Ledger(instance, 0, 1)
            yield instance
            ledger.assert_balanced()
            assert not instance.events("worker.died")
            assert instance.stop() == 0


def run(instance: Instance, row: str, addresses: tuple[str, str]) -> Any:
    here, there = addresses
    body = PRELUDE.format(here=here, there=there, row=textwrap.indent(textwrap.dedent(ROWS[row]), "    "))
    with Remote(instance.namespace) as remote:
        return remote.run(body)


@pytest.mark.parametrize("row", ROWS)
def test_endpoint_has_the_manners_of_the_kernels(running: Instance, row: str) -> None:
    assert run(running, row, HALO) == run(running, row, KERNEL)
