"""evaluate in a real Jupyter kernel: no process is started, the progress is one output, the result is a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from tests.conftest import TOY, tiny_document

pytestmark = pytest.mark.slow

LIMIT = 120
"""Seconds after which a cell counts as hanging."""

SETUP = f"""
import os, sys, threading
import torch
from torch import nn
sys.path.insert(0, {str(TOY.parents[2])!r})
import reid_attack_bench

def refuse(*_):
    raise AssertionError("a process was started")
os.register_at_fork(before=refuse)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Conv2d(3, 8, 8, 8)

    def forward(self, images):
        return self.body(images).flatten(1)

def evaluate():
    return reid_attack_bench.evaluate(Net(), "tiny.yaml", input_size=(64, 32), distance="cosine", device="cpu")
"""


class Kernel:
    """A kernel of this interpreter; `run` gives the messages that a notebook would show for a cell."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager._kernel_spec = KernelSpec(argv=arguments, display_name="python3", language="python")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    def run(self, code: str) -> list[dict]:
        messages: list[dict] = []
        reply = self.client.execute_interactive(code, timeout=LIMIT, output_hook=messages.append)
        assert reply["content"]["status"] == "ok", "\n".join(reply["content"].get("traceback", []))
        return [message for message in messages if message["msg_type"] != "status"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("notebook")
    document = tiny_document()
    document["victims"]["toy"]["train_on"] = ["plaza"]
    document["attacks"] = {"noise": {}}
    del document["datasets"]["station"]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    kernel = Kernel(folder)
    kernel.run(SETUP)
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def of_type(messages: list[dict], kind: str) -> list[dict]:
    return [message["content"] for message in messages if message["msg_type"] == kind]


def shown(messages: list[dict]) -> str:
    """What a cell displayed, as text."""
    return "\n".join(content["data"]["text/plain"] for content in of_type(messages, "display_data"))


def test_a_cell_shows_its_progress_and_its_result(kernel: Kernel) -> None:
    state = (
        "print(threading.active_count(), torch.get_num_threads(), torch.initial_seed(), "
        "torch.are_deterministic_algorithms_enabled())"
    )
    kernel.run("torch.manual_seed(7)")
    before = kernel.run(state)
    messages = kernel.run("result = evaluate()\nresult")
    assert "steps:" in shown(messages)
    updates = of_type(messages, "update_display_data")
    assert updates
    assert "100%" in updates[-1]["data"]["text/plain"]
    assert len({update["transient"]["display_id"] for update in updates}) == 1
    (result,) = of_type(messages, "execute_result")
    assert "<td>Net</td>" in result["data"]["text/html"]
    assert of_type(messages, "stream") == []  # no warning, nothing on standard output
    assert kernel.run(state)[-1]["content"] == before[-1]["content"]


def test_a_cell_that_is_run_again_does_no_work_until_its_class_is_edited(kernel: Kernel) -> None:
    kernel.run("evaluate()")
    assert " 0 to do" in shown(kernel.run("_ = evaluate()"))
    assert " 0 to do" in shown(kernel.run(SETUP + "_ = evaluate()"))
    edited = SETUP.replace(".flatten(1)", ".relu().flatten(1)")
    assert " 0 to do" not in shown(kernel.run(edited + "_ = evaluate()"))


def test_the_report_is_written_from_a_cell(kernel: Kernel) -> None:
    said = kernel.run("print(evaluate().report())")
    assert of_type(said, "stream")[-1]["text"].strip().endswith("report.html")
