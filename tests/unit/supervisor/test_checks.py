# SPDX-License-Identifier: Apache-2.0
"""What the machine does not allow, tried on real namespaces, mounts and interfaces; sysfs alone is made up.

`inside` runs code in a process of its own, mostly behind unshare(1), so that nothing outside changes.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from halo_mp import errors
from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor import arguments, checks, config
from halo_mp.supervisor.checks_devices import check_devices
from halo_mp.supervisor.checks_memory import check_hugepages, check_memory
from halo_mp.supervisor.checks_privileges import in_first_user_namespace
from halo_mp.supervisor.checks_user import import_paths, unreadable
from halo_mp.supervisor.config_model import free_pages
from halo_mp.supervisor.config_pool import pages_needed, region_octets

ROOT_OF_ALL = ("unshare", "--map-root-user", "--mount", "--net")
NOBODY_SPECIAL = ("unshare", "--user")  # the same user as outside, without any capability

PRELUDE = """
import os, re, shlex, subprocess, sys
from halo_mp.errors import EnvironmentProblem
from halo_mp.supervisor import arguments, checks, config
from halo_mp.supervisor.checks_devices import check_devices
from halo_mp.supervisor.checks_memory import check_memory, check_shared_memory
from halo_mp.supervisor.checks_privileges import check_privileges
from halo_mp.supervisor.checks_taps import check_taps

def built(line=""):
    return config.build(arguments.parse(shlex.split(line)))

def sh(command):
    subprocess.run(command, shell=True, check=True)

def problem(function, *arguments):
    try:
        function(*arguments)
    except EnvironmentProblem as error:
        return str(error)
    return "nothing wrong"
"""

PAGE_1G = 1 << 30
CAN_BECOME_NOBODY = os.geteuid() == 0 and in_first_user_namespace()


def inside(code: str, *command: str, instead: str = "") -> str:
    """Run code behind a command such as unshare, and return what it printed.

    With `instead` the package is taken from there: -S keeps an editable install from adding its own modules.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [instead, *sys.path])),
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
    }
    done = subprocess.run(
        [*command, sys.executable, "-PS" if instead else "-P", "-c", PRELUDE + code],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def built(line: str = "") -> config.Config:
    return config.build(arguments.parse(shlex.split(line)))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---- everything together ----


def test_check_default_ports_pass_and_leave_nothing() -> None:
    code = """
import socket
print(problem(checks.check, built("--ports 0,1")), [name for _, name in socket.if_nameindex()])
"""
    assert inside(code, *ROOT_OF_ALL) == "nothing wrong ['lo']"


def test_check_without_driver_module_names_package_and_command(tmp_path: Path) -> None:
    package = tmp_path / "halo_mp"
    package.mkdir()
    for name, target in {
        **{entry.name: entry for entry in Path(sys.modules["halo_mp"].__path__[0]).iterdir()},
        "supervisor": Path(checks.__file__).parent,
    }.items():
        if not name.startswith("_driver") and name != "__pycache__":
            (package / name).symlink_to(target.resolve())
    said = inside('print(problem(checks.check, built("--ports 0")))', instead=str(tmp_path))
    assert "halo_mp._driver is missing" in said
    assert "sudo apt install libdpdk-dev" in said
    assert "pip install --force-reinstall" in said


# ---- cores ----


def online(tmp_path: Path, text: str) -> Path:
    write(tmp_path / "devices/system/cpu/online", text + "\n")
    return tmp_path


def test_core_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"--cores: there is no core 1023, this machine has 0-3,7\."):
        checks.check_cores(built("--driver-cores 0 --cores 1023"), sysfs=online(tmp_path, "0-3,7"))
    with pytest.raises(EnvironmentProblem, match=r"--driver-cores: there is no core 1023"):
        checks.check_cores(built("--driver-cores 1023"))


def test_core_that_is_not_ours(tmp_path: Path) -> None:
    foreign = max(os.sched_getaffinity(0)) + 1
    with pytest.raises(EnvironmentProblem) as problem:
        checks.check_cores(built(f"--driver-cores {foreign}"), sysfs=online(tmp_path, "0-1023"))
    assert f"core {foreign} is there, but this process may use only" in str(problem.value)


def test_core_taken_away_by_taskset_is_not_ours() -> None:
    cores = sorted(os.sched_getaffinity(0))
    said = inside(
        f"""
found = built("--driver-cores {cores[-1]} --cores {cores[0]}")
os.sched_setaffinity(0, {{{cores[0]}}})
print(problem(checks.check_cores, found))
"""
    )
    expected = "may use only" if len(cores) > 1 else "nothing wrong"
    assert expected in said


def test_cores_by_default_are_ours() -> None:
    checks.check_cores(built("--ports 0-7"))


def test_ranges_are_written_as_people_do() -> None:
    assert checks.ranges({7, 0, 1, 2, 9, 10}) == "0-2,7,9-10"


# ---- PCI: no spare NIC here, so sysfs is made up ----


def pci(tmp_path: Path, driver: str | None, *, group: str = "", interface: str = "") -> Path:
    device = tmp_path / "bus/pci/devices/0000:03:00.0"
    write(device / "class", "0x020000\n")
    if driver:
        (device / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
    if group:
        (device / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{group}")
    if interface:
        (device / "net" / interface).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    "driver", ["vfio-pci", "igb_uio", "uio_pci_generic", "mlx5_core", "mlx4_core", "mana"]
)
def test_pci_on_a_driver_that_dpdk_can_use(tmp_path: Path, driver: str) -> None:
    check_devices(built("--pci 03:00.0"), sysfs=pci(tmp_path, driver, group="12"), dev=tmp_path)


def test_pci_on_a_kernel_driver_names_it_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        check_devices(built("--pci 03:00.0"), sysfs=pci(tmp_path, "ixgbe", interface="enp3s0"))
    assert "bound to the kernel's ixgbe as the interface enp3s0" in str(problem.value)
    assert str(problem.value).endswith("sudo dpdk-devbind.py --bind=vfio-pci 0000:03:00.0")


def test_pci_without_driver(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"0000:03:00\.0 is bound to no driver, .*--bind=vfio-pci"):
        check_devices(built("--pci 03:00.0,foo=1"), sysfs=pci(tmp_path, None))


def test_pci_that_is_not_there_lists_what_is(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        check_devices(built("--pci 04:00.0"), sysfs=pci(tmp_path, None))
    assert "There is no PCI device 0000:04:00.0, only 0000:03:00.0." in str(problem.value)


def test_pci_that_is_not_there_on_this_machine() -> None:
    with pytest.raises(EnvironmentProblem, match=r"There is no PCI device fffe:ff:1f\.7"):
        check_devices(built("--pci fffe:ff:1f.7"))


def test_pci_whose_vfio_group_we_may_not_open(tmp_path: Path) -> None:
    sysfs = pci(tmp_path, "vfio-pci", group="12")
    write(tmp_path / "vfio/12", "").chmod(0)
    code = f"""
from pathlib import Path
here = Path({str(tmp_path)!r})
print(problem(lambda: check_devices(built("--pci 03:00.0"), sysfs=here, dev=here)))
"""
    assert sysfs == tmp_path
    assert f"sudo chown $USER {tmp_path}/vfio/12" in inside(code, *NOBODY_SPECIAL)
    (tmp_path / "vfio/12").chmod(0o600)
    assert inside(code, *NOBODY_SPECIAL) == "nothing wrong"


# ---- interfaces ----


@pytest.mark.parametrize("driver", ["net_af_packet0", "net_af_xdp0"])
def test_vdev_interface_that_is_not_in_this_namespace(driver: str) -> None:
    said = inside(f'print(problem(check_devices, built("--vdev {driver},iface=nope0")))', *ROOT_OF_ALL)
    assert said.startswith(f"{driver} binds to the interface nope0, and this network namespace has only lo")
    assert "ip link set nope0 netns" in said


def test_vdev_interface_that_is_there() -> None:
    check_devices(built("--vdev net_af_packet0,iface=lo --vdev net_af_xdp0,iface=lo --vdev net_null0"))


# ---- privileges ----

TAP = 'print(problem(check_privileges, built("--ports 0")))'


def test_privileges_without_any_say_sudo_and_unshare() -> None:
    said = inside(TAP, *NOBODY_SPECIAL)
    assert said.startswith("net_tap0 needs CAP_NET_ADMIN in this network namespace. Type: sudo ")
    assert f"unshare -rn {sys.executable}" in said


def test_privileges_in_a_user_namespace_alone_need_a_network_namespace() -> None:
    said = inside(TAP, "unshare", "--map-root-user")
    assert "which belongs to another user namespace" in said
    assert "unshare -n " in said


def test_privileges_in_user_and_network_namespace_are_enough() -> None:
    assert inside(TAP, "unshare", "--map-root-user", "--net") == "nothing wrong"


def test_privileges_of_a_root_without_the_capability() -> None:
    said = inside(TAP, *ROOT_OF_ALL, "setpriv", "--bounding-set=-net_admin")
    assert "this root does not have it" in said
    assert "--cap-add=NET_ADMIN" in said


def test_privileges_af_packet_needs_net_raw() -> None:
    said = inside(
        'print(problem(check_privileges, built("--vdev net_af_packet0,iface=lo")))',
        *ROOT_OF_ALL,
        "setpriv",
        "--bounding-set=-net_raw",
    )
    assert "net_af_packet0 needs CAP_NET_RAW" in said


def test_privileges_af_xdp_is_not_for_user_namespaces() -> None:
    said = inside('print(problem(check_privileges, built("--vdev net_af_xdp0,iface=lo")))', *ROOT_OF_ALL)
    assert "which the kernel allows only to root outside of any user namespace" in said
    assert "net_af_packet" in said


def test_privileges_null_device_needs_none() -> None:
    assert (
        inside('print(problem(check_privileges, built("--vdev net_null0")))', *NOBODY_SPECIAL)
        == "nothing wrong"
    )


def test_tun_device_missing() -> None:
    said = inside('sh("mount -t tmpfs tmpfs /dev/net")\n' + TAP, *ROOT_OF_ALL)
    assert said.startswith("net_tap0 needs /dev/net/tun, which is not there. Type: sudo modprobe tun")


def test_tun_device_not_writable() -> None:
    code = 'sh("mount -t tmpfs tmpfs /dev/net && touch /dev/net/tun && chmod 0 /dev/net/tun")\n' + TAP
    said = inside(code, *ROOT_OF_ALL, "setpriv", "--bounding-set=-dac_override,-dac_read_search")
    assert "/dev/net/tun, which this user may not open. Type: sudo chmod 666 /dev/net/tun" in said


# ---- TAP names and subnets ----

NAMES = 'print(problem(check_taps, built("--ports 0")))\n'


def test_tap_name_is_free() -> None:
    assert inside(NAMES, *ROOT_OF_ALL) == "nothing wrong"


def test_tap_left_behind_by_a_dead_driver_is_taken_over() -> None:
    code = 'sh("ip tuntap add dev halo0 mode tap multi_queue")\n' + NAMES + 'sh("ip -br link show halo0")'
    assert re.fullmatch(r"nothing wrong\nhalo0 .*", inside(code, *ROOT_OF_ALL))


HOLD = """
import fcntl, struct
held = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(held, 0x400454CA, struct.pack("16sH22x", b"halo0", 0x1102))
"""


def test_tap_that_a_process_holds() -> None:
    said = inside(
        HOLD + NAMES + 'print(os.getpid(), problem(check_taps, built("--vdev net_tap7,iface=halo0")))',
        *ROOT_OF_ALL,
    )
    first, second = said.splitlines()
    pid = second.split()[0]
    for line in (first, second):
        assert f"The TAP interface halo0 is in use by process {pid} (" in line
        assert "--name" in line


def test_tap_that_a_process_of_another_namespace_holds_is_another() -> None:
    code = f"""
sh("ip tuntap add dev halo0 mode tap multi_queue")
hold = "import os" + {HOLD!r} + "print(flush=True); input()"
with subprocess.Popen(["unshare", "--net", sys.executable, "-c", hold], stdin=-1, stdout=-1) as other:
    other.stdout.readline()
    print(problem(check_taps, built("--ports 0")))
    other.communicate(b"\\n")
    assert other.returncode == 0
"""
    assert inside(code, *ROOT_OF_ALL) == "nothing wrong"


@pytest.mark.parametrize(
    "command", ["ip tuntap add dev halo0 mode tap", "ip link add halo0 type veth peer name other"]
)
def test_tap_name_of_an_interface_that_is_none_of_ours(command: str) -> None:
    code = f"""
sh({command!r})
said = problem(check_taps, built("--ports 0"))
print(said)
sh(re.search("sudo (ip link delete halo0)", said)[1])
print(problem(check_taps, built("--ports 0")))
"""
    first, second = inside(code, *ROOT_OF_ALL).splitlines()
    assert "it is no TAP with several queues that a port could take over" in first
    assert second == "nothing wrong"


def test_tap_subnet_in_which_the_kernel_is_already() -> None:
    code = """
sh("ip link add eth0 type veth peer name eth1 && ip address add 10.77.0.9/24 dev eth0")
print(problem(check_taps, built("--ports 0")))
print(problem(check_taps, built("--ports 0 --address 0=10.78.0.1/24")))
sh("ip address flush dev eth0 && ip address add 10.77.0.9/16 dev eth0")
print(problem(check_taps, built("--ports 0")))
"""
    same, other, wider = inside(code, *ROOT_OF_ALL).splitlines()
    assert "halo0 would be in 10.77.0.0/24, where the kernel already is through eth0" in same
    assert "--address 0=10.78.0.1/24" in same
    assert (other, wider) == ("nothing wrong", "nothing wrong")


# ---- memory ----


def test_shared_memory_too_small_says_a_size_that_is_enough() -> None:
    code = """
sh("mount -t tmpfs -o size=8m tmpfs /dev/shm")
large = built("--ring-size 1048576")
print(problem(check_shared_memory, built("--ports 0,1")))
print(problem(check_shared_memory, large))
command = re.search(r"sudo (mount -o remount,size=[0-9]+m /dev/shm)", problem(check_shared_memory, large))[1]
sh(command)
print(problem(check_shared_memory, large))
"""
    small, large, remounted = inside(code, *ROOT_OF_ALL).splitlines()
    assert small == remounted == "nothing wrong"
    pattern = r"/dev/shm has 8 MiB free, and rings and tables need (\d+) MiB\. Type: sudo mount -o remount,"
    found = re.match(pattern, large)
    assert found
    assert int(found[1]) == -(-region_octets(built("--ring-size 1048576")) // (1 << 20))
    assert "--shm-size=" in large


def test_shared_memory_not_mounted() -> None:
    said = inside(
        'found = built()\nsh("mount -t tmpfs tmpfs /dev")\nprint(problem(check_shared_memory, found))',
        *ROOT_OF_ALL,
    )
    assert said == (
        "/dev/shm can not be used: No such file or directory. Type: sudo mount -t tmpfs tmpfs /dev/shm"
    )


def test_memory_that_is_not_there(tmp_path: Path) -> None:
    real = Path("/proc/meminfo").read_text()
    fake = write(tmp_path / "meminfo", re.sub(r"(MemAvailable:) .*", r"\1 40960 kB", real))
    said = inside(
        f'sh("mount --bind {fake} /proc/meminfo")\nprint(problem(check_memory, built("--hugepages off")))',
        *ROOT_OF_ALL,
    )
    assert re.match(r"Pool, rings and DPDK need \d+ MiB of memory, and this machine has 40 MiB\.", said)


def test_memory_limit_of_a_control_group() -> None:
    code = """
sh("mount -t tmpfs tmpfs /sys/fs/cgroup")
for line in open("/proc/self/cgroup").read().splitlines():
    _, controllers, path = line.split(":", 2)
    if controllers in ("", "memory"):
        folder = "/sys/fs/cgroup/" + ("memory" if controllers else "") + path
        os.makedirs(folder, exist_ok=True)
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        open(os.path.join(folder, name), "w").write("52428800\\n")
print(problem(check_memory, built("--hugepages off")))
"""
    said = inside(code, *ROOT_OF_ALL)
    assert re.match(
        r"Pool, rings and DPDK need \d+ MiB of memory, and this control group or container has 50 MiB\.", said
    )


def test_memory_of_this_machine_is_enough_for_a_small_pool() -> None:
    check_memory(built("--ring-size 64"))


def hugepages(tmp_path: Path, *, total: int, free: int, reserved: int = 0) -> Path:
    folder = tmp_path / "kernel/mm/hugepages/hugepages-2048kB"
    for name, value in (("nr", total), ("free", free), ("resv", reserved)):
        write(folder / f"{name}_hugepages", f"{value}\n")
    return tmp_path


def test_hugepages_too_few_say_how_many_to_ask_for(tmp_path: Path) -> None:
    found = built("--hugepages 2M")
    need = pages_needed(config.pool_geometry(found), config.memory_mb(found), 2 << 20)
    sysfs = hugepages(tmp_path, total=20, free=9, reserved=2)
    with pytest.raises(EnvironmentProblem) as problem:
        check_hugepages(found, sysfs=sysfs)
    assert f"{need} hugepages of 2 MiB are needed, 7 are free." in str(problem.value)
    file = sysfs / "kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    assert f"echo {20 + need - 7} | sudo tee {file} (or do without: --hugepages off)" in str(problem.value)
    check_hugepages(found, sysfs=hugepages(tmp_path, total=20 + need - 7, free=9 + need - 7, reserved=2))


def test_hugepages_of_a_size_the_kernel_has_not(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="This kernel has no hugepages of 1024 MiB"):
        check_hugepages(built("--hugepages 1G"), sysfs=hugepages(tmp_path, total=0, free=0))


def test_hugepages_for_pci_can_not_be_done_without(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as problem:
        check_hugepages(built("--pci 03:00.0 --hugepages 2M"), sysfs=hugepages(tmp_path, total=0, free=0))
    assert "--hugepages off" not in str(problem.value)


def test_hugepages_of_this_machine() -> None:
    found = built("--hugepages 1G")
    need = pages_needed(config.pool_geometry(found), config.memory_mb(found), PAGE_1G)
    if free_pages().get(PAGE_1G, 0) >= need:
        check_hugepages(found)
    else:
        with pytest.raises(EnvironmentProblem, match="hugepages of 1024 MiB"):
            check_hugepages(found)
    check_hugepages(built("--hugepages off"))


# ---- as whom workers run ----

PLAN = "print(checks.privileges_plan(built())[:3])"


def test_plan_in_a_user_namespace_with_one_user_is_to_give_up_capabilities() -> None:
    assert inside("print(tuple(checks.privileges_plan(built())))", "unshare", "--map-root-user") == (
        "('capabilities', 0, 0, None)"
    )


def test_plan_named_user_in_a_user_namespace_with_one_user_is_refused() -> None:
    said = inside(
        'print(problem(checks.privileges_plan, built("--user nobody")))', "unshare", "--map-root-user"
    )
    assert said == (
        "--user nobody: this user namespace has no uid 65534. Leave --user out: workers then give up "
        "capabilities."
    )


def test_plan_without_privileges_is_to_keep_the_user() -> None:
    assert inside(PLAN, *NOBODY_SPECIAL) == "('keep', 65534, 65534)"


def test_plan_named_user_without_privileges_is_refused() -> None:
    said = inside('print(problem(checks.privileges_plan, built("--user root")))', *NOBODY_SPECIAL)
    assert said.startswith("--user root: only root can become another user.")


def test_plan_named_user_that_we_are_is_to_keep_it() -> None:
    assert (
        inside('print(checks.privileges_plan(built("--user 0"))[0])', "unshare", "--map-root-user") == "keep"
    )


def test_plan_unknown_user() -> None:
    for user in ("no-such-user", "4000000000"):
        with pytest.raises(EnvironmentProblem, match=f"--user {user}: there is no such user"):
            checks.privileges_plan(built(f"--user {user}"))


@pytest.mark.parametrize("user", [None, "nobody"])
def test_plan_nobody_who_can_not_read_the_path(tmp_path: Path, user: str | None) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    line = "" if user is None else f"--user {user}"
    code = f"""
from halo_mp.supervisor import checks_user
from pathlib import Path
checks_user.import_paths = lambda: [Path({str(closed)!r})]
try:
    print(*checks.privileges_plan(built({line!r})))
except EnvironmentProblem as error:
    print(error)
"""
    said = inside(code)
    if not CAN_BECOME_NOBODY:
        assert said.endswith("None") if user is None else "Leave --user out" in said
    elif user is None:
        assert re.match(rf"capabilities 0 0 Workers keep user 0, .* nobody could not read {closed} ", said)
    else:
        assert f"--user nobody: that user can not read {closed}" in said


def test_plan_nobody_who_can_read_everything_is_to_become_nobody(tmp_path: Path) -> None:
    code = """
from halo_mp.supervisor import checks_user
from pathlib import Path
checks_user.import_paths = lambda: [Path("/usr")]
print(checks.privileges_plan(built())[0])
"""
    assert (inside(code) == "setuid") == CAN_BECOME_NOBODY


def test_import_paths_are_of_python_and_of_this_package() -> None:
    found = {path.resolve() for path in import_paths()}
    for path in (sys.executable, sys.prefix, *filter(os.path.isdir, sys.path), errors.__file__):
        assert Path(path).resolve() in found


def test_unreadable_names_the_path_and_the_folder_above(tmp_path: Path) -> None:
    tree = tmp_path / "a" / "b"
    module = write(tree / "module.py", "")
    uid, gid = 4242, 4243
    for folder in (*tmp_path.parents, tmp_path, tree.parent, tree):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith(str(tmp_path.parents[1])):
            folder.chmod(0o755)
    module.chmod(0o644)
    assert unreadable(uid, gid, [tree, module]) == ""
    module.chmod(0o600)
    assert unreadable(uid, gid, [tree, module]) == str(module)
    module.chmod(0o644)
    tree.chmod(0o754)
    assert unreadable(uid, gid, [tree]) == str(tree)
    tree.parent.chmod(0o750)
    assert unreadable(uid, gid, [module]) == f"{module} (because of {tree.parent})"


def test_unreadable_is_judged_by_owner_then_group_then_others(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "")
    owner, group = file.stat().st_uid, file.stat().st_gid
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    file.chmod(0o044)
    assert unreadable(owner, group, [file]) == str(file)
    assert unreadable(owner + 1, group, [file]) == ""
    file.chmod(0o404)
    assert unreadable(owner + 1, group, [file]) == str(file)
    assert unreadable(owner, group + 1, [file]) == ""


def test_unreadable_follows_links_and_passes_over_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere")
    assert unreadable(4242, 4243, [tmp_path / "dangling"]) == ""
