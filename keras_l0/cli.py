"""Runs the commands of the program ``keras-l0``, whose options are in ``keras_l0_parser``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from keras_l0_parser import parser as parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: the command line without the program's name; ``sys.argv`` if ``None``.

    Returns:
        The exit status, as of ``run``.

    Raises:
        SystemExit: for help, the version, and a usage error.
    """
    return run(parser().parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Runs a command.

    Args:
        options: what the parser made of the command line.

    Returns:
        The exit status: 0, or 1 if the network that a command has made is dead; 2 after an error
        on stderr, 130 if interrupted.
    """
    try:
        status: int = import_module(f"keras_l0.commands.{options.command}").run(options)
    except Exception as error:  # backends have kinds of their own, and nobody is above this
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"keras-l0: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-l0: interrupted", file=sys.stderr)
        return 130
    return status
