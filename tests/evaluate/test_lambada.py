from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kronpress.errors import KronpressError
from kronpress.evaluate import LAMBADA, read_lambada
from kronpress.records import LambadaScore
from tests.evaluate.conftest import VOCABULARY

TEXTS = ["the cat sat on the mat", "a dog", "it went on. and on. and so on", "ab  cd", "one\n\ntwo three", "x y"]


def written(folder: Path, texts: list[str]) -> str:
    path = folder / "lambada.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def measured(model: PreTrainedModel, letters: PreTrainedTokenizerFast, folder: Path, texts: list[str]) -> LambadaScore:
    return LAMBADA.measure(model, letters, read_lambada(written(folder, texts)), name="text", progress=False)


@torch.no_grad()
def one_by_one(model: PreTrainedModel, letters: PreTrainedTokenizerFast, texts: list[str]) -> tuple[float, float]:
    """Perplexity and accuracy, one passage and one token after the other."""
    nats, right = [], []
    for text in texts:
        context = text[: text.rindex(" ")].rstrip()
        ids = letters(text, verbose=False)["input_ids"][-65:]
        asked = len(text) - len(context)
        found = []
        for place in range(len(ids) - asked, len(ids)):
            logits = model(torch.tensor([ids[:place]])).logits[0, -1].double()
            found.append((-logits.log_softmax(0)[ids[place]].item(), logits.argmax().item() == ids[place]))
        nats.append(sum(each for each, _ in found))
        right.append(all(each for _, each in found))
    return math.exp(sum(nats) / len(nats)), 100 * sum(right) / len(right)


@pytest.fixture
def follows() -> LlamaForCausalLM:
    """Return a model for which b is followed by a space, a space by c, and c by d."""
    size = len(VOCABULARY)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for token, successor in ("b ", " c", "cd"):
            model.lm_head.weight[VOCABULARY[successor], VOCABULARY[token]] = 1
    return model


def test_a_word_is_right_where_all_its_tokens_are(
    follows: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    wrong = ["ab ce", "ab dd", "aa cd", "cd c"]  # by its last token, its first, its space, and by it once more
    result = measured(follows, letters, tmp_path, ["ab cd", "aab c", *wrong])
    assert result.accuracy == pytest.approx(200 / 6)
    assert measured(follows, letters, tmp_path, ["ab cd"]).accuracy == 100


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_equals_one_passage_after_the_other(
    kind: str, letters: PreTrainedTokenizerFast, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    result = measured(model, letters, tmp_path, TEXTS)
    perplexity, accuracy = one_by_one(model, letters, TEXTS)
    assert result.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert result.accuracy == accuracy
    assert (result.protocol, result.text, result.passages, result.cut) == ("lambada-openai", "text", len(TEXTS), 0)
    assert result.seconds > 0


def test_a_uniform_model_has_as_perplexity_the_vocabulary_to_the_tokens_of_the_word(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    torch.nn.init.zeros_(llama.lm_head.weight)
    size = len(VOCABULARY)
    assert measured(llama, letters, tmp_path, ["a bc", "some new"]).perplexity == pytest.approx(size**3.5)
    assert measured(llama, letters, tmp_path, ["ab  c"]).perplexity == pytest.approx(size**3), "both spaces are asked"


@pytest.mark.parametrize("tokens", [1, 40])
def test_batches_change_nothing(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path, tokens: int
) -> None:
    whole = measured(llama, letters, tmp_path, TEXTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kronpress.evaluate.lambada._TOKENS_PER_BATCH", tokens)
        parts = measured(llama, letters, tmp_path, TEXTS)
        turned = measured(llama, letters, tmp_path, TEXTS[::-1])
    assert parts.perplexity == pytest.approx(whole.perplexity, rel=1e-5)
    assert turned.perplexity == pytest.approx(whole.perplexity, rel=1e-5)


def test_the_head_computes_few_positions(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    seen: list[int] = []
    llama.lm_head.register_forward_hook(lambda head, inputs, _: seen.append(inputs[0].shape[1]))
    measured(llama, letters, tmp_path, ["the cat sat on a m", "the dog sat on a n"])
    assert seen == [2]


def test_a_model_that_computes_all_logits_gives_the_same(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    wanted = measured(llama, letters, tmp_path, TEXTS)
    forward = llama.forward
    llama.forward = lambda input_ids, attention_mask, use_cache: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
    )
    found = measured(llama, letters, tmp_path, TEXTS)
    assert found.perplexity == pytest.approx(wanted.perplexity, rel=1e-6)


def test_long_passages_are_cut_at_their_beginning(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    texts = ["x" * size + " and the end" for size in (40, 53, 54, 100)]  # 64 tokens are read, the last one is not
    result = measured(llama, letters, tmp_path, texts)
    assert result.cut == 2
    assert result.perplexity == pytest.approx(one_by_one(llama, letters, texts)[0], rel=1e-5)
    short = texts[3][-65:]
    assert measured(llama, letters, tmp_path, [texts[3]]).perplexity == pytest.approx(
        measured(llama, letters, tmp_path, [short]).perplexity
    )


def test_a_hopeless_model_has_infinite_perplexity(
    llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with torch.no_grad():
        llama.lm_head.weight.fill_(math.nan)
    assert measured(llama, letters, tmp_path, TEXTS).perplexity == math.inf


def test_modes_are_restored(llama: LlamaForCausalLM, letters: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    llama.train()
    measured(llama, letters, tmp_path, TEXTS)
    assert llama.training and llama.lm_head.training


def test_passages_are_split_before_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "passages.jsonl"
    path.write_text('{"text": " He said: it\'s me \\n"}\n\n{"text": "is  this\\u3000it  ?"}\n', encoding="utf-8")
    first, second = read_lambada(str(path))
    assert (first.context, first.text) == (" He said: it's", " He said: it's me")
    assert (second.context, second.text) == ("is  this\u3000it", "is  this\u3000it  ?")
    assert second.place == f"{path}, line 3"
    assert read_lambada(str(path), limit=1) == [first]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a b"}\n{"text": "alone"}\n', "line 2: 'alone' is not two words"),
        ('{"text": " alone "}\n', "line 1: ' alone' is not two words"),
        ('{"text": ""}\n', "line 1: '' is not two words"),
        ('{"text": "a b"}\n{"text"\n', r"line 2: not JSON \(.*column"),
        ('{"txt": "a b"}\n', "line 1: no field 'text'"),
        ('["a b"]\n', "line 1: a JSON list, not an object"),
        ('{"text": "a \\ud800b"}\n', "line 1: half of a surrogate pair"),
        ("\n", "holds no passage"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KronpressError, match=message) as caught:
        read_lambada(str(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_and_an_empty_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"none\.jsonl' can not be read: No such file"):
        read_lambada(str(tmp_path / "none.jsonl"))
    with pytest.raises(KronpressError, match="limit=0"):
        read_lambada(written(tmp_path, TEXTS), limit=0)


def test_what_does_not_fit_is_refused(
    llama: LlamaForCausalLM, encoder: PreTrainedModel, letters: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(KronpressError, match="LAMBADA needs a causal language model"):
        measured(encoder, letters, tmp_path, TEXTS)
    with pytest.raises(KronpressError, match="'text' has no passage"):
        LAMBADA.measure(llama, letters, [], name="text")
    with pytest.raises(KronpressError, match=r"line 2: of 72 tokens 70 are the last word's.*sees 64"):
        measured(llama, letters, tmp_path, ["a b", "ab " + "c" * 69])
    llama.config.vocab_size = 5
    with pytest.raises(KronpressError, match="knows 5 ids"):
        measured(llama, letters, tmp_path, TEXTS)
