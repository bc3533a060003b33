# SPDX-License-Identifier: Apache-2.0
"""What tests with real processes share: network namespaces, instances, and the proof that nothing is left."""
