"""Guided-diffusion in PyTorch, after the papers: training for so many seconds, and drawing. No JAX.

Sources: Ho et al. 2020 (the simple loss), Nichol and Dhariwal 2021 (the cosine schedule, the moving average), Dhariwal
and Nichol 2021 (the network, its prediction of x_0), Song et al. 2021, equations 12 and 16 (DDIM,
and DDPM as its noisy end).
"""

import copy
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.duel.contestants import NETWORK_CALLS, Theirs
from benchmarks.shapes import BETA_END, BETA_START, NOISE_STEPS
from benchmarks.torch_adm import UNet

# Share of the signal that the last step of the cosine schedule keeps at least (Nichol and Dhariwal 2021).
_MAX_BETA = 0.999
_DRAWN_AT_ONCE = 50


def alpha_bars(schedule: str) -> Tensor:
    """Product of (1 - beta) up to each step, float64."""
    if schedule == "linear":
        return torch.cumprod(1 - torch.linspace(BETA_START, BETA_END, NOISE_STEPS, dtype=torch.float64), dim=0)

    def level(share: Tensor) -> Tensor:
        return torch.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = torch.arange(NOISE_STEPS, dtype=torch.float64)
    betas = (1 - level((steps + 1) / NOISE_STEPS) / level(steps / NOISE_STEPS)).clamp(max=_MAX_BETA)
    return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes:
        network: with the averaged parameters.
        steps: of the optimiser.
        cpu_seconds: that the process used.
    """

    network: UNet
    steps: int
    cpu_seconds: float


def train(images: np.ndarray, labels: np.ndarray, setting: Theirs, *, seconds: float, seed: int) -> Trained:
    """Train for so many seconds, flips included, and average the parameters.

    Args:
        images: uint8, (n, h, w, 3).
        labels: classes, int.
        setting: of the network and of the optimiser.
        seconds: on the clock, from before the network is made.
        seed: of parameters, order and noise.
    """
    torch.manual_seed(seed)
    start, cpu = time.monotonic(), time.process_time()
    network = UNet(setting.shape(int(labels.max()) + 1))
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=setting.learning_rate, weight_decay=0.0)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    classes, levels, steps = torch.from_numpy(labels).long(), alpha_bars(setting.schedule).float(), 0
    while time.monotonic() - start < seconds:
        index = torch.randint(len(pixels), (setting.batch,))
        x_0 = pixels[index].float() / 127.5 - 1
        x_0 = torch.where(torch.rand(setting.batch, 1, 1, 1) < 0.5, x_0.flip(3), x_0)
        t, eps = torch.randint(NOISE_STEPS, (setting.batch,)), torch.randn_like(x_0)
        level = levels[t].reshape(-1, 1, 1, 1)
        predicted = network(level.sqrt() * x_0 + (1 - level).sqrt() * eps, t, classes[index])
        optimizer.zero_grad(set_to_none=True)
        functional.mse_loss(predicted, eps if setting.prediction == "eps" else x_0).backward()
        optimizer.step()
        _average(average, network, setting.ema_decay)
        steps += 1
    return Trained(average, steps, time.process_time() - cpu)


@torch.no_grad()
def _average(average: UNet, network: UNet, decay: float) -> None:
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


@torch.no_grad()
def draw(network: UNet, labels: np.ndarray, setting: Theirs, *, px: int, seed: int, eta: float = 1.0) -> np.ndarray:
    """Draw an image for each label, with clipping; returns uint8, (n, px, px, 3).

    Args:
        network: with its averaged parameters.
        labels: classes, int.
        setting: what it predicts, and its schedule.
        px: side of the images.
        seed: of all noise.
        eta: noise of a step: 1 for DDPM's, 0 for none (DDIM).
    """
    torch.manual_seed(seed)
    levels, drawn = alpha_bars(setting.schedule).float(), []
    # Evenly spaced, from the last step down to the first.
    times = np.round(np.linspace(NOISE_STEPS - 1, 0, NETWORK_CALLS)).astype(int)
    for part in np.array_split(labels, math.ceil(len(labels) / _DRAWN_AT_ONCE)):
        x, classes = torch.randn(len(part), 3, px, px), torch.from_numpy(part).long()
        for place, t in enumerate(times):
            level = levels[t]
            after = levels[times[place + 1]] if place + 1 < len(times) else torch.tensor(1.0)
            predicted = network(x, torch.full((len(part),), int(t)), classes)
            if setting.prediction == "eps":
                predicted = (x - (1 - level).sqrt() * predicted) / level.sqrt()
            x_0 = predicted.clamp(-1, 1)
            eps = (x - level.sqrt() * x_0) / (1 - level).sqrt()
            sigma = eta * ((1 - after) / (1 - level) * (1 - level / after)).sqrt()
            x = after.sqrt() * x_0 + (1 - after - sigma**2).sqrt() * eps + sigma * torch.randn_like(x)
        drawn.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(drawn)
