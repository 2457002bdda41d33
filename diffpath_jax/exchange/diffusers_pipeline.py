"""A trained diffusion model of pixels as a pipeline of the diffusers library: ``UNet2DModel`` with its scheduler."""

from pathlib import Path
from typing import Any

from diffpath_jax.config import noise, sections
from diffpath_jax.data import marking
from diffpath_jax.exchange.run_parameters import about
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import new_folder, write_json, write_text
from diffpath_jax.networks.unet_adm import UNetConfig
from diffpath_jax.runs import run as runs
from diffpath_jax.shapes import Tree
from diffpath_jax.weights import diffusers_names as names
from diffpath_jax.weights.from_adm import legacy_order
from diffpath_jax.weights.from_diffusers import CONFIG, COSINE, PREDICTIONS
from diffpath_jax.weights.safetensors_file import Flat, write_parameters
from diffpath_jax.weights.to_adm import to_adm, why_not_adm

ARRAYS = "diffusion_pytorch_model.safetensors"
_README = """# {name}

A diffusion model of histopathology patches of {px} px, {mpp:.4g} um/px, trained by diffpath. Classes, by their number:
{classes}; {null} stands for "any class".

{notice}

```python
import torch
from diffusers import DDPMScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(FOLDER, subfolder="unet")
scheduler = DDPMScheduler.from_pretrained(FOLDER, subfolder="scheduler")
x = torch.randn(4, 3, {px}, {px})
labels = torch.zeros(4, dtype=torch.long)
for t in scheduler.timesteps:
    with torch.no_grad():
        output = unet(x, t, class_labels=labels).sample
    x = scheduler.step(output, t, x).prev_sample
```
"""


def write_pipeline(run: runs.Run, trained: runs.Weights, folder: Path) -> int:
    """Write ``unet/``, ``scheduler/``, ``model_index.json`` and a card into a new folder.

    Returns:
        The number of arrays.

    Raises:
        DiffpathError: the library's network cannot be this one; why is said.
    """
    config = run.config.network_for(len(run.classes))
    if not isinstance(run, runs.DiffusionModelRun):
        raise _inexpressible(run, "it is no diffusion model")
    if run.latents:
        raise _inexpressible(run, "it works in latents, and the library's pipeline of such networks in pixels")
    if (why := why_not_adm(config)) or not isinstance(config, UNetConfig):
        raise _inexpressible(run, why or "its network classifies")
    try:
        unet, state = unet_config(config, image_px=run.image_px), unet_state(trained.params, config)
    except ValueError as error:
        raise _inexpressible(run, str(error)) from error
    with new_folder(folder) as temporary:
        write_json(temporary / "unet" / CONFIG, unet)
        write_parameters(temporary / "unet" / ARRAYS, state, about(run, trained))
        write_json(temporary / "scheduler" / "scheduler_config.json", scheduler_config(run.config, config))
        write_json(temporary / "model_index.json", _INDEX)
        write_text(temporary / "README.md", _readme(run))
    return len(state)


_INDEX = {
    "_class_name": "DDPMPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
}


def unet_config(config: UNetConfig, *, image_px: tuple[int, int]) -> dict[str, Any]:
    """Returns the library's description of a network.

    Raises:
        ValueError: heads that differ in width, or a first level that is not the base width.
    """
    widths = {w for level, w in enumerate(config.widths) if 2**level in config.attention_downsamples}
    widths.add(config.widths[-1])
    heads = {width // part.heads(width) for width in widths for part in (config, config.on_the_way_up)}
    if len(heads) > 1:
        raise ValueError(f"its heads have {sorted(heads)} channels, and the library's all have as many")
    if config.widths[0] != config.channels:
        raise ValueError(f"its first level has {config.widths[0]} channels and not the base width")
    return {
        "_class_name": "UNet2DModel",
        "sample_size": list(image_px),
        "in_channels": config.image_channels,
        "out_channels": config.image_channels * (2 if config.learn_sigma else 1),
        "block_out_channels": config.widths,
        "layers_per_block": config.num_res_blocks,
        **_blocks(config),
        "attention_head_dim": heads.pop(),
        "norm_num_groups": config.groups,
        "attn_norm_num_groups": config.groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "dropout": config.dropout,
        "resnet_time_scale_shift": "scale_shift" if config.film else "default",
        "time_embedding_type": "positional",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "num_class_embeds": config.num_classes or None,
    }


def _blocks(config: UNetConfig) -> dict[str, Any]:
    """Returns the kinds of blocks: with attention or without; what changes the resolution after them."""
    kind = "resnet" if config.resample == "block" else "conv"
    last = len(config.widths) - 1

    def name(level: int, way: str, *, resamples: bool) -> str:
        if 2**level in config.attention_downsamples:
            return f"Attn{way}Block2D"
        # Blocks without attention have the way of resampling in their name.
        change = {"Down": "Downsample", "Up": "Upsample"}[way]
        return f"Resnet{change}Block2D" if resamples and kind == "resnet" else f"{way}Block2D"

    return {
        "down_block_types": [name(level, "Down", resamples=level < last) for level in range(last + 1)],
        "up_block_types": [name(level, "Up", resamples=level > 0) for level in reversed(range(last + 1))],
        "downsample_type": kind,
        "upsample_type": kind,
    }


def unet_state(params: Tree, config: UNetConfig) -> Flat:
    """Returns parameters by the library's names."""
    levels = len(config.widths)
    attends = {level: 2**level in config.attention_downsamples for level in range(levels)}
    table = {adm: theirs for theirs, adm in names.adm_names(levels, config.num_res_blocks, attends=attends).items()}
    state = legacy_order(to_adm(params), config, inverse=True)
    state = {name: array[..., 0] if array.ndim == 3 else array for name, array in state.items()}
    return names.parted(names.renamed(state, table))


def scheduler_config(run: sections.DiffusionRun, config: UNetConfig) -> dict[str, Any]:
    """Returns the library's description of noise and prediction."""
    schedule, own = run.noise, {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": COSINE}
    words = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    # Shifted schedules have no name there.
    betas = {} if schedule.snr_factor == 1 else {"trained_betas": noise.schedule(schedule).betas.tolist()}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.num_steps,
        "beta_schedule": own[schedule.schedule],
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        **betas,
        "prediction_type": words[run.diffusion.prediction],
        "variance_type": "learned_range" if config.learn_sigma else "fixed_small",
        "clip_sample": True,
    }


def _readme(run: runs.Run) -> str:
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(run.classes))
    return _README.format(
        name=run.workdir.name,
        px=run.image_px[0],
        mpp=run.mpp,
        classes=listed,
        null=len(run.classes),
        notice=f"What it draws is generated ({marking.SOURCE_TYPE}) and shows no tissue of a patient.",
    )


def _inexpressible(run: runs.Run, why: str) -> DiffpathError:
    fix = "export it as safetensors, or as a state dict"
    return DiffpathError("network", where=run.workdir, why=f"no UNet2DModel can be it: {why}", fix=fix)
