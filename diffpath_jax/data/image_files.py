"""Image files: those in folders, one folder a class, read strictly, as RGB; PNG and TIFF written without loss."""

import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import PIL.TiffImagePlugin
from jaxtyping import UInt8

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import is_special

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# A patch is no larger; a small file can claim to be.
MAX_PIXELS = 4096**2
# Of zlib: four times as fast as its own choice, for files a tenth larger.
PNG_LEVEL = 1


def list_images(folder: Path) -> dict[str, list[Path]]:
    """The images of each class, by the name of its folder; images that lie in no folder have the class "".

    Hidden files, files of other types, and what only looks like a file (pipes, devices) are passed over.

    Raises:
        DiffpathError: there is no image, or some lie in class folders and some do not.
    """
    by_class: dict[str, list[Path]] = {}
    for path in sorted(_files(folder)):
        below = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and not is_special(path):
            by_class.setdefault(below.parts[0] if len(below.parts) > 1 else "", []).append(path)
    if not by_class:
        fix = f"name a folder with a folder of images ({', '.join(SUFFIXES)}) for each class"
        raise DiffpathError("images", where=folder, why="there are none", fix=fix)
    if "" in by_class and len(by_class) > 1:
        why = f"{len(by_class[''])} lie beside the class folders {sorted(set(by_class) - {''})}"
        raise DiffpathError("images", where=folder, why=why, fix="move them into the folder of their class")
    return by_class


def other_files(folder: Path) -> list[Path]:
    """Returns the files below a folder that :func:`list_images` passes over because of their type, in order."""
    return sorted(path for path in _files(folder) if path.suffix.lower() not in SUFFIXES)


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, links to folders followed, each folder once."""
    seen = set()
    for directory, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (Path(directory, name) for name in names if not name.startswith("."))


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """One image file, upright (EXIF) and converted to RGB; what is transparent shows white, as glass does.

    Raises:
        DiffpathError: it is damaged, too large, has several pages, or has more than 8 bits a channel.
    """
    return _decode(path, where=path)


def decode_image(data: bytes, *, where: object) -> UInt8[np.ndarray, "h w 3"]:
    """The image in the bytes of a file.

    Args:
        data: the bytes.
        where: where they come from, for errors.

    Raises:
        DiffpathError: as :func:`read_image`.
    """
    return _decode(io.BytesIO(data), where=where)


def has_transparency(data: bytes) -> bool:
    """Returns whether a pixel of an image file that can be decoded is not opaque."""
    with PIL.Image.open(io.BytesIO(data)) as image:
        if not image.has_transparency_data:
            return False
        opacity, _ = image.convert("RGBA").getchannel("A").getextrema()
        return opacity != 255


def _decode(file: Path | io.BytesIO, *, where: object) -> UInt8[np.ndarray, "h w 3"]:
    try:
        with PIL.Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px is no patch")
            _check_kind(image)
            upright = PIL.ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                colours = upright.convert("RGBA")
                upright = PIL.Image.alpha_composite(PIL.Image.new("RGBA", colours.size, "white"), colours)
            return np.array(upright.convert("RGB"))
    except PIL.UnidentifiedImageError as error:
        raise _unreadable(where, "it is empty, damaged, or no image") from error
    except (OSError, ValueError, TypeError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise _unreadable(where, str(error)) from error


def _check_kind(image: PIL.Image.Image) -> None:
    """Refuse an image of which reading one page as 8 bits a channel would lose something.

    Raises:
        ValueError: it has several pages, or more bits: Pillow keeps the upper eight, and a camera of 12 bits fills four
            of them.
    """
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it has {pages} pages; save the one that is meant by itself")
    if (bits := _stored_bits(image)) > 8:
        raise ValueError(f"it has {bits} bits a channel; save it with 8 bits a channel, white at 255")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of type {image.mode}, not 8 bits a channel")


def _stored_bits(image: PIL.Image.Image) -> int:
    """Returns the bits a channel of a TIFF or PNG file, which Pillow tells in its tags or the raw mode of its data."""
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(PIL.TiffImagePlugin.BITSPERSAMPLE, (1,)))
    modes = [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in getattr(image, "tile", ())]
    return 16 if any(";16" in mode for mode in modes) else 8


def _unreadable(where: object, why: str) -> DiffpathError:
    return DiffpathError("image", where=where, why=why, fix="replace it or take it out", code=ExitCode.DAMAGED)


def encode_png(image: UInt8[np.ndarray, "h w 3"], about: Mapping[str, str] | None = None) -> bytes:
    """PNG bytes of an RGB image.

    Args:
        image: its pixels.
        about: text chunks by keyword; for generated images, those of :func:`diffpath_jax.data.marking.about`.
    """
    chunks = PIL.PngImagePlugin.PngInfo()
    for keyword, text in (about or {}).items():
        chunks.add_text(keyword, text)
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "png", compress_level=PNG_LEVEL, pnginfo=chunks)
    return file.getvalue()


def encode_tiff(image: UInt8[np.ndarray, "h w 3"], about: Mapping[str, str] | None = None) -> bytes:
    """TIFF bytes of an RGB image, without loss; ``about`` goes into its ImageDescription, a line each."""
    tags = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    if about:
        tags[PIL.TiffImagePlugin.IMAGEDESCRIPTION] = "\n".join(f"{keyword}: {text}" for keyword, text in about.items())
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "tiff", compression="tiff_adobe_deflate", tiffinfo=tags)
    return file.getvalue()
