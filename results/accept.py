"""Accept a submission: python results/accept.py MyModel.zip --victim my_model.py:MyModel

It is verified as by reid-attack-bench verify. If all holds, the row, matrix, record, report and card are written to
submissions/NAME, where NAME is the victim's on its card, and README.md is written again. Otherwise nothing is changed.
The code of the submitted model is run: read it first.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import click
from publish import HERE, SUBMISSIONS, index, publish

from reid_attack_bench.cli.options import DATA_ROOT, DEVICE
from reid_attack_bench.cli.submission import NAMED, named, refusal
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.device import resolve_device
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.files import replace_file
from reid_attack_bench.jobs.progress import RichListener, listening
from reid_attack_bench.jobs.submission.accept import accept
from reid_attack_bench.jobs.submission.archive import CARD
from reid_attack_bench.jobs.submission.opened import card_of
from reid_attack_bench.jobs.submission.trusted import Given
from reid_attack_bench.text import PlainConsole, one_line, say

NAME = re.compile(r"\w[\w.@+-]*", re.ASCII)


def accepted(
    submission: Path,
    *,
    here: Path = HERE,
    given: Given | None = None,
    data_root: Path | None = None,
    device: str = "auto",
    replace: bool = False,
    listener: Listener | None = None,
) -> Path:
    """Add a submission to the published results in `here`; returns its folder.

    Raises:
        BenchError: it is refused, in one line. Nothing is changed then.
    """
    name = card_of(submission).name
    if not NAME.fullmatch(name):
        raise BenchError(f"card of {submission}: name {name!r} cannot be a folder: letters, digits and _ . @ + - only")
    place = here / SUBMISSIONS / name
    if place.exists() and not replace:
        raise BenchError(f"{place} is there already: --replace puts this submission in its place")
    with tempfile.TemporaryDirectory(prefix=".accept-", dir=here) as temporary:
        whole, small = Path(temporary) / "whole" / name, Path(temporary) / "small"
        found = accept(
            submission, whole, given=given or Given(), data_root=data_root, device=resolve_device(device),
            listener=listener or Listener(),
        )  # fmt: skip
        if found.wrong:
            raise BenchError(refusal(submission, found))
        made = publish(whole, small)
        shutil.copyfile(whole / CARD, made / CARD)
        _put(made, place, here, Path(temporary) / "former")
    return place


def _put(made: Path, place: Path, here: Path, former: Path) -> None:
    """Move `made` to `place` and write README.md again; both or neither."""
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        place.rename(former)
    try:
        made.rename(place)
        replace_file(here / "README.md", index(here).encode())
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        if former.exists():
            former.rename(place)
        raise


@click.command(help=__doc__)
@click.argument("submission", type=click.Path(path_type=Path))
@NAMED
@DATA_ROOT
@DEVICE
@click.option("--replace", is_flag=True, help="Replace the accepted submission of that name.")
def main(
    submission: Path, data_root: Path | None, device: str, replace: bool,
    victim: tuple[str, ...], attack: tuple[str, ...], trust: bool,
) -> None:  # fmt: skip
    try:
        with listening(RichListener(PlainConsole(stderr=True))) as listener:
            place = accepted(
                submission, given=named(victim, attack, trust), data_root=data_root, device=device, replace=replace,
                listener=listener,
            )  # fmt: skip
    except BenchError as error:
        raise click.ClickException(one_line(error)) from error
    say(f"{place}: add it and results/README.md to a commit")


if __name__ == "__main__":
    main()
