"""Shared fixtures. Eight simulated devices: a test that wants one asks for a mesh of one."""

import json
import os
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes into compiling the same few programs: share them between workers and runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import numpy as np
import pytest
import tifffile
from absl import flags

flags.FLAGS.mark_as_parsed()

MPP = 0.5
PINK, PURPLE, GLASS = (220, 130, 170), (110, 70, 140), (244, 243, 244)


def write_slide(path: Path, *, mpp: str | None = str(MPP), seed: int = 0, size: int = 1024) -> Path:
    """An Aperio-like slide: glass, a purple square (left) and a pink one (right), both grainy."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), GLASS, np.uint8)
    third = size // 8
    for left, colour in ((third, PURPLE), (size // 2, PINK)):
        block = np.array(colour) + rng.normal(0, 12, (size - 2 * third, 3 * third, 3))
        image[third : size - third, left : left + 3 * third] = block.clip(0, 255)
    scale = f"|MPP = {mpp}" if mpp is not None else ""
    description = f"Aperio Image Library v0\r\n{size}x{size} (256x256)|AppMag = 20{scale}"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    return path


def feature(name: str | None, left: float, top: float, right: float, bottom: float) -> dict:
    """A QuPath rectangle."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    classification = {"classification": {"name": name}} if name is not None else {}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", **classification},
    }


def write_annotations(path: Path, size: int = 1024) -> Path:
    third = size // 8
    features = [
        feature("Purple", third, third, 4 * third, size - third),
        feature("Pink", size // 2, third, size // 2 + 3 * third, size - third),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="session")
def slide(tmp_path_factory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "one.svs")


@pytest.fixture(scope="session")
def annotated(tmp_path_factory) -> Path:
    return write_annotations(tmp_path_factory.mktemp("annotations") / "one.geojson")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, slide, annotated) -> Path:
    """A small data set made by the real command: 16 px patches of two classes."""
    from diffpath_jax import cli

    out = tmp_path_factory.mktemp("prepared") / "dataset"
    fields = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "16", "--gap_um", "16"]
    assert cli.main(["prep", "--slides", str(slide), "--annotations", str(annotated), "--out", str(out), *fields]) == 0
    return out
