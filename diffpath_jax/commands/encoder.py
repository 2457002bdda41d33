"""``diffpath encoder``: the published encoders that are known by name, and one of them as a file for ``--features``."""

import argparse
from pathlib import Path

from rich.table import Table

from diffpath_jax.evaluation.features.published import PUBLISHED
from diffpath_jax.exchange.encoder_onnx import export_encoder
from diffpath_jax.io.errors import ExitCode
from diffpath_jax.io.progress import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath encoder``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|export")
    actions.add_parser("list", help="those that are known by name, with their licences", allow_abbrev=False)
    text = "one of them as an ONNX file, from its weights on the Hugging Face hub"
    export = actions.add_parser("export", help=text, allow_abbrev=False)
    export.add_argument("name", choices=list(PUBLISHED), metavar="NAME", help=", ".join(PUBLISHED))
    export.add_argument("--out", required=True, type=Path, help="folder to write")
    text = "folder with the files of its repository (config.json and weights), where the hub is out of reach"
    export.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help=text)


def main(arguments: argparse.Namespace) -> ExitCode:
    """List, or export.

    Raises:
        DiffpathError: a package or the weights are missing, or the folder holds something already.
    """
    if arguments.action == "list":
        console.print(_table())
        return ExitCode.OK
    file = export_encoder(PUBLISHED[arguments.name], arguments.out, source=arguments.source)
    console.print(f"{file}: use it as --features {file}; licence: {PUBLISHED[arguments.name].licence}", soft_wrap=True)
    return ExitCode.OK


def _table() -> Table:
    table = Table("name", "features", "side, px", "um/px", "licence", "huggingface.co/", box=None, pad_edge=False)
    for row in PUBLISHED.values():
        values = (row.width, row.size, row.mpp, row.licence, row.repository)
        table.add_row(row.name, *map(str, values))
    return table
