"""ModelName: the text a person writes for MODEL, taken apart."""

from __future__ import annotations

from dataclasses import dataclass

from leakgauge.errors import ModelError, OptionError, did_you_mean
from leakgauge.models.catalogue import NETWORKS, PLACES


@dataclass(frozen=True)
class ModelName:
    """Where a network comes from and what it is called there.

    Args:
        place: 'network' (a name of ours), 'callable', 'hf', 'timm' or 'torchvision'.
        name: the network's name, 'pkg.mod:callable', a folder, or a name of that library.
        options: (option, value) pairs as texts; only for 'network'.
    """

    place: str
    name: str
    options: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(text: str) -> ModelName:
        """Reads 'lenet-dlg', 'mu-cnn:width=24,activation=tanh', 'pkg.mod:callable', 'hf:PATH', 'timm:NAME', 'torchvision:NAME'.

        Raises:
            ModelError: if the text is none of these.
            OptionError: if the options are not written NAME=VALUE,NAME=VALUE, or one is given twice.
        """
        head, colon, rest = text.strip().partition(":")
        if head in NETWORKS:
            return ModelName("network", head, _options(text, rest) if colon else ())
        if head in PLACES:
            if not rest:
                raise ModelError(f"The model {text!r} names nothing after {head!r}; expected {PLACES[head][0]}.")
            return ModelName(head, rest)
        if colon and "=" not in rest and _is_import_path(head) and _is_import_path(rest):
            return ModelName("callable", f"{head}:{rest}")
        if not colon and "." in head and _is_import_path(head):
            module, _, name = head.rpartition(".")
            raise ModelError(f"There is no network {text!r}; a callable of your own is written '{module}:{name}'.")
        raise ModelError(f"There is no network {head!r}.{did_you_mean(head, [*NETWORKS, *PLACES])}")

    def __str__(self) -> str:
        if self.place != "network":
            return self.name if self.place == "callable" else f"{self.place}:{self.name}"
        options = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.name}:{options}" if options else self.name


def _options(text: str, rest: str) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for part in rest.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise OptionError(f"The model {text!r} has the option {part!r}; expected NAME=VALUE, several joined by ','.")
        if key in pairs:
            raise OptionError(f"The model {text!r} gives the option {key!r} twice.")
        pairs[key] = value
    return tuple(pairs.items())


def _is_import_path(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
