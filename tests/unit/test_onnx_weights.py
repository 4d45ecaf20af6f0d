"""Subnormal weights become zeros, nothing else changes, and the detector answers as before."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelis.tools.engines.ocr_models import DETECTOR, RECOGNISER, model_path
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.onnx_weights import _float_weights, without_subnormals

TINY = float(np.finfo(np.float32).tiny)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def counted(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(raw: bytes, *, data_type: int = 1) -> bytes:
    """dims, data_type, name, raw_data of a TensorProto, and fields of the fixed kinds that a reader has to step over."""
    fixed = varint(100 << 3 | 5) + b"\x01\x00\x00\x00" + varint(101 << 3 | 1) + b"\x01" + bytes(7)
    return b"\x08\x80\x01" + varint(2 << 3) + varint(data_type) + fixed + counted(8, b"weight") + counted(9, raw)


def model(*tensors: bytes) -> bytes:
    """ir_version and the graph of a ModelProto; the graph has a node before its initialisers."""
    return b"\x08\x07" + counted(7, counted(1, b"\x0a\x01x") + b"".join(counted(5, each) for each in tensors))


def test_only_subnormal_floats_become_zero():
    given_F = np.array([1.0, 1e-40, -1e-45, TINY, -TINY, 0.0, -0.0, TINY / 2, np.inf, np.nan], "<f4")
    wanted_F = np.array([1.0, 0.0, -0.0, TINY, -TINY, 0.0, -0.0, 0.0, np.inf, np.nan], "<f4")
    integers = struct.pack("<4i", 1, 2, 3, 4)  # as floats they would be subnormal
    others = tensor(integers, data_type=6)
    assert without_subnormals(model(tensor(given_F.tobytes()), others)) == model(tensor(wanted_F.tobytes()), others)


@given(st.lists(st.binary(max_size=64).map(lambda raw: raw[: len(raw) // 4 * 4]), max_size=4))
def test_whatever_the_weights_only_they_change(raws):
    before = model(*map(tensor, raws))
    after = without_subnormals(before)
    assert len(after) == len(before) and without_subnormals(after) == after
    for (start, end), raw in zip(_float_weights(before), raws, strict=True):
        assert before[start:end] == raw
        was, now = (np.frombuffer(some[start:end], "<f4") for some in (before, after))
        is_kept = ~(np.abs(was) < TINY)
        assert was[is_kept].tobytes() == now[is_kept].tobytes() and not now[~is_kept].any()


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"\x0b", lambda b: b + b"\x80", lambda b: b"\x3a\x7f" + b])
def test_what_is_no_model_is_refused(damage):
    with pytest.raises(ValueError, match="no protobuf message"):
        without_subnormals(damage(model(tensor(bytes(8)))))


@pytest.mark.parametrize(("name", "count", "shape"), [(DETECTOR, 255_958, (160, 416)), (RECOGNISER, 241, (48, 200))])
def test_a_network_answers_the_same_to_the_byte(name, count, shape):
    before = model_path(name).read_bytes()
    after = without_subnormals(before)
    weights = [[np.frombuffer(some[start:end], "<f4") for start, end in _float_weights(some)] for some in (before, after)]
    assert sum(int(((was != 0) & (now == 0)).sum()) for was, now in zip(*weights, strict=True)) == count
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, *shape)).astype(np.float32)
    one, other = (onnx_session(some, threads=1, keeps_memory=False).run(None, {"x": x})[0] for some in (before, after))
    assert one.std() > 0 and np.array_equal(one, other)
