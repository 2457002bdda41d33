"""What ``--dry_run`` of several commands shares: devices that are not here, and what a program for them needs."""

import argparse
from collections.abc import Mapping, Sequence

import jax

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.progress import console
from diffpath_jax.runs import topology
from diffpath_jax.runs.topology import GIB


def add_topology(parser: argparse._ActionsContainer, *, what: str) -> None:
    """The option that names a slice of TPUs to compile ``what`` for."""
    text = f"compile {what} for this slice of TPUs, e.g. v5p:4x4x4; needs no TPU, takes minutes"
    parser.add_argument("--topology", help=text)


def check(arguments: argparse.Namespace) -> None:
    """Refuse a slice where something is to be done and not only described.

    Raises:
        DiffpathError: ``--topology`` without ``--dry_run``.
    """
    if arguments.topology and not arguments.dry_run:
        raise DiffpathError("--topology", where="the command line", why="of a dry run alone", fix="add --dry_run")


def slice_devices(name: str | None) -> Sequence[jax.Device]:
    """Returns the devices of a slice; none where no slice is named.

    Raises:
        DiffpathError: no libtpu, or no such slice.
    """
    if not name:
        return ()
    # Devices that are not here are to be described; those that are need not wake up.
    jax.config.update("jax_platforms", "cpu")
    return topology.slice_devices(name)


def compiled(program: topology.Program, *, images: int, given: str) -> dict[str, str]:
    """Returns what the compiler says of a program, of one device.

    Args:
        program: as it was compiled.
        images: that it works on at once, over all devices.
        given: what its arguments are.
    """
    fits = "fits" if program.free_bytes >= 0 else "does not fit"
    most = program.fitting_batch(images)
    rows = {
        "device": f"{program.devices} x {program.device_kind}: compiled for, nothing has run",
        "memory": f"{program.memory_bytes / GIB:.3g} GiB: {given} {program.argument_bytes / GIB:.3g}, "
        f"temporary {program.temporary_bytes / GIB:.3g}; {fits}"
        + (f", as about {most:,} images at once do" if most else ""),
        "step": f"{program.flop / 1e12:.4g} TFLOP a device, {images} images on all; by XLA's own estimate "
        f"{1e3 * program.seconds:.4g} ms, {program.share_of_peak:.0%} of the peak",
    }
    traffic = (f"{each.count} {kind} of {each.bytes / 1e6:.4g} MB" for kind, each in program.traffic.items())
    return {**rows, "collectives": ", ".join(traffic) or "none"}


def show(rows: Mapping[str, str]) -> None:
    """Print rows by name."""
    for name, value in rows.items():
        console.print(f"{name:13s} {value}", markup=False, soft_wrap=True)
