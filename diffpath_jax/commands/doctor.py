"""``diffpath doctor``: what this machine has and lacks, with the fix."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

import jax

from diffpath_jax.devices import hardware
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.io.progress import console

# import name -> extra that brings it
OPTIONAL = {
    "openslide": "prep",
    "shapely": "prep",
    "matplotlib": "report",
    "jinja2": "report",
    "onnxruntime": "onnx",
    "tifffile": "tiff",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def main(arguments: argparse.Namespace) -> ExitCode:
    """Print what there is."""
    disk = shutil.disk_usage(".")
    rows = {
        "python": platform.python_version(),
        "diffpath": importlib.metadata.version("diffpath"),
        **{name: importlib.metadata.version(name) for name in ("jax", "flax", "orbax-checkpoint", "grain")},
        "cores": str(os.cpu_count()),
        "free disk": f"{disk.free / 2**30:.0f} GiB",
        "devices": ", ".join(sorted({d.device_kind for d in jax.devices()})) + f" x {jax.device_count()}",
    }
    for name, value in rows.items():
        _line(name, value)
    for name, fix in _lacking():
        _line(name, f"fix: {fix}")
    return ExitCode.OK


def _lacking() -> Iterator[tuple[str, str]]:
    """Lists what is missing, and how to get it."""
    if jax.default_backend() == "cpu":
        yield "no accelerator", "pip install 'diffpath[cuda12]', [cuda13] or [tpu] on a machine that has one"
        if hardware.lacks_huge_pages():
            yield "no huge pages", f"export GLIBC_TUNABLES={hardware.ASK_FOR_HUGE_PAGES} (training is faster)"
    for module, extra in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            yield f"no {module}", f"pip install 'diffpath[{extra}]'"


def _line(name: str, value: str) -> None:
    console.print(f"{name:18s} {value}", markup=False, soft_wrap=True)
