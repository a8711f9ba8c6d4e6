"""Traces on a grid: at 0, 45 and 90 degrees, never nearer to another net than the grid allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ovyolo.demo.layout import Layout, Pad, Trace

__all__ = ["STEPS", "Pin", "Router"]

Node = tuple[int, int]
Plan = list[tuple[int, int]]

STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""The eight directions, clockwise from the right (y points down). Odd ones are diagonals."""

WIDE = 1.5  # a power trace, in widths of an ordinary one


@dataclass
class Pin:
    """A pad that a trace may lead away from: its net, node, direction outward, and the nodes that it holds."""

    net: int
    node: Node
    out: int
    nodes: list[Node]
    pad: Pad


class Router:
    """Which net holds which node of the grid, and how traces find their way between.

    Args:
        rng: source of chance.
        layout: what is routed is added to it.
        width: of an ordinary trace; at most 0.44, so that two that pass at 45 degrees keep a gap.
    """

    def __init__(self, rng: np.random.Generator, layout: Layout, width: float) -> None:
        self.rng, self.layout, self.width = rng, layout, width
        self.held = [[0] * layout.columns for _ in range(layout.rows)]
        # nodes of pads and of wide traces: no diagonal passes their corners, and no via lies beside them
        self.broad = [[False] * layout.columns for _ in range(layout.rows)]

    def net(self) -> int:
        """A new net number."""
        self.layout.nets += 1
        return self.layout.nets

    def inside(self, x: int, y: int) -> bool:
        return 0 <= x < self.layout.columns and 0 <= y < self.layout.rows

    def hold(self, net: int, nodes: Iterable[Node], broad: bool = False) -> None:
        """Give nodes to a net."""
        for x, y in nodes:
            if self.inside(x, y):
                self.held[y][x] = net
                self.broad[y][x] |= broad

    def free(self, x0: int, y0: int, x1: int, y1: int) -> bool:
        """Whether the rectangle, ends included, lies on the board and no net holds a node of it."""
        if x0 < 0 or y0 < 0 or x1 >= self.layout.columns or y1 >= self.layout.rows:
            return False
        return not any(any(row[x0 : x1 + 1]) for row in self.held[y0 : y1 + 1])

    def passable(self, x: int, y: int, step: Node, nets: tuple[int, ...], wide: bool) -> bool:
        """Whether a trace that belongs to ``nets`` may go one step on from node (x, y)."""
        dx, dy = step
        nx, ny = x + dx, y + dy
        if not self.inside(nx, ny) or (self.held[ny][nx] and self.held[ny][nx] not in nets):
            return False
        if dx and dy:
            a, b = self.held[y][nx], self.held[ny][x]
            if (a and a == b) or self.broad[y][nx] or self.broad[ny][x] or (wide and (a or b)):
                return False
        if wide:
            for sx, sy in STEPS[::2]:
                if (
                    self.inside(nx + sx, ny + sy)
                    and self.broad[ny + sy][nx + sx]
                    and self.held[ny + sy][nx + sx] not in nets
                ):
                    return False
        return True

    def walk(self, start: Node, plan: Plan, nets: tuple[int, ...], wide: bool = False) -> list[Node]:
        """The nodes along ``plan``, pairs of a direction and a number of steps, as far as they are free."""
        x, y = start
        nodes = [start]
        for direction, count in plan:
            step = STEPS[direction % 8]
            for _ in range(count):
                if not self.passable(x, y, step, nets, wide):
                    return nodes
                x, y = x + step[0], y + step[1]
                if (x, y) in nodes:
                    return nodes
                nodes.append((x, y))
        return nodes

    def lay(self, net: int, nodes: list[Node], wide: bool = False) -> None:
        """Make a trace along ``nodes``; only its bends are kept."""
        self.hold(net, nodes, broad=wide)
        points = [nodes[0]]
        for before, here, after in zip(nodes, nodes[1:], nodes[2:], strict=False):
            if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
                points.append(here)
        points.append(nodes[-1])
        width = self.width * (WIDE if wide else 1.0)
        self.layout.traces.append(Trace(net, tuple((float(x), float(y)) for x, y in points), width))

    def via(self, net: int, node: Node) -> None:
        """Put a via on a node."""
        radius = min(0.45, self.width * 0.5 + 0.16 + 0.08 * float(self.rng.random()))
        self.hold(net, [node], broad=True)
        centre = (float(node[0]), float(node[1]))
        covered = bool(self.rng.random() < 0.5)
        self.layout.pads.append(Pad(net, centre, (radius, radius), True, radius * 0.48, covered))

    def roomy(self, node: Node, net: int) -> bool:
        """Whether a via fits: nothing broad beside it, and no diagonal cuts its corner."""
        x, y = node
        beside = []
        for dx, dy in STEPS[::2]:
            inside = self.inside(x + dx, y + dy)
            holder = self.held[y + dy][x + dx] if inside else 0
            if inside and holder not in (0, net) and self.broad[y + dy][x + dx]:
                return False
            beside.append(0 if holder == net else holder)
        return not any(a and a == b for a, b in zip(beside, beside[1:] + beside[:1], strict=True))

    def at_edge(self, node: Node) -> bool:
        x, y = node
        return not (0 < x < self.layout.columns - 1 and 0 < y < self.layout.rows - 1)

    def escape(self, net: int, start: Node, plan: Plan, wide: bool = False, least: int = 3) -> bool:
        """Lead a net away as far as ``plan`` goes, to a via or over the board's edge; False when it got nowhere."""
        nodes = self.walk(start, plan, (net,), wide)
        while len(nodes) > least and not self.at_edge(nodes[-1]):
            x, y = nodes[-1]
            if not self.held[y][x] and self.roomy((x, y), net):
                break
            nodes.pop()
        if len(nodes) <= least:
            return False
        self.lay(net, nodes, wide)
        if not self.at_edge(nodes[-1]):
            self.via(net, nodes[-1])
        return True

    def link(self, a: Pin, b: Pin) -> bool:
        """Connect two pins that have no trace yet by a straight, a diagonal and a straight piece."""
        dx, dy = b.node[0] - a.node[0], b.node[1] - a.node[1]
        diagonal, straight = min(abs(dx), abs(dy)), abs(abs(dx) - abs(dy))
        slanted = STEPS.index((1 if dx > 0 else -1, 1 if dy > 0 else -1))
        level = STEPS.index(((dx > 0) - (dx < 0), 0) if abs(dx) > abs(dy) else (0, (dy > 0) - (dy < 0)))
        for first in {straight, straight // 2, 0}:
            plan = [(level, first), (slanted, diagonal), (level, straight - first)]
            nodes = self.walk(a.node, plan, (a.net, b.net))
            if nodes[-1] == b.node and len(nodes) > 2:
                self.hold(a.net, b.nodes)
                self.lay(a.net, nodes)
                b.pad.net = b.net = a.net
                return True
        return False
