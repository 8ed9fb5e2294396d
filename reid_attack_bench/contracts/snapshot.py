"""State of a fit that resumes from a checkpoint: optimisers and random numbers as named tensors."""

from __future__ import annotations

import torch

from reid_attack_bench.contracts.training import State


def below(prefix: str, state: State) -> State:
    """Entries whose names start with "prefix.", without the prefix."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}


def moments_of(optimiser: torch.optim.Optimizer, prefix: str) -> State:
    """Moments of an optimiser, as prefix.INDEX.NAME."""
    kept = optimiser.state_dict()["state"]
    return {f"{prefix}.{index}.{name}": tensor for index, each in kept.items() for name, tensor in each.items()}


def restore_moments(optimiser: torch.optim.Optimizer, prefix: str, saved: State) -> None:
    """Give an optimiser the moments in `saved`; its settings stay."""
    moments: dict[int, State] = {}
    for name, tensor in below(prefix, saved).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def global_random(device: torch.device) -> State:
    """States of torch's global generators, from which randomised victims draw."""
    state = {"random.global": torch.random.get_rng_state()}
    if device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_global_random(saved: State, device: torch.device) -> None:
    """Set torch's global generators to what `global_random` returned."""
    torch.random.set_rng_state(saved["random.global"])
    if "random.cuda" in saved:
        torch.cuda.set_rng_state(saved["random.cuda"], device)
