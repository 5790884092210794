"""Which parameter of an exported program is which of ours: told by how data flows through them.

Names in an inference model number the layers in the order in which they were made, and its operators stand in the
order in which they ran; a branch and its shortcut may stand in either order. What does not differ is what is computed
of what. So both networks, the program's and ours, become a graph of the *uses* of their parameters: a use has sizes,
and comes after those uses whose results reach it without passing another one. Two uses are the same if their sizes
are, and those of all that comes before and after them. Where several are the same even so, as equal branches are, they
are taken in their order.

So that both have the same graph:

- Sizes are the lengths of the parameter's shape other than 1, in any order: linear layers are transposed in Paddle, and
  some are convolutions. The strides of a convolution belong to them, as networks exist that differ in nothing else.
- An operator with several parameters, such as a convolution with its bias, uses one after the other.
- A batch norm is one use, of the size of its bias, which is all that an exporter leaves of one that it folded.
- What is made of parameters and constants only, such as a table with a mask, is these parameters.
- What only depends on the shape of a value is a constant, and so are integers.
- A parameter that is put beside other values, such as a class token, comes after none of them.

What has no parameters, such as activations and poolings, is not compared.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchclas import models
from torchclas.errors import CheckpointError, ImageSizeError
from torchclas.layers.network import Network
from torchclas.layers.parallel_convs import ParallelConvs, fold_parallel_convs
from torchclas.sizes import Size
from torchclas.weights.inference_model import IMAGES, Array, InferenceTensors, Program
from torchclas.weights.pickles import listed
from torchclas.weights.renames import PublishedName

_FLOATS = ("f16", "bf16", "f32", "f64")
_BATCH_NORM = ("batch_norm", "batch_norm_", "sync_batch_norm", "sync_batch_norm_")
_MEMBERS = ("concat", "stack", "cat")
# Operators whose results hold nothing of the data that they take.
_OF_SHAPE = ("shape", "shape64", "fill_constant_batch_size_like", "full_batch_size_like", "fill_any_like", "full_like")
_SIZE = (224, 224)  # where a program takes any; data flows in the same way whatever the size
_MAX_STEPS = 2_000_000


@dataclass(frozen=True)
class Use:
    """A parameter where it is used, or those of a batch norm: weight, bias, mean, variance.

    `sizes` are the lengths of its shape other than 1, sorted, and the strides of a convolution.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    before: frozenset[int]


# A value on its way: the uses that it comes after (a constant: none), or the parameters that alone it is made of.
Value = frozenset[int] | tuple[str, ...]
_CONSTANT: frozenset[int] = frozenset()
_IMAGE = frozenset((0,))  # comes first, and uses no parameter


class Flow:
    """The uses of a network's parameters, noted in the order in which it runs."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.uses = [Use((), (), _CONSTANT)]
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Refuse programs whose flow takes longer to follow, or more memory, than that of any network here."""
        self.steps += steps
        if self.steps > _MAX_STEPS:
            raise CheckpointError("more comes together in its program than in any network here")

    def batch_norm(self, value: Value, names: tuple[str, ...]) -> Value:
        """What a batch norm makes of a value."""
        return self._use(names, self._used(value))

    def apply(self, values: Iterable[Value], strides: Sequence[int] = (), *, members: bool = False) -> Value:
        """What any other operator makes of values; `members` says that it puts them side by side."""
        values = list(dict.fromkeys(values))
        self.spend(sum(map(len, values)))
        data = {value for value in values if isinstance(value, frozenset)}
        reached = next(iter(data)) if len(data) == 1 else _CONSTANT.union(*data)
        parameters = [value for value in values if isinstance(value, tuple)]
        if not reached and (len(parameters) == 1 or not members):
            return tuple(dict.fromkeys(name for value in parameters for name in value)) or _CONSTANT
        if members:
            return reached.union(*map(self._used, parameters))
        for value in parameters:
            reached = self._used(value, reached, strides)
        return reached

    def _used(self, value: Value, before: frozenset[int] = _CONSTANT, strides: Sequence[int] = ()) -> frozenset[int]:
        """Where data is once it has passed the parameters that a value is made of."""
        if isinstance(value, frozenset):
            return value
        for name in value:
            before = self._use((name,), before, strides)
        return before

    def _use(self, names: tuple[str, ...], before: frozenset[int], strides: Sequence[int] = ()) -> frozenset[int]:
        self.spend(len(before) + 1)
        # With kernels of one pixel, what is a convolution there may be a linear layer here, or pick its pixels.
        kernel = self.shapes[names[0]][2:]
        known = tuple(strides) if len(kernel) == 2 and max(kernel) > 1 else ()
        self.uses.append(Use(names, _plain(self.shapes[names[0]]) + known, before))
        return frozenset((len(self.uses) - 1,))

    def same(self) -> dict[tuple[bytes, bytes], list[Use]]:
        """The uses by what tells them apart: shapes of all before them, and of all after them."""
        before: list[bytes] = []
        after: list[list[bytes]] = [[] for _ in self.uses]
        for use in self.uses:
            before.append(_digest(use.sizes, (before[one] for one in use.before)))
        groups: dict[tuple[bytes, bytes], list[Use]] = defaultdict(list)
        for index in range(len(self.uses) - 1, -1, -1):
            use = self.uses[index]
            digest = _digest(use.sizes, after[index])
            for one in use.before:
                after[one].append(digest)
            groups[before[index], digest].insert(0, use)
        return groups


def _plain(shape: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(length for length in shape if length != 1))


def _digest(sizes: tuple[int, ...], neighbours: Iterable[bytes]) -> bytes:
    return hashlib.blake2b(repr(sizes).encode() + b"".join(sorted(neighbours)), digest_size=16).digest()


def flow_of_program(program: Program) -> Flow:
    """How data flows through the parameters of an exported program."""
    parameters = program.parameters
    flow = Flow({name: parameter.shape for name, parameter in parameters.items()})
    values: dict[str, list[Value]] = {  # several where a value is a list of tensors
        name: [(name,) if parameter.dtype in _FLOATS else _CONSTANT] for name, parameter in parameters.items()
    }
    for operator in program.operators:
        inputs: list[Value] = []
        for name in operator.inputs:
            flow.spend(len(values.get(name, ())))
            inputs += values.get(name, ())
        made: list[Value]
        if operator.kind in _BATCH_NORM and len(inputs) >= 5:
            names = tuple(name for value in inputs[1:5] if isinstance(value, tuple) for name in value)
            if len(names) != 4:
                raise CheckpointError("its batch norms take something other than parameters")
            made = [flow.batch_norm(inputs[0], names)]
        elif operator.kind == "combine":
            made = inputs
        elif operator.kind in _OF_SHAPE:
            made = [_CONSTANT]
        elif operator.kind in IMAGES:
            made = [_IMAGE]
        else:
            made = [flow.apply(inputs, operator.strides, members=operator.kind in _MEMBERS)]
        values.update(dict.fromkeys(operator.outputs, made))
    return flow


def flow_of_network(network: Network, size: Size | None, *, heads: bool = False) -> Flow:
    """How data flows through the parameters of a network on the meta device, for images of a size, or of any.

    With `heads`, through the classifiers that only training uses as well.
    """
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    flow = Flow({name: tuple(tensor.shape) for name, tensor in state.items()})
    image = torch.empty(1, network.in_channels, *(size or network.input_size or _SIZE), device="meta")
    recorder = _Recorder(flow, network.state_dict(keep_vars=True), image)
    with torch.no_grad(), recorder:
        network.eval()
        network.forward_heads(image) if heads else network(image)
    return flow


class _Recorder(TorchFunctionMode):
    """Notes what is computed of what while a network runs."""

    def __init__(self, flow: Flow, state: Mapping[str, Tensor], image: Tensor) -> None:
        super().__init__()
        self.flow = flow
        # Tensors are kept: the identity of one that is gone may become another's.
        self.values: dict[int, tuple[Tensor, Value]] = {
            id(tensor): (tensor, (name,)) for name, tensor in state.items() if tensor.is_floating_point()
        }
        self.values[id(image)] = image, _IMAGE

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, and note its results."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [tensor for tensor in _tensors(result) if tensor.is_floating_point()]
        if made:
            value = self._value(func, args, kwargs)
            for tensor in made:
                self.values[id(tensor)] = (tensor, value)
        return result

    def _value(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        everything = [*args, *kwargs.values()]
        kind = getattr(func, "__name__", "")
        if func is nn.functional.batch_norm:
            mean, variance = args[1:3]
            weight, bias = (
                kwargs[key] if key in kwargs else args[place] for key, place in (("weight", 3), ("bias", 4))
            )
            names = tuple(name for tensor in (weight, bias, mean, variance) for name in self._of(tensor))
            return self.flow.batch_norm(self._of(args[0]), cast("tuple[str, ...]", names))
        if kind.endswith("_like"):
            return _CONSTANT
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value, *others = everything
            scores = self.flow.apply(map(self._of, (query, key)))
            for mask in _tensors(others):
                scores = self.flow.apply((scores, self._of(mask)))
            return self.flow.apply((scores, self._of(value)))
        strides = _strides(*args, **kwargs) if func is torch.conv2d else ()
        return self.flow.apply(map(self._of, _tensors(everything)), strides, members=kind in _MEMBERS)

    def _of(self, tensor: Tensor) -> Value:
        found = self.values.get(id(tensor))
        return _CONSTANT if found is None else found[1]


def _strides(_image: Any, _weight: Any, _bias: Any = None, stride: Any = 1, *_: Any, **__: Any) -> tuple[int, int]:
    """Those of a convolution that is called with these arguments."""
    return (stride, stride) if isinstance(stride, int) else tuple(stride)


def _tensors(value: object) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in cast("Sequence[object]", value):
            yield from _tensors(each)


def _match(ours: Flow, theirs: Flow) -> dict[str, str] | None:
    """Our names → theirs; of a batch norm that was folded its bias alone. None where data flows in another way."""
    our_groups, their_groups = ours.same(), theirs.same()
    if our_groups.keys() != their_groups.keys():
        return None
    found: dict[str, str] = {}
    for key, uses in our_groups.items():
        others = their_groups[key]
        if len(uses) != len(others):
            return None
        for use, other in zip(uses, others, strict=True):
            names = use.names
            if len(names) == 4 and len(other.names) == 1:
                names = names[1:2]
            if len(names) != len(other.names):
                return None
            for name, their_name in zip(names, other.names, strict=True):
                if found.setdefault(name, their_name) != their_name:
                    return None
    return found


def names_in(arch: str, model: InferenceTensors) -> tuple[dict[str, PublishedName], dict[str, Array]]:
    """Our names → those in an inference model of this architecture, and the tensors under these names.

    What the exporter left out is added under our names: a batch norm that was folded becomes one that only adds its
    bias, branches that were folded into one add nothing, and heads that only training uses begin afresh.

    Raises:
        CheckpointError: the program is of another network, or of one that has no classes.
        ImageSizeError: the architecture has no such network for images of the program's size.
    """
    program = model.program
    if not program.num_classes:
        shapes = ", ".join(map(str, program.outputs[:3]))
        raise CheckpointError(f"its program gives {shapes}, where a classifier gives [N, classes]")
    theirs: Flow | None = None  # most networks are told apart by the shapes alone
    for network, ours in _flows(arch, program):
        theirs = theirs or flow_of_program(program)
        if (found := _match(ours, theirs)) is not None:
            return _completed(network, found, model)
    raise CheckpointError(
        f"in its program data does not flow as in a {arch}: it is another network, was changed, or was optimized for "
        "one machine"
    )


def has_weights(arch: str, program: Program) -> bool:
    """Whether a network has all weights of a program by their shapes: known sooner than how data flows through it."""
    try:
        return next(_forms(arch, program), None) is not None
    except ImageSizeError:
        return False


def _forms(arch: str, program: Program) -> Iterator[Network]:
    """The network, and what folded branches make of it; each where it has all weights of the program."""
    network = _on_meta(arch, program)
    if _may_be(program, network):
        yield network
    if any(isinstance(module, ParallelConvs) for module in network.modules()):
        folded = _on_meta(arch, program)
        fold_parallel_convs(folded)
        if _may_be(program, folded):
            yield folded


def _flows(arch: str, program: Program) -> Iterator[tuple[Network, Flow]]:
    """The network, and how data may flow through it: to the heads of training too, or through folded branches."""
    for form in _forms(arch, program):
        network = _on_meta(arch, program)
        flow = flow_of_network(form, program.size)
        changed = network.state_dict().keys() - form.state_dict().keys()
        convs = {name.partition(".branches.")[0] for name in changed if ".branches." in name}
        names = {f"{conv}.weight": f"{conv}.branches.0.conv.weight" for conv in convs}
        names |= {f"{conv}.bias": f"{conv}.branches.0.bn.bias" for conv in convs}
        flow.uses = [replace(use, names=tuple(names.get(name, name) for name in use.names)) for use in flow.uses]
        yield network, flow
        if not changed and type(network).forward_heads is not Network.forward_heads:
            yield network, flow_of_network(network, program.size, heads=True)


def _on_meta(arch: str, program: Program) -> Network:
    with torch.device("meta"):
        network = models.build(arch, num_classes=program.num_classes, in_channels=program.image[1])
        if program.size is not None:
            network.set_input_size(program.size)
    return network


def _may_be(program: Program, network: Network) -> bool:
    """Whether the network has all weights of the program by their shapes, which is quickly said."""
    theirs = (parameter.shape for parameter in program.parameters.values() if parameter.dtype in _FLOATS)
    ours = (tensor.shape for tensor in network.state_dict().values())
    return not Counter(map(_plain, theirs)) - Counter(map(_plain, ours))


def _completed(
    network: Network, found: Mapping[str, str], model: InferenceTensors
) -> tuple[dict[str, PublishedName], dict[str, Array]]:
    tensors = {name: tensor for name, tensor in model.items() if tensor.dtype.kind == "f"}
    if unused := tensors.keys() - set(found.values()):
        raise CheckpointError(f"{listed(sorted(unused))} of its parameters have no place in a {network.arch}")
    names: dict[str, PublishedName] = {}
    for name, target in network.state_dict().items():
        if (theirs := found.get(name)) is None:
            names[name] = PublishedName(name)
            if not name.endswith("num_batches_tracked"):
                tensors[name] = _left_out(network, name, target, found)
        else:
            if target.ndim == 1:  # an exporter that computes what is constant leaves [1, C, 1, 1] of a bias
                tensors[theirs] = tensors[theirs].reshape(-1)
            dimensions = tensors[theirs].ndim
            names[name] = PublishedName(
                theirs, linear=dimensions < target.ndim == 4, conv=target.ndim < dimensions == 4
            )
    return names, tensors


def _left_out(network: Network, name: str, target: Tensor, found: Mapping[str, str]) -> Array:
    """What stands for a parameter that the exporter left out."""
    prefix, _, leaf = name.rpartition(".")
    owner = network.get_submodule(prefix)
    shape = tuple(target.shape)
    if isinstance(owner, nn.BatchNorm2d) and f"{prefix}.bias" in found:  # folded: it multiplies by one
        scale = {"weight": math.sqrt(1 + owner.eps), "running_var": 1.0}.get(leaf, 0.0)
        return np.full(shape, scale, np.float32)
    if any(isinstance(network.get_submodule(outer), ParallelConvs) for outer in _outer(prefix)):
        return np.full(shape, leaf == "running_var", np.float32)
    # A head that only training uses: as it begins.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = models.build(network.arch, num_classes=network.num_classes, in_channels=network.in_channels)
    tensor = fresh.state_dict()[name].numpy()
    return tensor.T if isinstance(owner, nn.Linear) and tensor.ndim == 2 else tensor


def _outer(module: str) -> Iterator[str]:
    """The names of the modules that a module is in, and its own."""
    while module:
        yield module
        module = module.rpartition(".")[0]
