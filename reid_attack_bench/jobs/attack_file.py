"""A fitted attack in one safetensors file, with its settings in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reid_attack_bench import registry
from reid_attack_bench.contracts import State, ThreatModel, to_cpu
from reid_attack_bench.errors import BenchError
from reid_attack_bench.files import replace_file

FORMAT = "reid-attack-bench attack 1"

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class AttackFile:
    """Description of a fitted attack.

    Attributes:
        use: registered attack, or FILE.py:NAME.
        code: version or digest of its code, see registry.Plugin.
        options: its settings.
        threat: threat model that it was fitted for.
        seed: seed of the fit.
        source: label of the victim that it was fitted against.
        source_digest: digest of that victim's weights, see contracts.weights_digest.
        data: data set it was fitted on.
        image_size: (height, width) of the images it was fitted on.
        key: key of the fit in the store.
        citation: publication of the attack.
    """

    use: str
    code: str
    options: Mapping[str, Any]
    threat: ThreatModel
    seed: int
    source: str
    source_digest: str
    data: str
    image_size: tuple[int, int]
    key: str
    citation: str

    def attack(self) -> Any:
        """Build the attack with the settings of its fit.

        Raises:
            BenchError: it is not installed, or its code has changed since it was fitted.
        """
        plugin = registry.find("attack", self.use)
        if plugin.code != self.code:
            raise BenchError(
                f"the attack '{self.use}' has changed since it was fitted ({self.code}, now {plugin.code}): fit again"
            )
        return plugin.build(self.options)


def write(path: Path, about: AttackFile, state: State) -> Path:
    """Write `about` and the fitted `state` in one step; returns `path`."""
    # one entry, because the order of several is not deterministic
    metadata = {"attack": json.dumps({"format": FORMAT, **asdict(about)}, sort_keys=True)}
    tensors = to_cpu(state)
    return replace_file(path, save(tensors, metadata))


def read(path: Path) -> tuple[AttackFile, dict[str, torch.Tensor]]:
    """Read what `write` wrote, tensors on the CPU.

    Raises:
        BenchError: no such file, or not a fitted attack.
    """
    if not path.is_file():
        raise BenchError(f"attack file {path} does not exist: make it with reid-attack-bench fit … --out {path}")
    try:
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  not a mapping
    except (SafetensorError, OSError) as error:
        raise BenchError(f"{path} is not a safetensors file ({error}): make it with reid-attack-bench fit") from error
    try:
        about = dict(json.loads(metadata.get("attack", "{}")))
    except ValueError:
        about = {}
    if about.get("format") != FORMAT:
        raise BenchError(
            f"{path} is not a fitted attack (its format is {about.get('format', '')!r}, not {FORMAT!r}): make it with "
            "reid-attack-bench fit"
        )
    about["code"] = about["code"].rpartition(" ")[2]  # older files also name the class
    about |= {"threat": ThreatModel(**about["threat"]), "image_size": tuple(about["image_size"])}
    return AttackFile(**{each.name: about[each.name] for each in fields(AttackFile)}), state
