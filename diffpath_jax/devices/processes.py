"""Several processes as one program: how they start, agree, and stop at the same step.

Each process runs the same command and owns some devices of one mesh. The first process writes what exists once
(config, metrics, seals); all take part in checkpoints.
"""

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffpath_jax.io import files
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.options import ranged
from diffpath_jax.ranges import Natural, Positive

# A process that has not been heard of for so long is taken for dead, and the others stop.
HEARTBEAT_SECONDS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that several processes can run together."""
    several = parser.add_argument_group("several processes", "run the same command once for each")
    several.add_argument("--distributed", action="store_true", help="find the others from the cluster (TPU, SLURM...)")
    several.add_argument("--coordinator", help="HOST:PORT of process 0, where the cluster does not say")
    several.add_argument("--num_processes", type=ranged(Positive), help="how many there are")
    several.add_argument("--process_id", type=ranged(Natural), help="number of this one, from 0")


def start_if_asked(arguments: argparse.Namespace) -> None:
    """Join the other processes if the options of :func:`add_arguments` say that there are any."""
    if arguments.distributed or arguments.coordinator:
        start(arguments.coordinator, arguments.num_processes, arguments.process_id)


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes; must come before anything else asks JAX for devices.

    Args:
        coordinator: HOST:PORT of process 0. None, with the other two, finds all three from the cluster: TPU pods,
            SLURM, Open MPI and Kubernetes are known to JAX.
        num_processes: how many processes there are.
        process_id: number of this one, from 0.

    Raises:
        DiffpathError: the others cannot be reached, or the cluster is not one that JAX knows.
    """
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise DiffpathError(
            "start of several processes",
            where=coordinator or "this cluster",
            why=str(error).strip().splitlines()[0],
            fix="give --coordinator HOST:PORT, --num_processes and --process_id to every process",
        ) from error


def is_first() -> bool:
    """True if this process writes what exists once."""
    return jax.process_index() == 0


@contextmanager
def own_directory(directory: Path) -> Iterator[None]:
    """The first process holds the directory for all (see :func:`diffpath_jax.io.files.own_directory`).

    A new one is removed again if the work fails on bad input before anything is written.

    Raises:
        DiffpathError: another job holds it (exit code 4).
    """
    if not is_first():
        yield
        return
    with files.new_directory_or_nothing(directory), files.own_directory(directory):
        yield


def wait_for_all(what: str) -> None:
    """Return when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


class Team:
    """These processes, as :func:`diffpath_jax.data.job.run` knows a team."""

    @property
    def index(self) -> int:
        """Number of this process."""
        return jax.process_index()

    @property
    def count(self) -> int:
        """Number of processes."""
        return jax.process_count()

    def wait(self, reason: str, /) -> None:
        """Returns when every process has come here."""
        wait_for_all(reason)


def agreed(value: int) -> int:
    """The first process's value, in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value, np.int64)))


@contextmanager
def stop_noticed() -> Iterator[Callable[[int], bool]]:
    """Notice SIGTERM without interrupting the work under way.

    Yields:
        A function of the number of steps taken, to be asked after every step; true when it is time to save and stop.
        With several processes, a SIGTERM to any of them stops all at the same later step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: event.is_set()
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield lambda step: event.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
