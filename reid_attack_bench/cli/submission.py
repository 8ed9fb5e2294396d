"""Commands submit and verify."""

from __future__ import annotations

from pathlib import Path

import click

from reid_attack_bench.cli.options import DATA_ROOT, DEVICE, MOVED_STORE
from reid_attack_bench.errors import BenchError
from reid_attack_bench.text import PlainConsole, folder_name, say


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
    from reid_attack_bench.store import Store

    result = Result.load(run_dir, store)
    results = result.results
    if not card.exists():
        replace_file(card, card_template(results, victim).encode())
        raise BenchError(f"wrote {card}, because there was no card: fill it in, then run the same command")
    target = pack(results, Store(result.store), victim, card, out or Path(f"{folder_name(victim)}.zip"))
    say(f"{target}: {target.stat().st_size / 2**20:.1f} MiB; check it with reid-attack-bench verify {target}")


@click.command("verify")
@click.argument("submission", type=click.Path(path_type=Path))
@click.option("--victim", metavar="FILE.py:NAME", help="The submitted model, if it is a file. Its code is run.")
@click.option(
    "--sample", default=5, show_default=True, type=click.IntRange(min=1), help="Number of claims to recompute."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Sampling seed.")
@DATA_ROOT
@DEVICE
def verify_command(
    submission: Path, victim: str | None, sample: int, seed: int, data_root: Path | None, device: str
) -> None:
    """Recompute a sample of the claims of a submission.

    They are recomputed from the submitted adversarial images.
    """
    from reid_attack_bench.execute.device import resolve_device
    from reid_attack_bench.jobs.progress import RichListener, listening
    from reid_attack_bench.jobs.submission.verify import verify

    with listening(RichListener(PlainConsole(stderr=True))) as listener:
        checks = verify(
            submission, victim=victim, sample=sample, seed=seed, data_root=data_root,
            device=resolve_device(device), listener=listener,
        )  # fmt: skip
    for check in checks:
        pairs = [f"{rank1:.1f}/{mean:.1f}" for rank1, mean in (check.claimed, check.found)]
        verdict = check.problem or "holds"
        say(f"{check.cell}: claimed {pairs[0]}, found {pairs[1]} (Rank-1/mAP): {verdict}")
    wrong = [check for check in checks if check.problem]
    if wrong:
        raise BenchError(f"{len(wrong)} of {len(checks)} claims do not hold; the first: {wrong[0].problem}")
    say(f"all {len(checks)} sampled claims hold")
