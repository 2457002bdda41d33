"""Spoiled annotation files: one line with the fix and exit code 2, or a data set; nothing else, and soon."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import write_slide
from tests.data_prep.oracle import MEASURED, MEMORY_MIB, outcome

SQUARE = [[130.0, 130.0], [500.0, 130.0], [500.0, 890.0], [130.0, 890.0], [130.0, 130.0]]
RING = [tuple(point) for point in SQUARE[:-1]]
HOLE = [[200, 200], [300, 200], [300, 300], [200, 300], [200, 200]]
FAR = [[x + 1e5, y] for x, y in SQUARE]
HUGE = "9" * 400


def feature(coordinates, *, kind="Polygon", name: object = "Purple", **properties) -> dict:
    classification = {} if name is None else {"classification": {"name": name}}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {**classification, **properties}}


def geojson(*features) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()


GOOD = geojson(feature([SQUARE]))


def asap(coordinates: str, *, kind="Polygon", group="Purple", head='<?xml version="1.0"?>') -> bytes:
    annotation = f'<Annotation Name="0" Type="{kind}" PartOfGroup="{group}"><Coordinates>{coordinates}</Coordinates>'
    return f"{head}<ASAP_Annotations><Annotations>{annotation}</Annotation></Annotations></ASAP_Annotations>".encode()


def points(ring=RING, *, order="{}") -> str:
    return "".join(f'<Coordinate Order="{order.format(i)}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring))


def imagescope(vertices: str, *, kind: object = 0, name="Purple", negative: object = 0, head="") -> bytes:
    region = f'<Region Type="{kind}" NegativeROA="{negative}"><Vertices>{vertices}</Vertices></Region>'
    layer = f'<Annotation Id="1" Name="{name}"><Regions>{region}</Regions></Annotation>'
    return f"{head}<Annotations>{layer}</Annotations>".encode()


def vertices(ring=RING) -> str:
    return points(ring).replace("Coordinate", "Vertex")


def bomb(levels: int) -> str:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, levels))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "lol">{entities}]>'


QUADRATIC = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e "{"a" * 50_000}">]>'
FILE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
WEB = '<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">'
PARAMETER = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]>'
# Spoiled text that both programs' XML is tried with: the coordinates' text -> the whole file.
XML: dict[str, Callable[..., bytes]] = {
    "asap": lambda ring=RING, **options: asap(points(ring), **options),
    "imagescope": lambda ring=RING, **options: imagescope(vertices(ring), **options),
}

# name: (suffix, content, what the error must say; nothing where a data set must come out)
CORPUS: dict[str, tuple[str, bytes, str]] = {
    "empty": ("geojson", b"", "empty"),
    "only spaces": ("geojson", b" \n\t ", "empty"),
    "only a byte order mark": ("geojson", b"\xef\xbb\xbf", "empty"),
    "binary": ("geojson", bytes(range(256)) * 100, "neither GeoJSON nor XML"),
    "zeros": ("geojson", bytes(10_000), "empty"),
    "a picture": ("json", b"\x89PNG\r\n\x1a\n" + bytes(99), "neither GeoJSON nor XML"),
    "a pickle": ("json", b"\x80\x04\x95\x10\x00\x00\x00", "neither GeoJSON nor XML"),
    "binary after a brace": ("geojson", b"{\x00\xff\xfe" + bytes(range(256)), "JSON"),
    "binary after a bracket": ("xml", b"<\x00\xff\x01" + bytes(range(256)), "XML"),
    "prose": ("geojson", b"Tumour in the upper left.", "neither GeoJSON nor XML"),
    "html": ("xml", b"<html><body>Not found</body></html>", "XML of html"),
    "a bare number": ("json", b"3", "neither GeoJSON nor XML"),
    "NaN alone": ("json", b"NaN", "neither GeoJSON nor XML"),
    "a list of numbers": ("json", b"[1, 2, 3]", "feature list"),
    "a list of lists": ("json", b"[[[[0, 0]]]]", "feature list"),
    "an empty list": ("json", b"[]", "no polygon"),
    "an empty object": ("json", b"{}", "no polygon"),
    "features that are no list": ("json", b'{"type": "FeatureCollection", "features": {"a": 1}}', "feature list"),
    "no features": ("json", b'{"type": "FeatureCollection"}', "no polygon"),
    "features of null": ("json", b'{"type": "FeatureCollection", "features": [null]}', "feature list"),
    "geometry of null": ("json", b'[{"type": "Feature", "geometry": null, "properties": {}}]', "no polygon"),
    "deep nesting": ("geojson", b"[" * 1_000_000, "JSON"),
    "deep nesting of objects": ("geojson", b'{"features":' * 200_000, "JSON"),
    "deep nesting of coordinates": (
        "geojson",
        b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":%s1%s}}' % (b"[" * 10**5, b"]" * 10**5),
        "class",
    ),
    "deep and named": (
        "geojson",
        GOOD.replace(json.dumps([SQUARE]).encode(), b"[" * 100_000 + b"1" + b"]" * 100_000),
        "not a polygon",
    ),
    "utf-16": ("geojson", GOOD.decode().encode("utf-16"), "JSON"),
    "latin-1": ("geojson", geojson(feature([SQUARE], name="Purple")).replace(b"Purple", b"Gr\xfcn"), "JSON"),
    "broken escape": ("geojson", GOOD.replace(b"Purple", b"Pur\\uZZZZ"), "JSON"),
    "lone surrogate as class": ("geojson", GOOD.replace(b"Purple", b"\\ud800"), ""),
    "two files in one": ("geojson", GOOD + GOOD, "JSON"),
    "trailing comma": ("geojson", GOOD.replace(b"}]}", b"},]}"), "JSON"),
    "class as a number": ("geojson", geojson(feature([SQUARE], name=3)), "class"),
    "class of null": ("geojson", geojson(feature([SQUARE], name=None)), "class"),
    "classification as a list": (
        "geojson",
        GOOD.replace(b'{"name": "Purple"}', b"[1]"),
        "class",
    ),
    "no properties": ("geojson", geojson({**feature([SQUARE]), "properties": None}), "class"),
    "names that are no list": ("geojson", GOOD.replace(b'"name": "Purple"', b'"names": 5'), "class"),
    "no names": ("geojson", GOOD.replace(b'"name": "Purple"', b'"names": []'), "class"),
    "only points": ("geojson", geojson(feature([1, 2], kind="Point")), "no polygon"),
    "only lines": ("geojson", geojson(feature(SQUARE, kind="LineString")), "no polygon"),
    "two points": ("geojson", geojson(feature([[[0, 0], [9, 9]]])), "not a polygon"),
    "two points, closed": ("geojson", geojson(feature([[[0, 0], [9, 9], [0, 0]]])), "not a polygon"),
    "one point often": ("geojson", geojson(feature([[[5, 5]] * 9])), "not a polygon"),
    "a line as polygon": ("geojson", geojson(feature([[[0, 0], [5, 5], [9, 9], [0, 0]]])), "no polygon"),
    "no ring": ("geojson", geojson(feature([])), "not a polygon"),
    "an empty ring": ("geojson", geojson(feature([[]])), "not a polygon"),
    "no polygons in it": ("geojson", geojson(feature([], kind="MultiPolygon")), "not a polygon"),
    "coordinates of null": ("geojson", geojson(feature(None)), "not a polygon"),
    "coordinates as a number": ("geojson", geojson(feature(0)), "not a polygon"),
    "coordinates as text": ("geojson", geojson(feature("0 0, 1 1")), "not a polygon"),
    "no coordinates": ("geojson", GOOD.replace(b'"coordinates"', b'"corners"'), "not a polygon"),
    "four numbers a point": ("geojson", geojson(feature([[[1, 2, 3, 4]] * 5])), "not a polygon"),
    "one number a point": ("geojson", geojson(feature([[[1], [2], [3], [1]]])), "not a polygon"),
    "points of unequal length": ("geojson", geojson(feature([[[1, 2], [3, 4, 5], [6, 7], [1, 2]]])), "not a polygon"),
    "numbers as text": ("geojson", geojson(feature([[["1", "2"], ["3", "4"], ["5", "0"], ["1", "2"]]])), "polygon"),
    "a comma for a point": ("geojson", GOOD.replace(b"[130.0, 130.0]", b"[130,0, 130,0]"), "not a polygon"),
    "a space inside a number": ("geojson", GOOD.replace(b"500.0", b"5 00.0"), "not a polygon"),
    "a missing number": ("geojson", GOOD.replace(b"500.0", b""), "not a polygon"),
    "a misspelt number": ("geojson", GOOD.replace(b"500.0", b"5-0.0"), "not a polygon"),
    "NaN": ("geojson", GOOD.replace(b"500.0", b"NaN"), "not a polygon"),
    "infinity": ("geojson", GOOD.replace(b"500.0", b"-Infinity"), "not a polygon"),
    "too large for a float": ("geojson", GOOD.replace(b"500.0", HUGE.encode()), "no place on a slide"),
    "an exponent too large": ("geojson", GOOD.replace(b"500.0", b"1e999"), "no place on a slide"),
    "off every slide": ("geojson", GOOD.replace(b"500.0", b"1e8"), "no place on a slide"),
    "outside the slide": ("geojson", geojson(feature([FAR])), "outside the slide"),
    "negative": ("geojson", geojson(feature([[[-x, -y] for x, y in SQUARE]])), "outside the slide"),
    "two classes alike": (
        "geojson",
        geojson(feature([SQUARE], name="a b"), feature([HOLE], name="A-B")),
        "plain letters",
    ),
    "two foreign classes": (
        "geojson",
        geojson(feature([SQUARE], name="肿瘤"), feature([HOLE], name="基质")),
        "plain letters",
    ),
    "10,000 classes": (
        "geojson",
        geojson(
            *(
                feature(
                    [[[x + i % 100 * 7, y + i // 100 * 7] for x, y in [[0, 0], [6, 0], [6, 6], [0, 0]]]], name=f"c{i}"
                )
                for i in range(10_000)
            )
        ),
        "none passed",
    ),
    "10,000 classes in one place": (
        "geojson",
        geojson(*(feature([SQUARE], name=f"c{i}") for i in range(10_000))),
        "none passed",
    ),
    # What is unusual and still an annotation:
    "one feature": ("json", json.dumps(feature([SQUARE])).encode(), ""),
    "a bare list": ("json", json.dumps([feature([SQUARE])]).encode(), ""),
    "a byte order mark": ("geojson", b"\xef\xbb\xbf" + GOOD, ""),
    "no space anywhere": ("geojson", GOOD.replace(b" ", b""), ""),
    "indented": ("geojson", json.dumps(json.loads(GOOD), indent=4).encode(), ""),
    "exponents": ("geojson", GOOD.replace(b"500.0", b"5.0E+2"), ""),
    "a hole": ("geojson", geojson(feature([SQUARE, HOLE])), ""),
    "a hole outside": ("geojson", geojson(feature([SQUARE, [[x + 500, y] for x, y in HOLE]])), ""),
    "a multipolygon": ("geojson", geojson(feature([[SQUARE, HOLE], [HOLE]], kind="MultiPolygon")), ""),
    "a bow-tie": ("geojson", geojson(feature([[SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]])), ""),
    "an open ring": ("geojson", geojson(feature([SQUARE[:-1]])), ""),
    "heights": ("geojson", geojson(feature([[[x, y, 0] for x, y in SQUARE]])), ""),
    "partly outside": ("geojson", geojson(feature([[[x - 200, y] for x, y in SQUARE]])), ""),
    "class of a path": ("geojson", geojson(feature([SQUARE], name="../../x")), ""),
    "class of markup": ("geojson", geojson(feature([SQUARE], name="<script>[red]alert(1)[/red]")), ""),
    "class of 5,000 letters": ("geojson", geojson(feature([SQUARE], name="x" * 5_000)), ""),
    "class with a line break": ("geojson", geojson(feature([SQUARE], name="a\nerror: b")), ""),
    "class that looks like coordinates": ("geojson", geojson(feature([SQUARE], name='"coordinates": [[1]]}')), ""),
    "nested measurements": (
        "geojson",
        geojson(feature([SQUARE], measurements=[{"name": "a", "value": float("nan"), "x": [[[1, 2]]] * 99}])),
        "",
    ),
    "other program's xml": ("xml", b"<Slide><Annotations/></Slide>", "XML of Slide"),
    "xml with an unknown encoding": ("xml", asap(points(), head='<?xml version="1.0" encoding="klingon"?>'), "XML"),
    "deep xml": ("xml", b"<Annotations>" + b"<a>" * 200_000, "XML"),
    "deep and whole xml": ("xml", b"<Annotations>" + b"<a>" * 50_000 + b"</a>" * 50_000 + b"</Annotations>", "polygon"),
    "no annotations in asap": ("xml", b"<ASAP_Annotations><Annotations/></ASAP_Annotations>", "no polygon"),
    "no annotations in imagescope": ("xml", b"<Annotations/>", "no polygon"),
    "asap without a group": ("xml", asap(points(), group="None"), "class"),
    "asap with a path as group": ("xml", asap(points(), group="../../x"), ""),
    "asap dots": ("xml", asap(points(), kind="Dot"), "no polygon"),
    "asap without order": ("xml", asap(points(order="")), "Order"),
    "asap with half an order": ("xml", asap(points(order="{}.5")), "Order"),
    "asap spline": ("xml", asap(points(), kind="Spline"), ""),
    "asap rectangle": ("xml", asap(points(), kind="Rectangle"), ""),
    "asap rectangle of one corner": ("xml", asap(points(RING[:1]), kind="Rectangle"), "not a polygon"),
    "imagescope without a name": ("xml", imagescope(vertices(), name=""), "class"),
    "imagescope rulers": ("xml", imagescope(vertices(), kind=4), "no polygon"),
    "imagescope arrows": ("xml", imagescope(vertices(), kind=3), "no polygon"),
    "imagescope holes alone": ("xml", imagescope(vertices(), negative=1), "no polygon"),
    "imagescope without a type": ("xml", imagescope(vertices(), kind=""), "no polygon"),
    "imagescope ellipse": ("xml", imagescope(vertices(), kind=2), ""),
    "imagescope rectangle of two corners": ("xml", imagescope(vertices([RING[0], RING[2]]), kind=1), ""),
    "imagescope ellipse of a point": ("xml", imagescope(vertices(RING[:1]), kind=2), "not a polygon"),
    "imagescope ellipse without a point": ("xml", imagescope("", kind=2), "not a polygon"),
    "imagescope flat ellipse": ("xml", imagescope(vertices(RING[:2]), kind=2), "polygon"),
    **{f"truncated to {i} eighths": ("geojson", GOOD[: len(GOOD) * i // 8], "JSON") for i in range(1, 8)},
    **{
        f"{program}, {name}": ("xml", content, why)
        for program, write in XML.items()
        for name, content, why in (
            ("as it should be", write(), ""),
            ("a bomb", write(head=bomb(10)).replace(b"Purple", b"&e9;"), "entities"),
            ("a quadratic bomb", write(head=QUADRATIC).replace(b"Purple", b"&e;" * 50_000), "entities"),
            ("a file as entity", write(head=FILE).replace(b"Purple", b"&e;"), "entities"),
            ("a parameter entity", write(head=PARAMETER), "entities"),
            ("a document type elsewhere", write(head=WEB), "document type"),
            ("an undeclared entity", write().replace(b"Purple", b"&nowhere;"), "XML"),
            ("truncated", write()[:-30], "XML"),
            ("half", write()[: len(write()) // 2], "XML"),
            ("two roots", write() + b"<a/>", "XML"),
            ("a byte that is no UTF-8", write().replace(b"Purple", b"P\xfcrple"), "XML"),
            ("utf-16 without a mark", write().decode().encode("utf-16-le"), ""),
            ("two points", write(RING[:2]), "not a polygon"),
            ("no points", write([]), "not a polygon"),
            ("one point often", write(RING[:1] * 9), "not a polygon"),
            ("NaN", write([*RING, ("nan", 3)]), "no place on a slide"),
            ("infinity", write([*RING, (3, "-inf")]), "no place on a slide"),
            ("a decimal comma", write([("130,5", 3), *RING]), "not numbers"),
            ("no number", write([("", 3), *RING]), "not numbers"),
            ("no X", write().replace(b" X=", b" Z="), "not numbers"),
            ("a bow-tie", write([RING[0], RING[2], RING[1], RING[3]]), ""),
            ("outside the slide", write([(x + 5000, y) for x, y in RING]), "outside the slide"),
            ("partly outside", write([(x - 200, y) for x, y in RING]), ""),
        )
    },
    "latin-1 as declared": (
        "xml",
        b'<?xml version="1.0" encoding="ISO-8859-1"?>' + imagescope(vertices(), name="Grün").decode().encode("latin-1"),
        "",
    ),
    "utf-16 as declared": (
        "xml",
        asap(points(), head='<?xml version="1.0" encoding="UTF-16"?>').decode().encode("utf-16"),
        "",
    ),
}
SAMPLE = list(CORPUS)[::9]
FIELDS = ["--fov_um", "64", "--patch_px", "16", "--gap_um", "16"]


@pytest.fixture(scope="module")
def small_slide(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("slide") / "one.svs")


def check(capsys, tmp_path, slide, name: str) -> None:
    suffix, content, why = CORPUS[name]
    regions = tmp_path / "regions"
    regions.mkdir()
    (regions / f"one.{suffix}").write_bytes(content)
    words = ["--slides", slide, "--annotations", regions, *FIELDS]
    code, lines = outcome(capsys, tmp_path, words, tmp_path / "out")
    if why:
        assert code == 2 and len(lines) == 1 and why in lines[0], (code, lines)
        assert "root:" not in lines[0]
    else:
        assert code == 0 and not lines, (code, lines)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_corpus(capsys, tmp_path, small_slide, name):
    check(capsys, tmp_path, small_slide, name)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({*CORPUS} - {*SAMPLE}))
def test_the_rest_of_the_corpus(capsys, tmp_path, small_slide, name):
    check(capsys, tmp_path, small_slide, name)


def large_file(kind: str) -> bytes:
    """A hundred megabytes: one outline, small regions, or cells with measurements beside one region."""
    if kind == "one outline":
        ring = [[round(130 + i * 7e-5, 6), 130.0] for i in range(5_300_000)]
        return geojson(feature([[*ring, [500.0, 890.0], [130.0, 890.0], [130.0, 130.0]]]))
    if kind == "many regions":
        corners = [(0, 0), (1.75, 0), (1.75, 2.45), (0, 2.45), (0, 0)]
        places = [(130 + i % 200 * 1.8, 130 + i // 200 * 2.5) for i in range(60_000)]
        rings = [[[round(left + x, 2), round(top + y, 2)] for x, y in corners] for left, top in places]
        return geojson(*(feature([ring], note="x" * 1_400) for ring in rings))
    measurements = {f"Nucleus: channel {k} mean": 1.234567 * k for k in range(24)}
    cell = feature([HOLE], name=None, objectType="cell", measurements=measurements)
    return geojson(feature([SQUARE]), *[cell] * 90_000)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["one outline", "cells", "many regions"])
def test_a_hundred_megabytes(tmp_path, small_slide, kind):
    path = tmp_path / "one.geojson"
    path.write_bytes(large_file(kind))
    assert 95e6 < path.stat().st_size < 120e6
    words = ["prep", "--slides", small_slide, "--annotations", path, "--out", tmp_path / "out", *FIELDS]
    command = [sys.executable, "-c", MEASURED, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    code, peak_mib, seconds = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert peak_mib < MEMORY_MIB
    print(f"{kind}: {seconds} s, {peak_mib} MiB")
