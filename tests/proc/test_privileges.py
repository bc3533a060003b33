# SPDX-License-Identifier: Apache-2.0
"""As whom workers run, in each way that there is: nobody, ourselves without capabilities, ourselves."""

from __future__ import annotations

import os
import pwd

from halo_mp.supervisor.checks_privileges import in_first_user_namespace
from tests.proc.conftest import ADDRESSES, assert_answered
from tests.support import lives
from tests.support.instance import Instance
from tests.support.namespace import Namespace

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
OURSELVES = [str(os.geteuid())] * 4


def worker_threads(instance: Instance) -> list[dict[str, str]]:
    found = lives.threads(lives.pid(instance, "worker", 0))
    assert len(found) > 1, "one of them writes the log"
    return found


def assert_powerless(thread: dict[str, str]) -> None:
    assert {name: int(thread[name], 16) for name in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0)
    assert thread["NoNewPrivs"] == "1"


def test_worker_is_nobody(namespace: Namespace) -> None:
    nobody = pwd.getpwnam("nobody")
    with Instance(namespace) as instance:
        assert not instance.events("config.warning"), "nobody can read Python and this checkout"
        # In a user namespace with one user there is no nobody.
        uid, gid = (nobody.pw_uid, nobody.pw_gid) if in_first_user_namespace() else (0, 0)
        for thread in worker_threads(instance):
            assert thread["Uid"].split() == [str(uid)] * 4
            assert thread["Gid"].split() == [str(gid)] * 4
            assert uid == 0 or not thread["Groups"]
            assert_powerless(thread)
        assert_answered(namespace, ADDRESSES[0])
        assert instance.stop() == 0


def test_worker_that_can_not_become_nobody_gives_up_capabilities(namespace: Namespace) -> None:
    with Instance(namespace, via=("setpriv", "--bounding-set=-setuid,-setgid")) as instance:
        for thread in worker_threads(instance):
            assert thread["Uid"].split() == OURSELVES
            assert_powerless(thread)
        assert_answered(namespace, ADDRESSES[0])
        assert instance.stop() == 0


def test_root_of_a_user_namespace_needs_no_other_privilege(namespace: Namespace) -> None:
    """What the help says to somebody without root: `unshare -rn`."""
    with Instance(namespace, via=("unshare", "-rn")) as instance:
        for thread in worker_threads(instance):
            assert_powerless(thread)
        assert instance.process is not None
        enter = ("nsenter", "--user", "--net", "--preserve-credentials", f"--target={instance.process.pid}")
        assert ", 3 received," in namespace.run(*enter, "ping", "-c3", "-i0.01", ADDRESSES[0]).stdout
        assert instance.stop() == 0


def test_user_that_is_ourselves_keeps_everything(namespace: Namespace) -> None:
    with Instance(namespace, "--user", str(os.geteuid())) as instance:
        mine = lives.threads(lives.pid(instance, "driver"))[0]
        for thread in worker_threads(instance):
            assert thread["Uid"].split() == OURSELVES
            assert thread["CapEff"] == mine["CapEff"]
        assert instance.stop() == 0


def test_user_by_name(namespace: Namespace) -> None:
    """Any that may read the interpreter and this checkout will do; `daemon` is on every Debian."""
    if not in_first_user_namespace():
        return  # there is nobody else to become: --user is refused there, as test_errors says
    with Instance(namespace, "--user", "daemon") as instance:
        for thread in worker_threads(instance):
            assert thread["Uid"].split() == [str(pwd.getpwnam("daemon").pw_uid)] * 4
            assert_powerless(thread)
        assert instance.stop() == 0
