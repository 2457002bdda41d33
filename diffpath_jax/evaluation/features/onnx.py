"""Features of any encoder exported to ONNX, such as a pathology foundation model.

An ONNX file does not say how images are prepared for it, so a JSON file beside it, ``ENCODER.json``, may:
``{"name": "uni", "size": 224, "mean": [...], "std": [...]}``, mean and std of images in [0, 1]. What it leaves out is
read off the file (name, size), or that of ImageNet (mean, std). The results name what was used.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from diffpath_jax.evaluation.features.extractor import ExtractorKind, FeatureExtractor
from diffpath_jax.evaluation.features.resize import bicubic_matrix
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file, sha256_json
from diffpath_jax.io.sealed import read_sealed

BATCH = 32
# Side of images where neither the file nor the JSON beside it says one.
USUAL_SIZE = 224
MAX_SIZE = 4096
# Of the encoder's own files, in the JSON beside one that was exported here.
DIGESTS = "digests"
CHANNELS = 3
RESIZE = "antialiased bicubic"


@dataclass(frozen=True)
class Preparation:
    """Preparation of images for an encoder.

    Attributes:
        name: short name for tables.
        size: height and width of its images in px.
        mean: of each channel of images in [0, 1]; ImageNet's by default.
        std: standard deviation of each channel.
    """

    name: str
    size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


def onnx_features(path: Path) -> FeatureExtractor:
    """Returns the features of an ONNX encoder: its first output, of several tokens the first (the class token).

    Raises:
        DiffpathError: onnxruntime is not installed, or the file or the JSON beside it is not what it should be.
    """
    said = _said_beside(path)
    session = _open(path)
    (image, *more), output = session.get_inputs(), session.get_outputs()[0]
    if more or len(image.shape) != 4 or CHANNELS not in (image.shape[1], image.shape[3]):
        why = f"its inputs are {[(entry.name, entry.shape) for entry in session.get_inputs()]}, not one batch of images"
        raise DiffpathError(
            "encoder", where=path, why=why, fix="export it with one input, (n, 3, h, w) or (n, h, w, 3)"
        )
    channels_first = image.shape[1] == CHANNELS
    side = image.shape[2] if channels_first else image.shape[1]
    preparation = _preparation(path, said, side if isinstance(side, int) else USUAL_SIZE)

    def extract(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        parts = []
        for start in range(0, len(images), BATCH):
            x = prepare(images[start : start + BATCH], preparation)
            parts.append(_run(session, path, {image.name: x.transpose(0, 3, 1, 2) if channels_first else x}, output))
        return np.concatenate(parts)

    words = f"{preparation.size} px, mean {list(preparation.mean)}, std {list(preparation.std)} of images in [0, 1]"
    token = ", its first token" if len(output.shape) == 3 else ""
    return FeatureExtractor(
        name=preparation.name,
        description=f"output {output.name!r} of the ONNX encoder {path.name}{token}; images at {words}",
        digest=sha256_json([*digests_of(path), words]),
        resize=RESIZE,
        extract=extract,
    )


def prepare(images: UInt8[np.ndarray, "n h w 3"], preparation: Preparation) -> Float[np.ndarray, "n size size 3"]:
    """Returns images resized, in [0, 1], less the mean, over the standard deviation."""
    x = images.astype(np.float32)
    if images.shape[1:3] != (preparation.size, preparation.size):
        rows, columns = (bicubic_matrix(side, preparation.size).astype(np.float32) for side in images.shape[1:3])
        x = np.einsum("jw,niwc->nijc", columns, np.einsum("ih,nhwc->niwc", rows, x, optimize=True), optimize=True)
    return (x.clip(0, 255) / 255 - np.asarray(preparation.mean, np.float32)) / np.asarray(preparation.std, np.float32)


def digests_of(path: Path) -> list[str]:
    """Returns digests of the encoder, and of files beside it that it names: large encoders keep their weights there."""
    content = path.read_bytes()
    beside = (file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path)
    return [sha256_file(path), *(sha256_file(file) for file in beside if file.name.encode() in content)]


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        fix = "pip install 'diffpath[onnx]'"
        raise DiffpathError("encoder", where=path, why="onnxruntime is not installed", fix=fix) from None
    try:
        available = onnxruntime.get_available_providers()
        return onnxruntime.InferenceSession(path, providers=available)
    except Exception as error:  # its own exceptions share no class
        raise _damaged(path, str(error)) from error


def _run(session: Any, path: Path, inputs: dict[str, np.ndarray], output: Any) -> Float[np.ndarray, "n d"]:
    try:
        features = np.asarray(session.run([output.name], inputs)[0])
    except Exception as error:  # as above
        raise _damaged(path, str(error)) from error
    if features.ndim == 3:
        return features[:, 0]
    if features.ndim != 2:
        raise _damaged(path, f"its output has shape {features.shape}, not (n, d) or (n, tokens, d)")
    return features


def _said_beside(path: Path) -> dict[str, Any]:
    """Returns what the JSON file beside an encoder says of images; of one that was exported here, the encoder is whole.

    Raises:
        DiffpathError: either is damaged (exit code 5).
    """
    beside = path.with_suffix(".json")
    fix = "write JSON, or export the encoder again"
    said = read_sealed(beside, dict, what="encoder", fix=fix) if beside.exists() else {}
    digests = said.pop(DIGESTS, None)
    if digests is not None and not (path.is_file() and digests_of(path) == digests):
        raise _damaged(path, f"it is not the file that {beside.name} was written for")
    return said


def _preparation(path: Path, said: dict[str, Any], size: int) -> Preparation:
    """Returns what the JSON file beside an encoder says, and fills in what it leaves out."""
    beside = path.with_suffix(".json")
    try:
        settings: dict[str, Any] = {"name": path.stem, "size": size, **said}
        settings |= {key: tuple(settings[key]) for key in ("mean", "std") if key in settings}
        preparation = Preparation(**settings)
        if not (isinstance(preparation.name, str) and re.fullmatch(r"\w[\w.-]{0,63}", preparation.name)):
            raise ValueError("a name has letters, digits, _, - and . only")
        if not (isinstance(preparation.size, int) and 0 < preparation.size <= MAX_SIZE):
            raise ValueError(f"size is not a whole number up to {MAX_SIZE}")
        numbers = np.array([preparation.mean, preparation.std], np.float64)
        if numbers.shape != (2, CHANNELS) or not np.isfinite(numbers).all() or numbers[1].min() <= 0:
            raise ValueError("mean and std have a number for each channel, std a positive one")
        return preparation
    except (TypeError, ValueError) as error:
        fix = 'write {"name": "...", "size": 224, "mean": [r, g, b], "std": [r, g, b]}, each optional'
        raise DiffpathError("encoder", where=beside, why=str(error), fix=fix) from error


def _damaged(path: Path, why: str) -> DiffpathError:
    fix = "export the encoder again"
    return DiffpathError("encoder", where=path, why=why[:200], fix=fix, code=ExitCode.DAMAGED)


KIND = ExtractorKind(
    name="onnx",
    source="an encoder *.onnx",
    recognise=lambda path: path.is_file() and path.suffix == ".onnx",
    open=lambda path, *, resize: onnx_features(path),
)
