"""The device that programs are compiled for: where the best way to compute something differs between devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_absent: ContextVar[str] = ContextVar("_absent", default="")


def platform() -> str:
    """Kind of device: ``cpu``, ``gpu`` or ``tpu``."""
    return _absent.get() or jax.default_backend()


@contextmanager
def compiling_for(kind: str) -> Iterator[None]:
    """Trace for a kind of device that need not be here."""
    token = _absent.set(kind)
    try:
        yield
    finally:
        _absent.reset(token)


def compute_capability() -> float:
    """Generation of an NVIDIA GPU, 9.0 for Hopper; 0 for other devices, 9.0 where the device is not here."""
    if jax.default_backend() != platform():
        return 9.0
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:  # AMD's GPUs have names here
        return 0.0
