"""TRK engines against videos whose truth we drew ourselves, and against DAVIS where it is at hand."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from pixelis.core.errors import NotInstalled, ToolError
from pixelis.core.media import open_medium
from pixelis.data.world.items import make_item, render
from pixelis.tools.engines.trk_base import SteadySize, as_rgb, box_iou, clip_box
from pixelis.tools.engines.trk_default import DefaultTrk

ROOT = Path(__file__).resolve().parents[2]
MEDIA = Path(os.environ.get("PIXELIS_MEDIA", ROOT.parent / "shared" / "media"))


def _bench():
    spec = importlib.util.spec_from_file_location("bench_trk", ROOT / "benchmarks" / "parts" / "trk.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench = _bench()


@pytest.fixture(scope="module")
def engine() -> DefaultTrk:
    return DefaultTrk()


def _run(engine, scene):
    drawn = list(bench.render(scene))
    truth = [box for _, box in drawn]
    found = engine.track((frame for frame, _ in drawn), truth[0])
    assert len(found) == len(truth)
    return truth, found


def _mean_iou(truth, found) -> float:
    return float(np.mean([bench.iou(a, b.box) for a, b in zip(truth, found, strict=True) if a is not None]))


def _ball(num: int = 12, size: tuple[int, int] = (160, 120), step: tuple[float, float] = (4, 2), radius: int = 14):
    """A yellow disc on a smooth grey-blue ground, and its boxes."""
    ground = np.zeros((size[1], size[0], 3), np.uint8)
    ground[..., 2] = np.linspace(60, 160, size[0])[None]
    ground[..., 1] = np.linspace(40, 120, size[1])[:, None]
    frames, boxes = [], []
    for i in range(num):
        x, y = 40 + step[0] * i, 50 + step[1] * i
        frame = ground.copy()
        cv2.circle(frame, (round(x), round(y)), radius, (230, 210, 20), -1)
        frames.append(frame)
        boxes.append((x - radius, y - radius, x + radius + 1.0, y + radius + 1.0))
    return frames, boxes


def test_iou_by_hand():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert bench.iou((0, 0, 10, 10), None) == 0 and bench.iou(None, None) == 1


def test_score_of_a_track_that_misses_half_by_hand():
    pytest.importorskip("trackeval")
    truth = [(0, 0, 10, 10)] * 4
    perfect = bench.score(truth, truth)
    assert perfect["hota"] == pytest.approx(1) and perfect["iou"] == 1 and perfect["mota"] == 1
    half = bench.score(truth, [truth[0], truth[0], None, None])
    assert half["iou"] == 0.5 and half["mota"] == 0.5 and half["hota"] == pytest.approx(0.5)  # sqrt(2/4 * 2/4)


def test_clip_and_grey_by_hand():
    assert clip_box((-5, 2, 300, 50), 100, 40) == (0, 2, 100, 40)
    assert clip_box((101, 2, 300, 50), 100, 40) is None
    assert as_rgb(np.full((4, 5), 7, np.uint8)).shape == (4, 5, 3)
    steady = SteadySize()
    steady.enter(np.zeros((40, 80, 3), np.uint8))
    assert steady.enter(np.zeros((80, 160, 3), np.uint8)).shape == (40, 80, 3)
    assert steady.leave((10, 5, 20, 15), np.zeros((80, 160, 3), np.uint8)) == (20, 10, 40, 30)


FOLLOWED = [scene for scene in bench.SCENES if not scene.occluder and not scene.exits and scene.name not in ("fast5flat", "busy24")]


@pytest.mark.parametrize("scene", FOLLOWED, ids=lambda scene: scene.name)
def test_follows_what_moves_grows_jumps_and_crosses(engine, scene):
    assert _mean_iou(*_run(engine, scene)) >= 0.8


@pytest.mark.parametrize("name", ["fast5flat", "busy24"])
def test_follows_the_hardest(engine, name):
    """A plain square that jumps by nearly twice its side; a target of the ground's own colours."""
    assert _mean_iou(*_run(engine, next(s for s in bench.SCENES if s.name == name))) >= 0.65


@pytest.mark.parametrize("name", ["occlude24", "occlude8"])
def test_hidden_behind_a_post_and_found_again(engine, name):
    scene = next(s for s in bench.SCENES if s.name == name)
    truth, found = _run(engine, scene)
    hidden = [i for i, box in enumerate(truth) if box is None]
    middle = hidden[len(hidden) // 2]
    assert found[middle].box is None and found[middle].score < 0.5
    assert np.mean([bench.iou(a, b.box) for a, b in zip(truth[-5:], found[-5:], strict=True)]) >= 0.6


@pytest.mark.parametrize("index", [700, 706])
def test_a_double_behind_the_same_wall_is_not_taken_for_it(engine, index):
    """Two equal things pass behind a wall from both sides, and turn there: each comes out where it was going."""
    item = make_item("train", index, family="occlusion")
    with open_medium(render(item), name=item.medium_name) as medium:
        frames = [medium.frame(k) for k in range(item.num_frames)]
    track = item.truth.objects[item.mentions[0][1]].track
    found = engine.track(iter(frames), track[0].as_tuple())
    assert bench.iou(track[-1].as_tuple(), found[-1].box) > 0.5


def test_leaves_the_frame(engine):
    truth, found = _run(engine, next(s for s in bench.SCENES if s.name == "exit24"))
    assert [item.box for item in found[-10:]] == [None] * 10
    before = [bench.iou(a, b.box) for a, b in zip(truth[:20], found[:20], strict=True)]
    assert np.mean(before) >= 0.8


def test_same_bytes_twice_and_from_threads(engine):
    frames, boxes = _ball()
    first, results = engine.track(frames, boxes[0]), {}

    def work(key: int) -> None:
        results[key] = engine.track(iter(frames), boxes[0])

    threads = [threading.Thread(target=work, args=(key,)) for key in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == first and results[1] == first


def test_deadline_passes_through_and_frames_stay_lazy(engine):
    frames, boxes = _ball()
    asked, handed = [], []

    def stream():
        for frame in frames:
            handed.append(1)
            yield frame

    def stop() -> None:
        asked.append(1)
        if len(asked) == 4:
            raise ToolError("deadline", "out of time")

    with pytest.raises(ToolError, match="out of time"):
        engine.track(stream(), boxes[0], should_stop=stop)
    assert len(handed) == 4


def test_one_frame_and_none(engine):
    frames, boxes = _ball(1)
    only = engine.track(frames, boxes[0])
    assert [item.box for item in only] == [boxes[0]] and only[0].score == 1
    assert engine.track([], boxes[0]) == []


@pytest.mark.parametrize(
    "box", [(60, 50, 63, 53), (0, 0, 160, 120), (0, 0, 2, 2), (0, 0, 160, 3), (157.5, 117.5, 160, 120), (20.2, 20.4, 20.9, 20.8)]
)
def test_odd_boxes_give_boxes_inside_the_frame(engine, box):
    frames, _ = _ball(6)
    found = engine.track(frames, box)
    assert len(found) == 6 and found[0].box == box
    for item in found:
        assert 0 <= item.score <= 1
        if item.box is not None:
            assert 0 <= item.box[0] < item.box[2] <= 160 and 0 <= item.box[1] < item.box[3] <= 120


@pytest.mark.parametrize("kind", ["black", "noise"])
def test_frames_without_any_hold(engine, kind):
    rng = np.random.default_rng(0)
    frames = [np.zeros((64, 80, 3), np.uint8) if kind == "black" else rng.integers(0, 256, (64, 80, 3), np.uint8) for _ in range(5)]
    found = engine.track(frames, (20, 20, 50, 44))
    assert len(found) == 5 and found[0].box == (20, 20, 50, 44)


def test_small_target_of_three_pixels_is_followed(engine):
    frames, boxes = _ball(10, step=(2, 1), radius=1)
    found = engine.track(frames, boxes[0])
    centre = [(item.box[0] + item.box[2]) / 2 for item in found[-3:] if item.box]
    assert centre and abs(centre[-1] - (boxes[-1][0] + boxes[-1][2]) / 2) < 4


def test_grey_frames(engine):
    frames, boxes = _ball()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    found = engine.track(grey, boxes[0])
    assert np.mean([bench.iou(a, b.box) for a, b in zip(boxes, found, strict=True)]) >= 0.8
    same = engine.track([frame[..., None] for frame in grey], boxes[0])
    assert same == found


def test_frame_size_changes_midway(engine):
    frames, boxes = _ball(10)
    big = [frame if i < 5 else cv2.resize(frame, (320, 240), interpolation=cv2.INTER_CUBIC) for i, frame in enumerate(frames)]
    truth = [box if i < 5 else tuple(2 * v for v in box) for i, box in enumerate(boxes)]
    found = engine.track(big, boxes[0])
    assert np.mean([bench.iou(a, b.box) for a, b in zip(truth, found, strict=True)]) >= 0.8


def test_version_names_libraries_and_masks(engine):
    assert engine.version.startswith("silhouette ") and cv2.__version__ in engine.version and "masks by" in engine.version


def test_davis_average():
    clips = bench.davis_clips(MEDIA)
    if not clips:
        pytest.skip(f"no DAVIS clips under {MEDIA}")
    pytest.importorskip("trackeval")
    tracker = DefaultTrk()
    scores = [bench.score(c.truth, [item.box for item in tracker.track(c.frames(), c.truth[0])]) for c in clips]
    assert np.mean([s["hota"] for s in scores]) >= 0.6


# BoT-SORT


def test_yolox_decoding_by_hand():
    from pixelis.tools.engines.trk_botsort import decode_yolox

    raw = np.zeros((52 * 52 + 26 * 26 + 13 * 13, 85), np.float32)
    # Cell (x=3, y=2) of the stride-16 grid: centre ((3 + .5) * 16, (2 + .25) * 16) = (56, 36), size (2 * 16, 1 * 16).
    raw[52 * 52 + 2 * 26 + 3, :5] = [0.5, 0.25, np.log(2), 0, 0.9]
    raw[52 * 52 + 2 * 26 + 3, 5 + 7] = 0.5
    boxes, scores = decode_yolox(raw, 416, 416, 0.5, 0.1)
    assert boxes == pytest.approx(np.array([[80, 56, 144, 88]])) and scores == pytest.approx([0.45])


def test_botsort_follows_a_moving_blob():
    pytest.importorskip("trackers")
    from pixelis.tools.engines.trk_botsort import BotSortTrk

    frames, boxes = _ball(12, size=(320, 240), step=(5, 3), radius=20)
    tracker = BotSortTrk()
    found = tracker.track(frames, boxes[0])
    assert len(found) == 12 and found[0].box == boxes[0]
    assert np.mean([bench.iou(a, b.box) for a, b in zip(boxes, found, strict=True)]) >= 0.5
    assert tracker.track(frames, boxes[0]) == found
    assert "motion blobs" in tracker.version and "trackers" in tracker.version


def test_botsort_with_a_detector_follows_the_car():
    pytest.importorskip("trackers")
    from pixelis.tools.engines.trk_botsort import BotSortTrk

    weights = MEDIA.parent / "weights" / "yolox_nano.onnx"
    clip = next((c for c in bench.davis_clips(MEDIA) if c.name == "car-roundabout"), None)
    if clip is None or not weights.is_file():
        pytest.skip(f"no car-roundabout under {MEDIA} or no {weights.name} beside it")
    frames = [frame for _, frame in zip(range(8), clip.frames(), strict=False)]
    found = BotSortTrk(weights).track(frames, clip.truth[0])
    assert np.mean([bench.iou(a, b.box) for a, b in zip(clip.truth, found, strict=False)]) >= 0.7


def test_botsort_without_its_detector_says_so(tmp_path):
    pytest.importorskip("trackers")
    from pixelis.tools.engines.trk_botsort import BotSortTrk

    with pytest.raises(NotInstalled, match=r"nothing\.onnx"):
        BotSortTrk(tmp_path / "nothing.onnx")


# SAM 2.1 video


@pytest.fixture(scope="module")
def tiny_sam2(tmp_path_factory) -> Path:
    """A random SAM 2 video model of some ten thousand weights, saved as a real checkpoint."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 128,
    }
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        image_size=128,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,  # the attention's key width is fixed to it
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        mask_downsampler_embed_dim=128,
        num_maskmem=3,
        max_object_pointers_in_encoder=4,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam2video")
    model = transformers.Sam2VideoModel(config)
    with torch.no_grad():  # fresh weights are so small that a prompt drowns in rounding
        for weight in model.parameters():
            weight.mul_(6.0 if weight.ndim > 1 else 1.0)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3.0)  # an object thought absent leaves no mask to compare
    model.save_pretrained(folder)
    return folder


def test_sam2_video_loads_runs_and_repeats(tiny_sam2):
    from pixelis.tools.engines.trk_sam2 import Sam2VideoTrk

    frames, boxes = _ball(10)
    tracker = Sam2VideoTrk(tiny_sam2)
    found = tracker.track(iter(frames), boxes[0])
    assert len(found) == 10 and found[0].box == boxes[0]
    for item in found:
        assert 0 <= item.score <= 1
        assert item.box is None or (0 <= item.box[0] < item.box[2] <= 160 and 0 <= item.box[1] < item.box[3] <= 120)
    assert Sam2VideoTrk(tiny_sam2).track(frames, boxes[0]) == found
    other = tracker.track(frames, (100, 70, 150, 115))
    assert any(item.box for item in found[1:])
    assert other[1:] != found[1:]  # the prompt reaches the network
    assert tracker.version.startswith("sam2-video 1; weights ") and "unknown" not in tracker.version


def test_sam2_video_forgetting_old_frames_changes_nothing(tiny_sam2):
    from pixelis.tools.engines.trk_sam2 import Sam2VideoTrk

    class Hoarder(Sam2VideoTrk):
        def _forget(self, session, index):
            pass

    frames, boxes = _ball(12)
    assert Hoarder(tiny_sam2).track(frames, boxes[0]) == Sam2VideoTrk(tiny_sam2).track(frames, boxes[0])


def test_sam2_video_missing_says_how_to_get_it(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from pixelis.tools.engines.trk_sam2 import Sam2VideoTrk

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotInstalled, match=r"hf download facebook/sam2\.1-hiera-tiny"):
        Sam2VideoTrk("facebook/sam2.1-hiera-tiny")
    with pytest.raises(NotInstalled, match=r"model\.safetensors"):
        Sam2VideoTrk(tmp_path)
