"""What cannot be put on disk apart, because two paths of a model share it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel
from transformers.integrations.accelerate import expand_device_map

from kronpress.errors import KronpressError


def require_ties_together(model: PreTrainedModel, device_map: Any) -> None:
    """Check that a device map puts both paths of a tied tensor on disk, or neither.

    Raises:
        KronpressError: it puts one there without the other, which would leave that without values.
    """
    if not isinstance(device_map, dict):  # such as 'auto', which keeps them together
        return
    for tied, source in model.all_tied_weights_keys.items():
        places = expand_device_map(device_map, [tied, source])
        if len({place == "disk" for place in places.values()}) > 1:
            raise KronpressError(
                f"device_map puts '{tied}' on {places[tied]} and '{source}' on {places[source]}, and the two are tied; "
                "put both on disk or neither, or use device_map='auto'"
            )


def require_orders_in_memory(model: PreTrainedModel) -> None:
    """Check that no order of rows or columns that tied tables share was put on disk, where it is under one name only.

    Raises:
        KronpressError: it was.
    """
    shared = {name.rpartition(".")[0] for name in model._keys_to_ignore_on_save or ()}
    for path, module in model.named_modules(remove_duplicate=False):
        hook = getattr(module, "_hf_hook", None)
        if path in shared and any(step.offload_buffers for step in getattr(hook, "hooks", [hook]) if step is not None):
            raise KronpressError(
                f"'{path}' shares the order of its rows or columns with the token table, and offload_buffers would put "
                "it on disk under one name only; leave offload_buffers out: orders are small"
            )
