# SPDX-License-Identifier: Apache-2.0
"""The reference: the C inside PyPI's `kcp`, called past its wrapper: its clock and settings are ours."""

from __future__ import annotations

import importlib.util
from typing import Any

from cffi import FFI

from halo_mp.kcp.core import default_settings

_DECLARATIONS = """
typedef struct IKCPCB {
    uint32_t conv, mtu, mss, state;
    uint32_t snd_una, snd_nxt, rcv_nxt;
    uint32_t ts_recent, ts_lastack, ssthresh;
    int32_t rx_rttval, rx_srtt, rx_rto, rx_minrto;
    uint32_t snd_wnd, rcv_wnd, rmt_wnd, cwnd, probe;
    uint32_t current, interval, ts_flush, xmit;
    uint32_t nrcv_buf, nsnd_buf;
    uint32_t nrcv_que, nsnd_que;
    uint32_t nodelay, updated;
    uint32_t ts_probe, probe_wait;
    uint32_t dead_link, incr;
    void *snd_queue[2], *rcv_queue[2], *snd_buf[2], *rcv_buf[2];
    uint32_t *acklist;
    uint32_t ackcount;
    uint32_t ackblock;
    void *user;
    char *buffer;
    int fastresend;
    int fastlimit;
    int nocwnd, stream;
    int logmask;
    int (*output)(const char *buf, int len, struct IKCPCB *kcp, void *user);
    void *writelog;
} ikcpcb;
ikcpcb *ikcp_create(uint32_t conv, void *user);
void ikcp_release(ikcpcb *kcp);
void ikcp_setoutput(ikcpcb *kcp, int (*output)(const char *, int, ikcpcb *, void *));
int ikcp_recv(ikcpcb *kcp, char *buffer, int len);
int ikcp_send(ikcpcb *kcp, const char *buffer, int len);
void ikcp_update(ikcpcb *kcp, uint32_t current);
int ikcp_input(ikcpcb *kcp, const char *data, long size);
int ikcp_waitsnd(const ikcpcb *kcp);
int ikcp_peeksize(const ikcpcb *kcp);
int ikcp_setmtu(ikcpcb *kcp, int mtu);
int ikcp_wndsize(ikcpcb *kcp, int sndwnd, int rcvwnd);
int ikcp_nodelay(ikcpcb *kcp, int nodelay, int interval, int resend, int nc);
"""

ffi = FFI()
ffi.cdef(_DECLARATIONS)


def library() -> str:
    """The shared object that holds it. Raises ModuleNotFoundError without the package."""
    spec = importlib.util.find_spec("kcp.extension")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("PyPI's kcp is not installed; `make tools` installs it")
    return spec.origin


class Fields:
    """Settings by name, over the reference's own; what a session of ours takes."""

    def __init__(self, **fields: int) -> None:
        self.fields = fields

    def emit(self, pointer: Any) -> None:
        """Write them to a `struct halo_kcp_settings`."""
        for name, value in self.fields.items():
            setattr(pointer, name, value)

    def struct(self) -> Any:
        """A `struct halo_kcp_settings` of their own."""
        pointer = default_settings()
        self.emit(pointer)
        return pointer


class Reference:
    """A session of the reference, with the methods of halo_mp.kcp.core.Session that tests compare.

    `settings` is a `struct halo_kcp_settings`, whose classic part it takes.
    """

    def __init__(self, settings: Any, conv: int) -> None:
        self._lib = ffi.dlopen(library())
        kcp = self._lib.ikcp_create(conv, ffi.NULL)
        self.kcp = ffi.gc(kcp, self._lib.ikcp_release)
        self._out: list[bytes] = []
        self._callback = ffi.callback("int(const char *, int, ikcpcb *, void *)", self._emit)
        self._lib.ikcp_setoutput(kcp, self._callback)
        self._lib.ikcp_setmtu(kcp, settings.mtu)
        self._lib.ikcp_wndsize(kcp, settings.send_window, settings.receive_window)
        self._lib.ikcp_nodelay(
            kcp, settings.nodelay, settings.interval_ms, settings.resend, settings.congestion == 0
        )
        # nodelay() keeps the interval at 10 or more.
        kcp.interval = settings.interval_ms
        kcp.fastlimit = settings.fast_limit
        kcp.dead_link = settings.dead_link
        kcp.stream = settings.stream

    def _emit(self, octets: Any, length: int, _kcp: Any, _user: Any) -> int:
        self._out.append(bytes(ffi.buffer(octets, length)))
        return 0

    def send(self, octets: bytes) -> int:
        """Return 0, or the reference's error."""
        return self._lib.ikcp_send(self.kcp, octets, len(octets))

    def peek(self) -> int | None:
        """Octets of the next message; None: there is none."""
        size = self._lib.ikcp_peeksize(self.kcp)
        return None if size < 0 else size

    def receive(self) -> bytes | None:
        """The next message; None: there is none."""
        size = self.peek()
        if size is None:
            return None
        buffer = ffi.new("char[]", max(size, 1))
        length = self._lib.ikcp_recv(self.kcp, buffer, size)
        assert length == size
        return bytes(ffi.buffer(buffer, size))

    def input(self, octets: bytes, now_ms: int) -> int:
        """Take in one datagram at that time, which its clock would otherwise learn at the next update."""
        self.kcp.current = now_ms & 0xFFFFFFFF
        return self._lib.ikcp_input(self.kcp, octets, len(octets))

    def poll(self, now_ms: int) -> list[bytes]:
        """Return what an update at that time sends."""
        self._lib.ikcp_update(self.kcp, now_ms & 0xFFFFFFFF)
        out, self._out = self._out, []
        return out

    def wrap_soon(self, send_next: int, receive_next: int) -> None:
        """Begin at other sequence numbers; for a session that was not used yet."""
        self.kcp.snd_una = self.kcp.snd_nxt = send_next
        self.kcp.rcv_nxt = receive_next

    def state(self) -> dict[str, int]:
        """What tests compare, by our names."""
        kcp = self.kcp
        return {
            "srtt_ms": kcp.rx_srtt,
            "rttvar_ms": kcp.rx_rttval,
            "rto_ms": kcp.rx_rto,
            "remote_window": kcp.rmt_wnd,
            "queued": kcp.nsnd_que,
            "in_flight": kcp.nsnd_buf,
            "unread": kcp.nrcv_que,
            "held": kcp.nrcv_buf,
            "send_next": kcp.snd_nxt,
            "send_una": kcp.snd_una,
            "receive_next": kcp.rcv_nxt,
        }
