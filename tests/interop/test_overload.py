# SPDX-License-Identifier: Apache-2.0
"""More frames than a worker takes: each is answered or counted, none is lost, and none is answered twice."""

from __future__ import annotations

import os
import signal

from tests.interop.conftest import running_tap
from tests.support import frames
from tests.support.accounts import arrived
from tests.support.namespace import wait_until

RING, SENT = 64, 320


def test_stopped_worker_answers_what_its_ring_holds() -> None:
    with running_tap("--ring-size", str(RING)) as tap:
        tap.pin()
        echoes = [frames.echo_request(sequence=number) for number in range(SENT)]
        requests = [tap.frame(frames.packet(src=tap.kernel, dst=tap.ours, payload=echo)) for echo in echoes]
        before = tap.tally()
        tap.station.heard()
        worker = tap.instance.slot()["worker_pid"]
        os.kill(worker, signal.SIGSTOP)  # for much less than the second after which it counts as hung
        try:
            for request in requests:
                tap.station.send(request)
            wait_until(lambda: arrived(tap.instance, before) == SENT, what="the driver's part of it")
        finally:
            os.kill(worker, signal.SIGCONT)
        happened = tap.since(before, SENT)
        answers = [frame.octets[40:42] for frame in tap.station.heard() if frame.ethertype == frames.IPV4]
        assert happened.arrived == SENT
        assert set(happened.drops) == {"rx_ring_full"}
        assert (
            RING <= len(answers) == happened.worker["echo_replies"] == SENT - happened.drops["rx_ring_full"]
        )
        assert answers == sorted(set(answers)), "in order, and once each"
        tap.wait_for_buffers()
        tap.namespace.pinged(tap.ours)
        assert len(tap.instance.events("worker.spawned")) == 1
