"""Training in two processes, as a launcher starts them: the same weights as one process that takes both doses itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("peft")


from safetensors.torch import load_file
from tests.e2e.inprocess import pixelis

from pixelis.rollout.collect import Plan, Share, collect
from pixelis.testing.tiny_vlm import make_checkpoint
from pixelis.train.ranks import Ranks

BIN = Path(sys.executable).parent
LAUNCH = (BIN / "torchrun", "--nproc-per-node", 2, "--no-python")
SHARDED = {"ACCELERATE_USE_FSDP": "true"}
"""What `accelerate launch --use_fsdp` sets; that launcher itself knows no CPUs."""


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    plan = Plan("train", 1, {"read_sign": Share(5), "attribute": Share(4)})
    return collect(tmp_path_factory.mktemp("cota") / "traces", plan, num_workers=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), vocab_size=700, hidden=64, num_layers=2, max_pixels=128 * 128)


def launch(recipe: Path, *, ok: bool = True, **more: str) -> subprocess.CompletedProcess:
    command = [*LAUNCH, BIN / "pixelis", "train", "sft", recipe, "--workers", 1]
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=280, env=env)
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done


def write(path: Path, tiny: Path, traces: Path, *, accumulate: int, more: str) -> Path:
    path.write_text(
        f'''checkpoint = "{tiny}"
out = "{path.with_suffix("")}"
traces = ["{traces}"]
dev_traces = ["{traces}"]
{more}
accumulate = {accumulate}
epochs = 2
rounds = 1
batch_tokens = 3000
max_tokens = 3000
rate = 1e-2
'''
    )
    return path


@pytest.mark.parametrize(
    ("more", "env", "name"),
    [
        ("[sft]", {}, "model.safetensors"),
        ("[lora]\nrank = 4\n[sft]\nuse_muon = false", SHARDED, "policy/adapter_model.safetensors"),
    ],
    ids=["copies", "shards"],
)
def test_two_processes_learn_what_one_does(tiny, traces, tmp_path, more, env, name):
    pixelis("train", "sft", write(tmp_path / "one.toml", tiny, traces, accumulate=2, more=more), "--workers", 1)
    done = launch(write(tmp_path / "two.toml", tiny, traces, accumulate=1, more=more), **env)
    rows = [[json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()] for run in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) > 2 and len([line for line in done.stdout.splitlines() if "learning_parameters" in line]) == 1
    for a, b in zip(*rows, strict=True):
        assert a.get("tokens") == b.get("tokens")
        assert (a.get("token_loss") or a["dev"]["all"]) == pytest.approx(b.get("token_loss") or b["dev"]["all"], rel=1e-4)
    one, two = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[key], two[key], atol=2e-4) for key in one)
    heads = [load_file(tmp_path / run / "auxiliary_heads.safetensors") for run in ("one", "two")]
    assert all(torch.allclose(heads[0][key], heads[1][key], atol=2e-4) for key in heads[0])


def test_muon_is_refused_where_matrices_are_cut(tiny, traces, tmp_path):
    recipe = write(tmp_path / "one.toml", tiny, traces, accumulate=1, more="[sft]")
    done = launch(recipe, ok=False, **SHARDED)
    assert "use_muon = false" in done.stderr


def test_a_group_is_dealt_evenly():
    class Two(Ranks):
        def __init__(self, rank: int) -> None:
            self.rank, self.count = rank, 2

    assert Ranks().deal("abc") == [(0, "a", True), (1, "b", True), (2, "c", True)]
    assert Two(0).deal("abc") == [(0, "a", True), (2, "c", True)]
    assert Two(1).deal("abc") == [(1, "b", True), (0, "a", False)]  # goes along without learning
    assert Two(1).own(Path("x/state.pt")) == Path("x/state-1.pt") and Two(0).own(Path("x/state.pt")) == Path("x/state.pt")
