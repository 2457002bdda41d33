"""Diffusers' schedulers in a plain loop around the network of ``torch_adm``: what our samplers are measured against.

DDIM is ours step by step (the same grid, x_0 clipped, eps taken from it). DPM-Solver++(2M) is even in log-SNR too, but
does not clip x_0: diffusers does that only by dynamic thresholds. Never imports JAX.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from benchmarks.shapes import BETA_END, BETA_START, NOISE_STEPS, Setting
from benchmarks.torch_adm import UNet, copy_parameters

_BETAS = {"num_train_timesteps": NOISE_STEPS, "beta_start": BETA_START, "beta_end": BETA_END}
# Our name of a sampler -> diffusers' scheduler, and what its step is told besides.
SCHEDULERS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "ddim": (lambda: DDIMScheduler(**_BETAS), {"use_clipped_model_output": True}),
    "dpmpp": (lambda: DPMSolverMultistepScheduler(**_BETAS, use_lu_lambdas=True), {}),
}


@torch.inference_mode()
def draw(network: UNet, sampler: str, steps: int, x_T: Tensor, labels: Tensor) -> Tensor:
    """Images in [-1, 1], NCHW, from noise."""
    make, options = SCHEDULERS[sampler]
    scheduler, x = make(), x_T
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x)), labels), t, x, **options).prev_sample
    return x


def load(setting: Setting, parameters: Mapping[str, np.ndarray]) -> Callable[[str, int], Tensor]:
    """A function that draws a batch, given a sampler and its steps, by a network with our parameters, on the CPU."""
    torch.manual_seed(0)
    network = UNet(setting.shape)
    copy_parameters(network, parameters)
    labels = torch.arange(setting.batch) % (setting.shape.num_classes - 1)
    size = (setting.batch, 3, setting.px, setting.px)
    return lambda sampler, steps: draw(network, sampler, steps, torch.randn(size), labels)
