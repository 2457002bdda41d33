"""Through the real command: every patch shows the field that its record says, whatever slides and annotations are like.

The slides' pixels say where they are (:mod:`coded_slides`). What a patch must show is computed here from the picture,
at the place that the private table gives, by exact area averages; where fields lie and whose they are, from rectangles.
"""

import json
from pathlib import Path

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest

from data_prep.slide import slides
from diffpath_jax import cli
from diffpath_jax.data import manifest, records
from tests.conftest import feature
from tests.data_prep import annotation_files, coded_slides
from tests.data_prep.job.test_scheduling import blank_overlays  # noqa: F401

pytestmark = pytest.mark.usefixtures("blank_overlays")

WIDTH, HEIGHT = 1003, 777
# Left, top, right, bottom, in pixels of the picture.
RECTANGLES = {"Left": (30, 40, 500, 700), "Right": (500, 40, 960, 730)}
MPP = 0.5
# Colours that say where they are are those of no tissue.
NO_LIMITS = ("--blur_max", 1, "--saturation_min", 0, "--pen_max", 1)
# Level, region and patch are rounded to whole levels of grey, one after the other.
ROUNDED = 3 * 0.5
GLASS, AT = (1800, 1400), (331, 214)


@pytest.fixture(scope="session")
def picture():
    return coded_slides.coded(WIDTH, HEIGHT)


SLIDES = {
    "one level": lambda folder, p: coded_slides.aperio(folder / "s.svs", [p], MPP),
    "1-4-16": lambda folder, p: coded_slides.aperio(folder / "s.svs", coded_slides.pyramid(p, (1, 4, 16)), MPP),
    "1-2-4 JPEG": lambda folder, p: coded_slides.aperio_jpeg(folder / "s.svs", coded_slides.pyramid(p, (1, 2, 4)), MPP),
    "unequal": lambda folder, p: coded_slides.plain(folder / "s.tif", coded_slides.pyramid(p, (1, 2, 4)), (MPP, 0.52)),
    "bounds": lambda folder, p: coded_slides.leica(
        folder / "s.scn", coded_slides.pyramid(p[:776, :1000], (1, 4)), MPP, glass=GLASS, at=AT
    ),
}


def ring(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def annotate(kind: str, folder: Path, rectangles) -> Path:
    regions = [(name, ring(*box), []) for name, box in rectangles.items()]
    if kind in ("qupath", "asap", "imagescope"):
        suffix = ".geojson" if kind == "qupath" else ".xml"
        return getattr(annotation_files, kind)(folder / f"s{suffix}", regions)
    features = [feature(name, *box) for name, box in rectangles.items()]
    if kind == "multipolygon":
        for found in features:
            # Two halves, as QuPath writes an annotation of several parts.
            left, top, right, bottom = rectangles[found["properties"]["classification"]["name"]]
            parts = (ring(left, top, right, 300), ring(left, 300, right, bottom))
            coordinates = [[[*map(list, part), list(part[0])]] for part in parts]
            found["geometry"] = {"type": "MultiPolygon", "coordinates": coordinates}
    content = features if kind == "bare list" else {"type": "FeatureCollection", "features": features}
    (folder / "s.geojson").write_text(json.dumps(content))
    return folder / "s.geojson"


def prepare(folder, slide, regions, *words):
    """Run the command on one slide; its records beside the rows of the private table."""
    fixed = ["prep", "--slides", slide, "--annotations", regions, "--out", folder / "out", "--workers", 0]
    code = cli.main([str(word) for word in [*fixed, "--fractions", "1,0,0", "--tissue_min", 0, *NO_LIMITS, *words]])
    assert code == 0
    dataset = manifest.open_dataset(folder / "out")
    rows = {row["index"]: row for row in pq.read_table(folder / "out" / "private" / "patches.parquet").to_pylist()}
    data = [item for path in dataset.paths("train") for item in manifest.read_shard(path)]
    found = [records.decode(item, dataset.schema) for item in data]
    assert sorted(record.index for record in found) == sorted(rows)
    return dataset, [(record, rows[record.index]) for record in found]


def covered(start, side, count):
    """Pixels of a stretch, and how much of each one is in each of its ``count`` equal parts: (count, pixels)."""
    edges = start + side * np.arange(count + 1) / count
    pixels = np.arange(int(start), int(np.ceil(start + side)))
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return pixels, np.clip(shares, 0, 1) * count / side


def averages(picture, box, px):
    """The exact area averages of a box: (px, px, 3)."""
    (x, columns), (y, rows) = (covered(start, side, px) for start, side in ((box[0], box[2]), (box[1], box[3])))
    return np.einsum("yv,xu,vuc->yxc", rows, columns, picture[y][:, x].astype(float), optimize=True)


def block_codes(box, px, margin):
    """The code of the block in which each stored pixel lies with a margin around it, else -1: (px, px)."""
    blocks = []
    for start, side in ((box[0], box[2]), (box[1], box[3])):
        edges = start + side * np.arange(px + 1) / px
        low, high = (np.floor(place / coded_slides.BLOCK) for place in (edges[:-1] - margin, edges[1:] + margin))
        blocks.append(np.where(low == high, low, -1).astype(int))
    x, y = blocks[0][None], blocks[1][:, None]
    block = coded_slides.BLOCK
    return np.where((x >= 0) & (y >= 0), coded_slides.block_code(block * x, block * y), -1)


def shows(image, picture, box, *, step, loss):
    """Whether an image is the box, to half a pixel of the level it was read from and what its encoding loses.

    Centre and size may be off by half a pixel each, an edge by three quarters, and with it red and green. For other
    levels than 0, OpenSlide is asked for whole pixels of level 0: half of one more.
    """
    off = np.abs(image[..., :2] - averages(picture, box, len(image))[..., :2]).max()
    codes = block_codes(box, len(image), 2 * step)
    assert (codes >= 0).mean() > 0.05
    right = np.abs(image[..., 2].astype(int) - codes)[codes >= 0].max() <= loss
    return bool(off <= 0.75 * step + 0.5 * (step > 1) + loss and right)


def expected_fields(slide, fov_um, stride_um, origin_um, rectangles):
    """Places and classes of the fields that must be kept, by plain loops: (x, y) -> class."""
    mpp, size = (slide.scale.x, slide.scale.y), slide.size
    side, stride = [fov_um / m for m in mpp], [stride_um / m for m in mpp]
    found = {}
    for row in range(2000):
        for column in range(2000):
            x = origin_um[0] % stride_um / mpp[0] + column * stride[0]
            y = origin_um[1] % stride_um / mpp[1] + row * stride[1]
            if x + side[0] > size[0] + 1e-6 or y + side[1] > size[1] + 1e-6:
                break
            for name, (left, top, right, bottom) in rectangles.items():
                wide, high = min(x + side[0], right) - max(x, left), min(y + side[1], bottom) - max(y, top)
                if wide > 0 and high > 0 and wide * high >= 0.75 * side[0] * side[1]:
                    found[round(x, 3), round(y, 3)] = name.lower()
        if y + side[1] > size[1] + 1e-6:
            break
    return found


CASES = [
    # slide, annotations, um of a field, stored pixels, level-0 pixels to a pixel of the level read, stride, origin
    ("one level", "qupath", 64.0, 32, 1, 64.0, (0, 0)),
    ("one level", "asap", 50.3, 24, 1, 61.0, (7, 3.3)),
    ("one level", "imagescope", 48.0, 96, 1, 96.0, (0, 0)),
    ("1-4-16", "bare list", 64.0, 32, 4, 64.0, (0, 0)),
    ("1-4-16", "qupath", 70.7, 24, 4, 41.1, (5, -3)),
    ("1-4-16", "asap", 150.0, 16, 16, 70.0, (0, 0)),
    ("1-4-16", "imagescope", 30.0, 24, 1, 53.0, (1, 2)),
    ("1-2-4 JPEG", "multipolygon", 64.0, 32, 4, 64.0, (0, 0)),
    ("1-2-4 JPEG", "imagescope", 33.3, 32, 2, 40.0, (0.7, 0)),
    ("1-2-4 JPEG", "qupath", 40.0, 64, 1, 80.0, (0, 0)),
    ("unequal", "asap", 64.0, 32, 2, 64.0, (0, 0)),
    ("unequal", "qupath", 90.0, 32, 4, 50.0, (3, 1)),
    ("bounds", "qupath", 64.0, 32, 4, 64.0, (0, 0)),
    ("bounds", "bare list", 37.0, 32, 1, 50.0, (9, 4)),
    ("bounds", "asap", 64.0, 32, 4, 50.0, (2, 0)),
]


@pytest.mark.parametrize(("slide_kind", "annotation_kind", "fov_um", "px", "step", "stride_um", "origin"), CASES)
def test_patches_show_what_their_records_say(
    tmp_path, picture, slide_kind, annotation_kind, fov_um, px, step, stride_um, origin
):
    path = SLIDES[slide_kind](tmp_path, picture)
    slide = slides.open_slide(path)
    at = AT if slide_kind == "bounds" else (0, 0)
    on_slide = {
        name: (left + at[0], top + at[1], right + at[0], bottom + at[1])
        for name, (left, top, right, bottom) in RECTANGLES.items()
    }
    # ASAP counts from the glass, the others from where there are pixels.
    regions = annotate(annotation_kind, tmp_path, on_slide if annotation_kind == "asap" else RECTANGLES)
    words = ["--fov_um", fov_um, "--patch_px", px, "--stride_um", stride_um, f"--origin_um={origin[0]},{origin[1]}"]
    dataset, found = prepare(tmp_path, path, regions, *words)
    assert dataset.details.scales[0].read_mpp == pytest.approx([slide.scale.x * step, slide.scale.y * step])

    classes = dataset.schema.classes
    kept = {(round(row["x_px0"], 3), round(row["y_px0"], 3)): row["class"] for _, row in found}
    assert kept == expected_fields(slide, fov_um, stride_um, origin, on_slide)
    assert set(kept.values()) == {"left", "right"}
    loss = 6 if "JPEG" in slide_kind else ROUNDED
    for record, row in found:
        assert classes[record.label] == row["class"]
        assert (record.fov_um, record.mpp) == pytest.approx((fov_um, fov_um / px))
        assert (row["width_px0"], row["height_px0"]) == pytest.approx((fov_um / slide.scale.x, fov_um / slide.scale.y))
        box = (row["x_px0"] - at[0], row["y_px0"] - at[1], row["width_px0"], row["height_px0"])
        assert shows(record.image, picture, box, step=step, loss=loss)


def test_the_check_sees_what_is_a_pixel_of_the_level_off(picture):
    box = (200.0, 100.0, 128.0, 128.0)
    for step in (1, 4):
        image = averages(picture, box, 32).round().astype(np.uint8)
        assert shows(image, picture, box, step=step, loss=ROUNDED)
        for x, y in ((1, 0), (0, 1), (-1, -1)):
            moved = (box[0] + (step + 2) * x, box[1] + (step + 2) * y, *box[2:])
            assert not shows(image, picture, moved, step=step, loss=ROUNDED)
        assert not shows(image, picture, (*box[:2], 128 + 3 * step + 4, 128), step=step, loss=ROUNDED)
        for x, y in ((400, 0), (0, 400)):
            # Red and green are the same there; the block is another.
            elsewhere = (box[0] + x, box[1] + y, *box[2:])
            assert not shows(image, picture, elsewhere, step=step, loss=ROUNDED)


def test_the_slides_are_what_they_are_meant_to_be(tmp_path, picture):
    expected = {
        "one level": ("aperio", [(1003, 777)], (MPP, MPP), set()),
        "1-4-16": ("aperio", [(1003, 777), (250, 194), (62, 48)], (MPP, MPP), set()),
        "1-2-4 JPEG": ("aperio", [(1003, 777), (501, 388), (250, 194)], (MPP, MPP), {0, 1, 2}),
        "unequal": ("generic-tiff", [(1003, 777), (501, 388), (250, 194)], (MPP, 0.52), set()),
        "bounds": ("leica", [GLASS, (450, 350)], (MPP, MPP), set()),
    }
    for kind, (vendor, sizes, mpp, tiles) in expected.items():
        folder = tmp_path / kind
        folder.mkdir()
        slide = slides.open_slide(SLIDES[kind](folder, picture))
        assert slide.reader.handle.properties[openslide.PROPERTY_NAME_VENDOR] == vendor
        assert list(slide.reader.dimensions) == sizes
        assert (slide.scale.x, slide.scale.y) == pytest.approx(mpp)
        assert set(slide.reader.tiles) == tiles
        assert slide.reader.bounds == (AT if kind == "bounds" else (0, 0))


def test_blocks_of_a_slide_stand_in_for_patients(slide, annotated, tmp_path, capsys):
    words = ["prep", "--slides", str(slide), "--annotations", str(annotated), "--out", str(tmp_path / "set")]
    words += ["--fov_um", "32", "--patch_px", "16", "--stride_um", "32", "--gap_um", "16"]
    assert cli.main([*words, "--block_um", "100"]) == 0
    dataset = manifest.open_dataset(tmp_path / "set")
    table = pq.read_table(tmp_path / "set" / "private" / "patches.parquet").to_pylist()
    centres = [
        [(row[f"{axis}_px0"] + row[f"{side}_px0"] / 2) * MPP for axis, side in (("x", "width"), ("y", "height"))]
        for row in table
        if row["split"] in dataset.splits
    ]
    patients = {record.patient for split in dataset.splits for record in dataset.read(split)}
    assert 4 < len(patients) == len({tuple(um // 100 for um in centre) for centre in centres})
    assert "stand in for patients" in dataset.details.split_proof
    assert cli.main([*words, "--block_um", "0"]) == 2
    assert "--block_um" in capsys.readouterr().err
