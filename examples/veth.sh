#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A port on an interface that already exists, instead of a TAP of its own: a veth pair, one end for halo-mp through
# net_af_packet, the other for the kernel, which pings through it. An interface of the machine is used the same way.
#
# Usage: examples/veth.sh [--help]
# Needs root, or a network namespace of one's own: tools/enter-namespace examples/veth.sh
set -euo pipefail

if [ $# -gt 0 ]; then
	sed -n '3,/^set/s/^# \{0,1\}//p' "$0"
	[ "$1" = --help ]
	exit
fi

cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
ours=hv-ours kernel=hv-kernel
output=$(mktemp)

finish() {
	[ -z "${instance:-}" ] || { kill -INT "$instance" && wait "$instance"; } || true
	ip link delete "$kernel" 2>/dev/null || true
	rm -f "$output"
}
trap finish EXIT

ip link add "$ours" type veth peer name "$kernel"
for end in "$ours" "$kernel"; do
	# The kernel leaves checksums and segmentation to the device, and a veth does neither.
	ethtool -K "$end" tx off tso off gso off gro off >/dev/null
	ip link set "$end" up
done
# Only the kernel's end has an address of the kernel's: on ours, two stacks would answer.
ip address add 10.88.0.2/24 dev "$kernel"

"$python" -m halo_mp.supervisor --name "veth-$$" --log-level warning \
	--vdev "net_af_packet0,iface=$ours" --address 0=10.88.0.1/24 >"$output" &
instance=$!
until grep -q 'is up' "$output"; do
	kill -0 "$instance" # it has said why not, if it has ended
	sleep 0.1
done

cat "$output"
ping -n -c 3 -i 0.2 10.88.0.1
"$python" examples/counters.py "veth-$$"
