"""A tokenizer in a GGUF file finds the same tokens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kronpress.errors import KronpressError
from kronpress.export import GgufExporter
from kronpress.export.gguf.vocabulary import TokenKind, vocabulary_of
from tests.export.gguf_files import GgufFile, a_tokenizer, small_llama
from tests.tiny import VOCABULARY, tiny_tokenizer

TEXTS = [
    "line 7: 49 is 7 times 7, and 343 its cube.\n",
    "Hello wörld \t 2024 it's <s> fine</s>",
    "  two  spaces ",
    "日本",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def written(tokenizer: Any, folder: Path) -> tuple[GgufFile, Any]:
    """The file, and the tokenizer that transformers opens from it."""
    done = GgufExporter().write(small_llama(), folder / "m.gguf", tokenizer=tokenizer)
    return GgufFile(done.file), AutoTokenizer.from_pretrained(folder, gguf_file=done.file.name)


def splitting(*steps: Any) -> PreTrainedTokenizerFast:
    """A BPE over bytes that splits text as told."""
    tokenizer = a_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))
    return tokenizer


def test_transformers_finds_the_same_tokens(tmp_path: Path) -> None:
    tokenizer = a_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    file, again = written(tokenizer, tmp_path)
    for text in TEXTS:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == tokenizer.decode(tokenizer(text)["input_ids"])
    assert (again.bos_token, again.eos_token, again.unk_token) == ("<s>", "</s>", "<unk>")
    assert again.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    fields = {key.removeprefix("tokenizer.ggml."): value for key, value in file.fields.items()}
    assert (fields["model"], fields["pre"], len(fields["tokens"])) == ("gpt2", "gpt-2", VOCABULARY)
    assert [fields[f"{name}_token_id"] for name in ("unknown", "bos", "eos")] == [0, 1, 2]
    assert fields["token_type"][:4] == [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL]
    assert not (fields["add_bos_token"] or fields["add_eos_token"] or fields["add_space_prefix"])


def test_tokens_around_a_text_are_told(tmp_path: Path) -> None:
    tokenizer = a_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert tokenizer("a")["input_ids"][0] == 1
    file, again = written(tokenizer, tmp_path)
    assert file.fields["tokenizer.ggml.add_bos_token"] is True
    assert file.fields["tokenizer.ggml.add_eos_token"] is False
    assert again(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)], "smollm"),
        ([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES], "llama-bpe"),
        ([pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), BYTES], "qwen2"),
        ([pre_tokenizers.Split(Regex("a+"), "isolated"), BYTES], "default"),
        ([BYTES], "default"),
    ],
)
def test_the_way_text_is_split_has_a_name(steps: list[Any], name: str, tmp_path: Path) -> None:
    tokenizer = splitting(*steps)
    assert vocabulary_of(tokenizer, size=VOCABULARY).pre == name
    done = GgufExporter().write(small_llama(), tmp_path / "m.gguf", tokenizer=tokenizer)
    assert ("no name for how this tokenizer splits" in done.proof(tolerance=0)) is (name == "default")
    if name in ("llama-bpe", "qwen2"):
        again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
        assert all(again(text)["input_ids"] == tokenizer(text)["input_ids"] for text in TEXTS)


def test_rows_beyond_the_tokens_get_names(tmp_path: Path) -> None:
    tokenizer = a_tokenizer()
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    vocabulary = vocabulary_of(tokenizer, size=VOCABULARY + 3)
    assert list(vocabulary.tokens[VOCABULARY:]) == ["<think>", f"[PAD{VOCABULARY + 1}]", f"[PAD{VOCABULARY + 2}]"]
    assert list(vocabulary.kinds[VOCABULARY:]) == [TokenKind.USER_DEFINED, TokenKind.UNUSED, TokenKind.UNUSED]
    with pytest.raises(KronpressError, match="has 265 tokens and the model 264"):
        vocabulary_of(tokenizer, size=VOCABULARY)


def test_the_tokens_of_sentencepiece_are_found_again(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "a", "b", "▁a", "ab", "▁ab", "c"][: VOCABULARY + 2 - len(tokens)]
    backend = Tokenizer(
        models.BPE(
            {token: index for index, token in enumerate(tokens)},
            [("▁", "a"), ("a", "b")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", add_prefix_space=True
    )
    vocabulary = vocabulary_of(tokenizer, size=len(tokens))
    assert (vocabulary.model, vocabulary.space_prefix, len(vocabulary.tokens)) == ("llama", True, len(tokens))
    assert vocabulary.kinds[:4] == [TokenKind.UNKNOWN, TokenKind.CONTROL, TokenKind.CONTROL, TokenKind.BYTE]
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    assert scores["▁a"] > scores["ab"], "the better merge comes first"
    model = small_llama(vocab_size=len(tokens))
    GgufExporter().write(model, tmp_path / "m.gguf", tokenizer=tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert all(again(text)["input_ids"] == tokenizer(text)["input_ids"] for text in ("ab ba", "a é b", "cab"))


def test_word_pieces_mark_where_words_start() -> None:
    tokens = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "!"])}
    backend = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP")}
    vocabulary = vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=backend, **names), size=7)
    assert list(vocabulary.tokens) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁play", "ing", "▁!"]
    assert vocabulary.model == "bert"
    assert vocabulary.special == {"bos": 2, "eos": 3, "unk": 1, "pad": 0, "sep": 3}
    assert vocabulary.adds == {"bos": True, "sep": True}


def test_other_tokenizers_are_refused() -> None:
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    with pytest.raises(KronpressError, match="no tokenizer of the kind 'Unigram'"):
        vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=unigram), size=2)


def test_bytes_alone_need_no_merges(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tiny_tokenizer(), size=VOCABULARY)
    assert (vocabulary.merges, vocabulary.pre) == ([], "gpt-2")
    assert vocabulary.special == {"bos": 261, "eos": 262, "unk": 257, "pad": 256, "sep": 259, "mask": 260}
