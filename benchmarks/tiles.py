"""Tiles end to end: accuracy against time, and beside SAHI with the same network.

    python benchmarks/tiles.py best.pt --data data.yaml            # the curve: plain, larger inputs, tiles
    python benchmarks/tiles.py best.pt --data data.yaml --sahi     # beside SAHI (pip install sahi)
    python benchmarks/tiles.py best.pt --picture aerial.jpg --enlarge 4 --sahi
    python benchmarks/tiles.py --smoke                             # a network and pictures made here, as CI runs it

Pictures of the data set are laid out side by side, at their own scale, on mosaics of 4096x4096 pixels; what is found is
given back to the picture in which its centre lies and judged there by COCO's metrics, so that the bound of 100 boxes a
class and picture does not count for a mosaic. All ways look at each mosaic in turn, and so does the network alone,
the bound that no way of cutting and merging passes. ``sahi_ways.py`` says what SAHI's detectors are.
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

import cv2
import numpy as np
from numpy.typing import NDArray
from sahi_ways import MAX_DET, sahi_way

from ovyolo.bench.machine import describe, load_warning
from ovyolo.dataset import DataSet, load_dataset
from ovyolo.decode import Decoder
from ovyolo.detections import Detections
from ovyolo.detector import model_file
from ovyolo.evaluate import Predictions, score
from ovyolo.evaluate.compare import Variant
from ovyolo.evaluate.scores import Scores
from ovyolo.io.images import read_image
from ovyolo.runtime import open_session
from ovyolo.tiling import Tiler, plan_tiles

Look = Callable[[NDArray[np.uint8]], Detections]
CURVE = ("plain", "imgsz=1280", "tile=2048", "tile=1280", "tile=640", "tile=640,full")
# a bound on a sheet would cut off the least sure boxes of the pictures on it, which COCO's metrics count; SAHI has none
NO_BOUND = 10**6


class Mosaics:
    """Pictures on sheets of ``side`` pixels, ``across`` by ``across`` on each, ``sheets`` at most.

    Layout 0 has them in their order, the others in one drawn from the number.
    """

    def __init__(self, dataset: DataSet, side: int, across: int, sheets: int, layout: int = 0) -> None:
        order = np.random.default_rng(layout).permutation(len(dataset)) if layout else np.arange(len(dataset))
        self.dataset = dataset.subset(order[: sheets * across**2].tolist())
        self.side, self.across = side, across
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
    session, card = open_session(
        model_file(path, variant.imgsz, None), slots=None, hint=options.hint, precision=options.precision
    )
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
    tiler = Tiler(card, variant.settings, decode, iou=0.6, agnostic=False, max_det=NO_BOUND)
    return lambda image: tiler(image, session)


def bare_way(path: Path, tiles: int, options: argparse.Namespace, stack: ExitStack) -> Callable[[], None]:
    """The network alone, as often as a picture has tiles: no picture goes in, nothing is done with what comes out."""
    session, _ = open_session(model_file(path, None, None), slots=None, hint=options.hint, precision=options.precision)
    stack.callback(session.close)
    session = session.another(session.slots + 1)

    def compute() -> None:
        for number in range(tiles):
            if number >= session.slots:
                session.wait(number % session.slots)
            session.submit(number % session.slots)
        for number in range(max(0, tiles - session.slots), tiles):
            session.wait(number % session.slots)

    return compute


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
    parser.add_argument("--layouts", type=int, default=1, help="so many orders of the pictures on the mosaics")
    parser.add_argument("--conf", type=float, default=0.001)
    parser.add_argument("--hint", default="throughput", help="ovyolo's sessions: latency or throughput")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="of everyone's arithmetic")
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
    sheets: list[Mosaics] = []
    if options.data is not None:
        dataset = load_dataset(options.data)
        sheets = [
            Mosaics(dataset, options.side, options.across, options.sheets, layout) for layout in range(options.layouts)
        ]
        size = (options.side, options.side)
        print(
            f"{len(sheets[0])} mosaics of {options.side}x{options.side}, {options.across}x{options.across} pictures "
            f"each, laid out in {options.layouts} ways",
            end="",
        )
    else:
        picture = read_image(options.picture)
        picture = np.asarray(cv2.resize(picture, None, fx=options.enlarge, fy=options.enlarge), np.uint8)
        size = picture.shape[:2]
        print(f"{options.picture.name}, enlarged to {picture.shape[1]}x{picture.shape[0]}", end="")
    print(f"; {options.model.name}, conf {options.conf}, ovyolo hint {options.hint}, {options.precision}\n", flush=True)
    with ExitStack() as stack:
        ways: dict[str, Look] = {}
        if options.sahi:
            for full in (False, True):
                text = f"tile={options.tile}" + (",full" if full else "")
                ways[f"{text}  ovyolo"] = our_way(options.model, text, options, stack)
                for name, native in (("SAHI, as users write it", False), ("SAHI, ovyolo's detector", True)):
                    ways[f"{text}  {name}"] = sahi_way(
                        options.model, options.tile, full, native=native, conf=options.conf,
                        precision=options.precision, stack=stack,
                    )  # fmt: skip
        else:
            for text in options.curve if options.smoke else CURVE:
                ways[text] = our_way(options.model, text, options, stack)
        first = sheets[0][0] if sheets else picture
        for look in ways.values():  # the first call loads and allocates
            look(np.ascontiguousarray(first[: options.tile + 8, : options.tile + 8]))
        imgsz = (640, 640)  # tiles do not depend on it where their size is given
        tiles = plan_tiles(size, Variant.parse(f"tile={options.tile}").settings, imgsz).views
        bare = bare_way(options.model, tiles, options, stack)
        alone: list[float] = []
        times: dict[str, list[float]] = {name: [] for name in ways}
        judged: dict[str, list[Scores]] = {name: [] for name in ways}
        boxes: dict[str, int] = {}

        def turn(image: NDArray[np.uint8]) -> dict[str, Detections]:
            begin = time.perf_counter()
            bare()
            alone.append(time.perf_counter() - begin)
            found = {}
            for name, look in ways.items():
                begin = time.perf_counter()
                found[name] = look(image)
                times[name].append(time.perf_counter() - begin)
            return found

        for _ in range(options.rounds if options.picture is not None else 0):
            boxes = {name: len(one) for name, one in turn(picture).items()}
        for mosaics in sheets:
            parts: dict[str, list[Detections]] = {name: [] for name in ways}
            for number in range(len(mosaics)):
                image = mosaics[number]
                for _ in range(options.rounds):
                    found = turn(image)
                for name, one in found.items():
                    parts[name] += mosaics.given_back(number, one)
            for name, ones in parts.items():
                judged[name].append(score(mosaics.dataset, Predictions.from_detections(ones), detail=False))
    report(ways, times, alone, tiles, judged if sheets else {}, boxes)
    if options.sahi:
        for text in (f"tile={options.tile}", f"tile={options.tile},full"):
            for name in ("SAHI, as users write it", "SAHI, ovyolo's detector"):
                ratios = np.array(times[f"{text}  {name}"]) / np.array(times[f"{text}  ovyolo"])
                print(f"{text}: {name} takes {np.median(ratios):.2f} times as long as ovyolo (median of the turns)")
        share = np.median(np.array(alone) / np.array(times[f"tile={options.tile}  ovyolo"]))
        print(f"the network alone is {share:.0%} of ovyolo's time with tile={options.tile}")


def report(
    ways: dict[str, Look], times: dict[str, list[float]], alone: list[float], tiles: int,
    judged: dict[str, list[Scores]], boxes: dict[str, int],
) -> None:  # fmt: skip
    """Times of all ways, and what they found: AP is the mean over layouts, with AP small of each."""
    width = max(30, *map(len, ways))
    print(
        f"{'':<{width}}  ms a picture" + ("      AP    AP50   small  medium   large  small by layout" if judged else "")
    )
    print(f"{f'the network alone, {tiles} times':<{width}}  {1000 * float(np.median(alone)):>12.0f}")
    for name in ways:
        text = f"{name:<{width}}  {1000 * float(np.median(times[name])):>12.0f}"
        if judged:
            figures = [(one.ap, one.ap50, one.ap_small, one.ap_medium, one.ap_large) for one in judged[name]]
            text += "".join(f"  {value:6.3f}" for value in np.mean(figures, axis=0))
            text += "  " + " ".join(f"{one.ap_small:.3f}" for one in judged[name])
        else:
            text += f"  {boxes[name]:>6} boxes"
        print(text)


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
