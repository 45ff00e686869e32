"""Adapters of peft: beside the layers of a model, or trained and merged into their numbers."""

from kronpress.adapters.beside import linear_layers, lora_config, open_adapters
from kronpress.adapters.kinds import ADAPTERS, Adapters, Lokr, Lora
from kronpress.adapters.merged import adapted, require_adaptable

__all__ = [
    "ADAPTERS",
    "Adapters",
    "Lokr",
    "Lora",
    "adapted",
    "linear_layers",
    "lora_config",
    "open_adapters",
    "require_adaptable",
]
