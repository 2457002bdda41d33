"""Errors of images that come back from an autoencoder."""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

# Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", section III.C.
_SIGMA, _REACH, _K1, _K2, _LEVELS = 1.5, 5, 0.01, 0.03, 255.0


def psnr(images: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n"]:
    """Returns the PSNR of each image in dB, ``10 log10(255^2 / MSE)``; infinite for equal images."""
    error = np.square(images.astype(np.float64) - reference).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(_LEVELS**2 / error)


def ssim(images: UInt8[np.ndarray, "n h w 3"], reference: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n"]:
    """Returns the structural similarity of each image, the mean over colours and over all windows within the image.

    Windows are Gaussian, 11 px wide with a standard deviation of 1.5 px.
    """
    return np.array([_ssim(one, other) for one, other in zip(images, reference, strict=True)])


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    def local(values: np.ndarray) -> np.ndarray:
        side = 2 * _REACH + 1
        blurred = cv2.GaussianBlur(values, (side, side), _SIGMA, borderType=cv2.BORDER_REFLECT)
        return blurred[_REACH:-_REACH, _REACH:-_REACH]

    a, b = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = local(a), local(b)
    variance_a, variance_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * _LEVELS) ** 2, (_K2 * _LEVELS) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


def count_codes(codes: Int[np.ndarray, "..."], size: int) -> Int[np.ndarray, "size"]:
    """Counts the uses of each code of a book of ``size``."""
    return np.bincount(codes.ravel(), minlength=size)


def codebook_usage(counts: Int[np.ndarray, "size"]) -> dict[str, float]:
    """Returns the share of the codes that were used at all, and their perplexity: as many codes, used evenly."""
    shares = counts[counts > 0] / counts.sum()
    return {
        "codes_used": float((counts > 0).mean()),
        "codes_perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
    }


def reduced_and_enlarged(images: UInt8[np.ndarray, "n h w 3"], factor: int) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns images reduced by a mean over ``factor`` x ``factor`` pixels, and enlarged by bicubic interpolation.

    What an autoencoder with as few latent pixels must beat.
    """
    height, width = images.shape[1:3]
    size = (width // factor, height // factor)
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in small])
