"""Running the steps of a study one after the other, and knowing which of them are done.

A step is done when its record says so: with the same command, needs that are as they were, and results that are still
what they were. Any other step is run by its command, which goes on where it was interrupted.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file, sha256_json
from diffpath_jax.io.sealed import read_sealed, write_sealed
from diffpath_jax.study.step import Step

RECORDS = "steps"
# The files by which a directory is known, whatever command wrote it.
SEALED = (
    *("manifest.json", "metrics.json", "comparison.json", "membership.json", "probe.json", "config.json"),
    *("pages.json", "reader.json"),
)
# Of a run, the checkpoints' own seals say which parameters there are.
CHECKPOINTS = "checkpoints"


@runtime_checkable
class Call(Protocol):
    """Runs a command line."""

    def __call__(self, words: Sequence[str], /) -> int:
        """Returns its exit code."""
        ...


@runtime_checkable
class Tell(Protocol):
    """Tells the user how far a study is."""

    def __call__(self, line: str, /) -> object:
        """Shows a line."""
        ...


@dataclass(frozen=True)
class Done:
    """The record of a step that is done.

    Attributes:
        command: its command.
        needs: name of each step it needed -> digest of what that left.
        outputs: file that it left -> SHA-256 of its bytes.
        seconds: how long it took, the last time that it was run.
    """

    command: tuple[str, ...]
    needs: dict[str, str]
    outputs: dict[str, str]
    seconds: float

    @property
    def digest(self) -> str:
        """Digest of what it left."""
        return sha256_json(self.outputs)


@dataclass(frozen=True)
class Outcome:
    """Outcome of the steps of a study.

    Attributes:
        done: records of those that are done, by name.
        failed: exit code of those that failed, by name.
        skipped: names of those that needed a failed one.
    """

    done: dict[str, Done]
    failed: dict[str, int]
    skipped: tuple[str, ...]


def run(steps: Sequence[Step], workdir: Path, call: Call, tell: Tell) -> Outcome:
    """Run what is not done yet; a step that fails takes only those with it that need it.

    Args:
        steps: in their order.
        workdir: directory of the study.
        call: runs a command line.
        tell: tells how far it is.

    Raises:
        DiffpathError: the command was interrupted, so that the study is (exit codes 130, 143).
    """
    done: dict[str, Done] = {}
    failed: dict[str, int] = {}
    skipped: list[str] = []
    for number, step in enumerate(steps, start=1):
        if any(need.name not in done for need in step.needs):
            skipped.append(step.name)
            continue
        record = finished(step, done, workdir)
        if record is None:
            tell(f"[{number}/{len(steps)}] {step.name}: {len(done)} done, {len(failed)} failed")
            code, record = _run(step, done, workdir, call)
            if record is None:
                failed[step.name] = code
                continue
        done[step.name] = record
    return Outcome(done, failed, tuple(skipped))


def finished_steps(steps: Sequence[Step], workdir: Path) -> Outcome:
    """Returns which steps are done; nothing is run."""
    done: dict[str, Done] = {}
    for step in steps:
        if all(need.name in done for need in step.needs) and (record := finished(step, done, workdir)):
            done[step.name] = record
    return Outcome(done, {}, tuple(step.name for step in steps if step.name not in done))


def finished(step: Step, done: dict[str, Done], workdir: Path) -> Done | None:
    """Returns the record of a step that is done and whose results are still there; none for any other."""
    if not step.command:
        return Done((), {}, _outputs(step), 0.0)
    path = record_path(step, workdir)
    if not path.exists():
        return None
    record = read_sealed(path, Done, what="record of a step", fix="remove it and run the study again")
    same = record.command == step.command and record.needs == _digests(step.needs, done)
    return record if same and record.outputs == _outputs(step) else None


def _run(step: Step, done: dict[str, Done], workdir: Path, call: Call) -> tuple[int, Done | None]:
    start = time.monotonic()
    code = call(step.command)
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        fix = "run the same command again: it goes on there"
        raise DiffpathError(f"step {step.name}", where=workdir, why="interrupted", fix=fix, code=ExitCode(code))
    # Part of the slides failed, and the others made a data set.
    if code not in (ExitCode.OK, ExitCode.PARTIAL):
        return code, None
    record = Done(step.command, _digests(step.needs, done), _outputs(step), round(time.monotonic() - start, 1))
    write_sealed(record_path(step, workdir), asdict(record))
    return code, record


def record_path(step: Step, workdir: Path) -> Path:
    """Returns where the record of a step lies."""
    return workdir / RECORDS / f"{step.name}.json"


def _digests(needs: Iterable[Step], done: dict[str, Done]) -> dict[str, str]:
    return {need.name: done[need.name].digest for need in needs}


def _outputs(step: Step) -> dict[str, str]:
    """Returns digests of the files by which the results of a step are known."""
    if step.out.is_file():
        return {step.out.name: sha256_file(step.out)}
    paths = [step.out / name for name in SEALED if (step.out / name).is_file()]
    paths += sorted((step.out / CHECKPOINTS).glob("seal-*.json"))
    return {str(path.relative_to(step.out)): sha256_file(path) for path in paths}
