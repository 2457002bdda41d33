"""Works to cite: each has an entry, and what a run, a set or an evaluation used is named."""

import re

import pytest

from diffpath_jax import citations, cli
from diffpath_jax.config.sections import SamplerConfig
from diffpath_jax.diffusion.samplers.catalogue import SAMPLERS
from diffpath_jax.metrics.table import METRICS
from diffpath_jax.networks.kinds import KINDS


def test_every_work_has_an_entry_and_every_entry_is_used():
    uses = [*citations.OF_A_RUN, *citations.OF_SAMPLES]
    works = {work for use in uses for work in use.works} | {*citations.OF_AUDITS, *citations.OF_CLASSIFIERS}
    works |= {*citations.CLEAN_RESIZE, *(work for each in citations.OF_METRICS.values() for work in each)}
    assert set(citations.bibliography()) == works


def test_entries_are_whole():
    for key, entry in citations.bibliography().items():
        assert entry.count("{") == entry.count("}") and entry.startswith("@"), key
        assert {"title", "author", "year"} <= set(re.findall(r"(?m)^  (\w+) = ", entry)), key
        assert re.search(r"year = \{(\d{4})\}", entry)[1] in key, key


def test_every_sampler_network_and_metric_has_a_source():
    assert {use.value for use in citations.OF_SAMPLES if use.key == "sampler"} == set(SAMPLERS)
    named = {use.value for use in citations.OF_A_RUN if use.key == "network.kind"}
    # A classifier of noisy images is half a U-Net: its task says so.
    assert named == set(KINDS) - {"noisy_classifier"}
    for metric in METRICS.values():
        assert citations.of_metrics([metric.name]) or metric.source == "nuclei", metric.name


def test_settings_that_leave_a_method_out_cite_nothing():
    plain = {"sampler": "ddim", "guidance": 0.0, "guidance_to": 1.0, "eps_scale": 1.0, "thresholding": "auto"}
    assert citations.of_settings(citations.OF_SAMPLES, plain) == {"song2021ddim"}
    guided = {**plain, "guidance": 1.5, "guidance_to": 0.8, "eps_scale": 1.01}
    more = {"ho2022guidance", "kynkaanniemi2024interval", "ning2024elucidating"}
    assert citations.of_settings(citations.OF_SAMPLES, guided) == {"song2021ddim", *more}
    beside = {"ema_length", "start_between", "start_masks", "window_px"}
    assert {use.key for use in citations.OF_SAMPLES} - beside <= set(SamplerConfig.__dataclass_fields__)


def test_the_command_prints_what_a_run_and_its_samples_used(denoiser_run, samples, capsys):
    assert cli.main(["cite", str(denoiser_run), str(samples)]) == 0
    printed = capsys.readouterr().out
    assert "@inproceedings{ho2020ddpm," in printed and "heusel2017fid" not in printed
    assert cli.main(["cite"]) == 0
    assert capsys.readouterr().out.count("\n@") + 1 == len(citations.bibliography())


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_nothing_to_cite_is_one_line(tmp_path, capsys, folder):
    (tmp_path / "empty").mkdir()
    assert cli.main(["cite", str(tmp_path / folder)]) == 2
    assert capsys.readouterr().err.startswith("error: directory in ")
