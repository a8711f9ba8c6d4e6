"""The pictures that ranges are measured on: kept apart from those that the result is judged by, and looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovyolo.dataset import DataSet, Problem
from ovyolo.errors import DataError, ImageError
from ovyolo.letterbox import letterbox

__all__ = ["FEW", "Calibration", "choose_calibration", "file_hash"]

FEW = 16
FLAT_DEVIATION = 4.0  # grey levels
Place = tuple[Path, int]  # a picture (-1) or a frame of a video


@dataclass(frozen=True, eq=False)
class Calibration:
    """Letterboxed calibration pictures and where they are from.

    Args:
        pictures: u8 ``(H, W, 3)`` each.
        source: what the user named.
        places: the files, and the frame of a video.
        digest: SHA-256 over the pictures' contents.
        warnings: sentences on what is wrong with them.
        problems: files that were left out.
    """

    pictures: Sequence[NDArray[np.uint8]]
    source: str
    places: tuple[Place, ...]
    digest: str
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def to_dict(self) -> dict[str, Any]:
        """Provenance: count, source, hash."""
        return {"source": self.source, "pictures": len(self), "sha256": self.digest, "warnings": list(self.warnings)}


@dataclass
class _Choice:
    """Pictures that may be used, and what happened to the validation set."""

    places: list[Place]
    source: str
    dataset: DataSet
    warnings: list[str] = field(default_factory=list)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def choose_calibration(
    dataset: DataSet,
    imgsz: tuple[int, int],
    *,
    data: Path,
    split: str = "train",
    sources: Sequence[str | Path] | None = None,
    count: int = 128,
    skip_bad: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[Calibration, DataSet]:
    """Choose, read and look at the calibration pictures.

    Args:
        dataset: what the result will be judged by; no picture of it is used, compared by path and by content. Where
            the two are the same set, it is halved, by content, and calibration takes the other half.
        imgsz: ``(height, width)`` of the network's input.
        data: the ``data.yaml``, or a COCO ``.json`` (which has no other split: ``sources`` is needed then, or it is
            halved).
        split: the split of ``data`` to take pictures from.
        sources: pictures, folders, videos, patterns or lists to take instead.
        count: at most so many, evenly spread.
        skip_bad: go on without pictures that cannot be read.
        tell: called with the number of pictures read.

    Returns:
        The pictures, and the data set to judge by.

    Raises:
        DataError: there are no pictures, or some cannot be read.
    """
    choice = _from_sources(sources, dataset) if sources else _from_split(data, split, dataset)
    choice = _kept_apart(choice)
    places = _spread(choice.places, count)
    pictures, flat, problems = _read(places, imgsz, tell)
    if problems and not skip_bad:
        listed = "; ".join(map(str, problems[:10])) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise DataError(
            f"{len(problems)} calibration picture(s) from {choice.source} cannot be used: {listed}. Mend them, or go "
            "on without them with --skip-bad (skip_bad=True)"
        )
    kept = [place for place in places if place in pictures]
    if not kept:
        raise DataError(f"{choice.source} has no pictures to calibrate with: name others with --calib")
    images = [pictures[place] for place in kept]
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    calibration = Calibration(
        pictures=images,
        source=choice.source,
        places=tuple(kept),
        digest=hashlib.sha256("".join(digests).encode()).hexdigest(),
        warnings=(*choice.warnings, *_doubts(len(images), flat, digests)),
        problems=tuple(problems),
    )
    return calibration, choice.dataset


def _from_sources(sources: Sequence[str | Path], dataset: DataSet) -> _Choice:
    """Every picture named, and for videos the frames."""
    from ovyolo.io.listing import Listing, is_video
    from ovyolo.io.sources import open_source

    listing = Listing(skip=False)
    listing.add([str(source) for source in sources])
    places: list[Place] = []
    for item in listing.items:
        if not isinstance(item, Path):
            continue
        if is_video(item):
            with open_source(str(item)) as video:
                places += [(item, frame) for frame in range(video.total or 0)]
        else:
            places.append((item, -1))
    return _Choice(places, ", ".join(map(str, sources)), dataset)


def _from_split(data: Path, split: str, dataset: DataSet) -> _Choice:
    """The pictures of a split; of the validation set itself where there is no such split."""
    from ovyolo.dataset import read_data_yaml
    from ovyolo.dataset.yolo import list_pictures

    if dataset.coco:
        return _Choice([(item.path, -1) for item in dataset.items], f"{data}", dataset)
    description = read_data_yaml(data)
    if split not in description.splits:
        choice = _Choice([(item.path, -1) for item in dataset.items], f"{data} ({dataset.split})", dataset)
        choice.warnings.append(f"{data} describes no `{split}` pictures to calibrate with")
        return choice
    paths, problems = list_pictures(description, split)
    if problems:
        first = "; ".join(map(str, problems[:10]))
        raise DataError(f"{len(problems)} picture(s) of {data} ({split}) are missing: {first}")
    return _Choice([(path, -1) for path in paths], f"{data} ({split})", dataset)


def _kept_apart(choice: _Choice) -> _Choice:
    """Leave out what is in the validation set; halve that where nothing would be left."""
    sizes = {item.path.stat().st_size for item in choice.dataset.items}
    judged = {item.path.resolve(): index for index, item in enumerate(choice.dataset.items)}
    contents: dict[str, int] = {}
    suspects = [
        path
        for path, frame in choice.places
        if frame < 0 and (path.resolve() in judged or (path.is_file() and path.stat().st_size in sizes))
    ]
    if suspects:
        contents = {file_hash(item.path): index for index, item in enumerate(choice.dataset.items)}
    shared = {path for path in suspects if path.resolve() in judged or file_hash(path) in contents}
    if not shared:
        return choice
    apart = [place for place in choice.places if place[0] not in shared]
    if len(apart) >= min(FEW, len(shared)):
        choice.warnings.append(
            f"{len(shared)} picture(s) of {choice.source} are in the validation set, too, and did not calibrate"
        )
        choice.places = apart
        return choice
    if len(choice.dataset) < 2:
        raise DataError(f"{choice.dataset} has too few pictures to calibrate and judge with: name others with --calib")
    order = sorted(contents, key=lambda digest: digest)
    halves = [[contents[digest] for digest in order[begin::2]] for begin in (0, 1)]
    items = choice.dataset.items
    choice.warnings.append(
        f"CAUTION: the pictures of {choice.source} are those of the validation set: it was halved, "
        f"{len(halves[0])} pictures calibrate and only the other {len(halves[1])} judge, so the figures are of fewer "
        "pictures; name other pictures to calibrate with (--calib) to judge by all"
    )
    choice.places = [(items[index].path, -1) for index in sorted(halves[0])]
    choice.source = f"{choice.source}, half"
    choice.dataset = choice.dataset.subset(sorted(halves[1]))
    return choice


def _spread(places: list[Place], count: int) -> list[Place]:
    """At most ``count``, evenly spread; pictures before frames of videos."""
    stills = [place for place in places if place[1] < 0]
    frames = [place for place in places if place[1] >= 0]

    def some(all_of: list[Place], number: int) -> list[Place]:
        if number >= len(all_of):
            return all_of
        if number < 1:
            return []
        return [all_of[i] for i in np.linspace(0, len(all_of) - 1, number).round().astype(int).tolist()]

    taken = some(stills, count)
    return [*taken, *some(frames, count - len(taken))]


def _read(
    places: list[Place], imgsz: tuple[int, int], tell: Callable[[int], None]
) -> tuple[dict[Place, NDArray[np.uint8]], int, list[Problem]]:
    """Letterboxed pictures by place, how many of them are of one colour, and what could not be read."""
    from ovyolo.io.images import read_image
    from ovyolo.io.sources import open_source

    pictures: dict[Place, NDArray[np.uint8]] = {}
    problems: list[Problem] = []
    flat = 0
    wanted: dict[Path, set[int]] = {}
    for path, frame in places:
        if frame >= 0:
            wanted.setdefault(path, set()).add(frame)
            continue
        try:
            image = read_image(path)
            flat += _is_flat(image)
            pictures[path, frame] = letterbox(image, imgsz)[0]
        except ImageError as error:
            problems.append(Problem(path, str(error).removeprefix(str(path)).strip()))
        tell(len(pictures))
    for path, numbers in wanted.items():
        try:
            with open_source(str(path)) as video:
                for one in video:
                    if one.index in numbers:
                        flat += _is_flat(one.image)
                        pictures[path, one.index] = letterbox(one.image, imgsz)[0]
                        tell(len(pictures))
                    if one.index >= max(numbers):
                        break
        except ImageError as error:
            problems.append(Problem(path, str(error).removeprefix(str(path)).strip()))
    return pictures, flat, problems


def _is_flat(image: NDArray[np.uint8]) -> bool:
    """Whether a picture is of one colour, but for noise."""
    return float(image.std(axis=(0, 1)).max()) < FLAT_DEVIATION


def _doubts(count: int, flat: int, digests: list[str]) -> list[str]:
    """Signs that these pictures say little about those that the camera will send."""
    doubts = []
    if flat:
        doubts.append(
            f"{'CAUTION: ' if flat > count // 10 else ''}{flat} of the {count} calibration pictures are of one colour: "
            "ranges measured on them are too narrow for real pictures"
        )
    if repeated := count - len(set(digests)):
        doubts.append(f"{repeated} of the {count} calibration pictures are repetitions of others")
    if count < FEW:
        doubts.append(f"only {count} calibration pictures: 100 or more, of all that will be seen, are better")
    return doubts
