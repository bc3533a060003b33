# SPDX-License-Identifier: Apache-2.0
"""Have an instance that runs ping a host, or find the routers on the way to it.

python examples/ping.py 10.77.0.2 --count 3 --interval 0.2
python examples/ping.py 192.0.2.1 --trace
python examples/ping.py 192.0.2.1 --size 1472 --df
"""

from __future__ import annotations

import argparse
import sys

from halo_mp.control.client import Client, ControlError
from halo_mp.control.public import PingInfo

REASONS = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 4): "too big",
    (3, 13): "prohibited",
    (11, 0): "time to live exceeded",
}


def parse_arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("--name", default="default", help="of the instance (default: %(default)s)")
    parser.add_argument("--count", type=int, default=4, help="of requests (default: %(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="in seconds (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=1.0, help="in seconds (default: %(default)s)")
    parser.add_argument("--size", type=int, default=56, help="of the data (default: %(default)s)")
    parser.add_argument("--df", action="store_true", help="do not fragment")
    parser.add_argument("--source", help="an address of the instance")
    parser.add_argument("--trace", action="store_true", help="name the routers on the way")
    parser.add_argument("--hops", type=int, default=30, help="of a trace, at most (default: %(default)s)")
    return parser.parse_args()


def text(outcome: PingInfo) -> str:
    """Return an outcome in words."""
    if outcome.outcome == "timeout":
        return "*"
    time = f"{outcome.rtt_ns / 1e6:.3f} ms"
    if outcome.outcome == "reply":
        return f"{outcome.src} ttl {outcome.ttl} {time}"
    reason = REASONS.get((outcome.type, outcome.code), f"ICMP {outcome.type}/{outcome.code}")
    mtu = f", at most {outcome.mtu} octets" if outcome.mtu else ""
    return f"{outcome.src or 'here'}: {reason}{mtu} {time}"


def trace(client: Client, options: argparse.Namespace) -> bool:
    """Print a line for each hop. Tells whether the host was reached. Raises ControlError."""
    for ttl in range(1, options.hops + 1):
        [found] = client.ping(
            options.address, count=1, timeout_s=options.timeout, ttl=ttl, source=options.source
        )
        print(f"{ttl:2} {text(found)}", flush=True)
        if found.outcome == "reply" or (found.outcome == "error" and found.type != 11):
            return found.outcome == "reply"
    return False


def main() -> int:
    """Return 0 when there was a reply, 1 when not, or when it could not be asked."""
    options = parse_arguments()
    try:
        with Client(options.name) as client:
            if options.trace:
                return 0 if trace(client, options) else 1
            found = client.ping(
                options.address,
                count=options.count,
                interval_s=options.interval,
                timeout_s=options.timeout,
                size=options.size,
                df=options.df,
                source=options.source,
            )
    except ControlError as error:
        print(f"ping: {error}", file=sys.stderr)
        return 1
    for number, outcome in enumerate(found):
        print(f"{number} {text(outcome)}")
    return 0 if any(outcome.outcome == "reply" for outcome in found) else 1


if __name__ == "__main__":
    sys.exit(main())
