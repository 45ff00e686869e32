"""The classes of transformers that this room names in signatures.

They are not imported: right after transformers the plug-in is imported, and it needs this room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
else:
    PreTrainedConfig, PreTrainedModel = object, nn.Module

__all__ = ["PreTrainedConfig", "PreTrainedModel"]
