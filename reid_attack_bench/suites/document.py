"""Suite documents: fields of the YAML file, and its JSON schema for editors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from reid_attack_bench.contracts import DRAW_BATCH
from reid_attack_bench.metrics.catalogue import comparable
from reid_attack_bench.suites.suite import CONTROL, EOT_SAMPLES, PRECISIONS, RELATIONS
from reid_attack_bench.validation import Document, OneOf, OneOrMany, json_schema, mistake, pattern, shown

ROLES = ("source", "white-box", "target")
SECTIONS = ("datasets", "victims", "attacks")
"""Sections of a suite that have labelled entries."""


class OrNothing:
    """Marks fields that may be left empty (`noise:` with nothing after it): an empty mapping or list."""

    def __init__(self, empty: Callable[[], Any] = dict) -> None:
        self.empty = empty

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: self.empty() if value is None else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "null"}]}


def epsilon_steps(value: object) -> int:
    """Epsilon in steps of 1/255, from 8 or "8/255"."""
    text = re.fullmatch(r"(\d+)\s*/\s*255", value.strip()) if isinstance(value, str) else None
    steps = int(text[1]) if text else value
    if isinstance(steps, float) and steps.is_integer():
        steps = int(steps)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= 255:
        raise mistake(
            f"must be a whole number of 8-bit steps from 0 to 255, such as 8 or 8/255, not {shown(value)}: "
            "images are stored in 8 bits"
        )
    return steps


def pixel_budget(value: object) -> int | str | None:
    """A number of pixels, a share such as "1/8" of the image's, or None for no limit."""
    if value in (None, "all"):
        return None
    if isinstance(value, str) and re.fullmatch(r"1/[1-9]\d*", value):
        return value
    count = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise mistake(f"must be a whole number of at least 1, all, or a share such as 1/8, not {shown(value)}")
    return count


def _samples(value: bool | int) -> int:
    return EOT_SAMPLES * value if isinstance(value, bool) else value


def _no_seed_twice(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise mistake(f"has a seed twice: {seeds}")
    return seeds


def _no_source_twice(sources: list[str]) -> list[str]:
    if len(set(sources)) < len(sources):
        raise mistake(f"names a source twice: {', '.join(sources)}")
    return sources


def _no_query(access: Any) -> Any:
    if access == "query":  # a value of version 0.1
        raise mistake("query is now sees: embedding (or distances, or ranking) with a number of queries")
    return access


_LABEL = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}"
Label = Annotated[
    str,
    AfterValidator(
        pattern(_LABEL, "a label of at most 128 letters, digits and _ . + - that starts with a letter or digit")
    ),
    WithJsonSchema({"type": "string", "pattern": f"^{_LABEL}$"}),
]
Options = Annotated[dict[str, Any], OrNothing()]
Whole = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=16)]
Epsilon = Annotated[
    int,
    PlainValidator(epsilon_steps),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 255}, {"type": "string", "pattern": r"^\d+/255$"}]}
    ),
]
Pixels = Annotated[
    int | str | None,
    PlainValidator(pixel_budget),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^(all|1/[1-9]\d*)$"},
                   {"type": "null"}]}
    ),
]  # fmt: skip
Relation = Annotated[str, OneOf(RELATIONS)]
Measure = Annotated[str, OneOf(comparable())]


class VictimDocument(Document):
    """A victim."""

    use: str = Field("", description="registered victim, or FILE.py:NAME; default: the label")
    zoo: str = Field("", description="instead of use: published model, see Published models")
    options: Options = Field(default_factory=dict, description="settings of the victim")
    train_on: Annotated[list[str], OneOrMany()] = Field(
        default_factory=list, description="training data sets, one model each; none for a trained victim"
    )
    expected_rank1: float = Field(
        0.0, ge=0, le=100, description="clean Rank-1 in % below which a trained model counts as failed"
    )
    roles: Annotated[list[Annotated[str, OneOf(ROLES)]], OneOrMany()] = Field(
        ["source", "target"],
        description="source: crafted on, against every target; white-box: crafted on, against itself; target",
    )
    defends: str = Field("", description="label of the preceding victim that this defence is applied to")


class PresetDocument(Document):
    """An attack to start from."""

    use: str = Field("", description="registered attack, or FILE.py:NAME; default: the label")
    options: Options = Field(default_factory=dict, description="settings of the attack")
    epsilon: Annotated[list[Epsilon], Field(min_length=1), OneOrMany()] = Field(
        [8], description="in 1/255 (8 or 8/255), or a list of several"
    )
    pixels: Annotated[list[Pixels], Field(min_length=1), OneOrMany()] = Field(
        [None], description="a number, all, or a share such as 1/8 of the image's pixels, or a list of several"
    )
    perturbs: Literal["query", "gallery", "both"] = Field("query", description="images that are attacked")
    access: Annotated[Literal["transfer", "white-box"], BeforeValidator(_no_query)] = Field(
        "transfer", description="evaluated targets: all, or the source alone"
    )
    sees: Literal["gradients", "embedding", "distances", "ranking"] = Field(
        "gradients", description="the model itself, or answers to queries; see Threat models"
    )
    queries: Annotated[list[Annotated[int, Field(ge=1)]], OneOrMany()] = Field(
        default_factory=list, description="largest number of queries per image; a list runs each"
    )
    top: int = Field(10, ge=1, description="length of the list that a query returns, with sees: ranking")
    impersonate: Literal["random", "hardest"] | None = Field(
        None, description="identity that a query is to retrieve instead of its own; default: to hide"
    )
    seeds: Annotated[list[Whole], AfterValidator(_no_seed_twice), OneOrMany()] = Field(
        default_factory=list,
        description="the attack is fitted and crafted once with each; default: the seed of the suite",
    )
    adaptive: Annotated[bool | Whole, AfterValidator(_samples)] = Field(
        0, description="true, or the number of draws of a randomised source to average"
    )
    defended_only: bool = Field(False, description="craft on defended sources only")
    relations: Annotated[list[Relation], OneOrMany()] = Field(
        default_factory=list, description="restrict its cells to these relations, of those of the suite; default: all"
    )
    sources: Annotated[list[str], AfterValidator(_no_source_twice), OneOrMany()] = Field(
        default_factory=list,
        description="labels of sources, MODEL or MODEL@DATASET, to craft on all at once; others: all but the target; "
        "on each source alone where left out",
    )


class AttackDocument(PresetDocument):
    """An attack."""

    like: str = Field("", description="preset to start from")


class ProtocolDocument(Document):
    """A protocol: attacks that never change under its name."""

    description: str = Field(min_length=1, description="for people")
    attacks: dict[Label, AttackDocument] = Field(min_length=1, description="label → attack")


class ContenderDocument(Document):
    """An attack of the suite under one of its threat models, or under several as a curve."""

    attack: str = Field(description="label of the attack")
    epsilon: Epsilon | None = Field(None, description="required if the attack has several")
    pixels: Pixels = Field(None, description="required if the attack has several")
    queries: Annotated[int, Field(ge=1)] | None = Field(None, description="required if the attack has several")

    @model_validator(mode="before")
    @classmethod
    def _from_label(cls, value: Any) -> Any:
        return {"attack": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        best = {"const": CONTROL, "description": "the best control: random changes of the budget of the other side"}
        return {"anyOf": [best, {"type": "string", "description": "label of the attack"}, handler(schema)]}


class FindingDocument(Document):
    """A claim about two attacks, or an attack and the best control: a measure is lower under one than the other."""

    claim: str = Field(min_length=1, description="the claim in words")
    lower: ContenderDocument | None = None
    higher: ContenderDocument | None = None
    ascending: list[ContenderDocument] | None = Field(
        None, min_length=2, description="instead of lower and higher: a claim for each pair of neighbours"
    )
    measure: Measure = Field("rank1", description="column of matrix.csv")
    relation: Relation = Field("white-box", description="cells over which the measure is averaged")
    at_equal: Annotated[str, OneOf(("", *comparable()))] = Field(
        "", description="compare at equal values of this measure"
    )

    @model_validator(mode="after")
    def _has_two_sides(self) -> FindingDocument:
        if (self.ascending is not None) == (self.lower is not None and self.higher is not None):
            raise mistake("needs lower and higher, or ascending with a list of attacks")
        return self


class FullDocument(Document):
    """Settings of a suite that may differ at its full size."""

    seed: Whole = Field(0, description="seed of all random numbers of the run")
    image_size: list[Side] = Field(
        [256, 128], min_length=2, max_length=2, description="height and width in pixels, at least 16"
    )
    batch_size: int = Field(64, ge=1, description="images per forward pass")
    draw_batch: int = Field(
        DRAW_BATCH, ge=1, description="images that an attack draws random numbers for at once, whatever batch_size"
    )
    headline_epsilon: Epsilon | None = Field(
        None, description="the leaderboard is sorted by the worst case at this epsilon; default: the smallest"
    )
    datasets: Annotated[dict[Label, Options] | list[str], OrNothing()] = Field(
        default_factory=dict,
        description="name → options (of one's own data set: layout and root), or names to pick from the extended suite",
    )
    victims: Annotated[dict[Label, Annotated[VictimDocument, OrNothing()]] | list[str], OrNothing()] = Field(
        default_factory=dict, description="label → victim, or labels to pick from the extended suite"
    )
    attacks: Annotated[dict[Label, Annotated[AttackDocument, OrNothing()]] | list[str], OrNothing()] = Field(
        default_factory=dict, description="label → attack, or labels to pick from the extended suite"
    )
    protocol: str = Field("", description="fixed set of attacks that is run beside the suite's own; see Protocols")
    presets: Annotated[dict[str, Annotated[PresetDocument, OrNothing()]], OrNothing()] = Field(
        default_factory=dict, description="name → attack, for use with like"
    )
    replace: Annotated[list[Annotated[str, OneOf(SECTIONS)]], OneOrMany()] = Field(
        default_factory=list, description="sections that replace those of the extended suite instead of being merged"
    )
    relations: Annotated[list[Relation], OneOrMany()] = Field(
        default_factory=list, description="restrict the cells to these relations; default: all"
    )
    findings: Annotated[list[FindingDocument], OrNothing(list)] = Field(
        default_factory=list, description="claims that the report evaluates"
    )
    precision: Annotated[str, OneOf(PRECISIONS)] = Field(
        "float32", description="precision of victims while they are attacked and evaluated"
    )
    compile: bool = Field(False, description="apply torch.compile to victims")


class SuiteDocument(FullDocument):
    """A suite of reid-attack-bench."""

    name: str = Field("", description="name of the suite and its results folder; default: the file name")
    description: str = Field("", description="shown in reports")
    extends: str = Field("", description="suite that this one extends: a name or a YAML file")
    full: Annotated[FullDocument | None, OrNothing()] = Field(
        None, description="settings that override the others with --full"
    )


def suite_schema() -> dict[str, Any]:
    """The JSON schema of a suite file, as published in suite.schema.json."""
    return json_schema(SuiteDocument)
