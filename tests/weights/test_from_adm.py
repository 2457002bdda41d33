"""Checkpoints of other projects: shapes read off the arrays, every name used once, and no pickle run."""

import argparse
import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks.classifier_adm import NoisyClassifier, NoisyClassifierConfig
from diffpath_jax.networks.kinds import KINDS
from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.unet_adm import UNet, UNetConfig
from diffpath_jax.runs import run as runs
from diffpath_jax.weights import from_adm, safetensors_file, torch_files
from tests.conftest import random_parameters, train_words
from tests.golden import weights
from tests.weights import published

NETWORKS = weights.load("adm_networks.npz")


def golden(case):
    return weights.state_dict(NETWORKS[f"{case}/names"])


def theirs(config):
    """The arrays of a published network of this shape, without memory."""
    module = NoisyClassifier if isinstance(config, NoisyClassifierConfig) else UNet
    like = published.shapes(module, config)
    return published.empty(like, from_adm.adm_names(like))


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(num_classes=1000, learn_sigma=True),
        UNetConfig(
            num_classes=6, channels=128, channel_mult=(1, 2, 2, 2), num_res_blocks=3, attention_downsamples=(4, 8)
        ),
        UNetConfig(num_classes=0, channel_mult=(1, 1, 2, 2, 4, 4), attention_downsamples=(8, 16, 32), film=False),
        UNetConfig(num_classes=5, channel_mult=(1, 2, 3), attention_downsamples=(2, 4), resample="conv"),
        NoisyClassifierConfig(num_classes=1000),
        NoisyClassifierConfig(
            num_classes=5, channel_mult=(1, 2, 2, 2), pool_side=4, num_res_blocks=4, attention_downsamples=(2, 8)
        ),
    ],
    ids=["adm-128", "other", "unconditional", "conv", "classifier", "other-classifier"],
)
def test_shapes_are_read_off_the_arrays(config):
    found = from_adm.adm_config(theirs(config), num_heads=config.num_heads, head_channels=config.head_channels)
    assert found == config


def test_a_converted_network_computes_what_the_original_does():
    converted = from_adm.from_adm(golden("film"), num_heads=4, where="golden")
    network = purify(lambda rngs: UNet(converted.config, dtype=jnp.float32, rngs=rngs))
    x, t = jnp.asarray(weights.normal("film x", (2, 16, 16, 3))), jnp.array([3, 870])
    out, _ = jax.jit(network.apply)(converted.params, {}, x, t, {"label": jnp.array([1, 3])})
    assert weights.relative_error(out, NETWORKS["film/out"]) < 1e-5


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.pop("middle_block.1.qkv.weight"), "missing"),
        (lambda s: s.update(extra=np.zeros(3, np.float32)), "not used"),
        (lambda s: s.update({"out.0.weight": np.zeros(7, np.float32)}), "does not fit"),
        (lambda s: s.clear(), "input_blocks.0.0.weight"),
    ],
)
def test_a_checkpoint_that_is_not_the_network_is_refused(spoil, why):
    state = golden("film")
    spoil(state)
    with pytest.raises(DiffpathError, match=why):
        from_adm.from_adm(state, where="spoiled")


def tiny(**other):
    config = UNetConfig(
        **{"num_classes": 3, "channels": 16, "channel_mult": (1,), "num_res_blocks": 1, "groups": 8,
           "attention_downsamples": (), **other}
    )  # fmt: skip
    network = purify(lambda rngs: UNet(config, dtype=jnp.float32, rngs=rngs))
    return random_parameters(network.init)[0]


def test_safetensors_round_trip(tmp_path):
    flat = safetensors_file.flatten(tiny())
    safetensors_file.write_parameters(tmp_path / "p.safetensors", flat, {"step": 3})
    back, about = safetensors_file.read_parameters(tmp_path / "p.safetensors")
    assert about == {"step": 3}
    assert back.keys() == flat.keys()
    assert all(np.array_equal(back[name], flat[name]) for name in flat)


def test_parameters_are_taken_over_on_stated_rules():
    source = safetensors_file.flatten(jax.tree.map(lambda x: x + 1, tiny(num_classes=1000, learn_sigma=True)))
    fresh = tiny(num_classes=4)
    adapted = safetensors_file.adapt(source, fresh, where="test")
    taken = safetensors_file.flatten(adapted.params)
    assert len(adapted.notes) == 3  # embedding, kernel and bias of the last convolution
    np.testing.assert_allclose(taken["classes.embedding"], np.tile(source["classes.embedding"].mean(0), (4, 1)))
    np.testing.assert_array_equal(taken["out_conv.kernel"], source["out_conv.kernel"][..., :3])
    same = set(taken) - {"classes.embedding", "out_conv.kernel", "out_conv.bias"}
    assert all(np.array_equal(taken[name], source[name]) for name in same)
    # The other way round: variance channels start at zero, the middle of the learned range.
    wider = safetensors_file.flatten(
        safetensors_file.adapt(taken, tiny(num_classes=4, learn_sigma=True), where="test").params
    )
    assert not wider["out_conv.kernel"][..., 3:].any()


def test_parameters_of_another_network_are_refused():
    with pytest.raises(DiffpathError, match="names missing"):
        safetensors_file.adapt(safetensors_file.flatten(tiny()), tiny(num_res_blocks=2), where="test")
    with pytest.raises(DiffpathError, match="has shape"):
        safetensors_file.adapt(safetensors_file.flatten(tiny()), tiny(channels=32), where="test")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{}", (2**63 - 1).to_bytes(8, "little") + b"{", b"\x80\x04N."])
def test_what_is_not_safetensors_is_refused(tmp_path, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(DiffpathError, match="not a safetensors file"):
        safetensors_file.read_parameters(tmp_path / "bad.safetensors")


def test_convert_then_fine_tune_then_export(tmp_path, dataset, capsys):
    """A published network with other classes starts a run; the run's parameters go out again."""
    config = UNetConfig(
        num_classes=9, channels=32, channel_mult=(1,), num_res_blocks=1, attention_downsamples=(), learn_sigma=True
    )
    state = {name: weights.weight(name, array.shape) for name, array in theirs(config).items()}
    safetensors_file.write_parameters(tmp_path / "public.safetensors", state, {})
    words = ["--from", "adm", "--file", tmp_path / "public.safetensors", "--out", tmp_path / "ours.safetensors"]
    assert cli.main(["convert", *map(str, words)]) == 0
    keys = {
        "data.train": dataset,
        "optim.learning_rate": 0.0,
        "optim.muon_learning_rate": 0.0,
        "train.init_from": tmp_path / "ours.safetensors",
        "network.channel_mult": "(1,)",
        "network.groups": 32,
        "network.stem_block": 1,
    }
    options = [f"--config.{name}={value}" for name, value in keys.items()]
    run = ["train", "--config", "configs/demo_ddpm.py:debug", "--workdir", str(tmp_path / "run"), *options]
    assert cli.main(run) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "classes.embedding: (9, 128) -> (3, 128), every row the mean" in said
    words = ["--workdir", tmp_path / "run", "--out", tmp_path / "out.safetensors"]
    assert cli.main(["export", *map(str, words)]) == 0
    exported, about = safetensors_file.read_parameters(tmp_path / "out.safetensors")
    assert about["step"] == 2
    given, _ = safetensors_file.read_parameters(tmp_path / "ours.safetensors")
    # The learning rate was zero: what was taken over is still there.
    np.testing.assert_array_equal(exported["encoder.stem.kernel"], given["encoder.stem.kernel"])
    np.testing.assert_array_equal(exported["out_conv.kernel"], given["out_conv.kernel"][..., :3])


def test_a_pickle_in_disguise_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DiffpathError, match="not a PyTorch file of arrays alone"):
        torch_files.read_torch(tmp_path / "evil.pt")


class Saved:
    """What someone pickled whole."""


def test_an_object_in_the_way_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": Saved()}, tmp_path / "whole.pt")
    with pytest.raises(DiffpathError) as error:
        torch_files.read_torch(tmp_path / "whole.pt")
    assert f"an object of class {__name__}.Saved, whose code would have to run" in str(error.value)
    (tmp_path / "text.pt").write_bytes(b"hello")
    with pytest.raises(DiffpathError, match="or it is damaged"):
        torch_files.read_torch(tmp_path / "text.pt")


STATE = {"a.weight": [1.0, 2.0], "b.bias": [3.0]}


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: state, ""),
        (lambda state: {"model": state, "optimizer": {"state": {0: {"m": state["a.weight"]}}}, "epoch": 3}, ""),
        (lambda state: {"ema": state, "args": argparse.Namespace(lr=1)}, ""),
        (lambda state: {"model_state_dict": state, "loss": 0.5}, ""),
        (lambda state: {"state_dict": state, "ema": state}, ""),
        (lambda state: {"weights of mine": state, "config": {"width": 3}}, ""),
        (lambda state: state, "module."),
        (lambda state: {"model": state}, "model."),
        (lambda state: state, "_orig_mod.module."),
        (lambda state: {**state, "n_averaged": next(iter(state.values()))[0]}, "module."),
    ],
)
def test_the_weights_are_found_in_what_training_programs_save(tmp_path, wrap, prefix):
    torch = pytest.importorskip("torch")
    torch.save(wrap({prefix + name: torch.tensor(values) for name, values in STATE.items()}), tmp_path / "saved.pt")
    found = torch_files.read_torch(tmp_path / "saved.pt")
    assert {name: array.tolist() for name, array in found.items()} == STATE


def test_several_sets_of_weights_are_named_and_one_can_be_chosen(tmp_path):
    torch = pytest.importorskip("torch")
    first, second = ({name: torch.tensor(v) * factor for name, v in STATE.items()} for factor in (1, 2))
    torch.save({"model": first, "ema": second}, tmp_path / "both.pt")
    with pytest.raises(DiffpathError, match="it holds model and ema; fix: choose one of them with --entry"):
        torch_files.read_torch(tmp_path / "both.pt")
    assert torch_files.read_torch(tmp_path / "both.pt", entry="ema")["b.bias"].tolist() == [6.0]
    with pytest.raises(DiffpathError, match="it has model, ema"):
        torch_files.read_torch(tmp_path / "both.pt", entry="nothing")


def test_a_latent_diffusion_model_keeps_its_prefix(tmp_path):
    torch = pytest.importorskip("torch")
    name = "model.diffusion_model.out.0.weight"
    torch.save({name: torch.zeros(2)}, tmp_path / "ldm.pt")
    assert list(torch_files.read_torch(tmp_path / "ldm.pt")) == [name]


def test_a_real_pytorch_file_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = golden("film")
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, tmp_path / "unet.pt")
    found = torch_files.read_torch(tmp_path / "unet.pt")
    assert all(np.array_equal(found[name], state[name]) for name in state)


def test_a_lightning_checkpoint_is_read_without_lightning(tmp_path, monkeypatch):
    """Its weights are in ``state_dict``; beside them is a class that is not there when the file is read."""
    torch = pytest.importorskip("torch")
    home = "pytorch_lightning.callbacks.model_checkpoint"
    with monkeypatch.context() as patched:
        modules = [types.ModuleType(home.rsplit(".", depth)[0]) for depth in (2, 1, 0)]
        modules[-1].ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": home})
        for module in modules:
            patched.setitem(sys.modules, module.__name__, module)
        callbacks = {modules[-1].ModelCheckpoint: {"best_model_score": torch.tensor(1.0)}}
        content = {"state_dict": {"a.weight": torch.arange(3).half()}, "callbacks": callbacks, "epoch": 7}
        torch.save(content, tmp_path / "model.ckpt")
    assert not {home, "pytorch_lightning"} & sys.modules.keys()
    found = torch_files.read_torch(tmp_path / "model.ckpt")
    assert found.keys() == {"a.weight"} and found["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(found["a.weight"], [0, 1, 2])


def test_half_precision_becomes_single(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(3, dtype=np.float16)}, tmp_path / "half.safetensors")
    found = torch_files.read_torch(tmp_path / "half.safetensors")["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [0, 1, 2])


@pytest.mark.parametrize(
    ("source", "what"),
    [("vqgan", "first stage"), ("ldm", "class-conditional UNet"), ("lpips", "LPIPS"), ("inception", "Inception")],
)
def test_another_projects_file_is_one_line(tmp_path, capsys, source, what):
    """A UNet of guided-diffusion, given to every other source."""
    safetensors_file.write_parameters(tmp_path / "unet.safetensors", golden("film"), {})
    words = ["--from", source, "--file", tmp_path / "unet.safetensors", "--out", tmp_path / "out.safetensors"]
    words += ["--unverified"] if source == "inception" else []
    assert cli.main(["convert", *map(str, words)]) == ExitCode.DAMAGED
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: checkpoint in ") and what in line and "is missing" in line and len(line) < 600
    assert f"its {len(golden('film'))} arrays are called input_blocks.0.0.bias, input_blocks.0.0.weight and so" in line
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["convert", "--from", "adn", "--file", "x", "--out", "x.safetensors"], "unknown"),
        (["convert", "--from", "adm", "--file", "nowhere.safetensors", "--out", "x.safetensors"], "no such file"),
        (["convert", "--from", "adm", "--file", "x", "--out", "x.npz"], "not a .safetensors"),
        (["export", "--workdir", "nowhere", "--out", "x.safetensors"], "no such file"),
    ],
)
def test_bad_commands(capsys, words, why):
    assert cli.main(words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("case", "kind"), [("film", "unet_adm"), ("classifier", "noisy_classifier")])
def test_configs_say_what_they_convert_to(case, kind):
    converted = from_adm.from_adm(golden(case), where="golden")
    assert converted.about()["network"] == {"kind": kind, **dataclasses.asdict(converted.config)}
    assert KINDS[kind].config is type(converted.config)


@pytest.mark.full
def test_a_run_can_start_from_another_run(tmp_path, dataset):
    assert cli.main(train_words(tmp_path / "first", dataset)) == 0
    still = ["--config.optim.learning_rate=0.0", "--config.optim.muon_learning_rate=0.0"]
    start = f"--config.train.init_from={tmp_path / 'first'}"
    assert cli.main([*train_words(tmp_path / "second", dataset), *still, start]) == 0
    first, second = (runs.load_parameters(runs.open_run(tmp_path / name)).params for name in ("first", "second"))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


PUBLISHED = weights.load("adm_published.npz")
# Case -> the options of `convert` that its README's flags stand for.
FLAGS = {
    "new_order": {"head_channels": 16, "attention_order": "new", "noise_schedule": "cosine"},
    "narrow": {"head_channels": 16},
    "bare": {"head_channels": 16},
    "bare_conv": {"head_channels": 16},
}


@pytest.mark.parametrize(
    "case", ["new_order", "bare", *(pytest.param(case, marks=pytest.mark.full) for case in ("narrow", "bare_conv"))]
)
def test_every_published_shape_computes_what_the_original_does(case):
    converted = from_adm.from_adm(weights.state_dict(PUBLISHED[f"{case}/names"]), **FLAGS[case], where="golden")
    network = purify(lambda rngs: UNet(converted.config, dtype=jnp.float32, rngs=rngs))
    channels = converted.config.image_channels
    x, t = jnp.asarray(weights.normal(f"{case} x", (2, 8, 8, channels))), jnp.array([3, 870])
    out, _ = jax.jit(network.apply)(converted.params, {}, x, t, {"label": jnp.array([1, 3])})
    assert weights.relative_error(out, PUBLISHED[f"{case}/out"]) < 1e-5
    assert converted.config.learn_sigma
    assert converted.about()["noise"]["schedule"] == FLAGS[case].get("noise_schedule", "linear")


def test_a_classifier_narrower_than_its_base_computes_what_the_original_does():
    converted = from_adm.from_adm(
        weights.state_dict(PUBLISHED["narrow_classifier/names"]), head_channels=16, where="golden"
    )
    assert converted.config.channel_mult == (0.5, 1)
    network = purify(lambda rngs: NoisyClassifier(converted.config, dtype=jnp.float32, rngs=rngs))
    x = jnp.asarray(weights.normal("narrow classifier x", (2, 16, 16, 3)))
    out, _ = jax.jit(network.apply)(converted.params, {}, x, jnp.array([3, 870]))
    assert weights.relative_error(out, PUBLISHED["narrow_classifier/out"]) < 1e-5


def test_the_order_of_attention_is_not_guessed():
    """Read in the other order, the same arrays are another network: nothing in them tells."""
    state = weights.state_dict(PUBLISHED["new_order/names"])
    orders = [from_adm.from_adm(state, head_channels=16, attention_order=o, where="g") for o in ("new", "legacy")]
    kernels = [found.params["encoder"]["middle"][0]["attention"]["qkv"]["kernel"] for found in orders]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(*(np.sort(kernel, axis=None) for kernel in kernels))


@pytest.mark.parametrize(
    ("case", "options", "why"),
    [
        ("new_order", {"head_channels": -1}, "--head_channels in golden: -1 does not divide"),
        ("new_order", {"head_channels": 48}, "48 does not divide the 64 channels"),
        ("new_order", {"num_heads": -4}, "--num_heads in golden: -4 does not divide"),
        ("new_order", {"num_heads": 3}, "3 does not divide the 64 channels"),
        ("narrow_classifier", {"num_heads": 4}, "use --head_channels"),
        ("narrow_classifier", {}, None),
    ],
)
def test_heads_that_cannot_be_are_refused(case, options, why):
    state = weights.state_dict(PUBLISHED[f"{case}/names"])
    if why is None:
        assert "heads of 64 channels are assumed" in from_adm.from_adm(state, where="golden").notes[0]
        return
    with pytest.raises(DiffpathError) as error:
        from_adm.from_adm(state, **options, where="golden")
    assert why in str(error.value)


def test_heads_that_are_assumed_are_said():
    state = weights.state_dict(PUBLISHED["new_order/names"])
    assert from_adm.from_adm(state, head_channels=16, where="golden").notes == ()
    (note,) = from_adm.from_adm(state, where="golden").notes
    assert "4 heads are assumed" in note
