"""Places of fields leave and come back: QuPath's GeoJSON, and HDF5 as CLAM, TRIDENT and AtlasPatch write it.

Slides are coded (:mod:`coded_slides`): every patch is compared with the picture at the place that the file means.
"""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.fields import coordinates
from data_prep.slide import slides
from diffpath_jax import cli
from diffpath_jax.data import manifest
from tests.data_prep.job.test_scheduling import blank_overlays  # noqa: F401
from tests.data_prep.test_known_answers import (
    AT,
    MPP,
    RECTANGLES,
    ROUNDED,
    SLIDES,
    annotate,
    picture,  # noqa: F401
    prepare,
    shows,
)

pytestmark = pytest.mark.usefixtures("blank_overlays")
FIELDS = ("--fov_um", 64.0, "--patch_px", 32)


def exported(tmp_path, form, slide):
    words = ["export", "--data", tmp_path / "out", "--as", form, "--slides", slide, "--out", tmp_path / form]
    assert cli.main([str(word) for word in words]) == 0
    return tmp_path / form


def places_of(found):
    return {(round(row["x_px0"], 3), round(row["y_px0"], 3), row["class"]): record.image for record, row in found}


FULL = pytest.mark.full


@pytest.mark.parametrize("kind", [pytest.param("1-4-16", marks=FULL), pytest.param("unequal", marks=FULL), "bounds"])
def test_geojson_gives_the_same_fields_again(tmp_path, picture, kind):  # noqa: F811
    slide = SLIDES[kind](tmp_path, picture)
    _, found = prepare(tmp_path, slide, annotate("qupath", tmp_path, RECTANGLES), *FIELDS)
    folder = exported(tmp_path, "geojson", slide)
    content = json.loads((folder / f"{slide.stem}.geojson").read_text())
    assert len(content["features"]) == len(found) > 20
    # What QuPath shows begins at the bounds.
    corner = content["features"][0]["geometry"]["coordinates"][0][0]
    row = min((row for _, row in found), key=lambda row: row["index"])
    at = AT if kind == "bounds" else (0, 0)
    assert corner == pytest.approx([row["x_px0"] - at[0], row["y_px0"] - at[1]])
    (tmp_path / "again").mkdir()
    _, again = prepare(tmp_path / "again", slide, folder, *FIELDS)
    before, after = places_of(found), places_of(again)
    assert before.keys() == after.keys()
    for place, image in before.items():
        np.testing.assert_array_equal(after[place], image)


# Layout, and how large its patches are: (level, pixels of the level) or level-0 pixels.
def write_clam(h5py, path, corners, *, level, size):
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("coords", data=corners)
        stored.attrs.update({"patch_size": size, "patch_level": level, "name": "s", "downsample": (4.0, 4.0)})


def write_trident(h5py, path, corners, *, side):
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("coords", data=corners)
        attributes = {"patch_size": side // 4, "patch_size_level0": side, "level0_magnification": 20}
        stored.attrs.update({**attributes, "target_magnification": 5, "overlap": 0, "name": "s"})


def write_trident_of_before(h5py, path, corners, *, side):
    with h5py.File(path, "w") as file:
        attributes = {"patch_size": side // 4, "level0_magnification": 20, "target_magnification": 5}
        file.create_dataset("coords", data=corners).attrs.update(attributes)


def write_atlas_patch(h5py, path, corners, *, side):
    with h5py.File(path, "w") as file:
        # Corner, then width, height and level of what is read.
        rest = np.tile([side // 4, side // 4, 1], (len(corners), 1))
        file.create_dataset("coords", data=np.hstack([corners, rest]).astype(np.int32))
        file.attrs.update({"patch_size": side // 4, "patch_size_level0": side, "level0_magnification": 20})


LAYOUTS = {
    "CLAM, level 0": ("s.h5", lambda *a: write_clam(*a, level=0, size=128)),
    "CLAM, level 1": ("s.h5", lambda *a: write_clam(*a, level=1, size=32)),
    "TRIDENT": ("s_patches.h5", lambda *a: write_trident(*a, side=128)),
    "TRIDENT of before": ("s_patches.h5", lambda *a: write_trident_of_before(*a, side=128)),
    "AtlasPatch": ("s.h5", lambda *a: write_atlas_patch(*a, side=128)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_patch_shows_the_place_that_the_file_means(tmp_path, picture, layout, capsys):  # noqa: F811
    h5py = pytest.importorskip("h5py")
    slide = SLIDES["1-4-16"](tmp_path, picture)
    rng = np.random.default_rng(0)
    corners = np.stack([rng.integers(30, 830, 40), rng.integers(40, 600, 40)], 1)
    # One lies twice in the file, and one over the edge.
    corners = np.concatenate([corners, corners[:1], [[950, 300]]])
    (tmp_path / "places").mkdir()
    name, write = LAYOUTS[layout]
    write(h5py, tmp_path / "places" / name, corners)
    regions = annotate("qupath", tmp_path, {"All": (0, 0, 1003, 777)})
    dataset, found = prepare(tmp_path, slide, regions, *FIELDS, "--coordinates", tmp_path / "places")
    inside = {tuple(map(float, corner)) for corner in corners[:-1].tolist()}
    assert {(row["x_px0"], row["y_px0"]) for _, row in found} == inside
    assert dataset.details.outcomes["beyond the edge of the slide"] == 1
    for record, row in found:
        box = (row["x_px0"], row["y_px0"], 64.0 / MPP, 64.0 / MPP)
        assert shows(record.image, picture, box, step=4, loss=ROUNDED)


def test_classes_are_those_of_the_regions_around_the_places(tmp_path, picture):  # noqa: F811
    h5py = pytest.importorskip("h5py")
    slide = SLIDES["bounds"](tmp_path, picture)
    # HDF5 counts from the glass, GeoJSON from the bounds.
    corners = np.array([[100, 100], [600, 100], [430, 300]]) + AT
    write_trident(h5py, tmp_path / "s.h5", corners, side=128)
    regions = annotate("qupath", tmp_path, RECTANGLES)
    _, found = prepare(tmp_path, slide, regions, *FIELDS, "--coordinates", tmp_path / "s.h5")
    # The last lies on both.
    assert {(row["x_px0"] - AT[0], row["class"]) for _, row in found} == {(100, "left"), (600, "right")}


@pytest.mark.parametrize("kind", ["1-4-16", pytest.param("bounds", marks=FULL)])
def test_coordinates_leave_in_clams_layout_and_come_back(tmp_path, picture, kind):  # noqa: F811
    h5py = pytest.importorskip("h5py")
    slide = SLIDES[kind](tmp_path, picture)
    regions = annotate("qupath", tmp_path, RECTANGLES)
    dataset, found = prepare(tmp_path, slide, regions, *FIELDS)
    folder = exported(tmp_path, "hdf5", slide)
    with h5py.File(folder / f"{slide.stem}.h5") as file:
        coords, attributes = file["coords"][:], dict(file["coords"].attrs)
        labels, classes = file["labels"][:], list(file.attrs["classes"])
    assert coords.shape == (len(found), 2) and attributes["patch_size_level0"] == 128
    opened, at = slides.open_slide(slide), AT if kind == "bounds" else (0, 0)
    # As CLAM reads a bag: a square of its level at a corner in level-0 pixels, which is what the record shows.
    size, level = int(attributes["patch_size"]), int(attributes["patch_level"])
    for (record, row), label, corner in zip(sorted(found, key=lambda f: f[1]["index"]), labels, coords, strict=True):
        assert classes[label] == row["class"] == dataset.schema.classes[record.label]
        region = opened.reader.handle.read_region(tuple(map(int, corner)), level, (size, size)).convert("RGB")
        box = (corner[0] - at[0], corner[1] - at[1], 64.0 / MPP, 64.0 / MPP)
        assert shows(np.asarray(region), picture, box, step=128 // size, loss=ROUNDED)
    (tmp_path / "again").mkdir()
    _, again = prepare(tmp_path / "again", slide, regions, *FIELDS, "--coordinates", folder)
    assert places_of(again).keys() == places_of(found).keys()


def test_what_is_no_file_of_places(tmp_path, picture, capsys):  # noqa: F811
    h5py = pytest.importorskip("h5py")
    slide = SLIDES["1-4-16"](tmp_path, picture)
    regions, out = annotate("qupath", tmp_path, RECTANGLES), tmp_path / "out"
    fixed = ["prep", "--slides", slide, "--annotations", regions, "--out", out, "--workers", 0, *FIELDS]

    def refused(*words):
        assert cli.main([str(word) for word in (*fixed, *words)]) in (2, 3, 5)
        return " ".join(capsys.readouterr().err.split())

    assert "there are none" in refused("--coordinates", tmp_path / "nowhere")
    write_trident(h5py, tmp_path / "other.h5", np.array([[1, 1]]), side=128)
    assert "there are none of s.svs" in refused("--coordinates", tmp_path / "other.h5")
    write_trident(h5py, tmp_path / "s.h5", np.array([[1, 1]]), side=256)
    assert "give --fov_um 128" in refused("--coordinates", tmp_path / "s.h5")
    assert "--stride_um" in refused("--coordinates", tmp_path / "s.h5", "--stride_um", 10)
    (tmp_path / "s.h5").write_bytes(b"no HDF5")
    assert "cannot be read" in refused("--coordinates", tmp_path / "s.h5")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(coordinates.DiffpathError, match=r"pip install 'diffpath\[hdf5\]'"):
        coordinates.import_h5py(tmp_path)


def test_sets_without_places_are_refused(tmp_path, samples, slide, capsys):
    words = ["export", "--data", samples, "--as", "geojson", "--slides", slide, "--out", tmp_path / "x"]
    assert cli.main([str(word) for word in words]) == 2
    assert "no such table" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert pq.read_schema(samples / "samples.parquet") and manifest.open_dataset(samples)
