"""Zoo files: published weights by name. One YAML file lists models with their architecture, address and figures."""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.files import expanded, plain
from reid_attack_bench.validation import Document, OneOrMany, Positive, checked, mistake, pattern, read_yaml

WITHDRAWN = frozenset({"dukemtmc-reid", "dukemtmc-videoreid", "occluded-duke", "p-dukemtmc"})
"""Data sets that their makers withdrew, and what derives from them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
_DRIVE_ID = re.compile(r"[A-Za-z0-9_-]{20,}")

Triple = tuple[float, float, float]
Builder = Literal["torchreid", "fastreid", "metric-backbone"]


def _known_address(value: str) -> str:
    if value and not value.startswith(("http://", "https://")) and not _DRIVE_ID.fullmatch(value):
        raise mistake("must be a URL that starts with https:// or http://, or the id of a file on Google Drive")
    return value


class FigureDocument(Document):
    """Values that were published for a model without attack."""

    tested_on: str = Field(min_length=1, description="name of the data set")
    rank1: float = Field(ge=0, le=100, description="Rank-1 in %")
    mAP: float = Field(ge=0, le=100, description="mean average precision in %")  # noqa: N815  as in every table


class ModelDocument(Document):
    """A model of a zoo file."""

    builder: Builder = Field(description="torchreid, fastreid, or metric-backbone for the network of a measure")
    architecture: str = Field(min_length=1, description="name of the architecture; for torchreid that of its factory")
    trained_on: Annotated[list[str], OneOrMany()] = Field(default_factory=list, description="training data sets")
    all_images: bool = Field(False, description="trained on the test images of trained_on too")
    input: list[Annotated[int, Field(ge=1)]] = Field(
        [256, 128], min_length=2, max_length=2, description="height and width in pixels"
    )
    distance: Literal["euclidean", "cosine"] = Field("euclidean", description="distance that ranks its embeddings")
    mean: list[float] = Field(
        list(IMAGENET_MEAN), min_length=3, max_length=3, description="subtracted from images in [0, 1]"
    )
    std: list[Positive] = Field(list(IMAGENET_STD), min_length=3, max_length=3, description="divides what is left")
    settings: dict[str, Any] = Field(default_factory=dict, description="of fastreid: changes to its default config")
    address: Annotated[str, AfterValidator(_known_address)] = Field(
        "", description="URL, or id of a file on Google Drive; empty if it is passed on by other ways"
    )
    file: str = Field("", description="file on this machine, relative to the zoo file, in place of an address")
    size: int | None = Field(None, ge=1, description="bytes of the file")
    sha256: Annotated[str, AfterValidator(pattern(r"([0-9a-f]{8,64})?", "8 to 64 lower-case hexadecimal digits"))] = (
        Field("", description="SHA-256 of the file, or its first digits")
    )
    licence: str = Field("unknown", description="SPDX identifier of the weights' licence")
    citation: str = Field("", description="publication: arXiv number or URL")
    figures: list[FigureDocument] = Field(default_factory=list, description="published values without attack")
    note: str = Field("", description="for people")


class ZooDocument(Document):
    """A zoo file."""

    source: str = Field("", description="where its figures and addresses are from")
    defaults: dict[str, Any] = Field(default_factory=dict, description="fields of all its models")
    models: dict[Annotated[str, AfterValidator(pattern(_NAME, "a name of letters, digits and _ . + -"))], Any] = Field(
        min_length=1, description="name → model"
    )


@dataclass(frozen=True)
class Figure:
    """Values that were published for a model without attack, in %."""

    tested_on: str
    rank1: float
    mAP: float  # noqa: N815


@dataclass(frozen=True)
class ZooEntry:
    """A model of a zoo; see ModelDocument for its fields.

    Attributes:
        name: its name, as `weights get` takes it.
        input: (height, width) in pixels.
        zoo_file: file that lists it; None for a shipped one.
        stands_in: its name is that of a shipped model too, which it replaces.
    """

    name: str
    builder: Builder
    architecture: str
    trained_on: tuple[str, ...] = ()
    all_images: bool = False
    input: tuple[int, int] = (256, 128)
    distance: Literal["euclidean", "cosine"] = "euclidean"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    settings: Mapping[str, Any] = field(default_factory=dict)
    address: str = ""
    file: str = ""
    size: int | None = None
    sha256: str = ""
    licence: str = "unknown"
    citation: str = ""
    figures: tuple[Figure, ...] = ()
    note: str = ""
    zoo_file: Path | None = None
    stands_in: bool = False

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Data sets that it was trained on and that have been withdrawn."""
        return tuple(name for name in self.trained_on if name in WITHDRAWN)

    @property
    def on_drive(self) -> bool:
        """Whether its address is the id of a file on Google Drive."""
        return bool(self.address) and not self.address.startswith("http")

    @property
    def url(self) -> str:
        """Its address for a browser; empty without one."""
        return f"https://drive.google.com/file/d/{self.address}/view" if self.on_drive else self.address


def read_zoo(path: Path) -> dict[str, ZooEntry]:
    """The models of a zoo file by name.

    Raises:
        BenchError: the file is missing or not a zoo file; names the file, the model and the field.
    """
    document = checked_in(path, ZooDocument, read_yaml(path, "zoo file"), "the zoo file")
    found = {}
    for name, fields in document.models.items():
        if not isinstance(fields, dict):
            raise BenchError(f"{path}: models.{name} must be a mapping of fields to values")
        model = checked_in(path, ModelDocument, {**document.defaults, **fields}, f"models.{name}")
        if model.address and model.file:
            raise BenchError(f"{path}: models.{name} has both an address and a file: give one")
        found[name] = _entry(name, model)
    return found


def checked_in(path: Path, kind: type[Any], value: Any, where: str) -> Any:
    """`value` as a `kind`; an error names the file and `where` in it."""
    try:
        return checked(kind, value, where, noun="field")
    except BenchError as error:
        words = str(error)
        raise BenchError(f"{path}: {words if words.startswith(where) else f'{where}: {words}'}") from error


@functools.cache
def shipped() -> Mapping[str, ZooEntry]:
    """All shipped models by name."""
    found: dict[str, ZooEntry] = {}
    folder = Path(str(importlib.resources.files("reid_attack_bench.zoo")))
    for path in sorted(folder.glob("*.yaml")):
        found |= read_zoo(path)
    return found


def models(zoo_file: str | Path | None = None) -> dict[str, ZooEntry]:
    """All models by name: those of the user's `zoo_file`, whose names win, and the shipped ones.

    Raises:
        BenchError: see `read_zoo`.
    """
    if zoo_file is None:
        return dict(shipped())
    path = expanded(zoo_file)
    own = {
        name: ZooEntry(**{**vars(entry), "zoo_file": path, "stands_in": name in shipped()})
        for name, entry in read_zoo(path).items()
    }
    return {**own, **{name: entry for name, entry in shipped().items() if name not in own}}


def find(name: str, zoo_file: str | Path | None = None) -> ZooEntry:
    """The model `name`.

    Raises:
        BenchError: no such model; see also `read_zoo`.
    """
    known = models(zoo_file)
    if name not in known:
        close = nearest(name, known)
        advice = close if close.startswith("did you") else "reid-attack-bench weights list shows all"
        raise BenchError(f"the zoo has no model '{name}': {advice}")
    return known[name]


def _entry(name: str, model: ModelDocument) -> ZooEntry:
    return ZooEntry(
        **{
            **{key: tuple(value) if isinstance(value, list) else value for key, value in model},
            "name": name,
            "settings": plain(model.settings),
            "figures": tuple(Figure(each.tested_on, each.rank1, each.mAP) for each in model.figures),
        }
    )
