"""The processes that train one model together: this one alone, or as many as `accelerate launch` has started, whose doses are shared out.

Everything that a run decides (totals, hardness, when to stop) is the same in all of them; only the first writes and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pixelis.core.errors import NotInstalled

T = TypeVar("T")


class Ranks:
    """One process, or one of several.

    Args:
        state: accelerate's, which knows the processes; None when this one is alone.
        is_sharded: each keeps a part of the weights (FSDP), instead of a copy of all.
    """

    def __init__(self, state: Any = None, *, is_sharded: bool = False) -> None:
        self._state, self.is_sharded = state, is_sharded
        self.rank: int = state.process_index if state else 0
        self.count: int = state.num_processes if state else 1

    @classmethod
    def found(cls) -> Ranks:
        """As `accelerate launch` or `torchrun` say in the environment; `--use_fsdp`, or ACCELERATE_USE_FSDP=true, for shards.

        Raises:
            NotInstalled: several processes without accelerate.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from accelerate import PartialState
        except ImportError:
            raise NotInstalled("accelerate, for training in several processes", "pip install 'pixelis[vlm]'") from None
        return cls(PartialState(cpu=not torch.cuda.is_available()), is_sharded=os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true")

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> str:
        """Where this process keeps its model; "auto" when it is alone."""
        return str(self._state.device) if self._state else "auto"

    def own(self, path: Path) -> Path:
        """A file of this process: the first one's is called as it is, the others' bear their number."""
        return path if self.is_first else path.with_name(f"{path.stem}-{self.rank}{path.suffix}")

    def prepare(self, module: nn.Module, *, blocks: Sequence[nn.Module], whole: nn.Module) -> nn.Module:
        """Spread a module over the processes, as copies or as shards. The optimiser is made afterwards: shards are other parameters.

        Args:
            blocks: parts that are gathered one at a time.
            whole: a part that every process keeps and that does not learn.
        """
        if self._state is None:
            return module
        if not self.is_sharded:
            device = self._state.device
            return nn.parallel.DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
        mesh, kept = init_device_mesh(self._state.device.type, (self.count,)), set(whole.parameters())
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return fully_shard(module, mesh=mesh, ignored_params=kept)

    @contextmanager
    def gathering(self, module: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Around the passes over one of several doses: gradients travel with the last."""
        if self._state is not None and self.is_sharded:
            module.set_requires_gradient_sync(is_last)
        with nullcontext() if self._state is None or self.is_sharded or is_last else module.no_sync():
            yield

    def deal(self, items: Sequence[T]) -> list[tuple[int, T, bool]]:
        """This process's share of a group: (number, item, whether it counts). All processes get as many, because they must take equally
        many passes: whoever has none left goes through the first item once more without learning from it."""
        rows = list(zip_longest(*[iter(enumerate(items))] * self.count))
        return [(*row[self.rank], True) if row[self.rank] is not None else (0, items[0], False) for row in rows]

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        if self.count == 1:
            return [float(value) for value in values]
        summed = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self._state.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()

    def gather(self, values: Sequence[T]) -> list[T]:
        """What all processes have, the first one's first."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import gather_object

        return gather_object(list(values))

    def wait(self) -> None:
        if self._state is not None:
            self._state.wait_for_everyone()


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor put together from the processes' shards; any other stays as it is. All processes must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
