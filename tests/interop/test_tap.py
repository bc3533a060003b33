# SPDX-License-Identifier: Apache-2.0
"""The embedded default: one TAP per port, pinged by the kernel of the namespace."""

from __future__ import annotations

from tests.support.instance import Instance
from tests.support.namespace import Namespace


def test_default_ports_answer_the_kernel(namespace: Namespace) -> None:
    with Instance(namespace, "--ports", "0,1") as instance:
        assert namespace.ping("10.77.0.1") == 3
        assert namespace.ping("10.77.1.1") == 3
        assert namespace.ping("10.77.0.1", size=1472) == 3
        assert instance.slot(0)["worker"]["counters"]["echo_replies"] == 6
        assert instance.stop() == 0
