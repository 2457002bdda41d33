"""Every config: its debug variant trains and samples, the others are the networks they say they are."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.noise import schedule
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io import packaged
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.pure import count_parameters
from diffpath_jax.runs.cost import plan
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.metrics_log import read_metrics
from tests.conftest import train_words

PKGH = ["configs/ddpm_pkgh224.py", "configs/ddpm_pkgh336.py"]


def load(path):
    return checks.run_config(config_files.load(path, [], checks.with_defaults), where=path)


def network(config):
    """As it is for the paper's five classes."""
    return make_network(config.network_for(5), dtype=config.dtype)


@pytest.mark.parametrize(
    ("variant", "parameters"), [("", 420_511_750), ("small", 105_201_670), ("author_code", 58_663_683)]
)
def test_variants_are_the_published_networks(variant, parameters):
    found = load(f"{PKGH[0]}:{variant}" if variant else PKGH[0])
    assert count_parameters(network(found)) == parameters
    assert schedule(found.noise).num_steps == 1000


VQGAN, LDM = "configs/vqgan_f4_pkgh.py", ["configs/ldm_pkgh224.py", "configs/ldm_pkgh336.py"]


def test_latent_diffusion_is_the_published_one():
    """The class embedding, 512 numbers for each class and the null class, is not counted there."""
    assert count_parameters(network(load(VQGAN))) == 55_322_782
    found = load(LDM[0])
    assert count_parameters(network(found)) - 6 * 512 == 306_107_907
    alpha_bar = schedule(found.noise).alpha_bar
    np.testing.assert_allclose(alpha_bar[[0, 1, 500, 999]], [0.9985, 0.9969944271, 0.1149220009, 1.423039752e-4])


@pytest.mark.full
def test_an_autoencoder_and_a_latent_model_train_and_sample(tmp_path, dataset):
    """Their debug variants through the command line, with a discriminator from the second step on."""

    def train(name, path, **keys):
        options = [f"--config.{key}={value}" for key, value in keys.items()]
        assert cli.main(["train", "--config", f"{path}:debug", "--workdir", str(tmp_path / name), *options]) == 0
        return {key for row in read_metrics(tmp_path / name) for key in row}

    assert {"network/l1", "network/codebook_used", "discriminator/loss", "val_psnr"} <= train(
        "vqgan", VQGAN, **{"data.train": dataset}
    )
    keys = {"data.train": dataset, "codec.first_stage": tmp_path / "vqgan"}
    assert {"loss", "val_loss", "loss_noise_1of4"} <= train("ldm", LDM[0], **keys)
    words = ["sample", "--workdir", tmp_path / "ldm", "--out", tmp_path / "out", "--num_per_class", 1, "--steps", 2]
    assert cli.main([str(word) for word in words]) == 0
    assert open_dataset(tmp_path / "out").schema.image_px == open_dataset(dataset).schema.image_px


NOISY = "configs/noisy_classifier_pkgh224.py"


def test_the_noisy_classifier_is_the_published_one_and_fits_its_model():
    assert count_parameters(network(load(NOISY))) == 42_057_605
    for variant in ("paper", "author_code"):
        assert load(f"{NOISY}:{variant}").noise == load(f"{PKGH[0]}:{variant}").noise


@pytest.mark.full
def test_a_noisy_classifier_trains_and_guides_at_every_size(tmp_path, dataset, capsys):
    """Its debug variant through the command line; then a sample set of another patch size with both guidances."""
    workdirs = {name: tmp_path / name for name in ("noisy", "ddpm")}
    for name, path in (("noisy", NOISY), ("ddpm", PKGH[0])):
        words = ["train", "--config", f"{path}:debug", "--workdir", workdirs[name], f"--config.data.train={dataset}"]
        assert cli.main(list(map(str, words))) == 0
    rows = read_metrics(workdirs["noisy"])
    assert {"loss", "accuracy", "val_loss", "loss_noise_1of4"} <= {name for row in rows for name in row}
    guided = ["--classifier", workdirs["noisy"], "--classifier_scale", 2, "--guidance", 1]
    for sampler, side in (("ddpm", 24), ("dpmpp", 16)):
        words = ["sample", "--workdir", workdirs["ddpm"], "--num_per_class", 1, "--patch_px", side, "--steps", 3]
        words += ["--sampler", sampler, "--batch_size", 2]
        for name, more in (("plain", []), ("guided", guided)):
            assert cli.main([str(w) for w in (*words, "--out", tmp_path / f"{sampler}-{name}", *more)]) == 0
        plain, moved = (open_dataset(tmp_path / f"{sampler}-{name}") for name in ("plain", "guided"))
        assert plain.schema.image_px == moved.schema.image_px == (side, side)
        assert plain.digest != moved.digest


RESNET = "configs/resnet50_pkgh.py"


def test_the_classifier_is_resnet_50():
    for variant in ("paper", "small"):
        found = load(f"{RESNET}:{variant}")
        assert count_parameters(make_network(found.network_for(5), dtype=found.dtype)) == 23_518_277
        assert found.optim.accumulate == 1  # of parts of a batch, each would be normalised by itself


@pytest.mark.full
def test_arms_of_a_study_differ_in_their_mixture_alone(tmp_path, dataset, samples, capsys):
    """Generated images alone, watched on real ones; then an amount that is not there, which leaves nothing behind."""

    def train(name, mixture, *more):
        keys = {"data.train": f"{dataset},{samples}", "data.mixture": mixture}
        words = ["train", "--config", f"{RESNET}:debug", "--workdir", tmp_path / name]
        return cli.main([*map(str, words), *(f"--config.{key}={value}" for key, value in keys.items()), *more])

    assert train("generated", "(0.0, 0.06)") == 0
    rows = read_metrics(tmp_path / "generated")
    assert {"loss", "accuracy", "val_accuracy"} <= {name for row in rows for name in row}
    assert train("both", "(1.0, 0.06)", "--config.classifier.balance=draw") == 0
    assert train("generated", "(1.0, 0.06)") == ExitCode.REFUSED
    assert "another data.mixture" in capsys.readouterr().err.replace("\n", " ")
    assert train("too_many", "(0.0, 9.0)") == ExitCode.BAD_INPUT
    assert "and its train split has" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "too_many").exists()


@pytest.mark.parametrize("paths", [PKGH, LDM], ids=["ddpm", "ldm"])
@pytest.mark.parametrize("variant", ["paper", "small", "best", "author_code", "debug"])
def test_both_fields_of_view_have_the_same_variants(paths, variant):
    assert load(f"{paths[0]}:{variant}") == load(f"{paths[1]}:{variant}")


def test_the_authors_quirks_are_in_their_variant_only():
    quirks, paper = load(f"{PKGH[0]}:author_code"), load(PKGH[0])
    assert (quirks.noise.beta_end, paper.noise.beta_end) == (1e-2, 2e-2)
    assert (quirks.diffusion.label_dropout_group, paper.diffusion.label_dropout_group) == (8, 1)
    assert (quirks.optim.ema_decay, paper.optim.ema_decay) == (0.0, 0.9999)
    assert (quirks.data.augment, paper.data.augment) == ("hflip", "dihedral")


RUN_CONFIGS, STUDY_CONFIGS = (packaged.config_names(studies=studies) for studies in (False, True))


@pytest.mark.parametrize("name", [*RUN_CONFIGS, *STUDY_CONFIGS])
def test_headers_say_what_a_user_asks(name):
    header = Path(f"configs/{name}.py").read_text().split('"""')[1]
    command = f"study --config diffpath:{name}" if name in STUDY_CONFIGS else f"train --config configs/{name}.py"
    assert f"diffpath {command}" in header
    for word in ("Paper", "Expected", "Variants", "ost"):
        assert word in header, word


@pytest.mark.full
def test_the_debug_variant_trains_looks_and_samples(tmp_path, dataset):
    """Hybrid loss, learned variance, previews, stain drift, validation loss; then DDPM with the learned variance."""
    workdir = tmp_path / "run"
    words = ["train", "--config", f"{PKGH[0]}:debug", "--workdir", workdir, f"--config.data.train={dataset}"]
    assert cli.main(list(map(str, words))) == 0
    rows = read_metrics(workdir)
    names = {name for row in rows for name in row}
    assert {"loss", "bound_bits", "loss_noise_1of4", "images_per_second", "share_of_peak", "val_loss"} <= names
    assert {f"stain/{s}_{w}" for s in ("haematoxylin", "eosin") for w in ("shift", "spread_ratio")} <= names
    assert len(list((workdir / "previews").glob("*.png"))) == 2
    best = Checkpoints(workdir, keep_best="val_loss").best()
    assert best == min((row for row in rows if "val_loss" in row), key=lambda row: row["val_loss"])["step"]
    sample = ["sample", "--workdir", workdir, "--num_per_class", 2, "--steps", 3, "--batch_size", 2]
    for name, *options in (("learned",), ("best", "--checkpoint", "best"), ("small", "--variance", "small")):
        assert cli.main([str(w) for w in (*sample, "--out", tmp_path / name, *options)]) == 0
    images = {name: [r.image for r in open_dataset(tmp_path / name).read("train")] for name in ("learned", "small")}
    assert not np.array_equal(images["learned"], images["small"])


def test_a_frechet_distance_can_be_watched(tmp_path, dataset, resnet_run):
    workdir = tmp_path / "run"
    keys = {
        "train.fd_features": resnet_run,
        "train.fd_images": 16,
        "train.eval_every": 2,
        "train.checkpoint_every": 2,
        "train.keep_best": "FD-resnet16",
    }
    assert cli.main(train_words(workdir, dataset, keys)) == 0
    distance = next(row["FD-resnet16"] for row in read_metrics(workdir) if "FD-resnet16" in row)
    assert np.isfinite(distance) and distance > 0
    assert Checkpoints(workdir, keep_best="FD-resnet16").best() == 2


def test_a_dry_run_needs_no_data_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(__file__).parents[2] / PKGH[0]
    words = ["train", "--config", f"{path}:debug", "--dry_run", "--devices", "4", "--peak_tflops", "100"]
    assert cli.main(words) == 0
    said = capsys.readouterr().err
    for word in (
        "parameters",
        "network/encoder/stem/kernel",
        "GFLOP an image",
        "GiB a device",
        "hours at 40%",
        "data 4 x fsdp 1",
    ):
        assert word in said
    assert not list(tmp_path.iterdir())


def small_plan(devices=1, fsdp=1, accumulate=1, **network):
    found = load(f"{PKGH[0]}:debug")
    content = found.as_json()
    content["network"] |= network
    content["train"]["fsdp"], content["optim"]["accumulate"] = fsdp, accumulate
    content["data"]["batch_size"] = 64
    return plan(checks.run_config(content, where="test"), image_px=(32, 32), num_classes=5, devices=devices)


def test_a_plan_counts_what_it_says():
    one = small_plan()
    # Parameters, their average and Adam's two moments, float32.
    assert 4 * 4 * one.parameters <= one.state_bytes <= 4.01 * 4 * one.parameters
    assert one.gradient_bytes == 4 * one.parameters
    assert one.step_flop == 3 * 64 * one.forward_flop
    np.testing.assert_allclose(one.hours(flop_per_second=one.step_flop), one.steps / 3600)
    assert small_plan(accumulate=4).saved_bytes < 0.3 * one.saved_bytes
    assert small_plan(devices=4).saved_bytes < 0.3 * one.saved_bytes
    assert small_plan(devices=4, fsdp=4).state_bytes < 0.5 * one.state_bytes
    assert small_plan(remat=True).saved_bytes < 0.5 * one.saved_bytes


def test_forward_work_is_that_of_the_convolutions():
    """A UNet of known shape, by hand: the largest part is its 3x3 convolutions."""
    found = load(f"{PKGH[0]}:debug")
    params = jax.eval_shape(network(found).init, jax.random.key(0))[0]
    # Every 3x3 kernel of the encoder's first level, its stem included, works on all 32 x 32 positions.
    at_full_size = [
        params["encoder"]["stem"],
        *(params["encoder"]["down"][0]["block"][n] for n in ("in_conv", "out_conv")),
    ]
    least = sum(2 * 32 * 32 * np.prod(layer["kernel"].shape) for layer in at_full_size)
    work = small_plan().forward_flop
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert least < work < 2 * 32 * 32 * everything
    assert found.network.stride == 4
    assert jnp.isfinite(work)


def test_a_copy_of_a_config_works_anywhere_and_imports_what_lies_beside_it(tmp_path):
    """Its own neighbour comes before the packaged one of the same name, and both are forgotten afterwards."""
    text = Path(VQGAN).read_text()
    (tmp_path / "mine.py").write_text(text)
    assert config_files.load(str(tmp_path / "mine.py"), []) == config_files.load("diffpath:vqgan_f4_pkgh", [])
    (tmp_path / "common.py").write_text(Path("configs/common.py").read_text().replace("2_000", "7"))
    assert config_files.load(str(tmp_path / "mine.py"), [])["train"]["eval_every"] == 7
    assert config_files.load(VQGAN, [])["train"]["eval_every"] == 2_000


def test_of_a_key_given_twice_the_last_counts():
    """Tuples too: the parser of flags would join them."""
    words = [f"--config.network.channel_mult={value}" for value in ("(1,2,2)", "(0.5,1,1)")]
    words += ["--config.data.batch_size=4", "--config.data.batch_size=16"]
    loaded = config_files.load("diffpath:demo_ddpm", words, checks.with_defaults)
    settings = checks.run_config(loaded, where="test")
    assert settings.network.channel_mult == (0.5, 1, 1) and settings.data.batch_size == 16
