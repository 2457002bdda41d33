"""Size of a field of view and its stored scale: as users say it, and the readings of the paper."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from diffpath_jax.io.errors import DiffpathError

Options = Mapping[str, float | int | None]

# The paper's "FOV 224" and "FOV 336" may be um (header of its Table 4) or pixels at 20X, 0.5 um/px (its text), and for
# 336 it both resizes to 128 pixels and keeps a "resolution" of 1.75. See docs/DEVIATIONS.md.
PRESETS: Mapping[str, Mapping[str, float | int]] = {
    "pkgh224_um": {"fov_um": 224.0, "patch_px": 128},
    "pkgh224_px": {"read_px": 224, "at_mpp": 0.5, "patch_px": 128},
    "pkgh336_um": {"fov_um": 336.0, "patch_px": 128},
    "pkgh336_um_192": {"fov_um": 336.0, "patch_px": 192},
    "pkgh336_px": {"read_px": 336, "at_mpp": 0.5, "patch_px": 128},
    "pkgh336_px_192": {"read_px": 336, "at_mpp": 0.5, "patch_px": 192},
}
EXAMPLE = "give exactly two, e.g. --fov_um 112 --patch_px 128"


@dataclass(frozen=True)
class FieldSize:
    """Size of a field of view. ``fov_um = patch_px * mpp``.

    Attributes:
        fov_um: side of a field in um.
        patch_px: side of the stored image in pixels.
        mpp: um per pixel of the stored image.
    """

    fov_um: float
    patch_px: int
    mpp: float


def from_options(stated: Options) -> FieldSize:
    """Complete the size of a field from any two of field of view, stored pixels and um/px.

    Args:
        stated: ``fov_um``, ``patch_px``, ``mpp``, and ``read_px`` with ``at_mpp``, whose product is a field of view.
            What is not given is absent or None.

    Raises:
        DiffpathError: not exactly two are given, or a number is out of range.
    """
    options = {name: value for name, value in stated.items() if value is not None}
    for name, value in options.items():
        _check_positive(name, value)
    fov_um, patch_px, mpp = _field_of_view(options), options.get("patch_px"), options.get("mpp")
    match fov_um, patch_px, mpp:
        case (float() | int() as side, float() | int() as pixels, None):
            pass
        case (None, float() | int() as pixels, float() | int() as scale):
            side = pixels * scale
        case (float() | int() as side, None, float() | int() as scale):
            pixels = max(1, round(side / scale))
        case numbers:
            count = sum(number is not None for number in numbers)
            why = f"two of --fov_um (or --read_px --at_mpp), --patch_px, --mpp define the third, and {count} are given"
            raise DiffpathError("field of view", where="the command line", why=why, fix=EXAMPLE)
    return FieldSize(side, int(pixels), side / pixels)


def _field_of_view(options: Mapping[str, float | int]) -> float | None:
    """The side in um, where it is given: as such, or as pixels of a um/px."""
    read_px, at_mpp = options.get("read_px"), options.get("at_mpp")
    if (read_px is None) != (at_mpp is None):
        raise DiffpathError(
            "field of view",
            where="the command line",
            why="--read_px and --at_mpp belong together: so many pixels of so many um",
            fix="give both, e.g. --read_px 224 --at_mpp 0.5, or --fov_um",
        )
    if read_px is None or at_mpp is None:
        return options.get("fov_um")
    if "fov_um" in options:
        raise DiffpathError(
            "field of view",
            where="the command line",
            why="--fov_um says what --read_px and --at_mpp say",
            fix="leave out --fov_um, or the two others",
        )
    return read_px * at_mpp


def of_preset(name: str, stated: Options) -> Mapping[str, float | int]:
    """The options that a preset stands for.

    Args:
        name: one of :data:`PRESETS`.
        stated: options beside it, which must not say anything of the size.

    Raises:
        DiffpathError: they do.
    """
    also = [f"--{option}" for option, value in stated.items() if value is not None]
    if also:
        raise DiffpathError(
            "--preset",
            where="the command line",
            why=f"{name} says how large a field is, and so does {', '.join(also)}",
            fix="leave out one of them",
        )
    return PRESETS[name]


def _check_positive(name: str, value: float | int) -> None:
    """Check the value of an option.

    Raises:
        DiffpathError: it is not a positive number.
    """
    if not (0 < value < 1e6):  # NaN fails too
        why = f"{value} is not a positive number"
        raise DiffpathError(f"--{name}", where="the command line", why=why, fix="change it")


def stride(fov_um: float, *, stride_um: float | None, overlap: float | None) -> float:
    """Distance of neighbouring fields in um: as given, or from the share of a field that the next one shows again.

    Raises:
        DiffpathError: both are given, or one is out of range.
    """
    if stride_um is not None and overlap is not None:
        why = "--overlap says what --stride_um says"
        raise DiffpathError("stride", where="the command line", why=why, fix="leave out one of them")
    if stride_um is not None:
        _check_positive("stride_um", stride_um)
        return stride_um
    if overlap is not None and not (0 <= overlap < 1):
        why = f"{overlap} is not a share from 0 to less than 1"
        raise DiffpathError("--overlap", where="the command line", why=why, fix="change it")
    return fov_um * (1 - (overlap or 0.0))


def read_origin(text: str) -> tuple[float, float]:
    """The point ``x,y`` in um.

    Raises:
        DiffpathError: it is none.
    """
    try:
        x, y = (float(number) for number in text.split(","))
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        fix = "write e.g. --origin_um 100,50 (a negative one as --origin_um=-100,50)"
        raise DiffpathError("--origin_um", where="the command line", why=f"{text!r} is not x,y in um", fix=fix)
    return x, y
