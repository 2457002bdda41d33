"""The one console script: subcommands, and how every failure reaches the user."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from diffpath_jax.io.errors import DiffpathError, ExitCode, from_system
from diffpath_jax.io.files import is_special

# command: (module that holds add_arguments and main, one line of help). Imported only when used: `prep` never
# loads JAX, and `--help` answers at once.
COMMANDS = {
    "demo": ("diffpath_jax.commands.demo", "everything below, on a real slide, in minutes on a CPU"),
    "prep": ("data_prep.cli", "slides and annotations -> dataset directory"),
    "train": ("diffpath_jax.commands.train", "train or resume a diffusion model, an autoencoder or a classifier"),
    "transform": ("diffpath_jax.commands.transform", "a data set out of another: fewer patients, filtered, compressed"),
    "encode": ("diffpath_jax.commands.encode", "latents of a data set, written once"),
    "reconstruct": ("diffpath_jax.commands.reconstruct", "images through an autoencoder and back; how near they come"),
    "sample": ("diffpath_jax.commands.sample", "draw a set of images from a trained model"),
    "eval": ("diffpath_jax.commands.evaluate", "distances between real and generated; test a classifier"),
    "membership": ("diffpath_jax.commands.membership", "can one tell which images a model was trained on?"),
    "reader": ("diffpath_jax.commands.reader", "can readers tell generated images from real ones? pages, and scores"),
    "compare": ("diffpath_jax.commands.compare", "classifiers trained on different images, over the same patients"),
    "probe": ("diffpath_jax.commands.probe", "a linear classifier of any features, for compare"),
    "encoder": ("diffpath_jax.commands.encoder", "published encoders of pathology images as files for --features"),
    "convert": ("diffpath_jax.commands.convert", "public PyTorch weights -> parameters of this project"),
    "export": (
        "diffpath_jax.commands.export",
        "runs and data sets -> files of other programs",
    ),
    "publish": ("diffpath_jax.commands.publish", "weights or images with their card, to a folder or to a hub"),
    "study": ("diffpath_jax.commands.study", "every table and figure of the paper, and its controls, from one config"),
    "report": ("diffpath_jax.commands.report", "everything found, in one HTML file"),
    "cite": ("diffpath_jax.commands.cite", "BibTeX of the methods that a run, a set or a study used"),
    "doctor": ("diffpath_jax.commands.doctor", "what this machine has and lacks"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the options as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """Raises ``DiffpathError``."""
        raise DiffpathError("option", where="the command line", why=message, fix=f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit code (see :class:`diffpath_jax.io.errors.ExitCode`).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(_dispatch(argv))
    except Exception as error:
        refused = from_system(error)
        if refused is None:
            raise
        print(f"error: {refused}", file=sys.stderr)
        return int(refused.code)
    except KeyboardInterrupt:
        print("error: interrupted; run the same command to go on", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)


def _dispatch(argv: Sequence[str]) -> ExitCode:
    arguments, overrides = parse(argv)
    command = importlib.import_module(COMMANDS[arguments.command][0])
    return command.main(arguments, overrides) if takes_overrides(arguments) else command.main(arguments)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the options of a command line, and what is left for its config; nothing runs.

    Raises:
        DiffpathError: an option does not exist, or its value cannot be.
    """
    _check_words(argv)
    parser = _parser(argv)
    arguments, rest = parser.parse_known_args(argv)
    _check_paths(arguments)
    if rest and not takes_overrides(arguments):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments, rest


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Returns a parser with the options of the command that a command line names."""
    parser = _Parser(prog="diffpath", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, (module_name, help_line) in COMMANDS.items():
        subparser = commands.add_parser(name, help=help_line, allow_abbrev=False)
        if name == chosen:
            importlib.import_module(module_name).add_arguments(subparser)
    return parser


def takes_overrides(arguments: argparse.Namespace) -> bool:
    """Returns True if a command reads ``--config.a.b=c``."""
    return getattr(arguments, "takes_overrides", False)


def _check_words(argv: Sequence[str]) -> None:
    """Refuse words that no file of the project could hold.

    Raises:
        DiffpathError: one is not UTF-8.
    """
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            fix = "rename the file or folder"
            raise DiffpathError("option", where="the command line", why=f"{word!a} is not UTF-8", fix=fix) from None


def _check_paths(arguments: argparse.Namespace) -> None:
    """Refuse pipes and devices, of which one may have no end.

    Raises:
        DiffpathError: an option names one.
    """
    for name, value in vars(arguments).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and is_special(path):
                why, fix = "it is a pipe or a device", "name a file or a directory"
                raise DiffpathError(f"--{name}", where=path, why=why, fix=fix)


# Set by a shell that asks argcomplete how a command line may go on.
_COMPLETING = "_ARGCOMPLETE"


def _complete() -> None:
    """Tells a shell how the command line may go on, where argcomplete is installed, and ends."""
    try:
        import argcomplete
    except ImportError:
        sys.exit(int(ExitCode.OK))
    typed = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(_parser(typed[1:]))


def entry_point() -> None:
    """Console script. SIGTERM unwinds like an error; training replaces this by its own way to stop."""
    if _COMPLETING in os.environ:
        _complete()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(ExitCode.TERMINATED)))
    _say_refusals_once()
    sys.exit(main())


def _say_refusals_once() -> None:
    """What the machine refuses is said in one line; libraries say it anew for each array of a checkpoint."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)
    sys.unraisablehook = _show_unraisable


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or from_system(error) is None


def _show_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Shows it, but for what threads say that come too late for a checkpoint that could not be written."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    entry_point()
