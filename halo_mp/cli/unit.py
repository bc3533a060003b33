# SPDX-License-Identifier: Apache-2.0
"""`halo-mp unit`: the template of a systemd service, with the paths of this installation in it."""

from __future__ import annotations

import sys

import click

DIRECTORY = "/etc/halo-mp"

UNIT = """\
# /etc/systemd/system/halo-mp@.service, made by `{made_by}`
# The instance NAME is halo-mp@NAME.service, and its configuration {directory}/NAME.toml.

[Unit]
Description=halo-mp instance %i
After=network-pre.target systemd-modules-load.service systemd-sysctl.service
StartLimitIntervalSec=0
AssertPathExists={directory}/%i.toml

[Service]
Type=notify
ExecStart={python} -m halo_mp.supervisor --config {directory}/%i.toml --name %i
ExecReload={python} -m halo_mp.cli reload --name %i
# The supervisor ends the others in order. When it dies, they go on forwarding, and the next one takes them over.
KillMode=process
TimeoutStartSec=120
TimeoutStopSec=60
WatchdogSec=10
Restart=on-failure
RestartSec=2
# 2: the configuration makes no sense. Else it is tried for as long as it takes: a device may come late, and what a dead
# supervisor left running under another configuration ends by itself after --orphan-timeout.
RestartPreventExitStatus=2
LimitNOFILE=65536
LimitMEMLOCK=infinity
OOMScoreAdjust=-500
{user}
[Install]
WantedBy=multi-user.target
"""

USER = """\
User={user}
# What ports need. Workers give all of it up.
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK
# Runtime files are in /run/halo-mp/NAME, and stay there when the supervisor is started again.
Environment=XDG_RUNTIME_DIR=/run
RuntimeDirectory=halo-mp/%i
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=restart
"""


@click.command
@click.option("--user", metavar="USER", help="Who runs it; by default root, and the workers as nobody.")
@click.option(
    "--directory", metavar="DIRECTORY", default=DIRECTORY, show_default=True, help="Of configurations."
)
def unit(*, user: str | None, directory: str) -> None:
    """Print the unit halo-mp@.service of systemd: start, watchdog, restart and reload of instances by name.

    \b
    halo-mp unit > /etc/systemd/system/halo-mp@.service
    systemctl daemon-reload
    systemctl enable --now halo-mp@NAME     # its configuration is /etc/halo-mp/NAME.toml
    """
    words = [
        *(["--user", user] if user else []),
        *(["--directory", directory] if directory != DIRECTORY else []),
    ]
    click.echo(
        UNIT.format(
            made_by=" ".join(["halo-mp unit", *words]),
            directory=directory.rstrip("/"),
            python=sys.executable,
            user=USER.format(user=user) if user else "",
        ),
        nl=False,
    )
