"""Makes first_stage.npz and first_stage_losses.npz.

In a Python of its own: ``pip install torch diffusers lpips``, then in ``tests/``:
``python -m golden.make_first_stage``.

diffusers' VQModel and AutoencoderKL are other implementations of the autoencoders of latent diffusion (Rombach et al.
2022), ``lpips`` is what the authors of the distance published; the discriminator and the losses are written down here
from Esser et al. 2021. All run in double precision, with weights drawn by published names; results are stored in
single.
"""

import re

import numpy as np
import torch
from golden import from_torch, weights
from golden.from_torch import images, named, single
from torch import nn

# isort: split
import lpips
from diffusers import AutoencoderKL, VQModel
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, VectorQuantizer
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D

BETA, CODES, ADVERSARIAL_WEIGHT = 0.25, 24, 0.75
# Gradients that are stored in full; of the others, the norms.
IN_FULL = {"last": "decoder.conv_out.weight", "first": "encoder.conv_in.weight", "codes": "quantize.embedding.weight"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut"}
PART = re.compile(r"(encoder|decoder)\.(down|up|mid)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)\.(\w+)")


def published(name: str, *, levels: int) -> str:
    """diffusers' name -> that of the published code, where the decoder's levels are numbered from the finest."""
    found = PART.fullmatch(name)
    if not found:
        return name.replace("conv_norm_out", "norm_out")
    half, way, block, kind, number, layer, leaf = found.groups()
    layer = {"attentions": ATTENTION, "resnets": RESNET}.get(kind, {}).get(layer, layer)
    if way == "mid":
        part = f"attn_{int(number) + 1}" if kind == "attentions" else f"block_{int(number) + 1}"
        return f"{half}.mid.{part}.{layer}.{leaf}"
    level = int(block) if way == "down" else levels - 1 - int(block)
    part = {
        "resnets": f"block.{number}",
        "attentions": f"attn.{number}",
        "downsamplers": "downsample",
        "upsamplers": "upsample",
    }[kind]
    return f"{half}.{way}.{level}.{part}.{layer}.{leaf}"


def autoencoder(
    kind: type[nn.Module],
    widths: tuple[int, ...],
    *,
    num_res_blocks: int,
    attends: tuple[bool, ...],
    latent_channels: int = 3,
    **more: int,
) -> tuple[nn.Module, np.ndarray]:
    model = kind(
        down_block_types=tuple("AttnDownEncoderBlock2D" if attend else "DownEncoderBlock2D" for attend in attends),
        up_block_types=tuple("AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)),
        block_out_channels=widths,
        layers_per_block=num_res_blocks,
        latent_channels=latent_channels,
        norm_num_groups=32,
        **more,
    )
    assert all(module.heads == 1 for module in model.modules() if hasattr(module, "heads"))
    convs = tuple(ATTENTION)[1:]
    return from_torch.filled(model, lambda name: published(name, levels=len(widths)), convs=convs)


def small_vq() -> tuple[nn.Module, np.ndarray]:
    return autoencoder(VQModel, (32, 64), num_res_blocks=1, attends=(False, False), num_vq_embeddings=CODES)


def autoencoders() -> dict[str, np.ndarray]:
    cases = {
        "vq": (VQModel, (32, 64, 64), 1, (False, False, False), {"num_vq_embeddings": CODES}),
        "vq_attention": (VQModel, (32, 64), 2, (False, True), {"num_vq_embeddings": CODES}),
        "kl": (AutoencoderKL, (32, 64), 1, (False, False), {}),
    }
    arrays = {}
    for case, (kind, widths, blocks, attends, more) in cases.items():
        model, names = autoencoder(kind, widths, num_res_blocks=blocks, attends=attends, **more)
        code = model.quant_conv(model.encoder(images(f"{case} x", (2, 16, 24, 3))))
        arrays |= {f"{case}/names": names, f"{case}/code": single(code)}
        z = images(f"{case} z", (2, 4, 6, 3))
        arrays[f"{case}/decoded"] = single(model.decode(z).sample)
        if kind is VQModel:
            arrays[f"{case}/round_trip"] = single(model.decode(code).sample)
            z_q, _, (_, _, indices) = model.quantize(z)
            arrays |= {f"{case}/z_q": single(z_q), f"{case}/indices": indices.numpy().reshape(2, 4, 6)}
        else:
            arrays[f"{case}/round_trip"] = single(model.decode(code.chunk(2, dim=1)[0]).sample)
            arrays["kl/nats"] = single(DiagonalGaussianDistribution(code).kl())
    return arrays


def blocks() -> dict[str, np.ndarray]:
    attention = Attention(
        32, heads=1, dim_head=32, bias=True, norm_num_groups=32, eps=1e-6, residual_connection=True,
        _from_deprecated_attn_block=True,
    )  # fmt: skip
    cases = {
        "resnet": (ResnetBlock2D(in_channels=32, temb_channels=None, eps=1e-6), RESNET),
        "resnet_skip": (ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=None, eps=1e-6), RESNET),
        "attention": (attention, ATTENTION),
        "down": (Downsample2D(32, use_conv=True, padding=0), {"Conv2d_0": "conv"}),
        "up": (Upsample2D(32, use_conv=True), {}),
    }
    arrays = {}
    for case, (block, table) in cases.items():

        def own(name: str, table: dict[str, str] = table) -> str:
            layer, leaf = name.rsplit(".", 1)
            return f"{table.get(layer, layer)}.{leaf}"

        block, names = from_torch.filled(block, own, convs=tuple(ATTENTION)[1:])
        x = images(f"block {case}", (2, 4, 6, 32))
        arrays |= {f"{case}/names": names, f"{case}/out": single(block(x, None) if table is RESNET else block(x))}
    return arrays


class Critic(nn.Module):
    """The PatchGAN of Isola et al. 2017, with the layers in one numbered sequence, as published."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        inputs = width
        for number in range(1, num_layers + 1):
            outputs = width * min(2**number, 8)
            conv = nn.Conv2d(inputs, outputs, 4, 2 if number < num_layers else 1, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.main = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.main(x)


def critic(width: int, num_layers: int) -> tuple[nn.Module, np.ndarray]:
    module, names = from_torch.filled(Critic(width, num_layers), str)
    return module.train(), names


def perceptual() -> tuple[nn.Module, np.ndarray]:
    return from_torch.filled(lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False), str)


def pixels(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Images of 256 levels by name, in [-1, 1]."""
    return torch.from_numpy(weights.integers(name, 256, shape) / 127.5 - 1).movedim(-1, 1)


def distances_and_logits() -> dict[str, np.ndarray]:
    judge, names = critic(16, 3)
    distance, lpips_names = perceptual()
    a, b = (pixels(f"lpips {name}", (2, 32, 40, 3)) for name in "ab")
    b.requires_grad_()
    far = distance(a, b)
    far.sum().backward()
    return {
        "critic/names": names,
        "critic/logits": single(judge(pixels("critic x", (3, 40, 32, 3)))),
        "lpips/names": lpips_names,
        "lpips/distance": single(far.reshape(2)),
        "lpips/gradient": single(b.grad),
    }


def codebook_losses() -> dict[str, np.ndarray]:
    arrays = {}
    for case in ("legacy", "paper"):
        book, names = from_torch.filled(VectorQuantizer(CODES, 3, BETA, legacy=case == "legacy"), "quantize.{}".format)
        z = images("losses z", (2, 4, 4, 3)).requires_grad_()
        z_q, loss, _ = book(z)
        loss.backward(retain_graph=True)
        arrays |= {
            "codebook/names": names,
            f"codebook_{case}/loss": single(loss),
            f"codebook_{case}/gradient_z": single(z.grad),
            f"codebook_{case}/gradient_codes": single(book.embedding.weight.grad),
        }
        z.grad = None
        (z_q * images("losses cotangent", (2, 4, 4, 3))).mean().backward()
        arrays["straight_through/gradient_z"] = single(z.grad)
    return arrays


def hinge(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())


def norms(gradients: list[torch.Tensor]) -> np.ndarray:
    return np.array([float(gradient.norm()) for gradient in gradients])


def step(distance: nn.Module | None) -> dict[str, np.ndarray]:
    """One step of both networks: losses and gradients."""
    (model, _), (judge, _) = small_vq(), critic(8, 2)
    x = pixels("losses image", (2, 16, 16, 3))
    z = model.quant_conv(model.encoder(x))
    z_q, codebook_loss, _ = model.quantize(z)
    x_hat = model.decoder(model.post_quant_conv(z_q))
    l1 = (x - x_hat).abs()
    far = distance(x, x_hat) if distance else torch.zeros(())
    nll, generator = (l1 + far).mean(), -judge(x_hat).mean()
    last = model.decoder.conv_out.weight
    of_nll, of_critic = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (nll, generator))
    adaptive = (of_nll.norm() / (of_critic.norm() + 1e-4)).clamp(0, 1e4).detach()
    total = nll + adaptive * ADVERSARIAL_WEIGHT * generator + codebook_loss
    of = dict(zip(dict(model.named_parameters()), torch.autograd.grad(total, list(model.parameters())), strict=True))
    judged = hinge(judge(x), judge(x_hat.detach()))
    numbers = {
        "l1": l1.mean(),
        "lpips": far.mean(),
        "generator": generator,
        "codebook": codebook_loss,
        "adaptive": adaptive,
        "total": total,
        "critic": judged,
    }
    return {
        **{key: single(value) for key, value in numbers.items()},
        "norms": norms(list(of.values())),
        **{f"of_{name}": of[parameter].numpy().astype(np.float32) for name, parameter in IN_FULL.items()},
        "critic_norms": norms(list(torch.autograd.grad(judged, judge.parameters()))),
    }


def losses() -> dict[str, np.ndarray]:
    real, fake = named("losses real", (2, 3, 3, 1)), named("losses fake", (2, 3, 3, 1))
    arrays = {
        **codebook_losses(),
        "hinge": single(hinge(real, fake)),
        "vq/names": small_vq()[1],
        "critic/names": critic(8, 2)[1],
        "lpips/names": perceptual()[1],
    }
    for case, distance in (("l1", None), ("l1_lpips", perceptual()[0])):
        arrays |= {f"{case}/{key}": value for key, value in step(distance).items()}
    return arrays


if __name__ == "__main__":
    from_torch.save("first_stage.npz", autoencoders() | blocks() | distances_and_logits())
    from_torch.save("first_stage_losses.npz", losses())
