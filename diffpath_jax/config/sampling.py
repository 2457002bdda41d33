"""From a sampler's options to its method, its grid of steps and what bounds its estimates."""

from collections.abc import Callable

from diffpath_jax.config.noise import schedule
from diffpath_jax.config.sections import RunConfig, SamplerConfig
from diffpath_jax.diffusion import schedule as diffusion
from diffpath_jax.diffusion.samplers import ddim, ddpm, solvers, spacing, thresholding
from diffpath_jax.diffusion.samplers.loop import Method
from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.io.errors import DiffpathError

# The spacing that belongs to a method; for the few-step solvers what is nearest to the exact flow of a Gaussian.
OWN_SPACING = {
    "ddpm": "even",
    "ddim": "leading",
    "heun": "log_snr",
    "dpmpp": "log_snr",
    "unipc": "log_snr",
    "ddpm_author_code": "even",
    "ddim_author_code": "author_code",
}


def method(config: RunConfig, sampler: SamplerConfig) -> Method:
    """The sampler's method on its grid of the schedule that the run was trained with.

    Raises:
        DiffpathError: more steps than the model was trained with, or a learned variance that it has not.
    """
    assert config.noise is not None
    trained, name = schedule(config.noise), sampler.sampler
    grid = getattr(spacing, OWN_SPACING[name] if sampler.spacing == "auto" else sampler.spacing)
    try:
        kept = grid(trained, sampler.steps)
        respaced = diffusion.respace(trained, kept)
    except ValueError as error:
        why = f"{sampler.steps} steps of the {trained.num_steps} that the model was trained with: {error}"
        raise DiffpathError("--steps", where="the command line", why=why, fix="give fewer") from error
    if name == "ddpm":
        return _ddpm(respaced, sampler, learns=config.network.learn_sigma)
    makers: dict[str, Callable[[], Method]] = {
        "ddim": lambda: ddim.ddim(respaced, eta=sampler.eta),
        "heun": lambda: solvers.heun(respaced),
        "dpmpp": lambda: solvers.dpmpp_2m(respaced),
        "unipc": lambda: solvers.unipc(respaced),
        "ddpm_author_code": lambda: ddpm.ddpm_author_code(respaced),
        "ddim_author_code": lambda: ddim.ddim(respaced, eta=sampler.eta, final_alpha_bar=trained.alpha_bar[0]),
    }
    return makers[name]()


def _ddpm(respaced: NoiseSchedule, sampler: SamplerConfig, *, learns: bool) -> Method:
    variance = {"auto": "learned" if learns else "small"}.get(sampler.variance, sampler.variance)
    if variance != "learned":
        chosen = {"small": respaced.posterior_variance, "large": respaced.betas}[variance]
        return ddpm.ddpm(respaced, variance=chosen)
    if not learns:
        why, fix = "the model was trained without a learned variance", "use small or large"
        raise DiffpathError("--variance learned", where="the command line", why=why, fix=fix)
    return ddpm.ddpm_learned(respaced)


def limit(config: RunConfig, sampler: SamplerConfig) -> thresholding.Limit:
    """What keeps a sampler's estimates within bounds; latents have none."""
    chosen = {"auto": "clip" if config.codec is None else "none"}.get(sampler.limit, sampler.limit)
    if chosen == "dynamic":
        return thresholding.dynamic_threshold(sampler.percentile)
    return {"clip": thresholding.clip, "none": thresholding.unlimited}[chosen]
