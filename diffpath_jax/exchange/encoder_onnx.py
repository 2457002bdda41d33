"""A published encoder as an ONNX file with ``ENCODER.json`` beside it, for ``--features``.

PyTorch, timm and onnx make it on the user's machine from weights that the user may have (``pip install
'diffpath[encoders]'``); afterwards onnxruntime is enough. The file is compared with the original before it counts.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from diffpath_jax.evaluation.features import onnx
from diffpath_jax.evaluation.features.extractor import Extract
from diffpath_jax.evaluation.features.published import PublishedEncoder
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import new_folder
from diffpath_jax.io.sealed import write_sealed

# What makes the file; the last two are asked for by PyTorch.
PACKAGES = ("torch", "timm", "onnx", "onnxscript")
# Images that the file and the original are compared on, and how far they may differ, as a share of the largest feature.
_COMPARED, TOLERANCE = 3, 1e-3


def export_encoder(encoder: PublishedEncoder, out: Path, *, source: Path | None = None) -> Path:
    """Write ``NAME.onnx``, for images (n, 3, size, size), and ``NAME.json`` into a new folder.

    Args:
        encoder: what to write.
        out: the folder.
        source: folder with the files of the encoder's repository; none asks the hub for them.

    Returns:
        The ONNX file.

    Raises:
        DiffpathError: a package is missing, the weights cannot be had, or the file gives other features.
    """
    network = _Network.load(encoder, source)
    mean, std = encoder.colours
    with new_folder(out) as folder:
        file = folder / f"{encoder.name}.onnx"
        network.write(file)
        shown = {"name": encoder.name, "size": encoder.size, "mean": mean, "std": std}
        write_sealed(file.with_suffix(".json"), {**shown, onnx.DIGESTS: onnx.digests_of(file)})
        _compare(network, onnx.onnx_features(file).extract)
    return out / file.name


@dataclass(frozen=True)
class _Network:
    """An encoder in PyTorch.

    Attributes:
        torch: the library.
        module: from prepared images to features.
        encoder: which it is.
    """

    torch: ModuleType
    module: Any
    encoder: PublishedEncoder

    @classmethod
    def load(cls, encoder: PublishedEncoder, source: Path | None) -> "_Network":
        """Returns the network with its weights."""
        torch, timm, *_ = (_import(name, encoder) for name in PACKAGES)
        where = f"local-dir:{source}" if source else f"hf-hub:{encoder.repository}"
        try:
            trunk = timm.create_model(where, pretrained=True, **_options(encoder.options))
        except Exception as error:  # of the hub's client, of PyTorch and of timm, which share no class
            why = " ".join(str(error).split())[:200] or type(error).__name__
            fix = f"accept the licence at huggingface.co/{encoder.repository} and log in (`hf auth login`)"
            fix = f"{fix}, or name a folder with its files by --from"
            raise DiffpathError("encoder", where=encoder.name, why=why, fix=fix, code=ExitCode.SYSTEM) from error
        return cls(torch, _pooled(torch, trunk, with_mean=encoder.with_mean).eval(), encoder)

    def write(self, file: Path) -> None:
        """Writes the network; the weights of a large one lie in a file beside it."""
        torch, side = self.torch, self.encoder.size
        with torch.inference_mode():
            torch.onnx.export(
                self.module,
                (torch.zeros(2, 3, side, side),),
                str(file),
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )

    def extract(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Returns the features of images, prepared as those of the file are."""
        preparation = onnx.Preparation(self.encoder.name, self.encoder.size, *self.encoder.colours)
        x = onnx.prepare(images, preparation).transpose(0, 3, 1, 2)
        with self.torch.inference_mode():
            return self.module(self.torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()


def _import(name: str, encoder: PublishedEncoder) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = "pip install 'diffpath[encoders]'"
        raise DiffpathError("encoder", where=encoder.name, why=f"{name} is not installed", fix=fix) from error


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of timm, classes for the names of layers."""

    def value(option: object) -> object:
        module, dot, name = option.rpartition(".") if isinstance(option, str) else ("", "", "")
        return getattr(importlib.import_module(module), name) if dot else option

    return {key: value(option) for key, option in options.items()}


def _pooled(torch: ModuleType, trunk: Any, *, with_mean: bool) -> Any:
    """Returns the network whose output is one row of features an image."""

    class Pooled(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, images: Any) -> Any:
            tokens = self.trunk.forward_features(images)
            if not with_mean:
                return tokens[:, 0]
            return torch.cat([tokens[:, 0], tokens[:, self.trunk.num_prefix_tokens :].mean(dim=1)], dim=-1)

    return Pooled()


def _compare(network: _Network, extract: Extract) -> None:
    """Refuse a file whose features are not those of the network, or of another width than is known.

    Raises:
        DiffpathError: naming the difference.
    """
    encoder = network.encoder
    shape = (_COMPARED, encoder.size, encoder.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    wanted, found = network.extract(images), extract(images)
    if wanted.shape != (_COMPARED, encoder.width):
        why = f"its features have {wanted.shape[1]} numbers, not {encoder.width}"
        raise DiffpathError("encoder", where=encoder.name, why=why, fix="name the repository's own files")
    if (difference := np.abs(found - wanted).max() / np.abs(wanted).max()) > TOLERANCE:
        why = f"the file's features differ from the original's by {difference:.1g} of the largest"
        raise DiffpathError("encoder", where=encoder.name, why=why, fix="try other versions of torch and onnxscript")
