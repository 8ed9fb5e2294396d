"""A plug-in in a step: what it leaves of the process, how it ends, and what a later run finds."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.execute.executor import execute
from reid_attack_bench.execute.surroundings import Streams, undisturbed
from reid_attack_bench.plan.plan import Plan
from reid_attack_bench.plan.planner import make_plan
from reid_attack_bench.store import Store
from reid_attack_bench.suites import parse
from tests.conftest import tiny_document
from tests.execute.conftest import results
from tests.plugins import hostile

FILE = Path(hostile.__file__)
CPU = torch.device("cpu")


def settings() -> tuple:
    values = np.random.get_state()[1]
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        torch.is_anomaly_enabled(), torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(), torch.get_rng_state().numpy().tobytes(), values.tobytes(), random.getstate(),
        np.geterr(), gc.isenabled(), signal.getsignal(signal.SIGTERM), dict(os.environ), list(sys.path), os.getcwd(),
        os.umask(os.umask(0o022)), os.fstat(1).st_ino, len(torch.nn.modules.module._global_forward_hooks), os._exit,
    )  # fmt: skip


def test_the_process_is_what_it_was_and_output_goes_to_standard_error(capfd) -> None:
    os.umask(0o022)
    before = settings()
    print("before")
    with undisturbed() as streams:
        streams.outside(lambda: print("told"))()
        hostile.disorder()
        streams.outside(lambda: os.write(1, b"told again\n"))()
    assert settings() == before
    print("after")
    assert capfd.readouterr() == ("before\ntold\ntold again\nafter\n", "this is not JSON\nnor is this\n")


@pytest.mark.parametrize("how", hostile.ENDS)
def test_the_end_of_a_program_is_the_error_of_a_step(how) -> None:
    with pytest.raises((BenchError, StopIteration)) as raised, undisturbed():
        hostile.end(how)
    if how != "StopIteration":
        assert str(raised.value).startswith("hostile.py:")
        assert hostile.ENDS[how] in str(raised.value)


@pytest.fixture
def listens_to_interrupts() -> Iterator[None]:
    """SIGINT raises, although a process that tests for another one may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens_to_interrupts")
def test_a_real_interrupt_ends_a_step_that_catches_it() -> None:
    def raising(streams: Streams) -> None:
        raise ValueError("going on")

    def telling(streams: Streams) -> None:
        streams.outside(lambda: None)()

    def interrupted(then: Callable[[Streams], None]) -> None:
        with undisturbed() as streams:
            try:
                signal.raise_signal(signal.SIGINT)  # another thread may get one of os.kill
            except KeyboardInterrupt:
                then(streams)

    for then in (raising, telling, lambda streams: None):
        with pytest.raises(KeyboardInterrupt):
            interrupted(then)


@pytest.mark.e2e
def test_a_process_that_a_step_forks_may_end() -> None:
    with undisturbed():
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class Notes(Listener):
    """Prints what it hears."""

    def progress(self, step, done, total, note) -> None:
        print(json.dumps({"progress": step.kind}))


def plan(*, hostiles: bool) -> Plan:
    """Honest attacks, after hostile ones in the order of the plan."""
    document = tiny_document()
    document["datasets"] = {"plaza": document["datasets"]["plaza"]}
    document["victims"]["toy"] |= {"train_on": ["plaza"], "roles": ["target"]}
    document["victims"]["quiet"] = {"use": f"{FILE}:Quiet", "roles": ["source", "target"]}
    honest = {
        "noise": {},
        "metric_pgd": {"options": {"steps": 2}},
        "metric_fgsm": {"options": {"references": "same_identity"}},
    }
    bad = {f"changing-{what}": {"use": f"{FILE}:Changing", "options": {"what": what}} for what in hostile.CHANGES}
    bad |= {f"ending-{how}": {"use": f"{FILE}:Ending", "options": {"how": how}} for how in hostile.ENDS}
    bad |= {name.lower(): {"use": f"{FILE}:{name}"} for name in ("Scribbling", "Untidy", "Greedy")}
    document["attacks"] = {**(bad if hostiles else {}), **honest}
    return make_plan(parse.parse(document))


@pytest.mark.e2e
def test_hostile_attacks_hurt_only_themselves(tmp_path: Path, capsys) -> None:
    alone, beside = Store(tmp_path / "alone"), Store(tmp_path / "beside")
    quiet, loud = plan(hostiles=False), plan(hostiles=True)
    assert execute(quiet, alone, CPU).causes == []
    first = next(step for step in loud.steps.values() if "metric_pgd" in step.label)
    assert [step.key for step in loud.steps.values()].index(first.key) > 3
    capsys.readouterr()
    outcome = execute(loud, beside, CPU, Notes())
    for line in capsys.readouterr().out.splitlines():
        assert set(json.loads(line)) == {"progress"}, "the output of a plug-in is not among that of the run"
    causes = "\n".join(outcome.causes)
    for words in (*(words for _, words in hostile.CHANGES.values()), *hostile.ENDS.values(), "exceeded its L-inf"):
        assert words in causes
    assert len(outcome.causes) == len(hostile.CHANGES) + len(hostile.ENDS) + len(["greedy"])
    assert not [cause for cause in outcome.causes if any(name in cause for name in ("noise", "metric"))]
    assert results(quiet, beside) == results(quiet, alone)
    assert execute(quiet, beside, CPU).seconds == {}, "and a later run takes them"
