# SPDX-License-Identifier: Apache-2.0
"""The two cffi modules; everything else about the package is in setup.cfg."""

import os
import subprocess

from setuptools import setup

cffi_modules = ["native/build_native.py:ffi"]

pkg_config = os.environ.get("PKG_CONFIG", "/usr/bin/pkg-config")
try:
    has_dpdk = subprocess.run([pkg_config, "--exists", "libdpdk"], check=False).returncode == 0
except FileNotFoundError:
    has_dpdk = False
if has_dpdk:
    cffi_modules.append("native/build_driver.py:ffi")
else:
    print("halo-mp: pkg-config knows no libdpdk, so halo_mp._driver is not built (on Debian: libdpdk-dev)")

setup(cffi_modules=cffi_modules)
