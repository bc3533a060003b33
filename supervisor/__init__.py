# SPDX-License-Identifier: Apache-2.0
"""The supervisor: the process tree, the host of the driver, configuration, control."""
