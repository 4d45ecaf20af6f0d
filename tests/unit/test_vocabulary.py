"""The small model's tokeniser: anything can be written, digits stand alone but in coordinates, and transformers loads it alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

from pixelis.data.world.words import WORDS
from pixelis.train.newborn import place_codes
from pixelis.train.vocabulary import frequent_words, make_vocabulary, world_words

TOKENIZER = make_vocabulary()


def pieces(text: str) -> list[str]:
    return [TOKENIZER.decode([i], clean_up_tokenization_spaces=False) for i in TOKENIZER.encode(text, add_special_tokens=False)]


def test_a_call_by_hand():
    text = '<tool_call>\n{"name": "PROP", "arguments": {"what": "shape", "bbox_2d": [710, 60, 765, 150]}}\n</tool_call>'
    assert pieces(text) == [
        "<tool_call>", '\n{"name": "', "PROP", '", "arguments": {"', "what", '": "', "shape", '", "bbox_2d": [',
        "710", ", ", "60", ", ", "765", ", ", "150", "]}}\n", "</tool_call>",
    ]  # fmt: skip


def test_only_whole_numbers_in_brackets_are_one_token():
    assert pieces("[0, 7, 65, 1000]") == ["[", "0", ", ", "7", ", ", "65", ", ", "1000", "]"]
    assert pieces("[1280, 720]") == ["[", *"1280", ", ", "720", "]"]
    assert pieces("12 and 340, 560 or 0.25, 065]") == ["1", "2", " and", " ", *"340", ", ", *"560", " or", " ", *"0.25", ", ", *"065", "]"]


def test_place_codes_are_near_where_places_are():
    codes = place_codes(64)
    near, far = (codes[500] - codes[510]).norm(), (codes[500] - codes[700]).norm()
    assert codes.shape == (1001, 64) and near < 0.5 * far
    assert abs(float(codes.norm(dim=1).mean()) - 1) < 1e-5


def test_words_of_signs_are_spelt():
    assert pieces("POLLEN") == list("POLLEN")
    assert pieces(" pollen") == [" ", *"pollen"]
    assert {w.strip().lower() for w in world_words()} & set(WORDS) == {"diamond"}  # also a shape, which questions name


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str):
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    special = any(token in text for token in TOKENIZER.get_added_vocab())
    assert special or TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == text


@given(st.integers(0, 10**9))
def test_digits_stand_alone(number: int):
    assert pieces(str(number)) == list(str(number))


def test_frequent_words_leave_out_rare_ones_and_signs():
    corpus = ["where is the pollen", "where is the crane", "where is it"]
    found = frequent_words(corpus, min_count=3)
    assert " is" in found and "where" in found and " pollen" not in found and " it" not in found


def test_transformers_loads_it_alone(tmp_path):
    from transformers import AutoTokenizer

    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = 'Is this the red star?\n<tool_call>\n{"name": "OCR", "arguments": {"ref": 12}}\n</tool_call><|im_end|>'
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert len(TOKENIZER) <= 2048
