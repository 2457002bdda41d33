"""The log of a run: the same scalars in both files, in order, whole before a checkpoint; TensorFlow stays away."""

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from clu import asynclib
from tensorboardX.proto import event_pb2

from diffpath_jax.training.loggers import TENSORBOARD
from diffpath_jax.training.metrics_log import METRICS, JsonLinesWriter, open_log, read_metrics
from diffpath_jax.training.optim import OptimConfig, further_rates


def tensorboard_scalars(workdir):
    """(step, name) -> value of all event files, read as the format of TFRecord says: length, CRC, bytes, CRC."""
    scalars = {}
    for path in sorted((workdir / TENSORBOARD).glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            scalars |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
            at += 16 + length
    return scalars


def test_both_files_hold_the_finite_scalars_of_each_step(tmp_path):
    log = open_log(tmp_path, resume_step=0)
    log.write_scalars(1, {"loss": 0.5, "loss_noise_1of4": float("nan")})
    log.write_scalars(2, {"loss": 0.25})
    log.write_scalars(2, {"val_loss": 2.0})
    log.close()
    lines = (tmp_path / METRICS).read_text().splitlines()
    assert lines == ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": 0.25}', '{"step": 2, "val_loss": 2.0}']
    assert tensorboard_scalars(tmp_path) == {(1, "loss"): 0.5, (2, "loss"): 0.25, (2, "val_loss"): 2.0}


def test_flush_waits_until_every_line_is_written(tmp_path):
    log = open_log(tmp_path, resume_step=0)
    for step in range(1, 101):
        log.write_scalars(step, {"loss": step / 4})
    log.flush()
    assert read_metrics(tmp_path) == [{"step": step, "loss": step / 4} for step in range(1, 101)]
    log.close()
    assert len(tensorboard_scalars(tmp_path)) == 100


def test_a_resumed_log_forgets_later_steps_and_an_unfinished_line(tmp_path):
    rows = [{"step": step, "loss": 1.0} for step in (2, 4, 6)]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6, "val')
    log = open_log(tmp_path, resume_step=4)
    log.write_scalars(5, {"loss": 2.0})
    log.close()
    assert read_metrics(tmp_path) == [*rows[:2], {"step": 5, "loss": 2.0}]


def test_an_error_of_the_writing_thread_is_raised(tmp_path, monkeypatch):
    def full(self, step, scalars):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonLinesWriter, "write_scalars", full)
    log = open_log(tmp_path, resume_step=0)
    log.write_scalars(1, {"loss": 1.0})
    with pytest.raises(asynclib.AsyncError, match="No space left on device"):
        log.flush()


def test_what_is_no_scalar_is_refused(tmp_path):
    log = open_log(tmp_path, resume_step=0)
    log.write_texts(1, {"note": "text"})
    with pytest.raises(asynclib.AsyncError, match="scalars alone"):
        log.close()


def test_neither_tensorflow_nor_pytorch_is_imported_where_it_is_installed(tmp_path):
    for name in ("tensorflow", "torch"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} is imported')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    # PyTorch can be loaded later all the same: `diffpath convert` reads its files with it.
    code = (
        "import sys, diffpath_jax.training.metrics_log, diffpath_jax.training.loop; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


@pytest.mark.parametrize(("decay", "expected"), [("constant", (0.02, 0.02)), ("linear", (0.02 * 0.85, 0.02 * 0.45))])
def test_muons_learning_rate_is_logged_beside_that_of_adamw(decay, expected):
    """Over steps 0 to 3 and 4 to 7 of 10, a line from 1 to 0: means of .85 and .45."""
    config = OptimConfig(muon_learning_rate=0.02, decay=decay)
    rates = further_rates(config, 10)
    found = [rates(steps)["muon_learning_rate"] for steps in (range(4), range(4, 8))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert further_rates(OptimConfig(), 10)(range(4)) == {}
