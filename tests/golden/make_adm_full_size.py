"""Makes adm_full_size.npz from guided-diffusion: the published networks at their full width.

In a Python of its own, as ``make_adm``: ``python -m golden.make_adm_full_size``. The largest takes 10 GB and minutes.

A UNet is fully convolutional: it is shown an image of a few pixels, whatever its own size. A classifier pools places
whose number belongs to it, so that it is shown images of its size.
"""

import sys
from typing import Any

import numpy as np
import torch
from golden import make_adm, weights
from guided_diffusion.unet import EncoderUNetModel, UNetModel

# Levels by the side of the images, as guided-diffusion's script_util has them.
LEVELS = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
# Flags of the README of guided-diffusion: side of the images, then what differs from the usual ones.
UNETS: dict[str, tuple[int, dict[str, Any]]] = {
    "64x64_diffusion": (64, {"model_channels": 192, "num_res_blocks": 3, "use_new_attention_order": True}),
    "128x128_diffusion": (128, {"num_heads": 4, "num_head_channels": -1}),
    "256x256_diffusion": (256, {}),
    "256x256_diffusion_uncond": (256, {"num_classes": None}),
    "512x512_diffusion": (512, {}),
    "lsun_bedroom": (256, {"num_classes": None}),
}
CLASSIFIERS = {
    "64x64_classifier": (64, 4),
    "128x128_classifier": (128, 2),
    "256x256_classifier": (256, 2),
    "512x512_classifier": (512, 2),
}


def attended(side: int) -> tuple[int, ...]:
    """Attention at 32, 16 and 8 px of images of a side, as factors."""
    return tuple(side // px for px in (32, 16, 8))


def unet(case: str) -> UNetModel:
    side, options = UNETS[case]
    usual = {"model_channels": 256, "num_res_blocks": 2, "num_classes": 1000, "num_head_channels": 64}
    return UNetModel(
        side,
        in_channels=3,
        out_channels=6,
        attention_resolutions=attended(side),
        channel_mult=LEVELS[side],
        use_scale_shift_norm=True,
        resblock_updown=True,
        **{**usual, **options},
    )


def classifier(case: str) -> EncoderUNetModel:
    side, depth = CLASSIFIERS[case]
    return EncoderUNetModel(
        side,
        in_channels=3,
        model_channels=128,
        out_channels=1000,
        num_res_blocks=depth,
        attention_resolutions=attended(side),
        channel_mult=LEVELS[side],
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=True,
        pool="attention",
    )


def arrays_of(case: str) -> dict[str, np.ndarray]:
    """Output for one image, and the norm of the gradient of each parameter."""
    network = make_adm.filled(unet(case) if case in UNETS else classifier(case))
    told = [torch.tensor([417])]
    if case in UNETS and UNETS[case][1].get("num_classes", 1000):
        told.append(torch.tensor([207]))
    side = CLASSIFIERS[case][0] if case in CLASSIFIERS else UNETS[case][0] // 8
    x = make_adm.images(f"{case} x", (1, side, side, 3)).requires_grad_()
    out = network(x, *told)
    shape = (1, side, side, 6) if case in UNETS else (1, 1000)
    cotangent = torch.from_numpy(weights.normal(f"{case} cotangent", shape)).double()
    (out * (cotangent.movedim(-1, 1) if out.ndim == 4 else cotangent)).mean().backward()
    return {
        f"{case}/names": make_adm.listing(network),
        f"{case}/out": make_adm.single(out),
        f"{case}/norms": np.array([float(parameter.grad.norm()) for parameter in network.parameters()]),
        f"{case}/norm_x": np.array(float(x.grad.norm())),
    }


if __name__ == "__main__":
    found: dict[str, np.ndarray] = {}
    for name in sys.argv[1:] or (*UNETS, *CLASSIFIERS):
        found |= arrays_of(name)
        print(name, flush=True)
    make_adm.save("adm_full_size.npz", found)
