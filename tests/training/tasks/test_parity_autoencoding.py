"""An autoencoder's losses and their gradients against diffusers' and the published formulas, kept in tests/golden."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.networks.autoencoder import VQAutoencoder
from diffpath_jax.networks.codebook import nearest
from diffpath_jax.networks.lpips import Lpips
from diffpath_jax.networks.patchgan import PatchDiscriminator, PatchGanConfig
from diffpath_jax.networks.pure import purify
from diffpath_jax.training.tasks import autoencoding
from diffpath_jax.training.tasks.autoencoding import DISCRIMINATOR, PERCEPTUAL
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import from_lpips, from_vqgan, torch_files
from tests.golden import weights

GOLDEN = weights.load("first_stage_losses.npz")
Z = jnp.asarray(weights.normal("losses z", (2, 4, 4, 3)))
CODES = jnp.asarray(weights.state_dict(GOLDEN["codebook/names"])["quantize.embedding.weight"])
# The layers of a discriminator with two strided layers, in the published sequence.
JUDGE = {"stem": "main.0", "convs.0": "main.2", "norms.0": "main.3", "convs.1": "main.5", "norms.1": "main.6"}
JUDGE |= {"out": "main.8"}


def check(ours, name, limit=1e-5):
    assert weights.relative_error(ours, GOLDEN[name]) <= limit, name


@pytest.mark.parametrize(("on", "case"), [("codes", "legacy"), ("latents", "paper")])
def test_the_codebook_loss_is_diffusers_in_both_placements(on, case):
    index = nearest(Z, CODES)
    loss = lambda z, codes: autoencoding.codebook_loss(z, codes[index], commitment=0.25, on=on)  # noqa: E731
    value, (of_z, of_codes) = jax.value_and_grad(loss, argnums=(0, 1))(Z, CODES)
    check(value, f"codebook_{case}/loss")
    check(of_z, f"codebook_{case}/gradient_z")
    check(of_codes, f"codebook_{case}/gradient_codes")


def test_the_straight_through_gradient_is_diffusers():
    cotangent = jnp.asarray(weights.normal("losses cotangent", (2, 4, 4, 3)))
    passed = lambda z: (autoencoding.straight_through(z, CODES[nearest(Z, CODES)]) * cotangent).mean()  # noqa: E731
    check(jax.grad(passed)(Z), "straight_through/gradient_z")


def test_the_hinge_loss_is_the_published_one():
    real, fake = (jnp.asarray(weights.normal(f"losses {name}", (2, 3, 3, 1))) for name in ("real", "fake"))
    check(autoencoding.hinge_loss(real, fake), "hinge")


@functools.cache
def parts():
    """The golden autoencoder, discriminator and LPIPS: a task for each case, and the parameters of all."""
    own = from_vqgan.from_vqgan(weights.state_dict(GOLDEN["vq/names"]), where="golden")
    network = purify(lambda rngs: VQAutoencoder(own.config, dtype=jnp.float32, rngs=rngs))
    judge = purify(lambda rngs: PatchDiscriminator(PatchGanConfig(8, 2), dtype=jnp.float32, rngs=rngs))
    like, _ = jax.eval_shape(judge.init, jax.random.key(0))
    judging = torch_files.fill(like, torch_files.layers(JUDGE), weights.state_dict(GOLDEN["critic/names"]))
    felt = from_lpips.from_lpips(weights.state_dict(GOLDEN["lpips/names"]), where="golden").params
    groups = jax.tree.map(jnp.asarray, {NETWORK: own.params, DISCRIMINATOR: judging, PERCEPTUAL: felt})

    def task(perceptual):
        return autoencoding.autoencoding_task(
            network,
            autoencoding.codebook(network, size=24, commitment=0.25, on="codes", revive_after=0),
            adversary=autoencoding.Adversary(judge, weight=0.75, start=0),
            perceptual=(purify(lambda rngs: Lpips(rngs=rngs)), felt) if perceptual else None,
        )

    return {"l1": task(False), "l1_lpips": task(True)}, groups


@functools.cache
def step(case, group):
    """Loss, its parts, and gradients for the parameters of a group."""
    tasks, groups = parts()
    task = tasks[case]
    params = groups if case == "l1_lpips" else {name: groups[name] for name in (NETWORK, DISCRIMINATOR)}
    _, state = task.init(jax.random.key(0))
    batch = {"image": jnp.asarray(weights.integers("losses image", 256, (2, 16, 16, 3)), jnp.uint8)}

    def loss(own):
        return task.losses[group]({**params, group: own}, state, batch, jax.random.key(0))

    (value, aux), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params[group])
    return value, {name: total / count for name, (total, count) in aux["metrics"].items()}, gradients


def published(gradients, names):
    """Gradients by published names, in PyTorch's layout; of queries, keys and values one by one."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        *layer, kind = (key.key for key in path)
        name, array = names[tuple(layer)], np.asarray(leaf)
        array = np.moveaxis(array, (-1, -2), (0, 1)) if kind == "kernel" else array
        split = [("", array)] if not name.endswith("qkv") else zip("qkv", np.split(array, 3), strict=True)
        for part, value in split:
            flat[f"{name.removesuffix('qkv')}{part}.{torch_files.LEAVES[kind]}"] = value
    return flat


CASES = ["l1", pytest.param("l1_lpips", marks=pytest.mark.full)]


@pytest.mark.parametrize("case", CASES)
def test_every_term_of_the_autoencoders_loss_is_the_published_one(case):
    value, terms, _ = step(case, NETWORK)
    check(value, f"{case}/total")
    check(terms["l1"], f"{case}/l1")
    if case == "l1_lpips":
        check(terms["lpips"], "l1_lpips/lpips")
    check(terms["generator_loss"], f"{case}/generator")
    check(terms["bottleneck_loss"], f"{case}/codebook")
    check(terms["adversarial_weight"] / 0.75, f"{case}/adaptive")


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_autoencoders_loss_are_the_published_ones(case):
    """Three arrays in full, from both ends and the codebook; of all others the norms."""
    gradients = step(case, NETWORK)[2]
    flat = published(gradients, from_vqgan.vqgan_names(gradients))
    check(flat["decoder.conv_out.weight"], f"{case}/of_last", 1e-4)
    check(flat["encoder.conv_in.weight"], f"{case}/of_first", 1e-4)
    check(flat["quantize.embedding.weight"], f"{case}/of_codes", 1e-4)
    check_norms(flat, GOLDEN["vq/names"], GOLDEN[f"{case}/norms"])


def test_the_discriminators_loss_and_gradients_are_the_published_ones():
    value, _, gradients = step("l1", DISCRIMINATOR)
    check(value, "l1/critic")
    flat = published(gradients, torch_files.layers(JUDGE))
    check_norms(flat, GOLDEN["critic/names"], GOLDEN["l1/critic_norms"])


def check_norms(flat, listing, norms):
    names = [str(line).split()[0] for line in listing]
    assert set(names) == set(flat)
    scale = norms.max()
    for name, norm in zip(names, norms, strict=True):
        assert abs(np.linalg.norm(flat[name]) - norm) < 1e-4 * norm + 1e-6 * scale, name
