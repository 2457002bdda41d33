"""Averages whose length is chosen afterwards, against averages of that length that are taken directly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax.config import checks
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs
from diffpath_jax.runs.averages import reconstruct
from diffpath_jax.training.checkpoint import Checkpoints, tree_digest
from diffpath_jax.training.posthoc_ema import TRACES, Profile, combine, update
from diffpath_jax.training.tasks.task import NETWORK
from tests.conftest import TINY_DENOISER, write_run
from tests.training.test_loop import OPTIM, RUN, train_linear

LENGTHS = (0.05, 0.1)
STEPS = 1000


def direct(values, length):
    """The average of a length over all of some values by its definition: its profile, integrated over each step."""
    steps, exponent = np.arange(len(values) + 1) / len(values), Profile(1, length).exponent
    return np.diff(steps ** (exponent + 1)) @ values


@pytest.fixture(scope="module")
def path():
    """Parameters over training: a decay with waves, and a random walk."""
    steps = np.arange(STEPS)
    waves = np.exp(-steps / 200) + 0.3 * np.sin(steps / 70)
    walk = np.cumsum(np.random.default_rng(0).normal(size=STEPS)) / np.sqrt(STEPS)
    return np.stack([waves, walk], axis=1)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2])
def test_a_profile_has_its_length(length):
    """The variance of (gamma + 1) tau^gamma on (0, 1) by quadrature; EDM2 states gamma 16.97 and 6.94."""
    exponent = Profile(1, length).exponent
    edges = np.linspace(0, 1, 100_001)
    weights, centres = np.diff(edges ** (exponent + 1)), (edges[1:] + edges[:-1]) / 2
    deviation = np.sqrt(weights @ centres**2 - (weights @ centres) ** 2)
    assert deviation == pytest.approx(length, rel=1e-4)
    stated = {0.05: 16.97, 0.1: 6.94}
    assert exponent == pytest.approx(stated.get(length, exponent), abs=5e-3)


def test_a_trace_is_the_average_by_its_definition(path):
    """Of whatever it begins with, nothing is left."""

    def turn(trace, numbered):
        step, params = numbered
        return update(trace, params, length=0.1, step=step), None

    params = jnp.asarray(path, jnp.float32)
    start = jnp.full(2, 1e3, jnp.float32)
    trace = jax.jit(lambda: jax.lax.scan(turn, {"w": start}, (jnp.arange(STEPS), {"w": params}))[0])()
    np.testing.assert_allclose(trace["w"], direct(path, 0.1), atol=1e-5)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.07, 0.1, 0.12, 0.2])
def test_an_average_made_afterwards_is_the_one_kept_directly(path, length):
    """Two traces at every twentieth step make averages of lengths that nobody kept, to a thousandth."""
    kept = [Profile(step, own) for step in range(20, STEPS + 1, 20) for own in LENGTHS]
    traces = np.stack([direct(path[: profile.step], profile.length) for profile in kept])
    made = combine(kept, Profile(STEPS, length))
    assert made.coefficients.sum() == pytest.approx(1)
    np.testing.assert_allclose(made.coefficients @ traces, direct(path, length), atol=1e-3)
    assert made.error < 0.005


def test_the_error_of_a_combination_is_the_distance_of_its_profile():
    kept = [Profile(step, own) for step in (25, 50, 75, 100) for own in LENGTHS]
    wanted = Profile(100, 0.15)
    made = combine(kept, wanted)
    times = (np.arange(200_000) + 0.5) / 2000

    def density(profile):
        share = times / profile.step
        return np.where(share <= 1, (profile.exponent + 1) * share**profile.exponent / profile.step, 0)

    mixed = sum(c * density(profile) for c, profile in zip(made.coefficients, kept, strict=True))
    expected = np.linalg.norm(mixed - density(wanted)) / np.linalg.norm(density(wanted))
    assert made.error == pytest.approx(expected, rel=1e-3)
    assert made.error > 0.05


def fit(workdir, dataset, num_steps):
    optim = dataclasses.replace(OPTIM, ema_lengths=LENGTHS)
    return train_linear(workdir, dataset, optim=optim, num_steps=num_steps, checkpoint_every=1, keep_every=1)


def test_training_keeps_what_any_average_is_made_of(tmp_path, dataset):
    """Against all parameters of a run of 12 steps; stopped half-way and resumed, it keeps the same bit for bit."""
    whole = jax.device_get(fit(tmp_path / "whole", dataset, 12))
    fit(tmp_path / "parts", dataset, 5)
    assert tree_digest(jax.device_get(fit(tmp_path / "parts", dataset, 12))) == tree_digest(whole)
    checkpoints = Checkpoints(tmp_path / "whole", keep_every=1)
    path = np.stack([checkpoints.read(step)["params"][NETWORK]["mean"] for step in range(1, 13)])
    for length in (0.05, 0.07, 0.15):
        made = reconstruct(checkpoints, LENGTHS, Profile(12, length), where=tmp_path)
        np.testing.assert_allclose(made[NETWORK]["mean"], direct(path, length), rtol=1e-3, atol=1e-4)
    with pytest.raises(DiffpathError, match=r"length 0\.25.* 2 checkpoints up to step 2"):
        reconstruct(checkpoints, LENGTHS, Profile(2, 0.25), where=tmp_path)
    checkpoints.close()


def test_parameters_of_a_run_are_the_average_of_a_length(tmp_path, dataset, denoiser_run):
    config = {"optim": {"ema_lengths": LENGTHS}, "train": {**dataclasses.asdict(RUN.train), "keep_every": 2}}
    run = runs.open_run(write_run(tmp_path / "run", dataset, TINY_DENOISER, **config))
    params = runs.load_parameters(run).params
    state = {"params": {NETWORK: params}, "ema": {}, "model_state": {}}
    traces = {str(length): {NETWORK: jax.tree.map(lambda p, c=length: c * p, params)} for length in LENGTHS}
    checkpoints = Checkpoints(run.workdir, keep_every=2, compatibility_digest=run.compatibility_digest)
    checkpoints.discard_after(0)
    checkpoints.save(2, {**state, "opt_state": {TRACES: traces}})
    checkpoints.close()
    found = runs.load_parameters(run, ema_length=0.1)
    assert (found.step, found.is_ema, found.ema_length) == (2, True, 0.1)
    for own, expected in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(own, 0.1 * expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(DiffpathError, match="the run keeps none to make others of"):
        runs.load_parameters(runs.open_run(denoiser_run), ema_length=0.1)


@pytest.mark.parametrize(
    ("lengths", "keep_every", "why"),
    [((0.1,), 2, "two or more"), ((0.1, 0.1), 2, "two or more"), (LENGTHS, 0, "keep_every")],
)
def test_averages_that_none_can_be_made_of_are_refused(lengths, keep_every, why):
    content = RUN.as_json()
    content["optim"]["ema_lengths"], content["train"]["keep_every"] = list(lengths), keep_every
    with pytest.raises(DiffpathError, match=why):
        checks.run_config(content, where="test")
