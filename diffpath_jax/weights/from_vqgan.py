"""First stages of taming-transformers and latent diffusion (Esser et al. 2021; Rombach et al. 2022): VQ and KL.

They come as files of their own, with the discriminator and LPIPS that trained them, or within a whole checkpoint of
latent diffusion.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffpath_jax.networks.autoencoder import KLConfig, VQConfig
from diffpath_jax.networks.kinds import kind_of, make_network
from diffpath_jax.shapes import Tree
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import Converted, Path, expecting, fill, first_words, layers, own_names

# Within a whole checkpoint, and the factor of its latents there.
FIRST_STAGE, SCALE = "first_stage_model.", "scale_factor"
# The discriminator and LPIPS, which are not part of the autoencoder; and its moving average.
LOSS, AVERAGE = "loss.", "model_ema."
# Ours -> theirs; inside an encoder or decoder, a block and attention.
ENDS = {"stem": "conv_in", "out_norm": "norm_out", "out_conv": "conv_out"}
BLOCK = {"in_norm": "norm1", "in_conv": "conv1", "out_norm": "norm2", "out_conv": "conv2", "skip": "nin_shortcut"}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
MIDDLE = {
    **{f"{i}.block.{ours}": f"block_{i + 1}.{theirs}" for i in range(2) for ours, theirs in BLOCK.items()},
    **{f"0.attention.{ours}": f"attn_1.{theirs}" for ours, theirs in ATTENTION.items()},
}
OUTSIDE = {"quant": "quant_conv", "post_quant": "post_quant_conv", "codebook": "quantize.embedding"}
# Of a codebook whose codes are chosen by logits.
LOGITS = {"logits": "quantize.proj", "codebook": "quantize.embed"}


def vqgan_names(like: Tree) -> dict[Path, str]:
    """Path of each layer in our autoencoder -> its published name, with q, k and v joined as :func:`join_qkv` does."""
    names = layers(OUTSIDE | LOGITS if "logits" in like else OUTSIDE)
    for half, way in (("encoder", "down"), ("decoder", "up")):
        names |= layers(ENDS, (half,), half)
        names |= layers(MIDDLE, (half, "middle"), f"{half}.mid")
        for level, stages in like[half]["levels"].items():
            there = f"{half}.{way}.{level}"
            for i in stages:
                names |= layers(BLOCK, (half, "levels", level, i, "block"), f"{there}.block.{i}")
                names |= layers(ATTENTION, (half, "levels", level, i, "attention"), f"{there}.attn.{i}")
    # Both are numbered by the finer of their two levels in ours, by the level they belong to in theirs.
    for i in like["encoder"].get("shrink", {}):
        names["encoder", "shrink", i] = f"encoder.down.{i}.downsample.conv"
        names["decoder", "enlarge", i] = f"decoder.up.{i + 1}.upsample.conv"
    return names


def join_qkv(state: Mapping[str, np.ndarray]) -> Flat:
    """Queries, keys and values of one head as one layer ``qkv``, which is the same arithmetic.

    Raises:
        KeyError: one of the three is missing.
    """
    left = dict(state)
    for name in [name for name in left if name.endswith((".q.weight", ".q.bias"))]:
        block, _, leaf = name.rsplit(".", 2)
        left[f"{block}.qkv.{leaf}"] = np.concatenate([left.pop(f"{block}.{part}.{leaf}") for part in "qkv"])
    return left


def from_vqgan(state: Flat, *, raw_parameters: bool = False, groups: int = 32, where: str) -> Converted:
    """An autoencoder with a codebook or a normal distribution.

    Args:
        state: arrays by their names, of a first stage or of a whole checkpoint of latent diffusion.
        raw_parameters: the weights themselves where their moving average is there too.
        groups: of every norm; in the published networks 32.
        where: the file, for errors.

    Raises:
        DiffpathError: names or shapes are not those of the published code (exit code 5).
    """
    fix = "give a first stage of taming-transformers or latent-diffusion, or a whole checkpoint of the latter"
    with expecting("a first stage of latent diffusion", state, where=where, fix=fix):
        prefix = FIRST_STAGE if any(name.startswith(FIRST_STAGE) for name in state) else ""
        places = own_names(
            state, prefix, average=prefix + AVERAGE, raw_parameters=raw_parameters, other=(prefix + LOSS,)
        )
        found = join_qkv({name: state[place] for name, place in places.items()})
        config = dataclasses.replace(vqgan_config(found), groups=groups)
        like, _ = make_network(config, dtype=jnp.float32).shapes
        params = fill(like, vqgan_names(like), found)
        details = {"scale": _positive(state[SCALE])} if prefix and SCALE in state else {}
    used = {*places.values(), SCALE} if details else set(places.values())
    unused = first_words(name for name in state if name not in used)
    return Converted(kind_of(config).name, config, params, details=details, unused=unused)


def vqgan_config(state: Mapping[str, np.ndarray]) -> VQConfig | KLConfig:
    """The shape of an autoencoder of latent diffusion, from names and shapes of its arrays."""
    channels = state["encoder.conv_in.weight"].shape[0]
    inner, latent_channels = state["post_quant_conv.weight"].shape[:2]
    levels = _count(state, "encoder.down.{}.block.0.conv1.weight")
    widths = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
    shape: dict[str, Any] = {
        "channels": channels,
        "channel_mult": tuple(width // channels for width in widths),
        "num_res_blocks": _count(state, "encoder.down.0.block.{}.conv1.weight"),
        "attention_downsamples": tuple(
            2**level for level in range(levels) if f"encoder.down.{level}.attn.0.norm.weight" in state
        ),
        "latent_channels": latent_channels,
        "z_channels": inner if inner != latent_channels else 0,
    }
    if state["quant_conv.weight"].shape[0] == 2 * latent_channels:
        return KLConfig(**shape)
    if f"{LOGITS['codebook']}.weight" in state:
        return VQConfig(codebook_size=state[f"{LOGITS['codebook']}.weight"].shape[0], assignment="logits", **shape)
    return VQConfig(codebook_size=state["quantize.embedding.weight"].shape[0], **shape)


def _count(state: Mapping[str, np.ndarray], name: str) -> int:
    """Returns the number of indices from 0 on that give the name of an array."""
    return next(number for number in itertools.count() if name.format(number) not in state)


def _positive(scale: np.ndarray) -> float:
    if scale.size != 1 or not 0 < float(scale.item()) < np.inf:
        raise ValueError(f"{SCALE} is {scale}")
    return float(scale.item())
