"""UNets and noisy classifiers of guided-diffusion (Dhariwal and Nichol 2021): their names, and their shape."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.networks.classifier_adm import NoisyClassifierConfig
from diffpath_jax.networks.kinds import kind_of, make_network
from diffpath_jax.networks.unet_adm import UNetConfig
from diffpath_jax.shapes import Tree
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import Converted, Path, expecting, fill, layers

# Ours -> guided-diffusion's, inside a block; what a block does not have is not asked for.
BLOCK = {
    "in_norm": "in_layers.0",
    "in_conv": "in_layers.2",
    "condition": "emb_layers.1",
    "out_norm": "out_layers.0",
    "out_conv": "out_layers.3",
    "skip": "skip_connection",
}
DOWN, UP = {"conv": "op"}, {"conv": "conv"}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
POOL = {"": "", "qkv": "qkv_proj", "out": "c_proj"}


def adm_names(like: Tree, *, attention: Mapping[str, str] = ATTENTION) -> dict[Path, str]:
    """Path of each layer in our UNet or noisy classifier -> its name in guided-diffusion.

    There every stage of ours is one or two neighbours in a numbered sequence: the block, then its attention, whose
    layers are in the table ``attention``.
    """
    names: dict[Path, str] = {
        ("time", "into"): "time_embed.0",
        ("time", "out"): "time_embed.2",
        ("classes",): "label_emb",
        ("encoder", "stem"): "input_blocks.0.0",
        ("out_norm",): "out.0",
        ("out_conv",): "out.2",
        **layers(POOL, ("pool",), "out.2"),
    }
    encoder, decoder = like["encoder"], like.get("decoder", {})
    sequences: dict[str, list[Path]] = {f"input_blocks.{i + 1}": [("encoder", "down", i)] for i in encoder["down"]}
    sequences["middle_block"] = [("encoder", "middle", i) for i in encoder["middle"]]
    sequences |= {f"output_blocks.{i}": [("decoder", i, j) for j in stages] for i, stages in decoder.items()}
    for sequence, paths in sequences.items():
        number = 0
        for path in paths:
            stage: Any = like
            for key in path:
                stage = stage[key]
            tables = {"block": BLOCK | (UP if path[0] == "decoder" else DOWN), "attention": attention}
            for part in tables.keys() & stage.keys():
                place = number + (part == "attention")
                names |= layers(tables[part], (*path, part), f"{sequence}.{place}")
            number += len(stage)
    return names


def adm_params(state: Mapping[str, np.ndarray], like: Tree) -> dict:
    """Parameters of our UNet or noisy classifier from those of guided-diffusion; ``like`` is our tree (of shapes)."""
    return fill(like, adm_names(like), state)


def from_adm(state: Flat, *, num_heads: int = 4, head_channels: int = 0, where: str) -> Converted:
    """A UNet or noisy classifier of guided-diffusion (Dhariwal and Nichol 2021).

    Its shape is read off the arrays; only the number of heads leaves no trace in them.

    Args:
        state: arrays by guided-diffusion's names.
        num_heads: heads of a UNet (the published one for 128 px: 4).
        head_channels: channels of a head, above 0 instead of ``num_heads`` (published classifiers and the UNets for
            64, 256 and 512 px: 64).
        where: the file, for errors.

    Raises:
        DiffpathError: names or shapes are not those of guided-diffusion (exit code 5).
    """
    fix = "give a state_dict saved by guided-diffusion"
    with expecting("a UNet or classifier of guided-diffusion", where=where, fix=fix):
        config = adm_config(state, num_heads=num_heads, head_channels=head_channels)
        like, _ = jax.eval_shape(make_network(config, dtype=jnp.float32).init, jax.random.key(0))
        params = fill(like, adm_names(like), state)
    return Converted(kind_of(config).name, config, params)


def adm_config(state: Flat, *, num_heads: int, head_channels: int) -> UNetConfig | NoisyClassifierConfig:
    """The shape of a network of guided-diffusion, from names and shapes of its arrays."""
    common = encoder_shape(state, attention=".qkv.weight")
    if "out.2.positional_embedding" in state:
        side = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
        logits = state["out.2.c_proj.weight"].shape[0]
        return NoisyClassifierConfig(num_classes=logits, head_channels=head_channels or 64, pool_side=side, **common)
    rows = state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0
    learns = state["out.2.weight"].shape[0] == 2 * state["input_blocks.0.0.weight"].shape[1]
    return UNetConfig(num_classes=rows, learn_sigma=learns, num_heads=num_heads, head_channels=head_channels, **common)


def encoder_shape(state: Mapping[str, np.ndarray], *, attention: str) -> dict[str, Any]:
    """The shape of the downward path, which ADM and latent diffusion share.

    Args:
        state: arrays by name.
        attention: ending of a name that each block of attention has once.
    """
    widths = _block_widths(state)
    attended = {
        int(name.split(".")[1]) - 1
        for name in state
        if name.startswith("input_blocks.") and name.split(".")[2] == "1" and name.endswith(attention)
    }
    channels, length = state["input_blocks.0.0.weight"].shape[0], _blocks_a_level(widths, attended)
    levels = (len(widths) + 1) // length
    first = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return {
        "channels": channels,
        "channel_mult": tuple(widths[level * length] // channels for level in range(levels)),
        "num_res_blocks": length - 1,
        "attention_downsamples": tuple(sorted({2 ** (block // length) for block in attended})),
        "film": first == 2 * widths[0],
        "resample": "conv" if any(name.endswith(".op.weight") for name in state) else "block",
    }


def _blocks_a_level(widths: list[int], attended: set[int]) -> int:
    """Blocks of a level, the resampling one at its end included; the last level has no such block.

    It is the smallest number that divides the sequence into levels of one width each, with no attention at their
    ends.
    """
    count = len(widths) + 1
    for length in range(2, count + 1):
        levels = [widths[start : start + length] for start in range(0, count, length)]
        ends = {start + length - 1 for start in range(0, count, length)}
        if count % length == 0 and all(len(set(level)) == 1 for level in levels) and not ends & attended:
            return length
    raise ValueError(f"{len(widths)} input blocks do not divide into levels")


def _block_widths(state: Mapping[str, np.ndarray]) -> list[int]:
    """Output channels of each input block after the stem."""
    widths: list[int] = []
    while True:
        block = f"input_blocks.{len(widths) + 1}.0"
        name = next((n for n in (f"{block}.out_layers.3.weight", f"{block}.op.weight") if n in state), None)
        if name is None:
            return widths
        widths.append(state[name].shape[0])
