from pathlib import Path

import numpy as np
import pytest
import shapely

from data_prep.annotations.regions import Region
from data_prep.fields import tiling
from data_prep.fields.sizes import FieldSize
from data_prep.slide import slides
from data_prep.slide.slides import Box
from data_prep.slide.tissue import TissueMask
from data_prep.splits import splits
from diffpath_jax.io.errors import DiffpathError
from tests.data_prep import array_reader

GRID = {"origin_um": (0.0, 0.0), "roi_min": 0.75, "tissue_min": 0.5}


def flat_slide(size, mpp):
    """What planning needs of a slide; no file behind it."""
    return slides.Slide(Path("flat.npy"), array_reader.blank(size), slides.Scale(mpp, mpp, "slide"))


def spec_of(fov_um, patch_px, **grid):
    return tiling.field_spec(FieldSize(fov_um, patch_px, fov_um / patch_px), **{**GRID, "stride_um": fov_um, **grid})


def plan(regions, *, size=(1000, 800), mpp=0.5, tissue=True, priority=(), **grid):
    slide = flat_slide(size, mpp)
    spec = spec_of(50.0, 20, **{"stride_um": 25.0, **grid})
    mask = TissueMask(np.full((size[1] // 10, size[0] // 10), tissue), (10.0, 10.0))
    return tiling.plan_fields(slide, regions, mask, spec, priority=priority)


def region(name, *box):
    return Region(name, shapely.MultiPolygon([shapely.box(*box)]))


def test_a_field_belongs_to_the_class_that_covers_it():
    fields = plan([region("a", 0, 0, 500, 800), region("b", 500, 0, 1000, 800)])
    assert {f.box.width for f in fields} == {100.0}
    for field in fields:
        inside_a = np.clip(500 - field.box.x, 0, 100) / 100
        assert field.label == ("a" if inside_a >= 0.75 else "b" if inside_a <= 0.25 else "")
        assert field.outcome == (tiling.KEPT if field.label else tiling.OUTSIDE)
        assert field.roi_share == pytest.approx(max(inside_a, 1 - inside_a))


def test_fields_lie_within_the_slide_in_reading_order():
    fields = plan([region("a", -100, -100, 2000, 2000)])
    assert all(f.box.x + f.box.width <= 1000 and f.box.y + f.box.height <= 800 for f in fields)
    places = [(f.box.y, f.box.x) for f in fields]
    assert places == sorted(places)
    assert len(places) == 19 * 15


def test_overlapping_classes_and_bare_glass_are_rejected_with_the_reason():
    both = [region("a", 0, 0, 1000, 800), region("b", 0, 0, 1000, 800)]
    assert {f.outcome for f in plan(both)} == {tiling.AMBIGUOUS}
    assert {f.outcome for f in plan(both[:1], tissue=False)} == {tiling.NO_TISSUE}


def shares_and_outcome(field):
    return (field.box.x, field.label, field.outcome, round(field.roi_share, 6), round(field.overlap_share, 6))


# Fields of 100 px side by side; a reaches to 240, b begins at 180: they overlap from 180 to 240.
OVERLAP = [region("a", 0, 0, 240, 100), region("b", 180, 0, 400, 100)]


@pytest.mark.parametrize(
    ("priority", "second", "third"),
    [
        # The second field: a alone has 80, b has 20 of it in the overlap. The third: b alone has 60, a and b share 40.
        ((), ("a", tiling.KEPT, 0.8), ("", tiling.AMBIGUOUS, 0.6)),
        (("a", "b"), ("a", tiling.KEPT, 1.0), ("", tiling.AMBIGUOUS, 0.6)),
        (("b", "a"), ("a", tiling.KEPT, 0.8), ("b", tiling.KEPT, 1.0)),
        (("c",), ("a", tiling.KEPT, 0.8), ("", tiling.AMBIGUOUS, 0.6)),
    ],
)
def test_an_overlap_is_excluded_or_the_firsts(priority, second, third):
    fields = plan(OVERLAP, size=(400, 100), stride_um=50.0, priority=priority)
    assert [shares_and_outcome(field) for field in fields] == [
        (0, "a", tiling.KEPT, 1, 0),
        (100, *second, 0.2),
        (200, *third, 0.4),
        (300, "b", tiling.KEPT, 1, 0),
    ]


def test_own_areas_share_out_what_overlaps():
    areas = tiling.class_areas([*OVERLAP, region("c", 200, 50, 300, 100), region("a", 230, 0, 240, 50)])
    own, overlap = tiling.own_areas(areas, ())
    # a and b overlap in 60 x 100; c lies on b (and, from 200 to 240, on a): 60 x 50 more.
    assert overlap.area == 6_000 + 3_000
    assert {name: area.area for name, area in own.items()} == {"a": 18_000, "b": 16_000 - 3_000, "c": 0}
    own, _ = tiling.own_areas(areas, ("c", "a", "b"))
    assert {name: area.area for name, area in own.items()} == {"a": 24_000 - 2_000, "b": 16_000 - 3_000, "c": 5_000}


def test_regions_of_one_class_may_overlap():
    fields = plan([region("a", 0, 0, 240, 100), region("a", 180, 0, 400, 100)], size=(400, 100), stride_um=50.0)
    assert [shares_and_outcome(field) for field in fields] == [(x, "a", tiling.KEPT, 1, 0) for x in (0, 100, 200, 300)]


def test_neighbours_that_touch_do_not_overlap():
    own, overlap = tiling.own_areas(tiling.class_areas([region("a", 0, 0, 5, 5), region("b", 5, 0, 9, 5)]), ())
    assert overlap.is_empty and own["a"].area == 25


def test_many_classes_in_one_place_and_apart():
    together = {f"c{i}": region("", 0, 0, 9, 9).shape for i in range(40)}
    own, overlap = tiling.own_areas(together, ())
    assert overlap.area == 81 and not any(area.area for area in own.values())
    apart = {f"c{i}": region("", 10 * i, 0, 10 * i + 9, 9).shape for i in range(40)}
    assert tiling.own_areas(apart, ())[1].is_empty


def test_long_outlines_cover_what_short_ones_do():
    angle = np.linspace(0, 2 * np.pi, 20_000)
    disc = shapely.Polygon(400 + 300 * np.stack([np.cos(angle), np.sin(angle)], axis=1)).difference(
        shapely.Point(400, 400).buffer(50, quad_segs=2_000)
    )
    for field in plan([Region("a", shapely.MultiPolygon([disc]))]):
        box = shapely.box(field.box.x, field.box.y, field.box.x + 100, field.box.y + 100)
        assert field.roi_share == pytest.approx(disc.intersection(box).area / 1e4, abs=1e-9)


def test_unequal_pixels_keep_the_field_square_in_um():
    assert tiling.field_size(spec_of(100.0, 20), slides.Scale(0.5, 0.25, "slide")) == (200.0, 400.0)


def test_enlarging_is_refused():
    slide = flat_slide((1000, 800), 0.5)
    spec = spec_of(50.0, 200)
    mask = TissueMask(np.ones((10, 10), bool), (100.0, 80.0))
    with pytest.raises(DiffpathError, match="fewer than --patch_px"):
        tiling.plan_fields(slide, [region("a", 0, 0, 900, 700)], mask, spec, priority=())


def test_a_grid_that_no_memory_holds_is_refused():
    assert len(plan([region("a", 0, 0, 1000, 800)], stride_um=1.0)) > 100_000
    for stride_um in (0.01, 1e-9):
        with pytest.raises(DiffpathError, match=r"fields of view in flat\.npy: the grid has .* places on it"):
            plan([region("a", 0, 0, 1000, 800)], stride_um=stride_um)


SPEC = splits.SplitSpec((0.6, 0.2, 0.2), 50.0, 0)


def test_patients_are_never_shared_and_classes_are_balanced():
    rng = np.random.default_rng(0)
    counts = {f"p{i}": {"a": int(rng.integers(1, 50)), "b": int(rng.integers(0, 20))} for i in range(60)}
    where = splits.split_patients(counts, SPEC)
    assert set(where) == set(counts)
    for name in ("a", "b"):
        total = sum(c[name] for c in counts.values())
        for split, wanted in zip(splits.SPLITS, SPEC.fractions, strict=True):
            share = sum(c[name] for p, c in counts.items() if where[p] == split) / total
            assert abs(share - wanted) < 0.05, (name, split)


def test_every_split_gets_a_patient():
    where = splits.split_patients({"x": {"a": 100}, "y": {"a": 1}, "z": {"a": 1}}, SPEC)
    assert sorted(where.values()) == ["test", "train", "val"]


def test_too_few_patients_is_an_error():
    with pytest.raises(DiffpathError, match="2 patients"):
        splits.split_patients({"x": {"a": 1}, "y": {"a": 1}}, SPEC)


def test_the_proof_fails_when_a_patient_is_shared():
    said = splits.prove_disjoint([("x", "train"), ("y", "test"), ("x", "train")], splits.SPLITS)
    assert said == "2 patients: 1 in train, 0 in val, 1 in test; none in two splits"
    with pytest.raises(DiffpathError, match="patient x"):
        splits.prove_disjoint([("x", "train"), ("x", "test")], splits.SPLITS)


@pytest.mark.parametrize("gap", [0.0, 40.0, 100.0])
def test_bands_of_one_slide_are_apart(gap):
    boxes = [Box(x, y, 50.0, 50.0) for y in np.arange(0, 2000, 20.0) for x in np.arange(0, 600, 20.0)]
    labels = ["a" if box.x < 300 else "b" for box in boxes]
    where = splits.split_by_place(boxes, labels, fractions=(0.7, 0.1, 0.2), gap_px=gap)
    found = {split: [b for b, s in zip(boxes, where, strict=True) if s == split] for split in splits.SPLITS}
    for split, wanted in zip(splits.SPLITS, (0.7, 0.1, 0.2), strict=True):
        for name in ("a", "b"):
            count = sum(1 for b in found[split] if (b.x < 300) == (name == "a"))
            assert count > 0.5 * wanted * labels.count(name)
    for one in splits.SPLITS:
        for other in splits.SPLITS:
            if one < other:
                apart_y = min(abs(a.y - b.y) for a in found[one] for b in found[other]) - 50
                apart_x = min(abs(a.x - b.x) for a in found[one] for b in found[other]) - 50
                assert max(apart_x, apart_y) >= gap


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.5, 0.6, -0.1], [0.0, 0.5, 0.5], [0.5, 0.2, 0.2], []])
def test_bad_fractions(fractions):
    with pytest.raises(DiffpathError, match="--fractions"):
        splits.check_fractions(fractions)


def test_many_small_areas_are_cut_as_one_by_one():
    rng = np.random.default_rng(0)
    one, other = (
        shapely.MultiPolygon([*tiling.polygons_of(shapely.union_all(shapely.buffer(shapely.points(places), 3))).geoms])
        for places in rng.uniform(0, 300, (2, 400, 2))
    )
    found = tiling._difference(one, other)
    assert found.is_valid and found.area > 0
    np.testing.assert_allclose(shapely.symmetric_difference(found, shapely.difference(one, other)).area, 0, atol=1e-9)
    assert tiling._difference(one, shapely.MultiPolygon()).equals(one)
