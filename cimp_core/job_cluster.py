"""Tasks on the workers of a dask cluster: one of threads in this process, or that of a scheduler.

Only a few tasks a thread wait at the workers at a time, so a drive full of files takes no more memory than a few.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .errors import CimpError

__all__ = ["cluster", "in_turn"]

_PATIENCE = 10.0  # [s]; for a scheduler to answer
# dask always opens ports for its status pages: only to this machine, then, and without a page.
_NO_PAGES = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
_UNHEARD = {
    "worker_dashboard_address": "127.0.0.1:0",
    "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    "dashboard_address": None,
    "memory_limit": 0,  # it would count this process's own memory
    "silence_logs": logging.CRITICAL,
}


def in_turn(
    client: Any, todo: Sequence[int], submit: Callable[[int, str], Any], token: str
) -> Iterator[tuple[int, str]]:
    """Numbers with what their tasks gave, as they end; "killed" for one that ended the workers it ran on.

    Never more than a few a thread are submitted, however many there are. ``submit(number, key)`` gives a future.
    """
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    waiting = iter(todo)
    window = 4 * max(1, sum(client.nthreads().values()))
    first = [submit(i, f"{token}-{i}") for i in itertools.islice(waiting, window)]
    running = as_completed(first, loop=client.loop)
    for future in running:
        i = int(future.key.rpartition("-")[2])
        try:
            yield i, future.result()
        except KilledWorker:
            yield i, "killed"
        future.release()
        running.update([submit(j, f"{token}-{j}") for j in itertools.islice(waiting, 1)])


@contextlib.contextmanager
def cluster(scheduler: str | None, threads: int, close: Callable[[], None]) -> Iterator[Any]:
    """A dask client: of the scheduler at an address, else of threads in this process; in the end `close` is called
    in every process that worked.

    Raises
    ------
    CimpError
        No scheduler answers, or it has no workers.
    """
    import dask
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        try:
            if scheduler:
                client = stack.enter_context(Client(scheduler, set_as_default=False, timeout=_PATIENCE))
            else:
                stack.enter_context(dask.config.set(_NO_PAGES))
                cluster = LocalCluster(n_workers=1, threads_per_worker=threads, processes=False, **_UNHEARD)
                client = stack.enter_context(Client(stack.enter_context(cluster), set_as_default=False))
        except (OSError, ValueError) as error:
            raise CimpError(f"{scheduler}: no dask scheduler answers at this address ({error})") from error
        if scheduler and not client.nthreads():
            raise CimpError(f"{scheduler}: the scheduler has no workers; start some with 'dask worker {scheduler}'")
        try:
            yield client
        finally:
            if scheduler:
                with contextlib.suppress(Exception):  # the workers may be gone
                    client.run(close)
            else:
                close()
