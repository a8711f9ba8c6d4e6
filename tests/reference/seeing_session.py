"""A session that sees: pictures whose pixels say where they are, and a decoder that knows which objects lie there.

It stands for a perfect network: of each object it finds, in a view, the part that the view shows, if that is neither
too small nor too large in the network's input. What it gets wrong, and by how much, is up to the test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo import Detections
from ovyolo.card import Card, Head
from ovyolo.letterbox import Letterbox

SIDE = 64
LEAST, MOST = 4.0, 64.0
CARD = Card(("a", "b"), (SIDE, SIDE), Head("anchors", ("head0",), (8,), (((8.0, 8.0),),)))


def place_picture(height: int, width: int) -> NDArray[np.uint8]:
    """A picture each of whose pixels holds its own place: x and y below 4096."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x & 255, y & 255, (x >> 8) << 4 | y >> 8], axis=2).astype(np.uint8)


class SeeingSession:
    """Its outputs are its inputs; says when it is used wrongly, and how much was under way."""

    def __init__(self, slots: int = 2, batch: int = 1) -> None:
        self.input_shape, self.device, self.slots = (batch, SIDE, SIDE, 3), "FAKE", slots
        self._inputs = [np.zeros(self.input_shape, np.uint8) for _ in range(slots)]
        self._under_way: set[int] = set()
        self.submitted = self.most = 0

    def input(self, slot: int) -> NDArray[np.uint8]:
        assert slot not in self._under_way, "written to while computing"
        return self._inputs[slot]

    def submit(self, slot: int) -> None:
        self._under_way.add(slot)
        self.submitted += 1
        self.most = max(self.most, len(self._under_way))

    def wait(self, slot: int, timeout: float | None = None) -> list[Any]:
        self._under_way.remove(slot)
        return [self._inputs[slot].copy()]

    def close(self) -> None:
        assert not self._under_way


class Seer:
    """The decoder.

    Args:
        objects: float ``(n, 4)`` corners in pixels of the picture.
        classes: ``(n,)``.
        noise: standard deviation of each side, in pixels of the network's input.
        rng: for the noise and the scores.
    """

    def __init__(self, objects: NDArray[Any], classes: NDArray[Any], noise: float, rng: np.random.Generator) -> None:
        self.objects, self.classes, self.noise, self.rng = objects, classes, noise, rng

    def __call__(self, outputs: Any, fit: Letterbox) -> Detections:
        b, g, r = (int(v) for v in outputs[0][0, fit.top, fit.left])
        x, y = b + (r >> 4 << 8), g + ((r & 15) << 8)
        if fit.gain < 1:  # shrunk: the first pixel is a mean; in these tests that is the picture as a whole
            x = y = 0
        height, width = fit.source
        seen = np.clip(self.objects - (x, y, x, y), 0, (width, height, width, height))
        size = (seen[:, 2:] - seen[:, :2]) * fit.gain
        shown = (size >= LEAST).all(axis=1) & (size <= MOST).all(axis=1)
        boxes = seen[shown] + self.rng.normal(0, self.noise / fit.gain, (int(shown.sum()), 4))
        return Detections.from_arrays(
            np.clip(boxes, 0, (width, height, width, height)), self.rng.uniform(0.3, 1, len(boxes)),
            self.classes[shown], CARD.names, fit.source,
        )  # fmt: skip
