"""All samplers by name. ``SAMPLERS.register(kind)`` adds one from outside the package."""

from diffpath_jax.diffusion.samplers import ddim, ddpm, solvers
from diffpath_jax.diffusion.samplers.kinds import SamplerKind
from diffpath_jax.io.registry import Registry

SAMPLERS: Registry[SamplerKind] = Registry("sampler", (*ddpm.KINDS, *ddim.KINDS, *solvers.KINDS))
