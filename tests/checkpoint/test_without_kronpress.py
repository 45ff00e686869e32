"""Checkpoints with structured layers in a process that has no kronpress: whatever class is tried, it stops."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kronpress

CODE = """
import importlib, inspect, json, sys
import transformers
from transformers import PreTrainedModel
transformers.logging.set_verbosity(50)
opened, tried = [], 0
for model_type, folder in json.loads(sys.argv[1]):
    place = transformers.CONFIG_MAPPING[model_type].__module__.replace("configuration_", "modeling_")
    module = importlib.import_module(place)
    names = [name for name, value in vars(module).items()
             if inspect.isclass(value) and issubclass(value, PreTrainedModel) and value.__module__ == module.__name__
             and not name.endswith("PreTrainedModel")]
    names += ["AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"]
    for name in names:
        for options in ({}, {"ignore_mismatched_sizes": True}, {"use_safetensors": True}, {"use_safetensors": False}):
            door = getattr(module, name, None) or getattr(transformers, name)
            tried += 1
            try:
                door.from_pretrained(folder, **options)
            except (OSError, ValueError):
                continue
            opened.append(f"{name}.from_pretrained({folder}, {options})")
assert "kronpress" not in sys.modules
print(json.dumps({"opened": opened, "tried": tried}))
"""


def test_no_class_of_transformers_opens_one(families: dict[str, Path], tmp_path: Path) -> None:
    model = kronpress.load(families["llama"])
    (tmp_path / "over").mkdir()
    for name in ("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (tmp_path / "over" / name).write_bytes(b"of the model that lay there before")
    model.save_pretrained(tmp_path / "over")
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    model.model.save_pretrained(tmp_path / "base")
    again = [("llama", tmp_path / name) for name in ("over", "shards", "base")]
    folders = json.dumps([(model_type, str(folder)) for model_type, folder in [*families.items(), *again]])
    done = subprocess.run([sys.executable, "-c", CODE, folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["opened"] == []
    assert result["tried"] > 4 * 12 * 6
