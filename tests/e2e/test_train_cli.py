"""Training from the command line: each stage of nano in miniature, the paper's recipe on a tiny random Qwen3-VL, and typos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import load_file
from tests.e2e.inprocess import pixelis

from pixelis.core.command import read_commands
from pixelis.core.errors import DataError
from pixelis.data.cota.load import read_traces
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.retrieval.audit import AUDIT_FILE
from pixelis.testing.tiny_vlm import make_checkpoint
from pixelis.train.kept import Kept
from pixelis.train.start import load_learner
from pixelis.ttrl.insight import Insight

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cota")
    recipe = folder / "cota.toml"
    recipe.write_text(
        '[cota]\nout = "unused"\n[cota.shares]\nread_sign = { media = 6 }\nattribute = { media = 4 }\nno_tool = { media = 4 }\n'
    )
    done = pixelis("data", "cota", recipe, "--out", folder / "traces", "--workers", 1)
    assert "read_sign" in done.stdout
    return folder / "traces"


def test_traces_are_checked(traces, tmp_path):
    assert "14 traces" in pixelis("data", "check", traces).stdout
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (traces / "shards" / "0000").iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    lines = (broken / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (broken / "trajectories.jsonl").write_bytes(b"".join([lines[0], lines[1][:99] + b"\n", *lines[2:]]))
    assert "trajectories.jsonl:2" in pixelis("data", "check", broken, ok=False).stdout


def test_copies_among_media_are_found(tmp_path):
    from PIL import Image

    from pixelis.data.world.items import frames, make_item

    media = tmp_path / "media"
    media.mkdir()
    for k in range(3):
        Image.fromarray(next(frames(make_item("train", 40 + k, family="relation")))).save(media / f"{k}.png")
    Image.open(media / "1.png").save(media / "later.jpg", quality=60)
    done = pixelis("data", "dedup", media, "--world", "--blocklist", tmp_path / "copies.txt")
    assert (tmp_path / "copies.txt").read_text() == "later.jpg\n", done.stdout
    pixelis("data", "dedup", tmp_path / "nowhere", ok=False)


@pytest.fixture(scope="module")
def papers_sft(traces, tmp_path_factory):
    """The recipe as it stands, but for the checkpoint and the traces: LoRA, schemas in the prompt, several frames."""
    folder = tmp_path_factory.mktemp("paper")
    tiny = make_checkpoint(folder / "tiny", vocab_size=700, hidden=64, num_layers=3, max_pixels=128 * 128)
    text = (RECIPES / "paper-8b" / "sft.toml").read_text()
    text = text.replace("runs/paper-8b/cota-train", str(traces)).replace("runs/paper-8b/cota-dev", str(traces))
    text = text.replace("max_pixels = 1048576", "max_pixels = 16384").replace("epochs = 3 ", "epochs = 1 ")
    recipe = folder / "sft.toml"
    recipe.write_text(text.replace('dtype = "bfloat16"', 'dtype = "float32"'))
    done = pixelis("train", "sft", recipe, "--checkpoint", tiny, "--out", folder / "run", "--workers", 1)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert rows[0]["learning_parameters"] > 0 and rows[0]["estimated_gb"] > 0
    return tiny, folder / "run"


def test_the_papers_recipe_on_a_tiny_model(papers_sft):
    tiny, run = papers_sft
    assert (run / "policy" / "adapter_model.safetensors").is_file()
    # An adapter is prompted as it was trained to be, and is another policy than its base.
    bare, trained = load_checkpoint(tiny), load_checkpoint(tiny, adapter=run / "policy")
    assert (bare.prompting.max_frame_pixels, trained.prompting.max_frame_pixels) == (Prompting().max_frame_pixels, 262144)
    learner = load_learner(tiny, adapter=run / "policy")
    assert learner.prompting == trained.prompting and learner.version == trained.version != bare.version


def test_the_papers_second_phase_on_a_tiny_model(papers_sft, tmp_path):
    """What SFT has written learns on, against a copy of itself."""
    tiny, run = papers_sft
    text = (RECIPES / "paper-8b" / "rft.toml").read_text()
    for old, new in {
        'dtype = "bfloat16"': 'dtype = "float32"', "max_new_tokens = 512": "max_new_tokens = 12", "updates = 2000": "updates = 2",
        "prompts = 16": 'families = ["no_tool"]\nprompts = 1', "group = 8": "group = 2", "max_steps = 12": "max_steps = 2",
    }.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "rft.toml").write_text(text)
    options = ("--checkpoint", tiny, "--adapter", run / "policy", "--out", tmp_path / "rft")
    rows = [json.loads(line) for line in pixelis("train", "rft", tmp_path / "rft.toml", *options).stdout.splitlines() if line[0] == "{"]
    # The policy begins as its anchor, and training sees what the sampler saw.
    assert [row["update"] for row in rows] == [0, 1] and rows[0]["kl"] == 0 and rows[0]["mismatch"] < 1e-3
    learnt = load_checkpoint(tiny, adapter=tmp_path / "rft" / "policy")
    assert learnt.prompting.max_frame_pixels == 262144
    assert Insight.of(tmp_path / "rft" / "policy", 64) is not None and Insight.of(run / "policy", 64) is None
    assert "leave out [lora]" in pixelis("train", "rft", _with_lora(tmp_path / "rft.toml"), *options, ok=False).stderr
    assert [command.words[1:3] for command in read_commands(run)] == [("train", "sft")]
    (noted,) = read_commands(tmp_path / "rft")  # what was refused is not noted
    assert noted.words[:4] == ("pixelis", "train", "rft", "PATH/rft.toml") and noted.checkpoint == "PATH/tiny"


def test_the_papers_third_phase_on_a_tiny_model(papers_sft, tmp_path):
    """The same adapter learns while it serves, against its own slow average; every decision can be made again."""
    tiny, run = papers_sft
    text = (RECIPES / "paper-8b" / "ttrl.toml").read_text()
    for old, new in {
        'dtype = "bfloat16"': 'dtype = "float32"', "max_new_tokens = 512": "max_new_tokens = 12", "max_steps = 12": "max_steps = 2",
        'segments = ["8000 lighting:3"]': 'segments = ["2 lighting:3"]\nfamilies = ["no_tool"]', "rollouts = 8 ": "rollouts = 2 ",
        'adapter = "runs/paper-8b/rft/policy"': f'adapter = "{run / "policy"}"',
        'calibration = "runs/paper-8b/ttrl-calibrate"': 'calibration = ""', '[[excluded]] ': "[[excluded]]", "items = 1000": "items = 1",
    }.items():  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    recipe = tmp_path / "ttrl.toml"
    plain = recipe.with_name("plain.toml")
    plain.write_text(text[: text.index("[[excluded]]")] + text[text.index("[corridor]") :])
    recipe.write_text(text)
    out = tmp_path / "ttrl"
    done = pixelis("adapt", recipe, "--checkpoint", tiny, "--out", out, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert "no calibration" in done.stderr and "no step heads" in done.stderr  # what SFT leaves has none
    assert "[[excluded]]" not in done.stderr
    # The policy begins as its own average, and a vote without answers teaches nothing: only the KL acts, and it is 0.
    assert [row["query"] for row in rows] == [0, 1] and all(row["kl"] < 1e-6 and row["masked"] for row in rows)
    assert load_checkpoint(tiny, adapter=out / "policy" / "policy")
    (out / AUDIT_FILE).unlink()
    other = pixelis("adapt", plain, "--checkpoint", tiny, "--out", tmp_path / "other", "--json")
    assert "under [[excluded]]" in other.stderr
    assert "2 decisions made again: 0 differ" in pixelis("adapt", plain, "--out", out, "--check").stdout
    assert json.loads((out / AUDIT_FILE).read_text())["num_blocked"] == 1  # what the run excluded, though that recipe says nothing of it
    (noted,) = read_commands(out)
    assert noted.words == ("pixelis", "adapt", "PATH/ttrl.toml", "--checkpoint", "PATH/tiny", "--out", "PATH/ttrl", "--json")
    assert noted.checkpoint == "PATH/tiny" and list(noted.recipes) == ["PATH/ttrl.toml"] and "torch" in noted.versions


def _with_lora(recipe: Path) -> Path:
    path = recipe.with_name("both.toml")
    path.write_text(f"{recipe.read_text()}\n[lora]\nrank = 4\n")
    return path


def test_phases_are_also_verbs_of_their_own():
    for verb, word in (("sft", "imitate"), ("rft", "reinforcement")):
        assert word in pixelis(verb, "--help").stdout and "recipe" in pixelis(verb, ok=False).stderr


def test_a_typo_in_a_recipe_is_named(tmp_path):
    recipe = tmp_path / "sft.toml"
    recipe.write_text((RECIPES / "nano" / "sft.toml").read_text().replace("batch_tokens", "batch_tokenz"))
    done = pixelis("train", "sft", recipe, ok=False)
    assert "batch_tokenz" in done.stderr and "batch_tokens" in done.stderr and "sft.toml" in done.stderr


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_recipes_are_read(path):
    from pixelis import config, config_train, config_ttrl, reproduce, study

    kind = {
        "cota": config_train.CotaRecipe, "cota_lost": config_train.CotaRecipe, "cota_terse": config_train.CotaRecipe,
        "cota_careful": config_train.CotaRecipe, "sft_careful": config_train.SftRecipe,
        "sft_careful_all": config_train.SftRecipe, "rft_careful": config_train.RftRecipe,
        "sft_lost": config_train.SftRecipe, "sft_terse": config_train.SftRecipe,
        "sight": config_train.SightRecipe, "primer": config_train.PrimerRecipe,
        "sft": config_train.SftRecipe, "sft_all": config_train.SftRecipe, "rft": config_train.RftRecipe, "ttrl": config_ttrl.AdaptRecipe,
        "ttrl_calibrate": config_ttrl.AdaptRecipe, "ttrl_turns": config_ttrl.AdaptRecipe, "ttrl_order": config_ttrl.AdaptRecipe,
        "ttrl_shifts": config_ttrl.AdaptRecipe, "reproduce": reproduce.ReproduceRecipe,
        "eval": config.Recipe, "eval_sampled": config.Recipe,
        "clear": config_train.ClearRecipe, "drill": config_train.PrimerRecipe, "ablations_rft": study.StudyRecipe,
        "ablations_ttrl": study.StudyRecipe,
    }[path.stem]  # fmt: skip
    config.load_recipe_as(kind, path)


@pytest.fixture(scope="module")
def pointing(tmp_path_factory):
    """A folder with views, and with sight and primer of a very small model."""
    folder = tmp_path_factory.mktemp("stages")
    views = f'[views]\nfolder = "{folder / "views"}"\ncount = 400\nnum_dev = 40\n'
    sizes = (
        "[model]\nhidden = 48\nintermediate = 96\nnum_layers = 1\nnum_heads = 3\nnum_kv_heads = 3\nvision_hidden = 32\nvision_layers = 1\n"
    )
    prompting = '[prompting]\nguide = ""\nhas_schemas = false\nmax_pixels = 76800\nimage_size = [160, 96]\nframe_size = [128, 96]\n'
    sight = folder / "sight.toml"
    sight.write_text(f'out = "{folder / "sight"}"\n{sizes}{views}{prompting}[sight]\nsteps = 3\nbatch_patches = 400\n')
    pixelis("train", "sight", sight)
    primer = folder / "primer.toml"
    head = f'checkpoint = "{folder / "sight"}"\nout = "{folder / "primer"}"\n'
    primer.write_text(f"{head}{views}{prompting}[primer]\nsteps = 3\nbatch = 4\n")
    pixelis("train", "primer", primer)
    assert not load_checkpoint(folder / "primer").prompting.has_schemas
    return folder


def test_a_primer_that_was_cut_short_goes_on_to_the_same_weights(pointing, tmp_path, monkeypatch):
    keep = Kept.keep

    def keep_and_stop(self, step, recent=()):
        keep(self, step, recent)
        if step == 2:
            raise DataError("stopped here")

    monkeypatch.setattr(Kept, "every_s", 0.0)
    with monkeypatch.context() as context:
        context.setattr(Kept, "keep", keep_and_stop)
        assert "stopped here" in pixelis("train", "primer", pointing / "primer.toml", "--out", tmp_path / "cut", ok=False).stderr
    assert (tmp_path / "cut" / "state.pt").is_file() and not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = pixelis("train", "primer", pointing / "primer.toml", "--out", tmp_path / "cut").stdout
    assert [json.loads(line)["step"] for line in resumed.splitlines() if line.startswith("{")] == [3]
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (pointing / "primer", tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = [[json.loads(line) for line in (folder / "primer.jsonl").open()] for folder in (pointing / "primer", tmp_path / "cut")]
    assert [row | {"seconds": 0} for row in rows[0]] == [row | {"seconds": 0} for row in rows[1]]


@pytest.fixture(scope="module")
def acting(pointing, traces):
    recipe = pointing / "sft.toml"
    head = f'checkpoint = "{pointing / "primer"}"\nout = "{pointing / "sft"}"\ntraces = ["{traces}"]\ndev_traces = ["{traces}"]\n'
    recipe.write_text(f'{head}[sft]\nepochs = 1\n[rehearsal]\nviews = "{pointing / "views"}"\nnum_dev = 40\n')
    rows = [json.loads(line) for line in pixelis("train", "sft", recipe, "--workers", 1).stdout.splitlines() if line.startswith("{")]
    assert rows[0]["traces"] + rows[0]["left_out_as_too_long"] == len(list(read_traces(traces)))
    return pointing / "sft"


def test_seeing_pointing_and_acting_in_miniature(acting):
    assert load_checkpoint(acting).prompting.image_size == (160, 96)  # what the primer was prompted with


def test_a_checkpoint_is_shipped_small(acting, tmp_path):
    assert "MB" in pixelis("train", "ship", acting, "mini", "--out", tmp_path / "mini").stdout
    large, small = load_checkpoint(acting), load_checkpoint(tmp_path / "mini")
    assert small.prompting == large.prompting and (tmp_path / "mini" / "normalisers.json").is_file()
    pairs = zip(large.model.parameters(), small.model.parameters(), strict=True)
    assert all(a.dtype == b.dtype and (a - b).abs().max() < 1e-2 for a, b in pairs)  # stored by halves, loaded whole
    pixelis("train", "ship", acting, "planner", ok=False)


def test_reinforcement_in_miniature(acting, tmp_path):
    recipe = tmp_path / "rft.toml"
    head = f'checkpoint = "{acting}"\nout = "{tmp_path / "rft"}"\nmax_new_tokens = 12\n'
    recipe.write_text(f'{head}[rft]\nupdates = 1\nprompts = 1\ngroup = 2\nfamilies = ["no_tool"]\nprobe_every = 2\nmax_steps = 2\n')
    row = json.loads(pixelis("train", "rft", recipe).stdout.splitlines()[-1])
    assert row["update"] == 0 and row["mismatch"] < 1e-3
    assert load_checkpoint(tmp_path / "rft").prompting.image_size == (160, 96)


def test_a_policy_teaches(tmp_path):
    recipe = tmp_path / "cota.toml"
    recipe.write_text(
        f'[cota]\nout = "{tmp_path / "traces"}"\n[cota.teacher]\nname = "planner"\n[cota.shares]\nread_sign = {{ media = 6 }}\n'
    )
    assert "read_sign" in pixelis("data", "cota", recipe, "--workers", 1).stdout
    assert {t.trajectory.policy.name for t in read_traces(tmp_path / "traces")} == {"planner"}
