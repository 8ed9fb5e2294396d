"""Entry point of the command line: registers the commands and prints errors as one line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from reid_attack_bench import __version__
from reid_attack_bench.cli.attack import craft_command, fit_command
from reid_attack_bench.cli.complete import VARIABLE, completion_command
from reid_attack_bench.cli.data import data_group
from reid_attack_bench.cli.list import list_command
from reid_attack_bench.cli.options import Commands
from reid_attack_bench.cli.report import compare_command, report_command
from reid_attack_bench.cli.run import evaluate_command, run_command
from reid_attack_bench.cli.schema import schema_command
from reid_attack_bench.cli.submission import submit_command, verify_command
from reid_attack_bench.cli.victim import check_victim_command, new_victim_command
from reid_attack_bench.cli.weights import weights_group
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import one_line, say

_SECONDS_FOR_A_THREAD = 1.0
_UNREAD = 141
"""Exit status where standard output is closed, as of a program that SIGPIPE ends."""

_INTERRUPTED = "interrupted. Finished steps are kept; run the same command to resume."


def main() -> None:
    """Run the command line. A BenchError is printed as one line on standard error; the exit status is 1.

    It is not 0 either where a plug-in ends the program. Threads that plug-ins left are not waited for.
    """
    threads = set(threading.enumerate())
    try:
        _invoke()
    except SystemExit as ended:
        _leave(ended.code, threads)
        raise
    _leave(0, threads)


def _invoke() -> None:
    _print_anything()
    _settle()
    try:
        with _finishing():
            status = cli(standalone_mode=False, complete_var=VARIABLE)
            if status != _UNREAD:
                sys.stdout.flush()
        if status == _UNREAD:
            raise BrokenPipeError
        if status:  # of click.exceptions.Exit
            sys.exit(status)
    except BenchError as error:
        _complain(str(error))
        sys.exit(1)
    except click.exceptions.Abort:
        _complain(_INTERRUPTED)
        sys.exit(130)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain(_INTERRUPTED)
        sys.exit(130)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # what is left to be written is not
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)
    except OSError as error:
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        sys.exit(1)


def _leave(status: Any, threads: set[threading.Thread]) -> None:
    """End this process where threads other than `threads` would keep it from ending."""
    left = [each for each in threading.enumerate() if each not in threads and not each.daemon]
    for thread in left:
        thread.join(_SECONDS_FOR_A_THREAD)
    if any(thread.is_alive() for thread in left):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def _finishing() -> Iterator[None]:
    """Context of a command that ends with sys.exit and os._exit, and whatever else a plug-in raises, as an error does.

    Raises:
        BenchError: something was raised that is to end a program, and is not of ours.
    """
    leave, process = os._exit, os.getpid()

    def ended(status: int) -> NoReturn:
        if status == 0 and os.getpid() == process:  # and not a process that this one forked
            _complain("os._exit(0) was called by a plug-in: the command is not finished")
            leave(1)
        leave(status)

    os._exit = ended
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        from reid_attack_bench.execute.surroundings import ending

        raise BenchError(f"{ending(error)} by a plug-in: the command is not finished") from error
    finally:
        os._exit = leave


def _print_anything() -> None:
    """Let nothing fail on a character that the encoding of the terminal lacks, what plug-ins print included."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settle() -> None:
    """What libraries read from the environment when they are imported, also in worker processes."""
    os.environ["MPLBACKEND"] = "agg"  # that of a notebook, which its shells inherit, does not exist here
    if not os.path.isabs(os.path.expanduser("~")):  # a container that runs as a number without a name
        os.environ["HOME"] = "/nonexistent"


def _complain(text: str) -> None:
    say(f"error: {one_line(text)}", sys.stderr)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """How robust is a person re-identification model? Attacks × sources × targets, from nothing to a leaderboard."""


for _command in (
    run_command,
    evaluate_command,
    report_command,
    compare_command,
    submit_command,
    verify_command,
    fit_command,
    craft_command,
    list_command,
    new_victim_command,
    check_victim_command,
    data_group,
    weights_group,
    schema_command,
    completion_command,
):
    cli.add_command(_command)
