"""The same regions as QuPath, ASAP and ImageScope write them."""

import json
from pathlib import Path
from xml.sax.saxutils import quoteattr

Ring = list[tuple[float, float]]


def qupath(path: Path, regions: list[tuple[str, Ring, list[Ring]]]) -> Path:
    """GeoJSON in QuPath's shape; derived classes by their list of names, as newer versions do."""
    features = [
        {
            "type": "Feature",
            "id": f"00000000-0000-0000-0000-{number:012d}",
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in (outer, *holes)]},
            "properties": {
                "objectType": "annotation",
                "name": "a [[1, 2], [3, 4]] of mine",
                "isLocked": True,
                "classification": (
                    {"names": name.split(": "), "color": [200, 0, 0]}
                    if ": " in name
                    else {"name": name, "color": [200, 0, 0]}
                ),
                "measurements": {"Area px^2": 12.5, "Nucleus: mean": float("nan")},
            },
        }
        for number, (name, outer, holes) in enumerate(regions)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=2), encoding="utf-8")
    return path


def asap(path: Path, regions: list[tuple[str, Ring, list[Ring]]]) -> Path:
    """ASAP's XML, which has no holes: each is reached by a cut without width."""
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "<Annotations>"]
    for number, (name, outer, holes) in enumerate(regions):
        ring = list(outer)
        for hole in holes:
            ring += [outer[0], *hole, hole[0], outer[0]]
        group, kind = quoteattr(name), "Spline" if number % 2 else "Polygon"
        lines.append(f'<Annotation Name="Annotation {number}" Type="{kind}" PartOfGroup={group} Color="#F4FA58">')
        coordinates = [f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring)]
        # The order is what Order says.
        lines += ["<Coordinates>", *reversed(coordinates), "</Coordinates>", "</Annotation>"]
    dot = '<Annotation Name="dot" Type="Dot" PartOfGroup="None" Color="#F4FA58"><Coordinates>'
    lines += [dot, '<Coordinate Order="0" X="5" Y="5" /></Coordinates></Annotation>']
    lines += ["</Annotations>", '<AnnotationGroups><Group Name="Purple" PartOfGroup="None" Color="#00ff00">']
    lines += ["<Attributes /></Group></AnnotationGroups>", "</ASAP_Annotations>"]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def imagescope(path: Path, regions: list[tuple[str, Ring, list[Ring]]]) -> Path:
    """ImageScope's XML: a layer a class, holes as negative regions, a ruler beside them."""
    lines = ['<Annotations MicronsPerPixel="0.5">']
    for number, name in enumerate(dict.fromkeys(name for name, _, _ in regions)):
        # The second layer has no name; its class is the text of its regions. Who drew it is no class.
        layer, text = (name, "") if number % 2 == 0 else ("", name)
        lines.append(f'<Annotation Id="{number}" Name={quoteattr(layer)} ReadOnly="0" Type="4" LineColor="65280">')
        lines.append('<Attributes><Attribute Name="Description" Id="0" Value="by A. Person" /></Attributes>')
        lines.append(
            '<Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" /></RegionAttributeHeaders>'
        )
        lines.append(_region([(1, 1), (900, 900)], kind=4))
        for found, outer, holes in regions:
            if found == name:
                lines += [_region(outer, text=text), *(_region(hole, negative=1) for hole in holes)]
        lines.append("</Regions><Plots /></Annotation>")
    lines.append("</Annotations>")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _region(ring: Ring, *, kind: int = 0, negative: int = 0, text: str = "") -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0" />' for x, y in ring)
    return (
        f'<Region Id="1" Type="{kind}" Text={quoteattr(text)} NegativeROA="{negative}" Analyze="1"><Attributes />'
        f"<Vertices>{vertices}</Vertices></Region>"
    )


def ndpa(path: Path, regions: list[tuple[str, Ring, list[Ring]]]) -> Path:
    """Hamamatsu's NDPA, whose points are nm from the centre of the glass; a view a region, a pin beside them."""
    lines = ['<?xml version="1.0" encoding="utf-8" standalone="yes"?>', "<annotations>"]
    for number, (name, outer, _) in enumerate(regions):
        points = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in outer)
        lines.append(
            f'<ndpviewstate id="{number}"><title>{name}</title><details /><coordformat>nanometers</coordformat>'
            "<lens>2.5</lens><x>1</x><y>2</y><z>0</z>"
            '<annotation type="freehand" displayname="AnnotateFreehand" color="#000000"><measuretype>0</measuretype>'
            f"<closed>1</closed><pointlist>{points}</pointlist></annotation></ndpviewstate>"
        )
    lines.append('<ndpviewstate id="99"><title>pin</title><coordformat>nanometers</coordformat>')
    lines.append('<annotation type="pin" color="#fff"><x>1</x><y>2</y></annotation></ndpviewstate></annotations>')
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def halo(path: Path, regions: list[tuple[str, Ring, list[Ring]]]) -> Path:
    """HALO's XML: a layer a class, corners called V, holes as negative regions, a pin beside them."""

    def region(ring: Ring, negative: int, kind: str = "Polygon") -> str:
        corners = "".join(f'<V X="{x}" Y="{y}" />' for x, y in ring)
        return f'<Region Type="{kind}" HasEndcaps="0" NegativeROA="{negative}"><Vertices>{corners}</Vertices></Region>'

    lines = ["<Annotations>"]
    for name in dict.fromkeys(name for name, _, _ in regions):
        lines.append(f'<Annotation LineColor="65280" Name={quoteattr(name)} Visible="True"><Regions>')
        lines.append(region([(1, 1), (900, 900)], 0, "Ruler"))
        for layer, outer, holes in regions:
            if layer == name:
                lines += [region(outer, 0), *(region(hole, 1) for hole in holes)]
        lines.append("</Regions></Annotation>")
    path.write_text("\n".join([*lines, "</Annotations>"]), encoding="utf-8")
    return path
