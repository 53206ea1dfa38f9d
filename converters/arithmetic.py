"""Sums, products and their like: what they mean to spikes, and which numbers they multiply by."""

import operator
from collections.abc import Mapping
from operator import attrgetter

import torch
from torch import fx

from converters.kinds import Kind, operands

__all__ = ["ARITHMETIC", "arithmetic_kind", "factor_on"]

_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_PRODUCTS = {operator.mul, torch.mul, torch.multiply, "mul", "multiply"}
_DIVISIONS = {
    operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide",
}  # fmt: skip
_NEGATIONS = {operator.neg, torch.neg, torch.negative, "neg", "negative"}
_SUBTRACTIONS = {operator.sub, torch.sub, torch.subtract, "sub", "subtract"}
ARITHMETIC = _ADDITIONS | _SUBTRACTIONS | _PRODUCTS | _DIVISIONS | _NEGATIONS


def arithmetic_kind(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> Kind:
    """Of an operation of `ARITHMETIC`, from the kinds of those before it."""
    varying = operands(node, kinds)
    if len(varying) == 1:
        (values,) = varying
        if kinds[values] is Kind.AFFINE or _comes_from(Kind.INPUT, values, kinds):
            divides_by_image = node.target in _DIVISIONS and node.args[:1] != (values,)
            return Kind.UNSUPPORTED if divides_by_image else Kind.AFFINE
        scales = _comes_from(Kind.RELU, values, kinds) and _multiplies(node, values)
        return Kind.AFFINE if scales else Kind.UNSUPPORTED
    weighted = "alpha" in node.kwargs or "out" in node.kwargs  # alpha alone was made a product
    of_images = all(_comes_from(Kind.INPUT, below, kinds) for below in varying)
    if node.target in _ADDITIONS and len(varying) == 2 and not of_images and not weighted:
        return Kind.SUM
    return Kind.UNSUPPORTED


def _multiplies(node: fx.Node, values: fx.Node) -> bool:
    """Whether this multiplies these values by numbers that are there, or divides them by such."""
    if node.kwargs or any(each.op != "get_attr" for each in node.all_input_nodes if each != values):
        return False  # by a size, which may be the batch's
    divides = node.target in _DIVISIONS and node.args[:1] == (values,)
    return divides or node.target in _PRODUCTS | _NEGATIONS


def _comes_from(source: Kind, node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether all of these values come from ReLUs, so that spikes stand for them, or the images."""
    if kinds[node] in (Kind.PASS, Kind.AVERAGE, Kind.AFFINE, Kind.JOIN):
        below = [each for each in node.all_input_nodes if kinds[each] is not Kind.CONSTANT]
        return all(_comes_from(source, each, kinds) for each in below)
    return kinds[node] is source


def factor_on(network: fx.GraphModule, node: fx.Node) -> float | None:
    """The number that this multiplies its only other operand by; None if it does anything else."""
    if node.op == "call_module" or node.kwargs:
        return None
    if node.target in _NEGATIONS:
        return -1.0
    if node.target not in _PRODUCTS | _DIVISIONS or len(node.args) != 2:
        return None
    divides = node.target in _DIVISIONS
    numbers = [_number(network, each) for each in node.args]
    given = [each for each in numbers if each is not None]
    if len(given) != 1 or (divides and (numbers[1] is None or numbers[1] == 0)):
        return None
    return 1 / given[0] if divides else given[0]


def _number(network: fx.GraphModule, value: object) -> float | None:
    """A number, or a tensor of the network's that holds a single one."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    found = attrgetter(str(value.target))(network)
    return float(found.detach()) if isinstance(found, torch.Tensor) and found.numel() == 1 else None
