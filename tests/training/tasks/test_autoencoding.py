"""How an autoencoder is taught: every term against numbers worked by hand, and the two networks' turns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffpath_jax.networks import codecs
from diffpath_jax.networks.autoencoder import VQAutoencoder, VQConfig
from diffpath_jax.networks.patchgan import PatchDiscriminator, PatchGanConfig
from diffpath_jax.networks.pure import purify
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.step import init_state, make_train_step
from diffpath_jax.training.tasks import autoencoding
from diffpath_jax.training.tasks.autoencoding import CODES, DISCRIMINATOR, STEPS
from diffpath_jax.training.tasks.task import NETWORK


def test_the_straight_through_gradient_is_that_of_the_latent():
    """f(z_q) = sum z_q^2 of z = (1, 2) quantised to (3, 5): value 34; its gradient 2 z_q = (6, 10) reaches z whole."""

    def value(z):
        return jnp.square(autoencoding.straight_through(z, jnp.array([[[[3.0, 5.0]]]]))).sum()

    found, gradient = jax.value_and_grad(value)(jnp.array([[[[1.0, 2.0]]]]))
    assert float(found) == 34.0
    np.testing.assert_array_equal(gradient[0, 0, 0], [6.0, 10.0])


@pytest.mark.parametrize(
    ("on", "value", "of_z", "of_code"),
    [
        # mean (z_q - z)^2 = (4 + 9) / 2 = 6.5; the half that moves z has the gradient -(z_q - z), the other z_q - z.
        ("codes", 6.5 * 1.25, (-2.0, -3.0), (0.5, 0.75)),
        ("latents", 6.5 * 1.25, (-0.5, -0.75), (2.0, 3.0)),
    ],
)
def test_the_codebook_loss_pulls_both_ways_with_beta_on_either(on, value, of_z, of_code):
    z, z_q = jnp.array([[[[1.0, 2.0]]]]), jnp.array([[[[3.0, 5.0]]]])
    loss = lambda z, z_q: autoencoding.codebook_loss(z, z_q, commitment=0.25, on=on)  # noqa: E731
    found, gradients = jax.value_and_grad(loss, argnums=(0, 1))(z, z_q)
    np.testing.assert_allclose(found, value, rtol=1e-6)
    np.testing.assert_allclose(gradients[0].ravel(), of_z, rtol=1e-6)
    np.testing.assert_allclose(gradients[1].ravel(), of_code, rtol=1e-6)


def test_the_hinge_loss_counts_only_what_is_within_the_margin():
    """Real logits 2 and .5 miss the margin by 0 and .5; fake ones -2 and .5 by 0 and 1.5: (.25 + .75) / 2."""
    real, fake = (jnp.array(values).reshape(1, 1, 2, 1) for values in ([2.0, 0.5], [-2.0, 0.5]))
    np.testing.assert_allclose(autoencoding.hinge_loss(real, fake), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "critic", "weight"),
    [((3.0, 4.0), (0.0, 2.0), 5 / 2.0001), ((3.0, 4.0), (0.0, 0.0), 1e4), ((0.0, 0.0), (1.0, 0.0), 0.0)],
)
def test_the_adaptive_weight_is_the_ratio_of_norms_within_bounds(image, critic, weight):
    found = autoencoding.adaptive_weight(jnp.array(image), jnp.array(critic))
    np.testing.assert_allclose(found, weight, rtol=1e-6)


@pytest.mark.parametrize(("of", "bound"), [("means", 50.0), ("sums", 50.0 / 192)])
def test_the_bound_is_of_means_or_of_sums(of, bound):
    """The published weight of sums: both sides of min(|N g| / |c|, b), divided by N, are that of means."""
    image, critic, values = jnp.array([30.0, 40.0]), jnp.array([0.0, 0.1]), 192
    judge = purify(lambda rngs: PatchDiscriminator(PatchGanConfig(4, 1), dtype=jnp.float32, rngs=rngs))
    adversary = autoencoding.Adversary(judge, weight=1.0, start=0, largest_ratio=50.0, bound_of=of)
    found = autoencoding.adaptive_weight(image, critic, largest=adversary.bound(values))
    np.testing.assert_allclose(found, bound, rtol=1e-6)
    as_sums = autoencoding.adaptive_weight(values * image, critic, largest=50.0) / values
    assert (of == "sums") == bool(np.isclose(found, as_sums))
    # Far from the bound both are the ratio.
    found = autoencoding.adaptive_weight(image, 1e4 * critic, largest=adversary.bound(values))
    np.testing.assert_allclose(found, 50 / 1000.0001, rtol=1e-6)


@pytest.mark.parametrize(("counts", "expected"), [((4, 4, 4, 4), 4.0), ((8, 0, 0, 0), 1.0), ((2, 2, 0, 0), 2.0)])
def test_perplexity_is_the_number_of_codes_in_even_use(counts, expected):
    np.testing.assert_allclose(autoencoding.perplexity(jnp.array(counts, jnp.float32)), expected, rtol=1e-6)


class Lines(nnx.Module):
    """An "autoencoder" of one number a pixel: latents are the first colour, codes lie on a line."""

    def __init__(self, codes, *, rngs):
        self.codebook = nnx.Embed(len(codes), 1, embedding_init=lambda *_: jnp.array(codes)[:, None], rngs=rngs)

    def quantise(self, z):
        indices = jnp.abs(z - self.codebook.embedding[...][:, 0]).argmin(axis=-1)
        return self.codebook(indices), indices


def line(revive_after):
    network = purify(lambda rngs: Lines([0.0, 1.0, 9.0], rngs=rngs))
    made = autoencoding.codebook(network, size=3, commitment=0.25, on="codes", revive_after=revive_after)
    return made, network.init(jax.random.key(0))[0]


def after_step(bottleneck, params, memory):
    """Parameters and memory once a step has ended."""
    moved, mean, state = bottleneck.after_step({NETWORK: params}, {}, {CODES: memory})
    assert mean == {}
    return moved[NETWORK], state[CODES]


def test_codes_age_until_they_are_used_and_are_counted():
    """Latents .1, .2 and 1.2 take codes 0, 0 and 1; code 9 ages, by one a step, however many parts a step has."""
    bottleneck, params = line(revive_after=4)
    z, memory = jnp.array([0.1, 0.2, 1.2]).reshape(1, 1, 3, 1), bottleneck.init()
    for step in (1, 2, 3):
        for part in (1, 2):
            through = bottleneck.apply(params, memory, z, jax.random.key(2 * step + part), 9)
            memory = through.memory
        params, memory = after_step(bottleneck, params, memory)
        np.testing.assert_array_equal(memory["age"], [0, 0, step])
        assert not memory["used"].any()
        assert through.metrics["codebook_used"].tolist() == [3.0, 3.0]
        perplexity = math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
        np.testing.assert_allclose(through.metrics["codebook_perplexity"][0], perplexity, rtol=1e-6)
        assert set(np.asarray(memory["candidates"]).ravel().tolist()) <= set(np.float32([0.1, 0.2, 1.2]).tolist())
    np.testing.assert_allclose(through.z.ravel(), [0.0, 0.0, 1.0])
    # The fourth step without use is the last: the code no longer counts, and is moved to a latent.
    last = bottleneck.apply(params, memory, z, jax.random.key(0), 9)
    assert last.metrics["codebook_used"].tolist() == [2.0, 3.0]
    moved, memory = after_step(bottleneck, params, last.memory)
    np.testing.assert_array_equal(memory["age"], [0, 0, 0])
    assert moved["codebook"]["embedding"][2, 0] in np.float32([0.1, 0.2, 1.2])


def test_a_code_used_in_one_part_of_a_step_is_used():
    bottleneck, params = line(revive_after=1)
    memory = bottleneck.init()
    for latents in ([9.1], [0.1]):
        memory = bottleneck.apply(params, memory, jnp.array(latents).reshape(1, 1, 1, 1), jax.random.key(0), 3).memory
    moved, memory = after_step(bottleneck, params, memory)
    np.testing.assert_allclose(moved["codebook"]["embedding"].ravel(), [0.0, 0.1, 9.0])


def test_a_code_without_use_is_moved_to_a_latent_in_parameters_and_average():
    bottleneck, params = line(revive_after=2)
    memory = {
        "age": jnp.array([0, 0, 1]),
        "used": jnp.array([True, False, False]),
        "candidates": jnp.array([[5.0], [6.0], [7.0]]),
    }
    groups = {NETWORK: params, DISCRIMINATOR: {"kept": jnp.ones(1)}}
    average = {NETWORK: jax.tree.map(lambda x: x + 0.5, params)}
    moved, mean, state = bottleneck.after_step(groups, average, {CODES: memory, STEPS: jnp.array(7)})
    np.testing.assert_array_equal(moved[NETWORK]["codebook"]["embedding"].ravel(), [0.0, 1.0, 7.0])
    np.testing.assert_array_equal(mean[NETWORK]["codebook"]["embedding"].ravel(), [0.5, 1.5, 7.0])
    np.testing.assert_array_equal(state[CODES]["age"], [0, 1, 0])
    assert moved[DISCRIMINATOR] is groups[DISCRIMINATOR] and int(state[STEPS]) == 7
    never, _ = line(revive_after=0)
    kept, _ = after_step(never, params, {**memory, "age": jnp.array([0, 10**6, 10**9])})
    np.testing.assert_array_equal(kept["codebook"]["embedding"], params["codebook"]["embedding"])


def test_the_divergence_of_a_standard_normal_is_nothing_and_otherwise_its_closed_form():
    """KL(N(m, s^2) | N(0, 1)) = (m^2 + s^2 - 1) / 2 - log s a value, here 8 of them, over the image's 48 values."""
    bottleneck = autoencoding.normal_distribution()
    shape = (1, 2, 2, 2)
    for mean, log_variance in ((0.0, 0.0), (1.5, -0.7)):
        moments = jnp.concatenate([jnp.full(shape, mean), jnp.full(shape, log_variance)], axis=-1)
        through = bottleneck.apply({}, {}, moments, jax.random.key(0), 48)
        closed = 8 * ((mean**2 + math.exp(log_variance) - 1) / 2 - log_variance / 2)
        np.testing.assert_allclose(through.loss, closed / 48, rtol=1e-5, atol=1e-7)
    many = codecs.draw_gaussian(jnp.tile(moments, (1, 200, 200, 1)), jax.random.key(1))
    np.testing.assert_allclose([many.mean(), many.std()], [1.5, math.exp(-0.35)], atol=0.01)


CONFIG = VQConfig(channels=8, channel_mult=(1, 1), num_res_blocks=1, groups=4, codebook_size=8)


def tiny_task(*, start, revive_after=0):
    network = purify(lambda rngs: VQAutoencoder(CONFIG, dtype=jnp.float32, rngs=rngs))
    critic = purify(lambda rngs: PatchDiscriminator(PatchGanConfig(4, 1), dtype=jnp.float32, rngs=rngs))
    return autoencoding.autoencoding_task(
        network,
        autoencoding.codebook(network, size=8, commitment=0.25, on="codes", revive_after=revive_after),
        adversary=autoencoding.Adversary(critic, weight=0.75, start=start),
        perceptual=None,
    )


def fresh_state(task, config):
    """Compiled as one program, which tests and their runs share: operation by operation nothing is kept."""
    make = lambda key: init_state(task, config, key=key, batch=images(0), num_steps=4)  # noqa: E731
    return jax.jit(make)(jax.random.key(0))


def images(seed, count=4):
    return {
        "image": np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), np.uint8),
        "label": np.zeros(count, np.int32),
    }


@pytest.mark.full
def test_the_discriminator_waits_for_its_start_and_then_both_learn():
    task, config = tiny_task(start=2), OptimConfig(learning_rate=1e-2, ema_decay=0.9)
    state = fresh_state(task, config)
    step = jax.jit(make_train_step(task, config, num_steps=4, log_every=1))
    seen = [state]
    for number in range(4):
        seen.append(step(seen[-1], images(number), jax.random.key(1))[0])

    def same(group, before, after):
        pairs = zip(
            jax.tree.leaves(seen[before].params[group]), jax.tree.leaves(seen[after].params[group]), strict=True
        )
        return all(np.array_equal(a, b) for a, b in pairs)

    assert same(DISCRIMINATOR, 0, 2) and not same(DISCRIMINATOR, 2, 3)
    assert not same(NETWORK, 0, 1) and not same(NETWORK, 2, 3)
    assert [int(state.model_state[STEPS]) for state in seen] == [0, 1, 2, 3, 4]
    assert float(seen[2].window["discriminator/loss"][0]) == 0 < float(seen[3].window["discriminator/loss"][0])
    assert {f"network/{name}" for name in ("l1", "generator_loss", "adversarial_weight", "codebook_used")} <= set(
        seen[1].window
    )


@pytest.mark.full
def test_before_the_start_the_autoencoder_learns_as_if_there_were_no_discriminator():
    task = tiny_task(start=5)
    alone = autoencoding.autoencoding_task(
        network := purify(lambda rngs: VQAutoencoder(CONFIG, dtype=jnp.float32, rngs=rngs)),
        autoencoding.codebook(network, size=8, commitment=0.25, on="codes", revive_after=0),
        adversary=None,
        perceptual=None,
    )
    params, state = jax.jit(task.init)(jax.random.key(0))

    def gradient(of):
        batch = jax.tree.map(jnp.asarray, images(0))
        loss = lambda own: of({**params, NETWORK: own}, state, batch, jax.random.key(2))[0]  # noqa: E731
        return jax.jit(jax.grad(loss))(params[NETWORK])

    for a, b in zip(
        jax.tree.leaves(gradient(task.losses[NETWORK])), jax.tree.leaves(gradient(alone.losses[NETWORK])), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.full
def test_revived_codes_end_in_the_train_state():
    """A codebook far from all latents: its unused codes are latents after one step."""
    task, config = tiny_task(start=9, revive_after=1), OptimConfig(learning_rate=1e-9, ema_decay=0.9)
    state = fresh_state(task, config)
    far = jnp.linspace(50.0, 60.0, 24).reshape(8, 3)
    params = {**state.params, NETWORK: {**state.params[NETWORK], "codebook": {"embedding": far}}}
    state = state.__class__(**{**vars(state), "params": params, "ema": params})
    after, _ = jax.jit(make_train_step(task, config, num_steps=4, log_every=1))(state, images(0), jax.random.key(1))
    codes = np.asarray(after.params[NETWORK]["codebook"]["embedding"])
    kept = np.abs(codes - far).max(axis=1) < 1e-3
    assert kept.sum() == 1 and np.abs(codes[~kept]).max() < 40
    np.testing.assert_array_equal(codes[~kept], np.asarray(after.ema[NETWORK]["codebook"]["embedding"])[~kept])
