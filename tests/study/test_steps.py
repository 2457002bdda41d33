"""Steps of a study: their order, what reruns do, and what a failure takes with it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.commands.study import check_steps
from diffpath_jax.config import files as config_files
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.study import estimate, runner, snakemake
from diffpath_jax.study.config import study_config, with_defaults
from diffpath_jax.study.results import Results
from diffpath_jax.study.rows.catalogue import ROWS
from diffpath_jax.study.step import Step, in_order
from diffpath_jax.study.steps import StudySteps

# Packaged studies of many steps.
LONG = ("pkgh", "unitopatho")


def study(workdir: Path, *overrides: str, name: str = "diffpath:study_demo:debug") -> StudySteps:
    content = config_files.load(name, overrides, with_defaults)
    config = study_config(content, where=name)
    images = any("--images" in each.prep for each in config.datasets.values())
    return StudySteps(config, workdir, () if images else ("--slides", "slides"))


def chain(workdir: Path) -> tuple[Step, Step, Step]:
    a = Step("a", ("make", "a"), workdir / "a")
    b = Step("b", ("make", "b"), workdir / "b", (a,))
    return a, b, Step("c", ("make", "c"), workdir / "c", (a,))


class Maker:
    """Commands that write their name as a data set's manifest; those of ``broken`` fail."""

    def __init__(self, workdir: Path) -> None:
        self.workdir, self.broken, self.calls = workdir, set[str](), list[str]()

    def __call__(self, words: Sequence[str], /) -> int:
        name = words[1]
        self.calls.append(name)
        if name in self.broken:
            return int(ExitCode.BAD_INPUT)
        (self.workdir / name).mkdir(exist_ok=True)
        (self.workdir / name / "manifest.json").write_text(json.dumps(words))
        return 0


def test_needs_come_first_and_once(tmp_path: Path) -> None:
    a, b, c = chain(tmp_path)
    assert in_order([c, b]) == (a, c, b)


def test_two_steps_cannot_share_a_name(tmp_path: Path) -> None:
    a, b, _ = chain(tmp_path)
    with pytest.raises(ValueError, match="called 'a'"):
        in_order([b, replace(a, command=("make", "other"))])


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    steps, make = in_order(chain(tmp_path)), Maker(tmp_path)
    first = runner.run(steps, tmp_path, make, print)
    assert make.calls == ["a", "b", "c"] and not first.failed
    assert runner.run(steps, tmp_path, make, print).done == first.done
    assert make.calls == ["a", "b", "c"]


def test_a_change_is_done_again_with_all_that_needs_it(tmp_path: Path) -> None:
    steps, make = in_order(chain(tmp_path)), Maker(tmp_path)
    runner.run(steps, tmp_path, make, print)
    (tmp_path / "a" / "manifest.json").write_text("something else")
    runner.run(steps, tmp_path, make, print)
    # The same command leaves the same, so that what needs it stays as it is.
    assert make.calls == ["a", "b", "c", "a"]
    a, b, c = steps
    new = replace(a, command=("make", "a", "more"))
    runner.run((new, replace(b, needs=(new,)), replace(c, needs=(new,))), tmp_path, make, print)
    assert make.calls[4:] == ["a", "b", "c"]


def test_a_failure_takes_only_those_that_need_it(tmp_path: Path) -> None:
    _, b, c = chain(tmp_path)
    make = Maker(tmp_path)
    make.broken = {"b"}
    last = Step("d", ("make", "d"), tmp_path / "d", (b,))
    outcome = runner.run(in_order([last, c]), tmp_path, make, print)
    assert (set(outcome.done), outcome.failed, outcome.skipped) == ({"a", "c"}, {"b": 2}, ("d",))
    make.broken = set()
    assert not runner.run(in_order([last, c]), tmp_path, make, print).failed
    assert make.calls == ["a", "b", "c", "b", "d"]
    assert set(runner.finished_steps(in_order([last, c]), tmp_path).done) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("code", [ExitCode.INTERRUPTED, ExitCode.TERMINATED])
def test_an_interrupted_step_ends_the_study(tmp_path: Path, code: ExitCode) -> None:
    with pytest.raises(DiffpathError) as error:
        runner.run(in_order(chain(tmp_path)), tmp_path, lambda words: int(code), print)
    assert error.value.code == code
    assert not runner.finished_steps(in_order(chain(tmp_path)), tmp_path).done


def test_every_row_asks_for_steps_that_are_commands(tmp_path: Path) -> None:
    from diffpath_jax.cli import COMMANDS

    made = study(tmp_path)
    steps = in_order(step for row in ROWS.values() for step in row.steps(made))
    assert all(not step.command or step.command[0] in COMMANDS for step in steps)
    assert len({step.out for step in steps}) == len(steps)
    # What a command names below the study's directory is the result of a step that it needs, or its own.
    for step in steps:
        known = {str(other.out) for other in in_order([step])} | {str(tmp_path / ".features")}
        for word in step.command:
            named = [part for piece in word.split(",") if (part := piece.split("=")[-1]).startswith(str(tmp_path))]
            assert set(named) <= known, (step.name, word)


def test_the_arms_of_a_comparison_differ_in_their_images_alone(tmp_path: Path) -> None:
    made = study(tmp_path)
    steps = in_order(ROWS["T5c"].steps(made))
    trained = [step.command for step in steps if "/arms/" in step.name and step.name.endswith("seed0")]
    kept = [
        {word for word in words if not word.startswith(("--config.data.train", "--config.data.mixture"))} - {words[-1]}
        for words in trained
    ]
    assert len(kept) > 1 and all(each == kept[0] for each in kept)


@pytest.mark.parametrize(("answers", "last"), [("", "pages"), ("one.csv,two.csv", "scores")])
def test_readers_are_asked_where_the_config_says_so(tmp_path: Path, answers: str, last: str) -> None:
    nobody, row = study(tmp_path), ROWS["H"]
    assert not row.steps(nobody) and row.show(nobody, Results(tmp_path)).notes == ("no reader took part.",)
    asked = study(tmp_path, "--config.reader.readers=2", f"--config.reader.answers={answers}")
    steps = in_order(row.steps(asked))
    assert steps[-1].name == f"fov_48/reader/{last}"
    check_steps(steps)


def test_only_the_steps_of_a_row(tmp_path: Path) -> None:
    names = [step.name for step in in_order(ROWS["F1"].steps(study(tmp_path)))]
    assert names == ["fov_48/dataset", "fov_64/dataset"]


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("--config.measured=('nowhere',)", "'nowhere' is not among"),
        ("--config.compared=('unknown',)", "'unknown' is not among"),
        ("--config.worth.sampler=unknown", "'unknown' is not among"),
        ("--config.num_per_class=0", "greater than or equal to 1"),
        ("--config.worth.confidence=nan", "'worth.confidence'"),
        ("--config.datasets.fov_48.models=()", "it is measured and has no model"),
        ("--config.datasets.fov_48.directory=here", "either a directory, or slides"),
        ("--config.datasets.fov_48.models=('../ddpm',)", "should match pattern"),
    ],
)
def test_bad_configs_are_named(tmp_path: Path, override: str, why: str) -> None:
    with pytest.raises(DiffpathError, match=why.replace("(", r"\(")):
        study(tmp_path, override)


@pytest.mark.parametrize(
    "name", ["study_demo", "study_nct_crc", *(pytest.param(f"study_{name}", marks=pytest.mark.full) for name in LONG)]
)
def test_commands_take_the_words_of_every_step_of_the_packaged_studies(tmp_path: Path, name: str) -> None:
    packaged = study(tmp_path, name=f"diffpath:{name}:debug" if name == "study_demo" else f"diffpath:{name}")
    check_steps(in_order(step for row in ROWS.values() for step in row.steps(packaged)))


@pytest.mark.parametrize(
    ("override", "step", "why"),
    [
        ("samplers.dpm_10.options=--sampler nothing", "fov_48/ddpm/samples/dpm_10", "use one of ddpm"),
        ("samplers.dpm_10.options=--no_such_option 1", "fov_48/ddpm/samples/dpm_10", "unrecognized arguments"),
        ("samplers.dpm_10.options=--steps 0", "fov_48/ddpm/samples/dpm_10", "greater than or equal to 1"),
        ("classifier.options=--config.train.num_stps=4", "fov_48/classifiers/real", "num_steps"),
        ("classifier.options=--config.optim.learning_rate=-1", "fov_48/classifiers/real", "greater than"),
        ("datasets.coarse.prep=--stride_um x", "coarse/dataset", "not a number"),
    ],
)
def test_words_that_a_command_would_refuse_are_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, step: str, why: str
) -> None:
    words = ["study", "--config", "diffpath:study_demo:debug", "--workdir", str(tmp_path / "out")]
    assert cli.main([*words, f"--config.{override}"]) == ExitCode.BAD_INPUT
    line = capsys.readouterr().err
    assert f" in step {step}: " in line and why in line
    assert not (tmp_path / "out").exists()


def test_what_a_study_takes(tmp_path: Path) -> None:
    made = study(tmp_path, "--config.num_per_class=10", "--config.measured=('fov_48',)")
    steps = in_order(ROWS["T3"].steps(made))
    costs = estimate.costs(made, steps)
    # Ten images of each of five classes (as long as the data set is not there), two steps each.
    plain, patches = costs["fov_48/ddpm/samples/ddpm"], 10 * estimate.ASSUMED_CLASSES
    assert plain.bytes == patches * 32 * 32 * 3
    guided = estimate.costs(made, in_order(ROWS["T3b"].steps(made)))["fov_48/ddpm/samples/guided_1"]
    assert plain.flop and guided.flop == 2 * plain.flop
    assert costs["fov_48/ddpm/model"].flop and "steps:" in "\n".join(estimate.lines(made, steps, peak=1e12))


def test_the_workflow_runs_what_the_study_runs(tmp_path: Path) -> None:
    steps = in_order(chain(tmp_path))
    text = snakemake.workflow(steps, tmp_path, ["diffpath", "study", "--config.x={a}"])
    assert text.count("\nrule step_") == 3 and "--config.x={{a}}" in text
    for step in steps:
        assert f"output: {json.dumps(str(runner.record_path(step, tmp_path)))}" in text
        assert f"--step {step.name}" in text
