"""Variants of published networks under random weights: what PyTorch makes of the files, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.config import checks
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.autoencoder import KLAutoencoder, KLConfig, VQAutoencoder, VQConfig
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.weights import from_adm, from_vqgan
from tests.config.test_ranges import content
from tests.golden import weights
from tests.weights import published

torch = pytest.importorskip("torch")
torch_networks = pytest.importorskip("tests.weights.torch_networks")
SMALL = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1}
FIRST_STAGES = {
    "vq": VQConfig(**SMALL, latent_channels=4, z_channels=6, codebook_size=24, attention_downsamples=(2,)),
    "gumbel": VQConfig(**SMALL, latent_channels=6, codebook_size=24, assignment="logits"),
    "kl": KLConfig(**SMALL, latent_channels=3, z_channels=5),
}


def drawn(like, names):
    """Arrays as a checkpoint would hold them; those of a first stage with q, k and v apart."""
    empty = published.empty(like, names)
    for name in [name for name in empty if ".qkv." in name and name.startswith(("encoder.", "decoder."))]:
        joined = empty.pop(name)
        empty |= {name.replace("qkv", part): joined[: len(joined) // 3] for part in "qkv"}
    return {name: weights.weight(name, array.shape) for name, array in empty.items()}


def probed(theirs, x, probe):
    """PyTorch's output, and its gradient with respect to the input, channels last."""
    x = torch.from_numpy(x).double().permute(0, 3, 1, 2).requires_grad_()
    out = theirs(x).permute(0, 2, 3, 1)
    (gradient,) = torch.autograd.grad((out * torch.from_numpy(probe).double()).sum(), x)
    return out.detach().numpy(), gradient.permute(0, 2, 3, 1).numpy()


def agree(ours, theirs, x, out_channels, factor=1.0):
    side = int(x.shape[1] * factor)
    probe = weights.normal("probe", (len(x), side, side, out_channels))
    out, pullback = jax.jit(lambda v: jax.vjp(ours, v))(jnp.asarray(x))
    (gradient,) = jax.jit(pullback)(jnp.asarray(probe))
    expected, expected_gradient = probed(theirs, x, probe)
    assert weights.relative_error(out, expected) < 1e-4
    assert weights.relative_error(gradient, expected_gradient) < 1e-4


@pytest.mark.parametrize("case", ["vq", "kl", pytest.param("gumbel", marks=pytest.mark.full)])
def test_first_stages(case):
    config = FIRST_STAGES[case]
    like = published.shapes(KLAutoencoder if case == "kl" else VQAutoencoder, config)
    state = drawn(like, from_vqgan.vqgan_names(like))
    found = from_vqgan.from_vqgan(state, where="test")
    assert found.config == config
    network, original = make_network(found.config, dtype="float32"), torch_networks.FirstStage(state)
    params = jax.tree.map(jnp.asarray, found.params)

    def call(method):
        return lambda x: network.apply(params, {}, x, method=method)[0]

    images, z = weights.normal("images", (2, 8, 8, 3)), weights.normal("z", (2, 4, 4, config.latent_channels))
    agree(call("encode"), original.encode, images, config.code_parts * config.latent_channels, 0.5)
    agree(lambda z: call("to_image")(call("features")(z)), original.decode, z, 3, 2)
    if case == "kl":
        return
    decoded = original.decode(original.codes(torch.from_numpy(z).double().permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    assert weights.relative_error(jax.jit(call("decode"))(jnp.asarray(z)), decoded.numpy()) < 1e-4


@pytest.mark.parametrize("order", [pytest.param("legacy", marks=pytest.mark.full), "new"])
def test_a_unet_with_other_heads_on_the_way_up(order):
    config = UNetConfig(
        num_classes=4, channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(1, 2),
        resample="conv", num_heads=4, num_heads_upsample=2, learn_sigma=True,
    )  # fmt: skip
    like = published.shapes(UNet, config)
    state = drawn(like, from_adm.adm_names(like))
    options = {"num_heads": 4, "num_heads_upsample": 2, "attention_order": order}
    found = from_adm.from_adm(state, **options, where="test")
    assert found.config == config
    heads = {"num_heads": 4, "num_heads_upsample": 2, "new_order": order == "new"}
    original, network = torch_networks.GuidedUNet(state, **heads), make_network(config, dtype="float32")
    x, t, labels = weights.normal("x", (2, 8, 8, 3)), np.array([3, 870]), np.array([1, 3])
    agree(
        lambda v: network.apply(found.params, {}, v, jnp.asarray(t), {"label": jnp.asarray(labels)})[0],
        lambda v: original(v, torch.from_numpy(t), torch.from_numpy(labels)),
        x,
        6,
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"num_heads_upsample": -2}, "--num_heads_upsample in test: -2 is no number"),
        ({"num_heads_upsample": 2, "head_channels": 16}, "--head_channels decides it"),
        ({"num_heads_upsample": 3}, "3 does not divide"),
    ],
)
def test_heads_on_the_way_up_that_cannot_be_are_refused(options, why):
    config = UNetConfig(num_classes=4, channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(1,))
    like = published.shapes(UNet, config)
    with pytest.raises(DiffpathError, match=why):
        from_adm.from_adm(drawn(like, from_adm.adm_names(like)), **options, where="test")


def test_codes_that_are_chosen_by_logits_are_not_trained():
    network = {"kind": "vq_autoencoder", "channels": 32, "channel_mult": (1, 1), "assignment": "logits"}
    with pytest.raises(DiffpathError, match=r"network\.assignment.* not trained"):
        checks.run_config(content("autoencoding", network=network), where="test")
