"""Drawing images: sampler and denoiser of a run as one jitted function of weights, indices and conditions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import sections
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion.samplers import loop
from diffpath_jax.diffusion.samplers.thresholding import Threshold
from diffpath_jax.diffusion.starts import with_known
from diffpath_jax.diffusion.windows import Windows, averaged, with_windows
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.runs.run import DiffusionModelRun, Run, Weights
from diffpath_jax.sampling import compose
from diffpath_jax.sampling.field import FieldOptions
from diffpath_jax.sampling.starts import begin, keep
from diffpath_jax.shapes import Conditions, Denoiser, Images, Labels, PixelImages, PRNGKey, PRNGKeys, Tree

# Parts of the weights.
DENOISER, GUIDE, CLASSIFIER, CODEC = "denoiser", "guide", "classifier", "codec"


def check_classes(names: Iterable[str], run: Run) -> None:
    """Refuse classes that a run does not know.

    Raises:
        DiffpathError: naming the first of them.
    """
    for name in names:
        if name not in run.classes:
            fix = f"the run knows {', '.join(run.classes)}"
            raise DiffpathError("num_per_class", where=run.workdir, why=f"unknown class {name!r}", fix=fix)


@dataclass(frozen=True)
class Model:
    """A diffusion model, and the noisy classifier and the weaker model that guide it, if they do."""

    run: DiffusionModelRun
    trained: Weights
    classifier: tuple[Run, Weights] | None = None
    guide: tuple[DiffusionModelRun, Weights] | None = None

    @property
    def weights(self) -> Tree:
        """Parameters and model states, as :class:`Draw` takes them."""
        weights = {DENOISER: (self.trained.params, self.trained.model_state), CODEC: self.trained.codec_params}
        if self.classifier:
            weights[CLASSIFIER] = (self.classifier[1].params, self.classifier[1].model_state)
        if self.guide:
            weights[GUIDE] = (self.guide[1].params, self.guide[1].model_state)
        return weights


@runtime_checkable
class Draw(Protocol):
    """Draws a batch of images."""

    def __call__(
        self, weights: Tree, key: PRNGKey, numbers: Labels, conditions: Conditions, starts: Mapping[str, jax.Array], /
    ) -> tuple[PixelImages, UInt8[Array, "frames b h w 3"]]:
        """Returns a batch of images, and their trajectory.

        Args:
            weights: :attr:`Model.weights`.
            key: of the job.
            numbers: of the noise of each image.
            conditions: of each image.
            starts: of each image, as ``Starts.batch`` gives them; empty to start from noise.
        """


@dataclass(frozen=True, eq=False)
class Ready:
    """Everything that a batch is drawn with.

    Attributes:
        denoiser: with conditions, guidance, windows and what is known of the images.
        keys: of the noise of each image.
        drawing: the images before the first call of the denoiser.
    """

    denoiser: Denoiser
    keys: PRNGKeys
    drawing: loop.Drawing


@dataclass(frozen=True, eq=False)
class Recipe:
    """How images are drawn, without the weights.

    Attributes:
        run: the model.
        options: the sampler and its numbers.
        image_px: (height, width).
        classifier: noisy classifier that guides.
        guide: weaker model that guides.
        field: how the images are covered by windows; none where the network sees them whole.
    """

    run: DiffusionModelRun
    options: sections.SamplerConfig
    image_px: tuple[int, int]
    classifier: Run | None = None
    guide: DiffusionModelRun | None = None
    field: FieldOptions | None = None

    @cached_property
    def sampler(self) -> loop.Sampler:
        """The sampler on its spacing."""
        return samplers.sampler(self.run.config, self.options)

    @cached_property
    def threshold(self) -> Threshold:
        """Bounds of estimates of the image."""
        return samplers.threshold(self.run.config, self.options)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of an image in model space."""
        return self.run.codec.shape(self.image_px)

    @cached_property
    def windows(self) -> Windows | None:
        """How images are covered in model space; none where one window is all."""
        return self.field.windows(self.image_px, self.shape) if self.field else None

    def ready(
        self,
        weights: Tree,
        key: PRNGKey,
        numbers: Labels,
        conditions: Conditions,
        starts: Mapping[str, jax.Array],
        *,
        trajectory_frames: int = 0,
    ) -> Ready:
        """Returns a batch before its first step; arguments are those of :class:`Draw`."""
        denoiser = self._denoiser(weights, conditions)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        x_T = None
        if starts:
            begun = begin(
                starts,
                self.run.codec,
                weights[CODEC],
                schedule=self.sampler.schedule,
                keys=keys,
                noise=loop.image_noise(keys, 0, self.shape),
                level=self.options.start_level,
            )
            x_T = begun.x_T
            if begun.known is not None:
                denoiser = with_known(denoiser, self.sampler.schedule, begun.x_0, begun.known)
        drawing = loop.begin(self.sampler, keys=keys, shape=self.shape, x_T=x_T, trajectory_frames=trajectory_frames)
        return Ready(denoiser, keys, drawing)

    def advance(self, ready: Ready, calls: Int[Array, "_"]) -> loop.Drawing:
        """Returns a batch after some calls of the denoiser, by their numbers."""
        keys, threshold = ready.keys, self.threshold
        return loop.advance(ready.denoiser, self.sampler, ready.drawing, calls, keys=keys, threshold=threshold)

    def decode(self, weights: Tree, x: Images, starts: Mapping[str, jax.Array]) -> UInt8[Array, "b height width 3"]:
        """Returns the images of a batch; latents of large ones are decoded in windows too."""
        codec, factor = self.run.codec, self.image_px[0] // self.shape[0]
        if self.windows is None or factor == 1:
            return keep(starts, codec.decode(weights[CODEC], x))

        def pixels(x: Images, which: Int[Array, "b"]) -> Float[Array, "b h2 w2 3"]:
            return codec.decode(weights[CODEC], x).astype(jnp.float32)

        mean = averaged(pixels, x, self.windows, channels=3, factor=factor)
        return keep(starts, jnp.round(mean).astype(jnp.uint8))

    def _denoiser(self, weights: Tree, conditions: Conditions) -> Denoiser:
        if self.windows is None or self.field is None:
            return _denoiser(self, weights, conditions)
        told = self.field.of_windows(conditions, self.windows)
        return with_windows(lambda told: _denoiser(self, weights, told), told, self.windows)


def make_draw(recipe: Recipe, *, mesh: Mesh, trajectory_frames: int = 0) -> Draw:
    """A jitted function that draws a batch, split over the devices of ``mesh``.

    Every device runs the program of one device on its part, so that pixels do not depend on how many there are.
    """

    def draw(
        weights: Tree, key: PRNGKey, numbers: Labels, conditions: Conditions, starts: Mapping[str, jax.Array]
    ) -> tuple[PixelImages, UInt8[Array, "frames b h w 3"]]:
        ready = recipe.ready(weights, key, numbers, conditions, starts, trajectory_frames=trajectory_frames)
        x, _, trajectory = ready.drawing
        if recipe.sampler.num_evaluations:
            x, _, trajectory = recipe.advance(ready, jnp.arange(recipe.sampler.num_evaluations))
        frames = jax.lax.map(lambda frame: recipe.run.codec.decode(weights[CODEC], frame), trajectory)
        return recipe.decode(weights, x, starts), frames

    split, whole = sharding.batch_sharding(mesh).spec, PartitionSpec()
    return on_each_device(draw, mesh, (whole, whole, split, split, split), (split, PartitionSpec(None, *split)))


def on_each_device(
    function: Callable[..., Any],
    mesh: Mesh,
    inputs: tuple[PartitionSpec, ...],
    outputs: Any,
    *,
    donate: int | None = None,
) -> Any:
    """Returns a jitted function whose arguments every device has whole, or its part of, by their specs.

    Args:
        function: of weights and other arguments.
        mesh: devices.
        inputs: spec of each argument.
        outputs: of what it returns.
        donate: number of an argument whose memory may be used again.
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
    # The weights, which come first, may lie on the devices in any way.
    rest = tuple(NamedSharding(mesh, spec) for spec in inputs[1:])
    return jax.jit(mapped, in_shardings=(None, *rest), donate_argnums=() if donate is None else donate)


def _denoiser(recipe: Recipe, weights: Tree, conditions: Conditions) -> Denoiser:
    """The run's denoiser under conditions, guided by a classifier and by a weaker model where there are such."""
    (params, state), num_classes = weights[DENOISER], len(recipe.run.classes)
    likelihood = weaker = None
    respaced = recipe.sampler.schedule
    if recipe.classifier is not None:
        theirs, their_state = weights[CLASSIFIER]
        likelihood = compose.log_likelihood(
            recipe.classifier.config,
            respaced,
            params=theirs,
            model_state=their_state,
            labels=conditions[LABEL.name],
            num_classes=num_classes,
        )
    if recipe.guide is not None:
        theirs, their_state = weights[GUIDE]
        weaker = compose.prediction(
            recipe.guide.config, respaced, params=theirs, model_state=their_state, num_classes=num_classes
        )
    return compose.denoiser(
        recipe.run.config,
        recipe.options,
        respaced,
        params=params,
        model_state=state,
        conditions=conditions,
        num_classes=num_classes,
        guide=weaker,
        classifier=likelihood,
    )
