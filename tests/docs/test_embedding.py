# SPDX-License-Identifier: Apache-2.0
"""The programs in README.md and docs/embedding.md: mypy has nothing to say, workers start them, tests in them pass.

A block whose first line is a docstring that begins with a file's name is that file. One with an `app` is started in two
workers and stopped; a `test_*.py` is given to pytest; all of them lie in one folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.support.instance import Instance
from tests.support.namespace import Namespace

BLOCKS = [block for page in ("README.md", "docs/embedding.md") for block in blocks((ROOT / page).read_text())]
FILES = {name[1]: block.body for block in BLOCKS if (name := re.match(r'"""(\w+\.py): ', block.body))}
APPS = sorted(name for name, body in FILES.items() if re.search(r"^app = App\(", body, re.MULTILINE))
TESTS = sorted(name for name in FILES if name.startswith("test_"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embedding")
    for parent in (path, *path.parents):  # workers are nobody
        if parent.stat().st_uid == os.getuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
        if parent.name == "tmp":
            break
    for name, body in FILES.items():
        (path / name).write_text(body)
    return path


def test_every_block_of_python_is_a_file() -> None:
    python = [block for block in BLOCKS if block.info == "python"]
    assert len(python) == len(FILES) > 5


def test_types(folder: Path, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "-d", str(typed)], cwd=ROOT, check=True)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *sorted(FILES)],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(typed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", APPS)
def test_application(namespace: Namespace, folder: Path, name: str) -> None:
    flags = ("--vdev", "net_null0,size=60", "--vdev", "net_null1,size=60", "--no-promiscuous")
    with Instance(namespace, *flags, "--app", f"{folder / name}:app", "--idle", "sleep") as instance:
        instance.wait_for("app.started", count=2)
    wrong = [entry for entry in instance.events() if entry["level"] in ("error", "critical")]
    assert not wrong, instance.text()


@pytest.mark.parametrize("name", TESTS)
def test_test(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
