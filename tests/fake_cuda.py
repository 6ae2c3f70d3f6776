"""Tensors that are on a GPU in name only: what mixes devices, or makes the host wait for one, fails without a GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
Put = Callable[[Tensor], Tensor]


@contextmanager
def fake_cuda(found: int | None = None) -> Iterator[Put]:
    """A function that puts a tensor on the GPU; inside, ``.to(CUDA)`` does it too.

    Values are unknown there, so that ``.item()``, ``if``, ``unique``, ``nonzero`` and masks as indices fail: all that a
    host waits for. With ``found``, ``if`` holds and ``nonzero`` finds so many. There are no gradients, whose graphs
    abort the process.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def put(values: Tensor) -> Tensor:
        with unset_fake_temporarily():
            return FakeTensor(mode, values.to("meta"), CUDA)

    with mode, _Stand(put, found), torch.no_grad():
        yield put


def moved(module: nn.Module, put: Put) -> nn.Module:
    """The module with its weights and buffers on the GPU."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(put(weight.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = put(buffer)
    return module


class _Stand(TorchFunctionMode):
    """Stands in for what asks for parts of CUDA that a build without it lacks, even for tensors without values."""

    def __init__(self, put: Put, found: int | None) -> None:
        super().__init__()
        self._put, self._found = put, found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in STANDS:
            return STANDS[func](*args)
        if self._found is not None and func is Tensor.__bool__:
            return True
        if self._found is not None and func is Tensor.nonzero:
            return tuple(args[0].new_zeros(self._found, dtype=torch.int64) for _ in range(args[0].dim()))
        if func in (functional.conv1d, torch.gru):
            assert {values.device for values in tree_leaves(args) if isinstance(values, Tensor)} == {CUDA}
            return tree_map_only(Tensor, self._put, func(*tree_map_only(Tensor, _shape, args)))
        return func(*args, **(kwargs or {}))


def _shape(values: Tensor) -> Tensor:
    with unset_fake_temporarily():
        return torch.empty(values.shape, dtype=values.dtype, device="meta")


def _assign(values: Tensor, key: Any, new: Any) -> None:
    new = new if isinstance(new, Tensor) else torch.tensor(new)
    keys = key if isinstance(key, tuple) else (key,)
    if all(isinstance(one, Tensor) for one in keys):
        values.index_put_(keys, new)
    else:
        _item(values, key).copy_(new)


def _item(values: Tensor, key: Any) -> Tensor:
    keys = list(key) if isinstance(key, tuple) else [key]
    named = sum(one is not None and one is not Ellipsis for one in keys)
    dim, at = 0, dict[int, Tensor]()
    for one in keys:
        if one is Ellipsis:
            dim += values.dim() - dim - named
        elif one is None:
            values = values.unsqueeze(dim)
        elif isinstance(one, int):
            values = values.select(dim, one)
        elif isinstance(one, slice):
            values = torch.ops.aten.slice(values, dim, one.start, one.stop, one.step or 1)
        else:
            at[dim] = one
        named -= one is not None and one is not Ellipsis
        dim += not isinstance(one, int) and one is not Ellipsis
    return torch.ops.aten.index(values, [at.get(place) for place in range(max(at) + 1)]) if at else values


STANDS = {Tensor.__getitem__: _item, Tensor.__setitem__: _assign, Tensor.__invert__: torch.bitwise_not}
