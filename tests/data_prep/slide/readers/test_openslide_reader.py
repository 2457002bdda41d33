"""What OpenSlide alone does not say of files: the scale of OME-TIFF, and why a TIFF in strips cannot be read."""

import numpy as np
import pytest
import tifffile

from data_prep.slide import slides
from data_prep.slide.readers import openslide_reader
from diffpath_jax.io.errors import DiffpathError

PIXELS = np.full((512, 512, 3), 200, np.uint8)


@pytest.mark.parametrize(("size", "unit", "mpp"), [(0.5, "um", 0.5), (0.25, "\u00b5m", 0.25), (230, "nm", 0.23)])
def test_ome_tiff_states_its_scale_in_xml(tmp_path, size, unit, mpp):
    about = {"axes": "YXS", **{f"PhysicalSize{axis}": size for axis in "XY"}}
    about |= {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(PIXELS, tile=(256, 256), photometric="rgb", metadata=about)
    with slides.open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.scale.x, slide.scale.y, slide.scale.source) == (pytest.approx(mpp), pytest.approx(mpp), "slide")


@pytest.mark.parametrize(
    ("xml", "mpp"),
    [
        ('<Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25" SizeX="1">', (0.5, 0.25)),
        ("<ome:Pixels PhysicalSizeX='1' PhysicalSizeXUnit='mm' PhysicalSizeY='2'>", (1000.0, 2.0)),
        ('<Pixels PhysicalSizeX="0.5"><Pixels PhysicalSizeX="3" PhysicalSizeY="3">', None),
        ("<Pixels/>", None),
        ("Aperio Image Library v1|MPP = 0.5", None),
    ],
)
def test_the_first_image_of_the_xml_counts(xml, mpp):
    assert openslide_reader.ome_mpp(xml) == mpp


@pytest.mark.parametrize("unit", ["pixel", "reference frame"])
def test_a_unit_that_is_no_length_is_no_scale(unit):
    xml = f'<Pixels PhysicalSizeX="1" PhysicalSizeXUnit="{unit}" PhysicalSizeY="1">'
    assert np.isnan(openslide_reader.ome_mpp(xml)[0])


@pytest.mark.parametrize("big", [False, True])
def test_strips_are_refused_with_the_way_to_convert_them(tmp_path, big):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big) as file:
        file.write(PIXELS, photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None)
    with pytest.raises(DiffpathError, match=r"strips.*; fix: convert it to tiles: vips"):
        slides.open_slide(tmp_path / "a.tif")
