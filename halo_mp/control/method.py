# SPDX-License-Identifier: Apache-2.0
"""Calls as methods of both clients: what a method takes, returns and means is said once, by the call.

class Interfaces(Group):
    set = blocking(calls.set_interface)

class AsyncInterfaces(AsyncGroup):
    set = waiting(calls.set_interface)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from halo_mp.control.calls import Call

T = TypeVar("T")
P = ParamSpec("P")


class Runner(Protocol):
    """`Client`."""

    def run(self, call: Call[T], *, extra_s: float = 0.0) -> T:
        """Make a call. Raises ControlError."""


class AsyncRunner(Protocol):
    """`AsyncClient`."""

    async def run(self, call: Call[T], *, extra_s: float = 0.0) -> T:
        """Make a call. Raises ControlError."""


class Group:
    """Methods of a client that belong together."""

    def __init__(self, client: Runner) -> None:
        self.client = client


class AsyncGroup:
    """The same for asyncio."""

    def __init__(self, client: AsyncRunner) -> None:
        self.client = client


class blocking(Generic[P, T]):  # noqa: N801 - as property is
    """A call as a method of a Group; of the class it is the call itself."""

    def __init__(self, call: Callable[P, Call[T]], *, extra_s: float = 0.0) -> None:
        """The answers may take so much longer than others."""
        self._call = call
        self._extra_s = extra_s

    @overload
    def __get__(self, group: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, group: Group, owner: type) -> Callable[P, T]: ...
    def __get__(self, group: Group | None, owner: type) -> Callable[P, Any]:
        if group is None:
            return self._call

        @functools.wraps(self._call)
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return group.client.run(self._call(*args, **kwargs), extra_s=self._extra_s)

        return method


class waiting(Generic[P, T]):  # noqa: N801
    """A call as a method of an AsyncGroup, to be awaited; of the class it is the call itself."""

    def __init__(self, call: Callable[P, Call[T]], *, extra_s: float = 0.0) -> None:
        """The answers may take so much longer than others."""
        self._call = call
        self._extra_s = extra_s

    @overload
    def __get__(self, group: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: AsyncGroup | None, owner: type) -> Callable[P, Any]:
        if group is None:
            return self._call

        @functools.wraps(self._call)
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            return await group.client.run(self._call(*args, **kwargs), extra_s=self._extra_s)

        return method
