"""Wider steps for weights: small enough, least harm, held while training, and really in the file."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: training with quantizers is not tested")
pytest.importorskip("nncf", reason="NNCF is not installed: training with quantizers is not tested")

from reference.tiny_network import tiny_network, tiny_pictures  # noqa: E402

from ovyolo.compress.forms import form_of  # noqa: E402
from ovyolo.compress.head_error import head_error  # noqa: E402
from ovyolo.compress.qat.check import stored_weights  # noqa: E402
from ovyolo.compress.qat.compensate import in_floating_point  # noqa: E402
from ovyolo.compress.qat.insert import insert_quantizers, picture_tensors  # noqa: E402
from ovyolo.compress.qat.quantizers import PairGuard  # noqa: E402
from ovyolo.compress.qat.sparsify import sparsify  # noqa: E402
from ovyolo.compress.qat.widen import WIDTHS, choose_widths, harms_of, zipped_sizes  # noqa: E402
from ovyolo.dataset import load_dataset  # noqa: E402
from ovyolo.errors import TargetError  # noqa: E402
from ovyolo.io.images import read_image  # noqa: E402
from ovyolo.letterbox import letterbox  # noqa: E402
from ovyolo.train.fusing import fuse_batch_norms  # noqa: E402
from ovyolo.train.network import load_network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = tiny_pictures(4)


@pytest.fixture(scope="module")
def network() -> Any:
    return fuse_batch_norms(tiny_network(width=16))


@pytest.fixture(scope="module")
def quantized(network: Any) -> Any:
    return insert_quantizers(network, picture_tensors(PICTURES))


@pytest.fixture(scope="module")
def card(network: Any) -> Any:
    return form_of(network, (64, 64))[1]


layers = st.lists(
    st.tuples(st.integers(200, 5000), st.floats(1e-6, 10.0), st.floats(0.02, 0.08)), min_size=1, max_size=8
)


@given(layers, st.floats(0.0, 1.2))
def test_they_fit_and_none_is_wider_than_it_must_be(layers: Any, share: float) -> None:
    sizes = {str(i): [round(n * (1 - slope * j)) for j in range(len(WIDTHS))] for i, (n, _, slope) in enumerate(layers)}
    harms = {str(i): harm for i, (_, harm, _) in enumerate(layers)}
    whole, least = (sum(size[at] for size in sizes.values()) for at in (0, -1))
    limit = share * whole
    if least > limit:
        with pytest.raises(TargetError, match="widest steps"):
            choose_widths(sizes, harms, limit)
        return
    widths = choose_widths(sizes, harms, limit)
    at = {name: WIDTHS.index(width) for name, width in widths.items()}
    taken = sum(sizes[name][at[name]] for name in at)
    assert taken <= limit and (whole > limit or set(widths.values()) == {1.0})
    # the last step that was taken was needed
    assert not any(at.values()) or any(
        taken - sizes[name][i] + sizes[name][i - 1] > limit for name, i in at.items() if i
    )


def test_harm_grows_with_the_square_and_sizes_with_the_logarithm() -> None:
    sizes = {name: range(11000, 0, -1000) for name in ("tough", "frail")}
    widths = choose_widths(sizes, {"tough": 1.0, "frail": 16.0}, 14000)
    assert widths["tough"] == 4 * widths["frail"]


def test_where_nothing_is_seen_steps_grow_alike() -> None:
    sizes = {"large": range(90000, 0, -8000), "small": range(9000, 0, -800)}
    widths = choose_widths(sizes, dict.fromkeys(sizes, 0.0), 60000)
    assert max(widths.values()) / min(widths.values()) < 1.5


def test_sizes_are_those_of_the_file(quantized: Any) -> None:
    sizes = zipped_sizes(quantized)
    assert all(list(size) == sorted(size, reverse=True) for size in sizes.values())
    widths = {name: WIDTHS[i % len(WIDTHS)] for i, name in enumerate(sizes)}
    network = copy.deepcopy(quantized)
    assert PairGuard(network, widths)() == sum(width > 1 for width in widths.values())
    stored = stored_weights(form_of(network, (64, 64))[0])
    for name, width in widths.items():
        weights = stored[name.removesuffix(".weight").removesuffix(".conv")]
        assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= np.ceil(127 / width)
        if name.startswith("model.0."):
            continue  # its colours are stored the other way round
        assert len(zlib.compress(weights.tobytes())) == sizes[name][WIDTHS.index(width)]


def test_harms_are_of_the_rounding_alone_and_leave_the_network_as_it_is(quantized: Any, card: Any) -> None:
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    done: list[int] = []
    harms = harms_of(quantized, PICTURES, card, done.append)
    assert done == list(range(1, len(harms) + 1)) and harms.keys() == zipped_sizes(quantized).keys()
    assert all(0 < harm < 1 for harm in harms.values())
    assert all(torch.equal(before[name], value) for name, value in quantized.state_dict().items())


def test_chosen_widths_do_less_harm_than_the_same_for_all(card: Any) -> None:
    """On the average of several networks of random weights: of a single one the error may be half or more, by luck."""
    networks = [fuse_batch_norms(tiny_network(seed, width=16)) for seed in range(5)]
    assert np.log([harm_compared(one, card, PICTURES, 2.0) for one in networks]).mean() < np.log(0.9)


@pytest.mark.slow
def test_on_a_trained_network_too(shared: Path) -> None:
    trained = fuse_batch_norms(load_network(shared / "weights" / "yolov5n-deeppcb.pt").eval())
    dataset = load_dataset(shared / "deeppcb" / "data.yaml", "val", limit=3)
    pictures = [letterbox(read_image(item.path), (640, 640))[0] for item in dataset.items]
    assert harm_compared(trained, form_of(trained, (640, 640))[1], pictures, 4.0) < 0.5


def harm_compared(network: Any, card: Any, pictures: Any, width: float) -> float:
    """The error with chosen widths over that with ``width`` everywhere, for one size."""
    quantized = insert_quantizers(network, picture_tensors(pictures[:2]))
    sizes = zipped_sizes(quantized)
    limit = sum(size[WIDTHS.index(width)] for size in sizes.values())
    chosen = choose_widths(sizes, harms_of(quantized, pictures, card), limit)
    expected = raw_heads(network, pictures)

    def error(widths: Any) -> float:
        rounded = in_floating_point(quantized)
        weights = dict(rounded.named_parameters())
        with torch.no_grad():
            for layer in PairGuard(quantized).layers:
                step = layer.least(widths[layer.name]) / 127
                weights[layer.name].copy_((layer.weight() / step).round() * step)
        return head_error(card, expected, raw_heads(rounded, pictures)).total

    return error(chosen) / error(dict.fromkeys(sizes, width))


def raw_heads(network: Any, pictures: Any) -> Any:
    with torch.no_grad():
        return [[head.numpy() for head in network(x)] for x in picture_tensors(pictures)]


def test_masked_weights_count_as_zeros(network: Any, card: Any) -> None:
    dense = sum(size[0] for size in zipped_sizes(insert_quantizers(network, picture_tensors(PICTURES))).values())
    sparse = insert_quantizers(sparsify(network, 0.6), picture_tensors(PICTURES))
    assert sum(size[0] for size in zipped_sizes(sparse).values()) < 0.75 * dense
    assert all(harm > 0 for harm in harms_of(sparse, PICTURES, card).values())
    PairGuard(sparse, dict.fromkeys(zipped_sizes(sparse), 4.0))()
    stored = stored_weights(form_of(sparse, (64, 64))[0]).values()
    assert sum((weights == 0).sum() for weights in stored) >= 0.6 * sum(weights.size for weights in stored)


def test_training_keeps_them(quantized: Any) -> None:
    student, widths = copy.deepcopy(quantized), dict.fromkeys(zipped_sizes(quantized), 4.0)
    guard = PairGuard(student, widths)
    guard()
    optimizer = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=0.01)
    batch = torch.cat(picture_tensors(PICTURES))
    for _ in range(3):
        sum(head.square().mean() for head in student.train()(batch)).backward()
        optimizer.step()
        guard()
    assert all(bool((layer.quantizer.scale >= 4 * layer.least()).all()) for layer in guard.layers)
