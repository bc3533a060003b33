# SPDX-License-Identifier: Apache-2.0
"""Build script of halo_mp._driver: the only part that links DPDK, found through pkg-config."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cdef


def pkg_config(option: str) -> list[str]:
    """Return what pkg-config says of libdpdk for --cflags or --libs."""
    output = subprocess.run(
        ["pkg-config", option, "libdpdk"], check=True, capture_output=True, text=True
    ).stdout
    return shlex.split(output)


# DPDK's own headers are not ours to warn about.
DPDK_CFLAGS = [
    flag.replace("-I", "-isystem", 1) if flag.startswith("-I") else flag for flag in pkg_config("--cflags")
]
SOURCES = sorted(str(path.relative_to(cdef.NATIVE.parent)) for path in (cdef.NATIVE / "driver").glob("*.c"))

ffi = FFI()
ffi.cdef(cdef.declarations("driver_def.h"))
ffi.set_source(
    "halo_mp._driver",
    "#include <halo/layout.h>\n#include <halo/driver.h>\n",
    sources=SOURCES,
    include_dirs=["native/include", "native/driver"],
    extra_compile_args=[*DPDK_CFLAGS, "-DALLOW_EXPERIMENTAL_API", *cdef.WARNINGS],
    extra_link_args=pkg_config("--libs"),
    depends=sorted(str(path.relative_to(cdef.NATIVE.parent)) for path in cdef.NATIVE.glob("**/*.h")),
)

if __name__ == "__main__":
    ffi.compile(tmpdir=str(cdef.NATIVE.parent), verbose=True)
