"""Annotation files as programs really write them: the areas are worked out by hand."""

import json

import numpy as np
import pytest
import shapely

from data_prep.annotations import regions as annotations
from data_prep.annotations import registry
from data_prep.annotations.class_map import ClassMap, read_class_map
from data_prep.annotations.outlines import Outline, rectangle, shaped
from data_prep.annotations.registry import AnnotationFormat
from data_prep.slide import slides
from data_prep.slide.scales import Scale
from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import register
from tests.data_prep import array_reader

MAP = ClassMap({"Tumor": "tumor", "Necrosis": "necrosis"}, frozenset())
BIG, INNER, APART = shapely.box(0, 0, 90, 90), shapely.box(30, 30, 60, 60), shapely.box(200, 0, 230, 30)


def feature(shape, name="Tumor", *, kind=("properties", "objectType", "annotation"), **properties):
    """A feature whose type of object is spelt as some version of QuPath does."""
    geometry = shape if isinstance(shape, dict) else shapely.geometry.mapping(shape)
    item = {"type": "Feature", "geometry": geometry, "properties": properties}
    if name is not None:
        properties["classification"] = {"name": name}
    place, key, value = kind
    (properties if place == "properties" else item)[key] = value
    return item


def read(tmp_path, *features, class_map=MAP):
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return annotations.read_regions(tmp_path / "a.geojson", class_map)


def areas(stored):
    return [(region.name, region.shape.area) for region in stored.regions]


SPELLINGS = {
    "0.2": (("item", "id", "PathAnnotationObject"), ("item", "id", "PathTileObject"), ("item", "id", "TMACoreObject")),
    "0.3": tuple(("properties", "object_type", kind) for kind in ("annotation", "tile", "tma_core")),
    "0.4": tuple(("properties", "objectType", kind) for kind in ("annotation", "tile", "tmaCore")),
}


@pytest.mark.parametrize("version", SPELLINGS)
def test_detections_and_cores_are_counted_and_no_regions(tmp_path, version):
    own, tile, core = SPELLINGS[version]
    stored = read(tmp_path, feature(BIG, kind=own), feature(APART, kind=tile), feature(INNER, kind=core))
    assert areas(stored) == [("tumor", 8100)]
    assert stored.left_out == {"detections": 1, "cores of a tissue array": 1}


def test_collections_and_objects_within_others_are_regions(tmp_path):
    parts = [shapely.geometry.mapping(shape) for shape in (INNER, APART, shapely.Point(1, 2))]
    collection = feature({"type": "GeometryCollection", "geometries": parts}, "Necrosis")
    assert areas(read(tmp_path, feature(BIG), collection)) == [("tumor", 8100), ("necrosis", 1800)]
    grandchild = feature(APART)
    for where in ("properties", "item"):
        child = feature(INNER, "Necrosis", **({"childObjects": [grandchild]} if where == "properties" else {}))
        parent = feature(BIG)
        (parent["properties"] if where == "properties" else parent)["childObjects"] = [child]
        if where == "item":
            child["childObjects"] = [grandchild]
        assert areas(read(tmp_path, parent)) == [("tumor", 8100), ("necrosis", 900), ("tumor", 900)]


@pytest.mark.parametrize("text", ['{ "name": "Tumor", "color": [ 200, 0, 0 ] }', "Tumor", '{"names": ["Tumor"]}'])
def test_a_classification_that_was_made_text(tmp_path, text):
    item = feature(BIG, None, classification=text)
    assert areas(read(tmp_path, item)) == [("tumor", 8100)]


def test_what_lies_on_other_planes_and_what_is_no_area_is_counted(tmp_path):
    above = feature({**shapely.geometry.mapping(APART), "plane": {"c": -1, "z": 2, "t": 0}})
    line, point = feature(shapely.LineString([(0, 0), (9, 9)])), feature(shapely.Point(1, 2), None)
    ground = feature({**shapely.geometry.mapping(BIG), "plane": {"c": -1, "z": 0, "t": 0}})
    stored = read(tmp_path, ground, above, line, point)
    assert areas(stored) == [("tumor", 8100)]
    assert stored.left_out == {"areas on other z planes": 1, "lines and points": 2}


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("Polygon", []),
        ("Polygon", [[]]),
        ("Polygon", [[[5, 5], [6, 5], [5, 5]]]),
        ("Polygon", [[[5, 5], [50, 50], [70, 70], [5, 5]]]),
        ("MultiPolygon", []),
        ("MultiPolygon", [[[[5, 5], [6, 5], [5, 5]]], [[[7, 7]]]]),
    ],
)
def test_a_stray_click_is_left_out_and_counted(tmp_path, kind, coordinates):
    stored = read(tmp_path, feature({"type": kind, "coordinates": coordinates}), feature(BIG))
    assert areas(stored) == [("tumor", 8100)] and sum(stored.left_out.values()) == 1
    with pytest.raises(DiffpathError, match="no polygon of a wanted class; 1 outlines that enclose nothing"):
        read(tmp_path, feature({"type": kind, "coordinates": coordinates}))


@pytest.mark.parametrize("name", [None, "Other"])
def test_a_stray_click_of_no_class_is_no_reason_to_refuse_a_slide(tmp_path, name):
    click = feature({"type": "Polygon", "coordinates": [[[5, 5], [6, 5], [5, 5]]]}, name)
    stored = read(tmp_path, feature(BIG), click)
    assert areas(stored) == [("tumor", 8100)] and sum(stored.left_out.values()) == 1
    if name is None:
        assert annotations.all_classes([tmp_path / "a.geojson"], slide_labels=[]).names == ("tumor",)
    with pytest.raises(DiffpathError, match="annotation class"):
        read(tmp_path, feature(BIG), feature(APART, name))


def test_an_object_without_an_outline_is_counted(tmp_path):
    stored = read(tmp_path, feature(BIG), {**feature(APART), "geometry": None})
    assert areas(stored) == [("tumor", 8100)] and stored.left_out == {"objects without an outline": 1}


@pytest.mark.parametrize("classification", [{"name": ""}, {"names": [" "]}, "", {"name": None}])
def test_a_class_of_no_letters_is_none(tmp_path, classification):
    class_map = ClassMap({"Tumor": "tumor", "": "other"}, frozenset())
    stored = read(tmp_path, feature(BIG, None, classification=classification), class_map=class_map)
    assert areas(stored) == [("other", 8100)]
    with pytest.raises(DiffpathError, match="it has no class"):
        annotations.all_classes([tmp_path / "a.geojson"], slide_labels=[])


def test_parts_and_holes_that_enclose_nothing_are_dropped(tmp_path):
    ring = [list(point) for point in BIG.exterior.coords]
    stray = [[950, 950], [951, 950], [950, 950]]
    parts = {"type": "MultiPolygon", "coordinates": [[ring, stray, []], [stray], []]}
    assert areas(read(tmp_path, feature(parts))) == [("tumor", 8100)]


def test_excluded_areas_are_cut_out_of_all_others(tmp_path):
    class_map = ClassMap({"Tumor": "tumor"}, frozenset(), exclude=frozenset({"Pen"}))
    stored = read(tmp_path, feature(BIG), feature(INNER, "Pen"), feature(APART), class_map=class_map)
    assert areas(stored) == [("tumor", 8100 - 900), ("tumor", 900)]
    assert stored.cut_out == {"Pen": 1}
    covered = read(tmp_path, feature(BIG), feature(INNER), feature(INNER, "Pen"), class_map=class_map)
    assert areas(covered) == [("tumor", 7200)]


@pytest.mark.parametrize(
    ("use", "expected"),
    [("ignore", [("tumor", 8100)]), ("exclude", [("tumor", 7200)]), ("other", [("tumor", 8100), ("other", 900)])],
)
def test_areas_without_a_class_have_a_key(tmp_path, use, expected):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": {"Tumor": "tumor"}, "unclassified": use}))
    stored = read(tmp_path, feature(BIG), feature(INNER, None), class_map=read_class_map(path))
    assert areas(stored) == expected
    with pytest.raises(DiffpathError, match='"unclassified"'):
        read(tmp_path, feature(BIG), feature(INNER, None))


@pytest.mark.parametrize(
    "content",
    [
        {"classes": {"A": "a"}, "exclude": "B"},
        {"classes": {"A": "a"}, "exclude": ["A"]},
        {"classes": {"A": "a"}, "ignore": ["B"], "exclude": ["B"]},
        {"classes": {"A": "a"}, "unclassified": "../x"},
        {"classes": {"A": "a"}, "unclassified": 3},
    ],
)
def test_bad_uses_of_classes(tmp_path, content):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    with pytest.raises(DiffpathError, match=r"classes\.json"):
        read_class_map(tmp_path / "classes.json")


def test_imagescope_regions_have_the_class_of_their_text(tmp_path):
    def region(shape, text):
        corners = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in list(shape.exterior.coords)[:-1])
        return f'<Region Type="0" Text="{text}" NegativeROA="0"><Vertices>{corners}</Vertices></Region>'

    about = '<Attributes><Attribute Name="Description" Value="reviewed by A. Person"/></Attributes>'
    regions = region(BIG, "Tumor") + region(APART, "Necrosis")
    layer = f'<Annotation Name="">{about}<Regions>{regions}</Regions></Annotation>'
    (tmp_path / "a.xml").write_text(f"<Annotations>{layer}</Annotations>")
    stored = annotations.read_regions(tmp_path / "a.xml", MAP)
    assert areas(stored) == [("tumor", 8100), ("necrosis", 900)]
    assert annotations.all_classes([tmp_path / "a.xml"], slide_labels=[]).names == ("necrosis", "tumor")


def test_camelyon_cuts_a_group_out_of_another(tmp_path):
    def annotation(shape, group):
        corners = enumerate(list(shape.exterior.coords)[:-1])
        points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in corners)
        head = f'<Annotation Name="a" Type="Polygon" PartOfGroup="{group}">'
        return f"{head}<Coordinates>{points}</Coordinates></Annotation>"

    text = annotation(BIG, "_0") + annotation(INNER, "_2")
    path = tmp_path / "a.xml"
    path.write_text(f"<ASAP_Annotations><Annotations>{text}</Annotations></ASAP_Annotations>")
    class_map = ClassMap({"_0": "tumor", "_1": "tumor"}, frozenset(), exclude=frozenset({"_2"}))
    assert areas(annotations.read_regions(path, class_map)) == [("tumor", 7200)]


@pytest.mark.parametrize("name", ["a.geojson", "a.GeoJSON", "a.svs.geojson", "a.JSON", "a.annotations"])
def test_names_of_annotation_files(tmp_path, name):
    (tmp_path / name).write_text("[]")
    (tmp_path / "b.geojson").write_text("[]")
    assert annotations.find_file(tmp_path, tmp_path / "slides" / "a.svs") == tmp_path / name
    assert annotations.find_file(tmp_path, tmp_path / "c.svs") is None


def test_names_are_compared_by_what_they_look_like(tmp_path):
    (tmp_path / "Gru\N{COMBINING DIAERESIS}n.geojson").write_text("[]")
    (tmp_path / "o.geojson").write_text("[]")
    assert annotations.find_file(tmp_path, tmp_path / "Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n.svs") is not None
    assert annotations.find_file(tmp_path, tmp_path / "o.ome.tif") is not None


@pytest.fixture
def boxes(monkeypatch):
    """A format from outside the package: a line ``class left top right bottom`` an area."""

    def read_boxes(path):
        for line in path.read_text().splitlines()[1:]:
            name, *numbers = line.split()
            corners = np.array(numbers, float).reshape(2, 2)
            yield Outline(name, shaped(rectangle, corners))

    form = AnnotationFormat("boxes", (".boxes",), lambda start: start.text.startswith(b"#boxes"), read_boxes, "glass")
    register(monkeypatch, registry.FORMATS, form)


def test_a_format_from_outside_is_read_listed_and_named(tmp_path, boxes, capsys):
    (tmp_path / "a.boxes").write_text("#boxes\nTumor 0 0 30 20\n")
    path = annotations.find_file(tmp_path, tmp_path / "a.svs")
    slide = slides.Slide(tmp_path / "a.npy", array_reader.blank((99, 99), bounds=(5.0, 5.0)), Scale(0.5, 0.5, "slide"))
    (region,) = annotations.of_slide(slide, path, None, MAP).regions
    assert region.shape.bounds == (0, 0, 30, 20)
    with pytest.raises(SystemExit):
        cli.main(["prep", "--help"])
    assert ".boxes" in capsys.readouterr().out
    (tmp_path / "b.boxes").write_text("nothing")
    with pytest.raises(DiffpathError, match=r"fix: export them as .*boxes"):
        annotations.read_regions(tmp_path / "b.boxes", MAP)
