"""``VQModel``, ``AutoencoderKL`` and ``UNet2DModel`` of the diffusers library, as its ``save_pretrained`` leaves them.

The file of arrays says what the layers are; ``config.json`` beside it, which the library always writes, says what
leaves no trace in them: groups of norms, widths of heads, factors. What our networks do not have is refused
by its name.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import read_json
from diffpath_jax.weights import diffusers_names as names
from diffpath_jax.weights.from_adm import from_adm
from diffpath_jax.weights.from_vqgan import from_vqgan
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import Converted, expecting

CONFIG = "config.json"
SCHEDULER = Path("scheduler") / "scheduler_config.json"
_FIX = "give the .safetensors file of a folder that save_pretrained wrote, with its config.json"
# What a network must be like where ours has no choice; a key that is not there has this value.
_AUTOENCODER = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "norm_type": "group",
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "lookup_from_codebook": False,
}
_UNET = {
    "act_fn": "silu",
    "time_embedding_type": "positional",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "center_input_sample": False,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "norm_eps": 1e-5,
    "add_attention": True,
    "class_embed_type": None,
}
# Prediction and schedule by the library's words.
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
COSINE = "squaredcos_cap_v2"


def from_diffusers(state: Flat, *, where: str) -> Converted:
    """A network of diffusers.

    Args:
        state: arrays by their names.
        where: the file; its folder holds ``config.json``.

    Raises:
        DiffpathError: no ``config.json``, a network of another kind or with parts that ours lacks, or arrays that are
            not its own (exit code 5).
    """
    path = Path(where).with_name(CONFIG)
    config = read_json(path, what="network", fix=_FIX)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    readers = {"UNet2DModel": _unet, "AutoencoderKL": _autoencoder, "VQModel": _autoencoder}
    if kind not in readers:
        why = f"it is of a {kind}, and {', '.join(readers)} are read"
        raise DiffpathError("network", where=path, why=why, fix="give one of them")
    with expecting(f"a {kind} of diffusers", state, where=where, fix=_FIX):
        return readers[kind](names.modern(state), config, where)


def _check(config: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuse what our networks do not have.

    Raises:
        DiffpathError: naming the key.
    """
    for key, value in wanted.items():
        if config.get(key, value) != value:
            why = f"{key} is {config[key]!r}, and this project's network has {value!r} alone"
            raise DiffpathError("network", where=Path(where).with_name(CONFIG), why=why, fix="it cannot be converted")


def _autoencoder(state: Flat, config: Mapping[str, Any], where: str) -> Converted:
    _check(config, _AUTOENCODER, where)
    table = names.ldm_names(len(config["block_out_channels"]), config["layers_per_block"])
    found = from_vqgan(names.renamed(state, table), groups=int(config.get("norm_num_groups", 32)), where=where)
    # The codebook's latents are used as they are, whatever stands there.
    scale = {"scale": float(config["scaling_factor"])} if config["_class_name"] == "AutoencoderKL" else {}
    return dataclasses.replace(found, details=scale)


def _unet(state: Flat, config: Mapping[str, Any], where: str) -> Converted:
    groups = int(config.get("norm_num_groups", 32))
    # With FiLM and without these groups the attention in the middle has no norm; otherwise they default to the others'.
    needed = {"attn_norm_num_groups": groups} if config.get("resnet_time_scale_shift") == "scale_shift" else {}
    _check({"attn_norm_num_groups": None, **config} if needed else config, {**_UNET, **needed}, where)
    levels = len(config["block_out_channels"])
    attends = {
        levels - 1 - step: any(name.startswith(f"up_blocks.{step}.attentions.") for name in state)
        for step in range(levels)
    }
    table = names.adm_names(levels, config["layers_per_block"], attends=attends)
    width = config.get("attention_head_dim", 8)
    heads = {"head_channels": width} if width else {"num_heads": 1}
    found = from_adm(
        names.renamed(names.joined(state), table), **heads, attention_order="new", groups=groups, where=where
    )
    details, notes = _noise(Path(where).parent.parent / SCHEDULER)
    return dataclasses.replace(found, details=details, notes=notes)


def _noise(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns noise and prediction of the scheduler beside a network, and what was assumed where there is none."""
    if not path.is_file():
        return {}, ("no scheduler lies beside it: state noise and prediction where it is used",)
    stored = read_json(path, what="scheduler", fix="copy the pipeline again")
    if stored.get("trained_betas") is not None:
        raise ValueError("trained_betas are a schedule without a name")
    noise: dict[str, Any] = {"num_steps": int(stored["num_train_timesteps"])}
    if stored["beta_schedule"] == COSINE:
        noise["schedule"] = "cosine"
    elif stored["beta_schedule"] in ("linear", "scaled_linear"):
        noise |= {
            "schedule": stored["beta_schedule"],
            "beta_start": stored["beta_start"],
            "beta_end": stored["beta_end"],
        }
    else:
        raise ValueError(f"beta_schedule is {stored['beta_schedule']!r}, which is not known here")
    prediction = stored.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type is {prediction!r}, which is not known here")
    return {"noise": noise, "prediction": PREDICTIONS[prediction]}, ()
