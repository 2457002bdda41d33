"""Peak speed of devices, and the share of it that a run uses."""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Linux gives processes that ask for it pages of 2 MiB, where this file says [madvise]; glibc asks with this setting. On
# CPUs XLA takes its working memory anew for every step, and small pages of it cost a tenth of the time.
_HUGE_PAGES, ASK_FOR_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled"), "glibc.malloc.hugetlb=1"
# Side of the matrices that stand for the peak: large enough to keep the unit busy, small enough to be quick.
_PEAK_SIDE = {"cpu": 1024}
_DEFAULT_SIDE = 8192
_PEAK_CALLS = 4
# Products of a round: a GPU's rate does not show where each is waited for.
_PEAK_PRODUCTS = 8


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, unless JAX_COMPILATION_CACHE_DIR says where already.

    One folder a host: a program compiled for one CPU may not run on another.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "diffpath" / "xla" / platform.node()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def lacks_huge_pages(setting: Path = _HUGE_PAGES, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns True if this process could have huge pages and does not ask for them: ``ASK_FOR_HUGE_PAGES``."""
    try:
        offered = "[madvise]" in setting.read_text(encoding="utf-8")
    except OSError:
        return False
    return offered and ASK_FOR_HUGE_PAGES not in environment.get("GLIBC_TUNABLES", "").split(":")


def options_for_one_call() -> dict[str, Any] | None:
    """Options of ``jax.jit`` for a program that runs once: on CPUs, optimising it takes longer than it gains."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def measured_peak(dtype: DTypeLike) -> float:
    """FLOP a second (2 x MAC) of one device in products of random square matrices: the best of a few rounds.

    Several products follow each other without a wait, as the steps of a training run do.
    """
    side = _PEAK_SIDE.get(jax.default_backend(), _DEFAULT_SIDE)
    # Random numbers: equal ones take less power, and GPUs run faster on them.
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.float32).astype(dtype)
    multiply = jax.jit(lambda a: a @ a)
    multiply(a).block_until_ready()
    best = float("inf")
    for _ in range(_PEAK_CALLS):
        start = time.perf_counter()
        jax.block_until_ready([multiply(a) for _ in range(_PEAK_PRODUCTS)])
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 * _PEAK_PRODUCTS / best


class Throughput:
    """Images a second and share of the measured peak, of training alone: pauses do not count.

    Args:
        images: images of a step.
        peak: FLOP a second of all devices together; 0 where unknown.
    """

    def __init__(self, *, images: int, peak: float) -> None:
        self._images, self._peak = images, peak
        self._start = time.perf_counter()
        self._paused = 0.0
        self._steps, self._flops = 0, 0.0

    def count(self, flops: float) -> None:
        """One more step, of so many FLOP over all devices; 0 where unknown."""
        self._steps += 1
        self._flops += flops

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what happens inside: previews, validation, checkpoints."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """Numbers for the log since the last call; the device must have finished the steps counted."""
        now = time.perf_counter()
        seconds = max(now - self._start - self._paused, 1e-9)
        numbers = {"images_per_second": self._steps / seconds * self._images}
        if self._flops and self._peak:
            numbers["share_of_peak"] = self._flops / seconds / self._peak
        self._start, self._paused, self._steps, self._flops = now, 0.0, 0, 0.0
        return numbers
