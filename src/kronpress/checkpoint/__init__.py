"""How a compressed model is saved and opened again; importing this registers the transformers plug-in."""

from kronpress.checkpoint.load import BUNDLED, load, load_with_tokenizer, verify
from kronpress.checkpoint.plugin import KronpressConfig, adopt, structured_layers
from kronpress.checkpoint.probe import Probe, take_probe
from kronpress.checkpoint.save import bytes_of, save, write_checkpoint, write_manifest

__all__ = [
    "BUNDLED",
    "KronpressConfig",
    "Probe",
    "adopt",
    "bytes_of",
    "load",
    "load_with_tokenizer",
    "save",
    "structured_layers",
    "take_probe",
    "verify",
    "write_checkpoint",
    "write_manifest",
]
