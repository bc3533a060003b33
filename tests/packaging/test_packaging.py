# SPDX-License-Identifier: Apache-2.0
"""Every way to install halo-mp gives the whole package: from the sdist, as a wheel, and editable."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["halo_mp", "halo_mp.workers", "halo_mp.supervisor", "halo_mp._native"]
MADE = [".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", "*.so", ".*_cache", ".hypothesis"]
NO_DPDK = {"PKG_CONFIG": "/bin/false"}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_venv(path: Path) -> Path:
    """Make a virtual environment that also sees this one's packages, except those installed editable."""
    venv.create(path, with_pip=False, symlinks=True)
    libraries = path / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    libraries.joinpath("outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return path / "bin" / "python"


def version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "-q"),
        *("--no-build-isolation", "--no-deps", "--no-index", *what),
        cwd=cwd,
    )


def imported(python: Path, modules: list[str], cwd: Path) -> dict[str, Path | None]:
    """Import modules in a new interpreter; return the file of each, None for one that is not there."""
    code = (
        "import importlib, json, sys\n"
        "def path(name):\n"
        "    try:\n"
        "        return importlib.import_module(name).__file__\n"
        "    except ModuleNotFoundError as missing:\n"
        "        if missing.name != name:\n"
        "            raise\n"
        "print(json.dumps({name: path(name) for name in sys.argv[1:]}))\n"
    )
    files = json.loads(run(python, "-I", "-c", code, *modules, cwd=cwd))
    return {name: Path(file) if file else None for name, file in files.items()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository, without what make has made in it."""
    copy = tmp_path_factory.mktemp("tree") / "halo-mp"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*MADE))
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, cwd=tree)
    return next(out.glob("halo_mp-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel, built as on a machine without DPDK."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=tree, env=NO_DPDK)
    return next(out.glob("halo_mp-*.whl"))


def test_packages_listed_are_the_folders_on_disk() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {
        ".".join((*prefix, *file.parent.relative_to(ROOT).parts))
        for prefix, folder in (((), "halo_mp"), (("halo_mp",), "workers"), (("halo_mp",), "supervisor"))
        for file in (ROOT / folder).rglob("*.py")
    }
    assert sorted(listed) == sorted(found)


def test_sdist_has_what_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = {
        str(path.relative_to(ROOT)) for kind in ("c", "h", "py") for path in ROOT.glob(f"native/**/*.{kind}")
    }
    assert native <= names
    assert {"LICENSE", "setup.py", "setup.cfg", "pyproject.toml", "Makefile", "halo_mp/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_wheel_without_dpdk_has_no_driver_and_no_sources(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "halo_mp/py.typed" in names
    assert [name for name in names if name.startswith("halo_mp/_native.")]
    assert not [
        name
        for name in names
        if name.endswith((".c", ".h")) or (name.startswith("halo_mp/_driver.") and not name.endswith(".pyi"))
    ]
    assert {name.partition("/")[0] for name in names} == {"halo_mp", f"halo_mp-{version(wheel)}.dist-info"}


def test_wheel_installed_imports(wheel: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    install(python, wheel, cwd=tmp_path)
    files = imported(python, [*MODULES, "halo_mp._driver"], cwd=tmp_path)
    assert files.pop("halo_mp._driver") is None
    assert all(file and file.is_relative_to(tmp_path / "venv") for file in files.values()), files


def test_sdist_installed_imports_with_driver_where_dpdk_is(sdist: Path, tmp_path: Path) -> None:
    has_dpdk = subprocess.run(["/usr/bin/pkg-config", "--exists", "libdpdk"], check=False).returncode == 0
    python = make_venv(tmp_path / "venv")
    install(python, sdist, cwd=tmp_path)
    files = imported(python, [*MODULES, "halo_mp._driver"], cwd=tmp_path)
    driver = files.pop("halo_mp._driver")
    assert (driver is not None) == has_dpdk
    assert all(file and file.is_relative_to(tmp_path / "venv") for file in files.values()), files


def test_editable_imports_from_the_tree(tree: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    install(python, "-e", tree, cwd=tmp_path)
    files = imported(python, MODULES, cwd=tmp_path)
    assert files["halo_mp"] == tree / "halo_mp" / "__init__.py"
    assert files["halo_mp.workers"] == tree / "workers" / "__init__.py"
    assert files["halo_mp.supervisor"] == tree / "supervisor" / "__init__.py"
    native = files["halo_mp._native"]
    assert native is not None
    assert native.parent == tree / "halo_mp"
