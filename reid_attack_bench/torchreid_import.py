"""torchreid comes in two import layouts: torchreid.reid.… from PyPI, torchreid.… from its repository."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from reid_attack_bench.errors import BenchError


def torchreid_module(path: str) -> ModuleType:
    """Import a module of torchreid in whichever layout is installed.

    The first import takes seconds, so call this where the module is used, not at the top of a file.

    Args:
        path: the module without its package, such as "metrics.rank" or "data.datasets.image.market1501".

    Raises:
        BenchError: torchreid, a module that it imports, or `path` in it is missing.
    """
    for name in (f"torchreid.reid.{path}", f"torchreid.{path}"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its missing Cython code, its escapes, its torchvision calls
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing == "torchreid":
                raise BenchError("torchreid is not installed: pip install torchreid") from error
            if not f"{name}.".startswith(f"{missing}."):  # not this layout's package but something it imports
                raise BenchError(f"torchreid cannot be imported without {missing}: pip install {missing}") from error
        except ImportError as error:
            raise BenchError(f"the installed torchreid does not import ({error}): pip install -U torchreid") from error
    raise BenchError(f"the installed torchreid has no module {path}: pip install -U torchreid")
