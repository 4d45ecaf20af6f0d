"""Evaluation media stay out of a memory by each route, and the audit finds what was planted behind the blocklist's back."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from pixelis.core.errors import DataError
from pixelis.data.dedup import WORLD, DedupSettings, Fingerprint, MediaRecord, fingerprint
from pixelis.data.dedup.overlap import sketch
from pixelis.retrieval.audit import Probe, audit, inspect, report_text
from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.index import IndexSettings
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import open_memory
from pixelis.retrieval.whitelist import Blocked, Blocklist, whole_frame_hashes

SPEC = KeySpec(text_dim=4, pixel_dim=6)
FAR = 2**32 - 1
"""Hash bits 32 away from those of 0."""


def textured(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Coarse blobs: pictures of different seeds have nothing in common."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def smaller(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def shown(*seeds: int, name: str = "x") -> Fingerprint:
    return fingerprint(MediaRecord(name, 0, tuple(textured(seed) for seed in seeds)))


def by_hand(bits: list[int], rows: list[list[float]] | None = None, images: list[np.ndarray] | None = None) -> Fingerprint:
    """A fingerprint whose hashes and embeddings are chosen; the pictures are textured(0) unless given."""
    phash_T = np.array(bits, np.uint64)
    sketches = tuple(sketch(image) for image in images or [textured(0)] * len(bits))
    return Fingerprint("x", 0, phash_T, ~np.zeros_like(phash_T), sketches, None if rows is None else np.array(rows, np.float32))


def blocks(media: Fingerprint | None, settings: DedupSettings = DedupSettings()) -> Blocklist:
    return Blocklist([Blocked("eval", "e" * 64, media)], settings)


def item(number: int, sha256: str, media: Fingerprint | None = None) -> Item:
    rng = np.random.default_rng(number)
    return Item(Entry(id=f"t{number}", medium=sha256, trajectory=f"run/t{number}"), rng.standard_normal(4), rng.standard_normal(6), media)


# ---------------------------------------------------------------- the routes


def test_an_exact_copy_is_refused_by_its_hash():
    found = blocks(None).refusal("e" * 64, None)
    assert (found.blocked_id, found.route, found.share) == ("eval", "sha256", 1.0)
    assert blocks(None).refusal("a" * 64, None) is None


@pytest.mark.parametrize(("bits", "is_refused"), [(6, True), (7, False)])
def test_phash_within_six_bits_is_refused(bits, is_refused):
    found = blocks(by_hand([0])).refusal("a" * 64, by_hand([2**bits - 1]))
    assert (found is not None) == is_refused
    assert found is None or found.route == "phash"


@pytest.mark.parametrize(("cosine", "image", "is_refused"), [(0.96, 0, True), (0.94, 0, False), (0.96, 5, False)])
def test_an_embedding_alone_is_refused_if_the_picture_agrees(cosine, image, is_refused):
    """cosine >= .95 and the same picture: refused; cosine below it, or another picture (a template overlap): not."""
    blocked = by_hand([0], [[1, 0]])
    candidate = by_hand([FAR], [[cosine, (1 - cosine**2) ** 0.5]], [textured(image)])
    found = blocks(blocked).refusal("a" * 64, candidate)
    assert (found is not None) == is_refused
    assert found is None or found.route == "embedding"


def test_a_resized_picture_is_refused_and_another_is_not():
    blocklist = blocks(shown(1))
    small = fingerprint(MediaRecord("y", 0, (smaller(textured(1)),)))
    assert blocklist.refusal("a" * 64, small).route == "phash"
    assert blocklist.refusal("a" * 64, shown(2)) is None


@pytest.mark.parametrize(
    ("candidate", "share"),
    [
        ((1, 2, 3, 4, 5), 1.0),
        ((3, 4, 5), 1.0),  # starts later than the blocked one
        ((8, 9, 3, 4, 5), 0.6),  # 3 of 5: just enough
        ((7, 8, 9, 4, 5), None),  # 2 of 5
        ((11, 1, 2, 3, 12, 13, 14, 15), 0.6),  # longer than the blocked one, of whose 5 it holds 3
        ((3,), 1.0),  # one frame, as an image
        ((9,), None),
    ],
)
def test_a_clip_or_frame_of_a_blocked_video_is_refused_wherever_it_starts(candidate, share):
    found = blocks(shown(1, 2, 3, 4, 5)).refusal("a" * 64, shown(*candidate))
    assert (None if found is None else pytest.approx(found.share)) == share


def test_a_video_that_shows_a_blocked_picture_is_refused():
    assert blocks(shown(3)).refusal("a" * 64, shown(1, 2, 3, 4)).route == "phash"


def test_the_worlds_rule_looks_again_at_what_hashes_flag():
    """Hashes 0 bits apart, other pictures: the paper's rule refuses without a second look, the worlds' rule looks."""
    candidate = by_hand([0], images=[textured(5)])
    assert blocks(by_hand([0])).refusal("a" * 64, candidate) is not None
    assert blocks(by_hand([0]), WORLD).refusal("a" * 64, candidate) is None
    assert blocks(by_hand([0]), WORLD).refusal("a" * 64, by_hand([0])) is not None


def test_what_cannot_be_compared_is_an_error_not_a_pass():
    with pytest.raises(DataError, match="without a fingerprint"):
        blocks(by_hand([0])).refusal("a" * 64, None)
    with pytest.raises(DataError, match="embeddings of length None, the blocked media of 2"):
        blocks(by_hand([0], [[1, 0]])).refusal("a" * 64, by_hand([0]))
    with pytest.raises(DataError, match="same id"):
        Blocklist([Blocked("a", "1"), Blocked("a", "2")])
    with pytest.raises(DataError, match="one encoder for all"):
        Blocklist([Blocked("a", "1", by_hand([0])), Blocked("b", "2", by_hand([0], [[1, 0]]))])


# ---------------------------------------------------------------- before the index, and the audit


def test_a_refused_item_reaches_neither_disk_nor_index(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC, blocklist=blocks(shown(1)))
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    done = memory.add_many([item(0, "e" * 64), item(1, "a" * 64, shown(1))])
    assert [(one.position, one.refusal.route) for one in done] == [(None, "sha256"), (None, "phash")]
    assert memory.num_refused == 2 and len(memory) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    done = memory.add_many([item(2, "b" * 64, shown(1)), item(3, "c" * 64, shown(2))])
    assert [one.position for one in done] == [None, 0]
    assert next(memory.entries()).frame_hashes == (int(whole_frame_hashes(shown(2))[0, 0]),)


def planted(folder, *items: Item):
    """A memory that no blocklist watched over, with 20 innocent items."""
    memory = open_memory(folder / "m", SPEC, sync=lambda file: None)
    memory.add_many([item(100 + n, f"{n:064x}", shown(100 + n)) for n in range(20)])
    memory.add_many(items)
    return memory


def test_a_clean_memory_passes_with_its_bound(tmp_path):
    media = [Blocked(f"eval{n}", f"{n:x}" * 64, shown(n)) for n in range(1, 5)]
    probes = [Probe(one, item(int(one.id[4:]), "").pixel_D) for one in media]
    report = audit(planted(tmp_path), Blocklist(media), probes)
    assert (report.num_items, report.num_blocked, report.num_probes, report.num_probes_with_key) == (20, 4, 4, 4)
    assert report.hits == () and report.rate == 0 and report.num_items_without_hashes == 0
    assert report.high == pytest.approx(1 - 0.025 ** (1 / 4))  # Clopper-Pearson of 0 in 4
    assert "hits      0 items" in report_text(report)


@pytest.mark.parametrize(
    ("sha256", "media", "route"),
    [
        ("e" * 64, None, "sha256"),
        ("a" * 64, (1, 2, 3), "phash"),
        ("a" * 64, (2, 3), "phash"),  # a later clip of the same source
        ("a" * 64, (2,), "phash"),  # one of its frames
    ],
)
def test_what_was_planted_is_found_and_stops_the_build(tmp_path, sha256, media, route):
    memory = planted(tmp_path, item(0, sha256, shown(*media) if media else None))
    blocklist = blocks(shown(1, 2, 3))
    report = inspect(memory, blocklist, [Probe(blocklist.media[0])])
    assert [(hit.entry_id, hit.blocked_id, hit.route) for hit in report.hits] == [("t0", "eval", route)]
    assert report.rate == 1
    with pytest.raises(DataError, match=r"1 stored items are or resemble evaluation media, the first is t0 \(item 20"):
        audit(memory, blocklist, [Probe(blocklist.media[0])])


def test_a_near_key_is_a_suspect_until_the_full_comparison_confirms_it(tmp_path):
    hidden = item(0, "a" * 64)  # came without a fingerprint
    memory = planted(tmp_path, hidden)
    blocklist = blocks(shown(1))
    probes = [Probe(blocklist.media[0], hidden.pixel_D)]
    report = audit(memory, blocklist, probes)
    assert (report.num_suspects, report.num_items_without_hashes, report.hits) == (1, 1, ())
    innocent = audit(memory, blocklist, probes, fingerprint_of=lambda entry: shown(2))
    assert (innocent.num_suspects, innocent.num_items_without_hashes, innocent.hits) == (1, 0, ())
    guilty = inspect(memory, blocklist, probes, fingerprint_of=lambda entry: shown(1))
    assert (guilty.num_suspects, [hit.route for hit in guilty.hits]) == (0, ["phash"])  # its frames are hashed for the audit


def test_a_copy_that_only_the_search_finds_is_confirmed_by_its_frames(tmp_path):
    """The hashes that were stored with it are another's."""
    hidden = item(0, "a" * 64)
    hidden = replace(hidden, entry=replace(hidden.entry, frame_hashes=(0, 0)))
    memory = planted(tmp_path, hidden)
    blocklist = blocks(shown(1))
    report = inspect(memory, blocklist, [Probe(blocklist.media[0], hidden.pixel_D)], fingerprint_of=lambda entry: shown(1))
    assert [hit.route for hit in report.hits] == ["key"]


def test_under_a_rule_that_looks_again_a_hash_alone_is_a_suspect(tmp_path):
    memory = planted(tmp_path, item(0, "a" * 64, shown(1)))
    blocklist = blocks(shown(1), WORLD)
    assert inspect(memory, blocklist, [Probe(blocklist.media[0])]).num_suspects == 1
    report = inspect(memory, blocklist, [Probe(blocklist.media[0])], fingerprint_of=lambda entry: shown(1))
    assert [hit.route for hit in report.hits] == ["phash"]


def test_ten_thousand_probes_are_drawn_from_more(tmp_path):
    blocklist = blocks(None)
    report = inspect(planted(tmp_path), blocklist, [Probe(blocklist.media[0])] * 12_000)
    assert report.num_probes == 10_000
    assert report.high == pytest.approx(3.688e-4, abs=1e-7)  # 1 - 0.025 ** (1 / 10,000)
    with pytest.raises(DataError, match="without probes proves nothing"):
        inspect(planted(tmp_path / "other"), blocklist, [])


def test_an_index_is_not_published_over_a_planted_medium(tmp_path):
    pytest.importorskip("faiss")
    settings = IndexSettings(exact_below=300, code_bytes=2, rotations=1, iterations=2, num_lists=2)
    memory = open_memory(tmp_path / "m", SPEC, settings=settings, sync=lambda file: None)
    memory.add_many([item(n, f"{n:064x}") for n in range(300)] + [item(300, "e" * 64)])
    blocklist = blocks(None)
    with pytest.raises(DataError, match="resemble evaluation media"):
        memory.train_index(audit=lambda built: audit(built, blocklist, [Probe(blocklist.media[0])]))
    assert memory.kind == "exact" and not (tmp_path / "m" / "index.json").exists()
