# SPDX-License-Identifier: Apache-2.0
"""Each flag, in groups: its default, its unit, and in one sentence what it brings about.

Defaults are texts like everything else that the parser holds; `config.build` gives them their meaning.
"""

from __future__ import annotations

import argparse

import halo_mp


def add_ports(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group(
        "ports",
        "A port is a device: first those of --pci, then those of --vdev, counted from 0. When none is "
        "named, each port is a TAP interface of the kernel that this instance makes and removes again.",
    )
    group.add_argument(
        "--ports",
        metavar="LIST",
        help="which ports to run, such as 0,1 or 0-3; by default every device named, or port 0",
    )
    group.add_argument(
        "--pci",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="a NIC by its PCI address, such as 0000:03:00.0, bound to vfio-pci; needs hugepages; repeatable",
    )
    group.add_argument(
        "--vdev",
        metavar="DEVICE",
        action="append",
        default=[],
        help="a DPDK virtual device with its arguments, such as net_af_packet0,iface=eth1, "
        "net_tap0,iface=tap0 or net_null0; repeatable",
    )
    group.add_argument(
        "--queues",
        metavar="N",
        default="1",
        help="queues of each port, 1 to 64: flows are spread over them, and by default each has a worker of "
        "its own (default %(default)s)",
    )
    group.add_argument(
        "--spread",
        metavar="auto|hardware|software",
        default="auto",
        help="who spreads a port's flows over --queues: hardware is the device or the kernel behind it (RSS, "
        "fan-out) and is refused where that is missing; software is the driver, from one queue of the device, "
        "for any device; auto is hardware where it is there (default %(default)s)",
    )
    group.add_argument(
        "--slot",
        metavar="N=PORT[.QUEUE],...",
        action="append",
        default=[],
        help="worker N gets the frames of these port queues, of all queues where only the port is named; a "
        "queue feeds at most one slot, and one that feeds none is drained and counted; by default one slot "
        "for each port queue; repeatable",
    )


def add_addresses(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group(
        "interfaces",
        "An interface is a port, or a VLAN of one: 0 is port 0 without a tag, 0.100 its VLAN 100. Each port has one, "
        "and each VLAN that --address or --vlan names. --address, --mtu and the flags that name an interface may also "
        "be changed at run time, through the control socket.",
    )
    group.add_argument(
        "--address",
        metavar="PORT[.VLAN]=ADDRESS/LENGTH",
        action="append",
        default=[],
        help="an IPv4 address of an interface, such as 0=10.1.2.3/24 or 0.100=10.9.0.1/31; repeatable, the first of "
        "an interface is its primary one. A TAP made here that has none, on no VLAN either, gets 10.77.PORT.1/24, "
        "unless 0=none says that it has none, and the kernel's side of a TAP the first other address of each untagged "
        "network; a second instance in the same network namespace needs other networks. Other devices have none by "
        "default",
    )
    group.add_argument(
        "--vlan",
        metavar="PORT.VLAN",
        action="append",
        default=[],
        help="an interface on a VLAN without an address of its own, such as 0.100; repeatable",
    )
    group.add_argument(
        "--kernel",
        metavar="PORT[=ADDRESS]",
        action="append",
        default=[],
        help="share a port with the kernel: what is not for our addresses goes to a TAP, halokPORT or NAMEkPORT, and "
        "what the kernel sends by that leaves by the port, so that a machine's only NIC can be taken; with ADDRESS, "
        "one of the port's, just that one is ours; repeatable",
    )
    group.add_argument(
        "--mac",
        metavar="PORT=MAC",
        action="append",
        default=[],
        help="the MAC address that our stack uses on a port, such as 0=02:00:00:00:00:01; by default the "
        "device's, and on a TAP, where that one is the kernel's, a locally administered one; repeatable",
    )
    group.add_argument(
        "--mtu",
        metavar="[PORT[.VLAN]=]OCTETS",
        action="append",
        default=[],
        help="longest IP packet, 68 to 9600, of all interfaces or of one, by default 1500, and on a VLAN what its port "
        "has; above 2022 each buffer grows with it, and the pool too; net_tap and net_af_packet of DPDK 22.11 take at "
        "most 1504; repeatable",
    )
    group.add_argument(
        "--device-mtu",
        metavar="PORT=OCTETS",
        action="append",
        default=[],
        help="longest IP packet that a port's device is opened for, where its interfaces have less to begin with and "
        "may be given more at run time; by default what --mtu gives the port; repeatable",
    )
    group.add_argument(
        "--down",
        metavar="PORT[.VLAN]",
        action="append",
        default=[],
        help="an interface that neither receives nor sends until somebody sets it up at run time; repeatable",
    )
    group.add_argument(
        "--promiscuous",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="receive frames for other MAC addresses too, as bridging and --mac need; on by default",
    )
    group.add_argument(
        "--probe",
        action="store_true",
        help="probe each address before it is used (RFC 5227), which takes some seconds; by default it is announced",
    )
    group.add_argument(
        "--neighbor",
        metavar="PORT[.VLAN]=ADDRESS,MAC",
        action="append",
        default=[],
        help="a neighbor that is not asked for its MAC address, such as 0=10.1.2.9,02:00:00:00:00:09; repeatable",
    )


def add_routing(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group(
        "routing", "Packets that are for others are forwarded, by the longest prefix."
    )
    group.add_argument(
        "--route",
        metavar="PREFIX=HOP[,HOP...]",
        action="append",
        default=[],
        help="a route, such as 10.0.0.0/8=10.1.2.254 or default=10.1.2.254*2,10.9.0.0@0.100; a HOP is a gateway's "
        "address, with @PORT[.VLAN] where none of our networks has it, and *WEIGHT for its share of the flows, or "
        "blackhole (silence), unreachable or prohibit (with an ICMP error) alone; repeatable",
    )
    group.add_argument(
        "--routes-file",
        metavar="FILE",
        help="more routes, one in a line: PREFIX HOP [HOP...]; what stands behind # is a comment",
    )
    group.add_argument(
        "--no-forward",
        action="store_true",
        help="be a host: packets for others are dropped",
    )
    group.add_argument(
        "--no-forward-from",
        metavar="PORT[.VLAN]",
        action="append",
        default=[],
        help="be a host for who sends to us by this interface: what comes in there for others is dropped; repeatable",
    )
    group.add_argument(
        "--proxy-arp",
        metavar="PORT[.VLAN]",
        action="append",
        default=[],
        help="answer ARP requests on this interface for addresses that are routed out of another one; repeatable",
    )
    group.add_argument(
        "--directed-broadcast",
        metavar="PORT[.VLAN]",
        action="append",
        default=[],
        help="send packets for the broadcast address of this interface's networks out of it; repeatable",
    )
    group.add_argument(
        "--redirects",
        metavar="PORT[.VLAN]",
        action="append",
        default=[],
        help="tell hosts on this interface of a better first hop on it (ICMP redirect); repeatable",
    )
    group.add_argument(
        "--icmp-rate",
        metavar="N",
        default="1000",
        help="ICMP errors that each worker sends in a second at most, 0 for none (default %(default)s)",
    )
    group.add_argument(
        "--reachable-time",
        metavar="SECONDS",
        default="30",
        help="how long a neighbor that has answered counts as reachable, 1 to 3600, on the average (RFC 4861's "
        "ReachableTime): that a gateway of several has fallen silent is found out after half as long again and three "
        "seconds, at most (default %(default)s)",
    )
    group.add_argument(
        "--ecmp-seed",
        metavar="N",
        help="of the hash that chooses between the hops of a route, 0 to 4294967295; by default each instance has "
        "another one, so that routers in a row do not all choose alike",
    )


def add_cores(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group(
        "cores",
        "Out of the cores that this process may use, the driver takes the first and the workers share the "
        "others in turn. Too few cores are allowed: what shares one is said at start, and is slower.",
    )
    group.add_argument(
        "--cores",
        metavar="LIST",
        help="cores for the workers, in the order of the slots, such as 1-3 or 2,4; when there are more "
        "slots than cores it starts over",
    )
    group.add_argument(
        "--driver-cores",
        metavar="LIST",
        help="cores that forward between ports and workers, at most 32; the slots are dealt to them in turn",
    )
    group.add_argument(
        "--idle",
        metavar="poll|adaptive|sleep",
        default="adaptive",
        help="what to do when there is nothing to do: poll burns the core for the least delay, adaptive "
        "polls for a moment and then sleeps, sleep sleeps at once (default %(default)s)",
    )


def add_memory(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("memory")
    group.add_argument(
        "--ring-size",
        metavar="ENTRIES",
        default="16384",
        help="frames that wait for a worker before they are dropped, a power of two from 64 to 1048576; "
        "deep rings ride out Python's pauses and take more buffers (default %(default)s)",
    )
    group.add_argument(
        "--pool-size",
        metavar="BUFFERS",
        help="buffers for all frames of the instance, below 4 GiB in all; by default as many as full rings "
        "hold; of fewer, each slot gets its share",
    )
    group.add_argument(
        "--hugepages",
        metavar="off|auto|2M|1G",
        default="auto",
        help="pages for the pool and for DPDK: auto takes hugepages when enough are free, 2M and 1G insist "
        "on them, off does without, at a lower rate; devices of --pci need them (default %(default)s)",
    )
    group.add_argument(
        "--mem-channels",
        metavar="N",
        help="memory channels of the machine, 1 to 32, for DPDK to spread mbuf headers over; by default it "
        "guesses",
    )
    group.add_argument(
        "--eal",
        metavar="ARGUMENTS",
        action="append",
        default=[],
        help="more arguments for DPDK's EAL, in one word, such as '--log-level=pmd.net.tap:debug'; what "
        "halo-mp sets itself is refused with the flag to use instead; repeatable",
    )


def add_packets(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("packets")
    group.add_argument(
        "--rx-checksum",
        action="store_true",
        help="let the device verify checksums of what it receives, where it can; by default the stack does",
    )
    group.add_argument(
        "--tx-checksum",
        action="store_true",
        help="let the device fill in checksums of what is sent, where it can; by default the stack does",
    )
    group.add_argument(
        "--tx-only",
        action="store_true",
        help="receive nothing: a traffic generator then has the driver's cores for itself",
    )
    group.add_argument(
        "--macswap",
        metavar="IN=OUT",
        action="append",
        default=[],
        help="measure: frames of port IN leave by port OUT with MAC addresses swapped and TTL one lower, as"
        " dpdk-testpmd's macswap does, and reach no stack; repeatable",
    )


def add_application(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("application", "Your Python in the workers; docs/embedding.md says how.")
    group.add_argument(
        "--app",
        metavar="MODULE[:NAME]|FILE.py[:NAME]",
        help="the application that every worker imports and runs: a module or a file, and the variable of it that "
        "holds the App, by default app; imported when privileges are given up",
    )
    group.add_argument(
        "--app-dir",
        metavar="DIR",
        help="where modules of the application are looked for first; by default the current directory",
    )
    group.add_argument(
        "--app-debug",
        action="store_true",
        help="notice views of packets that outlive their burst, and say whose they are; slow",
    )


def add_supervision(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("supervision")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="take what stands in this TOML file for flags, as docs/configuration.md has them; a flag that is given "
        "too counts in place of all that the file says for it",
    )
    group.add_argument(
        "--name",
        metavar="NAME",
        default="default",
        help="of the instance, at most 12 of A-Z a-z 0-9 _ . -; several can run side by side under "
        "different names, and TAP interfaces are called halo0 in the default one, NAME.0 in others (default"
        " %(default)s)",
    )
    group.add_argument(
        "--restart-limit",
        metavar="COUNT/SECONDS",
        default="5/10",
        help="a worker that dies more often than that counts as failed, and is tried again after 1, 2, 4 up"
        " to 30 seconds; the others run on (default %(default)s)",
    )
    group.add_argument(
        "--spare",
        metavar="auto|COUNT",
        default="auto",
        help="how many workers to keep ready beside the ones that run, to take the place of one that dies within"
        " milliseconds; each has some 15 MB. auto is one, while the machine has memory to spare (default "
        "%(default)s)",
    )
    group.add_argument(
        "--hang-timeout",
        metavar="SECONDS",
        default="10",
        help="how long a worker's Python may hold up its port before it is killed and started again, 1 or "
        "more (default %(default)s)",
    )
    group.add_argument(
        "--orphan-timeout",
        metavar="SECONDS",
        default="60",
        help="how long driver and workers go on forwarding after the supervisor has died, for the next of its name"
        " to take them over; 0 ends them with it (default %(default)s)",
    )
    group.add_argument(
        "--no-adopt",
        action="store_true",
        help="end what a dead supervisor of this name left running, and start anew, instead of taking it over",
    )


def add_privileges(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("privileges")
    group.add_argument(
        "--control-group",
        metavar="GROUP",
        help="whose members may use the control socket, as root and our own user may, by name or number; by default "
        "the first group of --user, or our own",
    )
    group.add_argument(
        "--user",
        metavar="USER",
        help="whom the workers run as once they are set up, by name or number. By default, when root starts"
        " this, nobody; where nobody could not read Python's files, or the kernel forbids the change, the "
        "workers only give up all capabilities. A user named here works or nothing starts; root keeps every"
        " privilege",
    )


def add_logs(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("logs", "One line for each event, on stderr.")
    group.add_argument(
        "--stats-log",
        metavar="SECONDS",
        nargs="?",
        const="1",
        help="log rates and drops of each port, every second or every so many",
    )
    group.add_argument(
        "--debug-log",
        action="store_true",
        help="log each frame in hexadecimal: a few thousand a second at most",
    )
    group.add_argument(
        "--log-level",
        metavar="debug|info|warning|error",
        default="info",
        help="the least important event that is logged (default %(default)s)",
    )
    group.add_argument(
        "--log-format",
        metavar="text|json",
        default="text",
        help="text for people, json for programs (default %(default)s)",
    )


def add_about(known: argparse.ArgumentParser) -> None:
    group = known.add_argument_group("about")
    group.add_argument("-h", "--help", action="help", help="print this and exit")
    group.add_argument(
        "--version",
        action="version",
        version=f"halo-mp {halo_mp.__version__}",
        help="print the version and exit",
    )


GROUPS = (
    add_ports,
    add_addresses,
    add_routing,
    add_cores,
    add_memory,
    add_packets,
    add_application,
    add_supervision,
    add_privileges,
    add_logs,
    add_about,
)
