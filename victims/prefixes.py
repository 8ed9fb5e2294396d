"""Prefixes that DataParallel, DDP, Lightning, EMA and torch.compile add to the names in a checkpoint, in any order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

from reid_attack_bench.contracts import State
from reid_attack_bench.errors import BenchError

PREFIXES = (
    "module.", "model.", "_orig_mod.", "net.", "network.", "ema.", "ema_model.", "model_ema.", "student.", "teacher.",
)  # fmt: skip
"""Prefixes that are removed where the names of the model are not known, or are others."""

_BESIDE = re.compile(
    r"n_averaged|num_updates|decay|initted|step|(\w+_)?(loss|losses|criterion|metrics?)(_\w+)?\..*|.*_extra_state"
)

_FEW = 0.02  # share of the names that need not have a prefix for it to be removed


def beside(name: str) -> bool:
    """Whether a name is that of a counter or of a part of a loss, which training programs store beside a model."""
    return _BESIDE.fullmatch(name) is not None


def without_prefix(state: State, expected: Collection[str] = (), what: str = "the checkpoint") -> State:
    """`state` without the prefix of its names; names that lack it stay as they are.

    Args:
        expected: names of the model: the prefix is what stands before them. Without them, or if there are few of them
            in `state`, it is each of `PREFIXES` in turn that all but few names share.
        what: model and file, for the error.

    Raises:
        BenchError: the names of the model stand behind two prefixes, such as "student." and "teacher.".
    """
    counts = Counter(prefix for name in state for prefix in _before(name, expected))
    most = max(counts.values(), default=0)
    if 2 * most < min(len(expected), len(state)) or not most:
        return _without_known(state)
    found = [prefix for prefix, count in counts.items() if count > 0.9 * most]
    if len(found) > 1 and "" not in found:
        raise BenchError(
            f"{what} has weights of the model behind several prefixes ({', '.join(sorted(found))}): choose one with "
            f"entry={sorted(found)[0].rstrip('.')}"
        )
    return state if "" in found else _renamed(state, found[0])


def _before(name: str, expected: Collection[str]) -> Iterator[str]:
    """What stands before an expected name in `name`; empty if it is one itself."""
    for match in re.finditer(r"^|(?<=\.)", name):
        if name[match.start() :] in expected:
            yield name[: match.start()]


def _without_known(state: State) -> State:
    names = [name for name in state if not beside(name)]
    for prefix in PREFIXES:
        lacking = sum(not name.startswith(prefix) for name in names)
        renamed = _renamed(state, prefix)
        if lacking <= _FEW * len(names) and renamed.keys() != state.keys():
            return _without_known(renamed)
    return state


def _renamed(state: State, prefix: str) -> State:
    """Without a prefix, except where a weight without it has the name that is left."""
    kept = {name for name in state if not name.startswith(prefix)}
    return {name if (left := name.removeprefix(prefix)) in kept else left: value for name, value in state.items()}
