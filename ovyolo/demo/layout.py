"""What lies on a board, in units of the routing grid: pads, traces, text. No pixels yet."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Layout", "Pad", "Point", "Trace"]

Point = tuple[float, float]


@dataclass
class Pad:
    """A pad or a via.

    Args:
        net: the number of its net, from 1.
        centre: in grid units, as everything here.
        half: half its width and height; a round one has them equal.
        round: a circle instead of a rectangle.
        drill: radius of its hole; 0 for none.
        covered: whether solder mask may cover it.
    """

    net: int
    centre: Point
    half: tuple[float, float]
    round: bool = False
    drill: float = 0.0
    covered: bool = False


@dataclass(frozen=True)
class Trace:
    """A copper track along ``points``; its bends are of 45 degrees."""

    net: int
    points: tuple[Point, ...]
    width: float


@dataclass
class Layout:
    """A board of ``columns`` by ``rows`` grid nodes. Every net is a tree, and two nets never touch.

    ``silk`` are polylines of the silk screen, ``lettering`` those of text in copper, which is no net; ``nets`` is how
    many net numbers were given out.
    """

    columns: int
    rows: int
    pads: list[Pad] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    silk: list[list[Point]] = field(default_factory=list)
    lettering: list[list[Point]] = field(default_factory=list)
    nets: int = 0
