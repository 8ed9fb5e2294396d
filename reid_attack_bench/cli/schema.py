"""Command schema."""

from __future__ import annotations

import click

from reid_attack_bench.cli import complete
from reid_attack_bench.errors import BenchError, nearest


@click.command("schema")
@click.argument("document", metavar="suite|card", shell_complete=complete.values("suite", "card"))
def schema_command(document: str) -> None:
    """Print the JSON schema of a suite file or a victim's card, for editors to complete and check."""
    from reid_attack_bench.validation import schema_text

    if document == "suite":
        from reid_attack_bench.suites.document import suite_schema

        schema = suite_schema()
    elif document == "card":
        from reid_attack_bench.jobs.submission.card import card_schema

        schema = card_schema()
    else:
        raise BenchError(f"unknown schema '{document}': {nearest(document, ('suite', 'card'))}")
    print(schema_text(schema), end="")
