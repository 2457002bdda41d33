"""Our networks at work: what the benchmarks time.

Imports only what needs JAX, Flax and Optax, so that it runs where the data pipeline's packages are missing.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

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
    Setting,
    Shape,
)
from diffpath_jax import conditioning, diffusion, samplers, timesteps
from diffpath_jax.codecs import PixelCodec
from diffpath_jax.diffusion import NoiseSchedule, Prediction
from diffpath_jax.networks.pure import PureNetwork, count_parameters, purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.optim import OptimConfig
from diffpath_jax.shapes import Batch, Images, Labels, PRNGKey, Timesteps, Tree
from diffpath_jax.task import NETWORK, TIMESTEPS, Denoising, Task, diffusion_task
from diffpath_jax.train_step import Step, TrainState, init_state, make_train_step

# For the schedule of the learning rate, which is constant, and for the log, which nobody reads.
NUM_STEPS, LOG_EVERY = 1000, 100
# What is timed against PyTorch keeps no moving average, as PyTorch keeps none.
PLAIN_ADAM = OptimConfig(learning_rate=LEARNING_RATE, ema_decay=0.0)
# Spread of random biases and norms; kernels have that of their inputs.
_SPREAD = 0.02


def make_network(shape: Shape, dtype: DTypeLike, *, remat: bool = False) -> PureNetwork:
    """The network of a shape."""
    config = UNetConfig(**asdict(shape), remat=remat)
    return purify(lambda rngs: UNet(config, dtype=dtype, rngs=rngs))


def linear_noise() -> NoiseSchedule:
    """The schedule that both sides train with."""
    return diffusion.linear_schedule(NOISE_STEPS, beta_start=BETA_START, beta_end=BETA_END)


def make_task(
    shape: Shape,
    dtype: DTypeLike,
    *,
    remat: bool = False,
    schedule: NoiseSchedule | None = None,
    prediction: Prediction = "eps",
) -> Task:
    """Denoising as the project trains it."""
    how = Denoising(
        schedule=schedule or linear_noise(),
        prediction=prediction,
        timesteps=timesteps.uniform(NOISE_STEPS),
        label_dropout=LABEL_DROPOUT,
    )
    network = make_network(shape, dtype, remat=remat)
    return diffusion_task(network, PixelCodec(), how, num_classes=shape.num_classes - 1)


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
    """Images of noise, and labels."""
    images = np.random.default_rng(0).integers(0, 256, (setting.batch, setting.px, setting.px, 3), np.uint8)
    return {"image": images, "label": np.arange(setting.batch, dtype=np.int32) % (setting.shape.num_classes - 1)}


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
class Sampling:
    """How images are drawn.

    Attributes:
        ddim: DDIM without noise; otherwise DDPM with the posterior variance.
        steps: steps of the respaced schedule.
        guidance: weight of classifier-free guidance; 0 for none.
    """

    ddim: bool
    steps: int
    guidance: float = 0.0

    @property
    def name(self) -> str:
        """For tables."""
        return f"{'DDIM' if self.ddim else 'DDPM'} {self.steps}" + (", guided" if self.guidance else "")


def make_draw(
    network: PureNetwork,
    how: Sampling,
    *,
    px: int,
    num_classes: int,
    schedule: NoiseSchedule | None = None,
    prediction: Prediction = "eps",
) -> Callable[[Tree, jax.Array, jax.Array], jax.Array]:
    """(parameters, key, labels) -> images in [-1, 1], one key an image, by the package's own sampler."""
    trained = schedule or linear_noise()
    grid = diffusion.strided_steps if how.ddim else diffusion.even_steps
    respaced = diffusion.respace(trained, grid(trained.num_steps, how.steps))
    original = jnp.asarray(respaced.timesteps)
    rule = (
        samplers.ddim_rule(respaced, eta=0.0)
        if how.ddim
        else samplers.ddpm_rule(respaced, variance=respaced.posterior_variance)
    )

    def draw(params: Tree, key: PRNGKey, labels: Labels) -> Images:
        def predict(x_t: Images, t: Timesteps, y: Labels) -> conditioning.Output:
            return network.apply(params, {}, x_t, original[t], y)[0], None

        guided = conditioning.with_guidance(predict, labels, weight=how.guidance, num_classes=num_classes)

        def eps(x_t: Images, t: Timesteps) -> conditioning.Output:
            return diffusion.to_eps(prediction, respaced, x_t, t, guided(x_t, t)[0]), None

        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(jnp.arange(len(labels)))
        return samplers.sample(eps, respaced, rule, keys=keys, shape=(px, px, 3))[0]

    return draw


def forward_flop(shape: Shape, px: int) -> float:
    """FLOP (2 x MAC) of one image's forward pass, as XLA counts them before it optimises."""
    network = make_network(shape, jnp.float32)
    params, model_state = jax.eval_shape(network.init, jax.random.key(0))
    image, number = jax.ShapeDtypeStruct((1, px, px, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    with jax.default_device(jax.devices("cpu")[0]):
        lowered = jax.jit(lambda p, s, *x: network.apply(p, s, *x)[0]).lower(params, model_state, image, number, number)
        return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def load(setting: Setting) -> Calls:
    """The package's own train step and network in float32, compiled and ready to be timed; see ``torch_adm.load``."""
    network = make_network(setting.shape, jnp.float32)
    task = make_task(setting.shape, jnp.float32)
    batch = jax.tree.map(jnp.asarray, random_batch(setting))
    key = jax.random.key(0)
    state = jax.jit(lambda k: init_state(task, PLAIN_ADAM, key=k, batch=batch, num_steps=NUM_STEPS))(key)
    params, model_state = jax.jit(network.init)(key)
    inputs = (params, model_state, jax.random.normal(key, batch["image"].shape), batch["label"], batch["label"])
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
