"""Files fetched from the hub, with a hub that is a function: what is asked of it, what is unpacked, and what is said when it fails."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest
from tests.e2e.inprocess import pixelis
from tests.unit.test_bench_rules import vstar_folder

from pixelis.core.errors import ConfigError, DataError, NotInstalled
from pixelis.eval.bench import BENCHMARKS, vstar
from pixelis.eval.bench.hub import local_folder

hub = pytest.importorskip("huggingface_hub")
constants, errors = (pytest.importorskip(f"huggingface_hub.{name}") for name in ("constants", "errors"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def serve(monkeypatch, write=lambda folder: None, error=None) -> list[dict]:
    """A hub that writes what it has, or fails; returns what it was asked."""
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append({"repo_id": repo_id, **options})
        if error is not None:
            raise error
        options["local_dir"].mkdir(parents=True, exist_ok=True)
        write(options["local_dir"])

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    return asked


def refusal(kind, text="401 Client Error"):
    """One of the hub's own errors, which are made from an answer of its server."""
    made = kind.__new__(kind)
    Exception.__init__(made, text)
    return made


def test_a_folder_is_a_folder(monkeypatch):
    asked = serve(monkeypatch)
    assert local_folder("vstar", "some/folder") == Path("some/folder") and asked == []


def test_the_data_set_of_a_benchmark_is_known(home, monkeypatch):
    asked = serve(monkeypatch, vstar_folder)
    folder = local_folder("vstar", "hub:")
    assert folder == home / "pixelis" / "craigwu--vstar_bench" and len(vstar.read(folder)) == 8
    (one,) = asked
    assert (one["repo_id"], one["repo_type"], one["revision"]) == ("craigwu/vstar_bench", "dataset", None)
    assert one["allow_patterns"] == ["direct_attributes/*", "relative_position/*", "test_questions.jsonl"]
    assert {source.SOURCE.hub for source in BENCHMARKS.values()} == {
        "craigwu/vstar_bench", None, "OpenGVLab/MVBench", "lmms-lab-encoder/DocVQA", "lmms-lab/VideoMMMU", "nyu-visionx/VSI-Bench",
    }  # fmt: skip


def test_another_data_set_and_a_revision(home, monkeypatch):
    asked = serve(monkeypatch)
    assert local_folder("mmbench", "hub:some-one/copy@refs/pr/1") == home / "pixelis" / "some-one--copy@refs--pr--1"
    assert local_folder("vsibench", "hub:@v2") == home / "pixelis" / "nyu-visionx--VSI-Bench@v2"
    assert [(one["repo_id"], one["revision"]) for one in asked] == [("some-one/copy", "refs/pr/1"), ("nyu-visionx/VSI-Bench", "v2")]
    for place in ("hub:vstar", "hub:a/b/c", "hub:../x/y", "hub:a b/c"):
        with pytest.raises(ConfigError, match="names no data set of the hub; wanted is hub:, hub:OWNER/NAME or"):
            local_folder("vstar", place)
    with pytest.raises(ConfigError, match="no benchmark 'vsi'"):
        local_folder("vsi", "hub:")
    assert len(asked) == 2


def test_what_is_not_on_the_hub_is_named(home, monkeypatch):
    asked = serve(monkeypatch)
    url = "https://opencompass.openxlab.space/utils/benchmarks/MMBench/MMBench_DEV_EN_V11.tsv"
    with pytest.raises(DataError, match=rf"mmbench is not published on the hub. Download .* -o mmbench/MMBench_DEV_EN_V11.tsv {url}\)"):
        local_folder("mmbench", "hub:")
    assert asked == []


def archive(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as whole:
        for name, text in files.items():
            whole.writestr(f"scannet/{name}.mp4", text)


def test_archives_are_unpacked_once(home, monkeypatch):
    serve(monkeypatch, lambda folder: None if (folder / "scannet.zip").exists() else archive(folder / "scannet.zip", one="1", two="2"))
    folder = local_folder("vsibench", "hub:")
    assert {path.name: path.read_text() for path in (folder / "scannet").iterdir()} == {"one.mp4": "1", "two.mp4": "2"}
    (folder / "scannet" / "one.mp4").write_text("mine")
    local_folder("vsibench", "hub:")
    assert (folder / "scannet" / "one.mp4").read_text() == "mine"  # the archive has not changed
    (folder / "scannet.zip.unpacked").unlink()  # as if it had been broken off
    local_folder("vsibench", "hub:")
    assert (folder / "scannet" / "one.mp4").read_text() == "1"


def flipped() -> bytes:
    """An archive with one byte changed inside what it holds."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("a.txt", bytes(range(256)) * 40)
    data = bytearray(file.getvalue())
    data[60] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("data", [b"PK and no more", flipped()], ids=["no archive", "a byte changed"])
def test_a_damaged_archive_is_named(home, monkeypatch, data):
    serve(monkeypatch, lambda folder: (folder / "scannet.zip").write_bytes(data))
    with pytest.raises(DataError, match=r"scannet.zip: cannot be unpacked .*fetch it again"):
        local_folder("vsibench", "hub:")
    assert not list(home.rglob("*.unpacked"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(errors.GatedRepoError), r"ask: do so on https://huggingface.co/datasets/lmms-lab/VideoMMMU, log in"),
        (refusal(errors.RepositoryNotFoundError), "the hub has no data set lmms-lab/VideoMMMU that you may see"),
        (refusal(errors.RevisionNotFoundError), "lmms-lab/VideoMMMU has no revision v9"),
        (errors.LocalEntryNotFoundError("no net\nmore"), r"lmms-lab/VideoMMMU@v9 cannot be fetched \(no net\). Download Perception/"),
        (errors.OfflineModeIsEnabled(), r"cannot be fetched \(OfflineModeIsEnabled\)"),
        (refusal(errors.HTTPError, "reset by peer"), r"cannot be fetched \(reset by peer\)"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_hub_that_fails_is_a_message(error, said, home, monkeypatch):
    serve(monkeypatch, error=error)
    with pytest.raises(DataError, match=said) as raised:
        local_folder("videommmu", "hub:@v9")
    if "cannot be fetched" in str(raised.value):  # what to download, from where, to which place, on what terms
        wanted = (
            "lmms-lab/VideoMMMU",
            "--include '*.zip'",
            f"--local-dir {home / 'pixelis' / 'lmms-lab--VideoMMMU@v9'}",
            "licence agreement",
        )
        assert all(part in str(raised.value) for part in wanted)


def test_a_name_that_the_hub_refuses(home, monkeypatch):
    serve(monkeypatch, error=errors.HFValidationError("no double hyphens"))
    with pytest.raises(ConfigError, match="'a--b/c' can be no data set of the hub"):
        local_folder("vstar", "hub:a--b/c")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotInstalled, match="pip install huggingface_hub"):
        local_folder("vstar", "hub:")


def test_the_command_line_says_it(home, monkeypatch, tmp_path):
    serve(monkeypatch, error=errors.LocalEntryNotFoundError("no net"))
    ended = pixelis("eval", "bench", "vstar", "hub:", "--policy", "planner", "--run", tmp_path / "run", ok=False)
    assert "craigwu/vstar_bench cannot be fetched" in " ".join(ended.stderr.split()) and not (tmp_path / "run").exists()
