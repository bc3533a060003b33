# SPDX-License-Identifier: Apache-2.0
"""Build script of halo_mp._native: layout, rings, fast path. Links nothing but libc."""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cdef

SOURCES = sorted(
    str(path.relative_to(cdef.NATIVE.parent))
    for folder in ("fastpath", "fib")
    for path in (cdef.NATIVE / folder).glob("*.c")
)

ffi = FFI()
ffi.cdef(cdef.declarations("packet_def.h", "fastpath_def.h", "fib_def.h"))
ffi.set_source(
    "halo_mp._native",
    "#include <halo/layout.h>\n#include <halo/fastpath.h>\n#include <halo/fib_def.h>\n",
    sources=SOURCES,
    include_dirs=["native/include", "native/fastpath", "native/fib"],
    extra_compile_args=cdef.WARNINGS,
    depends=sorted(str(path.relative_to(cdef.NATIVE.parent)) for path in cdef.NATIVE.glob("**/*.h")),
)

if __name__ == "__main__":
    ffi.compile(tmpdir=str(cdef.NATIVE.parent), verbose=True)
