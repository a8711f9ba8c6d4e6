"""Tiles end to end: accuracy against time, and beside SAHI with the same network.

    python benchmarks/tiles.py best.pt --data data.yaml            # the curve: plain, larger inputs, tiles
    python benchmarks/tiles.py best.pt --data data.yaml --sahi     # beside SAHI (pip install sahi)
    python benchmarks/tiles.py best.pt --picture aerial.jpg --enlarge 4 --sahi
    python benchmarks/tiles.py --smoke                             # a network and pictures made here, as CI runs it

Pictures of the data set are laid out side by side, at their own scale, on mosaics of 4096x4096 pixels; what is found is
given back to the picture in which its centre lies and judged there by COCO's metrics, so that the bound of 100 boxes a
class and picture does not count for a mosaic. All ways look at each mosaic in turn. SAHI's detector is ovyolo's own, of
the same IR: what differs is slicing, scheduling and merging.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ovyolo.bench.machine import describe, load_warning
from ovyolo.dataset import DataSet, load_dataset
from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.detector import model_file
from ovyolo.evaluate import Predictions, score
from ovyolo.evaluate.compare import Variant
from ovyolo.io.images import read_image
from ovyolo.letterbox import Letterbox
from ovyolo.runtime import open_session
from ovyolo.tiling import Tiler

Look = Callable[[NDArray[np.uint8]], Detections]
CURVE = ("plain", "imgsz=1280", "tile=2048", "tile=1280", "tile=640", "tile=640,full")
MAX_DET = 3000


class Mosaics:
    """Pictures on sheets of ``side`` pixels, ``across`` by ``across`` on each."""

    def __init__(self, dataset: DataSet, side: int, across: int) -> None:
        self.dataset, self.side, self.across = dataset, side, across
        self.pitch = side // across
        if any(max(item.size) > self.pitch for item in dataset.items):
            sys.exit(
                f"pictures of more than {self.pitch} pixels do not fit {across}x{across} on {side}: give --across less"
            )

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.across**2)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        sheet = np.full((self.side, self.side, 3), 114, np.uint8)
        first = number * self.across**2
        for place, item in enumerate(self.dataset.items[first : first + self.across**2]):
            row, column = divmod(place, self.across)
            image = read_image(item.path)
            y, x = row * self.pitch, column * self.pitch
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
        return sheet

    def given_back(self, number: int, found: Detections) -> list[Detections]:
        """The boxes of a sheet, to the pictures on it."""
        first = number * self.across**2
        centre = ((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2 // self.pitch).astype(int)
        place = centre[:, 1] * self.across + centre[:, 0]
        parts = []
        for index, item in enumerate(self.dataset.items[first : first + self.across**2]):
            one = found[place == index]
            row, column = divmod(index, self.across)
            height, width = item.size
            boxes = one.xyxy - np.tile((column * self.pitch, row * self.pitch), 2)
            boxes = np.clip(boxes, 0, (width, height, width, height))
            parts.append(Detections.from_arrays(boxes, one.confidence, one.class_id, one.names, item.size))
        return parts


def our_way(path: Path, text: str, options: argparse.Namespace, stack: ExitStack) -> Look:
    """One of ovyolo's ways, with a session of its own."""
    variant = Variant.parse(text)
    session, card = open_session(model_file(path, variant.imgsz, None), slots=None, hint=options.hint)
    stack.callback(session.close)
    session = session.another(session.slots + 1)
    decode = partial(
        Decoder(card),
        conf=options.conf,
        iou=0.6,
        max_det=MAX_DET,
        multi_label=options.conf < 0.1,
        device=session.device,
    )
    tiler = Tiler(card, variant.settings, decode, iou=0.6, agnostic=False, max_det=MAX_DET)
    return lambda image: tiler(image, session)


def sahi_way(path: Path, tile: int, full: bool, options: argparse.Namespace, stack: ExitStack) -> Look:
    """SAHI, its detector being the plain way of ovyolo on the same IR; its own defaults for merging."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    session, card = open_session(model_file(path, None, None), slots=1)
    stack.callback(session.close)
    decode = partial(
        Decoder(card),
        conf=options.conf,
        iou=0.6,
        max_det=MAX_DET,
        multi_label=options.conf < 0.1,
        device=session.device,
    )

    class Ours(DetectionModel):
        def load_model(self) -> None:
            self.model = session

        @property
        def num_categories(self) -> int:
            return len(card.names)

        def perform_inference(self, image: NDArray[np.uint8]) -> None:
            fit = Letterbox((image.shape[0], image.shape[1]), card.imgsz)
            fit.into(image, session.input(0)[0])
            session.submit(0)
            self._original_predictions = decode(session.wait(0), fit)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            shift = shift_amount_list[0] if isinstance(shift_amount_list[0], (list, tuple)) else shift_amount_list
            full_shape = full_shape_list[0] if isinstance(full_shape_list[0], (list, tuple)) else full_shape_list
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box.tolist(), category_id=kind, category_name=card.names[kind], score=confidence,
                        shift_amount=shift, full_shape=full_shape,
                    )
                    for box, confidence, kind in self._original_predictions
                    if box[2] > box[0] and box[3] > box[1]
                ]
            ]  # fmt: skip

    model = Ours(model_path=str(path), confidence_threshold=options.conf, device="cpu")

    def look(image: NDArray[np.uint8]) -> Detections:
        result = get_sliced_prediction(
            image, model, slice_height=tile, slice_width=tile, overlap_height_ratio=0.2, overlap_width_ratio=0.2,
            perform_standard_pred=full, verbose=0,
        )  # fmt: skip
        rows = [(*one.bbox.to_xyxy(), one.score.value, one.category.id) for one in result.object_prediction_list]
        table = np.array(rows, float).reshape(-1, 6)
        order = np.argsort(-table[:, 4], kind="stable")
        return Detections.from_arrays(table[order, :4], table[order, 4], table[order, 5], card.names)

    return look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, help="a data.yaml, or a COCO .json")
    parser.add_argument("--picture", type=Path, help="one picture instead: time and counts only")
    parser.add_argument("--enlarge", type=float, default=1.0, help="of --picture")
    parser.add_argument("--sahi", action="store_true", help="beside SAHI instead of the curve")
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--across", type=int, default=6, help="pictures in a row of a mosaic")
    parser.add_argument("--sheets", type=int, default=99, help="at most so many mosaics")
    parser.add_argument("--conf", type=float, default=0.001)
    parser.add_argument("--hint", default="throughput", help="ovyolo's sessions: latency or throughput")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            made_here(options, Path(folder))
        if options.model is None or (options.data is None) == (options.picture is None):
            parser.error("give a model, and --data or --picture; or --smoke")
        run(options)


def run(options: argparse.Namespace) -> None:
    machine = describe()
    print(
        f"{machine['cpu']}, {machine['usable_cores']} cores, OpenVINO {machine['openvino']}, ovyolo {machine['ovyolo']}"
    )
    if noisy := load_warning():
        print(f"CAUTION: {noisy}")
    mosaics = None
    if options.data is not None:
        mosaics = Mosaics(load_dataset(options.data), options.side, options.across)
        count = min(len(mosaics), options.sheets)
        print(
            f"{count} mosaics of {options.side}x{options.side}, {options.across}x{options.across} pictures each", end=""
        )
    else:
        picture = read_image(options.picture)
        picture = np.asarray(cv2.resize(picture, None, fx=options.enlarge, fy=options.enlarge), np.uint8)
        count = 1
        print(f"{options.picture.name}, enlarged to {picture.shape[1]}x{picture.shape[0]}", end="")
    print(f"; {options.model.name}, conf {options.conf}, ovyolo hint {options.hint}\n")
    with ExitStack() as stack:
        ways: dict[str, Look] = {}
        if options.sahi:
            for full in (False, True):
                text = f"tile={options.tile}" + (",full" if full else "")
                ways[f"ovyolo {text}"] = our_way(options.model, text, options, stack)
                ways[f"sahi   {text}"] = sahi_way(options.model, options.tile, full, options, stack)
        else:
            for text in options.curve if options.smoke else CURVE:
                ways[text] = our_way(options.model, text, options, stack)
        for look in ways.values():  # the first call loads and allocates
            look(np.full((options.tile + 8, options.tile + 8, 3), 114, np.uint8))
        found: dict[str, list[Detections]] = {name: [] for name in ways}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(count):
            image = picture if mosaics is None else mosaics[number]
            for turn in range(options.rounds):
                for name, look in ways.items():
                    begin = time.perf_counter()
                    one = look(image)
                    times[name].append(time.perf_counter() - begin)
                    if turn == 0:
                        found[name] += [one] if mosaics is None else mosaics.given_back(number, one)
    width = max(map(len, ways))
    print(f"{'':<{width}}  ms a picture" + ("      AP    AP50   small  medium   large" if mosaics else "   boxes"))
    for name in ways:
        text = f"{name:<{width}}  {1000 * float(np.median(times[name])):>12.0f}"
        if mosaics is None:
            text += f"  {len(found[name][0]):>6}"
        else:
            judged = mosaics.dataset.subset(range(len(found[name])))
            scores = score(judged, Predictions.from_detections(found[name]), detail=False)
            text += "".join(
                f"  {value:6.3f}"
                for value in (scores.ap, scores.ap50, scores.ap_small, scores.ap_medium, scores.ap_large)
            )
        print(text)
    if options.sahi:
        for full in ("", ",full"):
            theirs, ours = (times[f"{who} tile={options.tile}{full}"] for who in ("sahi  ", "ovyolo"))
            print(f"sahi / ovyolo, tile={options.tile}{full}: {np.median(theirs) / np.median(ours):.2f}x")


def made_here(options: argparse.Namespace, folder: Path) -> None:
    """A network of one convolution and pictures with white cells, from the tests."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from reference.tiny_model import make_tiny_ir

    options.model = make_tiny_ir(folder / "tiny.xml")
    options.side, options.across, options.tile, options.conf = 256, 4, 64, 0.25
    options.curve = ("plain", "tile=128", "tile=64", "tile=64,full")
    if options.data is None and options.picture is None:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        rng = np.random.default_rng(0)
        for number in range(20):
            image = np.zeros((64, 64, 3), np.uint8)
            y, x = rng.integers(0, 8, 2) * 8
            image[y : y + 8, x : x + 8] = 255
            cv2.imwrite(str(folder / f"images/{number}.png"), image)
            (folder / f"labels/{number}.txt").write_text(f"0 {(x + 4) / 64} {(y + 4) / 64} 0.125 0.125")
        options.data = folder / "data.yaml"
        options.data.write_text("val: images\nnames: [spot]\n")


if __name__ == "__main__":
    main()
