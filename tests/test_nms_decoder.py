"""``ovyolo._nms.HeadDecoder``, kept from picture to picture, and the memory of its candidates."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from reference import decode_numpy as twin
from reference.kernel_cases import assert_same, random_values

from ovyolo import _nms


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("max_nms", [480, 481, 484, 496, 1505, 1510])
def test_memory_that_can_grow_by_less_than_a_group_is_not_overrun(multi_label: bool, max_nms: int) -> None:
    """Candidates come in eights or more; their memory grows to 1024, 3072, … and ends at twice max_nms and 64."""
    head = np.abs(random_values(np.random.default_rng(14), (1, 9, 60, 60), "smooth")) + 1
    kwargs: dict[str, Any] = {"conf": 0.01, "iou": 1.0, "max_det": 9999, "max_nms": max_nms, "multi_label": multi_label}
    theirs = twin.decode_nms([head], [[[20, 20]]], [8], 4, **kwargs)
    assert len(theirs[0]) == max_nms and theirs[3]
    assert_same(_nms.decode_nms([head], [[[20, 20]]], [8], 4, **kwargs), theirs)


def test_a_kept_decoder_gives_each_picture_what_a_call_of_its_own_gives() -> None:
    rng = np.random.default_rng(12)
    mask = rng.random(7) < 0.7
    anchors = rng.uniform(9, 60, (2, 2, 2))
    kwargs: dict[str, Any] = {"conf": 0.05, "iou": 0.45, "multi_label": True, "class_mask": mask}
    decode = _nms.HeadDecoder(anchors, [8, 16], 7, **kwargs)
    pictures = []
    for rows in (9, 1, 30):  # one decoder takes heads of any size
        heads = [random_values(rng, (1, 2 * 12, rows, columns), "smooth") for columns in (20, 10)]
        heads[0][0, 4, :, 3] = np.nan
        transform = (0.5, 0.5, 1.0, 2.0, 300.0, 200.0) if rows > 1 else None
        theirs = twin.decode_nms(heads, anchors, [8, 16], 7, transform=transform, **kwargs)
        pictures.append((heads, transform, theirs))
    assert all(len(theirs[0]) > 3 and theirs[4] > 0 for *_, theirs in pictures)
    kept = mask.copy()
    mask[:] = ~mask  # it has copied the mask
    anchors *= 2
    for heads, transform, theirs in [*pictures, *pictures[::-1]]:
        assert_same(decode(heads, transform), theirs)
    assert_same(decode(tuple(pictures[1][0])), pictures[1][2])
    kwargs["class_mask"], anchors = kept, anchors / 2
    assert_same(_nms.decode_nms(pictures[1][0], anchors, [8, 16], 7, **kwargs), pictures[1][2])


def test_one_decoder_serves_many_threads() -> None:
    rng = np.random.default_rng(13)
    decode = _nms.HeadDecoder([[[20, 20]]], [8], 3, conf=0.02, iou=0.6, multi_label=True)
    pictures = [[random_values(rng, (1, 8, 60, 60), "smooth")] for _ in range(8)]
    expected = [decode(heads) for heads in pictures]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(30):
            found = decode(pictures[number])
            if any(not np.array_equal(a, b) for a, b in zip(found, expected[number], strict=True)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(found[0]) > 50 for found in expected) and not wrong
