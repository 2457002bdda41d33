"""The task of autoencoding: the first stage of latent diffusion (Esser et al. 2021; Rombach et al. 2022).

Two networks learn against each other. The autoencoder minimises

    mean(|x - x^| + LPIPS(x, x^)) + w (-mean D(x^)) + bottleneck,

the discriminator a hinge loss; the weight ``w`` keeps the gradients of both kinds of loss at the decoder's last
convolution in a fixed proportion. The bottleneck is a codebook or a normal distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from diffpath_jax.networks.codecs import draw_gaussian, gaussian_moments, to_unit
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Batch, Images, PRNGKey, Scalar, Tree, Weighted
from diffpath_jax.training.tasks import losses
from diffpath_jax.training.tasks.task import NETWORK, AfterStepFn, LossAux, LossFn, Task, keep_all

DISCRIMINATOR, PERCEPTUAL = "discriminator", "perceptual"
# Names in the model state: steps taken, and what is remembered of the codebook.
STEPS, CODES = "steps", "codes"
# Where the decoder's last convolution is in its parameters.
LAST_LAYER = ("decoder", "out_conv", "kernel")
LARGEST_WEIGHT = 1e4
# A code counts as used, for the log, if it was within so many steps, where none are revived.
UNUSED_AFTER = 100
# Steps that no run reaches.
NEVER = jnp.iinfo(jnp.int32).max

Commitment = Literal["codes", "latents"]
# Of what the bound of the adaptive weight is one: losses that are means over an image's values, or sums of them.
BoundOf = Literal["means", "sums"]


@dataclass(frozen=True)
class Adversary:
    """The discriminator and its part in the loss.

    Attributes:
        network: images to logits, a map for each image.
        weight: factor of its term, after the gradients are brought in proportion (published: 0.75).
        start: step from which it takes part; before, it learns nothing.
        largest_ratio: bound of the proportion of the gradients.
        bound_of: the losses whose gradients it is: as they are here, ``means`` over an image's values, or ``sums``, as
            in the published code of KL autoencoders.
    """

    network: PureNetwork
    weight: float
    start: int
    largest_ratio: float = LARGEST_WEIGHT
    bound_of: BoundOf = "means"

    def bound(self, num_values: int) -> float:
        """Returns the bound for losses that are means over so many values of an image."""
        return self.largest_ratio / (num_values if self.bound_of == "sums" else 1)

    def judge(self, params: Tree, model_state: Tree, image: Images) -> tuple[jax.Array, Tree]:
        """Returns the logits of images, and the discriminator's model state after them."""
        return self.network.apply(params[DISCRIMINATOR], model_state[DISCRIMINATOR], image, train=True)

    def generator_loss(self, params: Tree, model_state: Tree, image: Images) -> Scalar:
        """Returns the generator's term: ``-mean D(x^)``."""
        return -self.judge(params, model_state, image)[0].mean()

    def active(self, model_state: Tree) -> Scalar:
        """Returns 1 from the step on in which the discriminator takes part."""
        return (model_state[STEPS] >= self.start).astype(jnp.float32)


class Passed(NamedTuple):
    """The output of a bottleneck.

    Attributes:
        z: latents for the decoder; gradients pass through them to the encoder.
        loss: the bottleneck's own.
        metrics: for the log.
        memory: for the next step.
    """

    z: jax.Array
    loss: jax.Array
    metrics: dict[str, jax.Array]
    memory: Tree


@runtime_checkable
class MemoryFn(Protocol):
    """Makes what a bottleneck remembers from step to step."""

    def __call__(self) -> Tree:
        """Returns the memory before the first step."""
        ...


@runtime_checkable
class BottleneckFn(Protocol):
    """The way from the encoder's output to the decoder's input."""

    def __call__(self, params: Tree, memory: Tree, encoded: Images, key: PRNGKey, num_values: int, /) -> Passed:
        """Returns what comes out.

        Args:
            params: parameters of the autoencoder.
            memory: memory of the step before.
            encoded: the encoder's output.
            key: random key of the bottleneck.
            num_values: pixels times channels of an image.
        """
        ...


@dataclass(frozen=True)
class Bottleneck:
    """The part between encoder and decoder.

    Attributes:
        init: makes the memory to start from.
        apply: called for each part of a batch, which hands its memory on.
        after_step: change of parameters and memory once after each step.
    """

    init: MemoryFn
    apply: BottleneckFn
    after_step: AfterStepFn = keep_all


def straight_through(z: Images, z_q: Images) -> Images:
    """Returns ``z_q``, with the gradient of ``z`` (van den Oord et al. 2017, section 3.1)."""
    return z + jax.lax.stop_gradient(z_q - z)


def codebook_loss(z: Images, z_q: Images, *, commitment: float, on: Commitment) -> Scalar:
    """Returns the loss that draws codes to latents and latents to codes, one of them with the factor ``commitment``.

    ``on="codes"`` is what the published code does, ``mean (sg z_q - z)^2 + beta mean (z_q - sg z)^2``;
    ``on="latents"`` is the formula of the paper, ``mean (z_q - sg z)^2 + beta mean (sg z_q - z)^2``.
    """
    moves_latents = jnp.square(jax.lax.stop_gradient(z_q) - z).mean()
    moves_codes = jnp.square(z_q - jax.lax.stop_gradient(z)).mean()
    factors = {"codes": (1.0, commitment), "latents": (commitment, 1.0)}[on]
    return factors[0] * moves_latents + factors[1] * moves_codes


def codebook(network: PureNetwork, *, size: int, commitment: float, on: Commitment, revive_after: int) -> Bottleneck:
    """Returns a bottleneck of vector quantisation; the codebook's usage is watched.

    Args:
        network: the autoencoder, with the method ``quantise``.
        size: codes in the book.
        commitment: beta of :func:`codebook_loss`.
        on: the half of the loss that beta belongs to.
        revive_after: steps without use after which a code is moved to a latent of the batch; 0 for never.
    """

    def init() -> Tree:
        return {
            "age": jnp.zeros(size, jnp.int32),
            "used": jnp.zeros(size, bool),
            "candidates": jnp.zeros((size, channels), jnp.float32),
        }

    shapes, _ = network.shapes
    channels = shapes["codebook"]["embedding"].shape[-1]

    def apply(params: Tree, memory: Tree, z: jax.Array, key: jax.Array, values: int) -> Passed:
        (z_q, indices), _ = network.apply(params, {}, z, method="quantise")
        counts = jnp.zeros(size, jnp.float32).at[indices.ravel()].add(1.0)
        used = memory["used"] | (counts > 0)
        recent = used | (memory["age"] + 1 < (revive_after or UNUSED_AFTER))
        metrics = {
            "codebook_perplexity": _once(perplexity(counts)),
            "codebook_used": losses.weighted(recent.astype(jnp.float32)),
        }
        some = jax.random.randint(key, (size,), 0, z.size // channels)
        candidates = jax.lax.stop_gradient(z.reshape(-1, channels)[some])
        loss = codebook_loss(z, z_q, commitment=commitment, on=on)
        return Passed(straight_through(z, z_q), loss, metrics, {**memory, "used": used, "candidates": candidates})

    def after_step(params: Tree, average: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
        memory = model_state[CODES]
        age = jnp.where(memory["used"], 0, memory["age"] + 1)
        dead = age >= (revive_after or NEVER)
        params, average = (_with_revived(groups, memory["candidates"], dead) for groups in (params, average))
        after = {**memory, "age": jnp.where(dead, 0, age), "used": jnp.zeros(size, bool)}
        return params, average, {**model_state, CODES: after}

    return Bottleneck(init, apply, after_step)


def revive(codes: Float[Array, "k d"], candidates: Float[Array, "k d"], dead: Bool[Array, "k"]) -> Float[Array, "k d"]:
    """Returns the codebook with its ``dead`` codes replaced by candidates."""
    return jnp.where(dead[:, None], candidates, codes)


def _with_revived(groups: Tree, candidates: Float[Array, "k d"], dead: Bool[Array, "k"]) -> Tree:
    """Returns parameters by group with the dead codes replaced; there are none of a moving average that is not kept."""
    if not groups:
        return groups
    codes = revive(groups[NETWORK]["codebook"]["embedding"], candidates, dead)
    return {**groups, NETWORK: {**groups[NETWORK], "codebook": {"embedding": codes}}}


def perplexity(counts: Float[Array, "k"]) -> Scalar:
    """Returns exp of the entropy of the codes' use: as many codes, used evenly, would be as varied."""
    shares = counts / counts.sum()
    return jnp.exp(-(shares * jnp.log(jnp.where(shares > 0, shares, 1.0))).sum())


def normal_distribution() -> Bottleneck:
    """Returns the bottleneck of a KL encoder: a normal distribution, kept near the standard one.

    The published loss is a sum over all values of an image. Here it is a mean over them, so the divergence, a sum over
    the latent, is divided by their number too: its published factor (1e-6) then means the same.
    """

    def apply(params: Tree, memory: Tree, moments: jax.Array, key: jax.Array, values: int) -> Passed:
        mean, variance = gaussian_moments(moments)
        zeros = jnp.zeros_like(mean)
        nats = losses.normal_kl(mean, jnp.log(variance), zeros, zeros).sum(axis=(1, 2, 3))
        return Passed(draw_gaussian(moments, key), nats.mean() / values, {"kl_nats": losses.weighted(nats)}, memory)

    return Bottleneck(dict, apply)


def hinge_loss(real: Float[Array, "b h w 1"], fake: Float[Array, "b h w 1"]) -> Scalar:
    """Returns the discriminator's ``(mean relu(1 - D(x)) + mean relu(1 + D(x^))) / 2``."""
    return 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean())


def adaptive_weight(
    of_image: Tree | jax.Array, of_critic: Tree | jax.Array, *, largest: float = LARGEST_WEIGHT
) -> Scalar:
    """Returns ``|g_image| / (|g_critic| + 1e-4)`` of two gradients, bounded (Esser et al. 2021, equation 7)."""
    ratio = optax.global_norm(of_image) / (optax.global_norm(of_critic) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, largest))


def autoencoding_task(
    network: PureNetwork,
    bottleneck: Bottleneck,
    *,
    adversary: Adversary | None,
    perceptual: tuple[PureNetwork, Tree] | None,
    bottleneck_weight: float = 1.0,
) -> Task:
    """Returns the task of giving images back, through a bottleneck.

    Args:
        network: the autoencoder: ``encode``, ``features`` (all of the decoder but its last layer), ``to_image``.
        bottleneck: between encoder and decoder.
        adversary: the discriminator; none for L1 (and LPIPS) alone.
        perceptual: LPIPS and its parameters, if they are at hand.
        bottleneck_weight: factor of the bottleneck's loss.
    """
    felt = perceptual[0] if perceptual else None
    parts = _Autoencoding(network, bottleneck, adversary, felt, bottleneck_weight)
    losses_of: dict[str, LossFn] = {NETWORK: parts.autoencoder_loss}
    if adversary:
        losses_of[DISCRIMINATOR] = partial(parts.discriminator_loss, adversary)
    return Task(parts.init, losses_of, {PERCEPTUAL: perceptual[1]} if perceptual else {}, parts.after_step)


@dataclass(frozen=True)
class _Autoencoding:
    """The functions of the task, over what it consists of; see :func:`autoencoding_task`."""

    network: PureNetwork
    bottleneck: Bottleneck
    adversary: Adversary | None
    perceptual: PureNetwork | None
    bottleneck_weight: float

    def init(self, key: PRNGKey) -> tuple[Tree, Tree]:
        params, state = self.network.init(key)
        remembered = {NETWORK: state, CODES: self.bottleneck.init(), STEPS: jnp.zeros((), jnp.int32)}
        if self.adversary is None:
            return {NETWORK: params}, remembered
        judge, norms = self.adversary.network.init(jax.random.fold_in(key, 1))
        return {NETWORK: params, DISCRIMINATOR: judge}, {**remembered, DISCRIMINATOR: norms}

    def after_step(self, params: Tree, average: Tree, model_state: Tree) -> tuple[Tree, Tree, Tree]:
        return self.bottleneck.after_step(params, average, {**model_state, STEPS: model_state[STEPS] + 1})

    def autoencoder_loss(self, params: Tree, model_state: Tree, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossAux]:
        x = to_unit(batch["image"])
        h, through = self._passed(params, model_state, x, key)
        x_hat = self._to_image(params, h)
        value, metrics = self._distance(params, x, x_hat)
        metrics |= {"bottleneck_loss": _once(through.loss), **through.metrics}
        total = value + self.bottleneck_weight * through.loss
        if self.adversary:
            generator = self.adversary.generator_loss(params, model_state, x_hat)
            weight = self.adversary.weight * self._adaptive_weight(self.adversary, params, model_state, x, h)
            total += self.adversary.active(model_state) * weight * generator
            metrics |= {"generator_loss": _once(generator), "adversarial_weight": _once(weight)}
        return total, {"metrics": metrics, "model_state": {**model_state, CODES: through.memory}}

    def discriminator_loss(
        self, adversary: Adversary, params: Tree, model_state: Tree, batch: Batch, key: PRNGKey
    ) -> tuple[Scalar, LossAux]:
        x = to_unit(batch["image"])
        h, _ = self._passed(params, model_state, x, key)
        real, state = adversary.judge(params, model_state, x)
        after = {**model_state, DISCRIMINATOR: state}
        fake, state = adversary.judge(params, after, jax.lax.stop_gradient(self._to_image(params, h)))
        metrics = {"logits_real": _once(real.mean()), "logits_fake": _once(fake.mean())}
        loss = adversary.active(model_state) * hinge_loss(real, fake)
        return loss, {"metrics": metrics, "model_state": {**model_state, DISCRIMINATOR: state}}

    def _passed(self, params: Tree, model_state: Tree, x: Images, key: PRNGKey) -> tuple[jax.Array, Passed]:
        """Returns the decoder's features before its last layer, and the bottleneck's output."""
        code, _ = self.network.apply(params[NETWORK], {}, x, method="encode")
        through = self.bottleneck.apply(params[NETWORK], model_state[CODES], code, key, x[0].size)
        return self.network.apply(params[NETWORK], {}, through.z, method="features")[0], through

    def _to_image(self, params: Tree, h: jax.Array) -> Images:
        return self.network.apply(params[NETWORK], {}, h, method="to_image")[0]

    def _distance(self, params: Tree, x: Images, x_hat: Images) -> tuple[Scalar, dict[str, Weighted]]:
        l1 = jnp.abs(x - x_hat).mean(axis=(1, 2, 3))
        parts = {"l1": losses.weighted(l1)}
        if self.perceptual is None:
            return l1.mean(), parts
        felt = self.perceptual.apply(params[PERCEPTUAL], {}, x, x_hat)[0]
        return l1.mean() + felt.mean(), {**parts, "lpips": losses.weighted(felt)}

    def _adaptive_weight(
        self, adversary: Adversary, params: Tree, model_state: Tree, x: Images, h: jax.Array
    ) -> Scalar:
        """Returns the ratio of both kinds of gradients at the decoder's last kernel, of which alone they are taken."""
        fixed = jax.lax.stop_gradient(h)

        def at_last(loss: Callable[[Images], Scalar]) -> jax.Array:
            kernel = _last_kernel(params[NETWORK])
            return jax.grad(lambda k: loss(self._to_image(_with_last_kernel(params, k), fixed)))(kernel)

        of_image = at_last(lambda image: self._distance(params, x, image)[0])
        of_critic = at_last(partial(adversary.generator_loss, params, model_state))
        return adaptive_weight(of_image, of_critic, largest=adversary.bound(x[0].size))


def _once(value: Scalar) -> Weighted:
    return losses.weighted(jnp.atleast_1d(value.astype(jnp.float32)))


def _last_kernel(params: Tree) -> jax.Array:
    one, other, leaf = LAST_LAYER
    return params[one][other][leaf]


def _with_last_kernel(params: Tree, kernel: jax.Array) -> Tree:
    one, other, leaf = LAST_LAYER
    own = params[NETWORK]
    return {**params, NETWORK: {**own, one: {**own[one], other: {**own[one][other], leaf: kernel}}}}
