# SPDX-License-Identifier: Apache-2.0
"""What reads captures and traces of an instance: filters, files of packets, and the way of a packet in words."""
