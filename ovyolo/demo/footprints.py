"""Footprints: where packages, connectors and small parts have their pads, and their print on the silk screen."""

from __future__ import annotations

from ovyolo.demo.layout import Pad, Point
from ovyolo.demo.routing import STEPS, Node, Pin, Router
from ovyolo.demo.text import strokes

__all__ = ["Placer"]

Box = tuple[float, float, float, float]
WORDS = ("TOP", "REV B", "L1", "GND", "2V5", "OV-7", "BOT", "ETCH", "V1.3", "+5V")


class Placer:
    """Puts footprints where there is room. ``pins`` are the pads that traces may lead away from."""

    def __init__(self, router: Router) -> None:
        self.router, self.rng, self.layout = router, router.rng, router.layout
        self.pins: list[Pin] = []
        self._names: list[Box] = []
        self._bodies: list[Box] = []

    def large(self) -> None:
        """A package or a connector of some kind."""
        (self._dual, self._quad, self._dual, self._header, self._balls)[int(self.rng.integers(5))]()

    def _number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def _spot(self, width: int, height: int) -> Node | None:
        """The upper left node of a free place, with a node to spare around it."""
        for _ in range(8):
            x = self._number(1, max(2, self.layout.columns - width - 1))
            y = self._number(1, max(2, self.layout.rows - height - 1))
            inside_another = any(_meet((x, y, x + width, y + height), body) for body in self._bodies)
            if not inside_another and self.router.free(x - 1, y - 1, x + width, y + height):
                return x, y
        return None

    def _pad(self, node: Node, half: tuple[float, float], out: int, round: bool = False, drill: float = 0.0) -> Pin:
        net = self.router.net()
        pad = Pad(net, (float(node[0]), float(node[1])), half, round, drill)
        self.layout.pads.append(pad)
        dx, dy = STEPS[out]
        long = max(half) > 0.6
        nodes = [node, (node[0] + dx, node[1] + dy), (node[0] - dx, node[1] - dy)] if long else [node]
        self.router.hold(net, nodes, broad=True)
        self.pins.append(pin := Pin(net, node, out, nodes, pad))
        return pin

    def _block(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Keep traces out of a rectangle of nodes, ends included."""
        self.router.hold(self.router.net(), [(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)], broad=True)

    def _row(self, x: int, y: int, count: int, along: Node, out: int) -> None:
        """Surface-mount pins in a row."""
        half = (0.28, 0.72) if STEPS[out][0] == 0 else (0.72, 0.28)
        for i in range(count):
            self._pad((x + i * along[0], y + i * along[1]), half, out)

    def _dual(self) -> None:
        """A package with two rows of pins."""
        count, span = self._number(3, 9), self._number(4, 7)
        upright = self.rng.random() < 0.5
        spot = self._spot(*((span + 3, count) if upright else (count, span + 3)))
        if spot is None:
            return
        x, y = spot
        if upright:
            x += 1
            self._row(x, y, count, (0, 1), 4)
            self._row(x + span, y, count, (0, 1), 0)
            box = (x + 1.0, y - 0.4, x + span - 1.0, y + count - 0.6)
        else:
            y += 1
            self._row(x, y, count, (1, 0), 6)
            self._row(x, y + span, count, (1, 0), 2)
            box = (x - 0.4, y + 1.0, x + count - 0.6, y + span - 1.0)
        self._outline(box)
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        self._name("U", (middle[0] - 1.1, middle[1] - 0.4), (box[0], box[1] - 2.2), (box[0], box[3] + 1.4))

    def _quad(self) -> None:
        """A package with pins on four sides, perhaps with a large pad in the middle."""
        count = self._number(4, 8)
        side = count + 3
        spot = self._spot(side + 2, side + 2)
        if spot is None:
            return
        x, y = spot[0] + 1, spot[1] + 1
        self._row(x + 2, y, count, (1, 0), 6)
        self._row(x + 2, y + side, count, (1, 0), 2)
        self._row(x, y + 2, count, (0, 1), 4)
        self._row(x + side, y + 2, count, (0, 1), 0)
        if self.rng.random() < 0.6 and side > 7:
            half = side / 2 - 2.2
            self.layout.pads.append(Pad(self.router.net(), (x + side / 2, y + side / 2), (half, half)))
            self._block(x + 2, y + 2, x + side - 2, y + side - 2)
        self._outline((x + 1.0, y + 1.0, x + side - 1.0, y + side - 1.0))
        self._name("U", (x + side - 0.8, y - 0.7), (x - 1.0, y - 0.7), (x + side - 0.8, y + side - 0.2))

    def _header(self) -> None:
        """Drilled pins, the first one square."""
        count, rows = self._number(2, 7), self._number(1, 3)
        spot = self._spot(2 * count + 1, 2 * rows + 1)
        if spot is None:
            return
        x, y = spot[0] + 1, spot[1] + 1
        radius = 0.45 + 0.1 * float(self.rng.random())
        for j in range(rows):
            for i in range(count):
                self._pad((x + 2 * i, y + 2 * j), (radius, radius), 6 if j == 0 else 2, i + j > 0, radius * 0.55)
        box = (x - 0.95, y - 0.95, x + 2 * count - 1.05, y + 2 * rows - 1.05)
        self._outline(box)
        self._name("J", (x - 0.9, y - 2.0), (x - 0.9, box[3] + 0.3), (box[2] + 0.3, y - 0.4))

    def _balls(self) -> None:
        """A ball grid."""
        count = self._number(3, 6)
        spot = self._spot(2 * count, 2 * count)
        if spot is None:
            return
        x, y = spot[0] + 1, spot[1] + 1
        for j in range(count):
            for i in range(count):
                self._pad((x + 2 * i, y + 2 * j), (0.44, 0.44), int(self.rng.choice((1, 3, 5, 7))), True)
        end = 2 * count - 1.05
        self._outline((x - 0.95, y - 0.95, x + end, y + end))
        self._name("U", (x - 0.9, y - 2.0), (x - 0.9, y + end + 0.3), (x + end + 0.3, y - 0.9))

    def chip(self) -> None:
        """A resistor, a capacitor or the like."""
        upright = self.rng.random() < 0.5
        spot = self._spot(*((1, 3) if upright else (3, 1)))
        if spot is None:
            return
        x, y = spot
        half = (0.56, 0.5) if upright else (0.5, 0.56)
        for place in (0, 2):
            node = (x, y + place) if upright else (x + place, y)
            self._pad(node, half, ((6, 2) if upright else (4, 0))[place // 2])
        places: list[Point] = (
            [(x + 0.9, y + 0.6), (x - 2.6, y + 0.6)] if upright else [(x + 0.2, y + 0.9), (x + 0.2, y - 1.6)]
        )
        self._name(str(self.rng.choice(("R", "C", "L", "D"))), *places)

    def lettering(self) -> None:
        """A word etched in copper."""
        word = str(self.rng.choice(WORDS))
        height = 1.2 + 0.4 * float(self.rng.random())
        columns = int(len(word) * height) + 2
        spot = self._spot(columns, 3)
        if spot is None:
            return
        x, y = spot
        self._block(x, y, x + columns - 1, y + 2)
        self._names.append((x, y, x + columns, y + 3.0))
        self.layout.lettering += strokes(word, x + 0.4, y + 0.3, height)

    def _outline(self, box: Box) -> None:
        """A package's outline on the silk screen, and a dot at its first pin."""
        self._bodies.append(box)
        x0, y0, x1, y1 = box
        self.layout.silk.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        self.layout.silk.append([(x0 + 0.4, y0 + 0.4), (x0 + 0.45, y0 + 0.4)])
        edge = 0.15
        self._names += [
            (x0, y0 - edge, x1, y0 + edge), (x0, y1 - edge, x1, y1 + edge),
            (x0 - edge, y0, x0 + edge, y1), (x1 - edge, y0, x1 + edge, y1),
        ]  # fmt: skip

    def _name(self, letters: str, *places: Point) -> None:
        """A designator on the silk screen, at the first of ``places`` where nothing is in its way."""
        height = 0.72
        text = letters + str(self._number(1, 99))
        wide = len(text) * height
        for x, y in places:
            box = (x - 0.1, y - 0.1, x + wide, y + height + 0.1)
            if not any(_meet(box, other) for other in self._names) and not any(
                abs(pad.centre[0] - x - wide / 2) < wide / 2 + pad.half[0]
                and abs(pad.centre[1] - y - height / 2) < height / 2 + pad.half[1]
                for pad in self.layout.pads
            ):
                self._names.append(box)
                self.layout.silk += strokes(text, x, y, height)
                return


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
