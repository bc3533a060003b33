# SPDX-License-Identifier: Apache-2.0
"""Hooks compiled to machine code by numba, which the fast path calls itself: once for a burst, without Python.

What is compiled is the function that the application wrote for one packet, in a loop over the burst that keeps its
exceptions. Importing numba takes half a second and compiling more, so it happens before a worker attaches, or in
another process (compiler.py); numba's cache, in the instance's runtime directory, has what was compiled before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from halo_mp.app.fields import record_dtype
from halo_mp.app.registry import HookSpec
from halo_mp.shm.layout import LAYOUT_VERSION, ffi, lib
from halo_mp.workers.fingerprint import Fingerprint, Unknown

CACHE_DIRECTORY = "numba"
"""In the runtime directory."""

_POOL_OCTETS = 1 << 32  # more than any pool has: views of frames are cut out of it
_TOP = """
def hook(packets, count, pool):
    records = carray(packets, (count,))
    frames = carray(pool, (POOL_OCTETS,))
    for index in range(count):
        record = records[index]
"""
_PORTS = """
        protocol = record.ipv4.protocol
        record.tcp.sport = record._src_port if protocol == 6 else 0
        record.tcp.dport = record._dst_port if protocol == 6 else 0
        record.udp.sport = record._src_port if protocol == 17 else 0
        record.udp.dport = record._dst_port if protocol == 17 else 0
"""
_ICMP = """
        end = record.l3_offset + record.ipv4.length
        if record.ipv4.protocol == 1 and record.ipv4.fragment & 0x1FFF == 0 and end >= record.l4_offset + 2:
            record.icmp.type = frames[record.offset + record.l4_offset]
            record.icmp.code = frames[record.offset + record.l4_offset + 1]
"""
_CALL = """
        try:
            record.verdict = as_verdict(function({arguments}))
        except Exception:
            record.verdict = ERROR
"""
_TAKE_PORTS = """
        if protocol == 6:
            record._src_port = record.tcp.sport
            record._dst_port = record.tcp.dport
        elif protocol == 17:
            record._src_port = record.udp.sport
            record._dst_port = record.udp.dport
"""
_END = """
    return 0
"""
_ARGUMENTS = {False: "record", True: "record, frames[record.offset : record.offset + record.length]"}

_kept: list[Any] = []  # machine code lives as long as these
_compiling = threading.Lock()  # numba's settings are the process's, and say where the cache of a hook is


class NotCompiled(Exception):  # noqa: N818
    """It stays interpreted; the text is a sentence that says why."""


def compile_hook(spec: HookSpec, cache: Path | None, *, cached_only: bool = False) -> int:
    """Return the address of a hook's machine code, compiled or from the cache. Raises NotCompiled.

    `cached_only`: do not compile, which would hold up this process.
    """
    try:
        import numba
    except ModuleNotFoundError as error:
        raise NotCompiled(f"{error}; type: pip install 'halo-mp[jit]'") from None
    directory, names = _place(spec, cache, numba.__version__)
    if cached_only and (directory is None or not any(directory.rglob("*.nbc"))):
        raise NotCompiled("what another process has compiled is not in the cache")
    make = _maker(numba, spec, names)
    try:
        with _compiling:
            compiled = _compile(numba, make, directory)
    except Exception as error:
        raise NotCompiled(_sentence(error)) from None
    _kept.append(compiled)
    return int(compiled.address)


def _compile(numba: Any, make: Callable[..., Any], directory: Path | None) -> Any:
    try:
        vars(numba.config)["CACHE_DIR"] = str(directory or "")
        return make(cache=directory is not None)
    except (RuntimeError, OSError):
        if directory is None:
            raise
        return make(cache=False)  # the cache can not be written


def _place(spec: HookSpec, cache: Path | None, version: str) -> tuple[Path | None, set[str] | None]:
    """Return the cache of a function, None where it can have none, and the names in it, None: not known."""
    try:
        fingerprint = Fingerprint(spec.function)
    except (Unknown, ValueError):  # ValueError: a cell that is empty
        return None, None
    if cache is None:
        return None, fingerprint.names
    name = f"{version}-{LAYOUT_VERSION}-{int(spec.octets)}-{fingerprint.text}"
    return cache / name, fingerprint.names


def _maker(numba: Any, spec: HookSpec, names: set[str] | None) -> Callable[..., Any]:
    """Return what compiles a hook."""
    record = numba.from_dtype(_wrapper_dtype())
    types = numba.types
    signature = types.int64(types.CPointer(record), types.int64, types.CPointer(types.uint8))
    namespace = {
        "__name__": __name__,
        "ERROR": lib.HALO_VERDICT_ERROR,
        "POOL_OCTETS": _POOL_OCTETS,
        "as_verdict": _make_as_verdict(numba),
        "carray": numba.carray,
        "function": numba.njit(boundscheck=True)(getattr(spec.function, "py_func", spec.function)),
    }
    # numba's cache wants a file behind each function, and this one is what the text is in
    exec(compile(_source(spec, names), __file__, "exec"), namespace)

    def make(*, cache: bool) -> Any:
        return numba.cfunc(signature, cache=cache)(namespace["hook"])

    return make


def _source(spec: HookSpec, names: set[str] | None) -> str:
    """Return the loop around the function, without what it does not look at."""
    ports = names is None or bool(names & {"tcp", "udp"})
    icmp = names is None or "icmp" in names
    call = _CALL.format(arguments=_ARGUMENTS[spec.octets])
    parts = [_TOP, _PORTS if ports else "", _ICMP if icmp else "", call, _TAKE_PORTS if ports else "", _END]
    return "".join(part.removeprefix("\n") for part in parts)


def _wrapper_dtype() -> Any:
    """Return a packet's dtype with what the loop itself needs."""
    import numpy as np

    dtype = record_dtype()
    fields: dict[str, Any] = dict(dtype.fields or {})
    more = {"_src_port": "src_port", "_dst_port": "dst_port"}
    return np.dtype(
        {
            "names": [*fields, *more],
            "formats": [*(entry[0] for entry in fields.values()), *("<u2" for _ in more)],
            "offsets": [
                *(entry[1] for entry in fields.values()),
                *(ffi.offsetof("struct halo_packet", field) for field in more.values()),
            ],
            "itemsize": dtype.itemsize,
        }
    )


def _make_as_verdict(numba: Any) -> Any:
    """Return a function that makes a number of whatever a hook returns: nothing, a Verdict, a number."""
    types = numba.types

    @numba.extending.intrinsic  # type: ignore[untyped-decorator]
    def unwrap(_: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return context.cast(builder, arguments[0], value, value.type)

        return value.type(value), emit

    def as_verdict(value: Any) -> Any:
        raise NotImplementedError

    @numba.extending.overload(as_verdict, strict=False)  # type: ignore[untyped-decorator]
    def _(value: Any) -> Any:
        if isinstance(value, types.NoneType):
            return lambda value: 0
        if isinstance(value, types.Optional):
            return lambda value: 0 if value is None else as_verdict(unwrap(value))
        if isinstance(value, types.IntEnumMember):
            return lambda value: value.value
        return (lambda value: value) if isinstance(value, types.Integer | types.IntegerLiteral) else None

    return as_verdict


def _sentence(error: Exception) -> str:
    """Return what a compiler says, without the many lines about how it came to that."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [
        line for line in lines if not line.startswith(("Failed in", "During", "File", "There are", "- Of"))
    ]
    where = [line for line in lines if line.startswith("File")]
    return " ".join([*told[:3], *where[:1]])[:500] or type(error).__name__
