# SPDX-License-Identifier: Apache-2.0
"""A worker that goes on, and says for ever that it looks at what is to be used again."""

from __future__ import annotations

import threading

from halo_mp.control.client import Client
from halo_mp.control.public import SOCKET
from halo_mp.shm.layout import RegionKind
from halo_mp.shm.region import Region, region_name
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace


def test_worker_that_keeps_an_old_epoch_is_ended_and_changes_are_made(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1", "--idle", "poll") as instance:
        instance.wait_for("instance.up")
        rogue = lives.pid(instance, "worker", 0)
        name = region_name(instance.name, "slot.0")
        region = Region.attach(name, RegionKind.SLOT, writable=True)
        ended = threading.Event()

        def scribble() -> None:
            while not ended.is_set():
                region.pointer.status.epoch = 1

        scribbler = threading.Thread(target=scribble)
        scribbler.start()
        try:
            with Client(path=instance.runtime / SOCKET, timeout_s=60.0) as client:
                client.addresses.add("1", "10.88.1.1/24")  # the first block is free, the second one is not
                adding = threading.Thread(target=client.addresses.add, args=("1", "10.88.2.1/24"))
                adding.start()
                died = instance.wait_for("worker.died", timeout_s=30.0)[0]
                ended.set()
                adding.join()
                assert "10.88.2.1/24" in client.interfaces.list()[1].addresses
        finally:
            ended.set()
            scribbler.join()
            region.close()
        assert died["pid"] == rogue
        assert "kept an old epoch of the tables" in died["reason"]
        lives.wait_for_successor(instance, "worker", rogue, 0)
        namespace.pinged("10.77.0.1")
        assert instance.stop() == 0
