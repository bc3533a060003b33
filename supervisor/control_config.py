# SPDX-License-Identifier: Apache-2.0
"""The control socket's requests about the configuration, `config.*`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Protocol

from halo_mp.control.frame import Message
from halo_mp.control.public import MAX_CHANGES
from halo_mp.supervisor.running import RefusedError

Fields = Mapping[str, Any]

ASKER: ContextVar[str] = ContextVar("ASKER", default="somebody")
"""Whose request is being done; each client has a task of its own."""
MAX_START = 1 << 33


class ConfigOperations(Protocol):
    """What can be asked for. Each raises RefusedError with a sentence, and returns the fields of its reply."""

    def show(self, part: str, start: int) -> Fields:
        """`config.show`."""

    def history(self) -> Fields:
        """`config.history`."""

    def stage(
        self, candidate: int | None, file: str, text: str | None, routes: Sequence[Any] | None
    ) -> Fields:
        """`config.stage`."""

    async def diff(self, candidate: int) -> Fields:
        """`config.diff`."""

    async def apply(self, candidate: int, by: str, confirm_s: int | None) -> Fields:
        """`config.apply`."""

    async def confirm(self, by: str) -> None:
        """`config.confirm`."""

    async def rollback(self, steps: int, by: str) -> Fields:
        """`config.rollback`."""

    async def reload(self, by: str) -> Fields:
        """`config.reload`."""

    def single_change(self) -> AbstractAsyncContextManager[None]:
        """Return what a change by hand is made within."""


class _Operated(Protocol):
    @property
    def configuration(self) -> ConfigOperations: ...


def config_handlers(operations: _Operated) -> dict[str, Callable[[Message], Awaitable[Fields]]]:
    """Return what answers each request."""

    async def show(message: Message) -> Fields:
        start: int = message.get("start", 0)
        if not 0 <= start < MAX_START:
            raise RefusedError(
                f"config.show can not start at {start}; start is what `next` said, or left out."
            )
        return operations.configuration.show(message.get("part", "all"), start)

    async def stage(message: Message) -> Fields:
        routes = message.get("routes")
        return operations.configuration.stage(
            message.get("candidate"),
            message.get("file", "the candidate"),
            message.get("text"),
            None if routes is None else [_route(entry) for entry in _bounded(routes)],
        )

    async def diff(message: Message) -> Fields:
        return await operations.configuration.diff(message["candidate"])

    async def apply(message: Message) -> Fields:
        confirm_s = message.get("confirm_s")
        return await operations.configuration.apply(message["candidate"], ASKER.get(), confirm_s)

    async def confirm(_message: Message) -> Fields:
        await operations.configuration.confirm(ASKER.get())
        return {}

    async def rollback(message: Message) -> Fields:
        return await operations.configuration.rollback(message.get("steps", 1), ASKER.get())

    async def reload(_message: Message) -> Fields:
        return await operations.configuration.reload(ASKER.get())

    async def history(_message: Message) -> Fields:
        return operations.configuration.history()

    handlers = (show, stage, diff, apply, confirm, rollback, reload, history)
    return {f"config.{handler.__name__}": handler for handler in handlers}


def _bounded(routes: list[Any]) -> list[Any]:
    if len(routes) > MAX_CHANGES:
        raise RefusedError(f"{len(routes)} routes are too many for one request, at most {MAX_CHANGES}.")
    return routes


def _route(entry: object) -> tuple[str, list[str]]:
    match entry:
        case [str(prefix), [*hops]] if all(isinstance(hop, str) for hop in hops):
            return prefix, [str(hop) for hop in hops]
    raise RefusedError(
        f"{entry!r:.80} is no route: a list of a prefix and a list of hops, all of them texts."
    )
