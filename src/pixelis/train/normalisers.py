"""What SFT measures and leaves beside the weights: token normalisers and per-tool scalers, as `normalisers.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS, OcrOutput, Output, PropOutput, SegOutput, TempOutput, TrkOutput
from pixelis.core.trajectory import Trajectory

FILE = "normalisers.json"


def moments(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean, variance and count; None for both where there is nothing to average."""
    if not len(values):
        return {"mean": None, "variance": None, "count": 0}
    return {"mean": float(np.mean(values)), "variance": float(np.var(values)), "count": len(values)}


def tool_scalers(trajectories: Iterable[Trajectory]) -> dict[str, dict]:
    """Per op, the moments of its own confidence over successful calls, and its share of calls that succeeded."""
    confidence: dict[str, list[float]] = {op: [] for op in OPS}
    calls, successes = dict.fromkeys(OPS, 0), dict.fromkeys(OPS, 0)
    for trajectory in trajectories:
        for step in trajectory.steps:
            if step.call is None:
                continue
            calls[step.call.op] += 1
            if step.result.output is not None:
                successes[step.call.op] += 1
                value = confidence_of(step.result.output)
                if value is not None:
                    confidence[step.call.op].append(value)
    return {op: {"confidence": moments(np.array(confidence[op])), "calls": calls[op], "successes": successes[op]} for op in OPS}


def confidence_of(output: Output) -> float | None:
    """A tool's own confidence in [0, 1]; None where it gives none, or found nothing."""
    match output:
        case SegOutput() | TrkOutput():
            return output.score
        case OcrOutput():
            return float(np.mean([span.confidence for span in output.spans])) if output.spans else None
        case TempOutput():
            return output.segments[0].score if output.segments else None
        case PropOutput():
            return output.attributes[0].confidence if output.attributes else None
    return None


def write_normalisers(folder: str | Path, logp_N: np.ndarray, entropy_N: np.ndarray, tools: dict[str, dict]) -> Path:
    """Write the file.

    Args:
        logp_N, entropy_N: of the policy's tokens on the dev split, in nats.
    """
    path = Path(folder) / FILE
    values = {"token_logp_nats": moments(logp_N), "token_entropy_nats": moments(entropy_N), "tools": tools}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return path


def read_normalisers(folder: str | Path) -> dict[str, Any]:
    """Raises: DataError: the checkpoint brings none, or the file is damaged."""
    path = Path(folder) / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{path} is missing: the checkpoint was not made by SFT, which leaves it") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
