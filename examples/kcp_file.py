# SPDX-License-Identifier: Apache-2.0
"""A file over KCP, with a progress bar. One end receives, the other sends; both check the digest.

python examples/kcp_file.py receive /tmp/here --port 4001
python examples/kcp_file.py send big.iso 192.0.2.1 --port 4001
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from halo_mp import kcp

SETTINGS = kcp.Settings(send_window=1024, receive_window=1024, check="xxh3", congestion="none")
PIECE_OCTETS = 256 * 1024


def progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    )


async def send(file: Path, host: str, port: int) -> None:
    """Send name and size as a line, then the octets; the answer is their digest."""
    reader, writer = await kcp.open_connection(host, port, settings=SETTINGS)
    size, digest = os.path.getsize(file), hashlib.sha256()  # noqa: ASYNC240
    writer.write(json.dumps({"name": file.name, "size": size}).encode() + b"\n")
    with progress() as bar, file.open("rb") as octets:
        task = bar.add_task(file.name, total=size)
        while piece := octets.read(PIECE_OCTETS):
            digest.update(piece)
            writer.write(piece)
            await writer.drain()
            bar.advance(task, len(piece))
    if (await reader.readline()).decode().strip() != digest.hexdigest():
        raise ConnectionError("the other side has other octets, or none")
    writer.close()
    await writer.wait_closed()


async def receive(folder: Path, port: int) -> None:
    """Take one file."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = json.loads(await reader.readline())
            size, digest, target = int(head["size"]), hashlib.sha256(), folder / Path(str(head["name"])).name
            with progress() as bar, target.open("wb") as octets:
                task = bar.add_task(target.name, total=size)
                while size and (piece := await reader.read(min(size, PIECE_OCTETS))):
                    digest.update(piece)
                    octets.write(piece)
                    size -= len(piece)
                    bar.advance(task, len(piece))
            writer.write(digest.hexdigest().encode() + b"\n")
            await reader.read()  # until the sender closes
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    async with await kcp.start_server(take, "0.0.0.0", port, settings=SETTINGS):
        await done


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(required=True, dest="way")
    sending, receiving = ways.add_parser("send"), ways.add_parser("receive")
    sending.add_argument("file", type=Path)
    sending.add_argument("host")
    receiving.add_argument("folder", type=Path)
    for each in (sending, receiving):
        each.add_argument("--port", type=int, default=4001)
    words = parser.parse_args()
    sent = words.way == "send"
    try:
        asyncio.run(send(words.file, words.host, words.port) if sent else receive(words.folder, words.port))
    except (OSError, TimeoutError) as error:
        print(f"kcp_file: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
