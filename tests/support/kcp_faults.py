# SPDX-License-Identifier: Apache-2.0
"""KCP on kernel sockets where something ends in the middle of something else; each program says what it saw.

`python -m tests.support.kcp_faults PROGRAM`, in a namespace of a test's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

from halo_mp import kcp
from halo_mp._native import lib
from halo_mp.kcp import Settings
from halo_mp.kcp.opening import open_endpoint

HOST = "127.0.0.1"
MESSAGES = Settings(stream=False)


async def refusal_waits() -> dict[str, Any]:
    """Abort a session whose FIN meets the refusal of a datagram that went before it: `sendto` itself tells it."""
    listener = await kcp.listen(HOST, 0, settings=MESSAGES)
    client = await kcp.connect(*listener.address, settings=MESSAGES, batch=False)
    await client.send(b"hello")
    server = await listener.accept_connection()
    await server.receive()
    listener.endpoint.close()  # without a word to the client
    client._endpoint.carrier.transport.sendto(bytes(40))
    client.abort()
    await client.wait_closed()
    return {"end": client.end and client.end.reason, "sessions": len(client._endpoint.sessions)}


async def rebind_of_an_end() -> dict[str, Any]:
    """End sessions while their endpoint gets another socket, and rebind what has ended."""
    listener = await kcp.listen(HOST, 0, settings=MESSAGES)
    await asyncio.sleep(0.1)  # asyncio closes the sockets that it has made in a later turn
    before = len(os.listdir("/proc/self/fd"))
    ends = []
    for batch in (True, False):
        client = await kcp.connect(*listener.address, settings=MESSAGES, batch=batch)
        rebinding = asyncio.create_task(kcp.rebind(client._endpoint, batch=batch))
        await asyncio.sleep(0)
        client.abort()
        await client.wait_closed()
        for each in (rebinding, asyncio.create_task(kcp.rebind(client._endpoint, batch=batch))):
            try:
                ends.append(await each)
            except kcp.SessionEndedError as error:
                ends.append(error.reason)
        del client
    await asyncio.sleep(0.1)
    after = len(os.listdir("/proc/self/fd"))
    listener.abort()
    return {"ends": ends, "left": after - before}


async def number_of_another() -> dict[str, Any]:
    """Give the number of a session that has ended to another one, while output of it waits for room in the socket."""
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for each in clients:
        each.bind((HOST, 0))
        each.settimeout(1)
    first, second = (each.getsockname() for each in clients)
    endpoint = await open_endpoint(
        MESSAGES.replace(format="classic"),
        local_addr=(HOST, 0),
        accept=lambda session: True,
        most_sessions=1,
    )
    carrier: Any = endpoint.carrier
    one = endpoint.open_session(1, first, is_client=False)
    one.send(b"secret", 6)
    while not endpoint._output.count:  # at its next interval
        lib.halo_kcp_group_poll(endpoint.group, endpoint.now_ms, endpoint._output, endpoint._events)
    carrier._output, carrier._group, carrier._from = endpoint._output, endpoint.group, 0
    carrier.is_blocked = True  # as a full socket leaves it
    one.abort()
    other = endpoint.open_session(2, second, is_client=False)
    carrier._on_room()
    other.send(b"yours", 5)
    await asyncio.sleep(0.1)
    got = clients[1].recv(2000)
    endpoint.close()
    for each in clients:
        each.close()
    return {
        "same": one.number == other.number,
        "conv": int.from_bytes(got[:4], "little"),
        "undelivered": carrier.counters["undelivered"],
    }


PROGRAMS = {each.__name__: each for each in (refusal_waits, rebind_of_an_end, number_of_another)}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(PROGRAMS[sys.argv[1]]())))
