# SPDX-License-Identifier: Apache-2.0
"""The set-up scripts, with stand-ins for the programs that would change this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NEITHER_SUDO_NOR_ROOT = {"id": "echo 1000", "sudo": "exit 1"}


class Commands:
    """A folder at the front of PATH whose programs note in `log` how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()

    def stand_in(self, **scripts: str) -> None:
        for name, body in scripts.items():
            program = self.folder / name.replace("_", "-")
            program.write_text(f'#!/bin/sh\necho "{program.name} $*" >> {self.log}\n{body}\n')
            program.chmod(0o755)

    def called(self, name: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.partition(" ")[0] == name]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def only_tcpdump_missing(commands: Commands) -> None:
    commands.stand_in(dpkg_query='[ "$3" != tcpdump ] || exit 1; echo installed', apt_get="exit 0")


def test_packages_all_there_calls_no_apt(commands: Commands) -> None:
    commands.stand_in(dpkg_query="printf installed", apt_get="exit 1")
    assert commands.run(TOOLS / "install-debian-packages").returncode == 0
    assert len(commands.called("dpkg-query")) > 10
    assert not commands.called("apt-get")


@pytest.mark.usefixtures("only_tcpdump_missing")
def test_packages_missing_as_root_are_installed(commands: Commands) -> None:
    commands.stand_in(id="echo 0", sudo="exit 1")
    assert commands.run(TOOLS / "install-debian-packages").returncode == 0
    update, install = commands.called("apt-get")
    assert "update" in update
    assert " install " in install
    assert install.endswith(" tcpdump")


@pytest.mark.usefixtures("only_tcpdump_missing")
def test_packages_missing_with_sudo_are_installed_by_it(commands: Commands) -> None:
    commands.stand_in(id="echo 1000", sudo='shift; exec "$@"')
    assert commands.run(TOOLS / "install-debian-packages").returncode == 0
    assert [call for call in commands.called("sudo") if call.endswith(" tcpdump")]
    assert len(commands.called("apt-get")) == 2


@pytest.mark.usefixtures("only_tcpdump_missing")
def test_packages_for_tests_are_not_installed_to_run(commands: Commands) -> None:
    commands.stand_in(id="echo 0", sudo="exit 1")
    assert commands.run(TOOLS / "install-debian-packages", "run").returncode == 0
    assert len(commands.called("dpkg-query")) > 8
    assert not commands.called("apt-get")


@pytest.mark.usefixtures("only_tcpdump_missing")
def test_packages_missing_without_root_prints_the_command(commands: Commands) -> None:
    commands.stand_in(**NEITHER_SUDO_NOR_ROOT)
    done = commands.run(TOOLS / "install-debian-packages")
    assert done.returncode != 0
    assert "apt-get install --no-install-recommends tcpdump\n" in done.stderr
    assert not commands.called("apt-get")


def test_python_named_is_taken_if_it_can_make_a_venv(commands: Commands) -> None:
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}")
    assert commands.run(TOOLS / "find-python", "/nonexistent", base).stdout.strip() == str(base)


def test_python_too_old_is_refused_with_the_packages_to_install(commands: Commands) -> None:
    commands.stand_in(python3="exit 1")
    done = commands.run(TOOLS / "find-python", "python3")
    assert done.returncode != 0
    assert "python3-venv" in done.stderr


def test_namespace_as_root_runs_the_command_right_here(commands: Commands) -> None:
    commands.stand_in(id="echo 0", unshare="exit 1")
    done = commands.run(TOOLS / "enter-namespace", "echo", "two words")
    assert (done.returncode, done.stdout) == (0, "two words\n")


def test_namespace_refused_says_why_and_which_setting(commands: Commands) -> None:
    refusal = "echo 'unshare failed: Operation not permitted' >&2; exit 1"
    commands.stand_in(id="echo 1000", unshare=refusal, cat="echo 0")
    done = commands.run(TOOLS / "enter-namespace", "echo", "unreachable")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Operation not permitted" in done.stderr
    assert "sysctl -w user.max_user_namespaces=1024" in done.stderr


def namespaces_allowed() -> bool:
    return (
        subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not namespaces_allowed(), reason="this system refuses user and network namespaces")
def test_namespace_without_root_is_root_of_its_own_network(commands: Commands) -> None:
    commands.stand_in(id="echo 1000")
    inside = "mkdir /run/halo-mp && touch /dev/shm/halo-mp.test && ip tuntap add halo0 mode tap; echo $?; read line"
    process = subprocess.Popen(
        [TOOLS / "enter-namespace", "sh", "-c", inside],
        env=commands.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "0\n"
        announced = "".join(process.stderr.readline() for _ in range(3))
        enter = re.search(r"nsenter .*(?= ping 10\.77\.0\.1)", announced)
        assert enter
        links = subprocess.check_output([*enter.group().split(), "ip", "-brief", "link"], text=True)
        assert [line.split()[:2] for line in links.splitlines()] == [["lo", "UNKNOWN"], ["halo0", "DOWN"]]
        process.communicate("end\n")
    assert not Path("/dev/shm/halo-mp.test").exists()


@pytest.mark.parametrize(
    ("make", "last"),
    [
        ("echo '== 2 passed in 61.00s (0:01:01) =='", r"== 2 passed in 61\.00s \(0:01:01\) =="),
        (
            "echo '== 1 failed in 1.00s =='; echo 'make: *** [test] Error 1'; exit 2",
            r"== 1 failed in 1\.00s ==",
        ),
        ("echo 'no compiler'; exit 2", r"=+ 1 error in \d+\.00s =+"),
    ],
    ids=["passed", "failed", "no tests"],
)
def test_ci_says_last_how_the_tests_went(commands: Commands, make: str, last: str) -> None:
    commands.stand_in(make=make)
    done = commands.run(TOOLS.parent / ".ci" / "run")
    assert (done.returncode == 0) == ("exit" not in make)
    assert re.fullmatch(last, done.stdout.splitlines()[-1])
    assert commands.called("make") == ["make test"]
