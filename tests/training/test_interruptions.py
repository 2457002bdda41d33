"""Runs that are killed and terminated at any step go on bit for bit."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from diffpath_jax.training.checkpoint import Checkpoints, tree_digest
from diffpath_jax.training.metrics_log import read_metrics
from tests.conftest import ALONE, SHALLOW
from tests.training.test_loop import long

STEPS = 12


# What is interrupted: a denoiser that sees crops of two sides and then whole images, an autoencoder with its
# discriminator, whose two optimisers take turns, and a classifier with its running statistics, whose images are drawn
# class by class.
KINDS = {
    "configs/demo_ddpm.py:debug": {
        "train.keep_best": "val_loss",
        **SHALLOW,
        "network.dropout": 0.1,
        "diffusion.timesteps": "loss_aware",
        "data.balanced": "True",
        "data.crop_px": "(8,16)",
        "data.crop_steps": 8,
        "optim.ema_lengths": "(0.05,0.1)",
        "train.keep_every": 2,
    },
    "configs/vqgan_f4_pkgh.py:debug": {
        "train.keep_best": "val_psnr",
        "autoencoding.adversarial_start": 4,
        "autoencoding.revive_after": 2,
    },
    "configs/resnet50_pkgh.py:debug": {
        "data.mixture": "(0.5,)",
        "classifier.balance": "draw",
        "train.patience": 20,
    },
}


def command(kind, workdir, dataset):
    """A run that saves, looks and validates every other step."""
    often = {"train.num_steps": STEPS, "train.checkpoint_every": 2, "train.eval_every": 2, "train.log_every": 1}
    keys = {"data.train": dataset, **often, **KINDS[kind]}
    words = ["train", "--config", kind, "--workdir", str(workdir)]
    return [sys.executable, "-m", "diffpath_jax.cli", *words, *(f"--config.{k}={v}" for k, v in keys.items())]


DENOISER, AUTOENCODING, CLASSIFYING = KINDS


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(DENOISER, id="denoiser"),
        *long([(AUTOENCODING, "autoencoder"), (CLASSIFYING, "classifier")]),
    ],
)
def left_alone(request, tmp_path_factory, dataset):
    """Of each kind its config and the directory of a run that nobody interrupts."""
    workdir = tmp_path_factory.mktemp("left_alone") / "whole"
    subprocess.run(command(request.param, workdir, dataset), env=ALONE, check=True)
    return request.param, workdir


def interrupt_at(kind, how, step, workdir, dataset):
    """Start the run and send it a signal once it has logged a step; its exit code."""
    process = subprocess.Popen(command(kind, workdir, dataset), env=ALONE, stderr=subprocess.DEVNULL)
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and any(row["step"] >= step for row in read_metrics(workdir, tolerant=True)):
            process.send_signal(how)
            break
        time.sleep(0.05)
    return process.wait(300)


def interrupt(kind, how, seconds, workdir, dataset):
    """Start the run and send it a signal after some time; its exit code, or none if it was done before."""
    process = subprocess.Popen(command(kind, workdir, dataset), env=ALONE, stderr=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(how)
        return process.wait(120)


def numbers(workdir):
    """Every number that a run logs but its speed."""
    rows = read_metrics(workdir)
    return [{k: v for k, v in row.items() if k not in ("images_per_second", "share_of_peak")} for row in rows]


def check_interrupted_run(left_alone, tmp_path, dataset, interruptions):
    """Losses, validation losses, stain drift and the final state are those of a run that was left alone."""
    kind, whole = left_alone
    codes = [interrupt_at(kind, how, step, tmp_path / "parts", dataset) for how, step in interruptions]
    subprocess.run(command(kind, tmp_path / "parts", dataset), env=ALONE, check=True)
    assert numbers(tmp_path / "parts") == numbers(whole)
    assert sum("learning_rate" in row for row in read_metrics(whole)) == STEPS
    states = [Checkpoints(workdir).read(STEPS) for workdir in (whole, tmp_path / "parts")]
    assert tree_digest(states[0]) == tree_digest(states[1])
    return codes


@pytest.mark.full
def test_a_killed_and_terminated_run_goes_on_bit_for_bit(tmp_path, dataset, left_alone):
    codes = check_interrupted_run(left_alone, tmp_path, dataset, [(signal.SIGKILL, 3), (signal.SIGTERM, 6)])
    assert codes == [-signal.SIGKILL, 143]


@pytest.mark.full
def test_a_run_interrupted_sixty_times_goes_on_bit_for_bit(tmp_path, dataset, left_alone):
    """50 SIGKILLs and 10 SIGTERMs at random moments; whenever the run is done it starts again in a new directory."""
    rng = np.random.default_rng(0)
    kind, whole = left_alone
    expected = tree_digest(Checkpoints(whole).read(STEPS))

    def check(workdir):
        assert numbers(workdir) == numbers(whole)
        assert tree_digest(Checkpoints(workdir).read(STEPS)) == expected

    left, finished, codes = {signal.SIGKILL: 50, signal.SIGTERM: 10}, 0, []
    while any(left.values()):
        # A signal that comes after the end of a run does not count.
        how = rng.choice([*left], p=[count / sum(left.values()) for count in left.values()])
        workdir = tmp_path / f"parts-{finished}"
        code = interrupt(kind, signal.Signals(how), rng.uniform(1.5, 14), workdir, dataset)
        if code == 0:
            check(workdir)
            finished += 1
            continue
        left[signal.Signals(how)] -= 1
        codes.append((signal.Signals(how).name, code))
    subprocess.run(command(kind, tmp_path / f"parts-{finished}", dataset), env=ALONE, check=True)
    check(tmp_path / f"parts-{finished}")
    print(f"{finished + 1} runs finished bit for bit; {codes}")
    assert all(code == -9 for name, code in codes if name == "SIGKILL")
    # A SIGTERM before Python has set its handler ends the process by the signal itself.
    assert all(code in (143, -15) for name, code in codes if name == "SIGTERM")
