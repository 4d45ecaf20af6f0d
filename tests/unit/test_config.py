from __future__ import annotations

from pathlib import Path

import pytest

from pixelis.config import Recipe, load_recipe
from pixelis.core.errors import ConfigError, NotInstalled
from pixelis.core.ops import OPS
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import ENGINES, build_toolbox, choose, resolved

ROOT = Path(__file__).parents[2]


def test_the_shipped_recipe_holds_the_defaults():
    assert load_recipe(ROOT / "recipes" / "ask.toml") == Recipe()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tools]\nsegg = 'auto'", "tools.segg: .*the keys here are seg, trk"),
        ("[limits]\nmax_steps = 0", "limits.max_steps: input should be greater than or equal to 1"),
        ("[policy]\ntemperature = 'hot'", "policy.temperature"),
        ("seed = ", "is not TOML"),
        ("colour = 1", "colour: .*the keys here are policy, tools"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path, text, says):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"r\.toml.*{says}"):
        load_recipe(tmp_path / "r.toml")


def test_a_missing_recipe():
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_recipe("absent.toml")


def test_every_tool_reports_the_engine_it_was_chosen_by():
    settings = resolved(ToolSettings())
    for op, tool in build_toolbox(settings).items():
        assert tool.op == op
        assert tool.engine == choose(op, settings).name
        assert tool.version


def test_resolved_settings_name_engines_and_resolve_to_themselves():
    settings = resolved(ToolSettings())
    assert "auto" not in {settings.seg, settings.trk, settings.ocr, settings.temp, settings.prop}
    assert resolved(settings) == settings


def test_an_unknown_engine_lists_the_known_ones():
    with pytest.raises(ConfigError, match="OCR has no engine 'eyes': auto, rapidocr"):
        choose("OCR", ToolSettings(ocr="eyes"))


def test_mobile_sam_without_its_files_says_how_to_get_them(tmp_path):
    with pytest.raises(NotInstalled, match="PIXELIS_MOBILE_SAM"):
        build_toolbox(ToolSettings(seg="mobile-sam", mobile_sam_folder=str(tmp_path)), ops=["SEG"])


def test_every_op_has_an_engine_that_needs_nothing_beyond_pip():
    assert set(ENGINES) == set(OPS)
    for op in OPS:
        assert any(choice.is_ready(ToolSettings()) for choice in ENGINES[op])


def test_a_recipe_stands_on_its_base(tmp_path):
    (tmp_path / "low.toml").write_text("seed = 1\n[limits]\nmax_steps = 4\nmax_seconds = 9.0\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "high.toml").write_text('base = "../low.toml"\nlimits.max_steps = 5\n')
    found = load_recipe(tmp_path / "sub" / "high.toml")
    assert (found.seed, found.limits.max_steps, found.limits.max_seconds) == (1, 5, 9.0)
    (tmp_path / "low.toml").write_text('base = "sub/high.toml"\n')
    with pytest.raises(ConfigError, match="its base stands on it"):
        load_recipe(tmp_path / "low.toml")
    (tmp_path / "low.toml").write_text("base = 3\n")
    with pytest.raises(ConfigError, match=r"low\.toml: base: expected the path"):
        load_recipe(tmp_path / "sub" / "high.toml")
