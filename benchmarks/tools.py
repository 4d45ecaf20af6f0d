"""Quality and latency of the six tools on real media and drawn scenes, with the paper's figures beside.

    python benchmarks/tools.py                       # everything, default engines; writes docs/results/PART.md of every part
    python benchmarks/tools.py --part seg --engine seg=mobile-sam
    python benchmarks/tools.py --part latency --out docs/results/latency.md

Media with ground truth are looked for in the folder that PIXELIS_MEDIA names, then in ../shared/media; docs/results/tools.md says what
that folder holds. Run it on an idle machine. What it prints stands between two marks in a page; what is written by hand around them stays,
and docs/results/tools.md, which sums the pages up, is all by hand.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import OPS, Call, Result
from pixelis.testing.scenes import video_medium
from pixelis.tools.doctor import PACKAGES, _version
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox

PARTS = ("seg", "trk", "ocr", "temp", "prop", "encoder")
DEFAULT_ENGINES = {
    "seg": ["u2netp-fusion"],
    "trk": ["default", "botsort-motion", "botsort"],
    "ocr": ["rapidocr"],
    "temp": ["frame-difference"],
    "prop": ["measure"],
    "encoder": ["efficientnet-stretch", "efficientnet-pad", "histogram"],
}
BESIDE_THE_DEFAULT = {"trk": ("botsort-motion", "botsort")}
"""Engines that a part shows over real clips alone, unless they are asked for."""
NOTES = {
    "seg": """IoU of what is cut out with the true mask. `ci_low` and `ci_high`: 95 %, bootstrap over clips or images.
`share_half`: objects with an IoU of 0.5 or more. `half_a`, `half_b`: the mean over two halves of the clips or images.
`score_corr`: rank correlation of the engine's own score with the IoU. `first` and `again`: milliseconds on a new image, and for a
second prompt on it; medians and 95th percentiles.""",
    "trk": """IoU: mean over the frames in which the object is seen. HOTA, MOTA: TrackEval's, one track a clip. Milliseconds are
per frame, without decoding.

`default` is the engine `silhouette`; `botsort-motion` is `botsort` as it comes, whose proposals are blobs that move against the
ground; `botsort` is the same with a detector (YOLOX-Nano, `detector = FILE`). All are asked alike, with the box of the first
frame. BoT-SORT takes no start box of its own: the box is put among the first frame's proposals, in the place of those that
overlap it by an IoU of 0.3, and the track that it starts is the answer. What moves little gives no blobs, and what the detector
does not know no proposals: the track ends there.""",
    "ocr": """`strict`: the share of true boxes whose text is read letter for letter (NFKC, without white space). `loose`: case
folded, without punctuation, and alike by an ANLS of 0.85 or more. `spaced`: the words are parted as the truth parts them. `iou`:
of the best box. `cer`: edit distance over the truth's length. Milliseconds are per image.""",
    "temp": """tIoU of the segment that TEMP ranks first with the nearest true one; `at_0.5`, `at_0.8`: the share of cases with so
much. `box`: asked within the box of the event, otherwise within the whole frame. `drawn`: rendered scenes; `real`: things put
into real clips, and joined shots. Seconds are per call.""",
    "prop": """`worst`: of eight conditions (noise, gradient, JPEG, texture, light) the one with the lowest accuracy. `sure_right`,
`sure_wrong`: the mean score that PROP gives to right and to wrong answers. Milliseconds are per call.""",
    "encoder": """Whether the nearest other crop shows the same class: `nn1` of a crop of another image, `nn1_macro` as a mean over
classes. With crops of the same image allowed one cow vouches for the next. `commonest_class`: the share of the class that there
is most of.""",
    "latency": """Warm calls through the executor, nothing cached. The paper's times (its Table 4) are those of all calls of a query
on a GPU, not of one call; SEG and ZOOM are one figure there. Only the last line compares like with like: a query with the paper's
number of calls.""",
}
"""What the columns of a part's table mean."""
MARKS = ("<!-- printed: what stands between these marks is replaced by the next run -->", "<!-- end of what is printed -->")
PAPER_LATENCY_S = {"SEG": 1.17, "ZOOM": 1.17, "TRK": 1.42, "OCR": 0.39, "TEMP": 1.57, "PROP": 0.16}
"""Paper, Table 4, per query on a GPU; SEG and ZOOM are one row there."""


def media_folder() -> Path:
    folder = Path(os.environ.get("PIXELIS_MEDIA", ROOT.parent / "shared" / "media"))
    if not folder.is_dir():
        sys.exit(f"no media in {folder}: set PIXELIS_MEDIA to a folder with davis/, coco/, ocr/ and video/")
    return folder


# ---------------------------------------------------------------- latency through the executor


def _photo_480p(media: Path) -> Medium:
    return open_medium(sorted((media / "davis" / "camel" / "frames").glob("*.jpg"))[0])


def _clip_480p(media: Path, num_frames: int = 60) -> Medium:
    frames = []
    for path in sorted((media / "davis" / "camel" / "frames").glob("*.jpg"))[:num_frames]:
        with open_medium(path) as medium:
            frames.append(medium.frame(0)[:480, :852])
    return video_medium(frames, "camel", fps=24, crf=23)


def _timed(executor: Executor, call: Call, media: list[Medium], history: list[Result], repeats: int) -> list[float]:
    """Seconds of `repeats` warm calls, the media in turn; the first call of each medium is not counted."""
    for medium in media:
        executor.run(call, medium, history)
    seconds = []
    for i in range(repeats):
        execution = executor.run(call, media[i % len(media)], history)
        if execution.result.status != "ok":
            sys.exit(f"{call.op} {call.arguments}: {execution.result.error}")
        seconds.append(execution.seconds)
    return seconds


def latency_rows(media: Path, settings: ToolSettings) -> list[dict]:
    """Warm latency per call at 480p, nothing cached, beside the paper's."""
    executor = Executor(build_toolbox(settings))
    photo, clip = _photo_480p(media), _clip_480p(media)
    page = open_medium(media / "ocr" / "receipt1.jpeg")
    box = [200, 250, 700, 800]
    num_frames = clip.num_frames
    cases: list[tuple[str, Call, list[Medium], int]] = [
        ("ZOOM", Call(op="ZOOM", arguments={"bbox_2d": box}), [photo], 30),
        ("PROP colour", Call(op="PROP", arguments={"what": "colour", "bbox_2d": box}), [photo], 30),
        ("PROP shape", Call(op="PROP", arguments={"what": "shape", "bbox_2d": box}), [photo], 30),
        ("PROP count", Call(op="PROP", arguments={"what": "count", "bbox_2d": [0, 0, 1000, 1000]}), [photo], 30),
        ("SEG box, same image", Call(op="SEG", arguments={"bbox_2d": box}), [photo], 6),
        ("SEG point, same image", Call(op="SEG", arguments={"point": [480, 500]}), [photo], 6),
        ("OCR small crop", Call(op="OCR", arguments={"bbox_2d": [300, 60, 640, 170]}), [page], 10),
        ("OCR page", Call(op="OCR", arguments={}), [page], 3),
        (f"TRK {num_frames} frames", Call(op="TRK", arguments={"bbox_2d": box}), [clip], 3),
        (f"TEMP {num_frames} frames", Call(op="TEMP", arguments={"event": "moves"}), [clip], 3),
    ]
    rows = []
    for name, call, used, repeats in cases:
        seconds = _timed(executor, call, used, [], repeats)
        rows.append({"call": name, "p50_ms": 1000 * float(np.median(seconds)), "p95_ms": 1000 * float(np.quantile(seconds, 0.95))})
        rows[-1]["paper_query_ms"] = 1000 * PAPER_LATENCY_S[call.op]
        if call.op in ("TRK", "TEMP"):
            rows[-1]["frames_per_s"] = num_frames / float(np.median(seconds))
    per_query = {"SEG box": 0.9, "TRK": 0.7, "OCR page": 1.0, "TEMP": 0.4, "PROP colour": 0.7}
    total = sum(share * next(r["p50_ms"] for r in rows if r["call"].startswith(name)) for name, share in per_query.items())
    rows.append(
        {
            "call": "a query with the paper's calls (0.9 SEG, 0.7 TRK, 1.0 OCR page, 0.4 TEMP, 0.7 PROP)",
            "p50_ms": total,
            "paper_query_ms": 5050.0 - 340.0,
        }
    )
    return rows


# ---------------------------------------------------------------- the whole table


def part_rows(part: str, media: Path, engines: list[str], every: int) -> list[dict]:
    options = {"seg": {"every": every}, "temp": {"per_kind": max(2, 12 // every), "least": max(2, 20 // every)}}.get(part, {})
    if engines == DEFAULT_ENGINES[part] and part in BESIDE_THE_DEFAULT:
        options["only_davis"] = BESIDE_THE_DEFAULT[part]
    return importlib.import_module(f"benchmarks.parts.{part}").rows(media, engines, **options)


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table; columns in the order in which they first occur."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}" if abs(value) < 10 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return " to ".join(_cell(v) for v in value)
    return "" if value is None else str(value)


def put(page: Path, printed: str) -> None:
    """Write what was printed between the marks of a page; at its end where it has none. Everything else in the page stays."""
    old = page.read_text() if page.exists() else ""
    begin, end = MARKS
    before, opening, rest = old.partition(begin)
    _, closing, after = rest.partition(end)
    if not (opening and closing):
        before, after = old and old.rstrip("\n") + "\n\n", "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n{printed.rstrip()}\n{end}{after}")


def page_of(command: str, sections: Mapping[str, str]) -> str:
    """One page: its parts, the command that prints it, the machine, and the table of every part."""
    title = ", ".join(part.upper() if part.upper() in OPS else part for part in sections)
    return "\n".join([f"# Measured: {title}\n\n`{command}`: {_machine()}\n", *sections.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=[*PARTS, "latency"], help="only this part; may be given several times")
    parser.add_argument("--engine", action="append", default=[], metavar="PART=NAME", help="an engine to measure instead of the default")
    parser.add_argument("--every", type=int, default=1, help="a quick look: SEG takes every n-th object, TEMP an n-th of the clips")
    parser.add_argument("--out", type=Path, default=None, help="write the Markdown there; to the page of every part when everything is run")
    args = parser.parse_args()
    engines = {part: list(names) for part, names in DEFAULT_ENGINES.items()}
    for part, _, name in (item.partition("=") for item in args.engine):
        engines[part] = [name]
    media = media_folder()
    wanted = args.part or [*PARTS, "latency"]
    work: dict[str, Callable[[], list[dict]]] = {
        part: lambda part=part: part_rows(part, media, engines[part], args.every) for part in PARTS
    }
    work["latency"] = lambda: latency_rows(media, ToolSettings())
    is_all = args.part is None and not args.engine and args.every == 1 and args.out is None
    sections = {}
    for part in wanted:
        start = time.perf_counter()
        sections[part] = f"## {part}\n\n{table(work[part]())}\n\n{NOTES[part]}\n"
        print(sections[part], f"({time.perf_counter() - start:.0f} s)\n", flush=True)
        if is_all:
            name = f"docs/results/{part}.md"
            put(ROOT / name, page_of(f"python benchmarks/tools.py --part {part} --out {name}", {part: sections[part]}))
    if args.out is not None:
        put(args.out, page_of(" ".join(["python", "benchmarks/tools.py", *sys.argv[1:]]), sections))
        print(f"wrote {args.out}")


def _machine() -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES if _version(name))
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; {versions}"


if __name__ == "__main__":
    main()
