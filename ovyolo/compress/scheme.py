"""What kind of quantization: every choice that the tools offer for a network on a CPU, and the defaults."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ovyolo.errors import DimensionError

__all__ = ["CHOICES", "Scheme"]

CHOICES: dict[str, tuple[Any, ...]] = {
    "preset": ("mixed", "performance"),
    "activations": ("static", "dynamic"),
    "bits": (8, 16),
    "weights": ("symmetric", "asymmetric"),
    "granularity": ("channel", "tensor"),
    "rounding": ("compensated", "nearest"),
    "bias_correction": ("fast", "accurate", "none"),
    "ranges": ("mean-minmax", "minmax", "median-minmax", "quantile", "histogram"),
    "overflow": ("pairs", "half", "first-layer", "none"),
    "weight_format": ("int8", "int4", "fp8", "nf4", "codebook"),
}
WEIGHT_NAMES = {"int8": "INT8", "int4": "INT4", "fp8": "FP8", "nf4": "NF4", "codebook": "CODEBOOK4"}


@dataclass(frozen=True)
class Scheme:
    """A way to quantize. The defaults lose least; ``benchmarks/quantization_schemes.py`` measures the others.

    Args:
        preset: ``"mixed"``: activations asymmetric, weights symmetric. ``"performance"``: both symmetric, which wastes
            nearly half of the steps on SiLU's small negative lobe.
        activations: ``"static"``: ranges from the calibration pictures. ``"dynamic"``: from each picture as it is
            computed, which takes no calibration, and which OpenVINO computes in floating point: slower than FP32.
        bits: 8, or 16 for weights and activations; OpenVINO's CPU has no 16-bit integer kernels and computes them in
            floating point, too. ``rounding``, ``overflow`` and ``bias_correction`` mean nothing then.
        weights: ``"symmetric"`` or ``"asymmetric"`` (needs ``overflow="none"``, because an offset cannot be kept
            from saturating).
        granularity: one scale an output ``"channel"`` of the weights, or one a ``"tensor"``.
        rounding: ``"compensated"``: each weight's rounding error is made up for by the weights that are not rounded
            yet, by the statistics of the layer's inputs (Frantar et al., "GPTQ", 2023), and the bias by what is left.
            ``"nearest"``: NNCF's rounding and bias correction.
        bias_correction: NNCF's, for ``rounding="nearest"``: ``"fast"``, ``"accurate"`` (slow) or ``"none"``.
        ranges: how activations' ranges follow from the calibration pictures' minima and maxima (or quantiles).
        overflow: how 8-bit products are kept from saturating on CPUs without VNNI. ``"pairs"``: weights are scaled so
            that no two neighbours can overflow the 16 bits that they are added in; exact on every CPU, and costs a
            seventh of a bit. ``"half"``: NNCF's ``ENABLE``, a whole bit. ``"first-layer"``: NNCF's own default.
            ``"none"``: safe on CPUs with VNNI only.
        smooth_quant: alpha from 0 to 1 of SmoothQuant for convolutions; by default it is off.
        weights_only: only weights are stored in ``weight_format``; computing stays in floating point.
        weight_format: with ``weights_only``: ``"int8"`` (NNCF's, symmetric or asymmetric as ``weights`` says),
            ``"int4"``, ``"fp8"`` (E4M3), ``"nf4"`` (the 16 quantiles of a normal distribution: Dettmers et al.,
            "QLoRA", 2023) or ``"codebook"`` (16 values fitted to each layer: Lloyd, "Least squares quantization in
            PCM", 1982), all with one scale an output channel.

    Raises:
        DimensionError: a choice that does not exist, or choices that exclude each other.

    Example:
        >>> Scheme().describe()
        'INT8'
        >>> Scheme(rounding="nearest", ranges="minmax", overflow="half").describe()
        'INT8, rounding nearest, ranges minmax, overflow half'
    """

    preset: str = "mixed"
    activations: str = "static"
    bits: int = 8
    weights: str = "symmetric"
    granularity: str = "channel"
    rounding: str = "compensated"
    bias_correction: str = "fast"
    ranges: str = "mean-minmax"
    overflow: str = "pairs"
    smooth_quant: float | None = None
    weights_only: bool = False
    weight_format: str = "int8"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise DimensionError(f"{name} is {value!r}; it takes one of {', '.join(map(str, choices))}")
        if self.smooth_quant is not None and not 0 <= self.smooth_quant <= 1:
            raise DimensionError(f"smooth_quant is {self.smooth_quant}; it takes a number from 0 to 1")
        if self.weights_only:
            if self.activations != "static" or self.bits != 8:
                raise DimensionError(
                    "weights_only leaves activations in floating point: leave activations and bits out"
                )
            return
        if self.weight_format != "int8":
            raise DimensionError(f"weight_format={self.weight_format!r} needs weights_only")
        if self.bits == 16 and self.activations == "dynamic":
            raise DimensionError("activations='dynamic' is for 8 bits")
        if self.weights == "asymmetric" and self.overflow != "none":
            raise DimensionError(
                "asymmetric weights cannot be kept from saturating on CPUs without VNNI: choose overflow='none' with "
                "them, or symmetric weights"
            )
        own = self.rounding == "compensated"
        if own and (self.weights == "asymmetric" or self.smooth_quant is not None):
            raise DimensionError("asymmetric weights and smooth_quant need rounding='nearest'")
        if own and self.overflow in ("half", "first-layer"):
            raise DimensionError(f"overflow={self.overflow!r} needs rounding='nearest'; with compensated it is 'pairs'")
        if self.granularity == "tensor" and own:
            raise DimensionError("granularity='tensor' needs rounding='nearest'")

    @property
    def refined(self) -> bool:
        """Whether weights are set here, not by NNCF."""
        return not self.weights_only and (self.bits == 16 or self.rounding == "compensated" or self.overflow == "pairs")

    @property
    def precision(self) -> str:
        """What the network that is made is called: ``INT8``, ``INT16``, or what its weights are in."""
        return WEIGHT_NAMES[self.weight_format] if self.weights_only else f"INT{self.bits}"

    def to_dict(self) -> dict[str, Any]:
        """The choices by name."""
        return asdict(self)

    def describe(self, usual: Scheme | None = None) -> str:
        """Its precision, and the choices that differ from those of ``usual``, by default the defaults."""
        if self.weights_only:
            asymmetric = ", weights asymmetric" if self.weights == "asymmetric" else ""
            return f"{self.precision} weights only{asymmetric}"
        words = [self.precision]
        for one in fields(self):
            if one.name == "bits":
                continue
            value = getattr(self, one.name)
            if value != (one.default if usual is None else getattr(usual, one.name)):
                words.append(f"{one.name.replace('_', ' ')} {value}")
        return ", ".join(words)
