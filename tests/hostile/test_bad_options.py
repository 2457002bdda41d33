"""Bad values of every option of every command, generated from the commands' own parsers: a later option is covered too.

Each command is given good words but for one that fails late, so that whatever is spoiled, it cannot do its work.
"""

import argparse
import importlib
import random
import re
import time
from pathlib import Path

import pytest

from diffpath_jax import cli
from diffpath_jax.io.errors import ExitCode

NUMBERS = ("nan", "inf", "-inf", "0", "-1", "1e308", "-1e308", "1" + "0" * 30, "", "x", "0x10", "1,5")
TEXTS = ("", "nonsense", "../../x", "/abs/x", "x" * 300, "a\x1b[31mb", "=1+1", "\udcff", "CON", "a=b=c", "-1", "nan")
PATHS = (
    *("nowhere", "empty", "bytes", "list.json", "folder", "pipe", "empty/below", "x" * 300, "\udcff", "", "broken_set"),
    *("broken_run", "bomb.npz", "odd.safetensors", "wrong.geojson"),
)
# Waiting for other machines is what these are for.
NOT_TRIED = {
    "--coordinator",
    "--distributed",
    "--scheduler",
    "--num_processes",
    "--process_id",
    "--download",
    "--topology",
}
# Work that a spoiled option must not begin: the words that go wrong late, and what is good.
WORDS = {
    "demo": "--slide nowhere.svs --annotations {annotated} --out {out}",
    "prep": "--slides {slide} --annotations {annotated} --out {out} --fov_um 32 --patch_px 16 --mpp_csv nowhere.csv",
    "train": "--config configs/demo_ddpm.py:debug --workdir {out} --config.data.train={dataset} "
    "--config.train.init_from=nowhere",
    "encode": "--data {dataset} --first_stage {resnet_run} --out {out}",
    "encoder export": "uni --out {out} --from nowhere",
    "reconstruct": "--data {dataset} --first_stage {resnet_run} --out {out}",
    "sample": "--workdir {denoiser_run} --out {out} --num_per_class 1 --checkpoint 77",
    "eval": "--real {dataset} --generated {samples} --out {out} --features {resnet_run} --cache {cache} "
    "--audit nowhere",
    "compare": "--test {dataset} --arm a={resnet_run} --arm a={resnet_run} --out {out}",
    "convert": "--from vqgan --file nowhere.ckpt --out {out}.safetensors",
    "export": "--workdir {denoiser_run} --out {out}.safetensors --checkpoint 77",
    "publish": "{denoiser_run} --to {out} --license cc-by-4.0 --checkpoint 77",
    "report": "--dataset {dataset} --workdir {denoiser_run} --evals nowhere --out {out}.html",
    "membership": "--workdir {denoiser_run} --data {dataset} --out {out} --cache {cache} --checkpoint 77",
    "probe": "--features {resnet_run} --data {dataset},nowhere --out {out} --cache {cache}",
    "transform": "--data {dataset} --out {out} --confident nowhere",
    "study": "--config nowhere.py --workdir {out}",
    "reader make": "--real {dataset} --generated {samples} --images 4 --readers 1 --out {out} "
    "--generated_split nowhere",
    "reader score": "nowhere.json nowhere.csv --out {out}",
}


def parser_of(command: str) -> argparse.ArgumentParser:
    name, *action = command.split()
    parser = argparse.ArgumentParser(prog=command)
    importlib.import_module(cli.COMMANDS[name][0]).add_arguments(parser)
    actions = next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
    return actions.choices[action[0]] if actions else parser


def values_of(action: argparse.Action) -> tuple[str, ...]:
    """Bad values for an option of its kind."""
    if action.nargs == 0:
        return ()
    if action.choices:
        return TEXTS[:4]
    if action.type is Path:
        return PATHS
    return TEXTS if action.type in (None, str) or action.type.__name__ == "name" else NUMBERS


def generated() -> list[tuple[str, str, str | None]]:
    """(command, option, value); without a value the option is left out, or is unknown."""
    cases: list[tuple[str, str, str | None]] = []
    for command in WORDS:
        for action in parser_of(command)._actions:
            if action.option_strings and action.option_strings[-1] not in {*NOT_TRIED, "--help"}:
                cases += [(command, action.option_strings[-1], value) for value in values_of(action)]
                cases += [(command, action.option_strings[-1], None)] if action.required else []
        cases.append((command, "--no_such_option", "1"))
    return cases


CASES = generated()
SAMPLE = set(random.Random(0).sample(range(len(CASES)), 40))
FULL = [case if i in SAMPLE else pytest.param(*case, marks=pytest.mark.full) for i, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory) -> Path:
    """A folder with everything that a path should not name."""
    import os
    import zipfile

    folder = tmp_path_factory.mktemp("spoiled")
    (folder / "empty").write_bytes(b"")
    (folder / "bytes").write_bytes(random.Random(1).randbytes(4096))
    for name in ("list.json", "wrong.geojson"):
        (folder / name).write_text('[{"type": 3}, null, "x"]')
    for name in ("folder", "broken_set", "broken_run"):
        (folder / name).mkdir()
    (folder / "broken_set" / "manifest.json").write_text('{"format": ["diffpath-dataset-1"], "splits": 3}')
    (folder / "broken_run" / "config.json").write_text('{"config": {"network": [1, 2], "task": "diffusion"}}')
    (folder / "odd.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    os.mkfifo(folder / "pipe")
    for name in ("image.png", "slide.svs", "one.geojson", "manifest.json", "config.json"):
        os.mkfifo(folder / "folder" / name)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("mu.npy", "sigma.npy"):
            with archive.open(name, "w") as member:
                for _ in range(600):
                    member.write(bytes(2**20))
    return folder


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("command", "option", "value"), FULL)
def test_one_line_and_nothing_left(request, capfd, monkeypatch, tmp_path, spoiled, command, option, value):
    names = re.findall(r"{(\w+)}", WORDS[command])
    here = {name: str(request.getfixturevalue(name)) for name in set(names) - {"out", "cache"}}
    words = WORDS[command].format(out=tmp_path / "new" / "out", cache=tmp_path / "cache", **here).split()
    config = Path("configs/demo_ddpm.py:debug").absolute()
    words = [str(config) if word == "configs/demo_ddpm.py:debug" else word for word in words]
    while option in words:
        del words[words.index(option) : words.index(option) + 2]
    if value is not None:
        of_path = value in PATHS and any(
            a.type is Path for a in parser_of(command)._actions if option in a.option_strings
        )
        words.append(f"{option}={spoiled / value if of_path and value else value}")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path), snapshot(spoiled)
    start = time.monotonic()
    code = cli.main([*command.split(), *words])
    assert time.monotonic() - start < 60
    shown = capfd.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert code in set(ExitCode) - {ExitCode.OK, ExitCode.BUG}, (words, shown.err)
    assert "Traceback" not in shown.out + shown.err
    assert len(lines) == 1 and re.fullmatch(r"error: .+ in .+: .+; fix: .+", lines[0]), (words, shown.err)
    if command != "demo":  # It is a study, whose page says which step failed.
        assert (snapshot(tmp_path), snapshot(spoiled)) == before, words


def test_every_command_is_tried():
    assert {command.split()[0] for command in WORDS} == set(cli.COMMANDS) - {"doctor", "cite"}
    assert len(CASES) >= 600
