"""Commands submit and verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reid_attack_bench.cli.options import AS_JSON, DATA_ROOT, DEVICE, MOVED_STORE
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, folder_name, say

if TYPE_CHECKING:
    from reid_attack_bench.jobs.submission.trusted import Given
    from reid_attack_bench.jobs.submission.verify import Verified


@click.command("submit")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--victim", required=True, metavar="LABEL", help="Victim whose results are submitted, by its label in the tables."
)
@click.option(
    "--card", type=click.Path(path_type=Path), default=Path("card.yaml"), show_default=True, help="Card of the victim."
)
@click.option("--out", type=click.Path(path_type=Path), help="File of the submission.  [default: VICTIM.zip]")
@MOVED_STORE
def submit_command(run_dir: Path, victim: str, card: Path, out: Path | None, store: Path | None) -> None:
    """Pack the card and results of a victim into one file, for a pull request.

    If there is no card, a template is written for you to fill in.
    """
    from reid_attack_bench.files import replace_file
    from reid_attack_bench.jobs.result import Result
    from reid_attack_bench.jobs.submission.card import card_template
    from reid_attack_bench.jobs.submission.pack import pack
    from reid_attack_bench.store import open_store

    result = Result.load(run_dir, store)
    results = result.results
    if not card.exists():
        replace_file(card, card_template(results, victim).encode())
        raise BenchError(f"wrote {card}, because there was no card: fill it in, then run the same command")
    target = pack(results, open_store(result.store), victim, card, out or Path(f"{folder_name(victim)}.zip"))
    say(f"{target}: {target.stat().st_size / 2**20:.1f} MiB; check it with reid-attack-bench verify {target}")


def NAMED(function: Any) -> Any:  # noqa: N802  used as an option
    """Options that name what verify may run, passed as victim, attack and trust."""
    for option in (
        click.option(
            "--trust", is_flag=True, help="Read files given with --victim that can run code: pickles, TorchScript."
        ),
        click.option(
            "--attack", multiple=True, metavar="LABEL=FILE.py:NAME", help="An attack of its suite. Its code is run."
        ),
        click.option(
            "--victim", multiple=True, metavar="[LABEL=]FILE.py:NAME",
            help="A victim of its suite, or LABEL=FILE, the weights or model of a registered one. Its code is run.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def named(victim: tuple[str, ...], attack: tuple[str, ...], trust: bool) -> Given:
    """What the options of `NAMED` name. A victim without a label is the submitted one."""
    from reid_attack_bench.jobs.submission.trusted import Given

    victims, attacks = (dict(_labelled(flag, each) for each in values)
                        for flag, values in (("--victim", victim), ("--attack", attack)))  # fmt: skip
    if "" in attacks:
        raise BenchError(f"--attack {attacks['']}: write LABEL=FILE.py:NAME")
    return Given(victims, attacks, trust)


def _labelled(flag: str, text: str) -> tuple[str, str]:
    label, equals, value = text.partition("=")
    if not equals and ".py:" in text:
        return "", text
    if not equals or not value:
        raise BenchError(f"{flag} {text}: write LABEL=FILE.py:NAME")
    return label, value


# size: each parameter is an option
@click.command("verify")
@click.argument("submission", type=click.Path(path_type=Path))
@NAMED
@click.option(
    "--sample", default=1, show_default=True, type=click.IntRange(min=1),
    help="Crafts of each attack that are made again whole; of the others the first batch.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="Seed of that sample.  [default: from the file's digest]")
@DATA_ROOT
@DEVICE
@AS_JSON
def verify_command(
    submission: Path, victim: tuple[str, ...], attack: tuple[str, ...], trust: bool, sample: int, seed: int | None,
    data_root: Path | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Verify a submission: recompute its claims, and craft a sample of its images again.

    Nothing of it is run that the command line does not name.
    """
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.progress import RichListener, listening
    from reid_attack_bench.jobs.submission.verify import verify

    given = named(victim, attack, trust)
    with listening(RichListener(PlainConsole(stderr=True))) as listener:
        found = verify(
            submission, given=given, sample=sample, seed=seed, data_root=data_root, device=resolve_device(device),
            listener=listener,
        )  # fmt: skip
    if as_json:
        say(json.dumps(_as_plain(submission, found)))
    else:
        for line in _lines(found):
            say(line)
    if found.wrong:
        raise BenchError(refusal(submission, found))


def refusal(submission: Path, found: Verified) -> str:
    """What is wrong with a submission, in one line."""
    wrong = [check for check in found.checks if check.problem]
    if found.problems:
        more = f", and {len(wrong)} of {len(found.checks)} claims do not hold" if wrong else ""
        return f"{submission}: {found.problems[0]}{more}"
    first = f"{wrong[0].cell}: {wrong[0].problem}"
    return f"{submission}: {len(wrong)} of {len(found.checks)} claims do not hold; the first: {first}"


def _lines(found: Verified) -> Iterator[str]:
    for check in found.checks:
        pairs = [f"{rank1:.1f}/{mean:.1f}" for rank1, mean in (check.claimed, check.found)]
        yield f"{check.cell}: claimed {pairs[0]}, found {pairs[1]} (Rank-1/mAP): {check.problem or 'holds'}"
    for each in found.again:
        verdict = f"{each.share:.0%} the same or as strong, strength {each.strength:.2f}"
        verdict = "differ each time" if each.stochastic else verdict
        yield f"crafted again, {each.images[0]} of {each.images[1]} images: {each.step.label}: {verdict}"
    yield from (f"not verified: {line}" for line in found.unverified)
    if not found.wrong:
        yield f"all {len(found.checks)} claims hold"


def _as_plain(submission: Path, found: Verified) -> dict[str, Any]:
    return {
        "submission": str(submission),
        "holds": not found.wrong,
        "problems": found.wrong,
        "claims": [
            {
                "cell": check.cell,
                "claimed": _pair(check.claimed),
                "found": _pair(check.found),
                "problem": check.problem,
            }
            for check in found.checks
        ],
        "seed": found.seed,
        "crafted_again": [
            {
                "craft": each.step.label,
                "images": each.images[0],
                "of": each.images[1],
                "alike": each.share,
                "strength": each.strength,
                "stochastic": each.stochastic,
            }
            for each in found.again
        ],
        "not_verified": list(found.unverified),
    }


def _pair(values: tuple[float, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in zip(("rank1", "mAP"), values, strict=True)}
