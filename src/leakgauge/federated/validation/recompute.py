"""Recomputing an update from the true batch, in every mini-batch order that the protocol leaves open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from leakgauge.core.callables import Loss
from leakgauge.core.observation import Observation
from leakgauge.core.training import LocalTraining
from leakgauge.errors import UnsupportedError
from leakgauge.local.network import Inputs, Network, cast
from leakgauge.local.optimisers import Optimiser, optimiser_for
from leakgauge.local.private import GradientNoise
from leakgauge.local.replay import Order, draw_order, replay
from leakgauge.randomness import derived_seed, rng

EVERY_ORDER = 120  # orders up to which all are tried
SOME_ORDERS = 40  # orders drawn where there are more
MOST_EXCHANGES = 600  # further orders tried, each by exchanging two examples of the best so far

Tensors = dict[str, Tensor]
KnownOrder = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class Setting:
    """Everything that decides an update: what a hypothesis changes.

    Args:
        model: architecture and weights at the start.
        trained: names of the parameters that local training changes.
        inputs: private inputs, N rows.
        labels: private labels, N rows.
        loss: name or callable.
        training: the protocol.
        known: the mini-batches as the client took them, if the truth holds them; used by every setting that takes as many
            steps of, at most, as many mini-batches.
        example_clip: what DP-SGD clips each example's gradient to, or None.
        noise: standard deviation of the noise that DP-SGD adds to their sum.
        rule: the update rule.
    """

    model: nn.Module = field(repr=False)
    trained: tuple[str, ...]
    inputs: Inputs = field(repr=False)
    labels: Tensor = field(repr=False)
    loss: Loss
    training: LocalTraining
    known: KnownOrder | None = None
    example_clip: float | None = None
    noise: float = 0.0
    rule: Callable[[LocalTraining], Optimiser] = optimiser_for


@dataclass(frozen=True)
class Recomputed:
    """An update computed again.

    Args:
        tensors: as the client would share them; only those observed.
        buffers: after local training.
        residual: relative to the observed update; infinite where it could not be computed.
        orders: number of mini-batch orders tried.
        every_order: whether these were all that the protocol allows.
    """

    tensors: Tensors
    buffers: Tensors
    residual: float
    orders: int
    every_order: bool


def norm(tensors: Mapping[str, Tensor]) -> float:
    """2-norm of all tensors together, in float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def residual(observed: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """||found - observed|| / ||observed|| over the observed tensors; infinite where it is not a number."""
    gap = norm({name: found[name].double() - tensor.double() for name, tensor in observed.items()})
    size = norm(observed)
    value = gap / size if size else (0.0 if gap == 0 else math.inf)
    return value if math.isfinite(value) else math.inf


def recompute(
    setting: Setting, seen: Observation, tolerance: float, most_orders: int = EVERY_ORDER, sample: int = SOME_ORDERS
) -> Recomputed:
    """The update of this setting, in the mini-batch order that comes nearest to the observed one.

    A setting that cannot be computed at all (a loss that does not fit the labels, say) has an infinite residual.

    Args:
        setting: what to compute.
        seen: what to compare with.
        tolerance: residual at which no further order is tried.
        most_orders: try every order where there are at most so many.
        sample: drawn orders to try where there are more, after the order of the batch.
    """
    count = len(setting.labels)
    best = Recomputed({}, {}, math.inf, 0, True)
    try:
        orders, every = mini_batch_orders(setting.training, count, most_orders, sample, setting.known)
        network = Network(setting.model, setting.training.mode)
        chosen, tried = orders[0], 0
        for order in orders:
            found = _compared(setting, network, seen, order)
            tried += 1
            if found.residual < best.residual or not best.tensors:
                best, chosen = found, order
            if best.residual <= tolerance:
                break
        if best.residual > tolerance and not every and sample > 0:
            best, tried = _searched(setting, network, seen, tolerance, (best, chosen, tried))
        best = replace(best, orders=tried, every_order=every)
    except (RuntimeError, ValueError, IndexError, KeyError, UnsupportedError):  # how 'this does not fit together' is said
        return best
    return best


def mini_batch_orders(
    training: LocalTraining, count: int, most: int = EVERY_ORDER, sample: int = SOME_ORDERS, known: KnownOrder | None = None
) -> tuple[list[Order], bool]:
    """Mini-batch orders that the protocol allows, the order of the batch first; and whether these are all of them.

    A known order is the only one, where it has the protocol's number of steps, and of mini-batches in the largest of them.

    Raises:
        ShapeError: if `drop_last` leaves no mini-batch.
    """
    natural = draw_order(training, count)
    if known and len(known) == len(natural) and max(map(len, known)) == max(map(len, natural)):
        return [[[torch.tensor(rows, dtype=torch.long) for rows in step] for step in known]], True
    size = min(training.batch_size or count, count)
    if not training.shuffle or size == count:
        return [natural], True
    sizes = [len(batch) for step in natural for batch in step]
    per_epoch = count // size if training.drop_last else math.ceil(count / size)
    epochs = [sizes[start : start + per_epoch] for start in range(0, len(sizes), per_epoch)]
    fillings = [list(itertools.islice(_fillings(epoch, tuple(range(count))), most + 1)) for epoch in epochs]
    if math.prod(len(filling) for filling in fillings) <= most:
        flat = (tuple(itertools.chain.from_iterable(choice)) for choice in itertools.product(*fillings))
        first = tuple(tuple(batch.tolist()) for step in natural for batch in step)
        return [natural, *(_grouped(batches, natural) for batches in flat if batches != first)], True
    drawn = [draw_order(training, count, rng(index, "validate", "order")) for index in range(sample)]
    return [natural, *drawn], False


def _fillings(sizes: Sequence[int], rest: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every way to fill mini-batches of these sizes from `rest`; the order within a mini-batch does not matter."""
    if not sizes:
        yield ()
        return
    for chosen in itertools.combinations(rest, sizes[0]):
        left = tuple(index for index in rest if index not in chosen)
        for others in _fillings(sizes[1:], left):
            yield (chosen, *others)


def _grouped(batches: Sequence[tuple[int, ...]], like: Order) -> Order:
    """Mini-batches in the same steps as in `like`."""
    rows = iter(batches)
    return [[torch.tensor(next(rows)) for _ in step] for step in like]


def _searched(
    setting: Setting, network: Network, seen: Observation, tolerance: float, begun: tuple[Recomputed, Order, int]
) -> tuple[Recomputed, int]:
    """Exchanges two examples between mini-batches of one pass as long as the update comes nearer; then begins elsewhere."""
    best, order, tried = begun
    start, stop, restart = best, tried + MOST_EXCHANGES, 0
    while tried < stop:
        for found, count in _climbed(setting, network, seen, (start, order, tried)):
            tried = count
            best = found if found.residual < best.residual else best
            if best.residual <= tolerance or tried >= stop:
                return best, tried
        order = draw_order(setting.training, len(setting.labels), rng(restart, "validate", "restart"))
        start, tried, restart = _compared(setting, network, seen, order), tried + 1, restart + 1
        best = start if start.residual < best.residual else best
    return best, tried


def _climbed(
    setting: Setting, network: Network, seen: Observation, begun: tuple[Recomputed, Order, int]
) -> Iterator[tuple[Recomputed, int]]:
    """The best so far after each exchange, until none comes nearer."""
    best, order, tried = begun
    sizes = [len(batch) for step in order for batch in step]
    flat = [index for step in order for batch in step for index in batch.tolist()]
    batch_of = [number for number, size in enumerate(sizes) for _ in range(size)]
    improved = True
    while improved:
        improved = False
        for one, other in itertools.combinations(range(len(flat)), 2):
            moved = list(flat)
            moved[one], moved[other] = moved[other], moved[one]
            if batch_of[one] == batch_of[other] or not _is_order(moved, setting, sizes):
                continue
            rows = iter(moved)
            grouped = _grouped([tuple(itertools.islice(rows, size)) for size in sizes], order)
            found = _compared(setting, network, seen, grouped)
            tried += 1
            if found.residual < best.residual:
                best, flat, improved = found, moved, True
            yield best, tried


def _is_order(flat: Sequence[int], setting: Setting, sizes: Sequence[int]) -> bool:
    """Whether no pass over the data holds an example twice."""
    count = len(setting.labels)
    size = min(setting.training.batch_size or count, count)
    per_epoch = count // size if setting.training.drop_last else math.ceil(count / size)
    start = 0
    for first in range(0, len(sizes), per_epoch):
        length = sum(sizes[first : first + per_epoch])
        if len(set(flat[start : start + length])) < length:
            return False
        start += length
    return True


def _compared(setting: Setting, network: Network, seen: Observation, order: Order) -> Recomputed:
    found = _replayed(setting, network, order)
    tensors = {name: found.tensors[name] for name in seen.tensors}
    return replace(found, tensors=tensors, residual=residual(seen.tensors, tensors))


def _replayed(setting: Setting, network: Network, order: Order) -> Recomputed:
    dtype = getattr(torch, setting.training.dtype)
    inputs = setting.inputs
    inputs = cast({"inputs": inputs}, dtype)["inputs"] if isinstance(inputs, Tensor) else cast(inputs, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(0, "validate", "dropout"))
        found = replay(
            network,
            inputs,
            setting.labels,
            loss=setting.loss,
            training=setting.training,
            order=order,
            parameters=cast(network.parameters(), dtype),
            buffers=cast(network.buffers(), dtype),
            trainable=setting.trained,
            graph="none",
            example_clip=setting.example_clip,
            noise=GradientNoise(setting.noise, rng(0, "validate", "noise")) if setting.noise else None,
            optimiser=setting.rule(setting.training),
        )
    return Recomputed(found.tensors, found.buffers, math.inf, 1, True)
