"""Which ReLU belongs to a current: the neurons that the current drives take its place."""

from collections.abc import Iterator, Mapping

from torch import fx

from converters.kinds import Kind
from converters.operations import describe
from converters.refusals import refusal

__all__ = ["find_activation", "varying_users"]


def varying_users(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> list[fx.Node]:
    """What uses a node but for its size."""
    return [user for user in node.users if kinds[user] is not Kind.CONSTANT]


def find_activation(
    network: fx.GraphModule,
    root: fx.Node,
    kinds: Mapping[fx.Node, Kind],
    problems: dict[fx.Node, str],
) -> tuple[fx.Node, bool]:
    """The ReLU behind a root, or the root itself; and whether the neurons there must rectify.

    Between the two nothing may stand but what commutes with a ReLU: pools of the maximum, shapes.
    A ReLU behind branches put side by side is that of each of them.

    Args:
        network: the traced CNN.
        root: what gives the current: a synapse, a sum, or a ReLU behind a normalisation.
        kinds: of every node.
        problems: gets what stands between the root and its ReLU that cannot be simulated.
    """
    if kinds[root] is Kind.RELU:
        return root, False
    node = root
    while True:
        users = varying_users(node, kinds)
        if len(users) == 1 and kinds[users[0]] is Kind.RELU:
            return users[0], False
        if len(users) == 1 and kinds[users[0]] is Kind.PASS:
            node = users[0]
            continue
        break
    below = list(_descendants(root))
    if any(kinds[user] is Kind.RELU for user in users):
        problems[root] = (
            f"{describe(network, root)}: its ReLU must be the only one to use its output; there is "
            f"{' and '.join(describe(network, user) for user in users)}"
        )
    elif any(kinds[user] in (Kind.SYNAPSE, Kind.RELU) for user in below):
        for user in users:
            if kinds[user] is Kind.UNSUPPORTED:
                problems.setdefault(user, refusal(network, user))
        if averaged := _relu_behind_average(root, kinds):
            problems[root] = (
                f"{describe(network, root)}: a ReLU must stand straight behind it; there is an "
                f"average before {describe(network, averaged)}"
            )
    return root, not _has_relu(root, kinds)


def _has_relu(root: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether all that becomes of a root goes through ReLUs."""
    return all(
        kinds[user] is Kind.RELU
        or (kinds[user] in (Kind.PASS, Kind.JOIN) and _has_relu(user, kinds))
        for user in varying_users(root, kinds)
    )


def _relu_behind_average(root: fx.Node, kinds: Mapping[fx.Node, Kind]) -> fx.Node | None:
    """A ReLU that works on averages of signed values of a root."""
    waiting = [(root, False)]
    while waiting:
        node, averaged = waiting.pop()
        for user in varying_users(node, kinds):
            if kinds[user] is Kind.RELU and averaged:
                return user
            if kinds[user] in (Kind.PASS, Kind.JOIN, Kind.AVERAGE):
                waiting.append((user, averaged or kinds[user] is Kind.AVERAGE))
    return None


def _descendants(node: fx.Node) -> Iterator[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = list(node.users)
    while waiting:
        user = waiting.pop()
        if user not in seen:
            seen.add(user)
            yield user
            waiting.extend(user.users)
