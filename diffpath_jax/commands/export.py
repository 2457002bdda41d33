"""``diffpath export``: runs and data sets as files of other programs."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffpath_jax.commands.sample import checkpoint_step
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.npz_images import write_npz
from diffpath_jax.evaluation import feature_cache, image_sets
from diffpath_jax.evaluation.features.open import open_extractor, sources
from diffpath_jax.exchange import (
    class_folders,
    diffusers_pipeline,
    feature_statistics,
    parquet_images,
    run_parameters,
    state_dict,
)
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import new_folder
from diffpath_jax.io.progress import console
from diffpath_jax.io.registry import Registry
from diffpath_jax.runs import run as runs

SPLIT = "train"


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        name: as ``--as`` names it.
        of: the option that names what is exported.
        suffix: of the file; empty for a folder.
        write: (options) -> what was written, in words.
        summary: one line for the help.
        options: which of :data:`OPTIONS` it takes.
        required: which of them it cannot do without.
    """

    name: str
    of: Literal["workdir", "data"]
    suffix: str
    write: Callable[[argparse.Namespace], str]
    summary: str
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


def _write_run(arguments: argparse.Namespace) -> str:
    run, trained = _run_of(arguments)
    count = run_parameters.write_run(run, trained, arguments.out)
    return f"step {trained.step}, {count} arrays, digest {trained.digest[:16]}"


def _write_pipeline(arguments: argparse.Namespace) -> str:
    run, trained = _run_of(arguments)
    count = diffusers_pipeline.write_pipeline(run, trained, arguments.out)
    return f"step {trained.step}, {count} arrays of a UNet2DModel, and its scheduler"


def _write_state_dict(arguments: argparse.Namespace) -> str:
    run, trained = _run_of(arguments)
    flags = state_dict.write_state_dict(run, trained, arguments.out)
    return f"step {trained.step}; guided-diffusion needs {flags}"


def _run_of(arguments: argparse.Namespace) -> tuple[runs.Run, runs.Weights]:
    """Returns the run, and its parameters of the step that is asked for."""
    run = runs.open_run(arguments.workdir)
    step = checkpoint_step(getattr(arguments, "checkpoint", "latest"))
    averaged = not getattr(arguments, "raw_parameters", False)
    return run, runs.load_parameters(run, use_ema=averaged, step=step)


def _write_npz(arguments: argparse.Namespace) -> str:
    count = write_npz(open_dataset(arguments.data), getattr(arguments, "split", SPLIT), arguments.out)
    return f"{count} images, arr_0, with labels, arr_1"


def _write_folders(arguments: argparse.Namespace) -> str:
    dataset = open_dataset(arguments.data)
    dataset.check_images()
    suffix = getattr(arguments, "image_type", "png")
    splits = {arguments.split: ""} if "split" in arguments else {split: split for split in dataset.splits}
    if len(splits) == 1:
        splits = dict.fromkeys(splits, "")
    with new_folder(arguments.out) as folder:
        counts = [
            class_folders.write_class_folders(dataset, split, folder / below, suffix=suffix)
            for split, below in splits.items()
        ]
    return f"{sum(counts)} {suffix} files"


def _write_parquet(arguments: argparse.Namespace) -> str:
    count = parquet_images.write_parquet_set(open_dataset(arguments.data), arguments.out)
    return f'{count} images; datasets.load_dataset("{arguments.out}") opens it'


def _write_statistics(arguments: argparse.Namespace) -> str:
    images = image_sets.from_dataset(open_dataset(arguments.data), getattr(arguments, "split", SPLIT))
    extractor = open_extractor(arguments.features, resize=getattr(arguments, "resize", "tf_bilinear"))
    store = feature_cache.FeatureStore(getattr(arguments, "cache", feature_cache.default_directory()))
    count = feature_statistics.write_statistics(images, extractor, store, arguments.out)
    return f"mu and sigma of {extractor.name} of {count} images"


def _write_geojson(arguments: argparse.Namespace) -> str:
    from data_prep import places

    count = places.export_places(arguments.data, arguments.slides, arguments.out, places.write_geojson)
    return f"{count} patches, a file a slide, which names it"


def _write_coordinates(arguments: argparse.Namespace) -> str:
    from data_prep import places

    count = places.export_places(arguments.data, arguments.slides, arguments.out, places.write_coordinates)
    return f"{count} patches, a file a slide, which names it"


_CHECKPOINT = ("checkpoint", "raw_parameters")
FORMATS: Registry[ExportFormat] = Registry(
    "export format",
    (
        ExportFormat(
            "safetensors", "workdir", ".safetensors", _write_run, "parameters of this project", options=_CHECKPOINT
        ),
        ExportFormat("diffusers", "workdir", "", _write_pipeline, "a pipeline with UNet2DModel", options=_CHECKPOINT),
        ExportFormat(
            "adm", "workdir", ".pt", _write_state_dict, "a state dict of guided-diffusion", options=_CHECKPOINT
        ),
        ExportFormat(
            "npz", "data", ".npz", _write_npz, "arr_0 and arr_1, as guided-diffusion reads a set", options=("split",)
        ),
        ExportFormat(
            "folders", "data", "", _write_folders, "image files, a folder a class", options=("split", "image_type")
        ),
        ExportFormat("parquet", "data", "", _write_parquet, "a Hugging Face set of images"),
        ExportFormat(
            "statistics",
            "data",
            ".npz",
            _write_statistics,
            "mu and sigma of features, as FID tools read them",
            options=("split", "features", "resize", "cache"),
            required=("features",),
        ),
        ExportFormat(
            "geojson",
            "data",
            "",
            _write_geojson,
            "places and classes of patches for QuPath",
            options=("slides",),
            required=("slides",),
        ),
        ExportFormat(
            "hdf5",
            "data",
            "",
            _write_coordinates,
            "places of patches in CLAM's layout",
            options=("slides",),
            required=("slides",),
        ),
    ),
)
# Options of single formats, for argparse; what is not given is left to the format.
OPTIONS: dict[str, dict[str, Any]] = {
    "checkpoint": {"help": "of a run: latest, best, or a step (default: latest)"},
    "raw_parameters": {"action": "store_true", "help": "of a run: not the moving average"},
    "split": {"help": f"npz, statistics: whose images (default: {SPLIT}); folders: one split alone"},
    "image_type": {"choices": list(class_folders.ENCODERS), "help": "folders: of the files (default: png)"},
    "features": {"type": Path, "help": f"statistics: feature extractor, {sources()}"},
    "resize": {"help": "statistics: of Inception's images: tf_bilinear, as published (default), or clean"},
    "cache": {"type": Path, "help": f"statistics: features are kept here: {feature_cache.default_directory()}"},
    "slides": {"type": Path, "help": "geojson, hdf5: the slide, or folder of slides, that the set was made from"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", type=Path, help="a run directory")
    what.add_argument("--data", type=Path, help="or a data set or sample set")
    parser.add_argument("--out", required=True, type=Path, help="file or folder to write")
    listed = "; ".join(f"{form.name}: {form.summary}" for form in FORMATS.values())
    parser.add_argument("--as", dest="form", help=f"{listed} (default: by the name of --out)")
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, **option)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Export.

    Raises:
        DiffpathError: no such format, one that does not fit, or what :data:`FORMATS` refuse.
    """
    form = _format(arguments)
    written = form.write(arguments)
    console.print(f"{arguments.out}: {written}", soft_wrap=True, markup=False)
    return ExitCode.OK


def _format(arguments: argparse.Namespace) -> ExportFormat:
    """Returns the format that is asked for, with options that fit it."""
    of = "workdir" if arguments.workdir else "data"
    own = [form for form in FORMATS.values() if form.of == of]
    names = ", ".join(form.name for form in own)
    if arguments.form is None:
        form = next((form for form in own if form.suffix and form.suffix == arguments.out.suffix), None)
        if form is None:
            raise _wrong("--out", f"{arguments.out.name!r} does not tell a format", f"give --as with one of {names}")
    else:
        form = next((form for form in own if form.name == arguments.form), None)
        if form is None:
            raise _wrong("--as", f"{arguments.form!r} is no format of --{of}", f"use one of {names}")
    if form.suffix and arguments.out.suffix != form.suffix:
        raise _wrong("--out", f"{arguments.out.name!r} is not a {form.suffix} file", "name one")
    for name in OPTIONS:
        if name in arguments and name not in form.options:
            raise _wrong(f"--{name}", f"not an option of --as {form.name}", "leave it out")
        if name in form.required and name not in arguments:
            raise _wrong(f"--{name}", f"--as {form.name} needs it", "add it")
    return form


def _wrong(what: str, why: str, fix: str) -> DiffpathError:
    return DiffpathError(what, where="the command line", why=why, fix=fix)
