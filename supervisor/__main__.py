# SPDX-License-Identifier: Apache-2.0
"""`python -m halo_mp.supervisor`: from flags to exit code."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence

from halo_mp import logs
from halo_mp.control.messages import WorkerUser
from halo_mp.errors import EXIT_STOPPED, HaloError
from halo_mp.supervisor import arguments, config, leftovers
from halo_mp.supervisor.adoption import adopt
from halo_mp.supervisor.boxes import own_lines
from halo_mp.supervisor.checks import check, privileges_plan, raise_descriptor_limit
from halo_mp.supervisor.checks_user import control_group
from halo_mp.supervisor.config_changes import Wanted
from halo_mp.supervisor.config_routes import RouteList, load_routes
from halo_mp.supervisor.instance import Instance
from halo_mp.supervisor.service import Service
from halo_mp.supervisor.signals import StopSignals
from halo_mp.supervisor.supervisor import Supervisor

LAST_WORDS_S = 1.0  # for a terminal to take the sentences that it ends with

log = logs.get("supervisor")


def main(argv: Sequence[str] | None = None) -> int:
    """Run an instance to its end and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    service = Service()
    try:
        configuration = config.build(arguments.parse(words))
        style: logs.Format = "json" if configuration.log_format == "json" else "text"
        logs.configure("supervisor", configuration.log_level, style)
        return asyncio.run(_run(configuration, words, service))
    except HaloError as error:
        logs.flush()
        sentences = "".join(f"halo-mp: {sentence}\n" for sentence in str(error).splitlines())
        logs.say(sentences, fd=2, wait_s=LAST_WORDS_S)
        return error.exit_code
    finally:
        service.close()
        logs.flush()


async def _run(configuration: config.Config, words: Sequence[str], service: Service) -> int:
    has_file = any(word.partition("=")[0] == "--config" for word in words)
    signals = StopSignals(reloads=has_file)
    signals.install()
    # First the lock: what the others look at may be there because the instance runs.
    instance = Instance.acquire(configuration.instance)
    try:
        try:
            plan = privileges_plan(configuration)
            group = control_group(configuration, plan)
            user = WorkerUser(uid=plan.uid, gid=plan.gid) if plan.mode == "setuid" else None
            adopted = await adopt(instance, configuration, user["uid"] if user else None)
        except BaseException:
            instance.leave()
            raise
        routes = None
        if adopted is None:
            routes = _static_routes(configuration)
            await leftovers.clean(instance)
            check(configuration)
        with own_lines(instance.directory):
            raise_descriptor_limit(configuration)
            if plan.warning:
                log.warning("config.warning", text=plan.warning)
            supervisor = Supervisor(
                configuration,
                instance,
                signals,
                privileges=(plan.mode, user),
                control_group=group,
                routes=routes,
                on_up=_print,
                adopted=adopted,
                reread=lambda: _reread(words),
                service=service,
            )
            gc.collect()
            gc.freeze()  # what is there now stays
            if adopted is None and signals.requested.is_set():
                return EXIT_STOPPED
            return (
                await supervisor.run()
            )  # also when it is to stop at once: what was adopted is to be stopped in order
    finally:
        instance.release()


def _reread(words: Sequence[str]) -> Wanted:
    """Return what the flags and their files say now. Raises UsageError."""
    found = config.build(arguments.parse(words))
    return Wanted(found, _static_routes(found))


def _static_routes(configuration: config.Config) -> RouteList:
    """Return the routes that the instance starts with. Raises UsageError."""
    found = RouteList()
    if configuration.routes_file is not None:
        found = load_routes(configuration.routes_file, configuration.interfaces, configuration.routes)
    for route in configuration.routes:
        found.append(route.prefix, route.length, route.hops)
    return found


def _print(text: str) -> None:
    logs.say(text, fd=1, wait_s=0)  # the event loop is ours, and has no time for a terminal


if __name__ == "__main__":
    sys.exit(main())
