"""A network of some layers that finds white spots, and pictures of spots with labels: an INT8 study in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from openvino import opset1, opset4

from ovyolo.card import Card, Head
from ovyolo.core import shared_core
from ovyolo.export.portable import save_ir

SIDE = 64
CELL = 8


def spot_network(seed: int = 0) -> tuple[ov.Model, Card]:
    """Two classes (bright spots, grey spots) on a grid of 8x8 cells: convolutions, SiLU, a residual add, a concat.

    Some channels carry the cell's brightness, the others noise that the head weighs little.
    """
    rng = np.random.default_rng(seed)
    image = opset1.parameter([1, SIDE, SIDE, 3], np.uint8, name="images")
    image.output(0).get_tensor().set_names({"images"})
    x = opset1.transpose(opset1.convert(image, "f32"), np.array([0, 3, 1, 2])).output(0)

    def conv(x: ov.Output, weight: np.ndarray, name: str, stride: int, pad: int, act: bool = True) -> ov.Output:
        node = opset1.convolution(
            x, opset1.constant(weight.astype(np.float32)), [stride] * 2, [pad] * 2, [pad] * 2, [1, 1], name=name
        )
        shift = rng.normal(0, 0.02, (1, len(weight), 1, 1)).astype(np.float32)
        out = opset1.add(node, opset1.constant(shift), name=f"{name}/bias").output(0)
        return opset4.swish(out, name=f"{name}/act").output(0) if act else out

    first = rng.normal(0, 0.02, (8, 3, 4, 4)) / 255
    first[0] = 1 / (255 * 48)
    x = conv(x, first, "first", 4, 0)
    inner = rng.normal(0, 0.1, (8, 8, 3, 3))
    inner[0] = 0
    inner[0, 0, 1, 1] = 1
    x = opset1.add(x, conv(x, inner, "inner", 1, 1), name="sum").output(0)
    half = rng.normal(0, 0.1, (8, 8, 2, 2))
    half[0] = 0
    half[0, 0] = 1
    a = conv(x, half, "left", 2, 0)
    b = conv(x, rng.normal(0, 0.1, (8, 8, 2, 2)), "right", 2, 0)
    x = opset1.concat([a, b], 1, name="both").output(0)
    # the brightness behind two SiLUs and the sum, as numbers: found by trying
    level = _responses(x, image)
    head = np.zeros((7, 16, 1, 1))
    head[:, 1:] = rng.normal(0, 0.01, (7, 15, 1, 1))
    gain = 30 / (level[2] - level[0])
    head[4, 0], head[5, 0], head[6, 0] = gain, gain, -gain
    node = opset1.convolution(x, opset1.constant(head.astype(np.float32)), [1, 1], [0, 0], [0, 0], [1, 1], name="head")
    shift = np.zeros((1, 7, 1, 1), np.float32)
    shift[0, 4] = -gain * (level[0] + level[1]) / 2
    shift[0, 5], shift[0, 6] = -gain * (level[1] + level[2]) / 2, gain * (level[1] + level[2]) / 2
    out = opset1.add(node, opset1.constant(shift), name="head/bias")
    out.output(0).get_tensor().set_names({"head0"})
    model = ov.Model([opset1.result(out, name="head0/result")], [image], "spots")
    card = Card(("bright", "grey"), (SIDE, SIDE), Head("anchors", ("head0",), (CELL,), (((8.0, 8.0),),)))
    return model, card


def _responses(x: ov.Output, image: ov.Node) -> list[float]:
    """What channel 0 is for black, grey and white."""
    part = ov.Model([opset1.result(x)], [image], "part")
    request = shared_core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    found = []
    for value in (20, 130, 240):
        request.infer([np.full((1, SIDE, SIDE, 3), value, np.uint8)])
        found.append(float(request.get_output_tensor(0).data[0, 0, 4, 4]))
    return found


def write_spot_model(path: Path) -> Path:
    """The network as an IR."""
    model, card = spot_network()
    return save_ir(model, card, path, fp32=True)


def write_spot_data(folder: Path, *, train: int = 24, val: int = 24, seed: int = 0) -> Path:
    """Pictures with spots on the grid and their labels; returns the ``data.yaml``."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(10, 30, (SIDE, SIDE, 3))
            lines = []
            for cell in rng.choice((SIDE // CELL) ** 2, 4, replace=False):
                row, column = divmod(int(cell), SIDE // CELL)
                kind = int(rng.integers(0, 2))
                value = rng.integers(230, 250) if kind == 0 else rng.integers(120, 140)
                image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = value
                lines.append(f"{kind} {(column + 0.5) / 8} {(row + 0.5) / 8} {1 / 8} {1 / 8}")
            cv2.imwrite(str(folder / "images" / split / f"{index:03}.png"), image.astype(np.uint8))
            (folder / "labels" / split / f"{index:03}.txt").write_text("\n".join(lines), encoding="utf-8")
    description = folder / "data.yaml"
    description.write_text("train: images/train\nval: images/val\nnames: [bright, grey]\n", encoding="utf-8")
    return description
