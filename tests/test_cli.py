"""Bad input of every command: one clear line with the fix, a documented exit code, nothing half-written."""

import json
import re
import shutil
import socket
from pathlib import Path

import pyarrow.parquet
import pytest

from diffpath_jax import cli
from diffpath_jax.data import writer
from diffpath_jax.devices import hardware
from diffpath_jax.io.files import own_directory
from diffpath_jax.io.sealed import SEAL
from tests.conftest import write_annotations, write_slide

# A short name stands in random bytes too.
HOST = socket.gethostname().ljust(8).encode()
FIELDS = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "32"]
DEBUG = "configs/demo_ddpm.py:debug"


def fails(capsys, *words, code=2):
    """Run a command that must fail; its one error line."""
    assert cli.main([str(word) for word in words]) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    lines = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert len(lines) == 1, shown.err
    assert re.fullmatch(r"error: .+ in .+: .+; fix: .+", lines[0]), lines[0]
    return lines[0]


@pytest.fixture
def prep(tmp_path, slide, annotated):
    """Words of a good prep command, to be spoiled."""
    words = {"--slides": slide, "--annotations": annotated, "--out": tmp_path / "out"}
    return lambda **other: ["prep", *(w for pair in {**words, **other}.items() for w in pair), *FIELDS]


def test_an_unknown_config_key(capsys, tmp_path, dataset):
    line = fails(
        capsys, "train", "--config", DEBUG, "--workdir", tmp_path / "run", "--config.optim.learning_rat=1",
        f"--config.data.train={dataset}",
    )  # fmt: skip
    assert "learning_rat" in line
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_in_the_file_names_the_nearest(capsys, tmp_path, dataset):
    text = Path("configs/demo_classifier.py").read_text().replace('"learning_rate"', '"learning_rte"')
    (tmp_path / "typo.py").write_text(text)
    line = fails(
        capsys, "train", "--config", tmp_path / "typo.py", "--workdir", tmp_path / "run",
        f"--config.data.train={dataset}",
    )  # fmt: skip
    assert "'learning_rte'" in line
    assert "write 'learning_rate'" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("--config.data.batch_size=-1", "batch_size"),
        ("--config.data.batch_size=many", "batch_size|many"),
        ("--config.diffusion.prediction=noise", "prediction"),
        ("--config.network.kind=vit", "unet_adm"),
        ("--config.data.augment=flip", "augment"),
        ("--steps=3", "unknown"),
        ("--config.data.train=nowhere", "no such directory"),
        ("--config.data.train=", "data.train"),
        ("--config.data.batch_size=9", "divided over 8 devices"),
        ("--config.optim.accumulate=3", "times 3 parts"),
        ("--config.train.fsdp=3", "groups of 3"),
        ("--config.train.keep_best=val_los", "not measured"),
        ("--config.train.keep_best=val_accuracy", "use val_loss or FD-NAME"),
        ("--config.network.kind=resnet", "no network for diffusion"),
        ("--config.train.keep_best=val_loss", "every 0"),
        ("--config.train.fd_images=10", "fd_features"),
        ("--config.optim.warmup_steps=2", "none are left for the cosine decay"),
        ("--config.train.init_from=nowhere.safetensors", "no such file or run"),
        ("--config.diffusion.loss=hybrid", "learn_sigma"),
        ("--config.diffusion.min_snr_gamma=-1.0", "min_snr_gamma"),
        ("--config.network.groups=7", "do not divide into 7 groups"),
        ("--config.network.channel_mult=(1,1,1,1,1,1)", "not a multiple of its stride 64"),
    ],
)
def test_bad_settings(capsys, tmp_path, dataset, override, why):
    words = ["train", "--config", DEBUG, "--workdir", tmp_path / "run", f"--config.data.train={dataset}", override]
    assert re.search(why, fails(capsys, *words))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", ["nowhere.py", "configs/demo_ddpm.py:nonsense"])
def test_no_such_config(capsys, tmp_path, config):
    fails(capsys, "train", "--config", config, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--slides", "--annotations", "--classes", "--mpp_csv", "--key_file"])
def test_a_missing_path(capsys, tmp_path, prep, option):
    assert "nowhere" in fails(capsys, *prep(**{option: tmp_path / "nowhere"}))
    assert not (tmp_path / "out").exists()


def test_a_slide_without_um_per_px(capsys, tmp_path, prep):
    bare = write_slide(tmp_path / "bare.svs", mpp=None)
    line = fails(capsys, *prep(**{"--slides": bare}))
    assert "um/px" in line and "--mpp_csv" in line
    assert not (tmp_path / "out").exists()


def test_an_annotation_class_that_nothing_maps(capsys, tmp_path, prep):
    (tmp_path / "map.json").write_text(json.dumps({"classes": {"Purple": "purple"}}))
    line = fails(capsys, *prep(**{"--classes": tmp_path / "map.json"}))
    assert "'Pink'" in line and "--classes" in line
    assert not (tmp_path / "out").exists()


def test_one_bad_slide_of_four_fails_alone(capsys, tmp_path):
    folder, regions = tmp_path / "slides", tmp_path / "regions"
    folder.mkdir(), regions.mkdir()
    for number in range(4):
        write_slide(folder / f"s{number}.svs", mpp=None if number == 2 else "0.5", seed=number)
        write_annotations(regions / f"s{number}.geojson")
    (tmp_path / "patients.csv").write_text("slide,patient\n" + "".join(f"s{i},person{i}\n" for i in range(4)))
    words = ["--slides", folder, "--annotations", regions, "--patients", tmp_path / "patients.csv"]
    code = cli.main([str(w) for w in ["prep", *words, "--out", tmp_path / "out", *FIELDS]])
    shown = capsys.readouterr().err
    assert code == 3
    assert "error: um/px in" in shown and "s2.svs" in shown
    assert "3 patients: 1 in train, 1 in val, 1 in test; none in two splits" in " ".join(shown.split())
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert content["details"]["failed"] == 1
    # No name of a slide or a patient outside the private folder.
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and "private" not in path.parts:
            data = path.read_bytes()
            assert not re.search(rb"s[0-3]\.svs|person[0-3]", data), path
    table = pyarrow.parquet.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pydict()
    assert set(table["slide_file"]) == {"s0.svs", "s1.svs", "s3.svs"}


def test_an_interrupted_prep_goes_on_to_the_same_bytes(tmp_path, monkeypatch, dataset, slide, annotated):
    (tmp_path / "key").write_bytes((dataset / "private" / "hash.key").read_bytes())
    words = ["prep", "--slides", slide, "--annotations", annotated, "--out", tmp_path / "out"]
    fields = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "16", "--gap_um", "16"]
    command = [str(w) for w in [*words, *fields, "--key_file", tmp_path / "key"]]

    def broken(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_sealed", broken)
        assert cli.main(command) == 130
    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_tfds_metadata", broken)
        assert cli.main(command) == 130
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert cli.main(command) == 0
    for path in sorted(dataset.glob("*.array_record*")):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_two_jobs_in_one_directory(capsys, tmp_path, prep):
    with own_directory(tmp_path / "out"):
        assert "in use by process" in fails(capsys, *prep(), code=4)


def test_several_slides_need_a_patient_table(capsys, tmp_path, prep, annotated):
    (tmp_path / "slides").mkdir()
    for number in range(2):
        write_slide(tmp_path / "slides" / f"{number}.svs")
    line = fails(capsys, *prep(**{"--slides": tmp_path / "slides"}))
    assert "--patients" in line or "annotations" in line


def test_prep_again_does_nothing_and_other_settings_are_refused(capsys, dataset, slide, annotated):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*") if p.is_file() and p.name != ".lock"}
    words = ["prep", "--slides", slide, "--annotations", annotated, "--out", dataset]
    fields = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "16", "--gap_um", "16"]
    assert cli.main([str(w) for w in [*words, *fields]]) == 0
    assert "complete" in capsys.readouterr().err
    line = fails(capsys, *words, *fields, "--roi_min", "0.9", code=4)
    assert "fields" in line
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--workdir", "nowhere", "--out", "x", "--num_per_class", "3"],
        ["eval", "--real", "nowhere", "--features", "nowhere", "--out", "x"],
        ["eval", "--real", "nowhere", "--out", "x"],
        ["report", "--dataset", "nowhere", "--workdir", "nowhere", "--out", "x.html"],
        ["demo", "--slide", "nowhere.svs"],
    ],
)
def test_missing_inputs_of_other_commands(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    fails(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_only_what_there_is(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("offered", "asked", "lacking"),
    [
        ("always [madvise] never", {}, True),
        ("always [madvise] never", {"GLIBC_TUNABLES": "glibc.malloc.check=1"}, True),
        ("always [madvise] never", {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}, False),
        ("[always] madvise never", {}, False),
        ("always madvise [never]", {}, False),
        (None, {}, False),
    ],
)
def test_huge_pages_are_lacking_where_they_are_to_be_had_for_the_asking(tmp_path, offered, asked, lacking):
    if offered is not None:
        (tmp_path / "enabled").write_text(offered)
    assert hardware.lacks_huge_pages(tmp_path / "enabled", asked) == lacking


def test_an_empty_key_is_no_secret(capsys, tmp_path, prep):
    (tmp_path / "key").write_text(" \n")
    assert "no secret" in fails(capsys, *prep(**{"--key_file": tmp_path / "key"}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../x", "/abs/x", "a\nb", "CON", "x" * 300])
def test_classes_of_a_received_run_or_set_name_no_other_place(capsys, tmp_path, samples, denoiser_run, name):
    """As an earlier version wrote them: the digests of today would already say that something is wrong."""
    for source, file, option in ((samples, "manifest.json", "--real"), (denoiser_run, "config.json", "--workdir")):
        copy = shutil.copytree(source, tmp_path / file)
        content = json.loads((copy / file).read_text())
        del content[SEAL]
        content["classes"][0] = name
        (copy / file).write_text(json.dumps(content))
        words = {"--real": ["eval", "--generated", samples], "--workdir": ["sample", "--num_per_class", "1", "--png"]}[
            option
        ]
        assert "is no name" in fails(capsys, *words, option, copy, "--out", tmp_path / "out" / "deep", code=5)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "config.json"}


def test_an_export_says_neither_where_it_was_made_nor_by_whom(tmp_path, denoiser_run):
    assert cli.main(["export", "--workdir", str(denoiser_run), "--out", str(tmp_path / "x.safetensors")]) == 0
    data = (tmp_path / "x.safetensors").read_bytes()
    assert HOST not in data and str(tmp_path.parent).encode() not in data


def test_what_is_passed_on_of_a_data_set_names_no_place(dataset, samples):
    for directory in (dataset, samples):
        for path in directory.rglob("*"):
            if path.is_file() and not {"private", "qa"} & set(path.parts):
                assert str(directory.parent).encode() not in path.read_bytes(), path
                assert HOST not in path.read_bytes(), path


def test_a_report_is_not_written_over_something_else(capsys, tmp_path, dataset, denoiser_run):
    (tmp_path / "thesis.html").write_text("<html>mine")
    words = ["report", "--dataset", dataset, "--workdir", denoiser_run, "--out", tmp_path / "thesis.html"]
    assert "no report" in fails(capsys, *words, code=4)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.html"]
