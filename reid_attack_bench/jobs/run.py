"""Run a suite, or evaluate one model with it: the Python API behind the commands `run` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from reid_attack_bench.contracts import Distance, Pool, Victim
from reid_attack_bench.errors import BenchError
from reid_attack_bench.execute.events import Listener
from reid_attack_bench.jobs.job import Job, Only, Settings, evaluate_job, live_job, perform, run_job
from reid_attack_bench.jobs.live import as_victim, left_as_it_was
from reid_attack_bench.jobs.progress import listening
from reid_attack_bench.jobs.result import Result
from reid_attack_bench.store import DEFAULT_STORE, open_store
from reid_attack_bench.suites.suite import Suite


# size: keyword arguments of a public function, for editors to complete
def run(
    suite: str | Path | Suite,
    *,
    full: bool = False,
    data: Sequence[str] = (),
    seed: int | None = None,
    epsilon: int | Sequence[int] | None = None,
    only: Only | None = None,
    out: Path | str | None = None,
    store: Path | str = DEFAULT_STORE,
    data_root: Path | str | None = None,
    device: str = "auto",
    workers: int | None = 1,
    threads: int | None = None,
    memory_limit: str | None = None,
    ray: str | None = None,
    precision: str | None = None,
    compile: bool = False,
    protocol: str | None = None,
    progress: bool | Listener = True,
) -> Result:
    """Run a suite: train its victims, craft its attacks, evaluate every target.

    Finished steps are kept in the store: an interrupted run resumes when called again, and a second call has no work
    left.

    Args:
        suite: name of a shipped suite, a YAML file, or a Suite.
        full: at the size of the paper, if the suite has one.
        data: data sets that replace those of the suite, in its order.
        seed, epsilon, only, out, store, data_root, device, workers, threads, memory_limit, ray, precision, compile,
            protocol: see Settings.
        progress: True for bars in the terminal or notebook, False for silence, or a listener.

    Returns:
        The result. Steps that failed are in its `failures`.

    Raises:
        BenchError: an invalid argument or suite, or no victim could be evaluated.
    """
    settings = Settings.of(
        seed=seed, epsilon=epsilon, only=only, out=out, store=store, data_root=data_root, device=device,
        workers=workers, threads=threads, memory_limit=memory_limit, ray=ray, precision=precision,
        compile=compile, protocol=protocol,
    )  # fmt: skip
    job = run_job(suite, settings, full=full, data=data, command=f"reid_attack_bench.run({_shown(suite)})")
    return _perform(job, progress)


# size: keyword arguments of a public function, for editors to complete
def evaluate(
    victim: Victim | nn.Module | str,
    suite: str | Path | Suite = "minute",
    *,
    input_size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    distance: Distance | None = None,
    feature: int | str | None = None,
    pool: Pool | None = None,
    flip: bool | None = None,
    differentiable: bool | None = None,
    name: str | None = None,
    defence: str | None = None,
    trained_on: str | None = None,
    options: Mapping[str, Any] | None = None,
    train_on: Sequence[str] = (),
    defends: str = "",
    seed: int | None = None,
    epsilon: int | Sequence[int] | None = None,
    only: Only | None = None,
    out: Path | str | None = None,
    store: Path | str = DEFAULT_STORE,
    data_root: Path | str | None = None,
    device: str = "auto",
    workers: int | None = 1,
    threads: int | None = None,
    memory_limit: str | None = None,
    ray: str | None = None,
    precision: str | None = None,
    compile: bool = False,
    protocol: str | None = None,
    progress: bool | Listener = True,
) -> Result:
    """Evaluate one model with a suite: it is a target of every attack, and the source of white-box attacks on itself.

    Example::

        import reid_attack_bench, torchvision
        model = torchvision.models.shufflenet_v2_x0_5()  # in place of yours
        result = reid_attack_bench.evaluate(model, suite="minute", input_size=(128, 64), distance="cosine")
        print(result.leaderboard[["victim", "clean_mAP", "worst_e8_mAP"]])
        print(result.report())  # the path of report.html

    A model in memory is identified by the name and source of its classes, its plain attributes, these arguments and a
    digest of its weights; if any of them changes, the model is evaluated again. See `jobs.live.live_plugin`. Its
    training mode, requires_grad and device are restored at the end.

    Args:
        victim: a Victim, any module that maps N×3×H×W to embeddings, or a registered name or FILE.py:NAME.
        suite: name of a shipped suite, a YAML file, or a Suite.
        input_size, mean, std, distance, feature, pool, flip, differentiable, defence, trained_on: for a plain module,
            see `contracts.ModuleVictim`.
        name: label in the tables; by default the class name.
        options: settings of a named victim.
        train_on: training data sets of a recipe; by default all of the suite.
        defends: label of the suite's victim that a defence is applied to.
        seed, epsilon, only, out, store, data_root, device, workers, threads, memory_limit, ray, precision, compile,
            protocol: see Settings.
        progress: True for bars in the terminal or notebook, False for silence, or a listener.

    Returns:
        The result. Steps that failed are in its `failures`.

    Raises:
        BenchError: an invalid argument or suite, a model without N×D output, or no victim could be evaluated.
    """
    settings = Settings.of(
        seed=seed, epsilon=epsilon, only=only, out=out, store=store, data_root=data_root, device=device,
        workers=workers, threads=threads, memory_limit=memory_limit, ray=ray, precision=precision,
        compile=compile, protocol=protocol,
    )  # fmt: skip
    of_module = {
        "input_size": input_size, "mean": mean, "std": std, "distance": distance, "feature": feature, "pool": pool,
        "flip": flip, "differentiable": differentiable, "defence": defence, "trained_on": trained_on,
    }  # fmt: skip
    command = f"reid_attack_bench.evaluate({_shown(victim)}, {_shown(suite)})"
    if not isinstance(victim, nn.Module):
        given = [name for name, value in of_module.items() if value is not None]
        if given:
            raise BenchError(f"{', '.join(given)}: only for a module in memory; give settings of '{victim}' in options")
        job = evaluate_job(
            victim, suite, settings, name=name, options=options or {}, train_on=train_on, defends=defends,
            command=command,
        )  # fmt: skip
        return _perform(job, progress)
    if options or train_on or defends:
        raise BenchError("options, train_on and defends require a victim given by name, not one in memory")
    live = as_victim(victim, of_module)
    with left_as_it_was(live):
        job = live_job(live, suite, settings, name, command)
        return _perform(job, progress)


def _perform(job: Job, progress: bool | Listener) -> Result:
    """`perform`, with an error if no victim could be evaluated."""
    with listening(progress) as listener:
        result = perform(job, listener)
    store = open_store(result.store)
    if result.failures and not any(store.has("clean-rank", row.rank_key) for row in result.record.clean):
        more = f" (and {len(result.failures) - 1} more)" if len(result.failures) > 1 else ""
        raise BenchError(f"{result.failures[0]}{more}; no victim was evaluated")
    return result


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, (str, Path)) else type(value).__name__
