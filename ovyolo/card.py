"""The card: what a model is, carried inside the IR so that one ``.xml`` + ``.bin`` pair explains itself.

It lies in the IR's ``rt_info`` as JSON under ``ovyolo/card``. Beside it, under ``model_info``, stand the keys that
Intel's DL Streamer and Model API read (https://dlstreamer.github.io/dev_guide/model_info_xml.html).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ovyolo.errors import ModelError

if TYPE_CHECKING:
    import openvino

__all__ = ["CARD_VERSION", "UNQUANTIZED", "Card", "Head", "read_card", "write_card"]

CARD_VERSION = 1
UNQUANTIZED = ("FP32", "FP16")
HEAD_KINDS = ("anchors", "rows")


@dataclass(frozen=True)
class Head:
    """How the network's outputs turn into boxes.

    Args:
        kind: ``"anchors"``: raw head tensors ``[N, na*(5+nc), H, W]``, one output a level, decoded by us.
            ``"rows"``: one output ``[N, rows, 5+nc]`` that the graph decoded itself: centre x, centre y, width, height
            in input pixels, objectness, class probabilities.
        outputs: tensor names of the outputs, finest level first.
        strides: input pixels a cell, one a level.
        anchors: ``(width, height)`` in input pixels, ``[level][anchor]``.
    """

    kind: str
    outputs: tuple[str, ...]
    strides: tuple[int, ...] = ()
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True)
class Card:
    """What a model is: everything that :class:`~ovyolo.Detector` needs to know beside the network itself.

    Args:
        names: class names; class ``i`` is ``names[i]``.
        imgsz: ``(height, width)`` of the network's input in pixels.
        head: how its outputs are decoded.
        precision: what the weights are stored in: ``"FP32"``, ``"FP16"``, or a quantized kind such as ``"INT8"``.
        made: how the file came about: source file name, its SHA-256, tool versions.
        scores: what it scored, where it was measured; empty when never.
        notes: sentences that a user should know (for instance why a decoded head was kept).
        runs_on: the releases and devices that the file is made for; empty in files of before it was written.

    The input is always ``[N, H, W, 3]`` u8 BGR, letterboxed with 114 (scaling and channel order are in the graph).

    Example:
        >>> head = Head("anchors", ("head0",), (8,), (((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),))
        >>> card = Card(("scratch", "dent"), (640, 640), head)
        >>> Card.from_json(card.to_json()) == card
        True
    """

    names: tuple[str, ...]
    imgsz: tuple[int, int]
    head: Head
    precision: str = "FP32"
    made: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    runs_on: str = ""

    @property
    def num_classes(self) -> int:
        """How many classes the network tells apart."""
        return len(self.names)

    def to_json(self) -> str:
        """The card as JSON text; :meth:`from_json` reads it back."""
        return json.dumps({"card_version": CARD_VERSION, **asdict(self)}, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read what :meth:`to_json` wrote.

        Raises:
            ModelError: when it is not a card, contradicts itself, or is of a later version.
        """
        try:
            data = json.loads(text)
            version = data.pop("card_version")
            if version != CARD_VERSION:
                raise ModelError(f"its card has version {version}, this ovyolo reads {CARD_VERSION}: update ovyolo")
            head = data.pop("head")
            card = cls(
                names=tuple(str(n) for n in data["names"]),
                imgsz=(int(data["imgsz"][0]), int(data["imgsz"][1])),
                head=Head(
                    kind=str(head["kind"]),
                    outputs=tuple(str(o) for o in head["outputs"]),
                    strides=tuple(int(s) for s in head["strides"]),
                    anchors=tuple(tuple((float(w), float(h)) for w, h in level) for level in head["anchors"]),
                ),
                precision=str(data["precision"]),
                made=dict(data["made"]),
                scores=dict(data["scores"]),
                notes=tuple(str(n) for n in data["notes"]),
                runs_on=str(data.get("runs_on", "")),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"its card is damaged ({error!r}): export the model again") from error
        card.check()
        return card

    def check(self) -> None:
        """Raise ModelError where the card contradicts itself."""
        head = self.head
        if head.kind not in HEAD_KINDS:
            raise ModelError(f"its card names an unknown head kind {head.kind!r}: update ovyolo")
        if not self.names or min(self.imgsz) < 1 or not head.outputs:
            raise ModelError("its card lacks class names, an input size or outputs: export the model again")
        if head.kind == "anchors":
            levels = len(head.outputs)
            if len(head.strides) != levels or len(head.anchors) != levels or min(head.strides) < 1:
                raise ModelError("its card needs a stride and anchors for each output: export the model again")
            if len({len(level) for level in head.anchors}) != 1 or not head.anchors[0]:
                raise ModelError("its card's levels have different numbers of anchors: export the model again")

    def with_scores(self, **scores: Any) -> Card:
        """A copy with ``scores`` added."""
        return replace(self, scores={**self.scores, **scores})


def write_card(model: openvino.Model, card: Card) -> None:
    """Write ``card`` into ``model.rt_info``, and the ``model_info`` keys that Intel's other tools read."""
    card.check()
    model.set_rt_info(card.to_json(), ["ovyolo", "card"])
    info = {
        "model_type": "yolo_v5",
        "labels": " ".join(name.replace(" ", "_") for name in card.names),
        "confidence_threshold": "0.25",
        "iou_threshold": "0.45",
        "resize_type": "fit_to_window_letterbox",
        "pad_value": "114",
        # both are folded into the first convolution: the input takes BGR bytes as they are
        "reverse_input_channels": "False",
        "scale_values": "1",
    }
    for key, value in info.items():
        model.set_rt_info(value, ["model_info", key])


def read_card(model: openvino.Model, source: str) -> Card:
    """The card in ``model.rt_info``; ``source`` is the file's name for messages.

    Raises:
        ModelError: when there is none, or it is damaged.
    """
    if not model.has_rt_info(["ovyolo", "card"]):
        raise ModelError(
            f"{source} has no ovyolo card, so its outputs cannot be explained: "
            f"run `ovyolo export {source} --data data.yaml` first and use the file that it makes"
        )
    text = str(model.get_rt_info(["ovyolo", "card"]).value)
    try:
        return Card.from_json(text)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
