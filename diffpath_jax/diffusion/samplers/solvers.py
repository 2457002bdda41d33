r"""Few-step solvers of the probability flow ODE: DPM-Solver++(2M), UniPC and Heun.

With alpha = sqrt(abar), sigma = sqrt(1 - abar) and lambda = log(alpha / sigma), a step from level s to level p = s - 1
has h = lambda_p - lambda_s, and if x_0 did not change on the way it would be exactly

    x_p = (sigma_p / sigma_s) x_s - alpha_p (e^-h - 1) x_0                                              (1)

The solvers differ in how they let x_0 change. All are linear in what they have seen, with coefficients that depend on
the schedule alone: these are worked out once, in float64. The last step leads to sigma = 0, where h is infinite and
every solver takes (1), which is x_0 itself.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from diffpath_jax.diffusion.samplers import spacing
from diffpath_jax.diffusion.samplers.kinds import SamplerKind
from diffpath_jax.diffusion.samplers.loop import Sampler, SamplerState, StepInput, single_call_sampler
from diffpath_jax.diffusion.schedule import NoiseSchedule, Table, at
from diffpath_jax.shapes import Images


@dataclass(frozen=True, eq=False)
class _Steps:
    """Coefficients of equation 1 for the step down from each level.

    Attributes:
        h: step in lambda; infinite for level 0.
        keep: of x.
        pull: of x_0.
        reach: h of this step over h of the step before; 0 where there is no step before, or h is infinite.
    """

    h: Table
    keep: Table
    pull: Table
    reach: Table


def _steps(schedule: NoiseSchedule) -> _Steps:
    alpha, sigma = np.sqrt(schedule.alpha_bar), np.sqrt(1 - schedule.alpha_bar)
    alpha_p, sigma_p = np.sqrt(schedule.alpha_bar_prev), np.sqrt(1 - schedule.alpha_bar_prev)
    with np.errstate(divide="ignore"):
        h = np.log(alpha_p / sigma_p) - np.log(alpha / sigma)
    reach = np.append(h[:-1] / h[1:], 0.0)
    reach[0] = 0.0
    return _Steps(h, sigma_p / sigma, -alpha_p * np.expm1(-h), reach)


def dpmpp_2m(schedule: NoiseSchedule) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2): x_0 on a line through its last two values.

    Of second order, with one call of the denoiser a step.
    """
    steps = _steps(schedule)

    def step(inputs: StepInput, state: SamplerState) -> tuple[Images, SamplerState]:
        (last,) = state
        return _onwards(steps, inputs, inputs.x, last), (inputs.x_0,)

    return single_call_sampler(schedule, lambda x: (jnp.zeros_like(x),), step)


def _onwards(steps: _Steps, inputs: StepInput, x: Images, last: Images) -> Images:
    """The step of DPM-Solver++(2M) from ``x``; ``last`` is the estimate of x_0 one level above."""
    ndim = x.ndim
    x_0 = inputs.x_0 + at(steps.reach / 2, inputs.t, ndim) * (inputs.x_0 - last)
    return at(steps.keep, inputs.t, ndim) * x + at(steps.pull, inputs.t, ndim) * x_0


def unipc(schedule: NoiseSchedule) -> Sampler:
    """UniPC-2 (Zhao et al. 2023, "UniPC", for x_0 and with B(h) = e^h - 1): each step is corrected on arrival.

    The predictor is the step of DPM-Solver++(2M). The estimate made where it arrives serves twice: to correct the step
    that led there, which makes it of third order, and to go on. So a step still calls the denoiser once.
    """
    steps = _steps(schedule)
    of_now, of_before = _corrector(steps)

    def step(inputs: StepInput, state: SamplerState) -> tuple[Images, SamplerState]:
        x_last, last, before = state
        t, ndim = inputs.t, inputs.x.ndim
        # The step that led here was taken from the level above.
        above = jnp.minimum(t + 1, schedule.num_steps - 1)
        x_0 = last + at(of_now, t, ndim) * (inputs.x_0 - last) + at(of_before, t, ndim) * (before - last)
        corrected = at(steps.keep, above, ndim) * x_last + at(steps.pull, above, ndim) * x_0
        x = jnp.where(inputs.call > 0, corrected, inputs.x)
        return _onwards(steps, inputs, x, last), (x, inputs.x_0, last)

    return single_call_sampler(schedule, lambda x: (x, jnp.zeros_like(x), jnp.zeros_like(x)), step)


def _corrector(steps: _Steps) -> tuple[Table, Table]:
    """Weights of the estimate on arrival at each level and of the one two levels above, beside the one between them.

    With r = -h_before / h and phi_1 = (e^-h - 1) / -h - 1, phi_2 = phi_1 / -h - 1/2, the weights rho solve

        rho_before + rho_now = phi_1 / (e^-h - 1),  r rho_before + rho_now = 2 phi_2 / (e^-h - 1)

    and rho_before applies to a difference quotient, (x_0 before - x_0 between) / r. The first step has nothing before
    it and takes 1/2. For small steps these are the weights 5/12 and -1/12 of Adams and Moulton.
    """
    h, reach = steps.h[1:], steps.reach[1:]  # of the step that arrives at level 0, 1, ...; reach = -1 / r
    decay = np.expm1(-h)
    phi_1 = decay / -h - 1
    phi_2 = phi_1 / -h - 0.5
    rho_before = (phi_1 - 2 * phi_2) / decay * reach / (1 + reach)
    rho_now = np.where(reach > 0, phi_1 / decay - rho_before, 0.5)
    # Nothing arrives at the highest level.
    return np.append(rho_now, 0.0), np.append(-reach * rho_before, 0.0)


def heun(schedule: NoiseSchedule) -> Sampler:
    """Heun's method on x / alpha over sigma / alpha (Karras et al. 2022, "EDM", algorithm 1).

    From each level but the last a step down (equation 1, which is DDIM's) is taken, its slope is measured again where
    it arrives, and the step is repeated with the mean of both slopes: 2 N - 1 calls for N steps. Of second order.

    With y = x / alpha, s = sigma / alpha, slope (y - x_0) / s, and Euler's step from level d to y_p at level p,

        y = y_d + (s_p - s_d) / 2 ((y_d - x_0d) / s_d + (y_p - x_0p) / s_p) = y_d / 2 + (1/2 + half) y_p - half x_0p

    as (s_p - s_d) (y_d - x_0d) / s_d = y_p - y_d, with half = (s_p - s_d) / (2 s_p). Times alpha_p, these are the
    weights of x_d, x_p and x_0p in the tables below.
    """
    steps, num_steps = _steps(schedule), schedule.num_steps
    alpha = np.sqrt(schedule.alpha_bar)
    noise = np.sqrt(1 - schedule.alpha_bar) / alpha  # sigma of the paper
    down, there = np.arange(num_steps - 1, 0, -1), np.arange(num_steps - 2, -1, -1)
    half = (noise[there] - noise[down]) / (2 * noise[there])

    def in_turns(first: np.ndarray, second: np.ndarray, last: float) -> np.ndarray:
        return np.append(np.stack([first, second], axis=1).ravel(), last)

    # Of the x before, of x and of x_0, at each call: a step down, or its repetition from where it arrived.
    of_before = in_turns(0 * half, alpha[there] / alpha[down] / 2, 0.0)
    of_x = in_turns(steps.keep[down], 0.5 + half, 0.0)
    of_x_0 = in_turns(steps.pull[down], -alpha[there] * half, 1.0)

    def step(inputs: StepInput, state: SamplerState) -> tuple[Images, SamplerState]:
        (before,) = state
        a, b, c = (jnp.asarray(table, jnp.float32)[inputs.call] for table in (of_before, of_x, of_x_0))
        return a * before + b * inputs.x + c * inputs.x_0, (inputs.x,)

    step_indices = np.append(np.stack([down, there], axis=1).ravel(), 0)
    return Sampler(schedule, step_indices, lambda x: (jnp.zeros_like(x),), step)


# Their spacing is the one nearest to the exact flow of a Gaussian.
KINDS = (
    SamplerKind(
        "heun",
        summary="Heun's method, as in EDM, with two network calls a step",
        reference="Karras et al. 2022, Elucidating the design space of diffusion-based generative models",
        order=2,
        make=lambda schedule, settings: heun(schedule),
        spacing=spacing.LOG_SNR,
    ),
    SamplerKind(
        "dpmpp",
        summary="DPM-Solver++(2M)",
        reference="Lu et al. 2022, DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models",
        order=2,
        make=lambda schedule, settings: dpmpp_2m(schedule),
        spacing=spacing.LOG_SNR,
    ),
    SamplerKind(
        "unipc",
        summary="UniPC-2",
        reference="Zhao et al. 2023, UniPC: a unified predictor-corrector framework for fast sampling",
        order=3,
        make=lambda schedule, settings: unipc(schedule),
        spacing=spacing.LOG_SNR,
    ),
)
