# SPDX-License-Identifier: Apache-2.0
"""A client of examples/kcp_echo.py on an ordinary socket of the kernel: lines there and back.

python examples/kcp_client.py 10.77.0.1             sends what is typed
echo hello | python examples/kcp_client.py 10.77.0.1
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from halo_mp import kcp


async def talk(host: str, port: int) -> None:
    """Send each line of standard input; print what comes back, and what the session has counted."""
    reader, writer = await kcp.open_connection(host, port)
    session = writer.get_extra_info("kcp")
    print(f"session {session.conv:#x} with {host} port {port}", file=sys.stderr)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        writer.write(line)
        await writer.drain()
        answer = await reader.readline()
        if not answer:
            raise ConnectionResetError("the server has closed the session")
        print(answer.decode(errors="replace"), end="", flush=True)
    writer.close()
    await writer.wait_closed()
    counters, info = session.counters, session.info
    print(
        f"{counters.out_packets} datagrams out, {counters.in_packets} in, {counters.retransmitted} segments again, "
        f"round trip {info.srtt_ms} ms",
        file=sys.stderr,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=4000)
    arguments = parser.parse_args()
    try:
        asyncio.run(talk(arguments.host, arguments.port))
    except (OSError, TimeoutError) as error:
        print(f"kcp_client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
