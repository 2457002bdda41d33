"""Files of images, and the command that prepares them."""

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import open_dataset

SIDE = 32


def patch(seed, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of 12 images; image i of either is of patient i // 2."""
    folder = tmp_path_factory.mktemp("patches") / "images"
    for number, name in enumerate(("Tumour", "Normal mucosa")):
        for i in range(12):
            write(folder / name / f"p{i // 2}_{i}.png", patch(100 * number + i))
    return folder


@pytest.fixture
def prep(tmp_path, capsys):
    def run(*words, out="out"):
        code = cli.main([str(word) for word in ("prep", "--out", tmp_path / out, "--workers", 0, *words)])
        shown = capsys.readouterr().err
        return code, [line for line in shown.splitlines() if line.startswith("error")], " ".join(shown.split())

    return run


def records_of(out):
    dataset = open_dataset(out)
    return dataset, [record for split in dataset.splits for record in dataset.read(split)]
