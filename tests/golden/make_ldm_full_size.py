"""Makes ldm_full_size.npz from diffusers: published networks of latent diffusion at their full width.

In a Python of its own, as ``make_first_stage``: ``python -m golden.make_ldm_full_size``.
"""

from collections.abc import Mapping

import numpy as np
import torch
from golden import from_torch, make_ldm, weights
from golden.from_torch import images, single
from golden.make_first_stage import AutoencoderKL, VQModel, autoencoder

SIDE, CODES, CONTEXT, CLASSES = 8, 8192, 512, 1001
# First stages of Rombach et al. (2022): kind, width and channels of latents.
FIRST_STAGES = {
    "vq-f4": (VQModel, (128, 256, 512), 3),
    "kl-f4": (AutoencoderKL, (128, 256, 512), 3),
    "kl-f8": (AutoencoderKL, (128, 256, 512, 512), 4),
}


def norms(case: str, value: torch.Tensor, of: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Norm of the gradient of each parameter; zero where it has none."""
    value.backward()
    found = [0.0 if each.grad is None else float(each.grad.norm()) for each in of.values()]
    return {f"{case}/norms": np.array(found)}


def cin256() -> dict[str, np.ndarray]:
    """cin256-v2: 192 channels, one head, attention at every level but the first."""
    model, names = make_ldm.unet(
        num_res_blocks=2,
        attends=(False, True, True, True),
        heads=1,
        widths=(192, 384, 576, 960),
        context=CONTEXT,
    )
    table = named_rows()
    out = model(images("cin256 x", (1, SIDE, SIDE, 3)), torch.tensor([417]), table[[207]][:, None]).sample
    value = (out * images("cin256 cotangent", (1, SIDE, SIDE, 3))).mean()
    of = {**dict(model.named_parameters()), "classes": table}
    classes = weights.listing({"cond_stage_model.embedding.weight": table.shape})
    return {
        "cin256-v2/names": np.concatenate([names, classes]),
        "cin256-v2/out": single(out),
        **norms("cin256-v2", value, of),
    }


def named_rows() -> torch.Tensor:
    rows = weights.weight("cond_stage_model.embedding.weight", (CLASSES, CONTEXT))
    return torch.from_numpy(rows).double().requires_grad_()


def first_stage(case: str) -> dict[str, np.ndarray]:
    """Code of an image and image of a code, which is not moved to the codebook."""
    kind, widths, channels = FIRST_STAGES[case]
    more = {"num_vq_embeddings": CODES} if kind is VQModel else {}
    attends = (False,) * len(widths)
    model, names = autoencoder(kind, widths, num_res_blocks=2, attends=attends, latent_channels=channels, **more)
    side = SIDE * 2 ** (len(widths) - 1)
    code = model.quant_conv(model.encoder(images(f"{case} x", (1, side, side, 3))))
    decoded = model.decoder(model.post_quant_conv(images(f"{case} z", (1, SIDE, SIDE, channels))))
    value = (code * images(f"{case} code cotangent", (1, SIDE, SIDE, code.shape[1]))).mean()
    value = value + (decoded * images(f"{case} cotangent", (1, side, side, 3))).mean()
    return {
        f"{case}/names": names,
        f"{case}/code": single(code),
        f"{case}/decoded": single(decoded),
        **norms(case, value, dict(model.named_parameters())),
    }


if __name__ == "__main__":
    found = cin256()
    for name in FIRST_STAGES:
        found |= first_stage(name)
    from_torch.save("ldm_full_size.npz", found)
