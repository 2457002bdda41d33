"""Makes adm_{blocks,layers,networks,gradients,published}.npz from guided-diffusion.

In a Python of its own: ``pip install torch guided-diffusion-sdk``, then in ``tests/``: ``python -m golden.make_adm``.

guided-diffusion is the code that Dhariwal and Nichol published with "Diffusion models beat GANs on image synthesis".
It is run in double precision; results are stored in single.
"""

from pathlib import Path

import numpy as np
import torch
from golden import weights
from guided_diffusion.nn import timestep_embedding
from guided_diffusion.unet import (
    AttentionBlock,
    AttentionPool2d,
    Downsample,
    EncoderUNetModel,
    ResBlock,
    UNetModel,
    Upsample,
)

# Norms, softmax and the angles of the timestep are computed in ``x.float()``: in double too.
torch.Tensor.float = torch.Tensor.double
HERE = Path(__file__).parent


def images(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Named inputs; NHWC there, NCHW here."""
    return torch.from_numpy(weights.normal(name, shape)).double().movedim(-1, 1)


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """The module in double precision with named weights."""
    module = module.double().eval()
    module.dtype = torch.float64
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(weights.weight(name, tuple(parameter.shape))))
    return module


def listing(module: torch.nn.Module) -> np.ndarray:
    return weights.listing({name: parameter.shape for name, parameter in module.named_parameters()})


def single(out: torch.Tensor) -> np.ndarray:
    """NCHW -> NHWC, float32."""
    out = out.detach()
    return (out.movedim(1, -1) if out.ndim == 4 else out).numpy().astype(np.float32)


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(HERE / name, **arrays)
    print(name, (HERE / name).stat().st_size, {k: float(v.std()) for k, v in arrays.items() if v.dtype.kind == "f"})


def blocks() -> dict[str, np.ndarray]:
    options = {
        "same": {},
        "wide": {"out_channels": 96},
        "up": {"up": True},
        "down": {"down": True},
        "added": {"out_channels": 96, "use_scale_shift_norm": False},
        "added_down": {"down": True, "use_scale_shift_norm": False},
    }
    arrays = {}
    for case, more in options.items():
        block = filled(ResBlock(64, 32, 0.0, **{"use_scale_shift_norm": True, **more}))
        shape = (2, 2, 4, 64) if case == "up" else (2, 4, 4, 64)
        embedding = torch.from_numpy(weights.normal(f"{case} embedding", (2, 32))).double()
        arrays[f"{case}/names"] = listing(block)
        arrays[f"{case}/out"] = single(block(images(f"{case} x", shape), embedding))
    return arrays


def layers() -> dict[str, np.ndarray]:
    cases = {
        "attention_1": (AttentionBlock(64, num_heads=1), (2, 4, 6, 64)),
        "attention_4": (AttentionBlock(64, num_heads=4), (2, 4, 6, 64)),
        "attention_of_16": (AttentionBlock(64, num_head_channels=16), (2, 3, 2, 64)),
        "conv_down": (Downsample(32, True), (2, 4, 6, 32)),
        "conv_up": (Upsample(32, True), (2, 2, 3, 32)),
        "pool": (AttentionPool2d(4, 64, 16, 5), (2, 4, 4, 64)),
    }
    t = torch.tensor([0, 1, 17, 500, 999])
    arrays = {"timesteps/out": single(timestep_embedding(t, 32))}
    for case, (module, shape) in cases.items():
        arrays[f"{case}/names"] = listing(filled(module))
        arrays[f"{case}/out"] = single(module(images(f"{case} x", shape)))
    return arrays


def film_unet() -> UNetModel:
    """Class-conditional, learned variance, resampling and conditioning as published."""
    unet = UNetModel(
        16,
        in_channels=3,
        model_channels=32,
        out_channels=6,
        num_res_blocks=1,
        attention_resolutions=(2, 4),
        channel_mult=(1, 2, 2),
        num_classes=4,
        num_heads=4,
        use_scale_shift_norm=True,
        resblock_updown=True,
    )
    return filled(unet)


def plain_unet() -> UNetModel:
    """Unconditional, resampling by convolutions, heads of a given width."""
    unet = UNetModel(
        8,
        in_channels=3,
        model_channels=32,
        out_channels=3,
        num_res_blocks=2,
        attention_resolutions=(1, 2),
        channel_mult=(1, 2),
        num_head_channels=16,
        conv_resample=True,
    )
    return filled(unet)


def classifier(side: int, *, model_channels: int = 32, channel_mult: tuple[float, ...] = (1, 2)) -> EncoderUNetModel:
    model = EncoderUNetModel(
        side,
        in_channels=3,
        model_channels=model_channels,
        out_channels=5,
        num_res_blocks=1,
        attention_resolutions=(2,),
        channel_mult=channel_mult,
        num_head_channels=16,
        use_scale_shift_norm=True,
        resblock_updown=True,
        pool="attention",
    )
    return filled(model)


# Small networks with what sets each published one apart; every one has the flags of its own README otherwise.
PUBLISHED = {
    # 64x64_diffusion.pt: q, k and v outside the heads.
    "new_order": {"channel_mult": (1, 2), "attention_resolutions": (2,), "use_new_attention_order": True},
    # 512x512_diffusion.pt: levels narrower than the width of the time embedding.
    "narrow": {"model_channels": 64, "channel_mult": (0.5, 1, 1), "attention_resolutions": (4,)},
    # lsun, and one's own: levels of one width, without attention between them; one channel.
    "bare": {"channel_mult": (1, 1, 1), "attention_resolutions": (), "num_res_blocks": 2, "in_channels": 1},
    "bare_conv": {
        **{"channel_mult": (1, 1), "attention_resolutions": (), "num_res_blocks": 3, "resblock_updown": False},
        "use_scale_shift_norm": False,
    },
}


def published_unet(case: str) -> UNetModel:
    usual = {"model_channels": 32, "in_channels": 3, "num_res_blocks": 1, "num_classes": 4, "num_head_channels": 16}
    options = {**usual, "use_scale_shift_norm": True, "resblock_updown": True, **PUBLISHED[case]}
    return filled(UNetModel(16, out_channels=2 * options["in_channels"], **options))


T, LABELS = torch.tensor([3, 870]), torch.tensor([1, 3])


def networks() -> dict[str, np.ndarray]:
    film, plain, noisy = film_unet(), plain_unet(), classifier(16)
    return {
        "film/names": listing(film),
        "film/out": single(film(images("film x", (2, 16, 16, 3)), T, LABELS)),
        "film_other/out": single(film(images("film other x", (2, 8, 20, 3)), T, LABELS)),
        "plain/names": listing(plain),
        "plain/out": single(plain(images("plain x", (2, 8, 8, 3)), T)),
        "classifier/names": listing(noisy),
        "classifier/out": single(noisy(images("classifier x", (2, 16, 16, 3)), T)),
    }


def published() -> dict[str, np.ndarray]:
    arrays = {}
    for case, options in PUBLISHED.items():
        unet = published_unet(case)
        x = images(f"{case} x", (2, 8, 8, options.get("in_channels", 3)))
        arrays |= {f"{case}/names": listing(unet), f"{case}/out": single(unet(x, T, LABELS))}
    # 512x512_classifier.pt.
    noisy = classifier(16, model_channels=64, channel_mult=(0.5, 1))
    out = single(noisy(images("narrow classifier x", (2, 16, 16, 3)), T))
    return {**arrays, "narrow_classifier/names": listing(noisy), "narrow_classifier/out": out}


# Some gradients in full; of the large ones every eighth row.
FULL = {
    "input_blocks.0.0.weight": 1,
    "input_blocks.1.0.emb_layers.1.weight": 8,
    "middle_block.1.qkv.weight": 8,
    "out.2.weight": 1,
}


def gradients() -> dict[str, np.ndarray]:
    unet = film_unet()
    x = images("film x", (2, 16, 16, 3)).requires_grad_()
    (unet(x, T, LABELS) * images("film cotangent", (2, 16, 16, 6))).mean().backward()
    of = {name: parameter.grad for name, parameter in unet.named_parameters()}
    return {
        "x": single(x.grad),
        "norms": np.array([float(gradient.norm()) for gradient in of.values()]),
        **{name: of[name][::step].numpy().astype(np.float32) for name, step in FULL.items()},
    }


if __name__ == "__main__":
    save("adm_blocks.npz", blocks())
    save("adm_layers.npz", layers())
    save("adm_networks.npz", networks())
    save("adm_gradients.npz", gradients())
    save("adm_published.npz", published())
