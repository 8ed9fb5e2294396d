"""Whether the order of attacks on one data set is their order on another.

The attacks of one epsilon are ordered by mAP on each data set, and the two orders compared by Kendall's τ-b (Kendall,
Biometrika 1945): 1 for equal orders, −1 for opposite ones, about 0 for unrelated ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reid_attack_bench.metrics.bootstrap import resampled_means
from reid_attack_bench.report import rows
from reid_attack_bench.report.analysis import controls
from reid_attack_bench.report.labels import datasets
from reid_attack_bench.report.results import CellRow, Results, Setting
from reid_attack_bench.report.rows import Row

COLUMNS = (
    "dataset_a", "dataset_b", "synthetic_a", "synthetic_b", "withdrawn_a", "withdrawn_b", "epsilon", "crafted_on",
    "target", "attacks", "controls", "tau", "tau_low", "tau_high", "pairs", "decided", "reversed", "reversed_pairs",
)  # fmt: skip
"""Columns of rank_order.csv, one row per pair of data sets, epsilon, target and kind of source.

crafted_on: "target" for attacks on the target itself, by gradients or queries, "others" for transferred ones; target:
ALL for the mean over targets; controls: how many of the attacks are random changes; tau with a 95 % bootstrap interval,
people of the two data sets resampled independently; pairs: of attacks; decided: pairs whose difference in mAP has an
interval without 0 on both data sets; reversed: decided pairs in opposite orders, named in reversed_pairs.
"""

WORDS = (
    "data sets",
    "ε",
    "crafted on",
    "target",
    "attacks",
    "Kendall's τ-b",
    "decided pairs",
    "reversed",
    "conclusion",
)

ALL = "all"

INTRODUCTION = (
    "Attacks of one ε are ordered by mAP on each data set. Kendall's τ-b is 1 for equal orders and −1 for opposite "
    "ones, with a 95 % bootstrap interval over identities. A pair of attacks is decided if the interval of its "
    "difference in mAP excludes 0 on both data sets, and reversed if the orders are then opposite. What is found holds "
    "for these attacks, targets, budgets and data sets. The order may carry over where the values do not. All targets: "
    "rank_order.csv."
)

_FEWEST = 3  # attacks whose order is compared

_FEW = 6  # attacks below which an order is too short for a conclusion

_SHOWN = 10  # reversed pairs that a report names

_Cells = Mapping[Setting, Sequence[CellRow]]


@dataclass(frozen=True)
class _Order:
    """Attacks on one data set: differences in mAP of all pairs, P, and in resamples of its people, P×S."""

    differences: np.ndarray
    resampled: np.ndarray

    @property
    def decided(self) -> np.ndarray:
        """1 or −1 for a pair whose order is beyond chance, else 0."""
        low, high = np.quantile(self.resampled, [0.025, 0.975], axis=1)
        return np.sign(low) * (low > 0) + np.sign(high) * (high < 0)


def rank_orders(results: Results) -> pd.DataFrame:
    """Rows of rank_order.csv; none for a run on one data set, or with fewer than three attacks in common."""
    groups: dict[tuple[int, str], dict[str, dict[str, dict[Setting, list[CellRow]]]]] = {}
    for cell in results.cells:
        if cell.ok and not cell.impersonate:
            kind = groups.setdefault((cell.epsilon, "target" if cell.own else "others"), {})
            kind.setdefault(cell.dataset, {}).setdefault(cell.target, {}).setdefault(cell.setting, []).append(cell)
    found = []
    for a, b in itertools.combinations(datasets(results), 2):
        for (epsilon, crafted_on), places in sorted(groups.items(), key=lambda item: (item[0][1] != "target", item[0])):
            if a in places and b in places:
                shared = sorted(places[a].keys() & places[b].keys())
                for targets in ([shared] if len(shared) > 1 else []) + [[target] for target in shared]:
                    row = _row(results, [[places[name][target] for target in targets] for name in (a, b)])
                    if row is not None:
                        name = targets[0] if len(targets) == 1 else ALL
                        found.append(row | {"epsilon": epsilon, "crafted_on": crafted_on, "target": name})
    return pd.DataFrame(found, columns=list(COLUMNS))


def kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's τ-b from the differences of all pairs, P or P×S: one number, or S; NaN if a side has ties only."""
    one, other = np.sign(a), np.sign(b)
    with np.errstate(invalid="ignore"):
        return (one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))


def shown(table: pd.DataFrame) -> list[Row]:
    """Rows for a report: the mean over targets, or the only target."""
    group = ["dataset_a", "dataset_b", "epsilon", "crafted_on"]
    return rows.rows(table.groupby(group, sort=False).head(1))


def in_words(row: Row) -> list[str]:
    """A row as the texts of `WORDS`."""
    names = f"{row['dataset_a']} and {row['dataset_b']}"
    random = f" ({row['controls']} random)" if row["controls"] else ""
    tau = f"{row['tau']:.2f} [{row['tau_low']:.2f}, {row['tau_high']:.2f}]"
    decided = f"{row['decided']} of {row['pairs']}"
    return [
        names, str(row["epsilon"]), row["crafted_on"], row["target"], f"{row['attacks']}{random}", tau, decided,
        str(row["reversed"]), conclusion(row),
    ]  # fmt: skip


def conclusion(row: Row) -> str:
    """What may be concluded from a row."""
    if row["attacks"] < _FEW:
        return "too few attacks for a conclusion"
    if row["reversed"]:
        said = f"the order differs in {row['reversed']} of {row['decided']} decided pairs"
    elif row["tau_low"] > 0:
        said = "the orders agree as far as they are decided"
    else:
        return "undecided: the orders may as well be unrelated"
    if row["synthetic_a"] and row["synthetic_b"]:
        return said + "; both data sets are rendered, so nothing follows for photographs"
    return said


def reversals(table: pd.DataFrame) -> list[str]:
    """A line for each shown row with reversed pairs, which names them."""
    lines = []
    for row in shown(table):
        pairs = row["reversed_pairs"].split("; ") if row["reversed"] else []
        more = f"; {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        if pairs:
            where = f"{row['dataset_a']} and {row['dataset_b']}, ε = {row['epsilon']}, crafted on {row['crafted_on']}"
            lines.append(f"Reversed on {where}: {'; '.join(pairs[:_SHOWN])}{more}")
    return lines


def _row(results: Results, sides: list[list[_Cells]]) -> Row | None:
    """Comparison of the orders on two data sets; each side has the cells of the same targets."""
    common = set.intersection(*(set(cells) for side in sides for cells in side))
    settings = sorted(common)
    if len(settings) < _FEWEST:
        return None
    first, second = (_order(results, side, settings) for side in sides)
    taus = kendall(first.resampled, second.resampled)
    low, high = np.quantile(taus[~np.isnan(taus)], [0.025, 0.975]) if not np.isnan(taus).all() else (np.nan, np.nan)
    one, other = first.decided, second.decided
    pairs = list(itertools.combinations(settings, 2))
    a, b = (next(iter(side[0].values()))[0] for side in sides)
    opposite = [
        f"{pair[int(sign > 0)].variant} is stronger on {a.dataset}, {pair[int(sign < 0)].variant} on {b.dataset}"
        for pair, sign, differs in zip(pairs, one, one * other < 0, strict=True)
        if differs
    ]
    return {
        "dataset_a": a.dataset,
        "dataset_b": b.dataset,
        "synthetic_a": a.synthetic,
        "synthetic_b": b.synthetic,
        "withdrawn_a": a.withdrawn,
        "withdrawn_b": b.withdrawn,
        "attacks": len(settings),
        "controls": sum(controls.is_control(sides[0][0][setting][0]) for setting in settings),
        "tau": float(kendall(first.differences, second.differences)),
        "tau_low": float(low),
        "tau_high": float(high),
        "pairs": len(pairs),
        "decided": int(np.count_nonzero(one * other)),
        "reversed": len(opposite),
        "reversed_pairs": "; ".join(opposite),
    }


def _order(results: Results, targets: list[_Cells], settings: list[Setting]) -> _Order:
    """Mean AP of each setting over sources, seeds and targets, which all have the same queries."""
    columns, identities = [], np.empty(0)
    for setting in settings:
        outcomes = [
            [rows.outcome(results, cell.rank_key) for cell in cells[setting]] for cells in targets
        ]  # a target counts once, however many sources and seeds it has
        identities = outcomes[0][0].identities[outcomes[0][0].valid]
        columns.append(np.mean([np.mean([each.ap[each.valid] for each in some], axis=0) for some in outcomes], axis=0))
    values = np.stack(columns, axis=1)
    dataset = next(iter(targets[0].values()))[0].dataset
    rng = np.random.default_rng([results.seed, datasets(results).index(dataset)])  # other people, other draws
    means = resampled_means(values, identities, rng)
    left, right = np.triu_indices(len(settings), 1)
    average = values.mean(axis=0)
    return _Order(average[left] - average[right], means[left] - means[right])
