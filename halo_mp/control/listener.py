# SPDX-License-Identifier: Apache-2.0
"""A Unix socket that hands out channels, for asyncio."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from halo_mp import logs
from halo_mp.control.channel import Channel, Peer
from halo_mp.control.reserve import Reserve
from halo_mp.errors import EnvironmentProblem

BACKLOG = 128
MAX_PATH_OCTETS = 107  # sun_path, with its end
_PAUSE_S = 0.5  # when descriptors have run out; connections wait in the backlog meanwhile
_TELL_S = 10.0  # between two words of that
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logs.get("control")


class Listener:
    """Accepts until closed, and removes the socket then.

    When descriptors have run out it pauses. With a reserve it goes on: connections are taken by it, and those whose
    peer `is_wanted` says no of are closed again, until the reserve is whole.
    """

    def __init__(
        self,
        path: Path,
        mode: int,
        on_channel: Callable[[Channel], None],
        *,
        reserve: Reserve | None = None,
        is_wanted: Callable[[Peer], bool] = lambda _peer: True,
        group: int | None = None,
        is_public: bool = False,
    ) -> None:
        """Listen at `path`, replacing what is there: the caller holds the lock of its directory.

        Raises EnvironmentProblem.
        """
        if len(os.fsencode(path)) > MAX_PATH_OCTETS:
            raise EnvironmentProblem(f"{path} is too long for a socket. Choose a shorter instance name.")
        self._path = path
        self._on_channel = on_channel
        self._reserve = reserve
        self._is_wanted = is_wanted
        self._is_public = is_public
        self._told_at = -_TELL_S
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setblocking(False)
            path.unlink(missing_ok=True)
            os.fchmod(self._socket.fileno(), 0o600)  # what bind gives the path: never open wider than `mode`
            self._socket.bind(str(path))
            if group is not None and group != path.stat().st_gid:
                os.chown(path, -1, group)
            path.chmod(mode)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise EnvironmentProblem(f"{path} can not be listened at: {error.strerror}.") from None
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._socket, self._on_readable)

    def close(self) -> None:
        """Stop listening and remove the socket. Channels that were handed out live on. May be called twice."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        if self._resume is not None:
            self._resume.cancel()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _on_readable(self) -> None:
        """Accept one; the loop comes again while there are more, and others get their turn."""
        try:
            connection = self._accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._pause(error)
            return
        channel = Channel(connection, is_public=self._is_public)
        if self._reserve is None or self._reserve.refill() or self._is_wanted(channel.peer):
            self._on_channel(channel)
            return
        channel.close()
        self._reserve.refill()
        if self._may_tell():
            log.warning("listener.short", path=str(self._path), pid=channel.peer.pid)

    def _accept(self) -> socket.socket:
        """Accept, if need be with a descriptor of the reserve. Raises OSError."""
        try:
            return self._socket.accept()[0]
        except OSError as error:
            if self._reserve is None or error.errno not in _OUT_OF_RESOURCES:
                raise
        with self._reserve.lent():
            return self._socket.accept()[0]

    def _pause(self, error: OSError) -> None:
        if self._may_tell():
            log.warning("listener.paused", path=str(self._path), reason=error.strerror, for_s=_PAUSE_S)
        self._loop.remove_reader(self._socket)
        self._resume = self._loop.call_later(_PAUSE_S, self._loop.add_reader, self._socket, self._on_readable)

    def _may_tell(self) -> bool:
        """Whether to log it: not each time, it may be a flood."""
        if self._loop.time() < self._told_at + _TELL_S:
            return False
        self._told_at = self._loop.time()
        return True
