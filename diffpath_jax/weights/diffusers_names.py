"""Names of layers in the diffusers library, beside those of the projects whose networks it took over.

Its ``UNet2DModel`` with residual blocks of ADM is guided-diffusion's UNet, its ``AutoencoderKL`` and ``VQModel`` are
the first stages of latent diffusion. There queries, keys and values are layers of their own (``to_q``, ``to_k``,
``to_v``).
"""

from collections.abc import Mapping

import numpy as np

from diffpath_jax.weights.safetensors_file import Flat

# Theirs -> guided-diffusion's, inside a residual block and an attention; -> latent diffusion's.
_ADM_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ADM_ATTENTION = {"group_norm": "norm", "to_qkv": "qkv", "to_out.0": "proj_out"}
_LDM_BLOCK = {**{name: name for name in ("norm1", "conv1", "norm2", "conv2")}, "conv_shortcut": "nin_shortcut"}
_LDM_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_ADM_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_LDM_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
# Attention as versions before 0.15 called its layers.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
QUERY, JOINED = ".to_q.", ".to_qkv."


def adm_names(levels: int, num_res_blocks: int, *, attends: Mapping[int, bool] | None = None) -> dict[str, str]:
    """Name of each layer that a ``UNet2DModel`` may have -> guided-diffusion's.

    Args:
        levels: of resolution.
        num_res_blocks: of a level (``layers_per_block``).
        attends: whether a level, the finest first, has attention, which moves the layer after it by a place.
    """
    attends = attends or {}
    names, number = dict(_ADM_ENDS), 1
    for level in range(levels):
        for i in range(num_res_blocks):
            names |= _adm_stage(f"down_blocks.{level}", i, f"input_blocks.{number}")
            number += 1
        if level < levels - 1:
            names |= _resampler(f"down_blocks.{level}.downsamplers.0", f"input_blocks.{number}.0", "op")
            number += 1
    names |= _prefixed(_ADM_BLOCK, "mid_block.resnets.0", "middle_block.0")
    names |= _prefixed(_ADM_ATTENTION, "mid_block.attentions.0", "middle_block.1")
    names |= _prefixed(_ADM_BLOCK, "mid_block.resnets.1", "middle_block.2")
    for step in range(levels):
        level = levels - 1 - step
        for i in range(num_res_blocks + 1):
            place = f"output_blocks.{step * (num_res_blocks + 1) + i}"
            names |= _adm_stage(f"up_blocks.{step}", i, place)
        if level:
            names |= _resampler(f"up_blocks.{step}.upsamplers.0", f"{place}.{1 + attends.get(level, False)}", "conv")
    return names


def _adm_stage(block: str, index: int, place: str) -> dict[str, str]:
    return {
        **_prefixed(_ADM_BLOCK, f"{block}.resnets.{index}", f"{place}.0"),
        **_prefixed(_ADM_ATTENTION, f"{block}.attentions.{index}", f"{place}.1"),
    }


def _resampler(theirs: str, place: str, convolution: str) -> dict[str, str]:
    """A change of resolution, by a residual block or by a convolution."""
    return {f"{theirs}.conv": f"{place}.{convolution}", **_prefixed(_ADM_BLOCK, theirs, place)}


def _prefixed(table: Mapping[str, str], theirs: str, other: str) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{other}.{value}" for name, value in table.items()}


def ldm_names(levels: int, num_res_blocks: int) -> dict[str, str]:
    """Name of each layer that an ``AutoencoderKL`` or ``VQModel`` may have -> latent diffusion's."""
    names = {name: name for name in ("quant_conv", "post_quant_conv", "quantize.embedding")}
    for half, way, change in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        names |= _prefixed(_LDM_ENDS, half, half)
        for i in range(2):
            names |= _prefixed(_LDM_BLOCK, f"{half}.mid_block.resnets.{i}", f"{half}.mid.block_{i + 1}")
        names |= _prefixed(_LDM_ATTENTION, f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1")
        for number in range(levels):
            # The way up is numbered from the coarsest level there, from the finest here.
            level = number if way == "down" else levels - 1 - number
            block, place = f"{half}.{way}_blocks.{number}", f"{half}.{way}.{level}"
            for i in range(num_res_blocks + (way == "up")):
                names |= _prefixed(_LDM_BLOCK, f"{block}.resnets.{i}", f"{place}.block.{i}")
                names |= _prefixed(_LDM_ATTENTION, f"{block}.attentions.{i}", f"{place}.attn.{i}")
            names[f"{block}.{change}rs.0.conv"] = f"{place}.{change}.conv"
    return names


def renamed(state: Mapping[str, np.ndarray], names: Mapping[str, str]) -> Flat:
    """Returns arrays under the other names.

    Raises:
        ValueError: a layer has none.
    """
    found: Flat = {}
    for name, array in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer not in names:
            raise ValueError(f"no place for {name}")
        found[f"{names[layer]}.{leaf}"] = array
    return found


def modern(state: Mapping[str, np.ndarray]) -> Flat:
    """Returns arrays with the names that layers of attention have now."""
    found: Flat = {}
    for name, array in state.items():
        layer, _, leaf = name.rpartition(".")
        owner, _, last = layer.rpartition(".")
        found[f"{owner}.{_OLD[last]}.{leaf}" if "attentions" in owner and last in _OLD else name] = array
    return found


def joined(state: Mapping[str, np.ndarray]) -> Flat:
    """Returns arrays with queries, keys and values as one layer ``to_qkv``: all queries first, then keys, then values.

    Raises:
        KeyError: one of the three is missing.
    """
    left = dict(state)
    for name in [name for name in left if QUERY in name]:
        parts = [left.pop(name.replace(QUERY, f".to_{part}.")) for part in "qkv"]
        left[name.replace(QUERY, JOINED)] = np.concatenate(parts)
    return left


def parted(state: Mapping[str, np.ndarray]) -> Flat:
    """Returns what :func:`joined` joined."""
    found: Flat = {}
    for name, array in state.items():
        parts = zip("qkv", np.split(array, 3), strict=True) if JOINED in name else ()
        found |= {name.replace(JOINED, f".to_{part}."): each for part, each in parts} or {name: array}
    return found
