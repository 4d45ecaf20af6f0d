"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.geometry import Box, TimeSpan
from pixelis.train.losses import box_loss, generalized_iou, select, span_loss, temporal_iou, token_ce, token_loss, token_loss_sum

HALVES_NV = torch.tensor([[0.5, 0.25, 0.125, 0.125]] * 2).log()
"""Surprises of 1, 2, 3 and 3 bits: 9 bits over the whole vocabulary of 4."""

BIT = math.log(2)
NAN, INF = float("nan"), float("inf")


def test_token_loss_by_hand():
    target_N, weight_N = torch.tensor([0, 2]), torch.tensor([1.0, 2.0])
    # Smoothing 0.2: 0.8 of the target's own bits and 0.2 / 4 of all 9: 0.8 * 1 + 0.45 = 1.25 and 0.8 * 3 + 0.45 = 2.85 bits.
    assert token_ce(HALVES_NV, target_N, smoothing=0.2).tolist() == pytest.approx([1.25 * BIT, 2.85 * BIT], rel=1e-6)
    assert token_loss(HALVES_NV, target_N, weight_N, smoothing=0.2).item() == pytest.approx((1.25 + 2 * 2.85) / 3 * BIT, rel=1e-6)
    assert token_loss(HALVES_NV, target_N, weight_N, smoothing=0.0).item() == pytest.approx((1 + 2 * 3) / 3 * BIT, rel=1e-6)
    # The default, 0.05: 0.95 * 1 + 0.0125 * 9 = 1.0625 bits.
    assert token_loss(HALVES_NV[:1], target_N[:1], weight_N[:1]).item() == pytest.approx(1.0625 * BIT, rel=1e-6)


def test_token_loss_pushes_the_target_up():
    logits_NV = torch.zeros(1, 4, requires_grad=True)
    token_loss(logits_NV, torch.tensor([1]), torch.tensor([2.0]), smoothing=0.0).backward()
    assert logits_NV.grad.tolist() == [[0.25, -0.75, 0.25, 0.25]]  # softmax minus one-hot; a weight shared by all cancels


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_to_learn_is_exactly_zero_with_gradient_zero(rows):
    logits_NV = torch.full((rows, 4), NAN, requires_grad=True)
    loss = token_loss(logits_NV, torch.zeros(rows, dtype=torch.long), torch.zeros(rows))
    loss.backward()
    assert loss.item() == 0.0 and logits_NV.grad.tolist() == [[0.0] * 4] * rows


def test_garbage_where_nothing_is_learnt_reaches_neither_loss_nor_gradient():
    logits_NV = torch.cat([HALVES_NV, torch.tensor([[NAN, INF, -INF, 0.0]])]).requires_grad_()
    loss = token_loss(logits_NV, torch.tensor([0, 2, -1]), torch.tensor([1.0, 2.0, 0.0]), smoothing=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(6.95 / 3 * BIT, rel=1e-6)
    assert logits_NV.grad[2].tolist() == [0.0] * 4 and logits_NV.grad[:2].abs().sum() > 0


def test_half_precision_logits_are_summed_in_single():
    logits_NV = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    target_N = torch.arange(64)
    loss = token_loss(logits_NV, target_N, torch.ones(64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(token_loss(logits_NV.double(), target_N, torch.ones(64)).item(), rel=1e-6)


def test_chunks_add_up():
    logits_NV = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    target_N, weight_N = torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([1.0, 2, 0, 1, 2, 1, 0])
    parts = [token_loss_sum(logits_NV[i : i + 3], target_N[i : i + 3], weight_N[i : i + 3]) for i in range(0, 7, 3)]
    assert (sum(parts) / 7).item() == pytest.approx(token_loss(logits_NV, target_N, weight_N).item(), rel=1e-6)


def test_select_takes_what_is_learnt_and_never_a_first_token():
    row_N, at_N = select(torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 2.0]]))
    assert (row_N.tolist(), at_N.tolist()) == ([0, 1, 1], [2, 1, 3])
    with pytest.raises(ValueError, match="first token"):
        select(torch.tensor([[1.0, 1.0]]))
    assert [len(part) for part in select(torch.zeros(2, 0))] == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=6), st.integers(0, 9))
def test_loss_is_blind_to_padding(num_pads, weights, seed):
    """A padded batch and one without, both through `select`, whatever stands in the padding."""
    rng = torch.Generator().manual_seed(seed)
    length = len(weights) + 1
    weight_BT = torch.tensor([[0.0, *weights]])
    logits_BTV, ids_BT = torch.randn(1, length, 6, generator=rng), torch.randint(6, (1, length), generator=rng)
    pad = torch.nn.functional.pad
    losses = [
        token_loss(logits[row, at - 1], ids[row, at], weight[row, at]).item()
        for logits, ids, weight in (
            (logits_BTV, ids_BT, weight_BT),
            (pad(logits_BTV, (0, 0, 0, num_pads), value=NAN), pad(ids_BT, (0, num_pads)), pad(weight_BT, (0, num_pads))),
        )
        for row, at in [select(weight)]
    ]
    assert losses[0] == losses[1]


# ---------------------------------------------------------------- boxes and spans


@pytest.mark.parametrize(
    ("a", "b", "giou", "loss"),
    [
        # Shared 1/16 of a union of 7/16, hull 9/16: 1/7 - 2/9 = -5/63. Every side is off by 1/4.
        ([0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], -5 / 63, 1 + 1 + 5 / 63),
        # Two columns apart: nothing shared, half of the hull uncovered; two sides off by 3/4.
        ([0, 0, 0.25, 1], [0.75, 0, 1, 1], -0.5, 1.5 + 1.5),
        # One inside the other: 1/4 of it, hull and union the same; two sides off by 1/2.
        ([0, 0, 0.5, 0.5], [0, 0, 1, 1], 0.25, 1 + 0.75),
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], 1, 0),
        # A point in the middle of a box: nothing shared, hull and union the same.
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], 0, 2 + 1),
        # An inverted box is empty; so is the hull's second half.
        ([0.75, 0, 0.25, 1], [0, 0, 1, 1], 0, 1.5 + 1),
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 0, 1),
    ],
)
def test_box_loss_by_hand(a, b, giou, loss):
    a, b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    assert generalized_iou(a, b).item() == pytest.approx(giou, abs=1e-12)
    assert box_loss(a, b).item() == pytest.approx(loss, abs=1e-12)
    assert box_loss(b, a).item() == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "tiou", "loss"),
    [
        ([0, 0.5], [0.25, 0.75], 1 / 3, 0.5 + 2 / 3),
        ([0, 0.25], [0.5, 1], 0, 1.25 + 1),
        ([0.2, 0.6], [0.2, 0.6], 1, 0),
        ([0.3, 0.3], [0.3, 0.3], 1, 0),  # one and the same instant
        ([0.3, 0.3], [0.4, 0.4], 0, 0.2 + 1),
        ([0.3, 0.3], [0, 1], 0, 1 + 1),
        ([0.75, 0.25], [0, 1], 0, 1.5 + 1),  # inverted
    ],
)
def test_span_loss_by_hand(a, b, tiou, loss):
    a, b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    assert temporal_iou(a, b).item() == pytest.approx(tiou, abs=1e-12)
    assert span_loss(a, b).item() == pytest.approx(loss, abs=1e-12)


def test_one_loss_a_pair():
    assert box_loss(torch.zeros(3, 4), torch.zeros(3, 4)).shape == span_loss(torch.zeros(3, 2), torch.zeros(3, 2)).shape == (3,)
    assert box_loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


UNIT = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))
BOX, SPAN = st.tuples(UNIT, UNIT, UNIT, UNIT), st.tuples(UNIT, UNIT)


@settings(max_examples=200, deadline=None)
@given(BOX, BOX)
def test_box_loss_is_bounded_and_its_gradient_finite(a, b):
    pred, target = torch.tensor([a], dtype=torch.float64, requires_grad=True), torch.tensor([b], dtype=torch.float64)
    giou = generalized_iou(pred, target)
    assert -1 - 1e-9 <= giou.item() <= 1 + 1e-9
    assert giou.item() == pytest.approx(generalized_iou(target, pred).item(), abs=1e-12)
    box_loss(pred, target).sum().backward()
    assert torch.isfinite(pred.grad).all()


@settings(max_examples=200, deadline=None)
@given(SPAN, SPAN)
def test_span_loss_is_bounded_and_its_gradient_finite(a, b):
    pred, target = torch.tensor([a], dtype=torch.float64, requires_grad=True), torch.tensor([b], dtype=torch.float64)
    loss = span_loss(pred, target)
    assert -1e-9 <= loss.item() <= 3 + 1e-9
    loss.sum().backward()
    assert torch.isfinite(pred.grad).all()


SIDES = st.lists(st.integers(0, 100), min_size=2, max_size=2, unique=True).map(sorted)


@given(SIDES, SIDES, SIDES, SIDES)
def test_overlaps_agree_with_those_of_geometry(x, y, u, v):
    """In an enclosing hull of area H, GIoU is IoU - (H - union) / H; IoU itself is what `Box.iou` says."""
    a, b = (Box(p[0] / 100, q[0] / 100, p[1] / 100, q[1] / 100) for p, q in ((x, y), (u, v)))
    hull = (max(x[1], u[1]) - min(x[0], u[0])) * (max(y[1], v[1]) - min(y[0], v[0])) / 1e4
    union = a.area + b.area - a.intersect(b).area
    pair = [torch.tensor([box.as_tuple()], dtype=torch.float64) for box in (a, b)]
    assert generalized_iou(*pair).item() == pytest.approx(a.iou(b) - (hull - union) / hull, abs=1e-9)
    spans = [torch.tensor([[s[0] / 100, s[1] / 100]], dtype=torch.float64) for s in (x, u)]
    expected = TimeSpan(x[0] / 100, x[1] / 100).tiou(TimeSpan(u[0] / 100, u[1] / 100))
    assert temporal_iou(*spans).item() == pytest.approx(expected, abs=1e-9)
