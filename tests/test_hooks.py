"""The plug-in for transformers is loaded when it is first needed, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kronpress
from tests.tiny import factorized, tiny_llama

LIGHT = """
import sys
import kronpress.checkpoint
from kronpress.families import FAMILIES
models = [f"transformers.models.{name}.modeling_{name}" for name in FAMILIES]
heavy = [*models, "transformers.trainer", "datasets", "sklearn", "matplotlib", "pandas"]
assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)
import transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert type(model).__name__ == "KronpressLlamaForCausalLM", type(model)
assert set(models) & set(sys.modules) == {"transformers.models.llama.modeling_llama"}
"""
HOOKS = """
import sys
from types import ModuleType
package = ModuleType("kronpress")
package.__path__ = [sys.argv[2]]
sys.modules["kronpress"] = package  # without what the package itself imports
from kronpress import hooks
hooks.watch()
hooks.watch()
import transformers
assert not {"kronpress.checkpoint", "transformers.configuration_utils"} & set(sys.modules)
import transformers.quantizers.auto  # in the middle of which the configs of the Auto classes are loaded
assert "kronpress.checkpoint.plugin" in sys.modules
assert type(transformers.AutoConfig.from_pretrained(sys.argv[1])).__name__ == "KronpressLlamaConfig"
assert "kronpress.checkpoint.trainer" not in sys.modules
import transformers.trainer
assert "kronpress.checkpoint.trainer" in sys.modules
model = transformers.LlamaForCausalLM.from_pretrained(sys.argv[1])
assert type(model).__name__ == "KronpressLlamaForCausalLM", type(model)
"""


def run(code: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_the_families_that_are_used_are_loaded(tmp_path: Path) -> None:
    run(LIGHT, kronpress.save(factorized(tiny_llama(), tmp_path, sites="up"), tmp_path / "saved"))


def test_the_plug_in_follows_the_first_part_of_transformers_that_needs_it(tmp_path: Path) -> None:
    folder = kronpress.save(factorized(tiny_llama(), tmp_path, sites="up"), tmp_path / "saved")
    run(HOOKS, folder, Path(kronpress.__file__).parent)
