"""Import torchreid in either of its layouts: torchreid.reid.… from PyPI, torchreid.… from its repository."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from reid_attack_bench.errors import BenchError


def torchreid_module(path: str) -> ModuleType:
    """Import a module of torchreid from the installed layout.

    The first import takes seconds: call this where the module is used, not at the top of a file.

    Args:
        path: path of the module inside the package, such as "metrics.rank" or "data.datasets.image.market1501".

    Raises:
        BenchError: torchreid is not installed, does not import, or has no such module.
    """
    for name in (f"torchreid.reid.{path}", f"torchreid.{path}"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # missing Cython code, invalid escapes, deprecated torchvision calls
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing == "torchreid":
                raise BenchError("torchreid is not installed: pip install torchreid") from error
            if not f"{name}.".startswith(f"{missing}."):  # a dependency of torchreid is missing, not this layout
                raise BenchError(f"torchreid cannot be imported without {missing}: pip install {missing}") from error
        except ImportError as error:
            raise BenchError(f"the installed torchreid does not import ({error}): pip install -U torchreid") from error
    raise BenchError(f"the installed torchreid has no module {path}: pip install -U torchreid")
