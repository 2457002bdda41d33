"""Studies of public data on made images in the layouts of those data, with the lines that the documentation gives."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "STUDY.md"
NCT_CRC_CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
UNITOPATHO_CLASSES = {"NORM": "NORM", "HP": "HP", "TA.LG": "TA", "TA.HG": "TA", "TVA.LG": "TVA", "TVA.HG": "TVA"}


def texture(number: int, size: int) -> np.ndarray:
    """Grainy tissue in a colour of its own."""
    rng = np.random.default_rng(number)
    colour = np.array([150, 90, 150]) + 10 * (number % 7) * np.array([1, -1, 0])
    return (colour + rng.normal(0, 20, (size, size, 3))).clip(0, 235).astype(np.uint8)


def run_lines(number: int) -> None:
    """Runs a block of Python of the documentation in the current directory."""
    exec(re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)[number], {})


def make_nct_crc(train: int, test: int) -> None:
    for number, name in enumerate(NCT_CRC_CLASSES):
        for split, count in (("train", train), ("test", test)):
            folder = Path("nct_crc", split, name)
            folder.mkdir(parents=True)
            for index in range(count):
                path = folder / f"{name}-{'ACDEFGHIKLMNPQRSTVWY'[index % 20] * 3}{split.upper()}{index:04d}.tif"
                tifffile.imwrite(path, texture(1000 * number + index + (500 if split == "test" else 0), 224))
    run_lines(0)


def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for pyvips: reads a PNG file, and writes a tiled TIFF file."""

    def new_from_file(path: str) -> types.SimpleNamespace:
        pixels = np.asarray(Image.open(path))
        return types.SimpleNamespace(
            tiffsave=lambda out, **options: tifffile.imwrite(out, pixels, tile=(256, 256), photometric="rgb")
        )

    module = types.SimpleNamespace(Image=types.SimpleNamespace(new_from_file=new_from_file))
    monkeypatch.setitem(sys.modules, "pyvips", module)


def make_unitopatho(monkeypatch: pytest.MonkeyPatch, train: int, test: int) -> None:
    number = 0
    for split, count in (("train", train), ("test", test)):
        rows = ["image_id,top_label,top_label_name"]
        for label, name in enumerate(UNITOPATHO_CLASSES):
            Path("800", name).mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                number += 1
                slide = f"{number}-B2-{name.replace('.', '')}"
                image = f"{slide}.ndpi_ROI__mpp0.44_reg000_crop_sk00000_({number}531,14365,1812,1812).png"
                Image.fromarray(texture(number, 1812)).save(Path("800", name, image), compress_level=1)
                rows.append(f'"{image}",{label},{name}')
        Path("800", f"{split}.csv").write_text("\n".join(rows) + "\n")
    tiled(monkeypatch)
    run_lines(1)


def study(name: str, *words: str) -> int:
    """Runs the debug variant of a study, in this directory."""
    return cli.main(["study", "--config", f"diffpath:{name}:debug", "--workdir", "study", *words])


def run_whole(name: str) -> dict:
    """What a study finds in a process of its own, whose programs are optimised."""
    words = ["study", "--config", f"diffpath:{name}:debug", "--workdir", name, *WORDS[name]]
    environment = {**os.environ, "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "diffpath_jax.cli", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(Path(name, "study.json").read_text())


WORDS = {"study_nct_crc": [], "study_unitopatho": ["--config.slides=slides"]}


def counts(name: str) -> dict[str, dict[str, int]]:
    """Images of a data set of the study by split and class."""
    dataset = open_dataset(Path("study", name, "dataset"))
    classes = dataset.schema.classes
    found: dict[str, dict[str, int]] = {}
    for split in dataset.splits:
        labels = [record.label for record in dataset.read(split)]
        found[split] = {classes[label]: labels.count(label) for label in sorted(set(labels))}
    return found


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_colorectal_patches_become_a_data_set_tested_on_its_own_patients():
    make_nct_crc(train=12, test=2)
    assert study("study_nct_crc", "--step", "nct_crc/dataset") == 0
    found = counts("nct_crc")
    assert set(found) == {"train", "val", "test"}
    assert found["test"] == dict.fromkeys(map(str.lower, NCT_CRC_CLASSES), 2)
    # About a tenth of the training images validate; none is lost.
    assert sum(found["train"].values()) + sum(found["val"].values()) == 12 * len(NCT_CRC_CLASSES)
    assert 2 <= sum(found["val"].values()) <= 25


@pytest.mark.full
def test_the_polyps_become_nine_fields_an_image_in_the_classes_of_the_paper(monkeypatch):
    make_unitopatho(monkeypatch, train=2, test=1)
    assert study("study_unitopatho", "--config.slides=slides", "--step", "pkgh_224/dataset") == 0
    found = counts("pkgh_224")
    # 1812 px of 0.4415 um are 800 um: three fields of 224 um a side. TA and TVA are two of their classes each.
    assert found["test"] == {"NORM": 9, "HP": 9, "TA": 18, "TVA": 18}
    assert sum(found["train"].values()) + sum(found["val"].values()) == 9 * 2 * len(UNITOPATHO_CLASSES)
    # The first of the twelve training patients, and the eleventh.
    assert sum(found["val"].values()) == 18
    # Of 32 px in this variant.
    assert open_dataset(Path("study/pkgh_224/dataset")).details.mpp == pytest.approx(224 / 32)


@pytest.mark.full
@pytest.mark.parametrize("name", WORDS)
def test_the_whole_study_runs_to_its_end(monkeypatch, name):
    if name == "study_nct_crc":
        make_nct_crc(train=30, test=10)
    else:
        make_unitopatho(monkeypatch, train=4, test=2)
    assert run_whole(name)["missing"] == {}
