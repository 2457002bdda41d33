"""What the configs beside this file share: how a variant is chosen, and the blocks that several of them hold.

A config is one Python file with ``get_config(variant)``. To make one of your own, copy any of them to any place:
``import common`` finds this file from there.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

Variants = Mapping[str, Callable[[], ConfigDict]]


def choose(variants: Variants, variant: str) -> ConfigDict:
    """Returns the config of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in variants:
        raise ValueError(f"unknown variant {variant!r}; known are {', '.join(variants)}")
    return variants[variant]()


def choose_demo(make: Callable[[bool], ConfigDict], variant: str) -> ConfigDict:
    """Returns ``make(debug)`` for the variants of the demo's configs: none, and ``debug``.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in ("", "debug"):
        raise ValueError(f"unknown variant {variant!r}; known are debug and none")
    return make(variant == "debug")


def data(batch_size: int, *, workers: int = 4) -> dict[str, Any]:
    """Section ``data``: the 8 symmetries of tissue, as a patch of it has no right way up."""
    return {"train": "", "batch_size": batch_size, "augment": "dihedral", "workers": workers}


def train(num_steps: int, **others: Any) -> dict[str, Any]:
    """Section ``train`` of a long run: a checkpoint and a validation every 2,000 steps, the best of them kept."""
    often = {"log_every": 100, "checkpoint_every": 2_000, "eval_every": 2_000}
    return {"num_steps": num_steps, **often, **others}


def linear_noise() -> dict[str, Any]:
    """Section ``noise`` of DDPM and ADM."""
    return {"schedule": "linear", "num_steps": 1000, "beta_start": 1e-4, "beta_end": 2e-2}


def best(config: ConfigDict) -> ConfigDict:
    """Returns a config with the parts of a recipe that ten minutes of a core showed to be worth it (docs/SPEED.md).

    Min-SNR weights on x0, classes in balance, Muon with a rate that decays to zero, averages of any length.
    """
    config.data.balanced = True
    config.diffusion = {"prediction": "x0", "loss": "min_snr", "label_dropout": 0.1}
    config.optim.update({"learning_rate": 3e-4, "muon_learning_rate": 0.02, "b2": 0.99, "decay": "cosine"})
    config.optim.update({"warmup_steps": 1_000, "clip_norm": 1.0, "ema_lengths": (0.05, 0.1)})
    config.train.keep_every = 4_000
    return config


def make_debug(config: ConfigDict, **network: Any) -> ConfigDict:
    """Returns a config of two steps in float32 on any data set, for tests, with these keys of its network."""
    config.dtype = "float32"
    config.network.update(network)
    config.data.update({"batch_size": 8, "workers": 0})
    config.train.update({"num_steps": 2, "log_every": 1, "checkpoint_every": 1, "eval_every": 1})
    if "keep_every" in config.train:
        config.train.keep_every = 0
    if "accumulate" in config.optim:
        config.optim.accumulate = 1
    return config


def demo_optim(debug: bool, *, ema_decay: float) -> dict[str, Any]:
    """Section ``optim`` of a run of minutes: with so few steps Muon gets about a third further than AdamW alone."""
    return {
        "learning_rate": 1.5e-3,
        "muon_learning_rate": 0.02,
        "b2": 0.99,
        "decay": "cosine",
        "warmup_steps": 0 if debug else 50,
        "clip_norm": 1.0,
        "ema_decay": ema_decay,
    }


def demo_train(debug: bool, num_steps: int, *, checkpoint_every: int, eval_every: int = 0) -> dict[str, Any]:
    """Section ``train`` of a run of minutes, and of two steps for tests."""
    if debug:
        return {"num_steps": 2, "log_every": 1, "checkpoint_every": 1, "eval_every": 0}
    return {"num_steps": num_steps, "log_every": 10, "checkpoint_every": checkpoint_every, "eval_every": eval_every}
