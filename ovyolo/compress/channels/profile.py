"""What each layer takes on the target device, and what it would take with fewer channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ovyolo.errors import DimensionError, reason_of

__all__ = ["LayerTime", "Profile", "fit_rates"]


@dataclass(frozen=True)
class LayerTime:
    """A layer on the device.

    Args:
        name: as the emitted graph names it; ``"input"`` is the conversion of the picture, ``"other"`` what belongs to
            no layer.
        kind: the operation that was executed, with its kernel, such as ``"Convolution brgconv_avx2_f32"``.
        ms: median over runs.
        macs, params: for one picture; 0 where there are no weights.
        elements: numbers that a convolution reads and writes.
        channels: of what it gives; 0 where not known.
    """

    name: str
    kind: str
    ms: float
    macs: int = 0
    params: int = 0
    elements: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Profile:
    """A network's layers on a device.

    Args:
        device: its name.
        imgsz: ``(height, width)`` of the picture in pixels.
        total_ms: median of whole inferences without counters, taken in turn with those with counters.
        counted_ms: median of the sums of the layers.
        layers: in the order in which they were executed.
        rates: milliseconds a multiplication, an element and a layer, fitted to the convolutions: how they shrink.
    """

    device: str
    imgsz: tuple[int, int]
    total_ms: float
    counted_ms: float
    layers: tuple[LayerTime, ...]
    rates: tuple[float, float, float]

    def predict(self, convolutions: Mapping[str, tuple[float, float]], channels: Mapping[str, int]) -> float:
        """Milliseconds for the whole network after its layers shrank.

        Args:
            convolutions: multiplications and elements by layer.
            channels: what operations give, by layer.

        A convolution is taken to shrink as its work and its data do, at the rates that fit all of them; an operation
        without weights as its channels. What is measured outside of all layers stays.
        """
        total = 0.0
        for layer in self.layers:
            share = 1.0
            if layer.name in convolutions and layer.macs:
                before = self._rated(layer.macs, layer.elements)
                share = self._rated(*convolutions[layer.name]) / before if before else 1.0
            elif layer.channels:
                share = channels.get(layer.name, layer.channels) / layer.channels
            total += layer.ms * share
        counted = sum(layer.ms for layer in self.layers)
        # counting costs time, too: where the sum is more than the whole, all layers are taken to be shorter alike
        return total * self.total_ms / counted if counted > self.total_ms else total + self.total_ms - counted

    def _rated(self, macs: float, elements: float) -> float:
        return self.rates[0] * macs + self.rates[1] * elements + self.rates[2]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Profile:
        """What :meth:`to_dict` gave.

        Raises:
            DimensionError: it is not one.
        """
        try:
            layers = tuple(LayerTime(**layer) for layer in stored["layers"])
            height, width = stored["imgsz"]
            rates = tuple(float(rate) for rate in stored["rates"])
            times = float(stored["total_ms"]), float(stored["counted_ms"])
            return cls(str(stored["device"]), (int(height), int(width)), *times, layers, (rates[0], rates[1], rates[2]))
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise DimensionError(
                f"this is no stored profile ({reason_of(error)}): profile the network again"
            ) from error


def fit_rates(layers: Sequence[LayerTime]) -> tuple[float, float, float]:
    """Rates, none negative, by which multiplications, elements and a constant explain the convolutions' times.

    Least squares over every choice of which of the three count; errors weigh by the root of the time, as noise does.
    """
    rows = [layer for layer in layers if layer.macs and layer.ms > 0]
    if not rows:
        return (1.0, 0.0, 0.0)
    times = np.array([layer.ms for layer in rows])
    weights = 1 / np.sqrt(times)
    features = np.array([[layer.macs, layer.elements, 1.0] for layer in rows])
    scale = features.max(axis=0)
    best, least = (1.0, 0.0, 0.0), np.inf
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            part = (features / scale)[:, chosen] * weights[:, None]
            solution, *_ = np.linalg.lstsq(part, times * weights, rcond=None)
            error = float(np.square(part @ solution - times * weights).sum())
            if (solution >= 0).all() and error < least:
                rates = np.zeros(3)
                rates[list(chosen)] = solution / scale[list(chosen)]
                best, least = (float(rates[0]), float(rates[1]), float(rates[2])), error
    return best
