"""Check a network in a process of its own, whose CPU time is limited."""

import multiprocessing
import resource
import signal
from multiprocessing.connection import Connection

from tests.benchmarks.encoders.check import Result, check

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([check.__module__])  # so that torch is imported once


def run(name: str, *, with_export: bool, limit_s: int) -> Result:
    """Check a network in a process of its own, which may use `limit_s` seconds of CPU time."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(name, with_export, limit_s, sender))
    process.start()
    sender.close()
    try:
        result: Result = receiver.recv()
    except EOFError:
        process.join()
        result = Result(name=name, error=_reason(process.exitcode or 0, limit_s))
    process.join()
    return result


def _reason(code: int, limit_s: int) -> str:
    if -code == signal.SIGXCPU:
        return f"not finished within {limit_s} s of CPU time"
    return f"fault: the process ended with code {code}"


def _work(name: str, with_export: bool, limit_s: int, sender: Connection) -> None:
    # A process at its hard limit gets SIGKILL, as one that ran out of memory does; at the soft limit it gets SIGXCPU.
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 60))
    sender.send(check(name, with_export=with_export))
