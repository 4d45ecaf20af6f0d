"""The mean of two checkpoints: each weight once, tied ones too, and nothing that is not one model."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from pixelis.core.errors import ConfigError
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.train.average import average
from pixelis.train.normalisers import FILE
from pixelis.train.start import save_whole
from pixelis.train.vocabulary import make_vocabulary

SIZES = {"hidden": 48, "num_layers": 2, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 0}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A newborn, and itself with 3 added to every weight."""
    folder = tmp_path_factory.mktemp("pair")
    before = make_checkpoint(folder / "before", make_vocabulary(), **SIZES, max_pixels=128 * 96)
    Prompting(guide="", has_schemas=False).save(before)
    loaded = load_checkpoint(before)
    with torch.no_grad():
        for parameter in loaded.base.parameters():
            parameter.add_(3.0)
    after = save_whole(loaded, folder / "after", prompting=loaded.prompting)
    (after / FILE).write_text("{}")
    return before, after


def test_every_weight_is_moved_by_the_share(pair, tmp_path):
    before, after = pair
    mean = average(before, after, tmp_path / "mean", share=0.25)
    old, new = (dict(load_checkpoint(folder).base.named_parameters()) for folder in (before, mean))
    assert old.keys() == new.keys() and any("embed_tokens" in name for name in old)
    for name, value in old.items():
        torch.testing.assert_close(new[name], value + 0.75, msg=name)
    assert (mean / FILE).read_text() == "{}" and Prompting.of(mean) == Prompting.of(after)


def test_what_is_not_one_model_is_refused(pair, tmp_path):
    before, after = pair
    with pytest.raises(ConfigError, match=r"\[0, 1\]; got 1.5"):
        average(before, after, tmp_path / "a", share=1.5)
    other = make_checkpoint(tmp_path / "other", make_vocabulary(), **{**SIZES, "num_layers": 3}, max_pixels=128 * 96)
    with pytest.raises(ConfigError, match="are not one model"):
        average(before, other, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    shutil.rmtree(other)
