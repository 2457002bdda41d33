"""Spoiled slides: each fails alone with one line and its fix, or gives patches; soon, and in little memory."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from diffpath_jax import cli
from tests.conftest import GLASS, MPP, PINK
from tests.data_prep.oracle import CPU_SECONDS, MEASURED, MEMORY_MIB, check_files, check_output, error_lines, outcome

SIZE = 256
FIELDS = ["--fov_um", "32", "--patch_px", "16", "--fractions", "1,0,0", "--workers", "0"]


def tissue(seed: int = 0, size: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (np.array(PINK) + rng.normal(0, 12, (size, size, 3))).clip(0, 255).astype(np.uint8)


def description(scale: str = f"|MPP = {MPP}", size: str = f"{SIZE}x{SIZE}") -> str:
    return f"Aperio Image Library v0\r\n{size} (128x128)|AppMag = 20{scale}"


def write(path: Path, image: np.ndarray, *, text: str | None = None, **options) -> None:
    options = {"tile": (128, 128), "photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, image, description=description() if text is None else text, **options)


def slide(scale: str) -> Callable[[Path], None]:
    """A good slide with another statement of its um/px."""
    return lambda path: write(path, tissue(), text=description(scale))


def good(path: Path) -> None:
    write(path, tissue())


def corrupted(change: Callable[[bytearray], object], write_first: Callable = good) -> Callable[[Path], None]:
    """A slide whose bytes are changed."""

    def write_spoiled(path: Path) -> None:
        write_first(path)
        data = bytearray(path.read_bytes())
        kept = change(data)
        path.write_bytes(kept if isinstance(kept, bytes | bytearray) else data)

    return write_spoiled


def flipped(data: bytearray) -> None:
    """Two hundred bits of the pixels are not what they were."""
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 4, len(data), 200):
        data[at] ^= 1 << int(rng.integers(8))


def jpeg(spoil: Callable[[bytes], bytes] = bytes) -> Callable[[Path], None]:
    """A slide of four JPEG tiles, the second of which may be corrupted; tifffile alone cannot write one."""

    def write_jpeg(path: Path) -> None:
        image = tissue()[..., ::-1]
        tiles = [cv2.imencode(".jpg", image[y : y + 128, x : x + 128])[1].tobytes() for y in (0, 128) for x in (0, 128)]
        tiles[1] = spoil(tiles[1])
        text, at = description().encode() + b"\0", 8 + 2 + 12 * 12 + 4
        placed = [at + len(text) + 16 + 16 + 8 + sum(map(len, tiles[:i])) for i in range(4)]
        entries = [
            (256, 4, 1, SIZE),
            (257, 4, 1, SIZE),
            (258, 3, 3, at + len(text) + 32),
            (259, 3, 1, 7),
            (262, 3, 1, 6),
        ]
        entries += [(270, 2, len(text), at), (277, 3, 1, 3), (322, 4, 1, 128), (323, 4, 1, 128)]
        entries += [(324, 4, 4, at + len(text)), (325, 4, 4, at + len(text) + 16), (530, 3, 2, 2 | 2 << 16)]
        tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + tags + bytes(4) + text
        numbers = struct.pack("<8I", *placed, *map(len, tiles)) + struct.pack("<4H", 8, 8, 8, 0)
        path.write_bytes(head + numbers + b"".join(tiles))

    return write_jpeg


def directories(data: bytearray) -> list[dict[int, int]]:
    """Where the entries of each TIFF directory begin, by tag."""
    found, (start,) = [], struct.unpack_from("<I", data, 4)
    while start:
        (count,) = struct.unpack_from("<H", data, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        found.append({struct.unpack_from("<H", data, at)[0]: at for at in places})
        (start,) = struct.unpack_from("<I", data, start + 2 + 12 * count)
    return found


def retagged(values: dict[int, int], directory: int = 0) -> Callable[[bytearray], None]:
    """Tags that say something else: each a number of 4 bytes, whatever it was."""

    def change(data: bytearray) -> None:
        places = directories(data)[directory]
        for code, value in values.items():
            struct.pack_into("<HII", data, places[code] + 2, 4, 1, value)

    return change


def without_tiles(data: bytearray) -> None:
    """The tiles of the last directory are of length 0."""
    at = directories(data)[-1][325]
    kind, count, place = struct.unpack_from("<HII", data, at + 2)
    size = count * {3: 2, 4: 4}[kind]
    place = at + 8 if size <= 4 else place
    data[place : place + size] = bytes(size)


def pyramid(second: np.ndarray, **options) -> Callable[[Path], None]:
    """A slide of two levels."""

    def write_pyramid(path: Path) -> None:
        with tifffile.TiffWriter(path) as file:
            common = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
            file.write(tissue(), description=description(), **common)
            file.write(second, description=description(), **{**common, **options})

    return write_pyramid


def flat(colour: int) -> Callable[[Path], None]:
    return lambda path: write(path, np.full((SIZE, SIZE, 3), colour, np.uint8))


def in_centimetres(x: int, y: int) -> Callable[[Path], None]:
    """No Aperio slide: a TIFF that states pixels per centimetre."""
    return lambda path: write(path, tissue(), text="", resolution=(x, y), resolutionunit="CENTIMETER")


UNREADABLE, NO_SCALE, NOTHING = "OpenSlide cannot read it", "fix: give a CSV with the columns slide,mpp", "none passed"
LEVEL = tissue(1, 192)

# name: (writes it, what the error must say; nothing where patches must come out)
CORPUS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), UNREADABLE),
    "text": (lambda path: path.write_text("Not a slide, but a letter.\n" * 99), UNREADABLE),
    "zeros": (lambda path: path.write_bytes(bytes(10_000)), UNREADABLE),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), UNREADABLE),
    "a PNG": (lambda path: path.write_bytes(cv2.imencode(".png", tissue())[1].tobytes()), UNREADABLE),
    "a JPEG": (lambda path: path.write_bytes(cv2.imencode(".jpg", tissue())[1].tobytes()), UNREADABLE),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00"), UNREADABLE),
    "a header": (corrupted(lambda data: data[:8]), UNREADABLE),
    "a header and zeros": (lambda path: path.write_bytes(b"II*\x00\x08\x00\x00\x00" + bytes(999)), UNREADABLE),
    "a directory": (lambda path: path.mkdir(), "not a file"),
    "a pipe": (os.mkfifo, "not a file"),
    "a link to nowhere": (lambda path: path.symlink_to(path.parent / "nowhere"), "cannot be read"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "not a file"),
    **{
        f"truncated to {i} eighths": (corrupted(lambda data, i=i: data[: len(data) * i // 8]), UNREADABLE)
        for i in range(1, 8)
    },
    "width of 2^31": (corrupted(retagged({256: 2**31 - 1})), UNREADABLE),
    "height of 2^31": (corrupted(retagged({257: 2**31 - 1})), UNREADABLE),
    "2^31 wide and high, in one tile": (corrupted(retagged({k: 2**31 - 16 for k in (256, 257, 322, 323)})), "slide in"),
    "100,000 wide and high, in one tile": (corrupted(retagged({k: 100_000 for k in (256, 257, 322, 323)})), "slide in"),
    "30,000 wide and high, in one tile": (
        corrupted(retagged({k: 30_000 - 16 for k in (256, 257, 322, 323)})),
        "slide in",
    ),
    "width of 0": (corrupted(retagged({256: 0})), UNREADABLE),
    "tiles of width 0": (corrupted(retagged({322: 0})), UNREADABLE),
    "tiles of 2^20": (corrupted(retagged({322: 2**20})), "it declares tiles of 1048576 x 128 px"),
    "tiles beyond the end": (corrupted(retagged({324: 2**32 - 16})), UNREADABLE),
    "another compression": (corrupted(retagged({259: 5})), "reading failed"),
    "an unknown compression": (corrupted(retagged({259: 60_000})), UNREADABLE),
    "one channel of three": (corrupted(retagged({277: 1})), "reading failed"),
    "other colours": (corrupted(retagged({262: 6})), "reading failed"),
    "tiles of length 0": (corrupted(without_tiles), NOTHING),
    # OpenSlide takes the pixels from the level above.
    "a level of length 0": (corrupted(without_tiles, pyramid(LEVEL)), ""),
    "a level larger than the first": (pyramid(tissue(1, 2 * SIZE)), UNREADABLE),
    "a level of one pixel": (corrupted(retagged({256: 1, 257: 1}, 1), pyramid(tissue(1, 128))), ""),
    "a white level": (pyramid(np.full((128, 128, 3), 255, np.uint8)), "white where another shows tissue"),
    "one pixel": (corrupted(retagged({256: 1, 257: 1}), lambda path: write(path, tissue(0, 128))), NOTHING),
    "strips": (lambda path: write(path, tissue(), tile=None, rowsperstrip=16), UNREADABLE),
    "no um/px": (slide(""), NO_SCALE),
    **{
        f"um/px of {text}": (slide(f"|MPP = {text}"), NO_SCALE)
        for text in ("0", "-0.5", "nan", "inf", "1e9", "1e-9", "many", "0.5 um", "", "0.5.1")
    },
    "um/px with a comma": (slide("|MPP = 0,5"), ""),
    "um/px in a thousand pixels an inch": (in_centimetres(28, 28), NO_SCALE),
    "um/px of 0.5 and 0.25": (in_centimetres(20_000, 40_000), "unequal"),
    "um/px from centimetres": (in_centimetres(20_000, 20_000), ""),
    "all white": (flat(255), NOTHING),
    "all black": (flat(0), NOTHING),
    "all glass": (lambda path: write(path, np.full((SIZE, SIZE, 3), GLASS, np.uint8)), NOTHING),
    "16 bits": (lambda path: write(path, tissue().astype(np.uint16) * 257), ""),
    "grey": (lambda path: write(path, tissue()[..., 0], photometric="minisblack"), NOTHING),
    "flipped bits": (corrupted(flipped), ""),
    "JPEG tiles": (jpeg(), ""),
    "a truncated JPEG tile": (jpeg(lambda data: data[: len(data) // 2]), "reading failed"),
    "a JPEG tile of zeros": (jpeg(lambda data: bytes(len(data))), "reading failed"),
    "a JPEG tile of length 0": (jpeg(lambda data: b""), ""),
    "BigTIFF": (lambda path: write(path, tissue(), bigtiff=True), ""),
}
# Slides are taken by any name: name -> how it is shown.
NAMES = (
    "two words.svs",
    "-rf.svs",
    "--out.svs",
    "Gewebe größer 组织 ٣.svs",
    "line\nbreak.svs",
    "[red]bold.svs",
    "%s {0} $HOME `id` ;.svs",
    "quote'\".svs",
    "x" * 250 + ".svs",
    "UPPER.SVS",
    "two.dots.svs",
)
SAMPLE = ("truncated to 4 eighths", "a pipe", "30,000 wide and high, in one tile", "a truncated JPEG tile", "all black")


def file_name(name: str) -> str:
    return f"{re.sub('[^a-z0-9]+', '_', name.lower())}.svs"


def tables(folder: Path, names: list[str]) -> list[object]:
    """Options for slides of one class, each of its own patient."""
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    for column, values in (("class", ["Tissue"] * len(names)), ("patient", [f"p{i}" for i in range(len(names))])):
        rows = [f"{name},{value}" for name, value in zip(quoted, values, strict=True)]
        (folder / f"{column}.csv").write_text("\n".join([f"slide,{column}", *rows, ""]), newline="")
    return ["--slide_labels", folder / "class.csv", "--patients", folder / "patient.csv", *FIELDS]


def single(tmp_path: Path, name: str) -> list[object]:
    """Write one slide of the corpus; options of a job of it."""
    slide = tmp_path / "slides" / file_name(name)
    slide.parent.mkdir()
    CORPUS[name][0](slide)
    return ["--slides", slide.parent, *tables(tmp_path, [slide.name])]


def check(name: str, code: int, lines: list[str]) -> None:
    why = CORPUS[name][1]
    assert code == (2 if why else 0) and len(lines) == bool(why), (code, lines)
    assert all(why in line and file_name(name) in line for line in lines), lines


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_corpus_by_itself(capsys, tmp_path, name):
    words = single(tmp_path, name)
    check(name, *outcome(capsys, tmp_path, words, tmp_path / "out"))


@pytest.mark.full
@pytest.mark.parametrize("name", CORPUS)
def test_every_slide_in_a_process_of_its_own(tmp_path, name):
    """A slide must not end the process that reads it, nor fill its memory."""
    words = single(tmp_path, name)
    before = set(tmp_path.rglob("*"))
    command = [sys.executable, "-c", MEASURED, *map(str, ["prep", *words, "--out", tmp_path / "out"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    code, peak_mib, seconds = map(int, done.stdout.split())
    check_output(done.stderr)
    check_files(tmp_path, before, tmp_path / "out", code)
    check(name, code, error_lines(done.stderr))
    assert peak_mib < MEMORY_MIB and seconds < CPU_SECONDS


def test_bad_slides_fail_alone(capsys, tmp_path):
    """The whole corpus in one job: a line for each slide that is bad, patches of the others."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name, (make, _) in CORPUS.items():
        make(folder / file_name(name))
    words = ["prep", "--slides", folder, *tables(tmp_path, [path.name for path in folder.iterdir()])]
    assert cli.main([str(word) for word in (*words, "--out", tmp_path / "out")]) == 3
    shown = capsys.readouterr().err
    check_output(shown)
    lines = error_lines(shown)
    failing = {name: why for name, (_, why) in CORPUS.items() if why not in ("", NOTHING)}
    for name, why in failing.items():
        assert [line for line in lines if f"/{file_name(name)}: " in line and why in line], (name, lines)
    # Of those that are no worse for it, some hold the same bytes.
    others = [line for line in lines if not any(f"/{file_name(name)}: " in line for name in failing)]
    assert all("it has the same bytes as" in line for line in others), others
    rows = pq.read_table(tmp_path / "out" / "private" / "patches.parquet", columns=["slide_file"]).to_pylist()
    assert {row["slide_file"] for row in rows} == {file_name(name) for name, (_, why) in CORPUS.items() if not why}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_slide_that_may_not_be_read(capsys, tmp_path):
    words = single(tmp_path, "BigTIFF")
    (tmp_path / "slides" / file_name("BigTIFF")).chmod(0)
    code, (line,) = outcome(capsys, tmp_path, words, tmp_path / "out")
    assert code == 2 and "cannot be read (Permission denied)" in line


def test_slides_may_have_any_name(capsys, tmp_path):
    """In a list, in a table, as a CSV's row, and as an argument."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write(folder / name, tissue(number))
    code, lines = outcome(capsys, tmp_path, ["--slides", folder, *tables(tmp_path, list(NAMES))], tmp_path / "out")
    assert (code, lines) == (0, [])
    rows = pq.read_table(tmp_path / "out" / "private" / "patches.parquet", columns=["slide_file"]).to_pylist()
    assert {row["slide_file"] for row in rows} == set(NAMES)


def test_names_are_shown_as_they_are_in_one_line(capsys, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name)
    words = ["--slides", folder, *tables(tmp_path, list(NAMES))]
    write(folder / "good.svs", tissue())
    (tmp_path / "class.csv").write_text((tmp_path / "class.csv").read_text() + "good,Tissue\n")
    (tmp_path / "patient.csv").write_text((tmp_path / "patient.csv").read_text() + "good,q\n")
    code, lines = outcome(capsys, tmp_path, words, tmp_path / "out")
    assert code == 3 and len(lines) == len(NAMES)
    for name in NAMES:
        assert [line for line in lines if " ".join(name.split()) in line], name


def test_one_name_in_two_formats_and_in_two_folders(capsys, tmp_path):
    folder = tmp_path / "slides"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.svs", "a.tif", "more/a.svs")):
        write(folder / name, tissue(number))
    (folder / "._a.svs").write_bytes(b"what a Mac leaves beside a file")
    # Slides of a folder, and not of those in it; a row for the name without its suffix is for both.
    code, lines = outcome(capsys, tmp_path, ["--slides", folder, *tables(tmp_path, ["a"])], tmp_path / "out")
    assert (code, lines) == (0, [])
    rows = pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pylist()
    assert {row["slide_file"] for row in rows} == {"a.svs", "a.tif"}
    assert len({row["slide"] for row in rows}) == 2 and len({row["patient"] for row in rows}) == 1


def test_unequal_pixels_keep_fields_square(capsys, tmp_path):
    (tmp_path / "slides").mkdir()
    in_centimetres(20_000, 21_000)(tmp_path / "slides" / "a.svs")
    words = ["--slides", tmp_path / "slides", *tables(tmp_path, ["a"])]
    assert outcome(capsys, tmp_path, words, tmp_path / "out") == (0, [])
    rows = pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pylist()
    assert {(row["width_px0"], row["height_px0"]) for row in rows} == {(64.0, 67.2)}
