"""Makes inception.npz from torch-fidelity and clean-fid.

In a Python of its own: ``pip install torch torchvision torch-fidelity clean-fid``, then in ``tests/``:
``python -m golden.make_inception``.

torch-fidelity's network is the one that reproduces the TensorFlow graph of FID, and its resize that of TensorFlow 1;
clean-fid's resize is that of Parmar et al. 2022. The network is run in double precision on named weights; results are
stored in single. Of each layer and block only some numbers are kept.
"""

from pathlib import Path

import numpy as np
import torch
from cleanfid.resize import build_resizer
from golden import weights
from torch_fidelity import feature_extractor_inceptionv3 as reference

OUT = Path(__file__).parent / "inception.npz"
SIDE = 299
STAGE_NUMBERS = 600
# Height and width of images: enlarged, shrunk, both, and left alone.
RESIZED = ((64, 64), (128, 128), (299, 299), (400, 400), (50, 330), (700, 310))
# Rows and columns that are kept, both borders among them.
KEPT = np.r_[0:4, 13:286:17, 295:299]


def network(names: list[str]) -> reference.FeatureExtractorInceptionV3:
    """Torch-fidelity's network with named weights, in double precision."""
    # Its constructor wants a file of weights; strictly as it reads them, but drawn here.
    drawn: dict[str, torch.Tensor] = {}

    def load(module: torch.nn.Module, _: object) -> None:
        for name, array in module.state_dict().items():
            if array.ndim:
                drawn[name] = torch.from_numpy(weights.weight(name, tuple(array.shape)))
        torch.nn.Module.load_state_dict(module, drawn, strict=False)

    reference.FeatureExtractorInceptionV3.load_state_dict = load
    reference.torch.load = lambda *_, **__: None
    return reference.FeatureExtractorInceptionV3(
        "", names, feature_extractor_weights_path="", feature_extractor_internal_dtype="float64"
    )


def images(name: str, height: int, width: int, batch: int = 2) -> torch.Tensor:
    """Named pixels, as uint8 NCHW."""
    pixels = weights.integers(name, 256, (batch, height, width, 3)).astype(np.uint8)
    return torch.from_numpy(pixels).movedim(-1, 1)


def some(x: torch.Tensor) -> np.ndarray:
    """Numbers of NCHW features, evenly taken from the NHWC array."""
    flat = x.movedim(1, -1).reshape(-1)
    return flat[:: max(1, len(flat) // STAGE_NUMBERS)][:STAGE_NUMBERS].numpy().astype(np.float32)


def stages() -> dict[str, np.ndarray]:
    """Each layer before the blocks and each block, on images that are small, not square, and not resized."""
    module = network(["2048", "logits"])
    kept, resize = {}, reference.interpolate_bilinear_2d_like_tensorflow1x
    for name, child in module.named_children():
        if name.startswith(("Conv2d", "Mixed")):
            child.register_forward_hook(lambda _, __, out, name=name: kept.update({f"stages/{name}": some(out)}))
    reference.interpolate_bilinear_2d_like_tensorflow1x = lambda x, **_: x
    features, logits = module(images("inception small", 107, 123))
    shapes = {name: array.shape for name, array in module.state_dict().items() if array.ndim}
    reference.interpolate_bilinear_2d_like_tensorflow1x = resize
    counted = sum(parameter.numel() for parameter in module.parameters())
    return {
        "names": weights.listing(shapes),
        "parameters": np.array(counted),
        **kept,
        "small/features": features.numpy(),
        "small/logits": logits.numpy(),
    }


def whole() -> dict[str, np.ndarray]:
    """From pixels to features, its resize included."""
    features, logits, unbiased = (
        network([name])(images("inception whole", 64, 64, batch=1))[0] for name in ("2048", "logits", "logits_unbiased")
    )
    return {
        "whole/features": features.numpy(),
        "whole/logits": logits.numpy(),
        "whole/logits_unbiased": unbiased.numpy(),
    }


def resizes() -> dict[str, np.ndarray]:
    arrays, clean = {"kept": KEPT}, build_resizer("clean")
    for height, width in RESIZED:
        pixels = images(f"resize {height} {width}", height, width, batch=1)
        exact = reference.interpolate_bilinear_2d_like_tensorflow1x(
            pixels.float(), size=(SIDE, SIDE), align_corners=False
        )
        outputs = {"tf_bilinear": exact[0].movedim(0, -1).numpy(), "clean": clean(pixels[0].movedim(0, -1).numpy())}
        for kind, out in outputs.items():
            arrays[f"resize/{kind}/{height}x{width}"] = out[np.ix_(KEPT, KEPT)].astype(np.float32)
    return arrays


if __name__ == "__main__":
    made = stages() | whole() | resizes()
    np.savez_compressed(OUT, **made)
    for name, array in made.items():
        if array.dtype.kind == "f":
            print(f"{name:40} {array.shape!s:16} mean {array.mean():8.3f} deviation {array.std():8.3f}")
    print(OUT.name, OUT.stat().st_size)
