"""``diffpath doctor``: what this machine has and lacks for a kind of work, with the fix."""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from diffpath_jax.devices import hardware, processes
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.io.progress import console

# import name -> extra that brings it
PREP_PACKAGES = {"openslide": "prep", "shapely": "prep"}
OPTIONAL = {
    **PREP_PACKAGES,
    "matplotlib": "report",
    "jinja2": "report",
    "onnxruntime": "onnx",
    "tifffile": "tiff",
    "h5py": "hdf5",
    "dask": "dask",
    "huggingface_hub": "hub",
}
# Device files of accelerators.
ACCELERATORS = ("nvidia0", "nvidiactl", "accel0", "vfio/0", "kfd")
# Disk that a small collection, or a run with its checkpoints, fills.
PREP_GIB, TRAIN_GIB = 10, 20


@dataclass(frozen=True)
class Lack:
    """Something that is missing.

    Attributes:
        what: the thing.
        fix: how to get it.
        stops: whether the work that was asked about cannot be done without it.
    """

    what: str
    fix: str
    stops: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath doctor``."""
    parser.add_argument(
        "--for",
        dest="work",
        choices=sorted(WORK),
        help="ask for this work alone; the exit code is 7 where it cannot be done here",
    )
    text = "with --for pod: directory that every process should see"
    parser.add_argument("--shared", type=Path, metavar="DIR", help=text)
    processes.add_arguments(parser)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Print what there is, and what is missing for the work asked about.

    Raises:
        DiffpathError: the other processes cannot be reached.
    """
    processes.start_if_asked(arguments)
    for name, value in _rows():
        _line(name, value)
    lacks = list(WORK[arguments.work](arguments) if arguments.work else _general())
    for lack in lacks:
        _line(lack.what, f"fix: {lack.fix}")
    if any(lack.stops for lack in lacks):
        _line("not ready", f"for {arguments.work}")
        return ExitCode.SYSTEM
    if arguments.work:
        _line("ready", f"for {arguments.work}")
    return ExitCode.OK


def _rows() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    for name in ("diffpath", "jax", "flax", "orbax-checkpoint", "grain"):
        yield name, importlib.metadata.version(name)
    yield "cores", str(os.cpu_count())
    yield "free disk", f"{_free_gib():.0f} GiB"
    yield "devices", ", ".join(sorted({d.device_kind for d in jax.devices()})) + f" x {jax.device_count()}"
    if jax.process_count() > 1:
        yield "process", f"{jax.process_index()} of {jax.process_count()}, {jax.local_device_count()} devices here"


def _free_gib() -> float:
    return shutil.disk_usage(".").free / 2**30


def _general() -> Iterator[Lack]:
    """Yields what is not here, of all that diffpath can use; none of it is needed by everybody."""
    if jax.default_backend() == "cpu":
        fix = "pip install 'diffpath[cuda12]', [cuda13] or [tpu] on a machine that has one"
        yield Lack("no accelerator", fix, stops=False)
        if hardware.lacks_huge_pages():
            fix = f"export GLIBC_TUNABLES={hardware.ASK_FOR_HUGE_PAGES} (training is faster)"
            yield Lack("no huge pages", fix, stops=False)
    yield from _packages(OPTIONAL, stop=False)


def _packages(extras: Mapping[str, str], *, stop: bool) -> Iterator[Lack]:
    """Yields the packages that are not installed, of some with the extras that bring them."""
    for module, extra in extras.items():
        if importlib.util.find_spec(module) is None:
            yield Lack(f"no {module}", f"pip install 'diffpath[{extra}]'", stop)


def _for_prep(arguments: argparse.Namespace) -> Iterator[Lack]:
    """Yields what is missing to read slides and to write data sets here."""
    yield from _packages(PREP_PACKAGES, stop=True)
    yield from _disk(PREP_GIB)


def _for_train(arguments: argparse.Namespace) -> Iterator[Lack]:
    """Yields what is missing to train here: an accelerator that JAX does not see, a device that computes wrong."""
    unseen = [name for name in ACCELERATORS if Path("/dev", name).exists()]
    if jax.default_backend() == "cpu":
        fix = "pip install 'diffpath[cuda12]', [cuda13] or [tpu], the one of this machine's driver"
        if unseen:
            yield Lack(f"JAX does not see /dev/{unseen[0]}", fix)
        else:
            yield Lack("no accelerator", f"{fix}; a CPU trains small models", stops=False)
    for device in jax.local_devices():
        if not _computes(device):
            yield Lack(f"{device} computes wrong", "restart the machine, or leave this device out")
    yield from _disk(TRAIN_GIB)


def _computes(device: jax.Device) -> bool:
    """Returns whether a product of matrices on a device is right."""
    a = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    found = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))(jax.device_put(a, device))
    return bool(np.allclose(found, a.astype(np.float64) @ a, atol=1e-3))


def _disk(gib: int) -> Iterator[Lack]:
    if _free_gib() < gib:
        yield Lack(f"less than {gib} GiB of disk", "make room, or work in another directory")
    elif not os.access(".", os.W_OK):
        yield Lack("no right to write here", "work in another directory")


def _for_pod(arguments: argparse.Namespace) -> Iterator[Lack]:
    """Yields what keeps these processes from working as one; every process asks at the same time."""
    if jax.process_count() == 1:
        yield Lack("one process alone", "start the command in every process: --distributed, or --coordinator")
        return
    yield from _for_train(arguments)
    if len(set(_everywhere(_number(_versions())))) > 1:
        yield Lack("processes of other versions", "install the same packages everywhere")
    if len(set(_everywhere(jax.local_device_count()))) > 1:
        yield Lack("processes with other numbers of devices", "give every process as many")
    if arguments.shared:
        yield from _shared(arguments.shared)


def _versions() -> str:
    return json.dumps({name: importlib.metadata.version(name) for name in ("diffpath", "jax", "jaxlib", "numpy")})


def _number(text: str) -> int:
    """A number of 31 bits that stands for a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) >> 1


def _everywhere(value: int) -> list[int]:
    """The value of every process."""
    return np.ravel(multihost_utils.process_allgather(np.asarray(value, np.int32))).tolist()


def _shared(directory: Path) -> Iterator[Lack]:
    """Yields a lack where a process does not see what the first one writes."""
    number = processes.agreed(_number(uuid.uuid4().hex))
    path = directory / f".diffpath-{number}"
    written = True
    if processes.is_first():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            written = False
    processes.wait_for_all("doctor: written")
    blind = [index for index, sees in enumerate(_everywhere(int(path.exists()))) if not sees]
    if processes.is_first() and written:
        path.unlink(missing_ok=True)
    can_write = processes.agreed(int(written))
    if not can_write or blind:
        who = f"processes {blind} do not see" if can_write else "process 0 cannot write to"
        yield Lack(f"{who} {directory}", "mount one directory at the same path for all")


WORK: dict[str, Callable[[argparse.Namespace], Iterator[Lack]]] = {
    "prep": _for_prep,
    "train": _for_train,
    "pod": _for_pod,
}


def _line(name: str, value: str) -> None:
    console.print(f"{name:18s} {value}", markup=False, soft_wrap=True)
