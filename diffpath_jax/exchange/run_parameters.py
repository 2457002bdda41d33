"""The parameters of a run as one safetensors file of this project."""

import dataclasses
from pathlib import Path
from typing import Any

from diffpath_jax.config.network import network_section
from diffpath_jax.runs import run as runs
from diffpath_jax.weights.safetensors_file import flatten_network, write_parameters


def write_run(run: runs.Run, trained: runs.Weights, path: Path) -> int:
    """Write parameters, and what they are of, so that ``diffpath sample --weights`` asks for nothing else.

    Returns:
        The number of arrays.
    """
    flat = flatten_network(trained.params, trained.model_state)
    write_parameters(path, flat, about(run, trained))
    return len(flat)


def about(run: runs.Run, trained: runs.Weights) -> dict[str, Any]:
    """Returns what a file of a run's parameters says of them (JSON)."""
    network = run.config.network_for(len(run.classes))
    return {
        "network": {**network_section(run.config.network), **dataclasses.asdict(network)},
        "classes": list(run.classes),
        "image_px": list(run.image_px),
        "mpp": run.mpp,
        "images": list(run.images),
        **({"features": run.features} if run.features else {}),
        **({"columns": [column.as_json() for column in run.columns]} if run.columns else {}),
        **({"latents": run.latents.as_json()} if run.latents else {}),
        "step": trained.step,
        "is_ema": trained.is_ema,
        "digest": trained.digest,
        "run_digest": run.digest,
        "config": run.config.as_shared_json(),
    }
