"""The steps of a study as a Snakemake workflow, for clusters: its executors run them on SLURM, Kubernetes and others.

Each step is a rule that runs ``diffpath study --step NAME``, so that a workflow and a study leave the same records.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from diffpath_jax.study.runner import record_path
from diffpath_jax.study.step import Step

# Commands that run networks; the others need no accelerator.
ON_ACCELERATORS = ("train", "encode", "reconstruct", "sample", "eval", "compare", "membership", "probe")


def workflow(steps: Sequence[Step], workdir: Path, command: Sequence[str]) -> str:
    """Returns the text of a Snakefile.

    Args:
        steps: in their order.
        workdir: directory of the study.
        command: words that run this study, without ``--step``.
    """
    rules = [_rule(number, step, workdir, command) for number, step in enumerate(steps) if step.command]
    targets = [str(record_path(step, workdir)) for step in steps if step.command]
    page = json.dumps(" ".join([*map(_quoted, command), "--page"]))
    head = [
        "# Written by `diffpath study --snakemake`; run it where the study's command would be run.",
        "# snakemake --cores 2    here;    snakemake --executor slurm --jobs 20    on a cluster",
        "",
        "rule all:",
        f"    input: {json.dumps(targets)}",
        f"    shell: {page}",
        "",
    ]
    return "\n".join([*head, *rules])


def _rule(number: int, step: Step, workdir: Path, command: Sequence[str]) -> str:
    needs = [str(record_path(need, workdir)) for need in step.needs if need.command]
    shell = " ".join([*map(_quoted, command), "--step", _quoted(step.name)])
    gpus = int(step.command[0] in ON_ACCELERATORS)
    return "\n".join(
        [
            f"rule step_{number:03d}:  # {step.name}",
            f"    input: {json.dumps(needs)}",
            f"    output: {json.dumps(str(record_path(step, workdir)))}",
            f"    resources: gpu={gpus}",
            f"    shell: {json.dumps(shell)}",
            "",
        ]
    )


def _quoted(word: str) -> str:
    """Returns a word for a shell, in a text in which Snakemake replaces what stands in braces."""
    return shlex.quote(word).replace("{", "{{").replace("}", "}}")
