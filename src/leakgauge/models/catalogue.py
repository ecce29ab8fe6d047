"""Every network that has a name here."""

from __future__ import annotations

from leakgauge.models.entry import ModelEntry, Network, option_entries
from leakgauge.models.lenet import LeNetDLG
from leakgauge.models.mlp import MLP
from leakgauge.models.mu import MuCNN, MuFC
from leakgauge.models.resnet import ResNet18, ResNet20, ShallowResNet
from leakgauge.models.rgap import CNN6, FCN3, CNN6Deficient

NETWORKS: dict[str, type[Network]] = {
    "lenet-dlg": LeNetDLG,
    "mu-fc": MuFC,
    "mu-cnn": MuCNN,
    "mlp": MLP,
    "cnn6": CNN6,
    "cnn6-d": CNN6Deficient,
    "fcn3": FCN3,
    "resnet18-cifar": ResNet18,
    "resnet20": ResNet20,
    "shallow-resnet": ShallowResNet,
}

PLACES = {
    "hf": (
        "hf:PATH",
        "a Hugging Face folder on this machine, class as its config says",
        "transformers, extra 'text'",
    ),
    "timm": ("timm:NAME", "a timm network with random weights", "timm, extra 'vision'"),
    "torchvision": ("torchvision:NAME", "a torchvision classifier with random weights", "torchvision, extra 'vision'"),
}


def names() -> tuple[ModelEntry, ...]:
    """Everything that MODEL may be: the named networks with their options, then the other places to take one from."""
    built_in = [
        ModelEntry(name, option_entries(network), network.description, network.source) for name, network in NETWORKS.items()
    ]
    places = [ModelEntry(name, (), description, source) for name, description, source in PLACES.values()]
    own = ModelEntry("pkg.mod:callable", (), "your own; called with those of num_classes, input_shape, seed that it names", "you")
    return (*built_in, own, *places)
