"""Cards of submitted victims."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report import rows
from reid_attack_bench.report import rows as result_rows
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.rows import is_true


def card_template(results: Results, victim: str) -> str:
    """A card with what the run knows of a victim; the rest is for its author."""
    row = clean_row(results, victim)
    known = {
        "name": victim,
        "defence": row["defence"] or "none",
        "trained_on": [row["dataset"]] if rows.is_true(row["home"]) else ["FILL IN"],
        "paper": row["citation"] or "FILL IN: arXiv number, DOI or URL; none",
        "code": "FILL IN: URL; none",
        "licence": "FILL IN: SPDX identifier, such as MIT",
        "weights": row["weights"],
        "contact": "FILL IN: how to reach you",
    }
    head = "# Victim card: what others must know of the model. reid-attack-bench submit checks it.\n"
    return head + yaml.safe_dump(known, sort_keys=False, allow_unicode=True)


def read_card(path: Path) -> dict[str, Any]:
    """A card, checked against its schema.

    Raises:
        BenchError: it is no YAML, or a field is missing, unknown or not filled in; the first such field is named.
    """
    try:
        card = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise BenchError(f"card {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BenchError(f"card {path} is not valid YAML: {' '.join(str(error).split())}") from error
    schema = json.loads(resources.files("reid_attack_bench.jobs.submission").joinpath("card.schema.json").read_text())
    mistakes = jsonschema.Draft202012Validator(schema).iter_errors(card)
    for mistake in sorted(mistakes, key=lambda each: list(map(str, each.path))):
        field = ".".join(str(part) for part in mistake.path) or "the card"
        advice = schema["properties"].get(str(mistake.path[0]), {}).get("description", "") if mistake.path else ""
        raise BenchError(f"card {path}, {field}: {mistake.message}" + (f" ({advice})" if advice else ""))
    return dict(card)


def clean_row(results: Results, victim: str) -> dict[str, Any]:
    rows = [row for row in result_rows.rows(results.clean) if row["victim"] == victim]
    if not rows:
        known = ", ".join(sorted(set(map(str, results.clean["victim"]))))
        raise BenchError(f"the run has no victim '{victim}': it has {known}")
    return next((row for row in rows if is_true(row["home"])), rows[0])
