"""UNets and noisy classifiers of guided-diffusion (Dhariwal and Nichol 2021): their names, and their shape."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.adm import AdmConfig
from diffpath_jax.networks.classifier_adm import NoisyClassifierConfig
from diffpath_jax.networks.config import indivisible_heads
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
# A name of which each attention has one.
ATTENTION_END = ".qkv.weight"
# Heads where neither their number nor their width is stated: those of 128x128_diffusion.pt.
DEFAULT_HEADS = 4
AttentionOrder = Literal["legacy", "new"]
NoiseName = Literal["linear", "cosine"]
# Section ``noise`` of a config, for the flags --noise_schedule and --diffusion_steps 1000 of guided-diffusion.
NOISES: dict[str, dict[str, Any]] = {
    "linear": {"schedule": "linear", "num_steps": 1000, "beta_start": 1e-4, "beta_end": 2e-2},
    "cosine": {"schedule": "cosine", "num_steps": 1000},
}


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


def from_adm(
    state: Flat,
    *,
    num_heads: int = 0,
    head_channels: int = 0,
    num_heads_upsample: int = 0,
    attention_order: AttentionOrder = "legacy",
    noise_schedule: NoiseName = "linear",
    groups: int = 32,
    where: str,
) -> Converted:
    """A UNet or noisy classifier of guided-diffusion (Dhariwal and Nichol 2021).

    Its shape is read off the arrays. Heads, the order of q, k and v, and the noise leave no trace in them: they are the
    flags that the file was published with.

    Args:
        state: arrays by guided-diffusion's names.
        num_heads: heads of each attention (``--num_heads``); 0 for the published 4 of a UNet, where ``head_channels``
            is 0 too.
        head_channels: channels of a head (``--num_head_channels``), above 0 instead of ``num_heads``; of classifiers 64
            if nothing is said.
        num_heads_upsample: heads of each attention on the way up of a UNet (``--num_heads_upsample``); 0 for
            ``num_heads``.
        attention_order: ``new`` for ``--use_new_attention_order True`` (q, k and v outside the heads), as in
            64x64_diffusion.pt; the rows of its projections are put in the order that all others have.
        noise_schedule: ``--noise_schedule`` of its training; it goes into the converted file.
        groups: of every norm; in guided-diffusion's own networks 32.
        where: the file, for errors.

    Raises:
        DiffpathError: names or shapes are not those of guided-diffusion (exit code 5), or heads that its widths do not
            divide into.
    """
    fix = "give a state_dict saved by guided-diffusion"
    with expecting("a UNet or classifier of guided-diffusion", state, where=where, fix=fix):
        config = adm_config(state, num_heads=num_heads or DEFAULT_HEADS, head_channels=head_channels)
        config = dataclasses.replace(config, groups=groups)
        classifies = isinstance(config, NoisyClassifierConfig)
        if classifies and num_heads:
            why = "heads of a classifier are given by their width"
            raise DiffpathError("--num_heads", where=where, why=why, fix="use --head_channels")
        if num_heads_upsample:
            config = _with_heads_above(config, num_heads_upsample, where=where)
        pool = {"out.2": state["out.2.qkv_proj.weight"].shape[1]} if classifies else {}
        widths = attended_widths(state, ATTENTION_END) | pool
        check_heads(config, {name: width for name, width in widths.items() if not _is_above(name)}, where=where)
        check_heads(_above(config), {name: width for name, width in widths.items() if _is_above(name)}, where=where)
        if attention_order == "new":
            state = legacy_order(state, config)
        like, _ = make_network(config, dtype=jnp.float32).shapes
        params = fill(like, adm_names(like), state)
    prediction = {} if classifies else {"prediction": "eps"}
    notes = head_notes(config, num_heads, head_channels)
    return Converted(
        kind_of(config).name, config, params, details={"noise": NOISES[noise_schedule], **prediction}, notes=notes
    )


def _with_heads_above(config: AdmConfig, num_heads: int, *, where: str) -> UNetConfig:
    """The config of a UNet with other heads on the way up.

    Raises:
        DiffpathError: it is no UNet, or has heads of a width that is stated.
    """
    if not isinstance(config, UNetConfig) or config.head_channels:
        why = "a classifier has no way up" if not isinstance(config, UNetConfig) else "--head_channels decides it"
        raise DiffpathError("--num_heads_upsample", where=where, why=why, fix="leave it out")
    if num_heads < 1:
        why = f"{num_heads} is no number of heads"
        raise DiffpathError("--num_heads_upsample", where=where, why=why, fix="give 1 or more")
    return dataclasses.replace(config, num_heads_upsample=num_heads)


def _is_above(name: str) -> bool:
    """Returns true for a name on the way up."""
    return name.startswith("output_blocks.")


def _above(config: AdmConfig) -> AdmConfig:
    """The config of the blocks on the way up; a classifier has none, and its own stands for it."""
    return config.on_the_way_up if isinstance(config, UNetConfig) else config


def head_notes(config: AdmConfig, num_heads: int, head_channels: int) -> tuple[str, ...]:
    """Returns a note on the assumed heads where neither their number nor their width was stated."""
    if num_heads or head_channels:
        return ()
    heads = f"heads of {config.head_channels} channels" if config.head_channels else f"{config.num_heads} heads"
    return (f"heads leave no trace in the file: {heads} are assumed; state them if that is wrong",)


def attended_widths(state: Mapping[str, np.ndarray], ending: str) -> dict[str, int]:
    """Channels of each layer of attention, by the beginning of its name."""
    return {name.removesuffix(ending): array.shape[1] for name, array in state.items() if name.endswith(ending)}


def check_heads(config: AdmConfig, widths: Mapping[str, int], *, where: str) -> None:
    """Refuse heads that cannot be.

    Args:
        config: with ``num_heads`` and ``head_channels``.
        widths: channels of each layer of attention, by its name.
        where: the file, for errors.

    Raises:
        DiffpathError: a number below 1, or one that a width does not divide into.
    """
    if conflict := indivisible_heads(widths, num_heads=config.num_heads, head_channels=config.head_channels):
        option, why = conflict
        fix = "give the number that the network was trained with"
        raise DiffpathError(f"--{option}", where=where, why=why, fix=fix)


def legacy_order(state: Mapping[str, np.ndarray], config: AdmConfig, *, inverse: bool = False) -> Flat:
    """The rows of every joint projection from (q, k, v) x heads to heads x (q, k, v), which is the same network.

    Args:
        state: arrays by guided-diffusion's names.
        config: with the heads.
        inverse: from heads x (q, k, v) instead.
    """
    ordered = dict(state)
    for name, width in attended_widths(state, ATTENTION_END).items():
        heads = (_above(config) if _is_above(name) else config).heads(width)
        for leaf in ("weight", "bias"):
            rows = state[f"{name}.qkv.{leaf}"]
            order = (heads, 3) if inverse else (3, heads)
            parts = rows.reshape(*order, width // heads, *rows.shape[1:])
            ordered[f"{name}.qkv.{leaf}"] = parts.swapaxes(0, 1).reshape(rows.shape)
    return ordered


def adm_config(state: Flat, *, num_heads: int, head_channels: int) -> UNetConfig | NoisyClassifierConfig:
    """The shape of a network of guided-diffusion, from names and shapes of its arrays."""
    common = encoder_shape(state, attention=ATTENTION_END)
    if "out.2.positional_embedding" in state:
        side = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
        logits = state["out.2.c_proj.weight"].shape[0]
        return NoisyClassifierConfig(num_classes=logits, head_channels=head_channels or 64, pool_side=side, **common)
    rows = state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0
    learns = state["out.2.weight"].shape[0] == 2 * common["image_channels"]
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
    stem, length = state["input_blocks.0.0.weight"], _blocks_a_level(state, len(widths) + 1)
    channels = state["time_embed.0.weight"].shape[1]
    first = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    return {
        "channels": channels,
        "channel_mult": tuple(_multiple(width, channels) for width in widths[::length]),
        "num_res_blocks": length - 1,
        "attention_downsamples": tuple(sorted({2 ** (block // length) for block in attended})),
        "film": first == 2 * widths[0],
        "resample": "conv" if any(name.endswith(".op.weight") for name in state) else "block",
        "image_channels": stem.shape[1],
    }


def _multiple(width: int, channels: int) -> int | float:
    """A level's width over the base width; a whole number stays one."""
    return width // channels if width % channels == 0 else width / channels


def _blocks_a_level(state: Mapping[str, np.ndarray], count: int) -> int:
    """Blocks of a level, the resampling one at its end included.

    On the way down nothing tells a resampling block from others; on the way up it is a second block (or a convolution)
    in the sequence that ends a level. A classifier has no way up: there a level ends where a width or attention
    changes.

    Args:
        state: arrays by name.
        count: blocks on the way down, with one more for the last level, which has no resampling block.
    """
    ends = {int(name.split(".")[1]) for name in state if _ENDS_A_LEVEL.fullmatch(name)}
    decoder = {name.split(".")[1] for name in state if name.startswith("output_blocks.")}
    if decoder:
        return min(ends) + 1 if ends else len(decoder)
    return _divided_levels(state, count)


# In a sequence of the way up: what follows the first block and is no attention.
_ENDS_A_LEVEL = re.compile(r"output_blocks\.\d+\.[12]\.(in_layers\.0|conv)\.weight")


def _divided_levels(state: Mapping[str, np.ndarray], count: int) -> int:
    """The smallest number that divides the way down into levels of one width, with no attention at their ends."""
    widths = _block_widths(state)
    attended = {int(name.split(".")[1]) - 1 for name in state if _ATTENDS_DOWN.fullmatch(name)}
    for length in range(2, count + 1):
        levels = [widths[start : start + length] for start in range(0, count, length)]
        ends = {start + length - 1 for start in range(0, count, length)}
        if count % length == 0 and all(len(set(level)) == 1 for level in levels) and not ends & attended:
            return length
    raise ValueError(f"{len(widths)} input blocks do not divide into levels")


_ATTENDS_DOWN = re.compile(r"input_blocks\.\d+\.1\.qkv\.weight")


def _block_widths(state: Mapping[str, np.ndarray]) -> list[int]:
    """Output channels of each input block after the stem."""
    widths: list[int] = []
    while True:
        block = f"input_blocks.{len(widths) + 1}.0"
        name = next((n for n in (f"{block}.out_layers.3.weight", f"{block}.op.weight") if n in state), None)
        if name is None:
            return widths
        widths.append(state[name].shape[0])
