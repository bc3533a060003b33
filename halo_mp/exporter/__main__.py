# SPDX-License-Identifier: Apache-2.0
"""Serve what an instance counts to Prometheus, at http://ADDRESS/metrics.

It is read from shared memory whenever Prometheus asks, so nothing is disturbed,
and this has to run as the user that started the instance, or as root. An
instance that does not run is halo_mp_up 0: start and stop them as you like.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence

from halo_mp.errors import EXIT_STOPPED, EnvironmentProblem, HaloError
from halo_mp.listen import in_url, listen_address

LISTEN = "127.0.0.1:9464"


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, or print once; return the exit code."""
    options = _parse(argv)
    try:
        return _run(options)
    except HaloError as error:
        sys.stderr.write(f"exporter: {error}\n")
        return error.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m halo_mp.exporter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="an instance; may be repeated (default: default)"
    )
    parser.add_argument(
        "--listen", default=LISTEN, metavar="ADDRESS:PORT", help="where to serve (default: %(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="print what Prometheus would get, and end")
    parser.add_argument("--grafana", action="store_true", help="print a dashboard for Grafana, and end")
    return parser.parse_args(argv)


def _run(options: argparse.Namespace) -> int:
    if options.grafana:
        from halo_mp.exporter.grafana import dashboard

        sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
        return EXIT_STOPPED
    host, port = listen_address("--listen", options.listen, LISTEN)
    try:
        import prometheus_client
    except ImportError:
        raise EnvironmentProblem(
            "The exporter needs the package prometheus-client: pip install 'halo-mp[prometheus]'."
        ) from None
    from halo_mp.exporter import server
    from halo_mp.exporter.collector import InstanceCollector

    registry = prometheus_client.CollectorRegistry()
    registry.register(InstanceCollector(dict.fromkeys(options.name or ["default"])))
    if options.once:
        sys.stdout.write(prometheus_client.generate_latest(registry).decode())
        return EXIT_STOPPED
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in the server's threads too
    try:
        listening = server.listen(registry, host, port)
    except OSError as error:
        raise EnvironmentProblem(
            f"{options.listen} can not be listened at: {error.strerror}. Take another with --listen."
        ) from None
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    sys.stdout.write(f"http://{in_url(host)}:{listening.server_port}/metrics\n")
    sys.stdout.flush()
    signal.sigwait(signals)
    listening.shutdown()
    listening.server_close()
    thread.join()
    return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
