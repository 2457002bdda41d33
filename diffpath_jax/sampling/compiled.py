"""The drawing of a batch, compiled for devices that need not be here."""

import jax
import numpy as np
from jax.sharding import Mesh

from diffpath_jax.devices import sharding
from diffpath_jax.networks import target
from diffpath_jax.runs import topology
from diffpath_jax.sampling.draw import Model, make_draw
from diffpath_jax.sampling.job import SampleJob, image_indices, recipe_of

FIX = "lower --batch_size, or --patch_px"


def compile_draw(job: SampleJob, model: Model, mesh: Mesh) -> jax.stages.Compiled:
    """Returns the program by which every device of a mesh draws a full batch of a job.

    Images in windows are drawn by a program a step, which holds what a turn of this one's loop holds.

    Args:
        job: whose images are drawn.
        model: draws them; of its arrays the shapes count.
        mesh: devices, which need not be here.

    Raises:
        DiffpathError: the batch does not fit into the memory of a device.
    """
    replicated, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    key = topology.everywhere(jax.eval_shape(lambda: jax.random.key(0)), replicated)
    # The first image that is asked for: of a class without any there may be nothing to start from.
    images = np.resize(image_indices(job.counts)[:1], job.batch_size * mesh.size)
    batch = topology.everywhere(job.inputs(images), split)
    with target.compiling_for(mesh.devices.flat[0].platform):
        draw = jax.jit(make_draw(recipe_of(job, model), mesh=mesh))
        lowered = draw.lower(topology.everywhere(model.weights, replicated), key, *batch)
    return topology.fitting(lowered, where=f"{job.batch_size} images a device", fix=FIX)
