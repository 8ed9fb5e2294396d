"""The memory of a step, and its limit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute import executor
from reid_attack_bench.execute.memory import memory_of, read_limit, why_over
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import tiny_document

GREEDY = """
from dataclasses import dataclass
from typing import ClassVar
import time
import torch
from reid_attack_bench.contracts import Attack

@dataclass(frozen=True)
class Greedy(Attack):
    needs: ClassVar[frozenset[str]] = frozenset()

    def craft(self, source, batch, threat, generator):
        kept = []
        for _ in range(64):
            kept.append(torch.ones(2**24))  # 64 MiB
            time.sleep(0.02)
        time.sleep(5)
        return batch.images
"""


@pytest.fixture
def greedy_plan(tmp_path: Path) -> Plan:
    """An attack that takes 4 GiB, and one that does not."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    document = tiny_document()
    del document["datasets"]["station"]
    document["victims"]["toy"]["train_on"] = ["plaza"]
    document["attacks"] = {"greedy": {"use": f"{tmp_path / 'greedy.py'}:Greedy"}, "noise": {}}
    return make_plan(parse.parse(document))


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("500MiB", 500 * 2**20), ("2gb", 2 * 10**9)])
def test_amounts_of_memory(text: str, size: int) -> None:
    assert read_limit(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "4 bananas"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="expected an amount such as 4GiB"):
        read_limit(text)


def test_memory_is_that_which_a_process_fills(tmp_path: Path) -> None:
    stored = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (2**26,))
    before = memory_of(os.getpid())
    stored[:] = 1
    assert memory_of(os.getpid()) - before < 2**24, "pages of a file"
    filled = np.ones(2**26, np.uint8)
    assert memory_of(os.getpid()) - before > 2**26 - 2**24
    assert len(filled)
    assert memory_of(2**22 + 1) == 0, "no such process"
    assert why_over(os.getpid(), None) == why_over(os.getpid(), 2**50) == ""


@pytest.mark.e2e
def test_a_step_over_its_limit_fails_alone_and_with_words(greedy_plan: Plan, tmp_path: Path) -> None:
    limit = memory_of(os.getpid()) + 2**29
    outcome = executor.execute(greedy_plan, Store(tmp_path / "store"), torch.device("cpu"), memory_limit=limit)
    (cause,) = outcome.causes
    assert cause.startswith("craft greedy 8/255")
    assert "it passed the memory limit of" in cause
    failed = {greedy_plan.steps[key].label for key in outcome.failed}
    assert all("greedy" in label for label in failed)
    assert len(outcome.seconds) == len(greedy_plan.steps) - len(failed)
