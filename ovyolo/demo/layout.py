"""What lies on a board, in units of the routing grid: pads, traces, silk screen. No pixels yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ovyolo.demo.text import strokes

__all__ = ["Layout", "Pad", "Point", "Trace", "random_layout"]

Point = tuple[float, float]


@dataclass(frozen=True)
class Pad:
    """A pad or a via.

    Args:
        net: the number of its net, from 1.
        centre: in grid units, as everything here.
        half: half its width and height; a round one has them equal.
        round: a circle instead of a rectangle.
        drill: radius of its hole; 0 for none.
        covered: whether solder mask covers it.
    """

    net: int
    centre: Point
    half: tuple[float, float]
    round: bool = False
    drill: float = 0.0
    covered: bool = False


@dataclass(frozen=True)
class Trace:
    """A copper track along ``points``, every bend of 45 degrees."""

    net: int
    points: tuple[Point, ...]
    width: float


@dataclass
class Layout:
    """A board of ``columns`` by ``rows`` grid nodes; two nets never touch.

    ``lettering`` is text in copper (not a net), ``silk`` are polylines of the silk screen, ``bare`` the free rectangles
    (x0, y0, x1, y1) that a copper pour may not cover.
    """

    columns: int
    rows: int
    pads: list[Pad] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    silk: list[list[Point]] = field(default_factory=list)
    lettering: list[list[Point]] = field(default_factory=list)
    nets: int = 0


STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


class _Router:
    """Which net holds which grid node. Nodes of pads also forbid diagonals past their corners."""

    def __init__(self, rng: np.random.Generator, layout: Layout, width: float) -> None:
        self.rng, self.layout, self.width = rng, layout, width
        self.held = [[0] * layout.columns for _ in range(layout.rows)]
        self.pads = [[False] * layout.columns for _ in range(layout.rows)]

    def net(self) -> int:
        self.layout.nets += 1
        return self.layout.nets

    def inside(self, x: int, y: int) -> bool:
        return 0 <= x < self.layout.columns and 0 <= y < self.layout.rows

    def hold(self, net: int, nodes: list[tuple[int, int]], pad: bool = False) -> None:
        for x, y in nodes:
            if self.inside(x, y):
                self.held[y][x] = net
                self.pads[y][x] |= pad

    def free(self, x0: int, y0: int, x1: int, y1: int) -> bool:
        """Whether no node of the rectangle, borders included, is held."""
        if x0 < 0 or y0 < 0 or x1 >= self.layout.columns or y1 >= self.layout.rows:
            return False
        return not any(any(row[x0 : x1 + 1]) for row in self.held[y0 : y1 + 1])

    def passable(self, x: int, y: int, dx: int, dy: int, net: int, wide: bool) -> bool:
        """Whether a track of ``net`` may go from node (x, y) one step on."""
        nx, ny = x + dx, y + dy
        if not self.inside(nx, ny) or self.held[ny][nx] not in (0, net):
            return False
        if dx and dy:
            a, b = self.held[y][nx], self.held[ny][x]
            if (a and a == b) or self.pads[y][nx] or self.pads[ny][x] or (wide and (a or b)):
                return False
        if wide:
            for sx, sy in STEPS[::2]:
                if self.inside(nx + sx, ny + sy) and self.pads[ny + sy][nx + sx] and self.held[ny + sy][nx + sx] != net:
                    return False
        return True

    def walk(self, start: tuple[int, int], plan: list[tuple[int, int]], net: int, wide: bool = False) -> tuple[list[tuple[int, int]], bool]:
        """Go ``plan``, pairs of a direction and a number of steps, from ``start``; the nodes, and whether it got through."""
        x, y = start
        nodes = [start]
        for direction, count in plan:
            dx, dy = STEPS[direction % 8]
            for _ in range(count):
                if not self.passable(x, y, dx, dy, net, wide):
                    return nodes, not self.inside(x + dx, y + dy)
                x, y = x + dx, y + dy
                if (x, y) in nodes:
                    return nodes, False
                nodes.append((x, y))
        return nodes, True

    def lay(self, net: int, nodes: list[tuple[int, int]], width: float) -> None:
        """Make a trace along ``nodes``, keeping only its bends."""
        self.hold(net, nodes, pad=width > self.width)
        points = [nodes[0]]
        for before, here, after in zip(nodes, nodes[1:], nodes[2:], strict=False):
            if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
                points.append(here)
        points.append(nodes[-1])
        self.layout.traces.append(Trace(net, tuple((float(x), float(y)) for x, y in points), width))

    def via(self, net: int, node: tuple[int, int]) -> None:
        """End a trace with a via."""
        radius = self.width * 0.5 + 0.16 + 0.08 * float(self.rng.random())
        self.hold(net, [node], pad=True)
        self.layout.pads.append(
            Pad(net, (float(node[0]), float(node[1])), (radius, radius), True, radius * 0.48, self.rng.random() < 0.5)
        )

    def roomy(self, node: tuple[int, int], net: int) -> bool:
        """Whether a via fits: no foreign pad beside it, no foreign diagonal cuts its corner."""
        x, y = node
        for dx, dy in STEPS:
            if self.inside(x + dx, y + dy) and self.held[y + dy][x + dx] not in (0, net):
                if self.pads[y + dy][x + dx]:
                    return False
                if dx == 0 or dy == 0:
                    # two neighbours of one net at right angles: a diagonal may run between them
                    for tx, ty in ((dy, dx), (-dy, -dx)):
                        if self.inside(x + tx, y + ty) and self.held[y + ty][x + tx] == self.held[y + dy][x + dx]:
                            return False
        return True

    def escape(self, net: int, start: tuple[int, int], direction: int, width: float, plan: list[tuple[int, int]] | None = None) -> bool:
        """Lead a net away from ``start``, as far as it goes, and end in a via or beyond the board's edge."""
        rng = self.rng
        for _ in range(4):
            turn = int(rng.choice((-1, 0, 1)))
            path = plan or [
                (direction, 1 + int(rng.integers(1, 5))), (direction + turn, int(rng.integers(1, 6))),
                (direction + turn * int(rng.integers(0, 3)), int(rng.integers(2, 14))),
            ]  # fmt: skip
            nodes, through = self.walk(start, path, net, width > self.width)
            left = not (0 < nodes[-1][0] < self.layout.columns - 1 and 0 < nodes[-1][1] < self.layout.rows - 1)
            while not left and len(nodes) > 3 and not (self.held[nodes[-1][1]][nodes[-1][0]] == 0 and self.roomy(nodes[-1], net)):
                nodes.pop()
            if len(nodes) > 3 or left and len(nodes) > 2:
                self.lay(net, nodes, width)
                if not left:
                    self.via(net, nodes[-1])
                return True
            plan = None
        return False


def random_layout(rng: np.random.Generator, columns: int, rows: int) -> Layout:
    """Place footprints, lead their pins away, then fill the rest with buses and links between vias."""
    layout = Layout(columns, rows)
    router = _Router(rng, layout, 0.26 + 0.16 * float(rng.random()))
    area = columns * rows
    pins: list[tuple[int, tuple[int, int], int]] = []
    for _ in range(1 + area // 160):
        place = (_dual, _quad, _dual, _header, _grid)[int(rng.integers(5))]
        pins += place(router)
    for _ in range(2 + area // 60):
        pins += _chip(router)
    _lettering(router)
    shared: dict[int, list[tuple[int, int]]] = {}
    for net, start, direction in pins:
        if rng.random() < 0.12:
            continue
        if direction not in shared or rng.random() < 0.2:
            turn = int(rng.choice((-1, 1)))
            shared[direction] = [
                (direction, int(rng.integers(2, 6))), (direction + turn, int(rng.integers(2, 7))),
                (direction + int(rng.choice((0, 2))) * turn, int(rng.integers(3, 20))),
            ]  # fmt: skip
        width = router.width * (1.5 if rng.random() < 0.1 else 1.0)
        router.escape(net, start, direction, width, shared[direction])
    for _ in range(2 + area // 150):
        _bus(router)
    for _ in range(area // 8):
        x, y = int(rng.integers(1, columns - 1)), int(rng.integers(1, rows - 1))
        if router.free(x - 1, y - 1, x + 1, y + 1):
            net = router.net()
            if router.escape(net, (x, y), int(rng.integers(8)), router.width * float(rng.choice((1.0, 1.0, 1.5)))):
                router.via(net, (x, y))
    return layout


def _spot(router: _Router, width: int, height: int) -> tuple[int, int] | None:
    """A free place for a footprint of so many nodes, with a node to spare around it."""
    for _ in range(6):
        x = int(router.rng.integers(1, max(2, router.layout.columns - width - 1)))
        y = int(router.rng.integers(1, max(2, router.layout.rows - height - 1)))
        if router.free(x - 1, y - 1, x + width, y + height):
            return x, y
    return None


def _name(router: _Router, letters: str, x: float, y: float) -> None:
    """A reference designator on the silk screen."""
    text = letters + str(int(router.rng.integers(1, 99)))
    router.layout.silk += strokes(text, x, y, 0.75)


def _row(router: _Router, x: int, y: int, count: int, along: tuple[int, int], out: int) -> list[tuple[int, tuple[int, int], int]]:
    """A row of surface-mount pins whose traces leave in direction ``out``."""
    pins = []
    dx, dy = STEPS[out]
    half = (0.28, 0.72) if dx == 0 else (0.72, 0.28)
    for i in range(count):
        node = (x + i * along[0], y + i * along[1])
        net = router.net()
        router.layout.pads.append(Pad(net, (float(node[0]), float(node[1])), half))
        router.hold(net, [node, (node[0] + dx, node[1] + dy), (node[0] - dx, node[1] - dy)], pad=True)
        pins.append((net, node, out))
    return pins


def _dual(router: _Router) -> list[tuple[int, tuple[int, int], int]]:
    """A package with two rows of pins."""
    count, span = int(router.rng.integers(3, 9)), int(router.rng.integers(4, 7))
    upright = router.rng.random() < 0.5
    spot = _spot(router, *((span + 3, count) if upright else (count, span + 3)))
    if spot is None:
        return []
    x, y = spot
    if upright:
        x += 1
        pins = _row(router, x, y, count, (0, 1), 4) + _row(router, x + span, y, count, (0, 1), 0)
        box = (x + 1.0, y - 0.4, x + span - 1.0, y + count - 0.6)
    else:
        y += 1
        pins = _row(router, x, y, count, (1, 0), 6) + _row(router, x, y + span, count, (1, 0), 2)
        box = (x - 0.4, y + 1.0, x + count - 0.6, y + span - 1.0)
    _outline(router, box, notch=True)
    _name(router, "U", (box[0] + box[2]) / 2 - 1.0, (box[1] + box[3]) / 2 - 0.4)
    return pins


def _quad(router: _Router) -> list[tuple[int, tuple[int, int], int]]:
    """A package with pins on four sides."""
    count = int(router.rng.integers(4, 8))
    side = count + 3
    spot = _spot(router, side + 2, side + 2)
    if spot is None:
        return []
    x, y = spot[0] + 1, spot[1] + 1
    first, last = 2, side - 1
    pins = _row(router, x + first, y, count, (1, 0), 6) + _row(router, x + first, y + side, count, (1, 0), 2)
    pins += _row(router, x, y + first, count, (0, 1), 4) + _row(router, x + side, y + first, count, (0, 1), 0)
    middle = (x + side / 2, y + side / 2)
    if router.rng.random() < 0.6 and side > 7:
        half = side / 2 - 2.2
        net = router.net()
        router.layout.pads.append(Pad(net, middle, (half, half)))
    router.hold(router.net(), [(i, j) for i in range(x + 2, x + side - 1) for j in range(y + 2, y + side - 1)], pad=True)
    _outline(router, (x + 1.0, y + 1.0, x + side - 1.0, y + side - 1.0), notch=False)
    _name(router, "U", x + last - 0.5, y - 0.9)
    return pins


def _header(router: _Router) -> list[tuple[int, tuple[int, int], int]]:
    """A row of drilled pins."""
    count = int(router.rng.integers(2, 7))
    rows = int(router.rng.integers(1, 3))
    spot = _spot(router, 2 * count + 1, 2 * rows + 1)
    if spot is None:
        return []
    x, y = spot[0] + 1, spot[1] + 1
    pins = []
    radius = 0.45 + 0.1 * float(router.rng.random())
    for j in range(rows):
        for i in range(count):
            node = (x + 2 * i, y + 2 * j)
            net = router.net()
            square = i == j == 0
            router.layout.pads.append(Pad(net, (float(node[0]), float(node[1])), (radius, radius), not square, radius * 0.55))
            router.hold(net, [node], pad=True)
            pins.append((net, node, 6 if j == 0 else 2))
    _outline(router, (x - 0.9, y - 0.9, x + 2 * count - 1.1, y + 2 * rows - 1.1), notch=False)
    _name(router, "J", x - 0.8, y - 1.9)
    return pins


def _grid(router: _Router) -> list[tuple[int, tuple[int, int], int]]:
    """A ball grid: round pads, two nodes apart."""
    count = int(router.rng.integers(3, 6))
    spot = _spot(router, 2 * count, 2 * count)
    if spot is None:
        return []
    x, y = spot[0] + 1, spot[1] + 1
    pins = []
    for j in range(count):
        for i in range(count):
            node = (x + 2 * i, y + 2 * j)
            net = router.net()
            router.layout.pads.append(Pad(net, (float(node[0]), float(node[1])), (0.44, 0.44), True))
            router.hold(net, [node], pad=True)
            pins.append((net, node, int(router.rng.choice((1, 3, 5, 7)))))
    _outline(router, (x - 0.9, y - 0.9, x + 2 * count - 1.1, y + 2 * count - 1.1), notch=False)
    _name(router, "U", x - 0.8, y - 1.9)
    return pins


def _chip(router: _Router) -> list[tuple[int, tuple[int, int], int]]:
    """A resistor or a capacitor."""
    upright = router.rng.random() < 0.5
    spot = _spot(router, *((2, 4) if upright else (4, 2)))
    if spot is None:
        return []
    x, y = spot
    pins = []
    for end in (0, 2):
        node = (x, y + end) if upright else (x + end, y)
        net = router.net()
        half = (0.56, 0.5) if upright else (0.5, 0.56)
        router.layout.pads.append(Pad(net, (float(node[0]), float(node[1])), half))
        router.hold(net, [node], pad=True)
        pins.append((net, node, ((6, 2) if upright else (4, 0))[end // 2]))
    router.hold(router.net(), [(x, y + 1) if upright else (x + 1, y)], pad=True)
    _name(router, str(router.rng.choice(("R", "C", "L", "D"))), *((x + 0.9, y + 0.6) if upright else (x + 0.2, y + 0.9)))
    return pins


def _outline(router: _Router, box: tuple[float, float, float, float], notch: bool) -> None:
    """A package's outline on the silk screen, and a dot at its first pin."""
    x0, y0, x1, y1 = box
    router.layout.silk.append([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
    if notch:
        router.layout.silk.append([(x0 + 0.4, y1 - 0.4), (x0 + 0.45, y1 - 0.4)])


def _bus(router: _Router) -> None:
    """Parallel traces right across the board, with the same bends."""
    rng, layout = router.rng, router.layout
    direction = int(rng.choice((0, 2)))
    count = int(rng.integers(3, 8))
    start = int(rng.integers(1, (layout.rows if direction == 0 else layout.columns) - 1))
    turn = int(rng.choice((-1, 1)))
    plan = [(direction, int(rng.integers(2, 12))), (direction + turn, int(rng.integers(1, 7))), (direction, 99)]
    for i in range(count):
        node = (0, start + i) if direction == 0 else (start + i, 0)
        if router.inside(*node) and not router.held[node[1]][node[0]]:
            router.escape(router.net(), node, direction, router.width, plan)


def _lettering(router: _Router) -> None:
    """A word etched in copper."""
    rng = router.rng
    if rng.random() > 0.4:
        return
    word = str(rng.choice(("TOP", "REV B", "L1", "GND", "2V5", "OVY-7", "BOT", "ETCH")))
    height = 1.3
    columns = int(len(word) * height) + 2
    spot = _spot(router, columns, 3)
    if spot is None:
        return
    x, y = spot
    router.hold(router.net(), [(x + i, y + j) for i in range(columns) for j in range(3)], pad=True)
    router.layout.lettering += strokes(word, x + 0.4, y + 0.35, height)
