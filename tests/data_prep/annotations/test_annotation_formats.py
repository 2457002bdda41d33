"""QuPath, ASAP and ImageScope: the same regions, the same data set."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import openslide
import pytest
import shapely

from data_prep.annotations import regions as annotations
from data_prep.annotations.class_map import ClassMap
from data_prep.annotations.regions import Region
from data_prep.slide import slides
from data_prep.slide.readers import openslide_reader
from diffpath_jax import cli
from diffpath_jax.data import manifest
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import write_slide
from tests.data_prep import annotation_files, array_reader

FORMATS = {"qupath": ".geojson", "asap": ".xml", "imagescope": ".xml", "halo": ".annotations"}
REGIONS = [
    (
        "Purple",
        [(128, 128), (512, 128), (512, 896), (128, 896)],
        [[(200, 200), (300, 210), (300.5, 300.25), (200, 300)]],
    ),
    ("Tumor: Positive", [(512, 128), (896, 128), (896, 896), (700, 600), (512, 896)], []),
]
MAP = ClassMap({"Purple": "purple", "Tumor: Positive": "positive"}, frozenset({"Pen"}))


def write(kind: str, folder: Path, regions=REGIONS) -> Path:
    return getattr(annotation_files, kind)(folder / f"one{FORMATS[kind]}", regions)


def fake_slide(bounds=(0.0, 0.0)) -> slides.Slide:
    reader = array_reader.blank((1000, 800), bounds=bounds)
    return slides.Slide(Path("fake.npy"), reader, slides.Scale(0.5, 0.5, "slide"))


BOUNDS = (300.0, 100.0)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_regions(tmp_path, kind):
    stored = annotations.read_regions(write(kind, tmp_path), MAP)
    assert not stored.ignored and not stored.cut_out
    assert sum(stored.left_out.values()) == {"qupath": 0, "asap": 1, "imagescope": 2, "halo": 2}[kind]
    assert [region.name for region in stored.regions] == ["purple", "positive"]
    for region, (_, outer, holes) in zip(stored.regions, REGIONS, strict=True):
        assert shapely.symmetric_difference(region.shape, shapely.Polygon(outer, holes)).area == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_ignored_classes_are_counted_and_unknown_ones_named(tmp_path, kind):
    square = [(0, 0), (9, 0), (9, 9)]
    path = write(kind, tmp_path, [*REGIONS, ("Pen", square, []), ("Pen", square, [])])
    stored = annotations.read_regions(path, MAP)
    assert (len(stored.regions), stored.ignored) == (2, {"Pen": 2})
    path = write(kind, tmp_path, [*REGIONS, ("../../x", square, [])])
    with pytest.raises(DiffpathError, match=r"'\.\./\.\./x'.*fix: add it to .*--classes"):
        annotations.read_regions(path, MAP)


@pytest.mark.full
def test_the_real_command_gives_identical_records(tmp_path):
    slide = write_slide(tmp_path / "one.svs")
    (tmp_path / "key").write_text("secret")
    words = ["prep", "--slides", slide, "--key_file", tmp_path / "key"]
    words += ["--fov_um", 32, "--patch_px", 16, "--stride_um", 16, "--gap_um", 16]
    digests = set()
    for kind in FORMATS:
        folder = tmp_path / kind
        folder.mkdir()
        write(kind, folder)
        assert cli.main([str(word) for word in [*words, "--annotations", folder, "--out", folder / "out"]]) == 0
        dataset = manifest.open_dataset(folder / "out")
        assert dataset.count("train") > 50
        digests.add(tuple(path.read_bytes() for path in sorted((folder / "out").glob("*.array_record*"))))
    assert len(digests) == 1


def test_imagescope_ellipses_rectangles_and_what_is_no_area(tmp_path):
    def read(kind, ring):
        text = f'<Annotations><Annotation Name="Purple"><Regions>{annotation_files._region(ring, kind=kind)}'
        (tmp_path / "one.xml").write_text(text + "</Regions></Annotation></Annotations>")
        (region,) = annotations.read_regions(tmp_path / "one.xml", MAP).regions
        return region.shape

    assert read(1, [(0, 0), (20, 10)]).equals(shapely.box(0, 0, 20, 10))
    assert read(1, [(0, 0), (20, 0), (20, 10), (0, 10)]).equals(shapely.box(0, 0, 20, 10))
    assert read(2, [(0, 0), (20, 10)]).area == pytest.approx(np.pi * 10 * 5, rel=1e-3)
    with pytest.raises(DiffpathError, match="no polygon"):
        read(3, [(0, 0), (20, 10)])


def test_asap_rectangles(tmp_path):
    path = annotation_files.asap(tmp_path / "one.xml", [("Purple", [(0, 0), (20, 10)], [])])
    path.write_text(path.read_text().replace('"Polygon"', '"Rectangle"'))
    (region,) = annotations.read_regions(path, MAP).regions
    assert region.shape.equals(shapely.box(0, 0, 20, 10))


def test_the_format_is_told_from_the_content(tmp_path):
    named = write("asap", tmp_path).rename(tmp_path / "one.geojson")
    assert len(annotations.read_regions(named, MAP).regions) == 2
    text = write("imagescope", tmp_path).read_text()
    (tmp_path / "utf16.xml").write_bytes(f'<?xml version="1.0" encoding="UTF-16"?>{text}'.encode("utf-16"))
    assert len(annotations.read_regions(tmp_path / "utf16.xml", MAP).regions) == 2
    geojson = write("qupath", tmp_path).read_bytes()
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + geojson)
    assert len(annotations.read_regions(tmp_path / "bom.json", MAP).regions) == 2


def test_what_qupath_detected_is_no_region(tmp_path):
    path = write("qupath", tmp_path)
    content = json.loads(path.read_text())
    cell = json.loads(json.dumps(content["features"][0]))
    cell["properties"] = {"objectType": "cell", "measurements": []}
    path.write_text(json.dumps([cell, *content["features"]]))
    assert len(annotations.read_regions(path, MAP).regions) == 2


def test_overlapping_parts_and_spikes_count_once(tmp_path):
    square = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    spiked = [[0, 0], [10, 0], [30, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    bow_tie_with_spike = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 20], [0, 10], [0, 0]]
    for polygons, area in (
        ([[square], [[[x + 5, y] for x, y in square]]], 150),
        ([[spiked]], 100),
        ([[bow_tie_with_spike]], 50),
        ([[[[x, y, 7] for x, y in square]]], 100),
    ):
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
        feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Purple"}}}
        (tmp_path / "one.json").write_text(json.dumps(feature))
        (region,) = annotations.read_regions(tmp_path / "one.json", MAP).regions
        assert region.shape.area == area


def test_a_dense_outline_is_rounded_to_half_pixels(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 300_000)
    ring = (500 + 400 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).tolist()
    (region,) = annotations.read_regions(write("qupath", tmp_path, [("Purple", ring[:-1], [])]), MAP).regions
    assert shapely.get_num_coordinates(region.shape) < 10_000
    assert region.shape.area == pytest.approx(np.pi * 400**2, rel=1e-3)


@pytest.mark.parametrize(("kind", "left"), [("qupath", 300 + 10), ("asap", 10)])
def test_qupath_counts_from_the_bounds_and_asap_from_the_glass(tmp_path, kind, left):
    path = write(kind, tmp_path, [("Purple", [(10, 20), (110, 20), (110, 70)], [])])
    (region,) = annotations.of_slide(fake_slide(BOUNDS), path, None, MAP).regions
    assert region.shape.bounds[0] == left
    assert annotations.of_slide(fake_slide(), path, None, MAP).regions[0].shape.bounds[0] == 10


def test_imagescope_on_a_slide_with_bounds_is_refused(tmp_path):
    with pytest.raises(DiffpathError, match="crops and turns"):
        annotations.of_slide(fake_slide(BOUNDS), write("imagescope", tmp_path), None, MAP)


def test_shift_moves_every_corner():
    square = Region("a", shapely.MultiPolygon([shapely.box(0, 0, 2, 3)]))
    (moved,) = annotations.shift([square], (10.0, 20.0))
    assert moved.name == "a" and moved.shape.equals(shapely.box(10, 20, 12, 23))


@pytest.mark.parametrize(("properties", "bounds"), [({"x": "300", "y": "100"}, BOUNDS), ({}, (0.0, 0.0))])
def test_bounds_are_those_of_openslide(properties, bounds):
    stated = {f"openslide.bounds-{axis}": number for axis, number in properties.items()}
    handle = mock.Mock(spec=openslide.OpenSlide, properties=stated)
    assert openslide_reader.OpenSlideReader(handle, {}).bounds == bounds


def test_what_lies_outside_the_slide_is_cut_and_told(tmp_path):
    path = write("qupath", tmp_path, [("Purple", [(900, 0), (1200, 0), (1200, 100), (900, 100)], [])])
    found = annotations.of_slide(fake_slide(), path, None, MAP)
    assert found.outside_share == pytest.approx(2 / 3)
    assert found.regions[0].shape.equals(shapely.box(900, 0, 1000, 100))
    path = write("qupath", tmp_path, [("Purple", [(1900, 0), (2200, 0), (2200, 100)], [])])
    with pytest.raises(DiffpathError, match="all of them lie outside the slide of 1000 x 800 px"):
        annotations.of_slide(fake_slide(), path, None, MAP)


def test_a_label_is_a_region_over_the_whole_slide():
    (region,) = annotations.of_slide(fake_slide(), None, "Purple", MAP).regions
    assert region.name == "purple" and region.shape.equals(shapely.box(0, 0, 1000, 800))
    with pytest.raises(DiffpathError, match=r"'Stroma'.*--classes"):
        annotations.of_slide(fake_slide(), None, "Stroma", MAP)
    with pytest.raises(DiffpathError, match="ignored"):
        annotations.of_slide(fake_slide(), None, "Pen", MAP)
