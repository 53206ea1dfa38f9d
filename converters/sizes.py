"""Sizes that Python asks for while a network is traced."""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from converters.operations import is_size

__all__ = ["SizedTracer", "depends_on_values"]

_Known = TypeVar("_Known")


class _Proxy(fx.Proxy):
    """Stands for a value; a size is known where Python wants a number."""

    tracer: "SizedTracer"

    def __getattr__(self, k: str) -> Any:  # noqa: ANN401  # as its base class
        if k in ("shape", "ndim"):  # whose proxy would be of the base class
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        if k == "prod" and not depends_on_values(self.node):  # what numpy.prod asks a size for
            return lambda **_: math.prod(self)
        return super().__getattr__(k)

    def __len__(self) -> int:
        return self.tracer.known(self, len)

    def __int__(self) -> int:
        return self.tracer.known(self, int)

    def __index__(self) -> int:
        return self.tracer.known(self, operator.index)

    def __float__(self) -> float:
        return self.tracer.known(self, float)


class SizedTracer(fx.Tracer):
    """Follows a forward that branches or loops on sizes too, as its images have them.

    Sizes stay in the graph: only a number that Python itself needs is computed, from what has been
    traced so far. One that differs with the number of images has no value yet.

    Args:
        images: (N, ...), some that the network takes; without any, no size is known.
    """

    def __init__(self, images: Tensor | None) -> None:
        super().__init__()
        self._images = images
        self._computes = False

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401  # as its base class
        """Of every module that is called meanwhile, also where sizes are computed."""
        if self._computes or all(m is not each for each in self.root.modules()):  # nn.ReLU()(x)
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(
        self,
        attr: str,
        attr_val: Any,  # noqa: ANN401  # as its base class
        parameter_proxy_cache: dict[str, Any],
    ) -> Any:  # noqa: ANN401  # as its base class
        """Of every attribute of a module, also where sizes are computed."""
        if self._computes:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """One that knows its size."""
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """The proxies of what a size, or the like, consists of."""
        return (obj[index] for index in range(self.known(obj, len)))  # type: ignore[index]  # fx

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Which way Python goes."""
        return self.known(obj, bool)

    def known(self, proxy: fx.Proxy, asked: Callable[[Any], _Known]) -> _Known:
        """What Python asks of a size, or a length, if the number of images does not matter."""
        if asked is not len and depends_on_values(proxy.node):
            raise TraceError("it asks for the value of a tensor")
        if self._images is None:
            raise TraceError("it asks for a size, and there are no images to tell it")
        prefix, copied = fx.Graph(), dict[fx.Node, fx.Node]()
        prefix.graph_copy(self.graph, copied)
        prefix.output(copied[proxy.node])
        given = self._images[:1].to(next(self.root.parameters(), self._images))
        self._computes = True
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                of_one, of_two = (
                    asked(fx.Interpreter(self.root, graph=prefix).run(torch.cat([given] * count)))
                    for count in (1, 2)
                )
        finally:
            self._computes = False
        if of_one != of_two:
            raise TraceError(
                "the number of images is no number yet; "
                "for len(x) or int(x.size(0)) write x.size(0)"
            )
        return of_one


def depends_on_values(node: fx.Node) -> bool:
    """Whether a value follows from pixels, not from their numbers alone."""
    seen, waiting = {node}, [node]
    while waiting:
        each = waiting.pop()
        if each.op == "placeholder":
            return True
        if is_size(each):
            continue
        for below in each.all_input_nodes:
            if below not in seen:
                seen.add(below)
                waiting.append(below)
    return False
