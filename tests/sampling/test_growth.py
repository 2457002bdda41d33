"""More images for a finished set, and other batches: what is there stays, the rest is as if drawn at once."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffpath_jax.data import staging
from diffpath_jax.data.manifest import MANIFEST
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs
from diffpath_jax.sampling import growth
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model
from tests.sampling.test_job import drawn, job_of, mesh

DDIM = {"sampler": "ddim", "steps": 2}


@pytest.fixture(scope="module")
def model(denoiser_run):
    run = runs.open_run(denoiser_run)
    return Model(run, runs.load_parameters(run))


@pytest.fixture
def draw(model):
    return lambda out, **other: sampling_job.run_job(job_of(out, DDIM, **other), model, mesh(1))


def test_a_grown_set_is_the_one_drawn_at_once(draw, tmp_path):
    draw(tmp_path / "grown", counts=(3, 2))
    grown = draw(tmp_path / "grown", counts=(4, 6))
    at_once = draw(tmp_path / "at_once", counts=(4, 6))
    assert grown.digest == at_once.digest and grown.class_counts == at_once.class_counts
    tables = [pq.read_table(tmp_path / name / sampling_job.TABLE).to_pydict() for name in ("grown", "at_once")]
    assert tables[0] == tables[1]
    assert not (tmp_path / "grown" / staging.STAGING).exists()
    # The same command finds it finished; a smaller one is another job.
    assert draw(tmp_path / "grown", counts=(4, 6)).digest == grown.digest
    with pytest.raises(DiffpathError, match="another counts"):
        draw(tmp_path / "grown", counts=(4, 5))


def test_another_batch_size_keeps_what_is_there(draw, tmp_path):
    before = drawn(draw(tmp_path, counts=(3, 2)).directory)
    dataset = draw(tmp_path, counts=(6, 6), batch_size=3)
    after = drawn(tmp_path)
    assert len(after) == 12 and all(np.array_equal(after[index], before[index]) for index in before)
    rows = pq.read_table(tmp_path / sampling_job.TABLE, columns=["index", "batch_size"]).to_pydict()
    assert {i: b for i, b in zip(*rows.values(), strict=True)} == {i: 2 if i in before else 3 for i in after}
    # Of a finished set another batch size makes no difference.
    assert draw(tmp_path, counts=(6, 6), batch_size=5).digest == dataset.digest


def test_a_killed_growth_goes_on_and_loses_nothing(draw, tmp_path, monkeypatch):
    draw(tmp_path, counts=(3, 2))
    before = drawn(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampling_job, "_sampled", killed)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path, counts=(5, 5))
    assert not (tmp_path / MANIFEST).exists()
    draw(tmp_path, counts=(5, 5), batch_size=4)
    assert all(np.array_equal(drawn(tmp_path)[index], before[index]) for index in before)


def test_an_unfinished_job_goes_on_in_other_batches(draw, tmp_path, monkeypatch):
    original = sampling_job._sampled

    def two_batches(*arguments):
        for number, done in enumerate(original(*arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(sampling_job, "_sampled", two_batches)
        with pytest.raises(KeyboardInterrupt):
            draw(tmp_path / "parts", batch_size=2)
    draw(tmp_path / "parts", batch_size=4)
    draw(tmp_path / "whole", batch_size=2)
    parts, whole = drawn(tmp_path / "parts"), drawn(tmp_path / "whole")
    assert parts.keys() == whole.keys()
    assert max(np.abs(parts[i].astype(int) - whole[i]).max() for i in whole) <= 1
    sizes = pq.read_table(tmp_path / "parts" / sampling_job.TABLE, columns=["batch_size"])["batch_size"].to_pylist()
    assert sizes == [2] * 4 + [4] * 6


def test_places_between_staged_batches_are_filled(monkeypatch):
    monkeypatch.setattr(growth, "_staged", lambda staging: {3: 4, 9: 1})
    parts = growth.batches(staging.Staging.__new__(staging.Staging), 12, 2)
    assert [(part.start, part.stop) for part in parts.values()] == [(0, 2), (2, 3), (3, 7), (7, 9), (9, 10), (10, 12)]
