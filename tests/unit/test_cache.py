"""The cache on disk: what comes back is what was put in, or nothing; the folder keeps its bound."""

from __future__ import annotations

import pytest

from pixelis.core.errors import ConfigError
from pixelis.core.geometry import Box
from pixelis.core.ops import Attribute, Call, PropOutput, Result
from pixelis.testing import WrappedTool
from pixelis.testing.scenes import background, disc, image_medium
from pixelis.tools.cache import ResultCache, cache_for
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

ZOOM = Call(op="ZOOM", arguments={"bbox_2d": [100, 100, 300, 300]})
KEY, OTHER = "a" * 64, "b" * 64
WIDTH = Attribute(name="width", value=57, confidence=0.9, unit="px")
MEASURED = Result(
    op="PROP",
    status="ok",
    engine="measure",
    version="4",
    output=PropOutput(what="size", frame=0, box=Box(0, 0, 9, 9), attributes=(WIDTH,)),
)


@pytest.fixture(scope="module")
def medium():
    return image_medium(disc(background(0), Box(100, 120, 160, 180), "red"), "scene")


def kept(folder) -> ResultCache:
    return ResultCache(folder=folder, max_bytes=0)


def test_entries_survive_with_their_blobs(medium, tmp_path):
    tool = WrappedTool(ZoomTool())
    first = Executor({"ZOOM": tool}, cache=kept(tmp_path)).run(ZOOM, medium, ())
    again = Executor({"ZOOM": tool}, cache=kept(tmp_path)).run(ZOOM, medium, ())
    assert again.is_cached and again.result == first.result and again.blobs == first.blobs
    assert tool.num_calls == 1


def test_one_digit_of_a_measured_width_is_not_believed(tmp_path):
    kept(tmp_path).put(KEY, (MEASURED, {}))
    assert kept(tmp_path).get(KEY) == (MEASURED, {})
    data = (tmp_path / KEY).read_bytes()
    assert data.count(b'"value": 57') == 1
    (tmp_path / KEY).write_bytes(data.replace(b'"value": 57', b'"value": 75'))
    assert kept(tmp_path).get(KEY) is None


def test_no_damage_anywhere_is_believed(tmp_path):
    kept(tmp_path).put(KEY, (MEASURED, {"c" * 64: b"crop"}))
    data = (tmp_path / KEY).read_bytes()
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1
        (tmp_path / KEY).write_bytes(bad)
        assert kept(tmp_path).get(KEY) is None, place
    for length in range(0, len(data), 7):
        (tmp_path / KEY).write_bytes(data[:length])
        assert kept(tmp_path).get(KEY) is None, length


def test_an_entry_under_another_name_is_another_call(tmp_path):
    kept(tmp_path).put(KEY, (MEASURED, {}))
    (tmp_path / KEY).rename(tmp_path / OTHER)
    assert kept(tmp_path).get(OTHER) is None


def test_what_is_damaged_is_computed_again(medium, tmp_path):
    tool = WrappedTool(ZoomTool())
    first = Executor({"ZOOM": tool}, cache=kept(tmp_path)).run(ZOOM, medium, ())
    (entry,) = tmp_path.iterdir()
    data = bytearray(entry.read_bytes())
    data[-5] ^= 1
    entry.write_bytes(data)
    for is_cached in (False, True):
        execution = Executor({"ZOOM": tool}, cache=kept(tmp_path)).run(ZOOM, medium, ())
        assert (execution.is_cached, execution.result) == (is_cached, first.result)


def test_the_folder_never_passes_its_bound_and_keeps_the_newest(tmp_path):
    bound = 20_000
    cache = ResultCache(folder=tmp_path, max_bytes=0, max_disk_bytes=bound)
    keys = [f"{i:064x}" for i in range(30)]
    for key in keys:
        cache.put(key, (MEASURED, {"c" * 64: bytes(3000)}))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= bound
        assert cache.get(key) is not None
    assert len(list(tmp_path.iterdir())) >= 3
    cache.put(KEY, (MEASURED, {"c" * 64: bytes(bound)}))  # alone past the bound: not kept, and drives nothing out
    assert cache.get(KEY) is None and cache.get(keys[-1]) is not None


def test_nothing_but_entries_is_removed(tmp_path):
    (tmp_path / "thesis.txt").write_bytes(bytes(50_000))
    cache = ResultCache(folder=tmp_path, max_bytes=0, max_disk_bytes=5_000)
    for i in range(9):
        cache.put(f"{i:064x}", (MEASURED, {"c" * 64: bytes(2000)}))
    assert (tmp_path / "thesis.txt").stat().st_size == 50_000
    assert cache.get(f"{8:064x}") is not None


def test_the_settings_name_folder_and_bound(tmp_path):
    cache_for(ToolSettings(cache_folder=str(tmp_path / "new"))).put(KEY, (MEASURED, {}))
    assert (tmp_path / "new" / KEY).exists()
    small = cache_for(ToolSettings(cache_folder=str(tmp_path / "small"), cache_max_bytes=1 << 20))
    small.put(KEY, (MEASURED, {"c" * 64: bytes(1 << 20)}))
    assert not list((tmp_path / "small").iterdir())
    assert cache_for(ToolSettings()).get(KEY) is None


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Name another cache_folder"):
        ResultCache(folder=tmp_path / "file")
