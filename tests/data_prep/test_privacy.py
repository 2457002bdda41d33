"""Names, dates and numbers planted wherever a scanner or a person may have left them occur in no public byte."""

import json
import stat
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from diffpath_jax import cli
from diffpath_jax.data import writer
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import read_shard
from tests.conftest import MPP, PINK, PURPLE, feature

SIZE = 256
# A colour that no tissue has: label and macro image are filled with it.
SIGNAL = (1, 254, 3)
# Text tags of TIFF: DocumentName, Make, Model, PageName, Software, DateTime, Artist, HostComputer, ImageID, XMP, IPTC,
# Copyright, Photoshop, ICC profile, UniqueCameraModel, CameraSerialNumber, OriginalRawFileName, ImageHistory.
TAGS = (269, 271, 272, 285, 305, 306, 315, 316, 32781, 700, 33723, 33432, 34377, 34675, 50708, 50735, 50827, 41491)
APERIO = ("Filename", "ScanScope ID", "User", "Title", "Patient", "Barcode", "ImageID", "Date", "Time", "Time Zone")


class Secrets:
    """Hands out words to plant, each of its own."""

    def __init__(self):
        self.words: list[str] = []

    def new(self, where: str) -> str:
        """A word for a place; letters and digits, as in a name with a date of birth."""
        self.words.append(f"Zq{len(self.words):02d}{where.replace(' ', '')}1957")
        return self.words[-1]


def write_identified_slide(path: Path, secrets: Secrets, seed: int) -> Path:
    """An Aperio-like slide that says whose it is in every place it can."""
    rng = np.random.default_rng(seed)
    image = (
        np.where(np.arange(SIZE)[None, :, None] < SIZE // 2, PURPLE, PINK) + rng.normal(0, 12, (SIZE, SIZE, 3))
    ).clip(0, 255)
    said = "".join(f"|{key} = {secrets.new(key)}" for key in APERIO)
    description = (
        f"Aperio Image Library v0 {secrets.new('head')}\r\n{SIZE}x{SIZE} (128x128)|AppMag = 20|MPP = {MPP}{said}"
    )
    tags = [
        (code, "B" if code in (700, 33723, 34377, 34675) else "s", 0, word, True)
        for code in TAGS
        for word in [secrets.new(f"tag{code}")]
    ]
    tags = [
        (code, kind, len(word) if kind == "B" else 0, word.encode() if kind == "B" else word, once)
        for code, kind, _, word, once in tags
    ]
    extra = np.full((64, 64, 3), SIGNAL, np.uint8)
    with tifffile.TiffWriter(path) as file:
        options = {"photometric": "rgb", "metadata": None, "software": False}
        file.write(image.astype(np.uint8), tile=(128, 128), description=description, extratags=tags, **options)
        for kind in ("label", "macro"):
            text = f"Aperio Image Library v0\r\n{kind} 64x64 {secrets.new(kind)}"
            file.write(extra, rowsperstrip=64, description=text, subfiletype=1 if kind == "label" else 9, **options)
    return path


def write_identified_annotations(path: Path, secrets: Secrets) -> Path:
    region = feature("Tumour", 0, 0, SIZE, SIZE)
    region["id"] = secrets.new("id")
    region["properties"] |= {
        "name": secrets.new("name"),
        "author": secrets.new("author"),
        "description": secrets.new("description"),
        "metadata": {"ANNOTATION_DESCRIPTION": secrets.new("metadata"), secrets.new("key"): 1},
        "measurements": {secrets.new("measurement"): 1.5},
    }
    content = {"type": "FeatureCollection", "features": [region], "author": secrets.new("collection")}
    path.write_text(json.dumps(content))
    return path


def everything_in(path: Path) -> list[bytes]:
    """The name and the bytes of a file, and what they hold once they are decoded."""
    data = path.read_bytes()
    found = [path.name.encode(), data]
    if ".array_record" in path.name:
        found += read_shard(path)
    if data[:4] == b"PAR1":
        found.append(json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False).encode())
        found.append(str(pq.read_schema(path).metadata).encode())
    if data.startswith(b"\x89PNG"):
        found += png_texts(data)
    return found


def png_texts(data: bytes) -> list[bytes]:
    """All chunks of a PNG but its pixels, inflated where they are compressed."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind != b"IDAT":
            found.append(kind + body)
        for start in range(min(len(body), 200)) if kind in (b"zTXt", b"iTXt", b"iCCP") else ():
            if body[start : start + 1] == b"\x78":
                try:
                    found.append(zlib.decompress(body[start:]))
                except zlib.error:
                    continue
        at += 12 + length
    return found


def leaks(folder: Path, words: list[str]) -> list[tuple[str, str]]:
    """(file, word) wherever one is found outside ``private/``, in any of the usual encodings and cases."""
    encoded = [(word, word.lower().encode(code)) for word in words for code in ("ascii", "utf-16-le", "utf-16-be")]
    found = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_file() and below.parts[0] != "private":
            contents = [content.lower() for content in everything_in(path)]
            found += [(str(below), word) for word, data in encoded if any(data in content for content in contents)]
        elif any(word.lower() in below.name.lower() for word in words):
            found.append((str(below), below.name))
    return found


def test_what_is_planted_is_found(tmp_path):
    """The search itself: each way of hiding a word is seen through."""
    word = "Zq00Doe1957"
    picture = PIL.Image.new("RGB", (4, 4))
    info = PIL.PngImagePlugin.PngInfo()
    info.add_text("Title", word * 40, zip=True)
    picture.save(tmp_path / "a.png", pnginfo=info)
    pq.write_table(pa.table({"x": [word.upper()] * 9}), tmp_path / "b.parquet", compression="zstd")
    writer.write_shard(tmp_path / "c.array_record-0", [word.encode() + bytes(9999)])
    (tmp_path / "d.html").write_bytes(b"<p>" + word.encode("utf-16-le"))
    (tmp_path / f"e {word}").mkdir()
    (tmp_path / "f.json").write_text("{}")
    assert {name[0] for name, _ in leaks(tmp_path, [word])} == set("abcde")


def check_private(out: Path) -> list[dict]:
    """Nothing in ``private/`` is open to others; gives its table."""
    assert stat.S_IMODE((out / "private").stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "private" / "patches.parquet").stat().st_mode) == 0o600
    assert stat.S_IMODE((out / "private" / "hash.key").stat().st_mode) == 0o600
    return pq.read_table(out / "private" / "patches.parquet").to_pylist()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of three identified slides, of which one cannot be read; the words that were planted."""
    secrets, place = Secrets(), tmp_path_factory.mktemp("private")
    folder = place / secrets.new("folder") / secrets.new("ward")
    (folder / "regions").mkdir(parents=True)
    rows = []
    for number in range(4):
        name = f"{secrets.new('file')} 02-03-1957"
        slide = write_identified_slide(folder / f"{name}.svs", secrets, number)
        write_identified_annotations(folder / "regions" / f"{name}.geojson", secrets)
        rows.append(f'"{name}","{secrets.new("Doe")}, {secrets.new("Jane")}",{secrets.new("note")}\n')
    slide.write_bytes(slide.read_bytes()[:3000])
    (folder / "patients.csv").write_text("slide,patient,note\n" + "".join(rows))
    (folder / "map.json").write_text('{"classes": {"Tumour": "tumour"}}')
    words = ["prep", "--slides", folder, "--annotations", folder / "regions", "--patients", folder / "patients.csv"]
    words += ["--classes", folder / "map.json", "--out", place / "out", "--fov_um", 16, "--patch_px", 16]
    assert cli.main([str(word) for word in (*words, "--workers", 0)]) == 3
    return place / "out", secrets.words


def test_planted_words_of_slides_are_nowhere(prepared):
    out, words = prepared
    per_slide = len(TAGS) + len(APERIO) + 3
    assert per_slide > 20 and len(words) == len(set(words)) > 4 * (per_slide + 11)
    assert not leaks(out, words)
    assert not leaks(out, ["02-03-1957"])


def test_the_private_table_leads_back(prepared):
    out, words = prepared
    rows = check_private(out)
    assert len({row["slide"] for row in rows}) == len({row["patient"] for row in rows}) == 3
    assert all(any(word in row["slide_file"] for word in words) and row["patient"].count("1957") == 2 for row in rows)
    records = [record for path in out.glob("*.array_record*") for record in read_shard(path)]
    assert records and all(any(row["slide"].encode() in record for row in rows) for record in records)


def test_label_and_macro_images_are_in_no_picture(prepared):
    out, _ = prepared
    pictures = {path.stem: cv2.imread(str(path))[..., ::-1] for path in out.rglob("*.png")}
    # Of each slide an overview and fields at zoom.
    assert len({name.partition("-")[0] for name in pictures}) == 3 < len(pictures)
    for picture in pictures.values():
        assert np.abs(picture.astype(int) - SIGNAL).sum(axis=-1).min() > 60


def test_the_slides_do_say_it(prepared):
    """What is planted is where readers of slides find it."""
    out, words = prepared
    folder = next(path for path in out.parent.iterdir() if path != out)
    slide = min(folder.rglob("*.svs"))
    with tifffile.TiffFile(slide) as file:
        said = " ".join(str(tag.value) for page in file.pages for tag in page.tags)
    assert sum(word in said for word in words) >= len(TAGS) + len(APERIO)


def test_planted_words_of_images_are_nowhere(tmp_path):
    secrets, place = Secrets(), tmp_path / "source"
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("Tumour", "Normal"):
        (place / kind).mkdir(parents=True)
        for i in range(6):
            picture = PIL.Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8))
            exif, info = PIL.Image.Exif(), PIL.PngImagePlugin.PngInfo()
            for tag in (270, 305, 306, 315, 316, 33432):
                exif[tag] = secrets.new(f"exif{tag}")
            info.add_itxt("Description", secrets.new("text"), zip=True)
            name = f"{kind}/{secrets.new('file')}.png"
            picture.save(place / name, exif=exif, pnginfo=info)
            rows.append(f"{name},{secrets.new('Doe')}{i // 2}\n")
    bad = f"Tumour/{secrets.new('bad')}.png"
    (place / bad).write_bytes(encode_png(np.zeros((24, 24, 3), np.uint8))[:50])
    (place / "patients.csv").write_text("image,patient\n" + "".join(rows) + f"{bad},x\n")
    words = ["prep", "--images", place, "--patients", place / "patients.csv", "--mpp", 0.5, "--out", tmp_path / "out"]
    assert cli.main([str(word) for word in (*words, "--workers", 0)]) == 3
    assert not leaks(tmp_path / "out", secrets.words)
    assert {row["slide_file"] for row in check_private(tmp_path / "out")} == {row.split(",")[0] for row in rows}
