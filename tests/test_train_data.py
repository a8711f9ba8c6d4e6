"""Training data: the same samples whatever the workers, order and restarts; nothing left out; nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.fresh import run_python

from ovyolo.dataset import DataSet, load_dataset
from ovyolo.errors import DataError, DimensionError, ImageError, OvyoloWarning
from ovyolo.letterbox import letterbox
from ovyolo.train.augment import Augment
from ovyolo.train.data import Batch, TrainingPictures, batch_sizes
from ovyolo.train.picture_cache import PictureCache

STRONG = Augment(degrees=5, mixup=0.3, copy_paste=0.3)
COUNT = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Noisy pictures of several sizes with white objects on them."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part / "train").mkdir(parents=True)
    for index in range(COUNT):
        height, width = [(90, 120), (120, 90), (64, 64), (40, 100)][index % 4]
        image = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        lines = []
        for kind in range(index % 3):
            x, y = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
            image[y : y + 16, x : x + 20] = 255
            lines.append(f"{kind} {(x + 10) / width} {(y + 8) / height} {20 / width} {16 / height}")
        cv2.imwrite(str(folder / "images" / "train" / f"{index:02}.png"), image)
        (folder / "labels" / "train" / f"{index:02}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "data.yaml").write_text("train: images/train\nnames: [a, b, c]\n", encoding="utf-8")
    return load_dataset(folder / "data.yaml", "train").checked()


def same(one: Any, other: Any) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def epoch_of(data: TrainingPictures, *arguments: Any, **more: Any) -> list[Batch]:
    return list(data.batches(*arguments, **more))


# ----------------------------------------------------------------------------------------------------------- samples


def test_without_augmentation_it_is_the_letterboxed_picture(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, (64, 96))
    for index, item in enumerate(dataset.items):
        image, boxes, class_id = data.sample(0, index)
        expected, fit = letterbox(cv2.imread(str(item.path)), (64, 96))
        np.testing.assert_array_equal(image, expected)
        gain, _, left, top, _, _ = fit.transform
        moved = item.boxes * gain + [left, top, left, top]
        np.testing.assert_allclose(boxes, moved, atol=1)  # whole pixels of size and padding
        np.testing.assert_array_equal(class_id, item.class_id)
        assert class_id.dtype == np.int64 and boxes.dtype == np.float32 and image.dtype == np.uint8


def test_boxes_lie_on_their_pixels(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, (75, 111))
    for index in range(len(data)):
        image, boxes, _ = data.sample(0, index)
        if len(boxes) == 1:
            mask = image.min(axis=2) > 172  # half way between the noise and white
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(boxes[0], found, atol=1)


def test_chance_comes_from_seed_epoch_and_index_only(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, 64, STRONG, seed=5)
    samples = [data.sample(2, index) for index in range(len(data))]
    again = TrainingPictures(dataset, 64, STRONG, seed=5, cache="none")
    for index in reversed(range(len(data))):
        same(again.sample(2, index), samples[index])
    others = [data.sample(3, 4), data.sample(2, 5), TrainingPictures(dataset, 64, STRONG, seed=6).sample(2, 4)]
    for other in others:
        assert (other.image != samples[4].image).any()


def test_the_same_pictures_augmented_otherwise(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, 64, STRONG)
    plain = data.varied(None)
    same(plain.sample(0, 3), TrainingPictures(dataset, 64).sample(0, 3))
    assert plain.cache is data.cache and data.augment is STRONG


def test_crowds_are_no_objects(dataset: DataSet) -> None:
    items = [replace(item, crowd=np.ones(len(item), bool)) for item in dataset.items]
    data = TrainingPictures(replace(dataset, items=tuple(items)), 64)
    assert all(len(data.sample(0, index).boxes) == 0 for index in range(len(data)))


# ------------------------------------------------------------------------------------------------------------ batches


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 70))
def test_batches_use_all_and_are_not_of_one(pictures: int, batch_size: int) -> None:
    sizes = batch_sizes(pictures, batch_size)
    assert sum(sizes) == pictures and all(size > 0 for size in sizes)
    assert max(sizes, default=0) <= max(batch_size, 3 if batch_size == 2 else 0)
    if batch_size > 1 and pictures > 1:
        assert min(sizes) > 1
    assert len(sizes) in (-(-pictures // batch_size), pictures // batch_size)


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_workers_change_nothing(dataset: DataSet, workers: int) -> None:
    data = TrainingPictures(dataset, (64, 96), STRONG, seed=1)
    order = data.order(4)
    place = 0
    for pictures, targets in data.batches(4, 4, workers):
        assert pictures.shape[1:] == (64, 96, 3) and pictures.dtype == np.uint8 and targets.dtype == np.float32
        for row, picture in enumerate(pictures):
            image, boxes, class_id = data.sample(4, int(order[place]))
            mine = targets[targets[:, 0] == row]
            np.testing.assert_array_equal(picture, image)
            np.testing.assert_array_equal(mine[:, 1], class_id)
            np.testing.assert_allclose(mine[:, 2:4] - mine[:, 4:] / 2, boxes[:, :2], atol=1e-4)
            np.testing.assert_allclose(mine[:, 2:4] + mine[:, 4:] / 2, boxes[:, 2:], atol=1e-4)
            place += 1
    assert place == COUNT


def test_an_epoch_goes_on_where_it_was_left(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, 64, STRONG)
    whole = epoch_of(data, 1, 3)
    assert len(whole) == data.batch_count(3) == 4
    for start in range(6):
        rest = epoch_of(data, 1, 3, start=start)
        assert len(rest) == max(0, 4 - start)
        for one, other in zip(rest, whole[start:], strict=True):
            same(one, other)


def test_orders_and_shards(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, 64)
    assert sorted(data.order(0).tolist()) == list(range(COUNT))
    assert data.order(0).tolist() != data.order(1).tolist()
    for world in (2, 3, 4, 11, 25):
        shards = [data.order(7, rank, world) for rank in range(world)]
        assert {len(shard) for shard in shards} == {-(-COUNT // world)}  # else one process would wait for ever
        assert set(np.concatenate(shards).tolist()) == set(range(COUNT))
        counts = [len(epoch_of(data, 7, 2, 0, rank, world)) for rank in range(world)]
        assert set(counts) == {data.batch_count(2, world)}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ovyolo-data")]


def test_leaving_early_ends_the_threads(dataset: DataSet) -> None:
    before = cv2.getNumThreads()
    data = TrainingPictures(dataset, 64, STRONG)
    for _ in data.batches(0, 2, 3):
        assert threads() and cv2.getNumThreads() == 1
        break
    assert not threads() and cv2.getNumThreads() == before
    first, second = data.batches(0, 2, 1), data.batches(1, 2, 1)
    assert cv2.getNumThreads() == before
    next(first), next(second)
    first.close()
    assert cv2.getNumThreads() == 1
    second.close()
    assert cv2.getNumThreads() == before
    batches = data.batches(0, 2, 3)
    next(batches)
    with pytest.raises(KeyboardInterrupt):
        batches.throw(KeyboardInterrupt())
    assert not threads()
    assert cv2.getNumThreads() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send itself a Ctrl-C")
def test_ctrl_c_while_waiting(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingPictures(dataset, 64)
    sample = data.sample
    monkeypatch.setattr(data, "sample", lambda epoch, index: time.sleep(0.2) or sample(epoch, index))
    begin = time.monotonic()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(data.batches(0, 11, 1))
    assert time.monotonic() - begin < 1.5 and not threads()  # all eleven would have taken longer


def test_few_batches_are_made_ahead(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    data = TrainingPictures(dataset, 64)
    sample = data.sample
    monkeypatch.setattr(data, "sample", lambda epoch, index: made.append(index) or sample(epoch, index))
    batches = data.batches(0, 1, 2)
    next(batches)
    time.sleep(0.3)
    assert len(made) == 4  # the one given out, and three
    batches.close()


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def spoilt(dataset: DataSet, tmp_path: Path) -> DataSet:
    """The data set with a copy of its picture 6 that tests may spoil."""
    path = tmp_path / "spoilt.png"
    path.write_bytes(dataset.items[6].path.read_bytes())
    items = list(dataset.items)
    items[6] = replace(items[6], path=path)
    return replace(dataset, items=tuple(items))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_spoilt_pictures_are_named(spoilt: DataSet, workers: int, harm: str) -> None:
    path = spoilt.items[6].path
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    else:
        cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    data = TrainingPictures(spoilt, 64)
    batches = data.batches(0, 2, workers)
    place = data.order(0).tolist().index(6) // 2
    given = []
    with pytest.raises(
        (ImageError, DataError), match=r"spoilt\.png (does not exist|is a PNG that is cut|is now 20x20)"
    ):
        for batch in batches:
            given.append(batch)
    assert len(given) == place and not threads()


def test_arguments_are_checked(dataset: DataSet) -> None:
    data = TrainingPictures(dataset, 64)
    wrong: list[tuple[Any, str]] = [
        (lambda: TrainingPictures(dataset, 0), "imgsz"),
        (lambda: TrainingPictures(dataset, 64, seed=-1), "seed is -1"),
        (lambda: TrainingPictures(dataset, 64, cache="tape"), "cache is 'tape'"),
        (lambda: TrainingPictures(dataset, 64, budget=-1), "budget is -1"),
        (lambda: data.batches(0, 0), "batch_size is 0"),
        (lambda: data.batches(0, 2, -1), "workers is -1"),
        (lambda: data.batches(-1, 2), "epoch is -1"),
        (lambda: data.batches(0, 2, start=-1), "start is -1"),
        (lambda: data.batches(0, 2, rank=2, world=2), "rank is 2 of 2"),
        (lambda: data.sample(0, COUNT), "no sample 11"),
        (lambda: data.sample(0, -1), "no sample -1"),
    ]
    for call, said in wrong:
        with pytest.raises(DimensionError, match=said):
            call()
    with pytest.raises(DataError, match="no pictures to train on"):
        TrainingPictures(replace(dataset, items=()), 64)


# -------------------------------------------------------------------------------------------------------------- cache


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are read from now on."""
    from ovyolo.io.images import read_image

    read: list[str] = []
    monkeypatch.setattr(
        "ovyolo.train.picture_cache.read_image", lambda path: read.append(path.name) or read_image(path)
    )
    return read


def test_memory_holds_what_fits(dataset: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    read = reads(monkeypatch)
    whole = PictureCache(dataset, (64, 64))
    for _ in range(2):
        pictures = [whole(index) for index in range(COUNT)]
    assert len(read) == COUNT and whole.used == sum(picture.image.nbytes for picture in pictures)
    read.clear()
    half = PictureCache(dataset, (64, 64), budget=whole.used // 2)
    for _ in range(2):
        for index in range(COUNT):
            same(half(index), pictures[index])
    assert whole.used // 4 < half.used <= whole.used // 2
    assert COUNT < len(read) < 2 * COUNT
    with pytest.raises(ValueError, match="read-only"):
        pictures[0].image[:] = 0


def test_disk_holds_it_for_the_next_run(spoilt: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = reads(monkeypatch)
    folder = tmp_path / "cache" / "pictures"
    first = [PictureCache(spoilt, (64, 64), "disk", folder=folder)(index) for index in range(COUNT)]
    assert len(read) == COUNT == len(list(folder.iterdir()))
    read.clear()
    again = PictureCache(spoilt, (64, 64), "disk", folder=folder)
    for index in range(COUNT):
        same(again(index), first[index])
    assert not read
    for damaged, content in zip(sorted(folder.iterdir())[:3], (b"", b"\x93NUMPY", b"x" * 500), strict=True):
        damaged.write_bytes(content)
    for index in range(COUNT):
        same(again(index), first[index])
    assert len(read) == 3
    monkeypatch.setenv("OVYOLO_CACHE_DIR", str(tmp_path / "cache"))
    same(TrainingPictures(spoilt, 64, cache="disk").sample(0, 1), TrainingPictures(spoilt, 64).sample(0, 1))
    assert len(list(folder.iterdir())) == COUNT  # by default it is the same folder
    path = spoilt.items[6].path  # another picture in the same place
    cv2.imwrite(str(path), np.full((*spoilt.items[6].size, 3), 7, np.uint8))
    assert (again(6).image == 7).all()


def test_a_disk_that_takes_no_more(dataset: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = PictureCache(dataset, (64, 64), "disk", folder=tmp_path / "file" / "folder")
    with pytest.warns(OvyoloWarning, match="takes no more cached pictures") as told:
        pictures = [cache(index) for index in range(COUNT)]
    assert len(told) == 1
    same(pictures[3], PictureCache(dataset, (64, 64))(3))


def test_data_needs_no_torch() -> None:
    code = "import sys, ovyolo.train.data, ovyolo.train.anchors; print(*{m.split('.')[0] for m in sys.modules})"
    assert not {"torch", "nncf", "openvino"} & set(run_python(code).split())


@pytest.mark.slow
def test_real_pictures(shared: Path) -> None:
    data = TrainingPictures(load_dataset(shared / "deeppcb" / "data.yaml", "train").checked(), 640, Augment())
    pictures, targets = next(data.batches(0, 16, 2))
    assert pictures.shape == (16, 640, 640, 3) and len(targets) > 16
