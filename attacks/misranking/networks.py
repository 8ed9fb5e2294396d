"""The networks of Mis-Ranking and the adversarial images that they generate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid_attack_bench.contracts import State, ThreatModel
from reid_attack_bench.errors import BenchError

from ..common.generator import Generator, initialised
from . import released
from .discriminators import Discriminator, PatchGAN
from .mask import MaskHead, gumbel, straight_through_top_k, top_k
from .settings import Settings


class Networks(nn.Module):
    """Generator, discriminator and, with a pixel budget, the mask head over the discriminator's maps."""

    def __init__(self, settings: Settings, masked: bool) -> None:
        super().__init__()
        self.half_precision = settings.precision == "bfloat16"
        self.behaviours = settings.behaviours
        self.generator = Generator(
            settings.width, settings.residual_blocks, settings.normalisation, settings.upsampling
        )
        self.discriminator = _discriminator(settings)
        self.mask_head = MaskHead(settings.discriminator_width, settings.normalisation) if masked else None
        if "spectral_dimension" in self.behaviours:
            released.normalise_by_rows(self)
        if "unit_initialisation" in self.behaviours:
            released.initialise(self)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Autocast to the precision of the settings, in training only."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.training and self.half_precision)

    @property
    def generator_weights(self) -> list[nn.Parameter]:
        """Parameters trained with the generator's objective: those of the generator and the mask head."""
        frozen = self.mask_head is None or "untrained_mask" in self.behaviours
        head = [] if self.mask_head is None or frozen else list(self.mask_head.parameters())
        return [*self.generator.parameters(), *head]

    @property
    def kept(self) -> nn.ModuleDict:
        """The modules needed for crafting."""
        parts: dict[str, nn.Module] = {"generator": self.generator}
        if self.mask_head is not None:
            parts |= {"discriminator": self.discriminator, "mask_head": self.mask_head}
        return nn.ModuleDict(parts)

    def adversarial(
        self,
        clean: Tensor,
        threat: ThreatModel,
        noise_source: torch.Generator | None = None,
        pixels: int | None = None,
    ) -> Tensor:
        """Clean N×3×H×W in [0, 1] → adversarial; differentiable, in [0, 1], within `threat` up to 8-bit rounding.

        The bound is symmetric in pixel space, epsilon · tanh(·). With a pixel budget the mask logits are computed from
        the pair (clean, unmasked adversarial), with Gumbel noise in training and without in crafting.

        Args:
            clean: the images.
            threat: budget of the noise and of the mask.
            noise_source: CPU generator of the Gumbel noise; None for none.
            pixels: size of the mask if it differs from the budget, in annealed training.
        """
        noise = self._noise(clean, threat.radius)
        if self.mask_head is not None and threat.pixels is not None:
            unmasked = self._valid(clean + noise.detach())
            with self.autocast(clean.device):
                with torch.no_grad():  # the mask does not train the discriminator
                    maps = self.judged(clean, unmasked)
                logits = self.mask_head(maps, (clean.shape[-2], clean.shape[-1]))
            logits = logits.float()
            kept = threat.pixels if pixels is None else pixels
            if noise_source is None:
                noise = noise * top_k(logits, kept)
            else:
                # like the logits of the head, Gumbel noise is divided by the temperature τ
                temperature = self.mask_head.log_temperature.exp()
                drawn = gumbel(logits.shape, noise_source).to(logits.device) / temperature
                noise = noise * straight_through_top_k(logits + drawn, kept)
        return self._valid(clean + noise)

    def judged(self, clean: Tensor, other: Tensor) -> list[list[Tensor]]:
        """Feature and score maps of the discriminator for pairs of N×3×H×W in [0, 1]."""
        return self.discriminator(self._scaled(clean), self._scaled(other))

    def _scaled(self, images: Tensor) -> Tensor:
        """The input of generator and discriminator, which map [0, 1] to [−1, 1] themselves."""
        return released.imagenet_normalised(images) if "normalised_input" in self.behaviours else images

    def _noise(self, clean: Tensor, radius: float) -> Tensor:
        """Unmasked noise, float32 N×3×H×W within ±radius."""
        asymmetric, straight = (name in self.behaviours for name in ("asymmetric_bound", "straight_through"))
        shown = self._scaled(clean)
        with self.autocast(clean.device):
            output = self.generator.before_tanh(shown) if asymmetric or straight else self.generator(shown)
        if asymmetric or straight:
            return released.bounded_noise(
                output.float(), radius, asymmetric_bound=asymmetric, straight_through=straight
            )
        return radius * output.float()

    def _valid(self, images: Tensor) -> Tensor:
        """Clamp to [0, 1], except in training with the behaviour "unclamped"."""
        return images if self.training and "unclamped" in self.behaviours else images.clamp(0.0, 1.0)


def _discriminator(settings: Settings) -> Discriminator | PatchGAN:
    if settings.discriminator == "patchgan":
        return PatchGAN(settings.discriminator_width, settings.normalisation)
    zeros = "zero_padded_pyramid" in settings.behaviours
    return Discriminator(settings.discriminator_width, settings.normalisation, zero_padding=zeros)


def fresh_networks(
    settings: Settings, threat: ThreatModel, generator: torch.Generator, device: torch.device
) -> Networks:
    """Untrained networks on `device`, initialised from `generator` alone."""
    masked = _is_masked(settings, threat)
    return initialised(lambda: Networks(settings, masked), generator).to(device)


def restored_networks(settings: Settings, threat: ThreatModel, state: State, device: torch.device) -> Networks:
    """The networks that `state` holds, on `device` and in eval mode.

    Raises:
        BenchError: `state` was fitted with other settings, or without the pixel budget of `threat`.
    """
    masked = _is_masked(settings, threat)
    if masked and not any(name.startswith("mask_head.") for name in state):
        raise BenchError(
            f"misranking was fitted without a pixel budget and has no mask for {threat.pixels} pixels: "
            "fit it again with this threat model"
        )
    with torch.random.fork_rng(devices=[]):  # the initialisation, overwritten below, draws random numbers
        networks = Networks(settings, masked)
    kept = networks.kept
    wanted = kept.state_dict().keys()
    try:
        kept.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    except RuntimeError as error:
        raise BenchError(
            f"misranking: the state does not belong to these settings ({_second_line(error)}): fit again"
        ) from error
    return networks.to(device).eval()


def _is_masked(settings: Settings, threat: ThreatModel) -> bool:
    if threat.pixels is not None and settings.discriminator != "multi-stage":
        raise BenchError(
            f"misranking: a budget of {threat.pixels} pixels requires discriminator multi-stage, whose feature maps "
            f"give the mask, not {settings.discriminator}"
        )
    return threat.pixels is not None


def _second_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)].rstrip(".")
