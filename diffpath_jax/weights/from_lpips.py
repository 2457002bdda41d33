"""LPIPS (Zhang et al. 2018): the trunk of VGG16 and five heads, which come in one file or in two."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path as FilePath

import numpy as np

from diffpath_jax.io.files import sha256_file
from diffpath_jax.networks import lpips
from diffpath_jax.networks.pure import purify
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import Converted, Path, expecting, fill, first_words, read_torch

KIND = "lpips"
# Where the checkpoint of a VQGAN keeps the whole of it.
WITHIN = "loss.perceptual_loss."
# The trunk's layers carry torchvision's numbers behind those of a slice; without these the names are torchvision's.
SLICE, TRUNK = re.compile(r"net\.slice\d\."), "features."
PART = re.compile(r"(features|lin\d+|scaling_layer)\.")
# How images are standardised, which is part of our network.
CONSTANTS = {"scaling_layer.shift": lpips.SHIFT, "scaling_layer.scale": lpips.SCALE}


def lpips_names() -> dict[Path, str]:
    """Path of each layer of ours -> its published name; a pooling and each ReLU have numbers of their own there."""
    names: dict[Path, str] = {}
    number = 0
    for group, (_, count) in enumerate(lpips.GROUPS):
        for i in range(count):
            names["trunk", group, i] = f"{TRUNK}{number}"
            number += 2
        number += 1
        names["heads", group] = f"lin{group}.model.1"
    return names


def from_lpips(state: Flat, *, heads: FilePath | None = None, where: str) -> Converted:
    """The distance, from ``lpips.LPIPS``'s own file, a VQGAN's checkpoint, or a VGG16 of torchvision and ``heads``.

    Args:
        state: arrays by their names.
        heads: file of the heads, where ``state`` lacks them.
        where: the file, for errors.

    Raises:
        DiffpathError: names or shapes are others, or images are standardised in another way (exit code 5).
    """
    fix = "give LPIPS with the trunk of VGG16; or that trunk as --file, and the heads as --heads"
    network = purify(lambda rngs: lpips.Lpips(rngs=rngs))
    like, _ = network.shapes
    tensors: Flat = {}
    unused: Counter[str] = Counter()
    with expecting("LPIPS", state, where=where, fix=fix):
        for file in (state, *([read_torch(heads)] if heads else [])):
            places = _places(file)
            if twice := tensors.keys() & places.keys():
                raise ValueError(f"{min(twice)} is there twice")
            tensors |= {own: file[place] for own, place in places.items()}
            used = set(places.values())
            unused.update(first_words(name for name in file if name not in used))
        for name, value in CONSTANTS.items():
            if not np.allclose(tensors.pop(name, np.array(value)).ravel(), value):
                raise ValueError(f"{name} is not {value}")
        params = fill(like, lpips_names(), tensors)
    details = {"heads_sha256": sha256_file(heads)} if heads else {}
    return Converted(KIND, None, params, details=details, unused=unused)


def _places(names: Iterable[str]) -> dict[str, str]:
    """Torchvision's name, or that of a head or a constant -> the name in the file, where that is part of LPIPS."""
    own = {SLICE.sub(TRUNK, name.removeprefix(WITHIN)): name for name in names}
    return {ours: theirs for ours, theirs in own.items() if PART.match(ours)}
