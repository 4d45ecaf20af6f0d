"""The feature bank: the frozen tower's features, once, bounded, and only for the weights that made them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixelis.core.errors import DataError
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.train.bank import FeatureBank, tower_name
from pixelis.train.vocabulary import make_vocabulary


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    sizes = {"hidden": 48, "num_layers": 1, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 2, "num_deepstack": 1}
    return load_checkpoint(make_checkpoint(tmp_path_factory.mktemp("born"), make_vocabulary(), **sizes, max_pixels=128 * 96))


def image(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def vision(loaded) -> Vision:
    return Vision(loaded.base, loaded.images, Prompting(max_pixels=128 * 96), cache_bytes=0)


def test_features_are_the_towers_own(loaded):
    bank, plain = FeatureBank(vision(loaded)), vision(loaded)
    bank.add([("a", image(0)), ("b", image(1))])
    plain.take("a", image(0))
    with torch.no_grad():
        expected = plain.features(["a"])[0]
    (found,) = bank.features(["a"])
    assert torch.allclose(found.tokens_ND, expected.tokens_ND, atol=2e-3) and found.tokens_ND.dtype == torch.float32
    assert torch.allclose(found.deep_LND, expected.deep_LND, atol=2e-3) and found.deep_LND.shape[0] == 1
    assert bank.grids["a"] == (1, 6, 8) and "a" in bank and "c" not in bank


def test_an_image_is_encoded_once(loaded):
    bank = FeatureBank(vision(loaded))
    bank.add([("a", image(0))])
    bank.add([("a", image(0)), ("b", image(1))])
    assert bank.num_encoded == 2


def test_what_is_dropped_is_read_again(loaded):
    bank = FeatureBank(vision(loaded), pixels=lambda name: image(int(name)), max_bytes=1)
    for k in range(3):
        bank.add([(str(k), image(k))])
    first = bank.features(["0"])[0].tokens_ND
    assert bank.num_encoded == 4 and torch.equal(first, bank.features(["0"])[0].tokens_ND)
    with pytest.raises(DataError, match="not in the feature bank"):
        FeatureBank(vision(loaded)).features(["0"])


def test_a_bank_on_disk_belongs_to_its_tower(loaded, tmp_path):
    bank = FeatureBank(vision(loaded))
    bank.add([("a", image(0)), ("b", image(1))])
    bank.save(tmp_path / "bank.npz", tower=tower_name(loaded.base))
    other = FeatureBank(vision(loaded))
    assert not other.load(tmp_path / "bank.npz", tower="another") and "a" not in other
    assert other.load(tmp_path / "bank.npz", tower=tower_name(loaded.base)) and other.num_encoded == 0
    assert torch.equal(other.features(["b"])[0].tokens_ND, bank.features(["b"])[0].tokens_ND)
    assert not FeatureBank(vision(loaded)).load(tmp_path / "none.npz", tower="x")
    (tmp_path / "bank.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"bank\.npz"):
        other.load(tmp_path / "bank.npz", tower="x")
