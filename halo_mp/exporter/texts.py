# SPDX-License-Identifier: Apache-2.0
"""A sentence for each metric. What the layout counts besides says for itself which field it is."""

from __future__ import annotations

_TEXTS = {
    "up": "Whether the instance runs and could be read.",
    "well": "Whether every process and port does its work, and a supervisor watches over them.",
    "instance": "The instance.",
    "port": "A port: its device, driver and MAC address.",
    "start_time_seconds": "When the supervisor started, since 1970.",
    "exporter_read_seconds": "What reading all of it took.",
    "pool_free_buffers": "Buffers that nobody has.",
    "pool_withheld_buffers": "Buffers that the driver found in hands of workers when it started.",
    "process_up": "Whether the process is there.",
    "process_restarts": "Times that it was started again.",
    "process_cpu_seconds": "Processor time, user and system.",
    "process_resident_memory_bytes": "Memory that is in RAM, shared memory included.",
    "process_threads": "Threads; lcores are threads of the driver.",
    "process_open_fds": "Open file descriptors.",
    "process_context_switches": "Context switches, wanted (voluntary) and not.",
    "process_page_faults": "Page faults, without (minor) and with reading from a disk.",
    "port_up": "Whether the port is started.",
    "port_link_up": "Whether its link is up.",
    "port_speed_bytes": "Speed of the link, per second.",
    "port_mtu_bytes": "MTU.",
    "port_rx_frames": "Frames that came in, as the device's driver counts.",
    "port_tx_frames": "Frames that went out, likewise.",
    "port_rx_bytes": "Octets of frames that came in.",
    "port_tx_bytes": "Octets of frames that went out.",
    "port_rx_missed": "Frames that the device had no descriptor for.",
    "port_rx_errors": "Frames that came in broken.",
    "port_tx_errors": "Frames that could not be sent.",
    "port_rx_no_mbuf": "Times that no buffer was there to receive into.",
    "port_xstat": "What the device's driver counts besides, by its own name, if it is not 0.",
    "port_losses": "Times that the device went away.",
    "port_returns": "Times that it was opened again.",
    "port_link_changes": "Times that the link went up or down.",
    "interface_up": "Whether the interface is up.",
    "drops": "Packets that ended on the way, by reason; docs/shared-memory.md has a sentence for each.",
    "ring_descriptors": "Descriptors that wait on a ring of the worker's slot.",
    "ring_rx_size": "Most that the rx ring can hold.",
    "ring_rx_depth_max": "Most frames that ever waited on the rx ring when a burst was taken from it.",
    "worker_burst_frames": "Frames of the bursts that the worker took from its rx ring.",
    "worker_lag_seconds": "How long Python kept the worker from its rings, each time.",
    "worker_lag_max_seconds": "The longest of these times.",
    "worker_timed_frames": "Frames of the bursts that were timed, one in 64.",
    "worker_stage_cycles": "Cycles of the time stamp counter that a stage took for the timed frames.",
    "hook_active": "Whether the hook is asked; 0 when it failed too often, or was removed.",
    "hook_calls": "Bursts that the hook was shown.",
    "hook_packets": "Packets that the hook was shown.",
    "hook_dropped": "Packets that the hook dropped.",
    "hook_rewritten": "Packets that the hook changed.",
    "hook_errors": "Exceptions of the hook.",
    "hook_busy_seconds": "Time that the hook took.",
}

_SIDES = {
    "worker": "Counted by the worker",
    "driver": "Counted by the driver for a worker's slot",
    "lcore": "Counted by a forwarding lcore of the driver",
    "interface": "IPv4 and ARP packets and octets of their frames, at all workers",
    "port_queue": "Counted by the device's driver for a queue",
}


def help_of(name: str) -> str:
    """Return the sentence for a metric, by its name without prefix and `_total`."""
    if text := _TEXTS.get(name):
        return text
    side = next(side for side in ("port_queue", *_SIDES) if name.startswith(f"{side}_"))
    return f"{_SIDES[side]}: {name.removeprefix(f'{side}_')} of docs/shared-memory.md."
