import json

import pytest

from data_prep.annotations import regions as annotations
from data_prep.annotations.class_map import ClassMap, read_class_map
from diffpath_jax.io.errors import DiffpathError

MAP = ClassMap({"Tumour": "tumour", "Stroma": "stroma"}, frozenset({"Pen"}))
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]


def polygon(name, *rings, kind="Polygon"):
    coordinates = list(rings) if kind == "Polygon" else [[ring] for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"classification": {"name": name}, "measurements": {"Area": 3}},
    }


def read(tmp_path, content, class_map=MAP):
    path = tmp_path / "regions.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return annotations.read_regions(path, class_map).regions


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
def test_every_form_of_geojson(tmp_path, wrap):
    (region,) = read(tmp_path, wrap(polygon("Tumour", SQUARE, HOLE)))
    assert region.name == "tumour"
    assert region.shape.area == 100 - 4


def test_multipolygon_and_ignored_classes(tmp_path):
    far = [[x + 100, y] for x, y in SQUARE]
    regions = read(tmp_path, [polygon("Stroma", SQUARE, far, kind="MultiPolygon"), polygon("Pen", SQUARE)])
    assert [r.name for r in regions] == ["stroma"]
    assert regions[0].shape.area == 200


def test_points_and_lines_are_no_regions(tmp_path):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {}}
    assert len(read(tmp_path, [point, polygon("Tumour", SQUARE)])) == 1


def test_a_bow_tie_is_repaired(tmp_path):
    (region,) = read(tmp_path, [polygon("Tumour", [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]])])
    assert region.shape.area == 50


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "empty"),
        ("{", "JSON"),
        ("NaN", "neither GeoJSON nor XML"),
        ("[" * 100_000, "JSON"),
        ("3", "neither GeoJSON nor XML"),
        ('{"type": "FeatureCollection", "features": 3}', "feature list"),
        ([], "no polygon"),
        ([polygon("Unknown", SQUARE)], "Unknown"),
        ([{**polygon("Tumour", SQUARE), "properties": None}], "None"),
        ([polygon("Tumour", [[0, 0], [1, 1]])], "not a polygon"),
        ([polygon("Tumour", [["a", 0], [1, 1], [1, 0], ["a", 0]])], "not a polygon"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, content, why):
    with pytest.raises(DiffpathError, match=why) as caught:
        read(tmp_path, content)
    assert "regions.geojson" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_map(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"classes": {"A": "x", "B": "y", "C": "x"}, "ignore": ["D"]}))
    assert read_class_map(path).names == ("x", "y")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"classes": {}}',
        '{"classes": {"A": 3}}',
        '{"classes": {"A": "../../x"}}',
        '{"classes": {"A": "x"}, "typo": []}',
        '{"classes": {"A": "x"}, "ignore": [3]}',
    ],
)
def test_bad_class_maps(tmp_path, content):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(DiffpathError, match=r"map\.json"):
        read_class_map(path)


def test_all_classes_are_used_under_plain_names(tmp_path):
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps([polygon("Tumour: high-grade", SQUARE), polygon("Stroma", SQUARE)]))
    assert annotations.all_classes([path], slide_labels=[]).classes == {
        "Stroma": "stroma",
        "Tumour: high-grade": "tumour_high_grade",
    }
