"""The drawing of a batch compiled without drawing it: what is said of it is what the program is."""

import jax
import pytest

from diffpath_jax import cli
from diffpath_jax.config import sections
from diffpath_jax.devices import sharding
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.runs import run as runs
from diffpath_jax.runs import topology
from diffpath_jax.sampling.compiled import compile_draw
from diffpath_jax.sampling.draw import Model
from diffpath_jax.sampling.job import SampleJob

CLASSES = ({"label": 0}, {"label": 1})


@pytest.fixture(scope="module")
def model(denoiser_run):
    run = runs.open_run(denoiser_run)
    return Model(run, runs.load_parameters(run))


def drawn_by(model, out, *, devices, batch_size):
    job = SampleJob(
        out=out,
        name="drawn",
        conditions=CLASSES,
        counts=(5, 5),
        sampler=sections.SamplerConfig(sampler="ddim", steps=2),
        image_px=(16, 16),
        batch_size=batch_size,
        seed=0,
    )
    mesh = sharding.make_mesh(jax.devices()[:devices])
    return topology.describe(compile_draw(job, model, mesh), mesh)


def test_a_device_holds_weights_and_its_batch_and_talks_to_nobody(model, tmp_path):
    program = drawn_by(model, tmp_path, devices=4, batch_size=3)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.weights))
    # Besides: the key, and number and label of each image of one device.
    assert program.argument_bytes == weights + 8 + 3 * (4 + 4)
    assert program.traffic == {}
    assert not list(tmp_path.iterdir())


def sample(model, tmp_path, *words):
    where = ["--workdir", str(model.run.workdir), "--out", str(tmp_path / "drawn")]
    return cli.main(["sample", *where, "--num_per_class", "4", "--batch_size", "2", *words])


def test_the_command_draws_nothing(model, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(topology, "slice_devices", lambda name: jax.devices()[:2])
    words = ["--sampler", "ddim", "--steps", "2", "--sweep", "eta=0.5", "--dry_run", "--topology", "v5p:2x1x1"]
    assert sample(model, tmp_path, *words) == ExitCode.OK
    said = capsys.readouterr().err
    for word in (
        "2 x cpu: compiled for",
        "weights and batch",
        "4 images on all",
        "collectives   none",
        "calls         2",
    ):
        assert word in said
    assert not (tmp_path / "drawn").exists()


def test_only_a_dry_run_has_a_topology(model, capsys, tmp_path):
    assert sample(model, tmp_path, "--topology", "v5p:2x2x1") == ExitCode.BAD_INPUT
    assert "fix: add --dry_run" in capsys.readouterr().err


def test_a_batch_that_does_not_fit_is_an_error_of_one_line(model, monkeypatch, tmp_path):
    def full(self, **_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory: used 99G of 95G\nmore")

    monkeypatch.setattr(jax.stages.Lowered, "compile", full)
    with pytest.raises(DiffpathError, match=r"used 99G of 95G; fix: lower --batch_size"):
        drawn_by(model, tmp_path, devices=2, batch_size=2)
