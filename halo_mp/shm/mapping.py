# SPDX-License-Identifier: Apache-2.0
"""Mapping a file descriptor without keeping it.

The mmap module of Python 3.11 and 3.12 keeps a duplicate of the descriptor for the mapping's life; a worker
that has given up root shall hold none. So this calls libc. An address that was unmapped must not be used
again: whoever calls `unmap` has let go of every pointer into it.
"""

from __future__ import annotations

import ctypes
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.restype = ctypes.c_int
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_libc.madvise.restype = ctypes.c_int
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_FAILED = ctypes.c_void_p(-1).value


def map_shared(fd: int, size_octets: int, *, writable: bool) -> int:
    """Map the first `size_octets` of a descriptor, shared; return the address. Raises OSError."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    address = _libc.mmap(None, size_octets, protection, mmap.MAP_SHARED, fd, 0)
    if address is None or address == _FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(address)


def keep_from_children(address: int, size_octets: int) -> None:
    """Let no child of this process that is forked have the mapping. Raises OSError."""
    if _libc.madvise(address, size_octets, mmap.MADV_DONTFORK) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def unmap(address: int, size_octets: int) -> None:
    """Undo `map_shared`. Raises OSError."""
    if _libc.munmap(address, size_octets) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
