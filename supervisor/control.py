# SPDX-License-Identifier: Apache-2.0
"""The control socket's server: who is let in, which requests there are, and one task for each client.

It knows nothing of tables and workers: what is asked for is done by `Operations`. A request that is wrong is answered
with a sentence, a frame that is wrong closes its client, and a client that does not read what it asked for is
dropped; nobody else waits for any of them.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import halo_mp
from halo_mp import logs
from halo_mp.control.channel import Channel, ChannelError, Peer, ProtocolError
from halo_mp.control.frame import Message
from halo_mp.control.inbox import close_all
from halo_mp.control.listener import Listener
from halo_mp.control.public import MAX_CHANGES, PUBLIC_VERSION, REQUESTS, Request
from halo_mp.supervisor.control_config import ASKER, ConfigOperations, config_handlers
from halo_mp.supervisor.opened import Opened
from halo_mp.supervisor.outbox import Outbox, program
from halo_mp.supervisor.running import RefusedError

HELLO_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 5.0
"""For a client to read an answer; it holds up nobody but itself until then."""
MAX_CLIENTS = 128
"""More than there are workers, whose applications may be clients, too."""
MAX_CLIENTS_FOR_OWNERS = MAX_CLIENTS + 8
"""Root and our own user still get in when others have taken all that there are."""
TURN_S = 0.002
"""For requests of one client that have come already; then everybody else has a turn."""
_TELL_S = 10.0  # between two words of clients for whom there is no room

_ENVELOPE = {"type", "id"}
CLIENT: ContextVar[Outbox] = ContextVar("CLIENT")
"""Whose request is being done, and where notices for it go; each client has a task of its own."""
_SINGLE = {
    "interfaces.set",
    "addresses.add",
    "addresses.delete",
    "neighbors.add",
    "neighbors.delete",
    "routes.add",
    "routes.replace",
    "routes.delete",
}
"""Requests that change something of the configuration, not all of it."""
_LONG = {"ping"}
"""Requests that end when their client goes away."""

log = logs.get("supervisor")

Fields = Mapping[str, Any]


class Operations(Protocol):
    """What can be asked for. Each raises RefusedError with a sentence, and returns the fields of its reply."""

    def show(self) -> Fields:
        """`instance.show`."""

    def list_interfaces(self, start: int) -> Fields:
        """`interfaces.list`."""

    async def set_interface(self, interface: str, settings: Fields) -> None:
        """`interfaces.set`."""

    async def add_address(self, interface: str, address: str, *, primary: bool) -> None:
        """`addresses.add`."""

    async def delete_address(self, interface: str, address: str) -> None:
        """`addresses.delete`."""

    def list_neighbors(self, interface: str | None, start: int) -> Fields:
        """`neighbors.list`."""

    def add_neighbor(self, interface: str, address: str, mac: str) -> None:
        """`neighbors.add`."""

    def delete_neighbor(self, interface: str, address: str) -> None:
        """`neighbors.delete`."""

    def flush_neighbors(self, interface: str | None) -> int:
        """`neighbors.flush`: forget what was learned; return how many that were."""

    def list_routes(self, within: str | None, start: int) -> Fields:
        """`routes.list`."""

    def change_routes(self, kind: str, changes: Sequence[tuple[str, Sequence[str]]]) -> list[str | None]:
        """`routes.add`, `routes.replace`, `routes.delete`: of each change None, or why it was refused."""

    def lookup(self, address: str, flow: Fields) -> Fields | None:
        """`routes.lookup`."""

    async def list_kcp(self, start: int) -> Fields:
        """`kcp.list`."""

    async def ping(self, address: str, settings: Fields) -> list[Any]:
        """`ping`, which takes its time; cancelled, it ends at once."""

    async def capture(self, settings: Fields, *, trace: bool) -> Opened:
        """`capture.start`, `trace.start`: what is returned is closed when the client goes away."""

    def show_capture(self, number: int) -> Fields:
        """`capture.show`, of a trace too."""

    def stop(self) -> None:
        """`instance.stop`: what a signal would ask for, in a moment."""

    @property
    def configuration(self) -> ConfigOperations:
        """`config.*`."""

    @property
    def feeds(self) -> Subscriptions:
        """`subscribe` and `unsubscribe`."""


class Subscriptions(Protocol):
    """Who is told of what."""

    def subscribe(self, outbox: Outbox, topic: str, *, level: str | None, period_ms: int | None) -> None:
        """`subscribe`. Raises RefusedError with a sentence."""

    def unsubscribe(self, outbox: Outbox, topic: str) -> None:
        """`unsubscribe`. Raises RefusedError with a sentence."""

    def forget(self, outbox: Outbox) -> None:
        """Tell a client nothing more, about whatever it is."""


class ControlServer:
    """Listens until closed."""

    def __init__(self, path: Path, operations: Operations, *, instance: str, group: int) -> None:
        """Members of `group` are let in, with root and our own user. Raises EnvironmentProblem."""
        self._instance = instance
        self._group = group
        self._operations = operations
        self._requests = Requests(operations)
        self._clients: dict[Channel, asyncio.Task[None]] = {}
        self._opened: dict[Channel, list[Opened]] = {}
        self._refused = 0  # since that was told last
        self._told_at = -_TELL_S
        self._listener = Listener(path, 0o660, self._on_channel, group=group, is_public=True)

    async def close(self) -> None:
        """Stop listening and drop every client. May be called twice."""
        self._listener.close()
        tasks = list(self._clients.values())
        for channel in self._clients:
            channel.part("the instance ends.")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_channel(self, channel: Channel) -> None:
        most = MAX_CLIENTS_FOR_OWNERS if _is_owner(channel.peer) else MAX_CLIENTS
        if len(self._clients) >= most:
            self._refuse(channel)
            return
        self._clients[channel] = asyncio.create_task(self._serve(channel))

    def _refuse(self, channel: Channel) -> None:
        """Send away somebody for whom there is no room, and say who has it; the log hears of a flood now and then."""
        clients = len(self._clients)
        [(peer, count)] = Counter(each.peer for each in self._clients).most_common(1)
        who = f"{program(peer)}, pid {peer.pid}"
        channel.part(
            f"{clients} clients are connected already, {count} of them by {who}: end some, then try again."
        )
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + _TELL_S:
            log.warning(
                "control.refused",
                pid=channel.peer.pid,
                uid=channel.peer.uid,
                clients=clients,
                refused=self._refused,
            )
            self._told_at, self._refused = now, 0

    async def _serve(self, channel: Channel) -> None:
        outbox = Outbox(channel, lambda outbox: self._operations.feeds.forget(outbox))
        CLIENT.set(outbox)
        try:
            admin = is_admin(channel.peer, self._group)
            ASKER.set(f"uid {channel.peer.uid}")
            await self._greet(channel, admin=admin)
            inlet = Inlet(channel)
            turn = Turn()
            while True:
                message = await inlet.receive()
                await self._answer(channel, inlet, message, admin=admin)
                await turn.taken()
        except (ChannelError, TimeoutError) as error:
            if isinstance(error, ProtocolError | TimeoutError):
                reason = str(error) or "does not read what it asked for, or says nothing"
                peer = channel.peer
                channel.part(f"this client {reason}.")
                log.warning(
                    "control.dropped", pid=peer.pid, uid=peer.uid, program=program(peer), reason=reason
                )
        except Exception:  # a mistake of ours: it costs this client and no more
            channel.part("that was a mistake of halo-mp's own, which the instance's log has in full.")
            log.exception("control.error", pid=channel.peer.pid)
        finally:
            del self._clients[channel]
            self._operations.feeds.forget(outbox)
            outbox.close()
            channel.close()
            for opened in self._opened.pop(channel, ()):
                opened.close()

    async def _greet(self, channel: Channel, *, admin: bool) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message, fds = await channel.receive()
            close_all(fds)
            version = message.get("version")
            if message["type"] != "hello" or type(version) is not int:
                raise ProtocolError(f"sent {message['type']!r:.40} before its hello with a version")
            await channel.send(
                {
                    "type": "hello",
                    "version": PUBLIC_VERSION,
                    "instance": self._instance,
                    "package": halo_mp.__version__,
                    "admin": admin,
                }
            )
            if version != PUBLIC_VERSION:
                raise ProtocolError(f"speaks version {version} of the protocol, not {PUBLIC_VERSION}")

    async def _answer(self, channel: Channel, inlet: Inlet, message: Message, *, admin: bool) -> None:
        """Do what a message asks for, for as long as that takes, and have the answer read within a time."""
        if type(message.get("id")) is not int:
            raise ProtocolError(f"sent {message['type']!r:.40} without an id")
        try:
            work = self._requests.do(message, admin=admin)
            fields = await (inlet.await_work(work) if message["type"] in _LONG else work)
        except RefusedError as error:
            fields, refusal = {}, str(error)
        else:
            refusal = ""
        if isinstance(fields, Opened):
            self._opened.setdefault(channel, []).append(fields)
        if refusal:
            reply = channel.refuse(message, refusal)
        else:
            reply = channel.reply(message, fields.fds if isinstance(fields, Opened) else (), **fields)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await reply


class Turn:
    """How long requests of one client are done one after the other: what has come already keeps nobody waiting."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + TURN_S

    async def taken(self) -> None:
        """Let others have theirs when this one is over."""
        if self._loop.time() >= self._ends:
            await asyncio.sleep(0)
            self._ends = self._loop.time() + TURN_S


class Requests:
    """From a message to an operation, and back to the fields of the reply."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._handlers: dict[str, Callable[[Message], Awaitable[Fields]]] = {
            "version": self._version,
            "instance.show": self._show,
            "interfaces.list": self._interfaces_list,
            "interfaces.set": self._interfaces_set,
            "addresses.add": self._addresses_add,
            "addresses.delete": self._addresses_delete,
            "neighbors.list": self._neighbors_list,
            "neighbors.add": self._neighbors_add,
            "neighbors.delete": self._neighbors_delete,
            "neighbors.flush": self._neighbors_flush,
            "routes.list": self._routes_list,
            "routes.add": self._routes_change,
            "routes.replace": self._routes_change,
            "routes.delete": self._routes_delete,
            "routes.lookup": self._routes_lookup,
            "kcp.list": self._kcp_list,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "ping": self._ping,
            "capture.start": self._capture,
            "capture.show": self._capture_show,
            "trace.start": self._capture,
            "instance.stop": self._stop,
            **config_handlers(operations),
        }

    async def do(self, message: Message, *, admin: bool) -> Fields:
        """Do what a message asks for. Raises RefusedError."""
        check_request(message, admin=admin)
        handler = self._handlers[message["type"]]
        if message["type"] not in _SINGLE:
            return await handler(message)
        async with self._operations.configuration.single_change():
            return await handler(message)

    async def _version(self, _message: Message) -> Fields:
        return {"version": halo_mp.__version__, "protocol": PUBLIC_VERSION}

    async def _show(self, _message: Message) -> Fields:
        return self._operations.show()

    async def _stop(self, _message: Message) -> Fields:
        self._operations.stop()
        return {}

    async def _interfaces_list(self, message: Message) -> Fields:
        return self._operations.list_interfaces(_start(message))

    async def _interfaces_set(self, message: Message) -> Fields:
        settings = {name: value for name, value in message.items() if name not in {*_ENVELOPE, "interface"}}
        if not settings:
            raise RefusedError(
                "interfaces.set names nothing to set; it has up, mtu, forward and other flags."
            )
        await self._operations.set_interface(message["interface"], settings)
        return {}

    async def _addresses_add(self, message: Message) -> Fields:
        primary = message.get("primary", False)
        await self._operations.add_address(message["interface"], message["address"], primary=primary)
        return {}

    async def _addresses_delete(self, message: Message) -> Fields:
        await self._operations.delete_address(message["interface"], message["address"])
        return {}

    async def _neighbors_list(self, message: Message) -> Fields:
        return self._operations.list_neighbors(message.get("interface"), _start(message))

    async def _neighbors_add(self, message: Message) -> Fields:
        self._operations.add_neighbor(message["interface"], message["address"], message["mac"])
        return {}

    async def _neighbors_delete(self, message: Message) -> Fields:
        self._operations.delete_neighbor(message["interface"], message["address"])
        return {}

    async def _neighbors_flush(self, message: Message) -> Fields:
        return {"count": self._operations.flush_neighbors(message.get("interface"))}

    async def _routes_list(self, message: Message) -> Fields:
        return self._operations.list_routes(message.get("within"), _start(message))

    async def _routes_change(self, message: Message) -> Fields:
        changes = [_change(entry) for entry in _bounded(message, "routes")]
        kind = message["type"].removeprefix("routes.")
        return {"results": self._operations.change_routes(kind, changes)}

    async def _routes_delete(self, message: Message) -> Fields:
        changes = [(_text(entry), ()) for entry in _bounded(message, "prefixes")]
        return {"results": self._operations.change_routes("delete", changes)}

    async def _routes_lookup(self, message: Message) -> Fields:
        flow = {name: value for name, value in message.items() if name not in {*_ENVELOPE, "address"}}
        return {"found": self._operations.lookup(message["address"], flow)}

    async def _subscribe(self, message: Message) -> Fields:
        level, period_ms = message.get("level"), message.get("period_ms")
        self._operations.feeds.subscribe(CLIENT.get(), message["topic"], level=level, period_ms=period_ms)
        return {}

    async def _unsubscribe(self, message: Message) -> Fields:
        self._operations.feeds.unsubscribe(CLIENT.get(), message["topic"])
        return {}

    async def _capture(self, message: Message) -> Fields:
        settings = {name: value for name, value in message.items() if name not in _ENVELOPE}
        return await self._operations.capture(settings, trace=message["type"] == "trace.start")

    async def _capture_show(self, message: Message) -> Fields:
        return self._operations.show_capture(message["number"])

    async def _kcp_list(self, message: Message) -> Fields:
        return await self._operations.list_kcp(message.get("start", 0))

    async def _ping(self, message: Message) -> Fields:
        settings = {name: value for name, value in message.items() if name not in {*_ENVELOPE, "address"}}
        return {"outcomes": await self._operations.ping(message["address"], settings)}


class Inlet:
    """What a client sends, one request after the other; and whether it is still there while one takes its time."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held: Message | None = None

    async def receive(self) -> Message:
        """Return the next message; descriptors with it are closed. Raises ChannelError."""
        if (held := self._held) is not None:
            self._held = None
            return held
        message, fds = await self._channel.receive()
        close_all(fds)
        return message

    async def await_work(self, work: Coroutine[Any, Any, Fields]) -> Fields:
        """Await something, and cancel it when the client goes away, which is a ChannelError.

        Who has sent more requests already is not seen to go before this one is done.
        """
        working = asyncio.create_task(work)
        reading = asyncio.create_task(self.receive())
        try:
            await asyncio.wait({working, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not working.done():
                reading.result()
            return await working
        finally:
            working.cancel()
            reading.cancel()
            _, read = await asyncio.gather(working, reading, return_exceptions=True)
            if not isinstance(read, BaseException):
                self._held = read


def check_request(message: Message, *, admin: bool) -> None:
    """Raise RefusedError unless a message is one of the requests, with its fields, from somebody who may."""
    name = message["type"]
    request = REQUESTS.get(name)
    if request is None:
        raise RefusedError(f"there is no request {name!r:.80}; {_nearest(name, tuple(REQUESTS))}.")
    for key, value in message.items():
        if key not in _ENVELOPE:
            _check_field(name, request, key, value)
    for key in request.fields:
        if key not in message and key not in request.optional:
            raise RefusedError(f"{name} needs a field {key!r}.")
    if request.changes and not admin:
        raise RefusedError(
            f"{name} changes something, and this user may only look; ask as root, or as one of the group."
        )


def _check_field(name: str, request: Request, key: str, value: object) -> None:
    kind = request.fields.get(key)
    if kind is None:
        hint = _nearest(key, tuple(request.fields)) if request.fields else "it has none"
        raise RefusedError(f"{name} has no field {key!r:.80}; {hint}.")
    if type(value) is not kind:
        raise RefusedError(f"{name} needs {key} to be {_KINDS[kind]}, not {value!r:.80}.")


_LONGEST_WORD = 64  # that is looked for among those that there are
_KINDS = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", bytes: "octets"}


@lru_cache(
    maxsize=1024
)  # who is wrong is so again and again, and this takes longer than all the rest of a refusal
def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = len(word) <= _LONGEST_WORD and difflib.get_close_matches(word, known, n=1)
    return f"the nearest is {near[0]!r}" if near else f"there are {', '.join(known)}"


def _start(message: Message) -> int:
    start: int = message.get("start", 0)
    if not 0 <= start < 1 << 32:
        raise RefusedError(
            f"{message['type']} can not start at {start}; start is what `next` said, or left out."
        )
    return start


def _bounded(message: Message, name: str) -> list[Any]:
    entries: list[Any] = message[name]
    if len(entries) > MAX_CHANGES:
        raise RefusedError(f"{len(entries)} changes are too many for one request, at most {MAX_CHANGES}.")
    return entries


def _change(entry: object) -> tuple[str, Sequence[str]]:
    match entry:
        case [str(prefix), [*hops]] if all(isinstance(hop, str) for hop in hops):
            return prefix, [str(hop) for hop in hops]
    raise RefusedError(
        f"{entry!r:.80} is no route: a list of a prefix and a list of hops, all of them texts."
    )


def _text(entry: object) -> str:
    if not isinstance(entry, str):
        raise RefusedError(f"{entry!r:.80} is no prefix: a text such as 10.0.0.0/8.")
    return entry


def is_admin(peer: Peer, group: int) -> bool:
    """Tell whether who has connected may change something: others come in only past the socket's mode."""
    return _is_owner(peer) or group in peer.groups


def _is_owner(peer: Peer) -> bool:
    return peer.uid in (0, os.geteuid())
