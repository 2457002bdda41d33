"""How users say how large a field is, and the paper's readings of it."""

import json

import numpy as np
import pytest

from data_prep.fields import sizes as field_sizes
from diffpath_jax import cli
from diffpath_jax.data import manifest
from diffpath_jax.io.errors import DiffpathError
from tests.data_prep.fields.test_tiling_and_splits import plan, region


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fov_um": 224.0, "patch_px": 128}, (224.0, 128, 1.75)),
        ({"patch_px": 128, "mpp": 0.875}, (112.0, 128, 0.875)),
        ({"fov_um": 336.0, "mpp": 1.75}, (336.0, 192, 1.75)),
        ({"read_px": 224, "at_mpp": 0.5, "patch_px": 128}, (112.0, 128, 0.875)),
        ({"read_px": 336, "at_mpp": 0.5, "mpp": 0.875}, (168.0, 192, 0.875)),
    ],
)
def test_two_of_three_define_a_field(given, expected):
    assert field_sizes.from_options(given) == field_sizes.FieldSize(*expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fov_um": 224.0, "patch_px": 128, "mpp": 1.75}, "3 are given"),
        ({"fov_um": 224.0}, "1 are given"),
        ({"fov_um": -1.0, "patch_px": 128}, "--fov_um .*-1.0 is not a positive"),
        ({"fov_um": float("nan"), "patch_px": 128}, "--fov_um .*nan is not a positive"),
        ({"read_px": 224, "patch_px": 128}, "--read_px and --at_mpp belong together"),
        ({"at_mpp": 0.5, "patch_px": 128}, "--read_px and --at_mpp belong together"),
        ({"read_px": 224, "at_mpp": 0.5, "fov_um": 112.0, "patch_px": 128}, "--fov_um says what"),
        ({"read_px": 0, "at_mpp": 0.5, "patch_px": 128}, "--read_px .*0 is not a positive"),
    ],
)
def test_other_fields_are_refused(given, said):
    with pytest.raises(DiffpathError, match=said):
        field_sizes.from_options(given)


@pytest.mark.parametrize(
    ("name", "fov_um", "patch_px", "mpp", "read_at_20x"),
    [
        # METHODS: "1.75" is 224 / 128; in um a field of 224 is 448 pixels of 0.5 um, in pixels of 20X it is 112 um.
        ("pkgh224_um", 224, 128, 1.75, 448),
        ("pkgh224_px", 112, 128, 0.875, 224),
        ("pkgh336_um", 336, 128, 2.625, 672),
        ("pkgh336_um_192", 336, 192, 1.75, 672),
        ("pkgh336_px", 168, 128, 1.3125, 336),
        ("pkgh336_px_192", 168, 192, 0.875, 336),
    ],
)
def test_presets_are_the_readings_of_the_paper(name, fov_um, patch_px, mpp, read_at_20x):
    size = field_sizes.from_options(field_sizes.of_preset(name, {"fov_um": None}))
    assert size == field_sizes.FieldSize(float(fov_um), patch_px, mpp)
    assert size.fov_um / 0.5 == read_at_20x
    with pytest.raises(DiffpathError, match="--patch_px"):
        field_sizes.of_preset(name, {"fov_um": None, "patch_px": 64})


def test_strides():
    assert field_sizes.stride(100.0, stride_um=None, overlap=None) == 100
    assert field_sizes.stride(100.0, stride_um=30.0, overlap=None) == 30
    assert field_sizes.stride(100.0, stride_um=None, overlap=0.75) == 25
    for wrong in ({"stride_um": 30.0, "overlap": 0.5}, {"stride_um": None, "overlap": 1.0}, {"stride_um": 0.0}):
        with pytest.raises(DiffpathError, match=r"stride|overlap"):
            field_sizes.stride(100.0, **{"overlap": None, **wrong})


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "nan,0", "inf,0"])
def test_what_is_no_origin(text):
    with pytest.raises(DiffpathError, match="--origin_um"):
        field_sizes.read_origin(text)


@pytest.mark.parametrize(
    ("origin", "first"), [("0,0", (0, 0)), ("5,10", (10, 20)), ("30,-5", (10, 40)), ("25,50", (0, 0))]
)
def test_the_grid_passes_through_its_origin(origin, first):
    # 0.5 um/px, a field each 25 um: the grid repeats each 50 px.
    fields = plan([region("a", 0, 0, 1000, 800)], origin_um=field_sizes.read_origin(origin))
    places = np.array([(f.box.x, f.box.y) for f in fields])
    assert tuple(places.min(axis=0)) == first
    assert not ((places - first) % 50).any()
    assert (places.max(axis=0) > (1000 - 100 - 50, 800 - 100 - 50)).all()


def test_a_preset_and_what_it_read_are_in_the_data_set(tmp_path, slide, annotated):
    words = ["prep", "--slides", slide, "--annotations", annotated, "--out", tmp_path / "out", "--workers", 0]
    words += ["--preset", "pkgh224_px", "--overlap", 0.9, "--fractions", "1,0,0", "--origin_um", "3,4"]
    assert cli.main([str(word) for word in words]) == 0
    dataset = manifest.open_dataset(tmp_path / "out")
    assert dataset.schema.image_px == (128, 128)
    details = json.loads((tmp_path / "out" / "manifest.json").read_text())["details"]
    assert (details["fov_um"], details["mpp"]) == (112, 0.875)
    (scale,) = details["scales"]
    assert scale["read_px"] == [224, 224] and scale["read_mpp"] == [0.5, 0.5]
    assert details["job"]["fields"]["stride_um"] == pytest.approx(11.2)
    assert details["job"]["fields"]["origin_um"] == [3, 4]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "128 x 128 px, 0.875 um/px, field of view 112 um" in card
    assert "read for each field: 224 px a side, of 0.5 um/px" in card
    # The same command again has nothing to do, another origin is another job.
    assert cli.main([str(word) for word in words]) == 0
    assert cli.main([str(word) for word in [*words, "--origin_um", "4,4"]]) == 4
