# SPDX-License-Identifier: Apache-2.0
"""The command line, `halo-mp`. Each command is a module of its own, imported when it is typed and not before."""
