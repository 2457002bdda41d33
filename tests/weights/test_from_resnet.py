"""ResNet-50 from torchvision and timm: every name used once, running statistics too, and a run that begins with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks.codecs import to_unit
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.runs import warm_start
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import from_resnet, safetensors_file
from tests.conftest import random_parameters
from tests.golden import weights


@functools.cache
def drawn():
    return weights.state_dict(weights.load("resnet.npz")["names"])


def published():
    """As a file holds it: a counter in each of the 53 norms besides."""
    counters = {name.replace("weight", "num_batches_tracked"): np.float32(7) for name in drawn() if is_norm(name)}
    assert len(counters) == 53
    return drawn() | counters


def is_norm(name):
    return name.endswith("weight") and drawn()[name].ndim == 1


def convert(file, out):
    return cli.main(["convert", "--from", "resnet50", "--file", str(file), "--out", str(out)])


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("resnet50")
    safetensors_file.write_parameters(directory / "published.safetensors", published(), {})
    assert convert(directory / "published.safetensors", directory / "ours.safetensors") == 0
    return directory / "ours.safetensors"


def test_every_array_is_there_and_in_its_place(converted):
    flat, about = safetensors_file.read_parameters(converted)
    params, state = safetensors_file.split_network(flat)
    assert sum(array.size for array in params.values()) == 25_557_032
    assert len(state) == 2 * 53
    assert sum(map(np.sum, flat.values())) == pytest.approx(sum(map(np.sum, drawn().values())), rel=1e-4)
    np.testing.assert_array_equal(state["blocks.3.skip.norm.var"], drawn()["layer2.0.downsample.1.running_var"])
    np.testing.assert_array_equal(
        params["blocks.15.spatial.conv.kernel"], drawn()["layer4.2.conv2.weight"].transpose(2, 3, 1, 0)
    )
    assert about["network"]["standardise"] and about["network"]["num_classes"] == 1000


def test_pytorch_files_are_read_with_and_without_a_wrapper(tmp_path, converted):
    """``{"state_dict": ...}`` of training scripts, names of DataParallel, and safetensors: the same parameters."""
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in published().items()}
    parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
    for number, content in enumerate((tensors, {"state_dict": parallel, "epoch": 600})):
        torch.save(content, tmp_path / f"{number}.pth")
        assert convert(tmp_path / f"{number}.pth", tmp_path / "out.safetensors") == 0
        digests = [safetensors_file.read_parameters(p)[1]["digest"] for p in (tmp_path / "out.safetensors", converted)]
        assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda state: state.pop("fc.bias"), "fc.bias is missing"),
        (lambda state: state.pop("layer3.2.bn1.running_var"), "layer3.2.bn1.running_var"),
        (lambda state: state.update({"conv1.0.weight": state.pop("conv1.weight")}), "conv1.weight"),
        (lambda state: state.update({"layer3.6.conv1.weight": state["layer3.5.conv1.weight"]}), "not used: layer3.6"),
        (lambda state: state.update({"bn1.bias": np.full(64, np.nan, np.float32)}), "not finite"),
        (lambda state: state.update({"layer1.0.conv1.weight": np.zeros((64, 64, 3, 3), np.float32)}), "does not fit"),
    ],
    ids=["no head", "no statistics", "resnet50d", "resnet101", "nan", "basic blocks"],
)
def test_other_networks_are_refused(spoil, why):
    state = published()
    spoil(state)
    with pytest.raises(DiffpathError, match=why) as caught:
        from_resnet.from_resnet(state, where="test")
    assert caught.value.code == ExitCode.DAMAGED


def settings(init_from, **network):
    return checks.run_config(
        {
            "task": "classification",
            "seed": 3,
            "dtype": "float32",
            "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
            "network": {"kind": "resnet", **network},
            "optim": {},
            "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1, "init_from": str(init_from)},
        },
        where="test",
    )


def test_a_run_begins_with_it_and_a_head_for_its_own_classes(converted, capsys):
    params, state = safetensors_file.split_network(safetensors_file.read_parameters(converted)[0])
    start = warm_start.starting_point(settings(converted, standardise=True), num_classes=5)
    found = safetensors_file.flatten(start.params[NETWORK])
    assert found["head.kernel"].shape == (2048, 5) and found["head.kernel"].std() > 0
    same = {name for name in params if np.array_equal(params[name], found[name])}
    assert params.keys() - same == {"head.kernel", "head.bias"}
    remembered = safetensors_file.flatten(start.model_state[NETWORK])
    assert remembered.keys() == state.keys()
    assert all(np.array_equal(state[name], remembered[name]) for name in state)
    said = capsys.readouterr().err.replace("\n", " ")
    assert "head.kernel" in said and "a fresh start" in said


def test_with_the_same_classes_the_head_is_kept(converted):
    params, _ = safetensors_file.split_network(safetensors_file.read_parameters(converted)[0])
    network = purify(lambda rngs: ResNet(ResNetConfig(num_classes=1000), dtype=jnp.float32, rngs=rngs))
    shapes, _ = jax.eval_shape(network.init, jax.random.key(0))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    adapted = safetensors_file.adapt(params, fresh, where="test")
    assert not adapted.notes
    np.testing.assert_array_equal(adapted.params["head"]["kernel"], params["head.kernel"])


def test_colours_must_be_given_as_the_weights_expect_them(converted):
    with pytest.raises(DiffpathError, match=r"add --config.network.standardise=True"):
        warm_start.starting_point(settings(converted), num_classes=5)


def test_colours_are_standardised_as_by_torchvision():
    """``(x / 255 - mean) / std`` with the published numbers (torchvision, "ImageNet normalisation")."""
    pixels = weights.integers("pixels", 256, (2, 9, 9, 3)).astype(np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    shapes = {"width": 4, "stage_sizes": (1,), "num_classes": 2}
    plain, standardised = (
        purify(lambda rngs, s=s: ResNet(ResNetConfig(**shapes, standardise=s), dtype=jnp.float32, rngs=rngs))
        for s in (False, True)
    )
    params, state = random_parameters(plain.init)
    expected, _ = plain.apply(params, state, jnp.asarray((pixels / 255 - mean) / std, jnp.float32), train=False)
    found, _ = standardised.apply(params, state, to_unit(jnp.asarray(pixels)), train=False)
    assert weights.relative_error(found[0], np.asarray(expected[0])) < 1e-5
