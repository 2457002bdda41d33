"""Makes ldm_unet.npz from diffusers.

In a Python of its own: ``pip install torch diffusers``, then in ``tests/``: ``python -m golden.make_ldm``.

diffusers' UNet2DConditionModel is another implementation of the UNet of latent diffusion (Rombach et al. 2022). It is
run in double precision, with weights drawn by the names of the published code; results are stored in single.
"""

import math
import re

import numpy as np
import torch
from golden import from_torch, weights
from golden.from_torch import images, named, single

# isort: split
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
PART = re.compile(r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
WIDTHS, CONTEXT, CLASSES = (32, 64), 16, 4
T, LABELS = torch.tensor([3, 870]), torch.tensor([1, 3])


def published(name: str, *, num_res_blocks: int, attends: tuple[bool, ...]) -> str:
    """diffusers' name -> that of the published code, where blocks are numbered through all levels."""
    found = PART.fullmatch(name)
    if not found:
        layer, kind = name.rsplit(".", 1)
        return f"{ENDS[layer]}.{kind}"
    where, block, kind, number, rest = found.groups()
    if kind == "resnets":
        layer, leaf = rest.rsplit(".", 1)
        rest = f"{RESNET[layer]}.{leaf}"
    level, i = int(block or 0), int(number)
    if where == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * i}.{rest}"
    if where == "down":
        start = 1 + level * (num_res_blocks + 1)
        if kind == "downsamplers":
            return f"input_blocks.{start + num_res_blocks}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{start + i}.{int(kind == 'attentions')}.{rest}"
    start = level * (num_res_blocks + 1)
    if kind == "upsamplers":
        return f"output_blocks.{start + num_res_blocks}.{1 + attends[-1 - level]}.{rest}"
    return f"output_blocks.{start + i}.{int(kind == 'attentions')}.{rest}"


class TimeSinusoids(torch.nn.Module):
    """cos(t f_i), then sin(t f_i), in double: diffusers' own are computed in single."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        angles = t[:, None].double() * torch.exp(-math.log(1e4) * torch.arange(half).double() / half)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def unet(
    *,
    num_res_blocks: int,
    attends: tuple[bool, ...],
    heads: int,
    widths: tuple[int, ...] = WIDTHS,
    context: int = CONTEXT,
) -> tuple[torch.nn.Module, np.ndarray]:
    model = UNet2DConditionModel(
        in_channels=3,
        out_channels=3,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        block_out_channels=widths,
        layers_per_block=num_res_blocks,
        cross_attention_dim=context,
        # Despite its name it is the number of heads.
        attention_head_dim=heads,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
    )
    assert model.mid_block.attentions[0].transformer_blocks[0].attn1.heads == heads
    model.time_proj = TimeSinusoids(widths[0])
    return from_torch.filled(model, lambda name: published(name, num_res_blocks=num_res_blocks, attends=attends))


def networks() -> dict[str, np.ndarray]:
    rows = torch.from_numpy(weights.weight("cond_stage_model.embedding.weight", (CLASSES, CONTEXT))).double()
    classes, tokens = rows[LABELS][:, None], named("ldm context", (2, 3, CONTEXT))
    one, one_names = unet(num_res_blocks=1, attends=(False, True), heads=1)
    two, two_names = unet(num_res_blocks=2, attends=(True, True), heads=4)
    x, wide = images("ldm x", (2, 8, 8, 3)), images("ldm wide x", (2, 4, 6, 3))
    return {
        "classes/names": weights.listing({"cond_stage_model.embedding.weight": rows.shape}),
        "one/names": one_names,
        "one/class": single(one(x, T, classes).sample),
        "one/tokens": single(one(x, T, tokens).sample),
        "two/names": two_names,
        "two/class": single(two(wide, T, classes).sample),
        "two/tokens": single(two(wide, T, tokens).sample),
    }


def blocks() -> dict[str, np.ndarray]:
    arrays = {}
    for heads in (1, 4):
        block = BasicTransformerBlock(32, heads, 32 // heads, cross_attention_dim=CONTEXT)
        spatial = Transformer2DModel(heads, 32 // heads, in_channels=32, num_layers=2, cross_attention_dim=CONTEXT)
        block, arrays[f"block_{heads}/names"] = from_torch.filled(block, str)
        spatial, arrays[f"spatial_{heads}/names"] = from_torch.filled(spatial, str)
        for tokens in (1, 3):
            context = named(f"ldm context {tokens}", (2, tokens, CONTEXT))
            out = block(named("ldm block x", (2, 6, 32)), encoder_hidden_states=context)
            arrays[f"block_{heads}/{tokens}"] = single(out)
            out = spatial(images("ldm spatial x", (2, 2, 3, 32)), encoder_hidden_states=context).sample
            arrays[f"spatial_{heads}/{tokens}"] = single(out)
    return arrays


if __name__ == "__main__":
    from_torch.save("ldm_unet.npz", networks() | blocks())
