"""Hamamatsu's NDPA: places in nm from the centre of the glass, and what they are on the picture."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import shapely

from data_prep.annotations import regions as annotations
from data_prep.annotations.class_map import ClassMap
from data_prep.slide import slides
from diffpath_jax.io.errors import DiffpathError, ExitCode
from tests.data_prep import annotation_files, array_reader

MAP = ClassMap({"Tumor": "tumor"}, frozenset())
SIZE, MPP, CENTRE_UM = (1000, 800), (0.5, 0.25), (1200.0, -340.0)
RING = [(100.0, 120.0), (400.0, 120.0), (400.0, 360.0), (160.0, 420.0)]


@dataclasses.dataclass(frozen=True)
class CentredReader(array_reader.ArrayReader):
    centre_um: tuple[float, float] | None = CENTRE_UM


def opened(centre_um=CENTRE_UM):
    levels = array_reader.blank(SIZE).levels
    return slides.Slide(Path("fake.npy"), CentredReader(levels, centre_um=centre_um), slides.Scale(*MPP, "slide"))


def nanometres(ring):
    """By hand: pixels from the middle of the picture, in nm, from the centre of the glass."""
    return [
        tuple(1000 * (c + (p - side / 2) * mpp) for p, side, mpp, c in zip(point, SIZE, MPP, CENTRE_UM, strict=True))
        for point in ring
    ]


def test_places_are_nanometres_from_the_centre_of_the_glass(tmp_path):
    path = annotation_files.ndpa(tmp_path / "one.ndpi.ndpa", [("Tumor", nanometres(RING), [])])
    found = annotations.of_slide(opened(), path, None, MAP)
    (region,) = found.regions
    assert region.name == "tumor" and found.source.left_out == {"lines and points": 1}
    np.testing.assert_allclose(shapely.symmetric_difference(region.shape, shapely.Polygon(RING)).area, 0, atol=1e-6)
    assert annotations.find_file(tmp_path, Path("one.ndpi")) == path


def test_a_circle_is_one(tmp_path):
    x, y = nanometres([(500.0, 400.0)])[0]
    circle = f'<annotation type="circle"><x>{x}</x><y>{y}</y><radius>50000</radius></annotation>'
    view = f"<ndpviewstate><title>Tumor</title><coordformat>nanometers</coordformat>{circle}</ndpviewstate>"
    (tmp_path / "one.ndpa").write_text(f"<annotations>{view}</annotations>")
    (region,) = annotations.of_slide(opened(), tmp_path / "one.ndpa", None, MAP).regions
    np.testing.assert_allclose(region.shape.bounds, (400, 200, 600, 600), atol=0.5)


@pytest.mark.parametrize(
    ("spoil", "slide", "why"),
    [
        (("nanometers", "pixels"), opened(), "its points are in pixels"),
        (("<x>", "<x>a"), opened(), "x of a point is no number"),
        (("", ""), opened(None), "fake.npy does not say where that is"),
        (("", ""), slides.Slide(Path("fake.npy"), array_reader.blank(SIZE), slides.Scale(*MPP, "slide")), "fake.npy"),
    ],
)
def test_what_cannot_be_placed_is_refused(tmp_path, spoil, slide, why):
    path = annotation_files.ndpa(tmp_path / "one.ndpa", [("Tumor", nanometres(RING), [])])
    path.write_text(path.read_text().replace(*spoil) if spoil[0] else path.read_text())
    with pytest.raises(DiffpathError, match=why):
        annotations.of_slide(slide, path, None, MAP)


def test_packed_geojson_is_the_same(tmp_path):
    plain = annotation_files.qupath(tmp_path / "one.geojson", [("Tumor", RING, [])])
    packed = tmp_path / "two.svs.geojson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first, second = (annotations.read_regions(path, MAP).regions for path in (plain, packed))
    assert first == second
    assert annotations.find_file(tmp_path, Path("two.svs")) == packed


@pytest.mark.parametrize("spoil", [lambda data: data[:40], lambda data: data[:30] + b"x" * 20 + data[50:]])
def test_a_damaged_packed_file_is_one_line(tmp_path, spoil):
    plain = annotation_files.qupath(tmp_path / "one.geojson", [("Tumor", RING, [])])
    (tmp_path / "bad.geojson.gz").write_bytes(spoil(gzip.compress(plain.read_bytes())))
    with pytest.raises(DiffpathError) as error:
        annotations.read_regions(tmp_path / "bad.geojson.gz", MAP)
    assert error.value.code == ExitCode.BAD_INPUT
