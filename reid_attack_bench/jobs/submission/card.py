"""Cards of submitted victims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from reid_attack_bench.errors import BenchError
from reid_attack_bench.report.results import CleanRow, Results
from reid_attack_bench.validation import Document, checked, json_schema, mistake, parse_yaml, pattern, read_yaml

_BLANK = "FILL IN"
Text = Annotated[
    str, Field(min_length=1), WithJsonSchema({"type": "string", "minLength": 1, "not": {"pattern": f"^{_BLANK}"}})
]
Digest = Annotated[
    str,
    AfterValidator(pattern("[0-9a-f]{32}", "32 hexadecimal digits")),
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{32}$"}),
]


class Card(Document):
    """Victim card: description of a submitted model."""

    name: Text = Field(description="name of the victim in the tables")
    defence: Text = Field(description="what defends it, in a few words; none")
    trained_on: list[Text] = Field(
        min_length=1, description="a list of every data set that it was trained on, pretraining too"
    )
    paper: Text = Field(description="arXiv number, DOI or URL; none")
    code: Text = Field(description="URL of the code; none")
    licence: Text = Field(description="SPDX identifier of the weights' licence")
    weights: Digest = Field(description="digest of the weights, from clean.csv")
    contact: Text = Field(description="how to reach its author")
    notes: Text = Field("", description="anything else")

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, value: Any) -> Any:
        given = value if isinstance(value, dict) else {}
        blank = [
            f"{name} ({field.description})"
            for name, field in cls.model_fields.items()
            if any(str(each).startswith(_BLANK) for each in _listed(given.get(name)))
        ]
        if blank:
            raise mistake(f"is not filled in: {', '.join(blank)}")
        return value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def card_template(results: Results, victim: str) -> str:
    """A card with the fields known from the run; the author fills in the rest."""
    row = clean_row(results, victim)
    known = {
        "name": victim,
        "defence": row.defence or "none",
        "trained_on": [row.dataset] if row.home else [_BLANK],
        "paper": row.citation or f"{_BLANK}: arXiv number, DOI or URL; none",
        "code": f"{_BLANK}: URL; none",
        "licence": f"{_BLANK}: SPDX identifier, such as MIT",
        "weights": row.weights,
        "contact": f"{_BLANK}: how to reach you",
    }
    head = "# Victim card: description of the model. reid-attack-bench submit checks it.\n"
    return head + yaml.safe_dump(known, sort_keys=False, allow_unicode=True)


def read_card(path: Path) -> Card:
    """Read and validate a card.

    Raises:
        BenchError: not valid YAML, or a field is missing, unknown, of the wrong type or not filled in.
    """
    return _card(read_yaml(path, "card"), f"card {path}")


def parse_card(text: bytes, where: str) -> Card:
    """A card from its text; `where` names it in messages.

    Raises:
        BenchError: as `read_card`.
    """
    return _card(parse_yaml(text, where), where)


def _card(content: Any, where: str) -> Card:
    try:
        return checked(Card, content, "it", noun="field")
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error


def card_schema() -> dict[str, Any]:
    """The JSON schema of a card, as published in card.schema.json."""
    return json_schema(Card)


def clean_row(results: Results, victim: str) -> CleanRow:
    """The clean row of the victim, on its training data set if the run has it."""
    rows = [row for row in results.clean if row.victim == victim]
    if not rows:
        known = ", ".join(sorted({row.victim for row in results.clean}))
        raise BenchError(f"the run has no victim '{victim}': expected one of {known}")
    return next((row for row in rows if row.home), rows[0])
