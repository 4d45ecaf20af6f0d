"""Fit the small network that fuses SEG's cues, say how well it does on what it has not seen, and write its weights.

    python benchmarks/parts/seg_fit.py MEDIA_FOLDER [--write]

Training scenes: frames of the DAVIS clips, COCO objects above 32 x 32 px, drawn shapes. Folds keep a clip or an image together, so every
printed IoU is of a clip or image that the fold's network never saw. Needs torch; using the weights does not.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import numpy as np
import torch
from seg import coco_items, davis_items, drawn_items, iou, tight_box
from torch import nn

from pixelis.tools.engines.seg_common import whole_pixels
from pixelis.tools.engines.seg_features import measure, window_around
from pixelis.tools.engines.seg_saliency import Saliency

NUM_FOLDS, HIDDEN, EPOCHS, BATCH = 5, 8, 5, 1024
CUT = 0.42  # share above which a pixel counts as object: below one half, because IoU forgives a pixel too many sooner than one too few
SAMPLES = {"davis": 1800, "coco": 300, "drawn": 300}  # pixels per object: there are few clips and many COCO objects
TARGET = Path(__file__).resolve().parents[2] / "src" / "pixelis" / "tools" / "engines" / "seg_weights.py"


def collect(media: Path) -> tuple[list[dict], list[dict]]:
    """Features and truth of every object, with the saliency network and without it."""
    import cv2

    saliency, with_net, without = Saliency(), [], []
    for item in [*davis_items(media, frames=6), *coco_items(media), *drawn_items(120, seed=1)]:
        box = whole_pixels(tight_box(item.mask), item.mask.shape)
        x0, y0, x1, y1 = window_around(box, item.mask.shape)
        logits = saliency.logits(item.image[y0:y1, x0:x1])
        for store, maps in ((with_net, logits), (without, None)):
            found = measure(item.image, box, maps)
            size = found.inside_hw.shape[::-1]
            truth = cv2.resize(item.mask[y0:y1, x0:x1].astype(np.float32), size, interpolation=cv2.INTER_AREA)
            store.append({"set": item.set, "group": item.group, "x": found.planes_FP, "y": truth[found.inside_hw]})
    return with_net, without


def train(objects: list[dict]) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    picks = [rng.integers(0, o["x"].shape[1], SAMPLES[o["set"]]) for o in objects]
    x = torch.tensor(np.concatenate([o["x"][:, p].T for o, p in zip(objects, picks, strict=True)]))
    y = torch.tensor(np.concatenate([o["y"][p] for o, p in zip(objects, picks, strict=True)]))
    mean, std = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / std
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    steps = EPOCHS * len(x) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        pick = torch.randint(0, len(x), (BATCH,))
        loss = nn.functional.binary_cross_entropy_with_logits(net(x[pick])[:, 0], y[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net, mean, std


def cross_validate(objects: list[dict]) -> np.ndarray:
    """IoU of every object inside its box, by the network whose training left out the object's clip or image."""
    groups = sorted({o["group"] for o in objects})
    order = np.random.default_rng(1).permutation(len(groups))
    fold = {groups[g]: i % NUM_FOLDS for i, g in enumerate(order)}
    found = np.zeros(len(objects))
    for k in range(NUM_FOLDS):
        net, mean, std = train([o for o in objects if fold[o["group"]] != k])
        with torch.no_grad():
            for i, o in enumerate(objects):
                if fold[o["group"]] == k:
                    share = torch.sigmoid(net((torch.tensor(o["x"].T) - mean) / std)[:, 0]).numpy()
                    found[i] = iou(share > CUT, o["y"] > 0.5)
    return found


def as_text(name: str, net: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> str:
    """One weight set as Python source; the input's mean and spread are folded into the first layer."""
    first, second, last = net[0], net[2], net[4]
    weight = first.weight.data / std
    layers = [
        (weight, first.bias.data - weight @ mean),
        (second.weight.data, second.bias.data),
        (last.weight.data, last.bias.data),
    ]
    rows = ",\n".join(f"    ({_numbers(w.flatten())}, {_numbers(b)})" for w, b in layers)
    return f"{name} = (\n{rows},\n)\n"


def _numbers(values: torch.Tensor) -> str:
    text = ", ".join(f"{float(v):.5g}" for v in values)
    return "[\n" + textwrap.fill(text, 138, initial_indent="        ", subsequent_indent="        ") + "\n    ]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    what = "Weights of SEG's fusion network, written by benchmarks/parts/seg_fit.py: one (matrix, bias) pair a layer, row by row."
    text = f'"""{what}"""\n\n# fmt: off\n'
    for name, objects in zip(("WITH_SALIENCY", "CLASSICAL"), collect(args.media), strict=True):
        found = cross_validate(objects)
        for kind in SAMPLES:
            scores = found[[o["set"] == kind for o in objects]]
            print(
                f"{name:14s} {kind:6s} n {len(scores):3d}  held-out mIoU {scores.mean():.3f}  >= 0.5: {(scores >= 0.5).mean():.3f}",
                flush=True,
            )
        text += "\n" + as_text(name, *train(objects))
    if args.write:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
