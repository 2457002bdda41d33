"""Shared fixtures. Of eight simulated devices commands use one; tests that want more make a mesh of them."""

import gc
import json
import os
from pathlib import Path

# Most programs here run a few times only: not to optimise them is quicker, and so is not to compile one in many parts
# where two workers share two cores.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 "
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests run side by side: threads of theirs that wait for each other cost more than they gain.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most of the time goes into compiling the same few programs: share them between workers and runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import numpy as np
import pytest
import tifffile

from tests import type_checks  # noqa: F401  pyproject.toml names it: jaxtyping finds it in what is loaded

# A worker begins with the flags of the process that started it, and adds its own.
QUICK = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
# The environment of a command in a process of its own, with the one device of a laptop.
ALONE = {**os.environ, "XLA_FLAGS": QUICK}
MPP = 0.5
PINK, PURPLE, GLASS = (220, 130, 170), (110, 70, 140), (244, 243, 244)


def pytest_collection_finish():
    """What is loaded by now stays, and tracing makes few cycles: a tenth of its time is a search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def write_slide(path: Path, *, mpp: str | None = str(MPP), seed: int = 0, size: int = 1024) -> Path:
    """An Aperio-like slide: glass, a purple square (left) and a pink one (right), both grainy."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), GLASS, np.uint8)
    third = size // 8
    for left, colour in ((third, PURPLE), (size // 2, PINK)):
        block = np.array(colour) + rng.normal(0, 12, (size - 2 * third, 3 * third, 3))
        image[third : size - third, left : left + 3 * third] = block.clip(0, 255)
    scale = f"|MPP = {mpp}" if mpp is not None else ""
    description = f"Aperio Image Library v0\r\n{size}x{size} (256x256)|AppMag = 20{scale}"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", description=description, metadata=None)
    return path


def feature(name: str | None, left: float, top: float, right: float, bottom: float) -> dict:
    """A QuPath rectangle."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    classification = {"classification": {"name": name}} if name is not None else {}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", **classification},
    }


def write_annotations(path: Path, size: int = 1024) -> Path:
    third = size // 8
    features = [
        feature("Purple", third, third, 4 * third, size - third),
        feature("Pink", size // 2, third, size // 2 + 3 * third, size - third),
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """What commands find, as on a laptop: programs for eight devices take longer to compile, and to run."""
    import jax

    from diffpath_jax.devices import sharding

    make_mesh, first = sharding.make_mesh, jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "local_mesh", lambda: make_mesh(first))
        patch.setattr(sharding, "make_mesh", lambda devices=None, **axes: make_mesh(devices or first, **axes))
        yield


@pytest.fixture(scope="session", autouse=True)
def coarse_overlays():
    """Pictures of slides are drawn as ever, but with few pixels: they take most of the time of small slides."""
    from data_prep.qa import overlays

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlays, "THUMBNAIL_PX", 350)
        patch.setattr(overlays, "_DPI", 40)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk():
    """No test pulls the plug: what this process writes need not have reached the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def register(monkeypatch, registry, row):
    """Adds a row to a registry, as a package of somebody else would, for the time of a test; returns the row."""
    monkeypatch.setattr(registry, "_rows", {name: registry[name] for name in registry})
    return registry.register(row)


@pytest.fixture(scope="session")
def slide(tmp_path_factory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "one.svs")


@pytest.fixture(scope="session")
def annotated(tmp_path_factory) -> Path:
    return write_annotations(tmp_path_factory.mktemp("annotations") / "one.geojson")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, slide, annotated) -> Path:
    """A small data set made by the real command: 16 px patches of two classes."""
    from diffpath_jax import cli

    out = tmp_path_factory.mktemp("prepared") / "dataset"
    fields = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "16", "--gap_um", "16"]
    assert cli.main(["prep", "--slides", str(slide), "--annotations", str(annotated), "--out", str(out), *fields]) == 0
    return out


# A denoiser that is quick to compile, and a classifier of noisy images of the same noise.
TINY_ADM = {
    "channels": 16,
    "channel_mult": (1, 1),
    "num_res_blocks": 1,
    "attention_downsamples": (2,),
    "groups": 8,
}
TINY_DENOISER = {"task": "diffusion", "network": {"kind": "unet_adm", "num_heads": 2, **TINY_ADM}}
TINY_CLASSIFIER = {
    "task": "noisy_classification",
    "network": {"kind": "noisy_classifier", "head_channels": 8, "pool_side": 8, **TINY_ADM},
}
TINY_RESNET = {
    "task": "classification",
    "network": {"kind": "resnet", "width": 4, "stage_sizes": (1, 1), "small_images": True},
}


TINY_AUTOENCODER = {
    "task": "autoencoding",
    "network": {
        "kind": "vq_autoencoder",
        "channels": 8,
        "channel_mult": (1, 1),
        "num_res_blocks": 1,
        "groups": 4,
        "codebook_size": 16,
    },
    "autoencoding": {"adversarial_weight": 0.0},
}


def random_parameters(init, seed: int = 0):
    """Parameters of a network or a task, none of them zero, and its state as it starts.

    NumPy draws them: a program that initialises every parameter takes longer to compile than one that applies them.
    """
    import jax

    rng, key = np.random.default_rng(seed), jax.random.key(0)
    shapes, _ = jax.eval_shape(init, key)
    params = jax.tree_util.tree_map_with_path(
        lambda path, p: (path[-1].key == "scale") + 0.1 * rng.standard_normal(p.shape, np.float32), shapes
    )
    return params, jax.jit(lambda key: init(key)[1])(key)


# Of the demo's debug variant: a denoiser of one level, and an optimiser without Muon, are quick to compile.
SHALLOW = {
    "network.channels": 16,
    "network.groups": 8,
    "network.channel_mult": "(1,)",
    "optim.muon_learning_rate": 0.0,
    "optim.decay": "constant",
}


def train_words(workdir: Path, data: object, keys: dict[str, object] | None = None) -> list[str]:
    """``diffpath train`` of a denoiser that is quick to compile, with further keys of its config."""
    words = ["train", "--config", "diffpath:demo_ddpm:debug", "--workdir", str(workdir)]
    given = {"data.train": data, **SHALLOW, **(keys or {})}
    return [*words, *(f"--config.{key}={value}" for key, value in given.items())]


def write_run(workdir: Path, dataset: Path, kind: dict, **sections: dict) -> Path:
    """A run directory as training leaves it, with random parameters instead of trained ones."""
    from diffpath_jax.config import checks
    from diffpath_jax.config.tasks import make_task
    from diffpath_jax.data.manifest import open_dataset
    from diffpath_jax.runs import run as runs
    from diffpath_jax.training.checkpoint import Checkpoints

    content = {
        "seed": 0,
        "dtype": "float32",
        "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
        "noise": {"schedule": "cosine"},
        "optim": {"learning_rate": 1e-3},
        "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1},
        **({"diffusion": {"prediction": "v"}} if kind["task"] == "diffusion" else {}),
        **kind,
        **sections,
    }
    run = runs.create_or_resume(workdir, checks.run_config(content, where="test"), [open_dataset(dataset)])
    params, state = random_parameters(make_task(run.config, num_classes=len(run.classes)).init)
    checkpoints = Checkpoints(workdir, compatibility_digest=run.compatibility_digest)
    checkpoints.save(1, {"params": params, "ema": {}, "model_state": state})
    checkpoints.close()
    return workdir


@pytest.fixture(scope="session")
def denoiser_run(tmp_path_factory, dataset) -> Path:
    """A run of a tiny denoiser for 16 px patches of two classes, pink and purple."""
    return write_run(tmp_path_factory.mktemp("denoiser") / "run", dataset, TINY_DENOISER)


@pytest.fixture(scope="session")
def autoencoder_run(tmp_path_factory, dataset) -> Path:
    """A run of a tiny autoencoder for 16 px patches: latents of 8 x 8 x 3."""
    return write_run(tmp_path_factory.mktemp("autoencoder") / "run", dataset, TINY_AUTOENCODER)


@pytest.fixture(scope="session")
def resnet_run(tmp_path_factory, dataset) -> Path:
    """A run of a tiny classifier of clean images, whose 32 features are random."""
    return write_run(tmp_path_factory.mktemp("resnet") / "run", dataset, TINY_RESNET)


@pytest.fixture(scope="session")
def samples(tmp_path_factory, denoiser_run) -> Path:
    """A set of 24 generated images, 16 pink and 8 purple."""
    from diffpath_jax import cli

    out = tmp_path_factory.mktemp("samples") / "set"
    words = ["sample", "--workdir", denoiser_run, "--out", out, "--num_per_class", "pink=16,purple=8"]
    assert cli.main([str(word) for word in (*words, "--sampler", "ddim", "--steps", 2)]) == 0
    return out


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory, dataset) -> Path:
    """A run of a tiny classifier of noisy images."""
    return write_run(tmp_path_factory.mktemp("classifier") / "run", dataset, TINY_CLASSIFIER)
