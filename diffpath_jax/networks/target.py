"""The device that programs are compiled for: where the best way to compute something differs between devices."""

import jax


def platform() -> str:
    """Kind of device: ``cpu``, ``gpu`` or ``tpu``; replaced by who compiles for a device that is not here."""
    return jax.default_backend()


def compute_capability() -> float:
    """Generation of an NVIDIA GPU, 9.0 for Hopper; 0 for other devices, 9.0 where the device is not here."""
    if jax.default_backend() != platform():
        return 9.0
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:  # AMD's GPUs have names here
        return 0.0
