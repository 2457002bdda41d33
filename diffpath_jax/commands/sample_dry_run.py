"""``diffpath sample --dry_run``: the drawing of a batch, compiled for devices here or elsewhere."""

import argparse
from collections.abc import Mapping

from jax.sharding import Mesh

from diffpath_jax.commands import dry_run
from diffpath_jax.runs import topology
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.compiled import compile_draw
from diffpath_jax.sampling.draw import Model


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """Options that describe instead of drawing."""
    parser.add_argument("--dry_run", action="store_true", help="print what drawing a batch needs, draw nothing")
    dry_run.add_topology(parser, what="the drawing of a batch")


def describe(jobs: Mapping[str, sampling_job.SampleJob], model: Model, mesh: Mesh) -> None:
    """Print what a batch of each job needs, by the point of a sweep."""
    for point, job in jobs.items():
        program = topology.describe(compile_draw(job, model, mesh), mesh)
        calls = sampling_job.recipe_of(job, model).sampler.num_evaluations
        dry_run.show(
            {
                **({"point": point} if point else {}),
                **dry_run.compiled(program, images=job.batch_size * mesh.size, given="weights and batch"),
                "calls": f"{calls} of the network for each image; the step is one of them, with the decoder",
            }
        )
