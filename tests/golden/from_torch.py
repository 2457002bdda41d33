"""What the scripts that run diffusers share: named inputs in double precision, and weights by published names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from golden import weights

HERE = Path(__file__).parent
# diffusers and lpips import torchvision, whose wheel lacks its compiled operators beside a CPU build of torch.
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def named(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(weights.normal(name, shape)).double()


def images(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """NHWC by name, NCHW here."""
    return named(name, shape).movedim(-1, 1)


def filled(
    module: torch.nn.Module, published: Callable[[str], str], *, convs: tuple[str, ...] = ()
) -> tuple[torch.nn.Module, np.ndarray]:
    """The module in double precision with weights drawn by their published names, and the listing of those.

    Args:
        module: to fill.
        published: name in the module -> the published one.
        convs: ends of the names of layers that are linear in the module and 1x1 convolutions as published.
    """
    module, shapes = module.double().eval(), {}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) == 2 and name.removesuffix(".weight").endswith(convs or ("-",)):
                shape += (1, 1)
            theirs = published(name)
            assert theirs not in shapes, theirs
            shapes[theirs] = shape
            parameter.copy_(torch.from_numpy(weights.weight(theirs, shape)).reshape(parameter.shape))
    return module, weights.listing(shapes)


def single(out: torch.Tensor) -> np.ndarray:
    """NCHW -> NHWC, float32."""
    out = out.detach()
    return (out.movedim(1, -1) if out.ndim == 4 else out).numpy().astype(np.float32)


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(HERE / name, **arrays)
    print(name, (HERE / name).stat().st_size, {k: float(v.std()) for k, v in arrays.items() if v.dtype.kind == "f"})
