from __future__ import annotations

from pathlib import Path

import pytest

from pixelis.config import Recipe, load_recipe
from pixelis.core.errors import ConfigError, NotInstalled
from pixelis.core.ops import OPS
from pixelis.tools.doctor import examine
from pixelis.tools.settings import ToolSettings, settings_with
from pixelis.tools.toolbox import ENGINES, MOBILE_SAM_FILES, build_toolbox, build_what_can_be, choose, device_of, resolved, with_engine

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


def test_auto_passes_over_a_mobile_sam_folder_without_its_files(tmp_path, monkeypatch):
    (mobile_sam, *_) = ENGINES["SEG"]
    usual = choose("SEG", ToolSettings()).name
    monkeypatch.setenv("PIXELIS_MOBILE_SAM", str(tmp_path))
    assert not mobile_sam.is_ready(ToolSettings()) and choose("SEG", ToolSettings()).name == usual != "mobile-sam"
    assert "holds none of encoder.onnx" in mobile_sam.why_not(ToolSettings())
    seg = examine()["ops"]["SEG"]
    (told,) = (other for other in seg["others"] if other["name"] == "mobile-sam")
    assert seg["engine"] == usual and str(tmp_path) in told["why_not"] and not told["is_ready"]
    for encoder in MOBILE_SAM_FILES[0]:
        for decoder in MOBILE_SAM_FILES[1]:
            folder = tmp_path / f"{encoder}-{decoder}"
            folder.mkdir()
            settings = ToolSettings(mobile_sam_folder=str(folder))
            (folder / encoder).write_bytes(b"x")
            assert "holds none of sam.onnx" in mobile_sam.why_not(settings)
            (folder / decoder).touch()
            assert f"an empty {decoder}" in mobile_sam.why_not(settings)
            (folder / decoder).write_bytes(b"x")
            assert mobile_sam.is_ready(settings) and not mobile_sam.why_not(settings)
            with pytest.raises(Exception) as caught:  # the engine finds the same files, and these are no networks
                build_toolbox(settings, ops=["SEG"])
            assert not isinstance(caught.value, NotInstalled)
            assert encoder in build_what_can_be(settings)["SEG"].why


def test_where_results_are_kept_and_what_computes_them_identifies_no_run(tmp_path):
    plain = ToolSettings().model_dump(mode="json")
    assert list(plain) == ["seg", "trk", "ocr", "temp", "prop", "zoom_min_pixels", "zoom_max_side_px", "sam2_checkpoint",
                           "mobile_sam_folder", "detector", "disabled"]  # fmt: skip
    here = ToolSettings(cache_folder=str(tmp_path), cache_max_bytes=1 << 30, device="cpu")
    assert here.model_dump(mode="json") == plain and here.model_dump_json() == ToolSettings().model_dump_json()
    assert resolved(here).cache_folder == str(tmp_path)
    assert Recipe(tools=here).model_dump(mode="json") == Recipe().model_dump(mode="json")
    card = ToolSettings(device="cuda")
    assert card.model_dump(mode="json") == {**plain, "device": "cuda"}  # other numbers come out there
    assert ToolSettings.model_validate(card.model_dump(mode="json")) == card
    assert resolved(card).model_dump(mode="json") == resolved(ToolSettings()).model_dump(mode="json")  # but not of the engines chosen


def test_a_device_that_is_not_there():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        assert (device_of(ToolSettings()), resolved(ToolSettings(seg="sam2")).device) == ("cuda", "cuda")
        return
    assert device_of(ToolSettings()) == "cpu" and resolved(ToolSettings(seg="sam2")).device == "cpu"
    with pytest.raises(ConfigError, match='device = "cuda:3", but torch sees 0'):
        device_of(ToolSettings(device="cuda:3"))
    with pytest.raises(ConfigError, match="torch sees 0"):
        build_toolbox(ToolSettings(trk="sam2-video", device="cuda"), ops=["TRK"])
    with pytest.raises(ConfigError, match="torch sees 0"):
        build_toolbox(ToolSettings(seg="sam2", device="cuda"), ops=["SEG"])


def test_settings_from_a_command_line():
    changed = settings_with(ToolSettings(trk="botsort"), ["seg=classical", "zoom_min_pixels=4096", "disabled=OCR,TEMP"])
    assert changed == ToolSettings(trk="botsort", seg="classical", zoom_min_pixels=4096, disabled=("OCR", "TEMP"))
    assert settings_with(ToolSettings(disabled=("OCR",)), ["disabled="]).disabled == ()
    for text, says in [
        ("segg=x", "got 'segg=x'; the keys are seg, trk"),
        ("seg", "takes KEY=VALUE"),
        ("zoom_min_pixels=3", "zoom_min_pixels: input should be greater than or equal to 1024; got '3'"),
        ("device=tpu", "device"),
    ]:
        with pytest.raises(ConfigError, match=says):
            settings_with(ToolSettings(), [text])
    with pytest.raises(ConfigError, match="seg twice"):
        settings_with(ToolSettings(), ["seg=classical", "seg=sam2"])


def test_an_op_with_one_engine_takes_its_name():
    assert with_engine(ToolSettings(), "ZOOM", "opencv") == ToolSettings()
    assert with_engine(ToolSettings(), "SEG", "classical").seg == "classical"
    with pytest.raises(ConfigError, match="ZOOM has no engine 'magic': auto, opencv"):
        with_engine(ToolSettings(), "ZOOM", "magic")


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
