"""Our networks at work: what the benchmarks time.

Imports only what needs JAX, Flax and Optax, so that it runs where the data pipeline's packages are missing.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from benchmarks import measure
from benchmarks.shapes import (
    BETA_END,
    BETA_START,
    LABEL_DROPOUT,
    LEARNING_RATE,
    NOISE_STEPS,
    Calls,
    LatentShape,
    Setting,
    Shape,
)
from diffpath_jax.diffusion import conditioning, timesteps
from diffpath_jax.diffusion.samplers import ddim, ddpm, loop, solvers, spacing
from diffpath_jax.diffusion.schedule import NoiseSchedule, Prediction, linear_schedule, respace, to_eps
from diffpath_jax.networks.autoencoder import VQAutoencoder, VQConfig
from diffpath_jax.networks.codecs import CERTAIN, Codec, LatentCodec, PixelCodec
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.networks.pure import PureNetwork, count_parameters, purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.networks.unet_ldm import LatentUNet, LatentUNetConfig
from diffpath_jax.shapes import Batch, Conditions, DenoiserOutput, Images, Labels, PRNGKey, Timesteps, Tree
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.step import Step, TrainState, init_state, make_train_step
from diffpath_jax.training.tasks.diffusion import DiffusionConfig, diffusion_task
from diffpath_jax.training.tasks.task import CODEC, NETWORK, TIMESTEPS, Task

# For the schedule of the learning rate, which is constant, and for the log, which nobody reads.
NUM_STEPS, LOG_EVERY = 1000, 100
# What is timed against PyTorch keeps no moving average, as PyTorch keeps none.
PLAIN_ADAM = OptimConfig(learning_rate=LEARNING_RATE, ema_decay=0.0)
# Spread of random biases and norms; kernels have that of their inputs.
_SPREAD = 0.02


def make_network(shape: Shape | LatentShape, dtype: DTypeLike, *, remat: bool = False) -> PureNetwork:
    """The network of a shape."""
    numbers = asdict(shape)
    if isinstance(shape, LatentShape):
        del numbers["first_stage"], numbers["stored"]
        latent = LatentUNetConfig(**numbers, remat=remat)
        return purify(lambda rngs: LatentUNet(latent, dtype=dtype, rngs=rngs))
    config = UNetConfig(**numbers, remat=remat)
    return purify(lambda rngs: UNet(config, dtype=dtype, rngs=rngs))


def make_codec(shape: Shape | LatentShape, dtype: DTypeLike) -> Codec:
    """The space that the network of a shape works in; the scale of latents makes no difference to speed."""
    if not isinstance(shape, LatentShape):
        return PixelCodec()
    config = VQConfig(**asdict(shape.first_stage))
    network = purify(lambda rngs: VQAutoencoder(config, dtype=dtype, rngs=rngs))
    return LatentCodec(network, CERTAIN, factor=config.factor, channels=config.latent_channels, scale=1.0)


def codec_parameters(codec: Codec, key: PRNGKey) -> Tree:
    """Random parameters of a codec; none of pixels."""
    return random_parameters(codec.network, key) if isinstance(codec, LatentCodec) else {}


def linear_noise() -> NoiseSchedule:
    """The schedule that both sides train with."""
    return linear_schedule(NOISE_STEPS, beta_start=BETA_START, beta_end=BETA_END)


def make_task(
    shape: Shape | LatentShape,
    dtype: DTypeLike,
    *,
    remat: bool = False,
    frozen_params: Tree | None = None,
    schedule: NoiseSchedule | None = None,
    prediction: Prediction = "eps",
) -> Task:
    """Denoising as the project trains it; ``frozen_params`` holds those of a codec that encodes in the step."""
    network, codec = make_network(shape, dtype, remat=remat), make_codec(shape, dtype)
    return diffusion_task(
        network,
        codec,
        schedule or linear_noise(),
        DiffusionConfig(prediction, label_dropout=LABEL_DROPOUT),
        timesteps=timesteps.uniform(NOISE_STEPS),
        nulls=null_label(shape.num_classes - 1),
        frozen_params=frozen_params,
    )


def null_label(num_classes: int) -> conditioning.Nulls:
    """The null class."""
    return {LABEL.name: LABEL.null(num_classes)}


def given_parameters(shape: Shape | LatentShape, dtype: DTypeLike, key: PRNGKey) -> Tree:
    """What the task of a shape needs besides its own parameters: those of an encoder that runs in every step."""
    encodes = isinstance(shape, LatentShape) and not shape.stored
    return {CODEC: codec_parameters(make_codec(shape, dtype), key)} if encodes else {}


def random_parameters(network: PureNetwork, key: PRNGKey) -> Tree:
    """Parameters of which none is zero: what starts at zero shall do work too. Quicker to compile than ``init``."""
    shapes, _ = jax.eval_shape(network.init, key)
    named, structure = jax.tree_util.tree_flatten_with_path(shapes)
    ends = np.cumsum([leaf.size for _, leaf in named])
    noise = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    leaves = []
    for (path, leaf), values in zip(named, noise, strict=True):
        width = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else _SPREAD
        start = 1.0 if path[-1] == jax.tree_util.DictKey("scale") else 0.0
        leaves.append(start + width * values.reshape(leaf.shape))
    return jax.tree.unflatten(structure, leaves)


def random_batch(setting: Setting) -> dict[str, np.ndarray]:
    """Images of noise, or latents where the shape has them stored, and labels."""
    rng, side = np.random.default_rng(0), (setting.px, setting.px)
    labels = np.arange(setting.batch, dtype=np.int32) % (setting.shape.num_classes - 1)
    if isinstance(setting.shape, LatentShape) and setting.shape.stored:
        latent = make_codec(setting.shape, jnp.float32).shape(side)
        return {"latent": rng.standard_normal((setting.batch, *latent)).astype(np.float16), "label": labels}
    return {"image": rng.integers(0, 256, (setting.batch, *side, 3), np.uint8), "label": labels}


def state_of(task: Task, config: OptimConfig, params: Tree, batch: Batch) -> TrainState:
    """A state of the project's own train step that starts from given parameters."""
    start = replace(task, init=lambda key: ({NETWORK: params}, task_state()))
    return init_state(start, config, key=jax.random.key(0), batch=batch, num_steps=NUM_STEPS)


def task_state() -> dict[str, dict]:
    """Model state of a diffusion task with uniform timesteps: nothing is remembered."""
    return {NETWORK: {}, TIMESTEPS: {}}


def make_step(task: Task, config: OptimConfig) -> Step:
    """The project's own train step."""
    return make_train_step(task, config, num_steps=NUM_STEPS, log_every=LOG_EVERY)


@dataclass(frozen=True)
class Sampler:
    """A method and the grid that belongs to it.

    Attributes:
        name: for tables.
        grid: which of the trained steps it visits.
        make: respaced schedule -> sampler.
    """

    name: str
    grid: spacing.SpacingFn
    make: Callable[[NoiseSchedule], loop.Sampler]


# DDIM without noise; DDPM with the posterior variance.
SAMPLERS = {
    "ddim": Sampler("DDIM", spacing.leading, lambda schedule: ddim.ddim(schedule, eta=0.0)),
    "ddpm": Sampler("DDPM", spacing.even, lambda s: ddpm.ddpm(s, variance=s.posterior_variance)),
    "dpmpp": Sampler("DPM-Solver++(2M)", spacing.log_snr, solvers.dpmpp_2m),
    "unipc": Sampler("UniPC", spacing.log_snr, solvers.unipc),
}


@dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
        sampler: a key of ``SAMPLERS``.
        steps: steps of the respaced schedule.
        guidance: weight of classifier-free guidance; 0 for none.
        guided: first and last share of the trained schedule in which it guides.
    """

    sampler: str
    steps: int
    guidance: float = 0.0
    guided: tuple[float, float] = (0.0, 1.0)

    @property
    def name(self) -> str:
        """For tables."""
        name = f"{SAMPLERS[self.sampler].name} {self.steps}"
        if not self.guidance:
            return name
        first, last = self.guided
        return f"{name}, guided" + ("" if self.guided == (0.0, 1.0) else f" from {first:g} to {last:g}")

    def respaced(self, trained: NoiseSchedule) -> NoiseSchedule:
        """The steps it visits."""
        return respace(trained, SAMPLERS[self.sampler].grid(trained, self.steps))

    def guides(self, trained: NoiseSchedule) -> np.ndarray:
        """Whether it guides at each of them."""
        share = self.respaced(trained).timesteps / (trained.num_steps - 1)
        first, last = self.guided
        return (share >= first) & (share <= last) & (self.guidance > 0)

    def forwards(self, trained: NoiseSchedule) -> int:
        """Forward passes of the network over the whole batch, where a guided step takes two."""
        return self.steps + int(self.guides(trained).sum())


def make_draw(
    network: PureNetwork,
    how: Sampling,
    *,
    px: int,
    num_classes: int,
    codec: Codec | None = None,
    schedule: NoiseSchedule | None = None,
    prediction: Prediction = "eps",
) -> Callable[[Tree, jax.Array, jax.Array], jax.Array]:
    """(parameters, key, labels) -> images in [-1, 1], or latents, one key each, by the package's own sampler."""
    shape = (codec or PixelCodec()).shape((px, px))
    trained = schedule or linear_noise()
    respaced, guides = how.respaced(trained), how.guides(trained)
    sampler = SAMPLERS[how.sampler].make(respaced)
    original = jnp.asarray(respaced.timesteps)

    def draw(params: Tree, key: PRNGKey, labels: Labels) -> Images:
        def predict(x_t: Images, t: Timesteps, y: Conditions) -> conditioning.Output:
            return network.apply(params, {}, x_t, original[t], y)[0], None

        guided = conditioning.with_guidance(
            predict, {LABEL.name: labels}, null_label(num_classes), weight=how.guidance, active=guides
        )

        def eps(x_t: Images, t: Timesteps) -> DenoiserOutput:
            return DenoiserOutput(to_eps(prediction, respaced, x_t, t, guided(x_t, t)[0]))

        return loop.sample(eps, sampler, keys=image_keys(key, len(labels)), shape=shape)[0]

    return draw


def image_keys(key: PRNGKey, count: int) -> jax.Array:
    """One key an image."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(count))


def compiled(
    function: Callable, *inputs: Any, compiler_options: Mapping[str, Any] | None = None, **options: Any
) -> tuple[jax.stages.Compiled, float]:
    """The compiled function, and the seconds it took to trace and compile."""
    made: list[jax.stages.Compiled] = []
    given = dict(compiler_options or {})
    seconds = measure.seconds_of(
        lambda: made.append(jax.jit(function, **options).lower(*inputs).compile(compiler_options=given))
    )
    return made[0], seconds


@functools.cache
def forward_flop(shape: Shape | LatentShape, px: int) -> float:
    """FLOP (2 x MAC) of one image's forward pass, as XLA counts them before it optimises."""
    network = make_network(shape, jnp.float32)
    image = jax.ShapeDtypeStruct((1, *make_codec(shape, jnp.float32).shape((px, px))), jnp.float32)
    number = jax.ShapeDtypeStruct((1,), jnp.int32)
    return _flop(lambda p, *x: network.apply(p, {}, *x)[0], _shapes_of(network), image, number, {LABEL.name: number})


@functools.cache
def codec_flop(shape: Shape | LatentShape, px: int) -> tuple[float, float]:
    """FLOP of encoding and of decoding one image; none for pixels."""
    codec = make_codec(shape, jnp.float32)
    if not isinstance(codec, LatentCodec):
        return 0.0, 0.0
    params = _shapes_of(codec.network)
    image = jax.ShapeDtypeStruct((1, px, px, 3), jnp.uint8)
    latent = jax.ShapeDtypeStruct((1, *codec.shape((px, px))), jnp.float32)
    return _flop(codec.code, params, image), _flop(codec.decode, params, latent)


def _shapes_of(network: PureNetwork) -> Tree:
    return jax.eval_shape(network.init, jax.random.key(0))[0]


def _flop(function: Callable, *shapes: Any) -> float:
    with jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(function).lower(*shapes)
        return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def load(setting: Setting) -> Calls:
    """The package's own train step and network in float32, compiled and ready to be timed; see ``torch_adm.load``."""
    network = make_network(setting.shape, jnp.float32)
    task = make_task(setting.shape, jnp.float32)
    batch = jax.tree.map(jnp.asarray, random_batch(setting))
    key = jax.random.key(0)
    state = jax.jit(lambda k: init_state(task, PLAIN_ADAM, key=k, batch=batch, num_steps=NUM_STEPS))(key)
    params, model_state = jax.jit(network.init)(key)
    conditions = {LABEL.name: batch["label"]}
    inputs = (params, model_state, jax.random.normal(key, batch["image"].shape), batch["label"], conditions)
    step = make_step(task, PLAIN_ADAM)
    compiled: dict[str, jax.stages.Compiled] = {}

    def compile_both() -> None:
        compiled["forward"] = jax.jit(lambda *x: network.apply(*x)[0]).lower(*inputs).compile()
        compiled["step"] = jax.jit(step, donate_argnums=0).lower(state, batch, key).compile()

    seconds = measure.seconds_of(compile_both)
    held = [state]

    def train_step() -> None:
        held[0], _ = compiled["step"](held[0], batch, key)
        jax.block_until_ready(held[0])

    def forward() -> None:
        jax.block_until_ready(compiled["forward"](*inputs))

    return Calls(forward, train_step, count_parameters(network), seconds)
