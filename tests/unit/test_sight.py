"""Learning to see: views are what the policy sees, targets are where things are, and a few steps teach something."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file

from pixelis.core.errors import ConfigError, DataError
from pixelis.data.world.glances import COLOUR_NAMES, KIND_NAMES, Glances, Sight
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.train.clear import ClearSettings, holds_things, train_clear
from pixelis.train.kept import Kept
from pixelis.train.settling import name_what_is_seen, settle
from pixelis.train.sight import (
    Outputs,
    SightHeads,
    fold_time,
    patch_place,
    sight_loss,
    sight_scores,
    start_placed,
    targets_of,
    tokens_of,
)
from pixelis.train.sight_run import SightSettings, mirrored, train_sight
from pixelis.train.views import View, grid_of, make_views, patches_of, pointing_box, read_views, view_of
from pixelis.train.vocabulary import make_vocabulary

FREE = Prompting(max_pixels=320 * 240)
FIXED = Prompting(max_pixels=320 * 240, image_size=(160, 96), frame_size=(128, 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"hidden": 48, "num_layers": 1, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 0}
    return make_checkpoint(tmp_path_factory.mktemp("born"), make_vocabulary(), **sizes, max_pixels=320 * 240)


def test_views_are_what_the_policy_sees(folder):
    loaded = load_checkpoint(folder)
    vision = Vision(loaded.base, loaded.images, FREE)
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    grid, patches = vision.prepare(image)
    view = view_of(image, FREE)
    assert grid == grid_of(view) == (1, 12, 24)
    both = patches.numpy().reshape(len(patches), 3, 2, 256)
    assert np.array_equal(both[:, :, 0], both[:, :, 1])  # a still image is its own next frame
    assert np.array_equal(both[:, :, 0].reshape(len(patches), -1), patches_of(view))


def test_every_picture_is_stretched_to_one_size(folder):
    loaded = load_checkpoint(folder)
    vision = Vision(loaded.base, loaded.images, FIXED)
    for size in ((720, 1280), (64, 64), (40, 900)):
        image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        grid, patches = vision.prepare(image)  # as a crop comes in
        view = view_of(image, FIXED)
        assert grid == grid_of(view) == (1, 6, 10)
        assert np.array_equal(patches.numpy().reshape(60, 3, 2, 256)[:, :, 0].reshape(60, -1), patches_of(view))
        frame = FIXED.show(image, is_frame=True)  # as a frame comes in: shown already
        assert vision.prepare(frame)[0] == (1, 6, 8)


def test_folding_time_changes_no_number(folder):
    loaded = load_checkpoint(folder)
    vision = Vision(loaded.base, loaded.images, FREE)
    image = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    vision.take("a", image)
    with torch.no_grad():
        before = vision.features(["a"])[0].tokens_ND
        undo = fold_time(loaded.base.model.visual)
        after = tokens_of(loaded.base.model.visual, [view_of(image, FREE)])
        undo()
        again = loaded.base.model.visual(vision.prepare(image)[1], torch.tensor([vision.prepare(image)[0]])).pooler_output
    assert torch.allclose(before, after, atol=1e-5) and torch.allclose(before, again, atol=1e-5)


def test_a_place_is_a_column_and_a_row(folder):
    visual = load_checkpoint(folder).base.model.visual
    start_placed(visual)
    side = int(len(visual.pos_embed.weight) ** 0.5)
    table = visual.pos_embed.weight.view(side, side, -1)
    # The step from one column to the next is the same in every row, and down a column in every column.
    assert torch.allclose(table[0, 1] - table[0, 0], table[5, 1] - table[5, 0], atol=1e-5)
    assert torch.allclose(table[1, 0] - table[0, 0], table[1, 7] - table[0, 7], atol=1e-5)
    assert (table[0, 1] - table[0, 0]).norm() > 0.1


def test_patches_of_a_token_stand_together():
    # 4 x 6 patches are 2 x 3 tokens; row 2, column 3 lies in token (1, 1), the fifth, at its upper right.
    assert patch_place(0, 0, 6) == 0
    assert patch_place(1, 1, 6) == 3
    assert patch_place(2, 3, 6) == 4 * 4 + 1


def test_targets_by_hand():
    # 64 x 96 pixels: 4 x 6 patches. The thing's centre (0.55, 0.6) lies at column 3.3, row 2.4.
    view = View(np.zeros((64, 96, 3), np.uint8), (Sight((0.5, 0.5, 0.6, 0.7), 1, 2), Sight((0.3, 0.2, 0.8, 1.0), 4, 5)))
    found = targets_of([view])
    assert found.at_N.tolist() == [17]  # both have their centre there; the smaller one counts
    assert (found.colour_N.tolist(), found.kind_N.tolist()) == ([1], [2])
    assert torch.allclose(found.box_N6[0], torch.tensor([0.55, 0.6, 0.1, 0.2, 0.3, 0.4]), atol=1e-5)
    assert int(found.is_centre_P.sum()) == 1 and len(found.is_centre_P) == 24


def test_slots_by_hand():
    # 64 x 96 pixels are 2 x 3 tokens. Three things in the upper left one, one in the lower right one.
    inside = [Sight((x, 0.1, x + 0.02, 0.12), k, k) for k, x in enumerate((0.05, 0.15, 0.25))]
    view = View(np.zeros((64, 96, 3), np.uint8), (*inside, Sight((0.9, 0.9, 1.0, 1.0), 7, 8)))
    found = targets_of([view])
    assert found.slot_M.tolist() == [0, 1, 10] and found.slot_colour_M.tolist() == [0, 1, 7]
    # The last one: 9.6 x 6.4 px at (86.4, 57.6); a margin of 2.4 px gives 875 to 1000 across and 862.5 to 1000 down.
    assert pointing_box(view.things[-1], view) == [870, 860, 1000, 1000]
    assert found.places_M4[2].tolist() == [87, 86, 100, 100]


def test_scores_by_hand():
    view = View(np.zeros((32, 64, 3), np.uint8), (Sight((0.0, 0.0, 0.2, 0.2), 1, 2), Sight((0.8, 0.8, 1.0, 1.0), 3, 4)))
    truth = targets_of([view])
    centre = torch.full((8,), -5.0)
    centre[truth.at_N[0]] = 5.0  # one of two found
    centre[(truth.at_N[0] + 1) % 8] = 5.0  # and one where nothing is
    colour, kind = torch.zeros(8, len(COLOUR_NAMES)), torch.zeros(8, len(KIND_NAMES))
    colour[truth.at_N, truth.colour_N] = 1.0  # both colours right
    kind[truth.at_N[0], truth.kind_N[0]] = 1.0  # one kind right
    codes = torch.eye(101)
    corners = torch.zeros(4, 4, 101)
    for slot, places in zip(truth.slot_M, truth.places_M4, strict=True):
        corners[slot] = codes[places]
    corners[truth.slot_M[1], 0] = codes[truth.places_M4[1, 0] - 10]  # one box is 100 too far left: off by 100 in one of eight coordinates
    out = Outputs(centre, colour, kind, torch.zeros(8, 6), torch.zeros(4), torch.zeros(4, 12), torch.zeros(4, 12), corners, codes)
    scores = sight_scores(out, truth)
    assert scores == {
        "recall": 0.5,
        "precision": 0.5,
        "colour": 1.0,
        "kind": 0.5,
        "both": 0.5,
        "near": 0.875,
        "off": 12.5,
    }


def test_a_view_without_things_has_a_loss(folder):
    heads = SightHeads(48)
    loss, _ = sight_loss(heads(torch.randn(2, 48)), targets_of([View(np.zeros((32, 64, 3), np.uint8), ())]))
    assert torch.isfinite(loss)


def test_mirroring_twice_changes_nothing():
    glance = Glances(0).make(3)
    view = View(view_of(glance.image_HWC, FREE), glance.things)
    twice = mirrored(mirrored(view))
    assert np.array_equal(twice.pixels_HWC, view.pixels_HWC)
    assert np.allclose([t.box for t in twice.things], [t.box for t in view.things])


def test_glances_are_the_same_again_and_say_what_is_there():
    one, two = Glances(5).make(11), Glances(5).make(11)
    assert np.array_equal(one.image_HWC, two.image_HWC) and one.things == two.things
    for number in range(30):
        glance = Glances(5).make(number)
        assert all(0 <= v <= 1 + 1e-9 for t in glance.things for v in t.box)
        assert list(glance.things) == sorted(glance.things, key=lambda s: (s.box[0] + s.box[2], s.box[1]))


def test_views_come_back_and_damage_is_named(tmp_path):
    make_views(tmp_path, 5, FREE, num_workers=1, per_shard=3)
    views, glances = read_views(tmp_path), Glances(0)
    assert len(views) == 6 and all(v.pixels_HWC.shape[0] % 32 == 0 for v in views)
    for k, view in enumerate(views):  # in order and whole, over both files
        seen, made = ([(*thing.box, thing.colour, thing.kind) for thing in one.things] for one in (view, glances.make(k)))
        assert np.array_equal(np.array(seen, np.float32), np.array(made, np.float32))
        glance = glances.make(k)
        assert np.array_equal(view.pixels_HWC, view_of(glance.image_HWC, FREE, is_frame=glance.is_frame))
    path = next(tmp_path.glob("views-*.npz"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=path.name):
        read_views(tmp_path)
    with pytest.raises(DataError, match="no views"):
        read_views(tmp_path / "nowhere")


def test_settled_tokens_are_an_affine_map_of_the_old_ones(folder):
    views = [View(view_of(g.image_HWC, FIXED, is_frame=g.is_frame), g.things) for g in (Glances(2).make(k) for k in range(8))]
    visual = load_checkpoint(folder).base.model.visual
    fold_time(visual)
    heads = SightHeads(48)
    before = tokens_of(visual, [v.pixels_HWC for v in views]).detach()
    used = before @ (heads.slots.weight[0] * heads.norm.weight - (heads.slots.weight[0] * heads.norm.weight).mean())
    settle(visual, heads, views)
    after = tokens_of(visual, [v.pixels_HWC for v in views]).detach()
    assert torch.corrcoef(torch.stack([after[:, 0], used]))[0, 1] > 0.999  # the first number says whether something is there
    design = torch.cat([before, torch.ones(len(before), 1)], dim=1).double()
    fitted = design @ torch.linalg.lstsq(design, after.double()).solution
    assert (fitted - after).abs().max() < 1e-2 * after.abs().max()


def test_words_start_where_settled_tokens_say_them(folder):
    loaded = load_checkpoint(folder)
    embedding = loaded.base.get_input_embeddings()
    name_what_is_seen(embedding, loaded.tokenizer)
    red, also_red = (embedding.weight[loaded.tokenizer.encode(word, add_special_tokens=False)[0]] for word in ("red", " red"))
    assert torch.equal(red, also_red) and red.argmax() == 1 + COLOUR_NAMES.index("red") and red.sum() == 1
    assert embedding.weight[loaded.tokenizer.encode(" star")[0]].argmax() == 1 + len(COLOUR_NAMES) + KIND_NAMES.index("star")


def test_a_few_steps_teach_something(folder, tmp_path):
    glances = [Glances(1).make(k) for k in range(24)]
    views = [View(view_of(g.image_HWC, FIXED, is_frame=g.is_frame), g.things) for g in glances]
    seen = []
    train_sight(folder, views, views[:8], tmp_path / "out", SightSettings(steps=30, batch_patches=400), log=seen.append)
    assert seen[-1]["dev_recall"] >= 0 and load_checkpoint(tmp_path / "out")
    first = next(row for row in seen if row["step"] == 0)
    lines = (tmp_path / "out" / "sight.jsonl").read_text().splitlines()
    assert first["loss"] > 0 and len(lines) == len(seen)


class Killed(Exception):
    pass


def test_sight_that_was_cut_short_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch):
    glances = [Glances(1).make(k) for k in range(24)]
    views = [View(view_of(g.image_HWC, FIXED, is_frame=g.is_frame), g.things) for g in glances]
    settings = SightSettings(steps=60, batch_patches=200)

    def run(name, settings=settings, views=views, log=lambda row: None):
        return train_sight(folder, views, views[:8], tmp_path / name, settings, log=log)

    def rows(name):
        return [json.loads(line) | {"seconds": 0} for line in (tmp_path / name / "sight.jsonl").read_text().splitlines()]

    def die(row):
        if row["step"] == 50:  # its line is written, and the state behind it is not
            raise Killed

    whole, seen = load_file(run("whole") / "model.safetensors"), []
    monkeypatch.setattr(Kept, "every_s", 0.0)
    with pytest.raises(Killed):
        run("cut", log=die)
    assert [row["step"] for row in rows("cut")] == [0, 50]
    for other in ({"settings": replace(settings, rate=1e-3)}, {"views": views[::-1]}):
        with pytest.raises(ConfigError, match="of other settings, of another start or of other views"):
            run("cut", **other)
    resumed = load_file(run("cut", replace(settings, minutes=1e3), log=seen.append) / "model.safetensors")
    assert [row["step"] for row in seen] == [50, 60] and rows("cut") == rows("whole")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not list((tmp_path / "cut").glob("state.*"))
    with pytest.raises(Killed):
        run("hurt", log=die)
    state = tmp_path / "hurt" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        run("hurt")


def test_the_same_scenes_over_clutter():
    plain, cluttered = Glances(3), Glances(3, is_cluttered=True)
    for number in range(12):
        one, other = plain.make(number), cluttered.make(number)
        assert one.things == other.things and one.image_HWC.shape == other.image_HWC.shape
        assert not np.array_equal(one.image_HWC, other.image_HWC)
        assert np.array_equal(other.image_HWC, Glances(3, is_cluttered=True).make(number).image_HWC)


def test_what_holds_a_thing_by_hand():
    # 4 x 2 tokens of 32 px; a thing from (40, 10) to (70, 20) px lies in the second and third of the first row.
    view = View(np.zeros((64, 128, 3), np.uint8), (Sight((40 / 128, 10 / 64, 70 / 128, 20 / 64), 0, 0),))
    assert holds_things(view).tolist() == [False, True, True, False, False, False, False, False]


def test_sight_becomes_clear(folder, tmp_path, monkeypatch):
    """Over clutter tokens come nearer to the plain ones; the language model is left alone, and another tower's bytes follow from a seed."""
    prompting = Prompting(image_size=(96, 96), frame_size=(96, 96))
    prompting.save(folder)
    views = [read_views(make_views(tmp_path / str(c), 96, prompting, is_cluttered=c, num_workers=1, per_shard=96)) for c in (False, True)]
    rows = []
    settings = ClearSettings(steps=60, batch=8, rate=3e-3)
    train_clear(folder, *views, tmp_path / "clear", settings, num_dev=32, log=rows.append)
    assert rows[0]["dev_plain_things"] == rows[0]["dev_plain_ground"] == 0.0
    assert rows[-1]["dev_clutter_ground"] < 0.6 * rows[0]["dev_clutter_ground"]
    before, after = load_checkpoint(folder).base.state_dict(), load_checkpoint(tmp_path / "clear").base.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".visual." in name for name in changed)
    one, again = (
        load_checkpoint(train_clear(folder, *views, tmp_path / name, replace(settings, steps=6), num_dev=32)).base.state_dict()
        for name in ("one", "again")
    )
    assert all(torch.equal(one[name], again[name]) for name in one) and any(not torch.equal(one[name], before[name]) for name in one)
    keep, seen = Kept.keep, []

    def keep_and_die(self, step, recent=()):
        keep(self, step, recent)
        if step == 3:
            raise Killed

    monkeypatch.setattr(Kept, "every_s", 0.0)
    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(Kept, "keep", keep_and_die)
        train_clear(folder, *views, tmp_path / "cut", replace(settings, steps=6), num_dev=32)
    train_clear(folder, *views, tmp_path / "cut", replace(settings, steps=6), num_dev=32, log=seen.append)
    resumed = load_checkpoint(tmp_path / "cut").base.state_dict()
    assert [row["step"] for row in seen] == [6] and all(torch.equal(one[name], resumed[name]) for name in one)
    with pytest.raises(DataError, match="not of the same scenes"):
        train_clear(folder, views[0], views[1][::-1], tmp_path / "no", num_dev=32)
    with pytest.raises(DataError, match="make more views"):
        train_clear(folder, *views, tmp_path / "no", num_dev=96)
