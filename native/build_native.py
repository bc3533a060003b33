# SPDX-License-Identifier: Apache-2.0
"""Build script of halo_mp._native: layout, rings, fast path, KCP, memory reserve. Links nothing but libc."""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cdef

SOURCES = sorted(
    str(path.relative_to(cdef.NATIVE.parent))
    for folder in ("fastpath", "fib", "kcp", "python")
    for path in (cdef.NATIVE / folder).glob("*.c")
)

ffi = FFI()
ffi.cdef(
    cdef.declarations(
        "packet_def.h",
        "fastpath_def.h",
        "chain_def.h",
        "view_def.h",
        "raw_def.h",
        "fib_def.h",
        "socket_def.h",
        "capture_def.h",
        "kcp_def.h",
        "kcp_batch_def.h",
        "kcp_parked_def.h",
        "kcp_fec_def.h",
        "reserve_def.h",
    )
)
ffi.cdef('extern "Python+C" void halo_reserve_used(void);')
# Inline functions of halo/flow.h.
ffi.cdef(
    """
    uint32_t halo_spread_hash(const uint8_t *frame, uint32_t length);
    uint32_t halo_flow_hash(uint32_t seed, uint32_t src, uint32_t dst, uint8_t protocol, uint16_t src_port,
                            uint16_t dst_port);
    uint32_t halo_flow_share(uint32_t hash, uint32_t count);
    """
)
ffi.set_source(
    "halo_mp._native",
    "#include <halo/layout.h>\n#include <halo/fastpath.h>\n#include <halo/fib_def.h>\n#include <halo/flow.h>\n"
    "#include <halo/kcp.h>\n#include <halo/kcp_batch_def.h>\n#include <halo/kcp_parked_def.h>\n"
    "#include <halo/kcp_fec_def.h>\n#include <halo/reserve.h>\n",
    sources=SOURCES,
    include_dirs=["native/include", "native/fastpath", "native/fib", "native/kcp"],
    extra_compile_args=cdef.WARNINGS,
    depends=sorted(str(path.relative_to(cdef.NATIVE.parent)) for path in cdef.NATIVE.glob("**/*.h")),
)

if __name__ == "__main__":
    ffi.compile(tmpdir=str(cdef.NATIVE.parent), verbose=True)
