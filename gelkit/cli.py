"""The command line's door: the commands by name, errors as messages and exit codes."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys

import click

import gelkit
from gelkit.commands import pictures, reuse, stages, upkeep
from gelkit.commands.console import Warnings, echo
from gelkit.errors import GelkitError, UsageError
from gelkit.termination import EXIT_CODE, Terminated, termination_raised
from gelkit.text import printable


class _UsedWrongly(click.ClickException):
    exit_code = 2


class _Door(click.Group):
    """Turns errors and SIGTERM into messages and exit codes: 2 used wrongly, 1 failed, 143."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order they are used in, not by the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with termination_raised():
                return super().invoke(ctx)
        except UsageError as error:
            raise _UsedWrongly(printable(str(error))) from error
        except GelkitError as error:
            raise click.ClickException(printable(str(error))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when its reader has gone
            raise click.ClickException(
                f"Expected the disk to do what was asked. Received: {printable(str(error))}. What "
                "was finished is kept; make room or choose another folder, and run again."
            ) from error
        except Terminated as error:
            echo("\nTerminated. What was finished is kept; run again to go on.", err=True)
            raise click.exceptions.Exit(EXIT_CODE) from error
        except KeyboardInterrupt:
            echo("\nInterrupted. What was finished is kept; run again to go on.", err=True)
            raise


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gelkit.__version__, prog_name="gelkit")
def main() -> None:
    """Compare transfer-learning heads on images of gels.

    Stage one (features) passes every image once through frozen pretrained backbones and keeps the
    embeddings. Stage two (heads) trains and compares 24 configurations on them: 2 hardware types x
    3 backbones x 2 heads x 2 optimizers.

    \b
    Example, from nothing:
      gelkit samples my_gels
      gelkit features my_gels --weights random
      gelkit heads my_gels --weights random
      gelkit evaluate
    """
    os.environ["KERAS_BACKEND"] = "torch"  # in this program no other has a say
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names need not be text
    logger = logging.getLogger("gelkit")
    if not any(isinstance(handler, Warnings) for handler in logger.handlers):
        logger.addHandler(Warnings(logging.WARNING))
        logger.propagate = False


for _command in (
    pictures.samples,
    pictures.images,
    stages.features,
    stages.heads,
    stages.evaluate,
    stages.report,
    reuse.predict,
    reuse.similar,
    reuse.duplicates,
    reuse.export,
    upkeep.cache,
    upkeep.backbones,
    upkeep.doctor,
):
    main.add_command(_command)
