"""Makes schedulers.npz: what diffusers' schedulers make of a fixed start, fixed noise and a model that is a formula.

In a Python of its own: ``pip install torch diffusers``, then in ``tests/``: ``python -m golden.make_schedulers``.
The stored file is from diffusers 0.42.1 and torch 2.13.

Per case there are ``NAME/timesteps``, the original timesteps (0 to 999) of the model's evaluations, highest first, and
``NAME/x``, the final sample, (2, 4, 4, 3). The schedule has 1000 betas on a line from 1e-4 to 2e-2. All starts are
``weights.normal("x_T", ...)`` at the level of the first timestep; noise of the step from t is
``weights.normal(f"noise {t}", ...)``. :func:`output` is the model. In double precision throughout, to which diffusers
has to be patched: its tables are in single, and its DPM-Solver casts the sample to single at each step.

What a comparison has to know:

- The model is no denoiser: where x_0 comes from eps without limit, a few values grow to 400 while most stay near 1. In
  units of the largest, "ddim" and "ddim first level" are only 4e-5 apart, and the solvers 1e-3.
- DDIM takes its steps from t to t - 1000 // N, whatever the next timestep is; here N divides 1000. It rederives eps
  from a limited x_0 only if ``use_clipped_model_output``, which is set here wherever x_0 is limited.
- "ddim first level" ends at alpha_bar of t = 0 (``set_alpha_to_one=False``). Its last timestep is 0 already, so that
  its last step changes nothing.
- DDPM leaves out noise at t = 0, not at the last step; here these are the same.
- Dynamic thresholds are capped at ``sample_max_value``, whose default of 1 makes them plain clipping. No cap here.
- DPM-Solver++ and UniPC divide [0, 999] into N steps and leave out the lower end: the model is last asked near
  t = 1000 / N, and the step from there to sigma = 0, of first order, is its estimate of x_0. Halves are rounded to
  even (499.5 is 500).
- UniPC starts at order 1, as does its corrector, and ends at orders 2 and 1. A corrector has the order of the
  predictor that led there. x_0 is estimated, and limited, at the predicted sample and not again at the corrected one.
  A predictor of order 2 and a corrector of order 1 have weight 1/2 in place of the solution of the linear system.
- Heun's is on x / sqrt(alpha_bar), with two evaluations for each step but the last, which is Euler's to sigma = 0. Its
  own grid has fractions; it is given the rounded one.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_heun_discrete,
    scheduling_unipc_multistep,
)
from golden import weights

DOUBLE = {
    "torch": SimpleNamespace(**{**vars(torch), "float32": torch.float64}),
    "np": SimpleNamespace(**{**vars(np), "float32": np.float64}),
}
for module in (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_heun_discrete,
    scheduling_unipc_multistep,
):
    vars(module).update(DOUBLE)
torch.set_default_dtype(torch.float64)

BETAS = np.linspace(1e-4, 2e-2, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)
SHAPE = (2, 4, 4, 3)
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1e9}

Arrays = dict[str, np.ndarray]


def channels_first(name: str) -> torch.Tensor:
    return torch.from_numpy(weights.normal(name, SHAPE)).double().movedim(-1, 1)


def output(x: torch.Tensor, t: int) -> torch.Tensor:
    """The model: eps, or v or x_0 where a case says so."""
    return (0.5 + 0.5 * t / 1000) * torch.tanh(x) + 0.1 * torch.sin(3 * x)


def output_and_fraction(x: torch.Tensor, t: int) -> torch.Tensor:
    """The model that learnt the variance: its logarithm goes from the lower bound at -1 to the upper one at 1."""
    return torch.cat([output(x, t), torch.cos(2 * x)], dim=1)


def drawn(t: int, shape: torch.Size, **kwargs: Any) -> torch.Tensor:
    """In place of diffusers' ``randn_tensor``."""
    noise = channels_first(f"noise {t}")
    assert noise.shape == shape
    return noise


def sampled(scheduler: Any, *, model: Any = output, scale: float = 1.0, **options: Any) -> Arrays:
    """All steps of a scheduler that has its timesteps; ``options`` are those of a step."""
    np.testing.assert_allclose(scheduler.alphas_cumprod, ALPHA_BAR, rtol=1e-13)
    timesteps = scheduler.timesteps.numpy().astype(int)
    assert np.array_equal(timesteps, scheduler.timesteps)
    if hasattr(scheduler, "sigmas"):
        sigmas = np.append(np.sqrt((1 - ALPHA_BAR) / ALPHA_BAR)[timesteps], 0)
        np.testing.assert_allclose(scheduler.sigmas, sigmas, rtol=1e-11)
    x = scale * channels_first("x_T")
    for t in timesteps.tolist():
        scheduling_ddim.randn_tensor = scheduling_ddpm.randn_tensor = partial(drawn, t)
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x, **options).prev_sample
    assert x.dtype == torch.float64 and bool(x.isfinite().all())
    return {"timesteps": timesteps, "x": x.movedim(1, -1).numpy()}


def ddim(*, eta: float = 0.0, rederive: bool = False, **options: Any) -> Arrays:
    scheduler = scheduling_ddim.DDIMScheduler(trained_betas=BETAS, **{"clip_sample": False, **options})
    scheduler.set_timesteps(10)
    return sampled(scheduler, eta=eta, use_clipped_model_output=rederive)


def ddpm(variance_type: str, *, clip_sample: bool = False, model: Any = output) -> Arrays:
    options = {"variance_type": variance_type, "clip_sample": clip_sample}
    scheduler = scheduling_ddpm.DDPMScheduler(trained_betas=BETAS, **options)
    scheduler.set_timesteps(20)
    return sampled(scheduler, model=model)


def dpmpp(steps: int, **options: Any) -> Arrays:
    scheduler = scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler(
        trained_betas=BETAS,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        **options,
    )
    scheduler.set_timesteps(steps)
    return sampled(scheduler)


def unipc(steps: int, *, order: int = 2, **options: Any) -> Arrays:
    scheduler = scheduling_unipc_multistep.UniPCMultistepScheduler(
        trained_betas=BETAS,
        solver_order=order,
        solver_type="bh2",
        predict_x0=True,
        lower_order_final=True,
        final_sigmas_type="zero",
        **options,
    )
    scheduler.set_timesteps(steps)
    return sampled(scheduler)


def heun(steps: int, **options: Any) -> Arrays:
    scheduler = scheduling_heun_discrete.HeunDiscreteScheduler(trained_betas=BETAS, **options)
    timesteps = np.linspace(0, 999, steps).round()[::-1].astype(int)
    scheduler.set_timesteps(timesteps=timesteps.tolist())
    return sampled(scheduler, scale=float(1 / np.sqrt(ALPHA_BAR[timesteps[0]])))


def cases() -> dict[str, Arrays]:
    """Not clipped, from eps, and on DDIM's leading grid unless the name says otherwise."""
    return {
        "ddim": ddim(),
        "ddim clipped": ddim(clip_sample=True, rederive=True),
        "ddim thresholded": ddim(**THRESHOLD, rederive=True),
        "ddim first level": ddim(set_alpha_to_one=False),
        "ddim v": ddim(prediction_type="v_prediction"),
        "ddim x_0": ddim(prediction_type="sample"),
        "ddim eta 1": ddim(eta=1.0),
        "ddim eta 0.5": ddim(eta=0.5),
        "ddim trailing": ddim(timestep_spacing="trailing"),
        "ddpm small": ddpm("fixed_small"),
        "ddpm small clipped": ddpm("fixed_small", clip_sample=True),
        "ddpm large": ddpm("fixed_large"),
        "ddpm learned": ddpm("learned_range", model=output_and_fraction),
        "dpmpp 10": dpmpp(10),
        "dpmpp 20": dpmpp(20),
        "dpmpp 10 thresholded": dpmpp(10, **THRESHOLD),
        "dpmpp 10 v": dpmpp(10, prediction_type="v_prediction"),
        "unipc 10": unipc(10),
        "unipc 20": unipc(20),
        "unipc 10 thresholded": unipc(10, **THRESHOLD),
        "unipc 10 v": unipc(10, prediction_type="v_prediction"),
        "unipc 20 order 3": unipc(20, order=3),
        "heun 10": heun(10),
        "heun 20": heun(20),
        "heun 10 v": heun(10, prediction_type="v_prediction"),
    }


if __name__ == "__main__":
    made = cases()
    file = Path(__file__).parent / "schedulers.npz"
    flat = {f"{case}/{key}": array for case, arrays in made.items() for key, array in arrays.items()}
    np.savez_compressed(file, **flat)
    print(file.name, file.stat().st_size)
    for case, arrays in made.items():
        print(case, arrays["timesteps"].tolist(), np.abs(arrays["x"]).max())
