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

from pixelis.core.errors import ConfigError, NotInstalled
from pixelis.train.optim import Optimizer

T = TypeVar("T")


class Ranks:
    """One process, or one of several.

    Args:
        accelerator: of the accelerate library; None when this process is alone.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.count: int = accelerator.num_processes if accelerator else 1

    @classmethod
    def found(cls) -> Ranks:
        """As a launcher says in the environment.

        Raises:
            NotInstalled: several processes without accelerate.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1 and "ACCELERATE_MIXED_PRECISION" not in os.environ:
            return cls()
        try:
            from accelerate import Accelerator
        except ImportError:
            raise NotInstalled("accelerate, for training in several processes", "pip install 'pixelis[vlm]'") from None
        return cls(Accelerator(cpu=not torch.cuda.is_available()))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> str:
        """Where this process keeps its model; "auto" when it is alone."""
        return str(self._accelerator.device) if self._accelerator else "auto"

    def own(self, path: Path) -> Path:
        """A file of this process: the first one's is called as it is, the others' bear their number."""
        return path if self.is_first else path.with_name(f"{path.stem}-{self.rank}{path.suffix}")

    def prepare(self, module: nn.Module, optimizer: Optimizer, *, whole: Sequence[nn.Module] = ()) -> nn.Module:
        """Spread a module over the processes as they were launched (copies, or FSDP's shards) and let the optimiser step what is here.

        Args:
            whole: parts that every process keeps and that do not learn.

        Raises:
            ConfigError: Muon under FSDP, which needs matrices in one piece; or FSDP's first version, which flattens them.
        """
        if self._accelerator is None:
            return module
        plugin = self._accelerator.state.fsdp_plugin
        if plugin is not None:
            if plugin.fsdp_version != 2:
                raise ConfigError("sharding wants FSDP's second version: accelerate launch --use_fsdp --fsdp_version 2")
            if any(isinstance(member, torch.optim.Muon) for member in optimizer.members):
                raise ConfigError("Muon orthogonalises whole matrices, FSDP cuts them: set use_muon = false, or launch without --use_fsdp")
            plugin.ignored_modules = list(whole)
        prepared, *optimizer.members = self._accelerator.prepare(module, *optimizer.members)
        return prepared

    @contextmanager
    def gathering(self, module: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Around the backward pass of one of several doses: gradients travel with the last."""
        with nullcontext() if self._accelerator is None or is_last else self._accelerator.no_sync(module):
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
        summed = self._accelerator.reduce(torch.tensor(values, dtype=torch.float32, device=self._accelerator.device), "sum")
        return [float(value) for value in summed]

    def gather(self, values: Sequence[T]) -> list[T]:
        """What all processes have, the first one's first."""
        if self.count == 1:
            return list(values)
        from accelerate.utils import gather_object

        return gather_object(list(values))

    def wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor put together from the processes' shards; any other stays as it is. All processes must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
