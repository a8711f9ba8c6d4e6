"""Made-up data sets and predictions, pycocotools' judgement of them, and a session that computes nothing."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.card import Card, Head
from ovyolo.dataset import DataSet, Item
from ovyolo.evaluate import Predictions


def made_set(pictures: list[list[tuple[Any, ...]]], classes: int = 3, ids: list[Any] | None = None) -> DataSet:
    """Pictures of 400x500; an object is (class, left, top, right, bottom, crowd)."""
    items = []
    for index, objects in enumerate(pictures):
        rows = np.array(objects, np.float64).reshape(-1, 6)
        boxes = rows[:, 1:5]
        items.append(
            Item(
                Path(f"/nowhere/{index}.jpg"), ids[index] if ids else index + 1, (400, 500), boxes,
                rows[:, 0].astype(np.int32), rows[:, 5] > 0, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            )
        )  # fmt: skip
    names = tuple(f"c{i}" for i in range(classes))
    return DataSet(names, tuple(items), Path("made.json"), "val", tuple(range(classes)), coco=True)


def made_predictions(rows: list[tuple[Any, ...]]) -> Predictions:
    """A row is (picture, class, left, top, right, bottom, score); pictures ascending."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    xywh = np.concatenate([table[:, 2:4], table[:, 4:6] - table[:, 2:4]], axis=1)
    return Predictions(table[:, 0].astype(np.int64), xywh, table[:, 6], table[:, 1].astype(np.int64))


def random_case(seed: int) -> tuple[DataSet, Predictions]:
    """Objects of all sizes, crowds, pictures without either, equal scores, more boxes than 100 of a class."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 6))
    pictures, rows = [], []
    for picture in range(int(rng.integers(1, 9))):
        count = int(rng.integers(0, 9))
        corner = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate(
            [corner, corner + rng.choice([12.0, 40, 150], (count, 1)) * rng.uniform(0.6, 1.4, (count, 2))], 1
        )
        # class numbers start at 0, some never occur
        kinds = rng.integers(0, classes, count)
        pictures.append([(kind, *box, rng.random() < 0.15) for kind, box in zip(kinds, boxes, strict=True)])
        for box, kind in zip(boxes, kinds, strict=True):
            for _ in range(int(rng.integers(0, 4))):
                moved = box + rng.normal(0, rng.choice([0.5, 3, 10]), 4)
                moved[2:] = np.maximum(moved[2:], moved[:2])
                rows.append(
                    (picture, kind if rng.random() < 0.8 else rng.integers(classes), *moved, round(rng.random(), 2))
                )
        extra = 130 if rng.random() < 0.2 else int(rng.integers(0, 9))
        for _ in range(extra):
            x, y = rng.uniform(0, 300, 2)
            rows.append(
                (
                    picture,
                    rng.integers(classes),
                    x,
                    y,
                    x + rng.uniform(1, 90),
                    y + rng.uniform(1, 90),
                    round(rng.random(), 2),
                )
            )
    return made_set(pictures, classes), made_predictions(rows)


def pycocotools_stats(dataset: DataSet, predictions: Predictions) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: dict[str, Any] = {
        "images": [{"id": item.image_id, "height": 400, "width": 500} for item in dataset.items],
        "categories": [
            {"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.names, strict=True)
        ],
        "annotations": [],
    }
    for item in dataset.items:
        for k in range(len(item)):
            left, top, right, bottom = item.boxes[k].tolist()
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": item.image_id, "iscrowd": int(item.crowd[k]),
                 "category_id": dataset.category_ids[item.class_id[k]], "area": float(item.area[k]),
                 "bbox": [left, top, right - left, bottom - top]}
            )  # fmt: skip
    rows = [
        {"image_id": dataset.items[i].image_id, "category_id": dataset.category_ids[c], "bbox": box, "score": s}
        for i, c, box, s in zip(
            predictions.image.tolist(), predictions.class_id.tolist(), predictions.xywh.tolist(),
            predictions.score.tolist(), strict=True,
        )
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def card(*names: str) -> Card:
    """The card of a network with one level, one anchor and 64x64 pixels."""
    return Card(names, (64, 64), Head("anchors", ("head0",), (32,), (((10.0, 10.0),),)))


class FakeSession:
    """Finds one box in each picture, whose confidence is the picture's mean; remembers what was asked of it."""

    def __init__(self, slots: int = 2, batch: int = 1, classes: int = 1, fail_at: int = -1) -> None:
        self.input_shape = (batch, 64, 64, 3)
        self.device, self.slots, self.fail_at = "FAKE", slots, fail_at
        self.inputs = [np.zeros(self.input_shape, np.uint8) for _ in range(slots)]
        self.under_way: set[int] = set()
        self.most_under_way, self.submitted, self.classes = 0, 0, classes

    def input(self, slot: int) -> NDArray[np.uint8]:
        assert slot not in self.under_way, "written to while computing"
        return self.inputs[slot]

    def submit(self, slot: int) -> None:
        assert slot not in self.under_way
        self.submitted += 1
        self.under_way.add(slot)
        self.most_under_way = max(self.most_under_way, len(self.under_way))

    def wait(self, slot: int, timeout: float | None = None) -> list[NDArray[np.float32]]:
        assert slot in self.under_way
        if self.submitted == self.fail_at:
            self.fail_at = -1
            raise KeyboardInterrupt  # while waiting: the slot goes on computing
        self.under_way.remove(slot)
        heads = np.full((self.input_shape[0], 5 + self.classes, 2, 2), -20, np.float32)
        mean = self.inputs[slot].mean(axis=(1, 2, 3)) / 255
        heads[:, :4, 0, 0] = 0
        heads[:, 4, 0, 0] = np.log(np.maximum(mean, 1e-9) / (1 - mean))
        heads[:, 5, 0, 0] = 20
        return [heads]

    def close(self) -> None:
        assert not self.under_way
