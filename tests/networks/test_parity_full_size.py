"""Published networks at their full width, read with the flags of their README: outputs and gradients.

Of the original (guided-diffusion) or another implementation (diffusers), in double precision; ours are in single.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.networks.kinds import make_network
from diffpath_jax.weights.from_adm import from_adm
from diffpath_jax.weights.from_ldm import CLASSES, UNET, from_ldm
from diffpath_jax.weights.from_vqgan import from_vqgan
from tests.golden import weights
from tests.networks.test_parity import check, check_norms

ADM, LDM = weights.load("adm_full_size.npz"), weights.load("ldm_full_size.npz")
LIMIT = 1e-4
HEADS = {"head_channels": 64}
FLAGS = {
    "64x64_diffusion": {**HEADS, "attention_order": "new", "noise_schedule": "cosine"},
    "128x128_diffusion": {"num_heads": 4},
    **dict.fromkeys(("256x256_diffusion", "256x256_diffusion_uncond", "512x512_diffusion", "lsun_bedroom"), HEADS),
    **dict.fromkeys((f"{side}x{side}_classifier" for side in (64, 128, 256, 512)), HEADS),
}
FIRST_STAGES = ("vq-f4", "kl-f4", "kl-f8")
T, LABEL = jnp.array([417]), jnp.array([207])


def test_every_published_network_is_here():
    assert {name.partition("/")[0] for name in ADM} == set(FLAGS)
    assert {name.partition("/")[0] for name in LDM} == {"cin256-v2", *FIRST_STAGES}


def normal(name, shape):
    return jnp.asarray(weights.normal(name, shape))


def norms_as_published(convert, listing, gradients):
    """Norm of the gradient of each published parameter, whatever became of it: converting their numbers tells."""
    numbers = {name: np.full(value.shape, i, np.float32) for i, (name, value) in enumerate(shapes(listing).items())}
    squares = np.zeros(len(numbers))
    for place, leaf in zip(jax.tree.leaves(convert(numbers).params), jax.tree.leaves(gradients), strict=True):
        np.add.at(squares, np.asarray(place, int).ravel(), np.square(np.asarray(leaf, np.float64)).ravel())
    return np.sqrt(squares)


def shapes(listing):
    """Arrays without memory of their own, by name."""
    parts = (str(line).split() for line in listing)
    return {name: np.broadcast_to(np.float32(0), tuple(map(int, shape.split("x")))) for name, shape in parts}


def check_against(golden, case, convert, of):
    """Of a function (network, parameters) -> (scalar, outputs by name) the outputs, and norms of the gradients."""
    listing = golden[f"{case}/names"]
    converted = convert(weights.state_dict(listing))
    network = make_network(converted.config, dtype=jnp.float32)
    value = jax.value_and_grad(lambda params: of(network, params), has_aux=True)
    (_, found), gradients = jax.jit(value)(jax.tree.map(jnp.asarray, converted.params))
    for name, array in found.items():
        check(array, golden[f"{case}/{name}"], LIMIT)
    check_norms(norms_as_published(convert, listing, gradients), golden[f"{case}/norms"], LIMIT)


@pytest.mark.full
@pytest.mark.parametrize("case", FLAGS)
def test_guided_diffusion(case):
    """Classifiers are shown images of their size, whose places they pool; UNets an eighth of it."""
    side = int(case.partition("x")[0]) if case[0].isdigit() else 256
    side = side if "classifier" in case else side // 8
    named = any("label_emb" in str(line) for line in ADM[f"{case}/names"])
    x, cotangent = normal(f"{case} x", (1, side, side, 3)), normal(f"{case} cotangent", ADM[f"{case}/out"].shape)

    def of(network, params):
        told = [] if "classifier" in case else [{"label": LABEL} if named else {}]
        out = network.apply(params, {}, x, T, *told)[0]
        return (out * cotangent).mean(), {"out": out}

    check_against(ADM, case, lambda state: from_adm(state, **FLAGS[case], where="golden"), of)


@pytest.mark.full
def test_latent_diffusion():
    x, cotangent = (normal(f"cin256 {name}", (1, 8, 8, 3)) for name in ("x", "cotangent"))

    def convert(state):
        return from_ldm(
            {name if name == CLASSES else UNET + name: array for name, array in state.items()},
            num_heads=1,
            where="golden",
        )

    def of(network, params):
        out = network.apply(params, {}, x, T, {"label": LABEL})[0]
        return (out * cotangent).mean(), {"out": out}

    check_against(LDM, "cin256-v2", convert, of)


@pytest.mark.full
@pytest.mark.parametrize("case", FIRST_STAGES)
def test_first_stages(case):
    """Code of an image, and image of a code that is not moved to the codebook."""
    code, image = (LDM[f"{case}/{name}"].shape for name in ("code", "decoded"))
    x, z = normal(f"{case} x", image), normal(f"{case} z", (1, 8, 8, 4 if case == "kl-f8" else 3))

    def of(network, params):
        found, _ = network.apply(params, {}, x, method="encode")
        features, _ = network.apply(params, {}, z, method="features")
        decoded, _ = network.apply(params, {}, features, method="to_image")
        value = (found * normal(f"{case} code cotangent", code)).mean()
        return value + (decoded * normal(f"{case} cotangent", image)).mean(), {"code": found, "decoded": decoded}

    check_against(LDM, case, lambda state: from_vqgan(state, where="golden"), of)
