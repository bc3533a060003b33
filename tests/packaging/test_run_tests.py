# SPDX-License-Identifier: Apache-2.0
"""tools/run_tests.py on small folders of tests: what it sums, what it says of a failure, and that nothing stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.namespace import wait_until

TOOLS = Path(__file__).resolve().parents[2] / "tools"
MARK = "HALO_MP_TEST_PARTS"
LASTING = """
import subprocess, sys, time

def test_lasting():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with open({path!r}, "w") as file:
        file.write("begun")
    time.sleep(600)
"""


class Tree:
    """A folder whose `tests` have the parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra --import-mode=importlib\n")

    def part(self, name: str, body: str) -> None:
        path = self.folder / "tests" / name / f"test_{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(body)

    def start(self, *flags: str, path: Path | None = None) -> subprocess.Popen[str]:
        """Start the run; all that it starts carries a mark."""
        environment = os.environ | {MARK: str(self.folder)}
        if path:
            environment["PATH"] = f"{path}:{environment['PATH']}"
        return subprocess.Popen(
            # Whoever runs the tests may ignore a signal, as a shell's background does, and children inherit that.
            ["env", "--default-signal", sys.executable, TOOLS / "run_tests.py", *flags],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *flags: str, path: Path | None = None) -> tuple[int, list[str]]:
        """Return its exit status, and its lines."""
        process = self.start(*flags, path=path)
        said, _ = process.communicate()
        return process.returncode, said.splitlines()

    def processes(self) -> list[int]:
        """Return who carries the mark and lives."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and process.status() != "zombie":
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def wait_for_lasting(self, process: subprocess.Popen[str], *begun: Path) -> None:
        wait_until(
            lambda: all(path.exists() for path in begun) or process.poll() is not None,
            timeout_s=30,
            what="tests that last",
        )
        assert process.poll() is None


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    wait_until(lambda: not made.processes(), what="the end of all that the run had started")


def without_time(line: str) -> str:
    return re.sub(r" in [0-9.]+s.*", "", line.strip("= "))


PASSING = "def test_passing(): pass\n"


def test_parts_that_pass_are_summed(tree: Tree) -> None:
    tree.part("one", PASSING)
    tree.part("two", PASSING + "import pytest\n@pytest.mark.skip(reason='later')\ndef test_skipped(): pass\n")
    tree.part("soak", "def test_failing(): assert False\n")
    (tree.folder / "tests/test_beside.py").write_text(PASSING)
    status, lines = tree.run()
    assert (status, without_time(lines[-1])) == (0, "3 passed, 1 skipped")
    assert re.fullmatch(r"=+ 3 passed, 1 skipped in \d+\.\d\ds =+", lines[-1])
    assert any(re.match(r" +two \| tests/two/test_two\.py \.s", line) for line in lines)


def test_failures_of_every_kind_are_counted_as_pytest_counts_them(tree: Tree) -> None:
    kinds = (
        "import pytest, warnings\n"
        "def test_failing(): assert 1 == 2, 'the reason'\n"
        "@pytest.fixture\ndef broken(): raise OSError('no fixture')\n"
        "def test_error(broken): pass\n"
        "@pytest.mark.xfail\ndef test_expected(): assert False\n"
        "@pytest.mark.xfail\ndef test_unexpected(): pass\n"
        "def test_warning(): warnings.warn('careful')\n"
    )
    tree.part("one", kinds)
    tree.part("two", "import no_such_module\n")
    tree.part("three", PASSING)
    status, lines = tree.run()
    [own] = [line for line in lines if re.match(r" +one \| =.* in [0-9.]+s =", line)]
    assert (
        without_time(own.partition("| ")[2]) == "1 failed, 1 passed, 1 xfailed, 1 xpassed, 1 warning, 1 error"
    )
    # Part two counts twice: its file can not be imported, and pytest does not go on then.
    assert without_time(lines[-1]) == "1 failed, 2 passed, 1 xfailed, 1 xpassed, 1 warning, 3 errors"
    assert status == 1
    assert "FAILED tests/one/test_one.py::test_failing - AssertionError: the reason" in lines
    assert any(re.match(r" +one \| E +AssertionError: the reason", line) for line in lines)


@pytest.mark.parametrize(
    ("last_act", "said"),
    [
        ("os._exit(0)", "pytest ended in the middle, with exit status 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "pytest ended with exit status 137"),
        ("pytest.exit('enough')", "pytest ended with exit status 2"),
    ],
)
def test_part_that_ends_early_is_an_error(tree: Tree, last_act: str, said: str) -> None:
    tree.part("one", f"import os, signal, pytest\n{PASSING}def test_last(): {last_act}\n")
    status, lines = tree.run()
    assert (status, without_time(lines[-1])) == (1, "1 passed, 1 error")
    assert f"ERROR one: {said} - the last test was tests/one/test_one.py::test_last" in lines


def test_part_without_tests_is_an_error(tree: Tree) -> None:
    tree.part("one", "")
    status, lines = tree.run()
    assert (status, without_time(lines[-1])) == (1, "1 error")
    assert "ERROR one: pytest ended with exit status 5 - the last test was none" in lines


def test_parts_see_neither_memory_nor_processes_of_each_other(tree: Tree) -> None:
    """Both are there until the other has looked."""
    meet = (
        "import os, time\n"
        "def test_apart():\n"
        "    for folder in ('/dev/shm', '/run'):\n"
        "        assert 'halo-mp.part' not in os.listdir(folder)\n"
        "        open(f'{{folder}}/halo-mp.part', 'w').close()\n"
        "    open({mine!r}, 'w').close()\n"
        "    while not os.path.exists({other!r}): time.sleep(0.01)\n"
        "    parts = [name for name in os.listdir('/proc') if name.isdigit()\n"
        "        and b'run_part.py' in open(f'/proc/{{name}}/cmdline', 'rb').read()]\n"
        "    assert str(os.getpid()) in parts and len(parts) == 2, parts  # and the shell that started it\n"
    )
    one, two = (str(tree.folder / name) for name in ("one", "two"))
    tree.part("one", meet.format(mine=one, other=two))
    tree.part("two", meet.format(mine=two, other=one))
    status, lines = tree.run("--jobs", "2")
    assert (status, without_time(lines[-1])) == (0, "2 passed"), lines


def test_part_that_hangs_is_ended_and_names_its_test(tree: Tree) -> None:
    tree.part("one", LASTING.format(path=str(tree.folder / "begun")))
    status, lines = tree.run("--limit", "12")
    assert (status, without_time(lines[-1])) == (1, "1 error")
    assert (
        "ERROR one: ended after 12 s, its limit - the last test was tests/one/test_one.py::test_lasting"
        in lines
    )
    assert tree.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_nothing_goes_on(tree: Tree, number: signal.Signals) -> None:
    begun = [tree.folder / name for name in ("one", "two")]
    for path in begun:
        tree.part(path.name, LASTING.format(path=str(path)))
    tree.part("zero", PASSING)
    process = tree.start("--jobs", "2")
    tree.wait_for_lasting(process, *begun)
    process.send_signal(number)
    lines = process.communicate()[0].splitlines()
    assert (process.returncode, without_time(lines[-1])) == (2, "2 errors")
    assert "     zero | not run" in lines
    assert tree.processes() == []


def test_killed_nothing_goes_on(tree: Tree) -> None:
    """The fixture waits for it."""
    tree.part("one", LASTING.format(path=str(tree.folder / "begun")))
    process = tree.start()
    tree.wait_for_lasting(process, tree.folder / "begun")
    assert len(tree.processes()) > 2
    process.kill()
    process.communicate()


def test_namespace_refused_parts_run_one_after_the_other(tree: Tree, tmp_path: Path) -> None:
    refusing = tmp_path / "bin" / "unshare"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2; exit 1\n")
    refusing.chmod(0o755)
    alone = (
        "import os\n"
        "def test_alone():\n"
        "    os.mkdir({path!r})\n"
        "def teardown_module():\n"
        "    os.rmdir({path!r})\n"
    ).format(path=str(tmp_path / "alone"))
    for name in ("one", "two", "three"):
        tree.part(name, alone)
    status, lines = tree.run("--jobs", "3", path=refusing.parent)
    assert (status, without_time(lines[-1])) == (0, "3 passed")
    assert lines[0].endswith("(unshare failed: Operation not permitted),")
    assert lines[1] == "halo-mp: so they run one after the other, which takes about twice as long."
