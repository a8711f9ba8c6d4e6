"""A whole board at random: footprints first, then traces."""

from __future__ import annotations

import numpy as np

from ovyolo.demo.footprints import Placer
from ovyolo.demo.layout import Layout
from ovyolo.demo.routing import Pin, Plan, Router

__all__ = ["random_layout"]


def random_layout(rng: np.random.Generator, columns: int, rows: int) -> Layout:
    """Place footprints, connect or lead away their pins, then fill the rest with buses and links between vias."""
    layout = Layout(columns, rows)
    router = Router(rng, layout, 0.3 + 0.13 * float(rng.random()))
    placer = Placer(router)
    area = columns * rows
    for _ in range(1 + area // 150):
        placer.large()
    for _ in range(2 + area // 55):
        placer.chip()
    if rng.random() < 0.4:
        placer.lettering()
    _connect(router, placer.pins)
    for _ in range(2 + area // 120):
        _bus(router)
    for _ in range(area // 4):
        _stray(router)
    return layout


def _connect(router: Router, pins: list[Pin]) -> None:
    """Link pins that are near each other, and lead the others away; neighbours go the same way."""
    rng = router.rng
    done: set[int] = set()
    for i, pin in enumerate(pins):
        if i in done or rng.random() < 0.4:
            continue
        for j in rng.integers(0, len(pins), 6).tolist():
            other = pins[j]
            far = abs(pin.node[0] - other.node[0]) + abs(pin.node[1] - other.node[1])
            if j != i and j not in done and 2 < far < 24 and router.link(pin, other):
                done |= {i, j}
                break
    shared: dict[int, Plan] = {}
    for i, pin in enumerate(pins):
        if i in done or rng.random() < 0.06:
            continue
        if pin.out % 2:  # a ball: a short diagonal, then a via or a channel between the others
            axis = pin.out + int(rng.choice((-1, 1)))
            plan = [(pin.out, 1)] if rng.random() < 0.5 else [(pin.out, 1), (axis, int(rng.integers(3, 18)))]
            router.escape(pin.net, pin.node, plan, least=1)
            continue
        if pin.out not in shared or rng.random() < 0.2:
            shared[pin.out] = _way(rng, pin.out)
        wide = bool(rng.random() < 0.12)
        for plan in (shared[pin.out], _way(rng, pin.out), _way(rng, pin.out)):
            if router.escape(pin.net, pin.node, plan, wide):
                break


def _way(rng: np.random.Generator, out: int) -> Plan:
    """A way outward with two bends at most."""
    a, b, c, d = rng.integers(0, 1 << 16, 4).tolist()
    turn = 1 if d & 1 else -1
    last = turn if d % 6 < 2 else 0
    return [(out, 2 + a % 4), (out + turn, b % 7), (out + 2 * last, 2 + c % 18)]


def _bus(router: Router) -> None:
    """Parallel traces right across the board, with the same bends."""
    rng, layout = router.rng, router.layout
    direction = int(rng.choice((0, 2)))
    start = int(rng.integers(1, (layout.rows if direction == 0 else layout.columns) - 1))
    turn = int(rng.choice((-1, 1)))
    plan = [(direction, int(rng.integers(2, 12))), (direction + turn, int(rng.integers(1, 7))), (direction, 99)]
    for i in range(int(rng.integers(3, 8))):
        node = (0, start + i) if direction == 0 else (start + i, 0)
        if router.inside(*node) and not router.held[node[1]][node[0]]:
            router.escape(router.net(), node, plan)


def _stray(router: Router) -> None:
    """A link between two vias somewhere, where there is room."""
    rng, layout = router.rng, router.layout
    a, b, out = rng.integers(0, 1 << 16, 3).tolist()
    x, y = 1 + a % (layout.columns - 2), 1 + b % (layout.rows - 2)
    if router.held[y][x] or not router.roomy((x, y), 0):
        return
    net = router.net()
    if router.escape(net, (x, y), _way(rng, out % 8), wide=bool(rng.random() < 0.3)):
        router.via(net, (x, y))
