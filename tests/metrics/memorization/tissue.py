"""Drawn tissue: nuclei and fibres in two stains that differ from patient to patient, and ways to disguise a copy."""

import cv2
import numpy as np

# Optical densities of red, green and blue for one unit of haematoxylin and of eosin.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])


def patient(seed, side=256):
    """A (side, side, 3) uint8 field of one patient's tissue."""
    rng = np.random.default_rng(seed)
    nuclei = np.zeros((side, side), np.float32)
    radius, crowding = rng.uniform(2.5, 4.5), rng.uniform(0.006, 0.014)
    for _ in range(int(crowding * side**2)):
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        axes = tuple(int(v) for v in np.maximum(1, rng.normal(radius, 0.8, 2)))
        cv2.ellipse(nuclei, centre, axes, rng.uniform(0, 180), 0, 360, rng.uniform(0.5, 1.2), -1)
    nuclei = cv2.GaussianBlur(nuclei, (0, 0), 0.8)
    long, short = rng.uniform(5, 9), rng.uniform(0.8, 1.5)
    fibres = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), long, sigmaY=short)
    regions = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), 20)
    eosin = 0.35 + 0.12 * fibres / fibres.std() + 0.1 * regions / regions.std() - 0.15 * nuclei
    if rng.integers(2):
        eosin = eosin.T
    stains = STAINS * rng.uniform(0.85, 1.15, STAINS.shape)
    amounts = np.stack([rng.uniform(0.6, 1.1) * nuclei, rng.uniform(0.7, 1.2) * eosin.clip(0)], axis=-1)
    light = 250 * 10 ** -(amounts @ stains) + rng.normal(0, 2, (side, side, 3))
    return light.clip(0, 255).astype(np.uint8)


def patches(field, px, stride):
    """Every patch of a grid over a field; they overlap where the stride is shorter than the patch."""
    starts = range(0, len(field) - px + 1, stride)
    return np.stack([field[y : y + px, x : x + px] for y in starts for x in starts])


def cohort(seeds, *, px, stride, side=256):
    """Patches of several patients, and whose they are."""
    found = [patches(patient(seed, side), px, stride) for seed in seeds]
    names = np.repeat([f"patient-{seed}" for seed in seeds], [len(p) for p in found])
    return np.concatenate(found), names


def exact(image, rng):
    return image


def jittered(image, rng):
    """Other brightness and colour, noise, and JPEG."""
    light = image * rng.uniform(0.92, 1.08, 3) * rng.uniform(0.9, 1.1) + rng.normal(0, 4, image.shape)
    _, data = cv2.imencode(".jpg", light.clip(0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def turned(image, rng):
    image = np.rot90(image, rng.integers(1, 4))
    return image[:, ::-1] if rng.integers(2) else image


def shifted(image, rng):
    """Moved by up to 3 px each way; what comes into view is a reflection."""
    dy, dx = rng.integers(-3, 4, 2)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    return padded[3 + dy : 3 + dy + len(image), 3 + dx : 3 + dx + image.shape[1]]


def restained(image, rng):
    """Each stain stronger or weaker on its own, and both of another hue."""
    density = -np.log10((image.astype(np.float64) + 1) / 256)
    amounts = density @ np.linalg.pinv(STAINS)
    hue = STAINS * rng.uniform(0.85, 1.15, STAINS.shape)
    changed = (amounts * rng.uniform(0.7, 1.4, 2) + rng.uniform(-0.05, 0.05, 2)).clip(0) @ hue
    return (256 * 10**-changed - 1).clip(0, 255).astype(np.uint8)


def everything(image, rng):
    """All of it at once."""
    for change in (turned, shifted, restained, jittered):
        image = change(image, rng)
    return image


DISGUISES = {f.__name__: f for f in (exact, jittered, turned, shifted, restained, everything)}
