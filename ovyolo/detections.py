"""The one result type: boxes, confidences and classes of one picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.errors import DimensionError

__all__ = ["Detections"]

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture, best first.

    Args:
        xyxy: float32 ``(n, 4)``: left, top, right, bottom in pixels of the source picture.
        confidence: float32 ``(n,)``: objectness times class probability, 0 to 1.
        class_id: int32 ``(n,)``: index into ``names``.
        names: class names by index; empty when unknown.
        image_shape: ``(height, width)`` of the source picture in pixels, or None when unknown.
        truncated: True when a bound (``max_det``, or 30,000 candidates before NMS) cut boxes off.
        nonfinite: cells of the network's output that held NaN where a number was needed; more than none means
            that the model or its input is broken.
        device: the device that computed it, as OpenVINO names it; empty when unknown.

    Raises:
        DimensionError: when the arrays do not fit together.

    Example:
        >>> import numpy as np
        >>> from ovyolo import Detections
        >>> boxes = [[10, 20, 50, 80], [0, 0, 5, 5]]
        >>> found = Detections.from_arrays(boxes, [0.9, 0.3], [0, 1], names=["open", "short"])
        >>> len(found), found.name_of(0)
        (2, 'open')
        >>> found[found.confidence > 0.5].xyxy.tolist()
        [[10.0, 20.0, 50.0, 80.0]]
        >>> found[found.class_id == 1].to_dicts()[0]["name"]
        'short'
    """

    xyxy: Float32
    confidence: Float32
    class_id: Int32
    names: tuple[str, ...] = ()
    image_shape: tuple[int, int] | None = None
    truncated: bool = False
    nonfinite: int = 0
    device: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        n = len(self.confidence)
        if self.xyxy.shape != (n, 4) or self.confidence.shape != (n,) or self.class_id.shape != (n,):
            raise DimensionError(
                f"Detections takes xyxy (n, 4), confidence (n,) and class_id (n,), got {self.xyxy.shape}, "
                f"{self.confidence.shape} and {self.class_id.shape}"
            )

    @classmethod
    def from_arrays(
        cls,
        xyxy: Any,
        confidence: Any,
        class_id: Any,
        names: Mapping[int, str] | list[str] | tuple[str, ...] = (),
        image_shape: tuple[int, int] | None = None,
    ) -> Detections:
        """Build from anything that NumPy can turn into arrays; ``names`` may be a list or a mapping from 0."""
        if isinstance(names, Mapping):
            names = [names[i] for i in range(len(names))]
        return cls(
            np.asarray(xyxy, np.float32).reshape(-1, 4),
            np.asarray(confidence, np.float32).reshape(-1),
            np.asarray(class_id, np.int32).reshape(-1),
            tuple(names),
            image_shape,
        )

    @classmethod
    def empty(cls, names: tuple[str, ...] = (), image_shape: tuple[int, int] | None = None) -> Detections:
        """No boxes."""
        return cls.from_arrays([], [], [], names, image_shape)

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, index: Any) -> Detections:
        """Select boxes with an integer, a slice, an index array or a boolean mask."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"box {index} of {len(self)}")
            index = [index]
        return Detections(
            self.xyxy[index],
            self.confidence[index],
            self.class_id[index],
            self.names,
            self.image_shape,
            self.truncated,
            self.nonfinite,
            self.device,
        )

    def __iter__(self) -> Iterator[tuple[Float32, float, int]]:
        """Iterate over ``(xyxy, confidence, class_id)``, a box at a time."""
        for box, confidence, class_id in zip(self.xyxy, self.confidence, self.class_id, strict=True):
            yield box, float(confidence), int(class_id)

    def name_of(self, index: int) -> str:
        """The class name of box ``index``, or its number as text when names are unknown."""
        class_id = int(self.class_id[index])
        return self.names[class_id] if 0 <= class_id < len(self.names) else str(class_id)

    @property
    def xywh(self) -> Float32:
        """float32 ``(n, 4)``: left, top, width, height in source pixels (COCO's form)."""
        return np.concatenate([self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]], axis=1)

    @property
    def cxcywhn(self) -> Float32:
        """float32 ``(n, 4)``: centre x, centre y, width, height as fractions of the picture (YOLO's form).

        Raises:
            DimensionError: when ``image_shape`` is unknown.
        """
        if self.image_shape is None:
            raise DimensionError("the picture's size is unknown, so its boxes have no relative form: set image_shape")
        height, width = self.image_shape
        boxes = self.xyxy / np.array([width, height, width, height], np.float32)
        return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict a box: ``xyxy``, ``confidence``, ``class_id``, ``name``; ready for JSON."""
        return [
            {
                "xyxy": [round(float(v), 3) for v in box],
                "confidence": round(confidence, 5),
                "class_id": class_id,
                "name": self.name_of(i),
            }
            for i, (box, confidence, class_id) in enumerate(self)
        ]

    def to_json(self) -> str:
        """The boxes as a JSON array of the objects that :meth:`to_dicts` makes."""
        return json.dumps(self.to_dicts(), ensure_ascii=False)

    def counts(self) -> dict[str, int]:
        """How many boxes of each class name, most frequent first."""
        ids, counts = np.unique(self.class_id, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        label = dict(enumerate(self.names))
        return {label.get(int(ids[i]), str(int(ids[i]))): int(counts[i]) for i in order}
