"""Loader for the public PixelReasoner SFT format: chat messages with pictures become our trajectories.

The format (hub: TIGER-Lab/PixelReasoner-SFT-Data, `release.json` with images.zip and videos.zip unpacked beside it; GitHub:
TIGER-AI-Lab/Pixel-Reasoner): a JSON list of `{"qid": ..., "message_list": [{"role", "content": [part, ...]}, ...]}`. A part holds one of
`text`, `image` (a path) and `video` (a list of frame paths). Messages: the system's tool declarations; the user's question with its
medium; then the assistant's thought with `<tool_call>{"name", "arguments"}</tool_call>` and a user message with the result, in turn;
last, the assistant's answer in `\\boxed{}`. Two tools: `crop_image_normalized(bbox_2d in [0, 1], target_image counted from 1)` and
`select_frames(target_frames counted from 1)`.

What becomes of it:

- A crop is ZOOM; its box, which counts in the picture it names (an earlier crop too), becomes integers 0-1000 of the original.
- Their executor pads every crop by 0.1 of the picture on each side (at most 600 px in later versions); the step's footprint is that
  padded region where the recorded crop's size agrees, for what was shown counts and not what was asked.
- select_frames of k frames is k ZOOM steps of whole frames, since ZOOM shows one at a time; the thought stays with the first. The video
  is made of its loose frames at 1 frame per second, since the source numbers frames and does not time them.
- Results keep the recorded pictures under the engine "recorded"; they were made by another executor and do not replay. Results and
  turns are written in our wire format; system message, `Guidelines:` paragraph and result phrases of the source are left out.

What has no honest counterpart is refused with its reason (`Conversion.refusal`); what is mapped with a loss says so (`losses`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core import jsontext
from pixelis.core.errors import DataError, GrammarError
from pixelis.core.geometry import Box, View, box_to_wire, seconds_to_wire
from pixelis.core.grammar import CALL_CLOSE, CALL_OPEN, Turn, parse_turn, render_response, render_turn
from pixelis.core.media import Medium, open_medium, png_bytes
from pixelis.core.ops import Call, CallError, Result, ZoomOutput
from pixelis.core.store import sha256
from pixelis.core.trajectory import PolicyInfo, Step, Trajectory, trajectory_id
from pixelis.core.wire import result_to_wire
from pixelis.data.cota.pixel_reasoner_boxes import NoCounterpartError, Picture, share_of, shown_by
from pixelis.data.cota.pixel_reasoner_messages import Message, last_boxed, read_messages, read_records
from pixelis.data.world.encode import mp4_bytes

DATA_SET = "PixelReasoner-SFT-Data"
RECORDED = "recorded"
CROPS, FRAMES = ("crop_image_normalized", "crop_image"), "select_frames"
_CALL = re.compile(f"{CALL_OPEN}(.*?){CALL_CLOSE}", re.DOTALL)
_GUIDELINES = re.compile(r"(?:^|\n)\s*Guidelines:.*\Z", re.DOTALL)
_THINK = re.compile(r"</?think>")
_VIDEO_FILES = (".mp4", ".webm", ".mkv", ".avi", ".mov")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """One record of the source: a trajectory, or why there is none."""

    source: str
    """File and line where the record starts."""
    qid: str
    trajectory: Trajectory | None = None
    refusal: str = ""
    """Why the record has no honest counterpart; empty when there is a trajectory."""
    losses: tuple[str, ...] = ()
    """What the trajectory says less exactly than the source."""
    medium_path: Path | None = None
    """The medium's own file; None when it was made of loose frames and lies among the blobs."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """By SHA-256: recorded pictures as PNG, and a video made of loose frames."""


def read_pixel_reasoner(
    path: str | os.PathLike, *, media_root: str | os.PathLike | None = None, is_strict: bool = True
) -> Iterator[Conversion]:
    """Every record of a file in order, converted or refused.

    Args:
        path: `release.json` or its like, a JSON list, or one record a line.
        media_root: where `images/` and `videos/` lie; the file's own folder unless given.
        is_strict: False turns a damaged record into a refusal, so that it costs itself and not the set.

    Raises:
        DataError: the file is missing, no JSON, cut off or empty; a record is damaged or its media are missing (each is named).
    """
    path = Path(path)
    root = Path(media_root) if media_root is not None else path.parent
    num_records = 0
    for line, record in read_records(path):
        num_records += 1
        where = f"{path}:{line}"
        try:
            yield convert_record(record, where=where, media_root=root)
        except DataError as error:
            if is_strict:
                raise
            qid = str(record.get("qid", "")) if isinstance(record, dict) else ""
            yield Conversion(source=where, qid=qid, refusal=str(error).removeprefix(f"{where}: "))
    if not num_records:
        raise DataError(f"{path}: there is no record in it: download it again")


def convert_record(record: Any, *, where: str, media_root: Path) -> Conversion:
    """One record as a trajectory, or a refusal with its reason.

    Raises:
        DataError: the record is damaged, or media are missing; the text names `where`.
    """
    messages = read_messages(record, where=where)
    _check_media(messages, where=where, root=media_root)
    qid = str(record.get("qid", ""))
    try:
        return _convert(messages, qid=qid, where=where, root=media_root)
    except NoCounterpartError as reason:
        return Conversion(source=where, qid=qid, refusal=str(reason))
    except DataError as error:  # of a medium, which does not know whose it is
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _check_media(messages: tuple[Message, ...], *, where: str, root: Path) -> None:
    names = dict.fromkeys(name for message in messages for name in message.media)
    missing = [name for name in names if not os.path.isfile(root / name)]  # False, too, for a name that no file can have
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(names)} media are missing under {root}: {', '.join(missing)}. "
            "Unpack images.zip and videos.zip there, or name another folder"
        )


@dataclass
class _Progress:
    """What the conversion of one record has gathered so far."""

    medium: Medium
    root: Path
    num_frames: int
    """How many loose frames the medium was made of; 0 for an image or a video file."""
    pictures: list[Picture]
    """What `target_image` counts: the image and its crops; of a video the pictures after it."""
    steps: list[Step] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def whole(self) -> Box:
        return Box(0.0, 0.0, float(self.medium.width), float(self.medium.height))


def _convert(messages: tuple[Message, ...], *, qid: str, where: str, root: Path) -> Conversion:
    question = _GUIDELINES.sub("", messages[0].text).strip()
    if not question:
        raise DataError(f"{where}: the first user message holds no question")
    progress = _open(messages[0], root)
    with progress.medium as medium:
        for number in range(1, len(messages) - 1, 2):
            _take_turn(messages[number], messages[number + 1], progress)
        answer, final_text = _final(messages[-1].text)
        policy = PolicyInfo(name=DATA_SET, version="1")
        trajectory = Trajectory(
            id=trajectory_id(question=question, medium=medium.sha256, policy=policy, seed=0, task_id=qid),
            question=question,
            medium=medium.info,
            policy=policy,
            seed=0,
            steps=tuple(progress.steps),
            stop="answered",
            answer=answer,
            final_text=final_text,
            engines={"ZOOM": RECORDED} if progress.steps else {},
            task_id=qid,
        )
    losses = tuple(dict.fromkeys(progress.losses))
    return Conversion(source=where, qid=qid, trajectory=trajectory, losses=losses, medium_path=medium.path, blobs=progress.blobs)


# ---------------------------------------------------------------- the medium


def _open(message: Message, root: Path) -> _Progress:
    """The medium of the first message, opened."""
    if len(message.images) + len(message.videos) != 1:
        found = f"{len(message.images)} images and {len(message.videos)} videos"
        raise NoCounterpartError(f"the question comes with {found}: a trajectory is about one medium")
    if message.images:
        medium = open_medium(root / message.images[0])
        if medium.kind != "image":
            medium.close()
            raise NoCounterpartError(f"{message.images[0]} is given as an image, but it moves")
        return _Progress(medium, root, 0, [Picture(0, Box(0.0, 0.0, float(medium.width), float(medium.height)), is_whole=True)])
    names = message.videos[0]
    if len(names) == 1 and Path(names[0]).suffix.lower() in _VIDEO_FILES:
        return _Progress(open_medium(root / names[0]), root, 0, [])
    data = _film([_pixels(root / name) for name in names])
    medium = open_medium(data, name=Path(names[0]).parent.name or Path(names[0]).stem)
    loss = f"the video is made of its {len(names)} loose frames at 1 frame per second; the source does not time them"
    return _Progress(medium, root, len(names), [], losses=[loss], blobs={medium.sha256: data})


def _film(frames: list[np.ndarray]) -> bytes:
    """Loose frames as one near-lossless video, frame i at i seconds; an odd last row or column is cut: H.264 has even sides."""
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise NoCounterpartError(f"the video's frames have {len(sizes)} different sizes: coordinates would not mean the same on each")
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    if not height or not width:
        raise NoCounterpartError("the video's frames are one pixel high or wide")
    return mp4_bytes((frame[:height, :width] for frame in frames), fps=1, width=width, height=height)


def _pixels(path: Path) -> np.ndarray:
    with open_medium(path) as picture:
        return picture.frame(0)


# ---------------------------------------------------------------- turns


def _take_turn(asked: Message, reply: Message, progress: _Progress) -> None:
    """One call and its result, as one ZOOM step or several."""
    calls = _CALL.findall(asked.text)
    if len(calls) != 1:
        raise NoCounterpartError(f"a turn before the last holds {len(calls)} calls: a step has one")
    before, _, rest = asked.text.partition(CALL_OPEN)
    after = rest.partition(CALL_CLOSE)[2].strip()
    if after:
        progress.losses.append(f"{len(after)} characters behind a call are left out")
    name, arguments = _read_call(calls[0])
    thought, pictures = _thought(before), [*reply.images, *(frame for video in reply.videos for frame in video)]
    if name in CROPS:
        _crop(arguments, thought, pictures, reply.text.strip(), progress)
    elif name == FRAMES:
        _select(arguments, thought, pictures, progress)
    else:
        raise NoCounterpartError(f"unknown tool {str(name)[:40]!r}: known are {', '.join((*CROPS, FRAMES))}")


def _read_call(body: str) -> tuple[Any, dict]:
    try:
        value = jsontext.loads(body)
    except (ValueError, RecursionError) as error:
        raise NoCounterpartError(f"a call is not JSON ({str(error)[:60]})") from None
    if not isinstance(value, dict) or not isinstance(value.get("arguments"), dict):
        raise NoCounterpartError("a call is no object with name and arguments")
    return value.get("name"), value["arguments"]


def _thought(text: str) -> str:
    return _THINK.sub("", text).strip()


def _crop(arguments: dict, thought: str, pictures: list[str], text: str, progress: _Progress) -> None:
    """crop_image_normalized as ZOOM; a reply without a picture is the error that its text tells."""
    picture = _target(arguments.get("target_image"), progress)
    share, is_in_pixels = share_of(arguments.get("bbox_2d"), picture)
    progress.losses += ["a box was written in pixels"] * is_in_pixels
    wire = box_to_wire(picture.to_original(share), width=progress.medium.width, height=progress.medium.height)
    call = Call(op="ZOOM", arguments={"bbox_2d": wire, **_moment(picture, progress)})
    if len(pictures) == 1:
        pixels = _pixels(progress.root / pictures[0])
        size = (pixels.shape[1], pixels.shape[0])
        shown, fits = shown_by(size, share, picture)
        if not fits:
            progress.losses.append(f"a crop of {size[0]}x{size[1]} px fits neither its box nor the padded one: its box counts as shown")
        _add_step(thought, call, _zoomed(pixels, shown, progress), progress)
        progress.pictures.append(shown)
    elif not pictures and text:
        error = CallError(kind="bad_arguments", message=text[:300])
        _add_step(thought, call, Result(op="ZOOM", status="error", engine=RECORDED, version=DATA_SET, error=error), progress)
    else:
        raise NoCounterpartError(f"a crop was answered with {len(pictures)} pictures: one is a result, none with a text is an error")


def _select(arguments: dict, thought: str, pictures: list[str], progress: _Progress) -> None:
    """select_frames as one ZOOM of the whole frame for each; only the first carries the thought."""
    frames = arguments.get("target_frames")
    if not progress.num_frames:
        raise NoCounterpartError("select_frames on something else than loose frames: which frames the numbers mean is not recorded")
    if not isinstance(frames, list) or not frames or not all(type(f) is int and 1 <= f <= progress.num_frames for f in frames):
        raise NoCounterpartError(f"target_frames {str(frames)[:60]} are no frames from 1 to {progress.num_frames}")
    if len(pictures) != len(frames):
        raise NoCounterpartError(f"{len(frames)} frames were asked for and {len(pictures)} came back: no step of ours fails in part")
    if len(frames) > 1:
        progress.losses.append(f"one select_frames of {len(frames)} frames became {len(frames)} ZOOM steps")
    for number, (frame, name) in enumerate(zip(frames, pictures, strict=True)):
        shown = Picture(frame - 1, progress.whole, is_whole=True)
        call = Call(op="ZOOM", arguments=_moment(shown, progress))
        _add_step("" if number else thought, call, _zoomed(_pixels(progress.root / name), shown, progress), progress)
        progress.pictures.append(shown)


def _target(number: Any, progress: _Progress) -> Picture:
    """The picture that `target_image` names: of an image and its crops; of a video what was shown after it, before that its frames."""
    if progress.medium.kind == "video" and not progress.pictures:
        choices = [Picture(frame, progress.whole, is_whole=True) for frame in range(progress.num_frames)]
    else:
        choices = progress.pictures
    is_number = isinstance(number, int | float) and not isinstance(number, bool) and number == int(number)
    if not is_number or not 1 <= number <= len(choices):
        raise NoCounterpartError(f"target_image {str(number)[:20]} names none of the {len(choices)} pictures")
    return choices[int(number) - 1]


def _moment(picture: Picture, progress: _Progress) -> dict[str, float]:
    if progress.medium.kind == "image":
        return {}
    return {"frame": seconds_to_wire(float(progress.medium.times_s[picture.frame]))}


def _zoomed(pixels: np.ndarray, shown: Picture, progress: _Progress) -> Result:
    height, width = pixels.shape[:2]
    data = png_bytes(pixels)
    name = sha256(data)
    progress.blobs[name] = data
    region = shown.region
    view = View(region.x0, region.y0, width / region.width, height / region.height)
    output = ZoomOutput(frame=shown.frame, box=region, view=view, width=width, height=height, image=name)
    return Result(op="ZOOM", status="ok", engine=RECORDED, version=DATA_SET, output=output)


def _add_step(thought: str, call: Call, result: Result, progress: _Progress) -> None:
    text = _render(Turn(thought=thought, call=call))
    response = render_response(result_to_wire(result, step=len(progress.steps) + 1, info=progress.medium.info))
    progress.steps.append(Step(thought=thought, text=text, call=call, result=result, response=response))


def _render(turn: Turn) -> str:
    try:
        return render_turn(turn)
    except ValueError:
        raise NoCounterpartError("a thought or answer holds one of our own tags") from None


# ---------------------------------------------------------------- the answer


def _final(text: str) -> tuple[str, str]:
    """The answer and the last turn's text: the last `\\boxed{}` (its content stays in the thought), else our own answer tag."""
    if CALL_OPEN in text:
        raise NoCounterpartError("the conversation ends with a call")
    boxed = last_boxed(text)
    if boxed is None:
        try:
            turn = parse_turn(text)
        except GrammarError as error:
            raise NoCounterpartError(f"the last turn cannot be read: {error.message}") from None
    else:
        start, stop, content = boxed
        turn = Turn(thought=text[:start] + content + text[stop:], answer=content)
    if not turn.answer:
        raise NoCounterpartError("the last turn has no answer")
    turn = Turn(thought=_thought(turn.thought), answer=turn.answer)
    return turn.answer, _render(turn)
