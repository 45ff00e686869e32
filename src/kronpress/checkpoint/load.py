"""Open models: checkpoints of ours, plain folders, hub ids, GGUF files and the bundled models."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from kronpress.checkpoint import files
from kronpress.checkpoint.bundled import BUNDLED, Bundled, BundledInParts
from kronpress.checkpoint.completeness import (
    keep_pooler,
    missing_pooler,
    note_unread,
    rehearse,
    require_all_read,
    require_complete,
    require_float_parameters,
)
from kronpress.checkpoint.config import PREFIX, forget_quantization
from kronpress.checkpoint.contents import (
    CONFIG,
    MANIFEST,
    StoredTensor,
    read_config,
    read_tensors,
    require_regular,
    weight_files,
)
from kronpress.checkpoint.foreign import (
    require_float_weights,
    require_model,
    require_no_adapter,
    require_no_hub_adapter,
    require_possible_sizes,
    require_unquantized,
)
from kronpress.checkpoint.hub import require_hub
from kronpress.checkpoint.probe import Probe
from kronpress.checkpoint.save import save
from kronpress.checkpoint.ties import settle_ties
from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.families import FAMILIES
from kronpress.layers import quantized_tensors


def load(
    folder: str | Path, *, dtype: torch.dtype | None = None, verify: bool = True, unpack: bool = False
) -> PreTrainedModel:
    """Open a model, checking that every weight is there and, where a probe is recorded, the outputs.

    Args:
        folder: a checkpoint folder, a hub id, a GGUF file or `bundled:NAME`.
        dtype: of the parameters; the checkpoint's own by default.
        verify: check the probe of a kronpress checkpoint.
        unpack: of numbers that are stored as codes of a grid, keep the numbers in memory beside the codes: a layer then
            computes as fast as a dense one, and takes as much memory.

    Raises:
        KronpressError: the model is missing, damaged, incomplete or not supported.
    """
    model, _ = _open(str(folder), dtype, verify)
    for tensor in quantized_tensors(model) if unpack else ():
        tensor.unpack()
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
    folder = Path(source) if Path(source).is_dir() else None
    with _plain_errors(source):
        config = AutoConfig.from_pretrained(**options)
        if "gguf_file" not in options:
            require_unquantized(vars(config), place=source)
        tensors = _stored_tensors(options, config)
        ours = folder is not None and (folder / MANIFEST).exists()
        model_class = _model_class(config, tensors, gguf="gguf_file" in options)
        if tensors:
            tried, told = rehearse(model_class._model_mapping[type(config)], config, tensors)
            _require_whole(source, tried, told, ours=ours)
            require_float_parameters(source, tried, told, tensors=tensors)
        model, info = model_class.from_pretrained(
            **options,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told apart from what is missing below
            use_safetensors="gguf_file" not in options,
            **({"dtype": dtype} if dtype else {}),
        )
        unread = _require_whole(source, model, info, ours=ours)
        keep_pooler(source, model, info, options=options)
    if missing_pooler(model, info):  # AutoModel made one up
        model.pooler = None
    note_unread(model, unread)
    settle_ties(model)
    if "gguf_file" in options:
        forget_quantization(model)
    probe = Probe.read(folder) if verify and folder is not None else None
    if probe is not None:
        with _plain_errors(source):
            probe.check(model, place=Path(source))
    return model.eval(), options


def _require_whole(source: str, model: PreTrainedModel, info: Mapping[str, Any], *, ours: bool) -> list[str]:
    require_complete(source, model, info)
    return require_all_read(source, model, info, ours=ours)


def _stored_tensors(options: dict[str, Any], config: Any) -> dict[str, StoredTensor]:
    """Return the headers of the files that transformers is going to read, none where they are not in a folder."""
    folder = Path(options["pretrained_model_name_or_path"])
    if "gguf_file" in options or not folder.is_dir():
        return {}
    return read_tensors(folder, weight_files(folder, named=getattr(config, "transformers_weights", None)))


def _resolve(source: str) -> dict[str, Any]:
    if source.startswith("bundled:"):
        name = source.removeprefix("bundled:")
        if name not in BUNDLED:
            raise KronpressError(f"unknown bundled model '{name}': {did_you_mean(name, BUNDLED)}")
        path = _bundled(BUNDLED[name])
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
        require_no_hub_adapter(source)
    return {"pretrained_model_name_or_path": str(path) if path.is_dir() else source}


def _bundled(model: Bundled | BundledInParts) -> Path:
    """Return the file or folder of a bundled model; one in parts is opened once, which takes its time, and kept."""
    if isinstance(model, Bundled):
        return model.find()
    folder = model.folder
    if not (folder / CONFIG).exists():
        with model.assembled() as path:
            opened, tokenizer = load_with_tokenizer(path)
            save(opened, folder, tokenizer=tokenizer)
    return folder


def _gguf(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise KronpressError(f"no model at {path}: the GGUF file does not exist")
    if not path.is_file():
        raise KronpressError(f"{path} is not a regular file; name a GGUF file")
    require_no_adapter(path.parent)
    if importlib.util.find_spec("gguf") is None:
        raise KronpressError("reading a GGUF file needs a package: run `pip install gguf` and try again")
    return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}


def _require_sound(folder: Path) -> None:
    """Check what a folder holds, as far as file names and headers tell, before transformers reads any of it."""
    require_no_adapter(folder)
    require_regular(folder)
    require_model(folder)
    config = read_config(folder)
    _require_config(config, folder)
    require_unquantized(config, place=str(folder))
    tensors = read_tensors(folder)
    if "quantization_config" not in config:
        require_float_weights(folder, tensors)
    require_possible_sizes(config, tensors=len(tensors), place=folder / CONFIG)


def _require_config(config: Mapping[str, Any], folder: Path) -> None:
    """Check what transformers takes on trust in the JSON files of a model; most fields it checks itself."""
    names = config.get("architectures")
    if not isinstance(config.get("model_type", ""), str):
        wrong, wanted = "model_type", "the name of a model family"
    elif names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        wrong, wanted = "architectures", "a list with the name of the model class"
    else:
        if (folder / "generation_config.json").exists():
            files.read_object(folder / "generation_config.json")
        return
    raise KronpressError(f"{folder / CONFIG}: {wrong} is {shown(config.get(wrong))}, not {wanted}; restore the file")


_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def _model_class(config: Any, tensors: Mapping[str, StoredTensor], *, gguf: bool) -> Any:
    family = FAMILIES[config.model_type.removeprefix(PREFIX)]  # an unsupported family stops here
    for name in _SIZES:
        if getattr(config, name) < 1:
            raise KronpressError(f"{name} is {getattr(config, name)} in config.json; it is 1 or more: restore the file")
    if gguf:  # a GGUF file names no class; it holds a language model
        return transformers.AutoModelForCausalLM
    for name in config.architectures or []:
        for auto in (getattr(transformers, auto_name) for auto_name in _AUTO_CLASSES):
            if _opens(auto, config, name.removeprefix("Kronpress")):
                return auto
    base: Any = AutoModel._model_mapping[type(config)]
    head = f"{family.head.rpartition('.')[0] or family.head}."
    parts = (head, f"{base.base_model_prefix}.") if family.causal else (head,)
    if any(name.startswith(parts) for name in tensors):  # a base model alone is stored without its prefix
        return transformers.AutoModelForCausalLM if family.causal else transformers.AutoModelForMaskedLM
    return AutoModel


def _opens(auto: Any, config: Any, name: str) -> bool:
    """Say whether an Auto class opens the model class `name`, or that of the same task in the config's own family."""
    mapping, task = auto._model_mapping, auto.__name__.removeprefix("AutoModel")
    if type(config) not in mapping:
        return False
    own = mapping[type(config)].__name__.removeprefix("Kronpress")
    return bool(name == own or (task and name.endswith(task)))


_AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForTokenClassification",
    "AutoModelForMultipleChoice",
    "AutoModel",
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
    except KronpressError as error:
        if source in str(error):
            raise
        raise KronpressError(f"cannot open the model '{source}': {error}") from error
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
