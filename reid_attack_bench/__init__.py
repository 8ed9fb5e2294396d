"""reid-attack-bench: how robust is a person re-identification model?

Any module that maps N×3×H×W images to N×D embeddings is evaluated in a notebook or a script with::

    import reid_attack_bench, torchvision
    model = torchvision.models.shufflenet_v2_x0_5()  # in place of yours
    result = reid_attack_bench.evaluate(model, suite="minute", input_size=(128, 64), distance="cosine")
    print(result.leaderboard[["victim", "clean_mAP", "worst_e8_mAP"]])
    print(result.report())  # the path of report.html

`evaluate`, `run` and `Result` are imported when they are first used, so importing the package is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reid_attack_bench.jobs.result import Result
    from reid_attack_bench.jobs.run import evaluate, run

__version__ = "0.1.0"

__all__ = ["Result", "__version__", "evaluate", "run"]


def __getattr__(name: str) -> Any:
    if name in ("Result", "evaluate", "run"):
        from reid_attack_bench.jobs import run as jobs

        return getattr(jobs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
