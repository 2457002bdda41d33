"""The parameters of another run, or of a file, that ``train.init_from`` lets a run start from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from diffpath_jax.config import sections
from diffpath_jax.config.files import defaults_of
from diffpath_jax.devices import hardware
from diffpath_jax.io.progress import console
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.runs import origin
from diffpath_jax.runs import run as runs
from diffpath_jax.training.loop import Start
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import safetensors_file


def starting_point(config: sections.RunConfig, *, num_classes: int) -> Start | None:
    """Parameters and running statistics that ``train.init_from`` names, adapted to this run's network; or none.

    What could not be copied as it was is said in a line each.

    Raises:
        DiffpathError: they do not belong to this network, or were trained on colours that are given in another way.
    """
    source = config.train.init_from
    if not source:
        return None
    params, state, about = _stored_network(Path(source))
    own, shape = config.as_json(), config.network_for(num_classes)
    notes = origin.check_origin(
        origin.origin_of(about), origin.origin_of(own), defaults=defaults_of(type(shape)), where=source
    )
    network = make_network(shape, dtype=config.dtype)
    options = hardware.options_for_one_call()
    fresh, fresh_state = jax.jit(network.init, compiler_options=options)(jax.random.key(config.seed))
    adapted = safetensors_file.adapt(params, fresh, where=source)
    for note in (*notes, *adapted.notes):
        console.print(f"init_from: {note}", markup=False)
    return Start({NETWORK: adapted.params}, {NETWORK: safetensors_file.arrange(state, fresh_state, where=source)})


def _stored_network(path: Path) -> tuple[safetensors_file.Flat, safetensors_file.Flat, Mapping[str, Any]]:
    """Parameters and running statistics by name, of a run or a file, and what it says of their network."""
    if path.is_dir():
        run = runs.open_run(path)
        trained = runs.load_parameters(run)
        params, state = (safetensors_file.flatten(tree) for tree in (trained.params, trained.model_state))
        return params, state, run.config.as_json()
    flat, about = safetensors_file.read_parameters(path)
    return *safetensors_file.split_network(flat), about
