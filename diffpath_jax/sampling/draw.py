"""Drawing images: sampler and denoiser of a run as one jitted function of weights, indices and conditions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int, UInt8

from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import sections
from diffpath_jax.devices import sharding
from diffpath_jax.diffusion.samplers import loop
from diffpath_jax.diffusion.schedule import NoiseSchedule
from diffpath_jax.diffusion.starts import with_known
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.conditions import CONDITIONS, LABEL
from diffpath_jax.runs.run import DiffusionModelRun, Run, Weights
from diffpath_jax.sampling import compose
from diffpath_jax.sampling.starts import begin, keep
from diffpath_jax.shapes import Conditions, Denoiser, Labels, PixelImages, PRNGKey, Tree

# What an image is drawn from: the value of each condition, by name; of what is not there the network is told nothing.
Told = Mapping[str, float | int]
# Parts of the weights.
DENOISER, GUIDE, CLASSIFIER, CODEC = "denoiser", "guide", "classifier", "codec"


def for_each_class(num_classes: int, others: Told | None = None) -> tuple[Told, ...]:
    """Returns conditions of one class after the other, with the same values of ``others``."""
    return tuple({LABEL.name: label, **(others or {})} for label in range(num_classes))


def check_classes(names: Iterable[str], run: Run) -> None:
    """Refuse classes that a run does not know.

    Raises:
        DiffpathError: naming the first of them.
    """
    for name in names:
        if name not in run.classes:
            fix = f"the run knows {', '.join(run.classes)}"
            raise DiffpathError("num_per_class", where=run.workdir, why=f"unknown class {name!r}", fix=fix)


def check_told(others: Iterable[str], run: Run) -> None:
    """Refuse conditions besides the class that a model does not take.

    Raises:
        DiffpathError: naming the first of them.
    """
    known = [name for name in run.config.network.conditions if name != LABEL.name]
    for name in others:
        if name not in known:
            fix = f"it takes {', '.join(known)}" if known else "it takes the class alone: leave it out"
            raise DiffpathError("condition", where=run.workdir, why=f"the model is not told {name!r}", fix=fix)


def conditions_of(indices: Int[np.ndarray, "n"], conditions: Sequence[Told]) -> dict[str, np.ndarray]:
    """Returns the conditions of images by their indices, as arrays by name."""
    numbers = indices % len(conditions)
    return {
        name: np.asarray([told[name] for told in conditions], CONDITIONS[name].null(0).dtype)[numbers]
        for name in conditions[0]
    }


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


def make_draw(
    run: DiffusionModelRun,
    options: sections.SamplerConfig,
    *,
    image_px: tuple[int, int],
    mesh: Mesh,
    classifier: Run | None = None,
    guide: DiffusionModelRun | None = None,
    trajectory_frames: int = 0,
) -> Draw:
    """A jitted function that draws a batch, split over the devices of ``mesh``.

    Every device runs the program of one device on its part, so that pixels do not depend on how many there are.
    """
    codec = run.codec
    sampler, threshold = samplers.sampler(run.config, options), samplers.threshold(run.config, options)

    def draw(
        weights: Tree, key: PRNGKey, numbers: Labels, conditions: Conditions, starts: Mapping[str, jax.Array]
    ) -> tuple[PixelImages, UInt8[Array, "frames b h w 3"]]:
        denoiser = _denoiser(run, options, sampler.schedule, weights, conditions, classifier, guide)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        shape = codec.shape(image_px)
        x_T = None
        if starts:
            begun = begin(
                starts,
                codec,
                weights[CODEC],
                schedule=sampler.schedule,
                keys=keys,
                noise=loop.image_noise(keys, 0, shape),
                level=options.start_level,
            )
            x_T = begun.x_T
            if begun.known is not None:
                denoiser = with_known(denoiser, sampler.schedule, begun.x_0, begun.known)
        x, trajectory = loop.sample(
            denoiser,
            sampler,
            keys=keys,
            shape=shape,
            x_T=x_T,
            threshold=threshold,
            trajectory_frames=trajectory_frames,
        )
        frames = jax.lax.map(lambda frame: codec.decode(weights[CODEC], frame), trajectory)
        return keep(starts, codec.decode(weights[CODEC], x)), frames

    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    on_each = jax.shard_map(
        draw,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), split.spec, split.spec, split.spec),
        out_specs=(split.spec, PartitionSpec(None, *split.spec)),
        check_vma=False,
    )
    return jax.jit(on_each, in_shardings=(None, everywhere, split, split, split))


def _denoiser(
    run: DiffusionModelRun,
    options: sections.SamplerConfig,
    respaced: NoiseSchedule,
    weights: Tree,
    conditions: Conditions,
    classifier: Run | None,
    guide: DiffusionModelRun | None,
) -> Denoiser:
    """The run's denoiser under conditions, guided by a classifier and by a weaker model where there are such."""
    (params, state), num_classes = weights[DENOISER], len(run.classes)
    likelihood = weaker = None
    if classifier is not None:
        theirs, their_state = weights[CLASSIFIER]
        likelihood = compose.log_likelihood(
            classifier.config,
            respaced,
            params=theirs,
            model_state=their_state,
            labels=conditions[LABEL.name],
            num_classes=num_classes,
        )
    if guide is not None:
        theirs, their_state = weights[GUIDE]
        weaker = compose.prediction(
            guide.config, respaced, params=theirs, model_state=their_state, num_classes=num_classes
        )
    return compose.denoiser(
        run.config,
        options,
        respaced,
        params=params,
        model_state=state,
        conditions=conditions,
        num_classes=num_classes,
        guide=weaker,
        classifier=likelihood,
    )
