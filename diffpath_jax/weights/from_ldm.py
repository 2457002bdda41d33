"""The UNet of a latent-diffusion checkpoint (Rombach et al. 2022), with its class embedding and its moving average.

The first stage in the same file is read by :mod:`diffpath_jax.weights.from_vqgan`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffpath_jax.networks.kinds import kind_of, make_network
from diffpath_jax.networks.unet_ldm import LatentUNetConfig
from diffpath_jax.weights import from_adm
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import Converted, expecting, fill, first_words, own_names

DEFAULT_HEADS = 1
UNET, AVERAGE, CLASSES = "model.diffusion_model.", "model_ema.diffusion_model", "cond_stage_model.embedding.weight"
# The name of the class embedding beside those of the UNet.
LABELS = "label_emb.weight"
# Ours -> theirs, inside a spatial transformer; a transformer block of theirs is numbered.
TRANSFORMER = {"norm": "norm", "into": "proj_in", "out": "proj_out"}
BLOCK = {
    **{f"norms.{i}": f"norm{i + 1}" for i in range(3)},
    **{
        f"{ours}.{part}": f"{theirs}.{name}"
        for ours, theirs in (("to_self", "attn1"), ("to_context", "attn2"))
        for part, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0"))
    },
    "gate": "ff.net.0.proj",
    "feed": "ff.net.2",
}


def transformer_table(depth: int) -> dict[str, str]:
    """Our layers of a spatial transformer -> theirs."""
    blocks = {
        f"blocks.{i}.{ours}": f"transformer_blocks.{i}.{name}" for i in range(depth) for ours, name in BLOCK.items()
    }
    return TRANSFORMER | blocks


def from_ldm(
    state: Flat, *, num_heads: int = 0, head_channels: int = 0, raw_parameters: bool = False, where: str
) -> Converted:
    """A class-conditional UNet of latent diffusion.

    Args:
        state: a whole checkpoint's arrays by their names.
        num_heads: heads of each attention, which leave no trace in the arrays; 0 for the 1 that was published with
            VQ-f4, where ``head_channels`` is 0 too.
        head_channels: channels of a head, above 0 instead of ``num_heads``.
        raw_parameters: the weights themselves where their moving average is there too.
        where: the file, for errors.

    Raises:
        DiffpathError: names or shapes are not those of latent diffusion (exit code 5).
    """
    fix = "give a checkpoint of latent diffusion with conditioning by cross-attention"
    with expecting("a checkpoint with a class-conditional UNet of latent diffusion", state, where=where, fix=fix):
        places = own_names(state, UNET, average=AVERAGE, raw_parameters=raw_parameters) | {LABELS: CLASSES}
        found = {name: state[place] for name, place in places.items()}
        config = ldm_config(found, num_heads=num_heads or DEFAULT_HEADS, head_channels=head_channels)
        from_adm.check_heads(config, from_adm.attended_widths(found, ".attn1.to_q.weight"), where=where)
        network = make_network(config, dtype=jnp.float32)
        like, _ = network.shapes
        names = from_adm.adm_names(like, attention=transformer_table(config.transformer_depth))
        params = fill(like, names, found)
    used = set(places.values())
    unused = first_words(name for name in state if name not in used)
    details = {"prediction": "eps", **({"noise": noise_of(state["betas"])} if "betas" in state else {})}
    notes = from_adm.head_notes(config, num_heads, head_channels)
    return Converted(kind_of(config).name, config, params, details=details, unused=unused, notes=notes)


def noise_of(betas: np.ndarray) -> dict[str, Any]:
    """Section ``noise`` of a config for the betas that a checkpoint keeps; its schedule is the root-linear one.

    Raises:
        ValueError: the betas are another schedule's.
    """
    first, last = float(betas[0]), float(betas[-1])
    if not np.allclose(np.linspace(first**0.5, last**0.5, len(betas)) ** 2, betas, rtol=1e-4):
        raise ValueError("its betas are not linear in their root")
    ends = {"beta_start": float(f"{first:.4g}"), "beta_end": float(f"{last:.4g}")}
    return {"schedule": "scaled_linear", "num_steps": len(betas), **ends}


def ldm_config(state: Mapping[str, np.ndarray], *, num_heads: int, head_channels: int) -> LatentUNetConfig:
    """The shape of a UNet of latent diffusion, from names and shapes of its arrays."""
    shape: dict[str, Any] = from_adm.encoder_shape(state, attention=".norm.weight")
    if not (keys := sorted(name for name in state if name.endswith("attn2.to_k.weight"))):
        raise ValueError("it has no cross-attention")
    blocks = keys[0].partition("transformer_blocks.")[0] + "transformer_blocks."
    return LatentUNetConfig(
        num_classes=state[LABELS].shape[0],
        context_width=state[keys[0]].shape[1],
        transformer_depth=len({name[len(blocks) :].split(".")[0] for name in state if name.startswith(blocks)}),
        num_heads=num_heads,
        head_channels=head_channels,
        learn_sigma=state["out.2.weight"].shape[0] == 2 * state["input_blocks.0.0.weight"].shape[1],
        **shape,
    )
