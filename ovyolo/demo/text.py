"""Lettering for boards: a stroke font of our own, so that text is the same with every version of OpenCV."""

from __future__ import annotations

__all__ = ["GLYPHS", "strokes"]

# strokes of points "xy" on a field 4 wide and 6 high, y downwards; "|" lifts the pen
GLYPHS = {
    "0": "10 30 41 45 36 16 05 01 10|41 05", "1": "11 20 26|16 36", "2": "01 10 30 41 42 06 46",
    "3": "00 40 22 32 43 45 36 16 05", "4": "36 30 04 44", "5": "40 00 02 32 43 45 36 16 05",
    "6": "30 10 01 05 16 36 45 44 33 03", "7": "00 40 16", "8": "10 30 41 42 33 13 02 01 10|13 04 05 16 36 45 44 33",
    "9": "43 13 02 01 10 30 41 45 36 16", "A": "06 02 20 42 46|04 44", "B": "00 06 36 45 44 33 03|33 42 41 30 00",
    "C": "41 30 10 01 05 16 36 45", "D": "00 06 26 44 42 20 00", "E": "40 00 06 46|03 33", "F": "40 00 06|03 33",
    "G": "41 30 10 01 05 16 36 45 43 23", "H": "00 06|40 46|03 43", "I": "10 30|20 26|16 36", "J": "40 45 36 16 05",
    "K": "00 06|40 03 46", "L": "00 06 46", "M": "06 00 23 40 46", "N": "06 00 46 40",
    "O": "10 30 41 45 36 16 05 01 10",
    "P": "06 00 30 41 42 33 03", "Q": "10 30 41 45 36 16 05 01 10|24 46", "R": "06 00 30 41 42 33 03|23 46",
    "S": "41 30 10 01 02 13 33 44 45 36 16 05", "T": "00 40|20 26", "U": "00 05 16 36 45 40", "V": "00 26 40",
    "W": "00 16 23 36 40", "X": "00 46|40 06", "Y": "00 23 40|23 26", "Z": "00 40 06 46",
    "-": "13 33", "+": "13 33|22 24",
    ".": "26 25", "/": "06 40", " ": "",
}  # fmt: skip


def strokes(text: str, x: float, y: float, height: float) -> list[list[tuple[float, float]]]:
    """The polylines of ``text`` with its upper left corner at ``(x, y)``, in the units of ``height``.

    Example:
        >>> strokes("1", 0, 0, 6)
        [[(1.0, 1.0), (2.0, 0.0), (2.0, 6.0)], [(1.0, 6.0), (3.0, 6.0)]]
    """
    unit = height / 6
    lines = []
    for place, letter in enumerate(text):
        left = x + place * 6 * unit
        lines += [
            [(left + int(point[0]) * unit, y + int(point[1]) * unit) for point in stroke.split()]
            for stroke in GLYPHS[letter].split("|")
            if stroke
        ]
    return lines
