"""``diffpath convert``: a public PyTorch checkpoint in, parameters of this project out."""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file
from diffpath_jax.io.progress import console
from diffpath_jax.training.checkpoint import tree_digest
from diffpath_jax.weights import (
    from_adm,
    from_diffusers,
    from_inception,
    from_ldm,
    from_lpips,
    from_resnet,
    from_vqgan,
    torch_files,
)
from diffpath_jax.weights.downloads import PublishedFile, check_digest, downloaded
from diffpath_jax.weights.safetensors_file import flatten, flatten_network, write_parameters


@dataclass(frozen=True)
class Source:
    """Sources of checkpoints.

    Attributes:
        convert: (arrays by their names, ``where``, options) -> ours.
        use: what the result is for; ``{out}`` stands for its path.
        options: which of :data:`OPTIONS` it takes.
        published: the only file it is made for, if there is just one.
    """

    convert: Callable[..., torch_files.Converted]
    use: str
    options: tuple[str, ...] = ()
    published: PublishedFile | None = None


SOURCES = {
    "adm": Source(
        from_adm.from_adm,
        use="fine-tune: --config.train.init_from={out}",
        options=("num_heads", "head_channels", "num_heads_upsample", "attention_order", "noise_schedule"),
    ),
    "ldm": Source(
        from_ldm.from_ldm,
        use="fine-tune: --config.train.init_from={out}; its first stage: diffpath convert --from vqgan, the same file",
        options=("num_heads", "head_channels", "raw_parameters"),
    ),
    "vqgan": Source(
        from_vqgan.from_vqgan,
        use="latents: --config.codec.first_stage={out}; fine-tune: --config.train.init_from={out}",
        options=("raw_parameters",),
    ),
    "diffusers": Source(
        from_diffusers.from_diffusers,
        use="VQModel, AutoencoderKL: --config.codec.first_stage={out}; UNet2DModel: --config.train.init_from={out}",
    ),
    "lpips": Source(
        from_lpips.from_lpips,
        use="perceptual loss of an autoencoder: --config.autoencoding.lpips={out}",
        options=("heads",),
    ),
    "resnet50": Source(
        from_resnet.from_resnet,
        use="a classifier to start from: --config.train.init_from={out} --config.network.standardise=True",
    ),
    "inception": Source(
        from_inception.from_inception,
        use="the features of FID: {out}",
        published=from_inception.PUBLISHED,
    ),
}
# Options of single sources, for argparse; what is not given is left to the source.
OPTIONS: dict[str, dict[str, Any]] = {
    "num_heads": {
        "type": int,
        "help": "adm, ldm: heads of a UNet (if not given 4 and 1, as the published ones for 128 px and VQ-f4 have)",
    },
    "head_channels": {"type": int, "help": "adm, ldm: channels of a head, instead of num_heads"},
    "num_heads_upsample": {"type": int, "help": "adm: heads on the way up, where they are others than num_heads"},
    "attention_order": {
        "choices": get_args(from_adm.AttentionOrder),
        "help": "adm: new for --use_new_attention_order True, as of 64x64_diffusion.pt (default: legacy)",
    },
    "noise_schedule": {
        "choices": get_args(from_adm.NoiseName),
        "help": "adm: --noise_schedule of its training, which the result says (default: linear; 64 px: cosine)",
    },
    "raw_parameters": {"action": "store_true", "help": "ldm, vqgan: the weights themselves, not their moving average"},
    "heads": {"type": Path, "help": "lpips: file of its heads, where --file is the trunk alone, torchvision's VGG16"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath convert``."""
    parser.add_argument("--from", dest="source", required=True, help="whose checkpoint: " + ", ".join(SOURCES))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--file", type=Path, help="the checkpoint: a PyTorch state_dict or safetensors")
    where.add_argument("--download", action="store_true", help="fetch the checkpoint from where its authors keep it")
    parser.add_argument("--out", required=True, type=Path, help="FILE.safetensors to write")
    parser.add_argument(
        "--entry", default="", help="which entry of the checkpoint holds the weights, where several do: model, ema, ..."
    )
    parser.add_argument(
        "--unverified", action="store_true", help="take a file that is not the published one; the result says so"
    )
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, **option)


def main(arguments: argparse.Namespace) -> ExitCode:
    """Convert.

    Raises:
        DiffpathError: an unknown source, an option that is not its own, a file that is missing, damaged or holds
            something else, no access to the network where a download was asked for.
    """
    source = _source(arguments)
    options = {name: getattr(arguments, name) for name in source.options if name in arguments}
    with _checkpoint(source, arguments) as path:
        converted = source.convert(torch_files.read_torch(path, entry=arguments.entry), where=str(path), **options)
        sha256 = sha256_file(path)
    params, model_state = converted.params, converted.model_state
    flat = flatten_network(params, model_state)
    about: dict[str, Any] = {
        **converted.about(),
        "digest": tree_digest({"params": params, "model_state": model_state} if model_state else params),
        "converted_from": arguments.source,
        "source_sha256": sha256,
        **({"published": sha256 == source.published.sha256} if source.published else {}),
    }
    write_parameters(arguments.out, flat, about)
    numbers = sum(array.size for array in flatten(params).values())
    held = f"{numbers:,} parameters" + (", running statistics" if model_state else "")
    console.print(f"{arguments.out}: {len(flat)} arrays, {held}, every name used once", soft_wrap=True)
    if converted.unused:
        others = ", ".join(f"{word} ({count})" for word, count in sorted(converted.unused.items()))
        console.print(f"  left out, as part of something else: {others}", soft_wrap=True)
    console.print(f"  network {about['network']}", soft_wrap=True)
    for note in converted.notes:
        console.print(f"  note: {note}", soft_wrap=True)
    if about.get("published", True):
        console.print(f"  {source.use.format(out=arguments.out)}", soft_wrap=True)
    else:
        console.print("  not the published weights: what is measured with them has another name", soft_wrap=True)
    return ExitCode.OK


def _source(arguments: argparse.Namespace) -> Source:
    """The source that is asked for, with options that fit it."""
    if arguments.source not in SOURCES:
        known = ", ".join(SOURCES)
        raise _wrong("--from", f"{arguments.source!r} is unknown", f"use one of {known}")
    if arguments.out.suffix != ".safetensors":
        raise _wrong("--out", f"{arguments.out.name!r} is not a .safetensors file", "name one")
    source = SOURCES[arguments.source]
    for name in OPTIONS:
        if name in arguments and name not in source.options:
            raise _wrong(f"--{name}", f"not an option of --from {arguments.source}", "leave it out")
    for name in ("download", "unverified"):
        if getattr(arguments, name) and not source.published:
            raise _wrong(f"--{name}", f"--from {arguments.source} has no one published file", "give --file alone")
    if arguments.download and arguments.unverified:
        raise _wrong("--unverified", "a download is always verified", "leave it out, or give --file")
    return source


def _wrong(what: str, why: str, fix: str) -> DiffpathError:
    return DiffpathError(what, where="the command line", why=why, fix=fix)


@contextlib.contextmanager
def _checkpoint(source: Source, arguments: argparse.Namespace) -> Iterator[Path]:
    """The checkpoint's path, once its digest was found to be the published one, if there is one."""
    if source.published and arguments.download:
        with downloaded(source.published, beside=arguments.out) as path:
            yield path
        return
    if source.published and not arguments.unverified:
        check_digest(arguments.file, source.published)
    yield arguments.file
