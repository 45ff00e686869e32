"""Tiny random models and a byte-level tokenizer, built from configs: no download, any text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from kronpress.data import Corpus
from kronpress.factorize import Factorize
from kronpress.step import Workbench

VOCABULARY = 264  # 256 bytes and 8 special tokens
DIM, WIDTH, DEPTH, POSITIONS = 16, 24, 3, 128
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<unused>")
TEXT = "".join(f"line {i}: {i * i} is {i} times {i}, and {i * i * i} its cube.\n" for i in range(200))


def tiny_llama(*, tied: bool = True, seed: int = 0, **overrides: Any) -> LlamaForCausalLM:
    """A gated decoder without biases; its fields can be overridden."""
    fields = {"num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "initializer_range": 0.2}
    config = LlamaConfig(**(_encoder_fields() | fields | {"tie_word_embeddings": tied} | overrides))
    return _build(LlamaForCausalLM, config, seed)


def tiny_gpt2(*, tied: bool = True, seed: int = 0, **overrides: Any) -> GPT2LMHeadModel:
    """A decoder with `Conv1D` layers, biases and learned positions."""
    sizes = {"vocab_size": VOCABULARY, "n_embd": DIM, "n_inner": WIDTH, "n_layer": DEPTH, "n_head": 4}
    fields = {"n_positions": POSITIONS, "initializer_range": 0.2, "bos_token_id": 5, "eos_token_id": 6}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(**(sizes | fields | dropout | {"tie_word_embeddings": tied} | overrides))
    return _build(GPT2LMHeadModel, config, seed)


def tiny_bert(*, seed: int = 0, **overrides: Any) -> BertForMaskedLM:
    """An encoder with a masked-language-model head, tied as BERT's always is."""
    fields = {"max_position_embeddings": POSITIONS, "initializer_range": 0.2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return _build(BertForMaskedLM, BertConfig(**(_encoder_fields() | fields | dropout | overrides)), seed)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte of UTF-8, and a few special ones."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token", "eos_token")
    special = dict(zip(names, SPECIAL, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **special)


def save_tiny(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """Write a plain checkpoint with its tokenizer, as a user would have one; a tiny Llama by default."""
    (model or tiny_llama()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def bench(
    model: PreTrainedModel, folder: Path, *, text: str = TEXT, teacher: PreTrainedModel | None = None
) -> Workbench:
    """A workbench with a copy of `model` as the student and the model itself, or another, as the teacher."""
    corpus = Corpus("lines", text)
    student, teacher = copy.deepcopy(model), teacher or model
    return Workbench(student, teacher, tiny_tokenizer(), corpus, corpus, folder, measurements=None, seed=0)


def factorized(model: PreTrainedModel, folder: Path, *, sites: str = "all,embedding,head") -> PreTrainedModel:
    """A copy of `model` with factors at `sites`, not exact ones."""
    work = bench(model, folder)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 2, "scales": True}, sites=sites).run(work)
    return work.student


@torch.no_grad()
def with_more_rows(model: PreTrainedModel, larger: Any) -> Any:
    """Return `larger` with the weights of `model`, but for the rows of its tables that `model` has not."""
    own = model.state_dict()
    for name, tensor in larger.state_dict().items():
        if tensor.shape == own[name].shape:
            tensor.copy_(own[name])
        else:
            tensor[: len(own[name])] = own[name]
    return larger


def weights_files(folder: Path) -> list[Path]:
    """The files with weights below a folder; those with structured layers have a name of their own."""
    return [path for path in sorted(folder.rglob("*.safetensors")) if path.stem in ("model", "kronpress")]


def some_ids(*, batch: int = 2, tokens: int = 12) -> torch.Tensor:
    """Token ids spread over the whole vocabulary, (batch, tokens)."""
    return torch.linspace(0, VOCABULARY - 1, batch * tokens).long().view(batch, tokens)


def factors_of(head: torch.nn.Module) -> torch.nn.Module:
    """The module with the factors of a head: the table that a tied one reads, else itself."""
    return getattr(head, "table", head)


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor | None = None) -> torch.Tensor:
    """What the model answers in evaluation mode."""
    return model.eval()(input_ids=some_ids() if ids is None else ids).logits


def _encoder_fields() -> dict[str, Any]:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": DIM, "intermediate_size": WIDTH, "num_hidden_layers": DEPTH}
    return sizes | {"num_attention_heads": 4, "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": None}


def _build(model_class: type[Any], config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zero by default, which would hide mistakes
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
