# SPDX-License-Identifier: Apache-2.0
"""Keeping `<runtime>/status.json` true.

The supervisor looks ten times a second; the file is replaced when something has changed. So it is written at most that
often, and nobody who changes something has to say so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from halo_mp import logs
from halo_mp.shm.identity import own_start_ticks
from halo_mp.shm.layout import PortState
from halo_mp.stats.status_model import (
    FILE,
    InstanceState,
    PortStatus,
    ProcessState,
    ProcessStatus,
    ReportLine,
    Status,
    to_json,
)
from halo_mp.supervisor.config import Config, PortConfig
from halo_mp.supervisor.configuration import Configuration
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.keeper import Keeper
from halo_mp.supervisor.keeper_driver import DriverKeeper, spread_of
from halo_mp.supervisor.keeper_worker import WorkerKeeper
from halo_mp.supervisor.process import Process
from halo_mp.supervisor.regions import Regions
from halo_mp.supervisor.reports import Reports
from halo_mp.supervisor.spares import Spares
from halo_mp.supervisor.state import write_whole
from halo_mp.supervisor.statistics import Statistics

log = logs.get("supervisor")


class StatusFile:
    """Looks at the keepers of one instance, and writes down what it sees."""

    def __init__(
        self,
        config: Config,
        instance: Instance,
        regions: Regions,
        driver: DriverKeeper,
        workers: Sequence[WorkerKeeper],
        spares: Spares,
        statistics: Statistics,
        reports: Reports,
        configuration: Configuration,
    ) -> None:
        self._config = config
        self._path = instance.directory / FILE
        self._regions = regions
        self._driver = driver
        self._workers = workers
        self._spares = spares
        self._statistics = statistics
        self._reports = reports
        self._configuration = configuration
        self._since = time.time()
        self._start_ticks = own_start_ticks()
        self._changed: dict[object, float] = {}  # since when who is in which state
        self._seen: dict[object, float] = {}  # the same, while we look
        self._written: Status | None = None
        self._complained = False

    def update(self, *, stopping: bool = False) -> None:
        """Look, and write the files anew of which anything has changed."""
        self._reports.save()
        self._seen = {}
        status = self._look(stopping=stopping)
        self._changed = self._seen
        if status == self._written:
            return
        self._written = status
        try:
            with self._reports.lent():
                write_whole(self._path, to_json(status).encode())
        except OSError as error:
            self._written = None  # tried again the next time
            if not self._complained:
                log.warning("status.not_saved", reason=error.strerror)
            self._complained = True
        else:
            self._complained = False

    def _look(self, *, stopping: bool) -> Status:
        up = all(worker.was_ready.is_set() for worker in self._workers)
        state: InstanceState = "stopping" if stopping else "up" if up else "starting"
        kept = self._statistics.kept()
        awaited = self._configuration.awaited
        feeds = {slot.number: slot.feeds for slot in self._config.slots}
        workers = (
            self._process(worker, tuple(sorted({port for port, _ in feeds.get(worker.number, ())})))
            for worker in self._workers
        )
        return Status(
            instance=self._config.instance,
            state=state,
            supervisor_pid=os.getpid(),
            supervisor_start_ticks=self._start_ticks,
            since=self._since,
            processes=(self._process(self._driver, ()), *workers, *map(self._spare, self._spares.processes)),
            ports=tuple(self._port(port, kept.get(str(port.number), {})) for port in self._config.ports),
            reports=tuple(
                ReportLine(name=report.name, pid=report.pid, ended_at=report.ended_at, reason=report.reason)
                for report in self._reports.all()
            ),
            confirm_until=awaited.until if awaited else None,
            confirm_by=awaited.before.by if awaited else None,
        )

    def _process(self, keeper: Keeper, ports: tuple[int, ...]) -> ProcessStatus:
        child = keeper.life.child if keeper.life is not None else None
        pid = child.pid if child else None
        state = keeper.state
        return ProcessStatus(
            role=keeper.role,
            slot=keeper.slot,
            ports=ports,
            pid=pid,
            start_ticks=child.start_ticks if child else 0,
            state=state,
            since=self._since_when(keeper.name, state, pid),
            restarts=keeper.restarts,
            failed_because=keeper.failed_because,
            retry_at=keeper.retry_at,
        )

    def _spare(self, child: Process) -> ProcessStatus:
        return ProcessStatus(
            role="spare",
            slot=None,
            ports=(),
            pid=child.pid,
            start_ticks=child.start_ticks,
            state="ready",
            since=self._since_when("spare", "ready", child.pid),
            restarts=0,
            failed_because=None,
            retry_at=None,
        )

    def _since_when(self, name: str, state: ProcessState, pid: int | None) -> float:
        """Return when a process came into its state; that it has another pid is news too."""
        key = (name, state, pid)
        since = self._seen[key] = self._changed.get(key) or time.time()
        return since

    def _port(self, port: PortConfig, kept: Mapping[str, int]) -> PortStatus:
        told = self._driver.ports.get(port.number)
        spread, queues = spread_of(told) if told else ("", port.queues)
        shared = self._regions.ports.pointer.port[port.number]
        return PortStatus(
            number=port.number,
            device=port.device,
            driver=told["driver"] if told else "",
            mac=told["mac"].hex(":") if told else "",
            mtu=told["mtu"] if told else port.mtu,
            state=PortState(shared.state).name.lower() if shared.state in list(PortState) else "failed",
            link_up=bool(shared.link_up),
            counted_before=dict(kept),
            failed_because=self._driver.lost.get(port.number),
            spread=spread if queues > 1 else "",
            queues=queues,
            kernel=port.twin.interface if port.twin else "",
        )
