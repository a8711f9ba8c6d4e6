"""Synthetic circuit boards with labelled defects: pictures for tests, demonstrations and training, made offline."""

from ovyolo.demo.boards import CLASSES, Board, draw_board, make_board
from ovyolo.demo.dataset import make_dataset

__all__ = ["CLASSES", "Board", "draw_board", "make_board", "make_dataset"]
