"""The meaning of a colour: glass, stained tissue, or the ink of a pen.

Colours are seen as light that was absorbed, in the hue-saturation-density space of van der Laak et al. (2000,
"Hue-saturation-density (HSD) model for stain recognition in digital images from transmitted light microscopy",
Cytometry 39:275-284): a thicker or thinner layer of a dye changes the density and keeps hue and chroma. With
``D_c = -log10(I_c / I_glass)`` and their mean ``D``::

    c_x = D_red / D - 1,  c_y = (D_green - D_blue) / (sqrt(3) D),  hue = atan2(c_y, c_x),  chroma = |c|

Haematoxylin has the hue 66 degrees, eosin 122, diaminobenzidine 204 (stain vectors of Ruifrok and Johnston 2001,
table 1), and what mixes them lies between. Green and blue ink absorb what no mixture of these does; red ink has the
hue of blood and is told from it by its density and chroma alone, black ink by its lack of any hue. Other stains have
the hues of inks, or none: which may be on a slide is its :class:`Stain`.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

WHITE = (255.0, 255.0, 255.0)
# Darker than this a scanner sees noise, whose colour says nothing.
_BLACKEST = 24
# Grey tissue is denser than this: it takes an eighth of the light that goes through glass.
_GREY = 0.06
# Difference of the densities in two channels from which a colour counts as stained: 11 grey levels of a light pixel.
# Noise and the tint of glass stay below it, the palest eosin does not.
_STAINED = 0.02


@dataclass(frozen=True)
class Stain:
    """The colours of the tissue of a stain; what else absorbs light is ink. Hues in degrees.

    Attributes:
        hues: of tissue, however pale.
        dense_hues: of dense tissue: pale mucin is as blue as some ink, and told from it by its density.
        red_ink: hues that are those of red ink where they are dense and of high chroma; none where the stain has them.
        is_grey: grey and black are tissue, as silver is, and not ink or a shadow.
    """

    hues: tuple[int, int]
    dense_hues: tuple[int, int]
    red_ink: tuple[int, int] | None
    is_grey: bool = False


HE = "he"
# Brown diaminobenzidine that little blue light goes through, the last channel that is dark, has a hue of up to 225.
STAINS = {
    HE: Stain((20, 215), (55, 215), (162, 205)),
    "dab": Stain((20, 230), (55, 230), None),
    "other": Stain((0, 360), (0, 360), None, is_grey=True),
}


@dataclass(frozen=True)
class Colours:
    """Pixels in hue-saturation-density space.

    Attributes:
        density: mean optical density of red, green and blue, above that of glass.
        hue: degrees, 0 to 360.
        chroma: distance from grey.
        spread: largest less smallest density of the three channels.
    """

    density: Float32[np.ndarray, "h w"]
    hue: Float32[np.ndarray, "h w"]
    chroma: Float32[np.ndarray, "h w"]
    spread: Float32[np.ndarray, "h w"]


def measure(image: UInt8[np.ndarray, "h w 3"], glass: tuple[float, float, float] = WHITE) -> Colours:
    """Hue, chroma and density of every pixel.

    Args:
        image: RGB.
        glass: colour of the light where nothing absorbs.
    """
    red, green, blue = (densities(light)[image[..., channel]] for channel, light in enumerate(glass))
    density = (red + green + blue) / 3
    positive = np.maximum(density, np.float32(1e-6))
    x, y = red / positive - 1, (green - blue) / (np.float32(np.sqrt(3)) * positive)
    chroma, hue = cv2.cartToPolar(x, y, angleInDegrees=True)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return Colours(density, hue, chroma, spread)


@functools.lru_cache(maxsize=16)
def densities(light: float) -> Float32[np.ndarray, "256"]:
    """Optical density of every grey level, where glass has that of ``light``."""
    return np.maximum(np.log10(light / np.maximum(np.arange(256), _BLACKEST)), 0).astype(np.float32)


def find_stained(colours: Colours, stain: Stain) -> Bool[np.ndarray, "h w"]:
    """Returns a mask of the dyes that tissue may be stained with, however pale."""
    dyed = (colours.spread > _STAINED) & _between(colours.hue, stain.hues)
    return dyed | (colours.density > _GREY) if stain.is_grey else dyed


def find_ink(colours: Colours, stain: Stain) -> Bool[np.ndarray, "h w"]:
    """Returns a mask of the ink of pens, and of mere black.

    Dense ink is sure; what is fainter is ink where it touches dense ink of the same kind.
    """
    density, chroma = colours.density, colours.chroma
    kinds = [(~_between(colours.hue, stain.dense_hues) & (chroma > 0.2), 0.15, 0.05)]
    if stain.red_ink:
        kinds.append((_between(colours.hue, stain.red_ink) & (chroma > 0.75), 0.45, 0.2))
    if not stain.is_grey:
        kinds.append((chroma < 0.12, 0.45, 0.2))
    masks = [touching(kind & (density > sure), kind & (density > faint)) for kind, sure, faint in kinds]
    return np.logical_or.reduce(masks)


def _between(hue: Float32[np.ndarray, "h w"], ends: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    return (hue >= ends[0]) & (hue <= ends[1])


def touching(sure: Bool[np.ndarray, "h w"], wider: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The connected parts of ``wider`` that hold a pixel of ``sure``."""
    if not sure.any():
        return sure
    count, parts = cv2.connectedComponents(wider.astype(np.uint8), connectivity=8)
    wanted = np.zeros(count, bool)
    wanted[parts[sure]] = True
    return wanted[parts]
