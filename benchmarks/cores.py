"""Processes side by side, each on a core of its own, so that what they measure is theirs."""

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# One thread each, no accelerator, and nothing that was compiled before: compiling is part of the time.
_ALONE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


@dataclass(frozen=True)
class Work:
    """A Python module with its options.

    Attributes:
        words: the module's name, then its options.
        log: file for what it prints.
        done: file that it writes last; none where it finds out by itself that nothing is left to do.
    """

    words: tuple[str, ...]
    log: Path
    done: Path | None = None


def run_all(works: Sequence[Work]) -> None:
    """Run what is not done yet, as many at once as there are cores.

    Raises:
        subprocess.CalledProcessError: one ended with an error; the others run to their ends.
    """
    free = sorted(os.sched_getaffinity(0))
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in free:
        cores.put(core)

    def run(work: Work) -> None:
        if work.done and work.done.exists():
            return
        core = cores.get()
        try:
            _run(work, core)
        finally:
            cores.put(core)
        print(f"done: {' '.join(work.words)}", flush=True)

    with ThreadPoolExecutor(len(free)) as pool:
        list(pool.map(run, works))


def _run(work: Work, core: int) -> None:
    work.log.parent.mkdir(parents=True, exist_ok=True)
    with work.log.open("w") as log:
        subprocess.run(
            ["taskset", "--cpu-list", str(core), sys.executable, "-m", *work.words],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ALONE},
        )
