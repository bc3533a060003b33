# SPDX-License-Identifier: Apache-2.0
"""Pings of a worker: whose an answer is, and what is left of each. The link is a loop that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from halo_mp.stack.local_delivery import IDENTIFIERS_PER_SLOT
from halo_mp.stack.outputs import EchoReply, IcmpError
from halo_mp.stack.pinger import PingFailure, PingReply, PingSettings, PingTimeout
from halo_mp.wire import icmpv4
from halo_mp.wire.ipv4 import Ipv4Packet
from halo_mp.workers.echo import EchoError, Pings, emit_outcome

SLOT, PEER = 5, 0x0A000002


class Link:
    """Keeps what was sent and who listens."""

    def __init__(self) -> None:
        self.sent: list[Ipv4Packet] = []
        self.listeners: set[int] = set()
        self.pings = Pings(SLOT, asyncio.get_running_loop(), self.sent.append, self._listen)

    def _listen(self, identifier: int, *, listen: bool) -> None:
        assert (identifier in self.listeners) != listen
        self.listeners ^= {identifier}

    async def request(self, number: int) -> icmpv4.Icmpv4Message:
        """Wait for a request."""
        while len(self.sent) <= number:  # noqa: ASYNC110 - for some turns of the loop
            await asyncio.sleep(0)
        return icmpv4.parse(self.sent[number].payload)

    def answer(self, message: icmpv4.Icmpv4Message) -> None:
        now = asyncio.get_running_loop().time()
        reply = EchoReply(PEER, 1, message.identifier, message.sequence, 60, bytes(message.payload))
        self.pings.receive(reply, now)


def play(scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link()
        await asyncio.wait_for(scenario(link), 30)
        assert link.listeners == set(), "nobody listens any more"

    asyncio.run(run())


def settings(count: int = 1, *, timeout_s: float = 30.0) -> PingSettings:
    return PingSettings(dst=PEER, count=count, interval_s=0.001, timeout_s=timeout_s)


def test_answers_find_their_ping_among_many() -> None:
    async def scenario(link: Link) -> None:
        tasks = [asyncio.create_task(link.pings.run(settings())) for _ in range(5)]
        requests = [await link.request(number) for number in range(5)]
        assert {each.identifier for each in requests} == {SLOT << 10 | number for number in range(5)}
        assert link.listeners == {each.identifier for each in requests}
        link.answer(requests[3])
        assert isinstance((await tasks[3])[0], PingReply)
        assert [task.done() for task in tasks] == [False, False, False, True, False]
        for request in requests:
            link.answer(request)  # the fourth is nobody's by now
        await asyncio.gather(*tasks)

    play(scenario)


def test_outcomes_come_in_order_one_for_each_request() -> None:
    async def scenario(link: Link) -> None:
        task = asyncio.create_task(link.pings.run(settings(4)))
        requests = [await link.request(number) for number in range(4)]
        error = icmpv4.Icmpv4Message(11, 0, 0, link.sent[1].emit())
        about = icmpv4.quoted(error)
        for number in (2, 2, 0):
            link.answer(requests[number])
        link.pings.receive(IcmpError(9, 11, 0, 0, about), asyncio.get_running_loop().time())
        link.answer(requests[3])
        found = await task
        assert [each.number for each in found] == [0, 1, 2, 3]
        assert [type(each) for each in found] == [PingReply, PingFailure, PingReply, PingReply]

    play(scenario)


def test_reply_after_its_timeout_counts_while_others_are_waited_for() -> None:
    async def scenario(link: Link) -> None:
        task = asyncio.create_task(link.pings.run(settings(200, timeout_s=0.01)))
        first = await link.request(0)
        await link.request(50)
        link.answer(first)
        found = await task
        assert len(found) == 200
        assert isinstance(found[0], PingReply)
        assert found[0].late
        assert found[-1] == PingTimeout(199)

    play(scenario)


def test_cancelled_leaves_nothing() -> None:
    async def scenario(link: Link) -> None:
        task = asyncio.create_task(link.pings.run(settings(1000)))
        await link.request(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        count = len(link.sent)
        await asyncio.sleep(0.01)
        assert (len(link.sent), link.listeners) == (count, set())

    play(scenario)


def test_worker_that_leaves_ends_them_and_begins_none() -> None:
    async def scenario(link: Link) -> None:
        task = asyncio.create_task(link.pings.run(settings()))
        await link.request(0)
        link.pings.close()
        with pytest.raises(EchoError, match="is leaving"):
            await task
        with pytest.raises(EchoError):
            await link.pings.run(settings())

    play(scenario)


def test_more_than_there_are_identifiers_are_refused() -> None:
    async def scenario(link: Link) -> None:
        tasks = [asyncio.create_task(link.pings.run(settings())) for _ in range(IDENTIFIERS_PER_SLOT)]
        await link.request(IDENTIFIERS_PER_SLOT - 1)
        with pytest.raises(EchoError, match="1024 pings run already"):
            await link.pings.run(settings())
        link.answer(await link.request(700))
        await tasks[700]
        tasks.append(asyncio.create_task(link.pings.run(settings())))
        assert (await link.request(IDENTIFIERS_PER_SLOT)).identifier == SLOT << 10 | 700
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(scenario)


def test_outcomes_have_nanoseconds_for_the_supervisor() -> None:
    about = icmpv4.QuotedPacket(src=1, dst=2, protocol=1, total_octets=28, header=bytes(20), payload=bytes(8))
    assert emit_outcome(PingReply(0, PEER, 0.000123456, 60)) == ["reply", PEER, 123456, 60, 0, 0, 0]
    failed = PingFailure(0, IcmpError(9, 3, 4, 1400, about), 1.5)
    assert emit_outcome(failed) == ["error", 9, 1_500_000_000, 0, 3, 4, 1400]
    assert emit_outcome(PingTimeout(0)) == ["timeout", 0, 0, 0, 0, 0, 0]
