# SPDX-License-Identifier: Apache-2.0
"""Filter expressions, `udp port 53`, compiled by libpcap to the steps that workers run.

libpcap is loaded when the first expression is compiled: a capture of everything needs none of it. Its language is
described in pcap-filter(7).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cffi import FFI

from halo_mp.errors import HaloError

STEP_OCTETS = 8
LIBRARY = "libpcap.so.0.8"
_DLT_EN10MB = 1
_SNAP_OCTETS = 262144
_NETMASK_UNKNOWN = 0xFFFFFFFF

_DECLARATIONS = """
    typedef struct pcap pcap_t;
    struct bpf_program { unsigned int bf_len; void *bf_insns; };
    pcap_t *pcap_open_dead(int linktype, int snaplen);
    void pcap_close(pcap_t *p);
    int pcap_compile(pcap_t *p, struct bpf_program *fp, const char *str, int optimize, unsigned int netmask);
    void pcap_freecode(struct bpf_program *fp);
    char *pcap_geterr(pcap_t *p);
"""


class FilterError(HaloError):
    """An expression can not be compiled; `str()` says why."""

    exit_code = 2


@cache
def _library() -> tuple[Any, Any]:
    ffi = FFI()
    ffi.cdef(_DECLARATIONS)
    try:
        return ffi, ffi.dlopen(LIBRARY)
    except OSError:
        raise FilterError(
            f"a filter needs {LIBRARY}, which is not there; install it (apt-get install libpcap0.8), "
            "or capture without a filter."
        ) from None


def compile_filter(expression: str) -> bytes:
    """Return the steps of an expression, 8 octets each as in `struct halo_filter_step`; none for an empty one.

    Raises FilterError with what libpcap says.
    """
    if not expression.strip():
        return b""
    ffi, pcap = _library()
    handle = pcap.pcap_open_dead(_DLT_EN10MB, _SNAP_OCTETS)
    program = ffi.new("struct bpf_program *")
    try:
        if pcap.pcap_compile(handle, program, expression.encode(), 1, _NETMASK_UNKNOWN) != 0:
            reason = ffi.string(pcap.pcap_geterr(handle)).decode(errors="replace")
            raise FilterError(
                f"the filter {expression!r} makes no sense: {reason}. pcap-filter(7) has the language."
            )
        steps = bytes(ffi.buffer(program.bf_insns, program.bf_len * STEP_OCTETS))
        pcap.pcap_freecode(program)
    finally:
        pcap.pcap_close(handle)
    return steps
