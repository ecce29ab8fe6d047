"""`trace`: a network as a chain of links, by torch.fx; what cannot be treated is named, all of it at once."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from leakgauge.chain.link import Chain, Link, State
from leakgauge.chain.operations import is_join, operation_name, part_of_operation
from leakgauge.chain.rules import Part, has_rule, part_of, unsupported
from leakgauge.errors import ModelError


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Chain:
    """Turns a network in eval mode into a chain.

    The traced graph is cut wherever one tensor carries all that later operations use. Between two cuts stands either one
    operation, whose rule says what it is, or a block with side branches.

    Args:
        model: any module; it is not changed.
        input_shape: of one example, without the batch.

    Returns:
        The chain; layers that closed forms cannot treat are links of kind 'unsupported', and `reasons` lists them. A network
        that torch.fx cannot trace is one such link.

    Raises:
        ModelError: if the network does not accept the shape.
    """
    network = copy.deepcopy(model).eval()
    if has_rule(network):  # torch.fx looks into the root even where it is a layer
        chain = trace(nn.Sequential(network), input_shape)
        return _without_prefix(chain)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    example = torch.zeros(1, *input_shape, **_like(network))
    try:
        graph = _Tracer().trace(network)
        values = _shapes(network, graph, example)
    except Exception as error:  # noqa: BLE001 - torch.fx fails in as many ways as there are networks
        _refuse_shape(network, example)
        return _untraceable(network, input_shape, error)
    return _Cutter(network, graph, values).chain(tuple(input_shape))


def _shapes(network: nn.Module, graph: fx.Graph, example: Tensor) -> dict[str, Any]:
    """What every node of the graph gives: on the meta device, without arithmetic, where no computed constant is needed."""
    try:
        empty = _Recorder(fx.GraphModule(copy.deepcopy(network).to("meta"), copy.deepcopy(graph)))
        with torch.no_grad():
            empty.run(example.to("meta"))
        constants = [node.name for node in graph.nodes if node.op == "get_attr" or not node.all_input_nodes]
        plain = all(
            not isinstance(empty.values[name], Tensor) for name in constants if name in empty.values and name != _entry(graph)
        )
        if plain:
            return empty.values
    except Exception:  # noqa: BLE001 - whatever the meta device cannot do, the real one may
        pass
    recorded = _Recorder(fx.GraphModule(network, graph))
    with torch.no_grad():
        recorded.run(example)
    return recorded.values


def _entry(graph: fx.Graph) -> str:
    return next(str(node.name) for node in graph.nodes if node.op == "placeholder")


def _refuse_shape(network: nn.Module, example: Tensor) -> None:
    try:
        with torch.no_grad():
            network(example)
    except Exception as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        shape = tuple(example.shape[1:])
        raise ModelError(f"The network does not accept inputs of shape {shape}: {why[0].rstrip('.')}.") from error


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return has_rule(m) or super().is_leaf_module(m, module_qualified_name)


class _Recorder(fx.Interpreter):
    """Runs a graph once and keeps what every node gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n.name] = value
        return value


class _Cutter:
    """Cuts a traced graph into links."""

    def __init__(self, network: nn.Module, graph: fx.Graph, values: dict[str, Any]) -> None:
        self.network, self.values = network, values
        self.modules = dict(network.named_modules())
        self.nodes = [node for node in graph.nodes if node.op != "output"]
        (self.result,) = (node for node in graph.nodes if node.op == "output")
        self.calls = Counter(str(node.target) for node in self.nodes if node.op == "call_module")
        every = list(network.named_parameters(remove_duplicate=False))
        held = Counter(id(parameter) for _, parameter in every)
        self.shared = {name for name, parameter in every if held[id(parameter)] > 1}
        self.computed: set[fx.Node] = set()  # tensors that depend on the input
        for node in self.nodes:
            if (node.op == "placeholder" and not self.computed) or (
                isinstance(values[node.name], Tensor | tuple) and any(one in self.computed for one in node.all_input_nodes)
            ):
                self.computed.add(node)

    def chain(self, input_shape: tuple[int, ...]) -> Chain:
        """The links between cuts, and every reason."""
        last = self._last()
        if last is None:
            return _untraceable(self.network, input_shape, TypeError("it returns something else than one tensor"))
        links: list[Link] = []
        for entry, part in self._segments(last):
            if len(part) == 1:
                links.append(self._link(part[0]))
            else:
                links.append(self._block(part, entry))
        reasons = tuple(
            f"{link.name!r} ({link.type}): {link.reason}"
            for whole in links
            for link in ((*whole.inner,) if whole.inner else (whole,))
            if link.reason
        )
        return Chain(tuple(links), input_shape, reasons)

    def _last(self) -> fx.Node | None:
        found = self.result.args[0]
        return found if isinstance(found, fx.Node) and found in self.computed else None

    def _segments(self, last: fx.Node) -> list[tuple[fx.Node, list[fx.Node]]]:
        """Runs of computed nodes between two cuts, each with the node that enters it."""
        needed = {last}
        for node in reversed(self.nodes):
            if node in needed:
                needed |= {one for one in node.all_input_nodes if one in self.computed}
        order = [node for node in self.nodes if node in needed]
        entry, segments, current = order[0], [], []
        uses = {node: max((order.index(user) for user in node.users if user in needed), default=0) for node in order}
        for position, node in enumerate(order[1:], start=1):
            current.append(node)
            if all(uses[earlier] <= position for earlier in order[:position]):
                segments.append((entry, current))
                entry, current = node, []
        return segments

    def _block(self, nodes: list[fx.Node], entry: fx.Node) -> Link:
        inner = tuple(self._link(node) for node in nodes)
        steps = [(node.name, self._function(node)) for node in nodes]

        def function(inputs: Tensor, state: State) -> Tensor:
            known: dict[str, Any] = {entry.name: inputs}
            for name, step in steps:
                known[name] = step(known, state)
            return known[steps[-1][0]]  # type: ignore[no-any-return]

        names = [link.name for link in inner if link.parameters]
        return Link(
            name=_common(names) or nodes[-1].name,
            kind="block",
            type="block with side branches",
            input_shape=self._shape(entry),
            output_shape=self._shape(nodes[-1]),
            function=function,
            parameters=tuple(name for link in inner for name in link.parameters),
            inner=inner,
        )

    def _link(self, node: fx.Node) -> Link:
        """One operation, alone in the chain or inside a block."""
        sources = [one for one in node.all_input_nodes if one in self.computed]
        inputs, outputs = self._shape(sources[0]), self._shape(node)
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        part = self._part(node, sources, inputs, outputs)
        step = self._function(node)
        if part.activation is not None:
            shape_of = part.activation.forward
            function: Callable[[Tensor, State], Tensor] = lambda x, _: shape_of(x)  # noqa: E731
        else:
            source = sources[0].name
            function = lambda x, state: step({source: x}, state)  # noqa: E731
        parameters: tuple[str, ...] = ()
        if module is not None:
            parameters = tuple(f"{node.target}.{name}" for name, _ in module.named_parameters())
        return Link(
            name=str(node.target) if node.op == "call_module" else node.name,
            kind=part.kind,
            type=type(module).__name__ if module is not None else operation_name(node.target),
            input_shape=inputs,
            output_shape=outputs,
            function=function,
            parameters=parameters,
            module=module,
            geometry=part.geometry,
            activation=part.activation,
            reason=part.reason,
        )

    def _part(self, node: fx.Node, sources: list[fx.Node], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Part:
        if any(one.op == "get_attr" for one in node.all_input_nodes):
            return unsupported("it uses a parameter of the network directly; only layers as modules are covered")
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            own = [f"{node.target}.{name}" for name, _ in module.named_parameters()]
            if own and (self.calls[str(node.target)] > 1 or self.shared.intersection(own)):
                return unsupported("its weights are used more than once, so that their gradient is a sum over the uses")
            if hasattr(module, "parametrizations"):
                return unsupported("its weight is computed from other parameters")
            if len(sources) > 1 or (node.users and isinstance(self.values[node.name], tuple)):
                named = part_of(module, inputs, outputs)
                return named if named.reason else unsupported("it takes or returns several tensors")
            return part_of(module, inputs, outputs)
        if len(sources) > 1 or (is_join(node.target) and not isinstance(node.args[0], fx.Node)):
            if is_join(node.target):
                return Part("join")
            return part_of_operation(node.target, (None,), {}, inputs, outputs)
        values = tuple(self._value(argument) for argument in node.args[1:])
        return part_of_operation(
            node.target, values, {key: self._value(value) for key, value in node.kwargs.items()}, inputs, outputs
        )

    def _value(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda one: self.values[one.name])

    def _function(self, node: fx.Node) -> Callable[[dict[str, Any], State], Any]:
        """The operation as a function of the computed tensors by node name and the network's state."""
        target, own = node.target, self.computed
        constants = {one.name: self.values[one.name] for one in node.all_input_nodes if one not in own}
        module = self.modules[str(target)] if node.op == "call_module" else None
        names: list[str] = []
        if module is not None:
            names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]

        def function(known: dict[str, Any], state: State) -> Any:
            pick = {**constants, **known}
            arguments = fx.node.map_arg(node.args, lambda one: pick[one.name])
            keywords = fx.node.map_arg(node.kwargs, lambda one: pick[one.name])
            if module is not None:
                return functional_call(module, {name: state[f"{target}.{name}"] for name in names}, arguments, keywords)
            if node.op == "call_method":
                return getattr(arguments[0], str(target))(*arguments[1:], **keywords)
            return target(*arguments, **keywords)  # type: ignore[operator]

        return function

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        value = self.values[node.name]
        return tuple(value.shape[1:]) if isinstance(value, Tensor) else ()


def _like(network: nn.Module) -> dict[str, Any]:
    first = next((one for one in (*network.parameters(), *network.buffers()) if one.is_floating_point()), None)
    return {} if first is None else {"dtype": first.dtype, "device": first.device}


def _without_prefix(chain: Chain) -> Chain:
    """The chain of a single layer that was wrapped for tracing: names as in the layer itself."""
    (link,) = chain.links
    inner = link.function

    def function(inputs: Tensor, state: State) -> Tensor:
        return inner(inputs, {f"0.{name}": tensor for name, tensor in state.items()})

    parameters = tuple(name.removeprefix("0.") for name in link.parameters)
    own = replace(link, name=link.type, function=function, parameters=parameters)
    return Chain((own,), chain.input_shape, tuple(reason.replace("'0'", repr(link.type), 1) for reason in chain.reasons))


def _common(names: list[str]) -> str:
    parts = [name.split(".") for name in names]
    shared = []
    for words in zip(*parts, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared)


def _untraceable(network: nn.Module, input_shape: tuple[int, ...], error: Exception) -> Chain:
    """A chain of one unsupported link, with the reasons of the layers that would not have been treated either."""
    why = str(error).strip().splitlines()
    cause = f"torch.fx cannot trace it ({why[0].rstrip('.') if why else type(error).__name__})"
    name = type(network).__name__
    link = Link(name, "unsupported", name, input_shape, (), lambda x, _: x, reason=cause)
    shape = (math.prod(input_shape),)
    found = [(own, module, part_of(module, shape, shape)) for own, module in network.named_modules() if own and has_rule(module)]
    reasons = [f"{own!r} ({type(module).__name__}): {part.reason}" for own, module, part in found if part.reason]
    reasons = [reason for reason in reasons if "-dimensional" not in reason and "applied to" not in reason]
    return Chain((link,), input_shape, (f"{name!r}: {cause}", *reasons))
