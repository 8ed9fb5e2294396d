"""A wrong backward pass, for victims that deceive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Redirected(torch.autograd.Function):
    """The identity, with a backward pass of one's own."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.through = backward
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.through(gradient), None


def redirected(images: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
    """`images`, whose gradient passes through `backward`."""
    return _Redirected.apply(images, backward)
