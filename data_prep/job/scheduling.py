"""Schedulers of units of work: this process, processes of their own, or a Dask cluster.

Each way is a function ``(task, items) -> outcomes``: one outcome an item, in the order in which they finish. An item
that raises fails alone. An item whose worker dies (a crash in C code, the out-of-memory killer) is run again when all
the others are done, with nothing beside it: only what dies then is to blame, as Dask also blames what was waiting for
the dead worker, and the out-of-memory killer may choose a bystander.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from diffpath_jax.io.errors import DiffpathError

Task = Callable[[Any], Any]
LOCAL_CLUSTER = "local:"


@dataclass(frozen=True)
class Outcome:
    """The result of one item, or why there is none.

    Attributes:
        index: its position among the items.
        result: what the task returned.
        error: why it returned nothing: a :class:`DiffpathError`, ``MemoryError``, :class:`UnexpectedError` or
            :class:`WorkerDied`.
    """

    index: int
    result: Any
    error: Exception | None


Scheduler = Callable[[Task, Sequence[Any]], Iterator[Outcome]]


class UnexpectedError(Exception):
    """A task raised what no task should: a bug. Its text is the traceback, which would not survive the journey."""


class WorkerDied(Exception):
    """The process that ran an item ended without an answer."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def choose(*, workers: int, cluster: str | None) -> contextlib.AbstractContextManager[Scheduler]:
    """The way to run a job; what it started ends with the ``with`` block.

    Args:
        workers: processes to start here; with 0 or 1, work is done in this process.
        cluster: address of a Dask scheduler, or ``local:N`` for a cluster of N workers on this machine.

    Raises:
        DiffpathError: Dask is not installed, or no scheduler answers.
    """
    if cluster is not None:
        return _on_cluster(cluster)
    return _in_processes(workers) if workers > 1 else contextlib.nullcontext(_in_this_process)


def _attempt(task: Task, item: Any, index: int) -> Outcome:
    try:
        return Outcome(index, task(item), None)
    except DiffpathError as error:
        return Outcome(index, None, error)
    except MemoryError as error:
        # Libraries have kinds of their own, not all of which survive the journey.
        return Outcome(index, None, MemoryError(str(error)))
    except Exception:
        return Outcome(index, None, UnexpectedError(traceback.format_exc()))


def _in_this_process(task: Task, items: Sequence[Any]) -> Iterator[Outcome]:
    for index, item in enumerate(items):
        yield _attempt(task, item, index)


def _with_second_chance(
    attempts: Callable[[Task, Sequence[Any], Sequence[int]], Iterator[Outcome]], task: Task, items: Sequence[Any]
) -> Iterator[Outcome]:
    """Outcomes of all items; those whose worker died are attempted again, one at a time."""
    died = []
    for outcome in attempts(task, items, range(len(items))):
        if isinstance(outcome.error, WorkerDied):
            died.append(outcome.index)
        else:
            yield outcome
    for index in sorted(died):
        yield from attempts(task, items, [index])


class _Worker:
    """A spawned process that runs what it is sent. One process, one item: whose death it is needs no guessing."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        # Ctrl-C reaches the whole process group; only this process answers it. A blocked signal stays blocked in a
        # child, and here it is delivered as soon as the child has started.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def stop(self) -> None:
        """End the process at once; files it was writing are under temporary names."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    """Answer requests until the owner ends, however that ends."""
    threading.Thread(target=_end_with_owner, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(_attempt(*pipe.recv()))


def _end_with_owner() -> None:
    if owner := multiprocessing.parent_process():
        owner.join()
    os._exit(1)


class _Pool:
    """Workers, started when there is work for them and replaced when they die."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, int]] = {}

    def attempts(self, task: Task, items: Sequence[Any], indices: Sequence[int]) -> Iterator[Outcome]:
        """One attempt at each of some items."""
        waiting = deque(indices)
        while waiting or self._busy:
            while waiting and len(self._busy) < self._workers:
                index = waiting.popleft()
                self._hand_out(task, items[index], index)
            for pipe in wait(list(self._busy)):
                assert isinstance(pipe, Connection)
                yield self._take_back(pipe)

    def _hand_out(self, task: Task, item: Any, index: int) -> None:
        worker = self._idle.pop() if self._idle else _Worker()
        # A worker that dies before it reads the item shows as one that died of it, and gets its second chance.
        with contextlib.suppress(BrokenPipeError):
            worker.pipe.send((task, item, index))
        self._busy[worker.pipe] = worker, index

    def _take_back(self, pipe: Connection) -> Outcome:
        worker, index = self._busy.pop(pipe)
        try:
            outcome = pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            code = worker.process.exitcode
            worker.stop()
            return Outcome(index, None, WorkerDied(f"exit code {code}"))
        self._idle.append(worker)
        return outcome

    def stop(self) -> None:
        """End every process."""
        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            worker.stop()


@contextlib.contextmanager
def _in_processes(workers: int) -> Iterator[Scheduler]:
    pool = _Pool(workers)
    try:
        yield functools.partial(_with_second_chance, pool.attempts)
    finally:
        pool.stop()


@contextlib.contextmanager
def _on_cluster(address: str) -> Iterator[Scheduler]:
    # Dask is an extra, and takes a second to load.
    try:
        import dask
        import distributed
    except ImportError as error:
        raise _no_cluster(address, "Dask is not installed", "pip install 'diffpath[dask]'") from error
    with contextlib.ExitStack() as stack:
        target: Any = address
        if address.startswith(LOCAL_CLUSTER):
            count = address.removeprefix(LOCAL_CLUSTER)
            if not count.isdecimal() or int(count) < 1:
                raise _no_cluster(address, "not a number of workers", "write e.g. --scheduler local:4")
            # An item that kills its worker gets its second chance from us, not three more from Dask.
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
            target = stack.enter_context(
                distributed.LocalCluster(n_workers=int(count), threads_per_worker=1, dashboard_address=None)
            )
        try:
            client = stack.enter_context(distributed.Client(target, set_as_default=False))
        except (OSError, ValueError) as error:
            raise _no_cluster(address, f"no scheduler answers ({error})", "start one, or check its address") from error
        yield functools.partial(_with_second_chance, functools.partial(_cluster_attempts, client))


def _no_cluster(address: str, why: str, fix: str) -> DiffpathError:
    return DiffpathError("Dask cluster", where=f"--scheduler {address}", why=why, fix=fix)


def _cluster_attempts(client: Any, task: Task, items: Sequence[Any], indices: Sequence[int]) -> Iterator[Outcome]:
    """One attempt at each of some items, on a cluster."""
    import distributed

    futures = {client.submit(_attempt, task, items[index], index, pure=False): index for index in indices}
    try:
        for future in distributed.as_completed(list(futures), loop=client.loop):
            # Forgotten at once: a result that is lost with its worker would be computed again.
            index, error = futures.pop(future), future.exception()
            if isinstance(error, distributed.KilledWorker):
                yield Outcome(index, None, WorkerDied("a Dask worker was lost"))
            elif error is not None:
                # The task never ran: an installation without this package, a lost scheduler.
                yield Outcome(index, None, UnexpectedError(f"Dask: {error!r}"))
            else:
                yield future.result()
    finally:
        client.cancel(list(futures))
