"""Every number of the paper that a study stands beside, in one place.

Its data are PKGH_224 and PKGH_336, of slides of Kingston General Hospital; its code is at
github.com/AtlasAnalyticsLab/Diffusion4Path. It gives no intervals and no numbers of images, and does not say whose
patients were held out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from diffpath_jax.study.table import Cell

TABLE_2, TABLE_3, TABLE_4, TABLE_5 = (f"the paper, Table {number}" for number in (2, 3, 4, 5))


@dataclass(frozen=True)
class Quality:
    """Distances of a set of images.

    Attributes:
        fid: Frechet Inception distance.
        kid: kernel Inception distance.
    """

    fid: float
    kid: float


# (data set, training method, sampling method) -> Table 3.
QUALITY: Mapping[tuple[str, str, str], Quality] = {
    ("PKGH_224", "DDPM", "DDPM"): Quality(19.08, 0.0134),
    ("PKGH_224", "DDPM", "Epsilon Scaling"): Quality(39.88, 0.0338),
    ("PKGH_224", "DDPM", "DDIM"): Quality(22.66, 0.0154),
    ("PKGH_224", "LDM", "DDPM"): Quality(24.43, 0.0185),
    ("PKGH_224", "LDM", "DDIM"): Quality(25.56, 0.0161),
    ("PKGH_336", "DDPM", "DDPM"): Quality(18.45, 0.0129),
    ("PKGH_336", "DDPM", "Epsilon Scaling"): Quality(45.12, 0.0418),
    ("PKGH_336", "DDPM", "DDIM"): Quality(21.34, 0.0159),
    ("PKGH_336", "LDM", "DDPM"): Quality(23.10, 0.0160),
    ("PKGH_336", "LDM", "DDIM"): Quality(26.41, 0.0199),
}

# (study, classes) -> FID; the last two are those that its Table 2 cites.
FIDS: Mapping[tuple[str, int], float] = {
    ("PKGH_224", 5): 19.08,
    ("PKGH_336", 5): 18.45,
    ("its reference 41", 5): 35.11,
    ("its reference 28", 1): 20.11,
}

# Share of the side of the training patches -> FID (Table 4; they have 128 px, a field of 224 um).
FID_BY_SIDE: Mapping[float, float] = {
    64 / 128: 161.01,
    96 / 128: 33.71,
    128 / 128: 19.08,
    160 / 128: 25.71,
    192 / 128: 38.41,
    224 / 128: 41.37,
}

# (data set, training images) -> accuracy of ResNet-50 in per cent (Table 5).
ACCURACY: Mapping[tuple[str, str], float] = {
    ("PKGH_224", "real"): 89.95,
    ("PKGH_224", "generated"): 88.62,
    ("PKGH_224", "both"): 90.75,
    ("PKGH_336", "real"): 94.06,
    ("PKGH_336", "generated"): 92.44,
    ("PKGH_336", "both"): 90.76,
}


def fid(dataset: str, training: str, sampling: str) -> Cell | None:
    """Returns the paper's FID of a set of images; none where it has none."""
    quality = QUALITY.get((dataset, training, sampling))
    return Cell(quality.fid, source=TABLE_3) if quality else None


def kid(dataset: str, training: str, sampling: str) -> Cell | None:
    """Returns the paper's KID of a set of images; none where it has none."""
    quality = QUALITY.get((dataset, training, sampling))
    return Cell(quality.kid, source=TABLE_3, digits=4) if quality else None


def accuracy(dataset: str, images: str) -> Cell | None:
    """Returns the paper's accuracy of a classifier by its training images; none where it has none."""
    share = ACCURACY.get((dataset, images))
    return None if share is None else Cell(share / 100, source=TABLE_5, percent=True)
