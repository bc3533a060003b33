# SPDX-License-Identifier: Apache-2.0
"""Metrics, read by parsers of Prometheus: the client's two, and promtool's, which also judges names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prometheus_client
import psutil
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from halo_mp.exporter.collector import InstanceCollector
from halo_mp.shm.identity import start_ticks
from halo_mp.shm.layout import DROP_NAMES
from halo_mp.shm.ports import forget_driver
from tests.support.namespace import wait_until
from tests.support.regions import Regions


@pytest.fixture
def registry(regions: Regions) -> Iterator[prometheus_client.CollectorRegistry]:
    collector = InstanceCollector([regions.instance, "absent"], regions.base)
    made = prometheus_client.CollectorRegistry()
    made.register(collector)
    yield made
    collector.close()


def sample(registry: prometheus_client.CollectorRegistry, metric: str, **labels: str) -> float | None:
    """Return a sample by its labels, the instance's name left out."""
    found = [
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"halo_mp_{metric}"
        and labels.items() <= sample.labels.items()
        and sample.labels["name"] != "absent"
    ]
    assert len(found) < 2, f"{metric} {labels} is there {len(found)} times"
    return found[0] if found else None


def test_counters_have_their_values(registry: prometheus_client.CollectorRegistry) -> None:
    expected = {
        ("port_rx_frames_total", "port", "0"): 64000,
        ("port_rx_bytes_total", "port", "0"): 64 * 64000,
        ("worker_rx_bytes_total", "worker", "0"): 64 * 64000,
        ("worker_rx_frames_total", "worker", "1"): 0,
        ("interface_rx_packets_total", "interface", "0"): 64000,
        ("port_speed_bytes", "port", "1"): 1.25e9,
        ("hook_busy_seconds_total", "worker", "0"): 1.5,
        ("hook_active", "stage", "ingress"): 1,
        ("process_restarts_total", "process", "worker 1"): 0,
        ("worker_timed_frames_total", "worker", "0"): 1000,
        ("worker_neighbors", "worker", "0"): 0,
        ("worker_lag_seconds_sum", "worker", "0"): 65 * 9e-6,
    }
    for (metric, label, value), count in expected.items():
        assert sample(registry, metric, **{label: value}) == pytest.approx(count), metric
    assert sample(registry, "drops_total", worker="0", reason="ipv4_no_route") == 6400
    assert sample(registry, "worker_stage_cycles_total", worker="0", stage="finish") == 15000
    assert sample(registry, "well") == 1


def test_each_drop_is_there_from_the_start(registry: prometheus_client.CollectorRegistry) -> None:
    reasons = [
        sample.labels["reason"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "halo_mp_drops_total" and sample.labels["worker"] == "1"
    ]
    assert reasons == list(DROP_NAMES)


def test_distributions_are_cumulative(registry: prometheus_client.CollectorRegistry) -> None:
    for le, count in (("31.0", 0), ("63.0", 1280), ("+Inf", 1280)):
        assert sample(registry, "worker_burst_frames_bucket", worker="0", le=le) == count
    assert sample(registry, "worker_burst_frames_count", worker="0") == 1280
    assert sample(registry, "worker_burst_frames_sum", worker="0") == 64000


def families_of(text: str, openmetrics: bool) -> dict[str, Metric]:
    return {family.name: family for family in (parse_openmetrics if openmetrics else parse_text)(text)}


def test_both_formats_are_parsed_and_say_the_same(registry: prometheus_client.CollectorRegistry) -> None:
    old = families_of(prometheus_client.generate_latest(registry).decode(), openmetrics=False)
    new = families_of(exposition.generate_latest(registry).decode(), openmetrics=True)
    assert len(old) == len(new) > 90
    for family in new.values():
        assert family.documentation
        assert family.name.startswith("halo_mp_")
    [calls] = new["halo_mp_hook_calls"].samples
    assert (calls.labels["hook"], calls.value) == ('fil"ter\n\\', 3)


def test_promtool_finds_no_fault(registry: prometheus_client.CollectorRegistry, promtool: Path) -> None:
    text = prometheus_client.generate_latest(registry)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_instance_that_is_absent_is_not_up(registry: prometheus_client.CollectorRegistry) -> None:
    samples = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.labels["name"] == "absent"
    ]
    assert [(sample.name, sample.value) for sample in samples] == [("halo_mp_up", 0)]


def test_instance_that_ends_and_comes_back(
    registry: prometheus_client.CollectorRegistry, regions: Regions
) -> None:
    assert sample(registry, "up") == 1
    regions.stop()
    assert sample(registry, "up") == 0
    assert sample(registry, "port_rx_frames_total", port="0") is None
    regions.start()
    assert (sample(registry, "up"), sample(registry, "port_rx_frames_total", port="0")) == (1, 0)


def test_driver_and_worker_that_died_take_nothing_away(
    registry: prometheus_client.CollectorRegistry, regions: Regions
) -> None:
    cpu = sample(registry, "process_cpu_seconds_total", process="worker 0")
    assert cpu
    forget_driver(regions.ports)
    regions.say_of_worker(0, pid=None)
    assert sample(registry, "port_rx_frames_total", port="0") == 64000
    assert sample(registry, "process_up", process="worker 0") == 0
    after = sample(registry, "process_cpu_seconds_total", process="worker 0")
    assert after is not None
    assert after >= cpu


SETTLED = "import sys, time; data = bytearray(int(sys.argv[1])); print(flush=True); time.sleep(600)"


@contextmanager
def settled(octets: int) -> Iterator[tuple[int, int]]:
    """Have a process that waits; yield its pid and the page faults that it has had."""
    command = [sys.executable, "-c", SETTLED, str(octets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            wait_until(lambda: psutil.Process(process.pid).status() == "sleeping", what="its sleep")
            yield (
                process.pid,
                int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[7]),
            )
        finally:
            process.kill()


def test_process_that_has_another_pid_adds_all_that_it_took(
    registry: prometheus_client.CollectorRegistry, regions: Regions
) -> None:
    def faults() -> float | None:
        return sample(registry, "process_page_faults_total", process="worker 0", kind="minor")

    with settled(0) as (first, few), settled(64 << 20) as (second, many):
        assert few < many  # so the figure does not fall
        regions.say_of_worker(0, pid=first, start_ticks=start_ticks(first), restarts=3)
        assert faults() == few
        regions.say_of_worker(0, pid=second, start_ticks=start_ticks(second), restarts=0)
        assert faults() == few + many
        assert faults() == few + many
    assert faults() == few + many
    assert sample(registry, "process_restarts_total", process="worker 0") == 3


def test_xstats_are_there_once_they_count_and_go_on(
    registry: prometheus_client.CollectorRegistry, regions: Regions
) -> None:
    name = "some_counter_7"
    value = regions.ports.pointer.port[1].xstat[7]
    assert sample(registry, "port_xstat_total", port="1", xstat=name) is None
    value.value = 40
    assert sample(registry, "port_xstat_total", port="1", xstat=name) == 40
    value.value = 2  # the device was opened again
    assert sample(registry, "port_xstat_total", port="1", xstat=name) == 42
    forget_driver(regions.ports)
    assert sample(registry, "port_xstat_total", port="1", xstat=name) == 42
    regions.stop()
    regions.start()
    assert sample(registry, "port_xstat_total", port="1", xstat=name) is None
