"""How fast fields of view are read, 448 px of a slide to 128 px, beside the plain loop; and how fast grain reads them.

    python -m benchmarks.slides --out benchmarks/results/NAME.json [--side 20000] [--tiny]

The slide is made here: Aperio-style, one level of JPEG tiles, tissue-like grain. In turns in one process, by processor
time, as other work may load the machine:

- ours: ``data_prep.slide.slides.read_fields``, opening and checking the file included;
- plain loop: OpenSlide ``read_region`` for each field, then Pillow's resize by BOX, its filter by area; and by BICUBIC;
- ``read_region`` alone, which no loop around OpenSlide can beat.

Pixels are compared with area averages in float64 of what OpenSlide shows: ``off by`` is in grey levels of 255, where
0.5 is rounding. BOX counts a pixel fully or not at all, so it is off, as 448 / 128 is no whole number.

Then the same rows of fields in one process and in two; and batches of 128 from a data set of the patches, through the
training pipeline, decoding and augmentation included; by the wall, which other work on the machine slows down, and, in
threads, by processor time. The goals: 2.5 times the plain loop with BOX, 4,000 images a
second with grain on 2 cores.
"""

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
from absl import flags
from PIL import Image

from benchmarks import jpeg_slide, measure
from benchmarks.measure import Row
from data_prep.job import scheduling
from data_prep.slide import slides
from data_prep.slide.slides import Box
from diffpath_jax.data import pipeline, records, writer
from diffpath_jax.data.details import Details
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.io.files import write_json

FIELD_PX, PATCH_PX, TILE_PX, MPP = 448, 128, 256, 0.5
MAX_TEXTURE_PX = 2048
MAX_OFF = 0.51


def tissue_like(side: int) -> np.ndarray:
    """Haematoxylin and eosin over several scales: (side, side, 3) uint8, as hard to compress as a scanned section."""
    rng = np.random.default_rng(0)

    def grain(sigma: float) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.standard_normal((side, side)).astype(np.float32), (0, 0), sigma)
        return noise / noise.std()

    eosin = np.clip(grain(20) * 0.25 + grain(4) * 0.2 + grain(1.2) * 0.12 + 0.6, 0, 2)
    haematoxylin = np.clip((grain(4) - 0.9) * 1.2 + grain(1) * 0.15, 0, 1.8)
    density = haematoxylin[..., None] * [0.65, 0.70, 0.29] + eosin[..., None] * [0.04, 0.59, 0.07]
    return (255 * np.exp(-density)).astype(np.uint8)


def make_slide(path: Path, side: int) -> Path:
    """A slide of ``side`` x ``side`` pixels; every tile is cut from another place of one texture."""
    texture = tissue_like(min(side, MAX_TEXTURE_PX))
    room = len(texture) - TILE_PX

    def tiles() -> Iterator[bytes]:
        for y, x in itertools.product(range(0, side, TILE_PX), range(0, side, TILE_PX)):
            top, left = y * 7 % room, x * 5 % room
            yield jpeg_slide.encode(texture[top : top + TILE_PX, left : left + TILE_PX])

    level = jpeg_slide.Level((side, side), tiles())
    return jpeg_slide.write(path, [level], side=TILE_PX, description=jpeg_slide.aperio(MPP, 20))


def grid(side: int) -> list[Box]:
    """Fields side by side over the whole slide, row by row."""
    places = range(0, side - FIELD_PX + 1, FIELD_PX)
    return [Box(float(x), float(y), float(FIELD_PX), float(FIELD_PX)) for y in places for x in places]


def read_ours(path: Path, boxes: Sequence[Box]) -> list[np.ndarray]:
    """Through the project."""
    return list(slides.read_fields(slides.open_slide(path), boxes, patch_px=PATCH_PX))


def read_plain(path: Path, boxes: Sequence[Box], shrink: Callable[[Image.Image], Any]) -> list[np.ndarray]:
    """Field by field through OpenSlide."""
    handle = openslide.OpenSlide(path)
    size = (FIELD_PX, FIELD_PX)
    return [np.asarray(shrink(handle.read_region((int(box.x), int(box.y)), 0, size))) for box in boxes]


def resized(image: Image.Image, how: Image.Resampling) -> Image.Image:
    """What most scripts do with a region."""
    return image.convert("RGB").resize((PATCH_PX, PATCH_PX), how)


def area_average(image: Image.Image) -> np.ndarray:
    """Each stored pixel is the mean of the area that it covers, pixels at its edges in part: (px, px, 3) float64."""
    edges = np.arange(PATCH_PX + 1) * FIELD_PX / PATCH_PX
    pixels = np.arange(FIELD_PX)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, 1) * PATCH_PX / FIELD_PX
    return np.einsum("yv,xu,vuc->yxc", weights, weights, np.asarray(image.convert("RGB"), float), optimize=True)


def speed_rows(path: Path, boxes: Sequence[Box], rounds: int) -> list[Row]:
    """Patches a core-second, and how far the pixels are from exact averages."""
    ways: dict[str, Callable[[Sequence[Box]], list[np.ndarray]]] = {
        "ours": functools.partial(read_ours, path),
        "plain loop, BOX": lambda some: read_plain(path, some, lambda x: resized(x, Image.Resampling.BOX)),
        "plain loop, BICUBIC": lambda some: read_plain(path, some, lambda x: resized(x, Image.Resampling.BICUBIC)),
        "read_region alone": lambda some: read_plain(path, some, lambda x: 0),
    }
    calls = {name: functools.partial(way, boxes) for name, way in ways.items()}
    taken = measure.in_turns(calls, rounds=rounds, warmup=0, clock=time.process_time)
    some = boxes[:: max(1, len(boxes) // 50)]
    exact = np.stack(read_plain(path, some, area_average))
    rows = []
    for name, seconds in taken.items():
        times = measure.times_of(seconds)
        row: Row = {"what": name, "patches": len(boxes), "patches / core-s": len(boxes) / times.median}
        row |= {"CPU s": times.median, "fastest s": times.fastest, "slowest s": times.slowest, "n": times.count}
        row["ours x this"] = measure.median_ratio(seconds, taken["ours"])
        if name != "read_region alone":
            difference = np.abs(np.stack(ways[name](some)) - exact)
            row |= {"off by, mean": float(difference.mean()), "off by, most": float(difference.max())}
        rows.append(row)
    off = rows[0]["off by, most"]
    assert isinstance(off, float)
    if off > MAX_OFF:
        raise SystemExit(f"pixels are off by {off}: not the same fields")
    return rows


def count_ours(path: Path, boxes: Sequence[Box]) -> float:
    """Read, and say how much processor time it took. For other processes, whose patches nobody wants."""
    start = time.process_time()
    for _ in slides.read_fields(slides.open_slide(path), boxes, patch_px=PATCH_PX):
        pass
    return time.process_time() - start


def process_rows(path: Path, boxes: Sequence[Box], rounds: int) -> list[Row]:
    """The same fields by one process and by two of the project's, each with its own rows of them."""
    half = len(boxes) // 2
    parts = [list(boxes[:half]), list(boxes[half:])]
    with scheduling.choose(workers=2, cluster=None) as two:
        task = functools.partial(count_ours, path)
        used: list[float] = []

        def together() -> None:
            used.append(sum(outcome.result for outcome in two(task, parts)))

        calls = {"1 process": lambda: [task(part) for part in parts], "2 processes": together}
        taken = measure.in_turns(calls, rounds=rounds)
    return [
        {
            "what": name,
            "wall s": measure.times_of(seconds).median,
            "patches / s": len(boxes) / measure.times_of(seconds).median,
            "speed-up": measure.median_ratio(taken["1 process"], seconds),
            "CPU s": measure.times_of(used[1:]).median if name == "2 processes" else None,
        }
        for name, seconds in taken.items()
    ]


def make_dataset(folder: Path, images: Sequence[np.ndarray], copies: int) -> Dataset:
    """A data set as ``diffpath prep`` writes it, of patches again and again."""
    schema = records.Schema((PATCH_PX, PATCH_PX), ("tissue",))
    chosen = list(itertools.islice(itertools.cycle(images), copies))
    items = (
        records.encode(records.PatchRecord(image, 0, "slide", "patient", MPP, MPP * FIELD_PX, index))
        for index, image in enumerate(chosen)
    )
    return writer.write_dataset(
        folder,
        name="bench",
        schema=schema,
        splits={"train": [0] * copies},
        items={"train": items},
        details=Details("real", mpp=MPP, fov_um=MPP * FIELD_PX),
        card="",
    )


def grain_rows(dataset: Dataset, batches: int, rounds: int) -> list[Row]:
    """Images a second of the training pipeline, from shards to augmented batches."""
    # Grain's processes look at flags, which nobody has parsed here.
    flags.FLAGS.mark_as_parsed()
    rows: list[Row] = []
    # One after another: a stream that waits fills its buffers, and would be found full.
    for augment, workers in (("none", 0), ("dihedral", 0), ("dihedral", 2)):
        stream = pipeline.training_batches(
            pipeline.Records([dataset], "train"), batch_size=128, seed=0, augment=augment, workers=workers
        )

        def draw(stream: Iterator[dict[str, np.ndarray]] = stream) -> None:
            for batch in itertools.islice(stream, batches):
                assert batch["image"].shape == (128, PATCH_PX, PATCH_PX, 3)

        draw()
        used = time.process_time()
        times = measure.repeated(draw, rounds=rounds, warmup=0)
        used = time.process_time() - used
        row: Row = {"what": f"{augment}, {f'{workers} processes' if workers else 'threads'}"}
        row |= {"images / s": 128 * batches / times.median, "wall s": times.median, "n": rounds}
        # What the processes use is not counted here.
        row["images / core-s"] = None if workers else 128 * batches * rounds / used
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--side", type=int, default=20_000, help="pixels of the slide along a side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="only to see that it works")
    options = parser.parse_args(argv)
    side, rounds, count, batches = (1000, 1, 300, 2) if options.tiny else (options.side, options.rounds, 4000, 60)
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "machine": measure.machine(), "side": side}
    with tempfile.TemporaryDirectory() as folder:
        path = make_slide(Path(folder) / "slide.svs", side)
        content["file_mib"] = path.stat().st_size / 2**20
        boxes = grid(side)
        content["speed"] = speed_rows(path, boxes, rounds)
        content["processes"] = process_rows(path, boxes, rounds)
        dataset = make_dataset(Path(folder) / "dataset", read_ours(path, boxes), count)
        content["grain"] = grain_rows(dataset, batches, rounds)
    content["load_average"] = measure.machine()["load_average"]
    if options.out:
        write_json(options.out, content)
    print(*(measure.table(content[table]) for table in ("speed", "processes", "grain")), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
