"""Makes losses.npz and schedules.npz from guided-diffusion.

In a Python of its own: ``pip install torch guided-diffusion-sdk``, then in ``tests/``:
``python -m golden.make_losses``.

It is run in double precision; results are stored in single, schedules in double.
"""

from types import SimpleNamespace

import numpy as np
import torch
from golden import make_adm, weights
from guided_diffusion.gaussian_diffusion import (
    GaussianDiffusion,
    LossType,
    ModelMeanType,
    ModelVarType,
    get_named_beta_schedule,
)
from guided_diffusion.resample import LossSecondMomentResampler

vars(np)["int"] = int  # the resampler names the alias that numpy 1.24 dropped

# Two images at t = 0, where the bound is the likelihood of 8-bit pixels.
T = torch.tensor([0, 0, 1, 250, 700, 999])
SHORT_T = torch.tensor([0, 0, 1, 12, 35, 49])
# How far the fixed output's eps is from the truth.
ERROR = np.array([0.1, 1.0, 0.5, 1.0, 1.0, 1.0], np.float32).reshape(-1, 1, 1, 1)


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).double().movedim(-1, 1)


def pixels(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """8-bit images in [-1, 1], with many darkest and brightest pixels."""
    levels = weights.integers(name, 400, shape) - 72
    return channels_first(levels.clip(0, 255) / 127.5 - 1)


def gaussian_diffusion(name: str, steps: int) -> GaussianDiffusion:
    """The bound is scaled by steps / 1000 besides, which is nothing for 1000 steps."""
    return GaussianDiffusion(
        betas=get_named_beta_schedule(name, steps),
        model_mean_type=ModelMeanType.EPSILON,
        model_var_type=ModelVarType.LEARNED_RANGE,
        loss_type=LossType.RESCALED_MSE,
    )


def fixed_output(diffusion: GaussianDiffusion, t: torch.Tensor) -> dict[str, np.ndarray]:
    """Losses of an output that depends on nothing."""
    shape = (6, 4, 4, 3)
    x_0 = pixels("pixels", shape)
    eps = weights.normal("eps", shape)
    guess = eps + ERROR * weights.normal("error", shape)
    output = channels_first(np.concatenate([guess, weights.normal("fraction", shape)], axis=-1)).requires_grad_()
    noise = channels_first(eps)
    terms = diffusion.training_losses(lambda x, t: output, x_0, t, noise=noise)
    terms["loss"].mean().backward()
    x_t = diffusion.q_sample(x_0, t, noise)
    bound = diffusion._vb_terms_bpd(lambda x, t: output, x_0, x_t, t, clip_denoised=False)["output"]
    step = diffusion.p_mean_variance(lambda x, t: output, x_t, t, clip_denoised=False)
    mean, variance, log_variance = diffusion.q_posterior_mean_variance(x_0, x_t, t)
    arrays = {
        "mse": terms["mse"],
        "bound": bound,
        "loss": terms["loss"],
        "gradient": output.grad,
        "x_t": x_t,
        "step_mean": step["mean"],
        "step_log_variance": step["log_variance"],
        "posterior_mean": mean,
        "posterior_variance": variance[:, 0, 0, 0],
        "posterior_log_variance": log_variance[:, 0, 0, 0],
    }
    return {name: make_adm.single(array) for name, array in arrays.items()}


def whole_network() -> dict[str, np.ndarray]:
    """Loss and gradients through the UNet."""
    unet = make_adm.film_unet()
    t = torch.tensor([0, 400])
    noise = channels_first(weights.normal("network eps", (2, 16, 16, 3)))
    x_0 = pixels("network pixels", (2, 16, 16, 3))
    diffusion = gaussian_diffusion("linear", 1000)
    loss = diffusion.training_losses(unet, x_0, t, model_kwargs={"y": make_adm.LABELS}, noise=noise)["loss"]
    loss.mean().backward()
    norms = [float(parameter.grad.norm()) for parameter in unet.parameters()]
    return {"network/loss": make_adm.single(loss), "network/norms": np.array(norms)}


def resampler() -> dict[str, np.ndarray]:
    """Weights of 20 timesteps after some batches of eight, before and after every one has its history."""
    sampler = LossSecondMomentResampler(SimpleNamespace(num_timesteps=20))
    t = weights.integers("drawn", 20, (60, 8))
    values = np.exp(weights.normal("losses", (60, 8))) / (1 + t)
    seen = []
    for batch in range(60):
        sampler.update_with_all_losses(list(t[batch]), list(values[batch]))
        w = sampler.weights()
        seen.append(w / w.sum())
    uniform = [bool(np.ptp(p) < 1e-12) for p in seen]
    kept = [uniform.index(False) - 1, uniform.index(False), 59]
    return {"resampler/batches": np.array(kept) + 1, "resampler/p": np.stack([seen[i] for i in kept])}


def schedules() -> dict[str, np.ndarray]:
    cases = [("linear", 1000), ("linear", 50), ("cosine", 1000), ("cosine", 50)]
    return {f"{name}_{steps}": get_named_beta_schedule(name, steps) for name, steps in cases}


if __name__ == "__main__":
    arrays = {f"linear/{name}": array for name, array in fixed_output(gaussian_diffusion("linear", 1000), T).items()}
    short = fixed_output(gaussian_diffusion("cosine", 50), SHORT_T)
    arrays |= {f"cosine/{name}": array for name, array in short.items()}
    make_adm.save("losses.npz", {**arrays, **whole_network(), **resampler()})
    make_adm.save("schedules.npz", schedules())
    for name in ("linear/mse", "linear/bound", "cosine/bound", "network/loss"):
        print(name, ({**arrays, **whole_network()})[name])
    print(resampler())
