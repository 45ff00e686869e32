"""What a teacher predicts for a text, kept on disk: a student can then learn from it without the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.activations.head import head_of, narrowed, withheld
from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.checkpoint.digests import tensors_digest
from kronpress.errors import KronpressError
from kronpress.families import vocabulary_size
from kronpress.losses import IGNORED, LogitDistillation, Loss, Predictions
from kronpress.precision import mixed_precision

INDEX = "index.json"
_FORMAT = 1
_SHARD_BYTES = 2**25
_BATCH_TOKENS = 4096
_CHUNK_ELEMENTS = 2**23  # logits that exist together: 32 MB in fp32, three times


@runtime_checkable
class Examples(Protocol):
    """Examples to train on: mappings with `input_ids` and `labels`, all of the same length, the same at every look."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Kept:
    """What is kept of the teacher's predictions.

    Attributes:
        k: likeliest words per token that are told apart.
        temperature: what the logits are divided by.
        labeled: keep those of tokens with a label alone.
        words: size of the student's vocabulary, beyond which the teacher's is not looked at.
    """

    k: int
    temperature: float = 1.0
    labeled: bool = False
    words: int | None = None

    @classmethod
    def of(cls, losses: Mapping[str, Loss], *, words: int | None = None) -> Kept:
        """Return what the losses look at.

        Raises:
            KronpressError: they look at more than the likeliest words at one temperature.
        """
        compared = {name: loss for name, loss in losses.items() if loss.compares}
        known = [loss for loss in compared.values() if isinstance(loss, LogitDistillation) and loss.top_k]
        if not compared:
            raise KronpressError(
                "no loss compares with a teacher, so there is nothing to keep; leave cache_teacher out"
            )
        for name, loss in compared.items():
            if loss not in known:
                raise KronpressError(
                    f"the loss {name} needs more of the teacher than its likeliest words; with cache_teacher every "
                    "loss that compares must be 'logits' with a top_k, such as 64"
                )
        temperatures = sorted({loss.temperature for loss in known})
        if len(temperatures) > 1:
            raise KronpressError(
                f"the losses have the temperatures {temperatures}; a teacher cache knows one: make them equal"
            )
        largest = max(loss.top_k or 0 for loss in known)
        return cls(largest, temperatures[0], all(loss.labeled for loss in known), words)

    def places(self, example: Mapping[str, Tensor]) -> Bool[Tensor, " tokens"]:
        """Say of which tokens the predictions are kept."""
        labels = example["labels"]
        return labels != IGNORED if self.labeled else torch.ones_like(labels, dtype=torch.bool)


@dataclass(frozen=True)
class Key:
    """What a cache is of; another cache has another key.

    Attributes:
        teacher: SHA-256 of its parameters and buffers.
        examples: SHA-256 of all that they hold.
        rows: number of examples.
        tokens: kept of each.
        vocabulary: words that teacher and student know.
        rows_per_shard: examples in each file but the last.
    """

    teacher: str
    examples: str
    rows: int
    tokens: int
    vocabulary: int
    rows_per_shard: int
    kept: Kept
    format: int = _FORMAT

    @classmethod
    def of(cls, teacher: PreTrainedModel, examples: Examples, *, kept: Kept) -> Key:
        """Look at all of the teacher and the examples."""
        state = [*teacher.named_parameters(), *teacher.named_buffers()]
        rows, tokens, vocabulary = len(examples), _tokens(examples, kept), _vocabulary(teacher, kept)
        per_shard = _rows_per_shard(tokens, vocabulary, kept)
        return cls(tensors_digest(state), _digest_of(examples), rows, tokens, vocabulary, per_shard, kept)

    @classmethod
    def read(cls, stored: Any) -> Key | None:
        """Return the key that was read from JSON, None where it is none."""
        try:
            kept = Kept(**stored["kept"])
            key = cls(**(stored | {"kept": kept}))
            return key if key.rows_per_shard == _rows_per_shard(key.tokens, key.vocabulary, kept) else None
        except (TypeError, KeyError, ValueError, ZeroDivisionError, OverflowError):
            return None

    @property
    def shards(self) -> list[str]:
        """The names of the files."""
        return [f"shard-{index:05d}.safetensors" for index in range(-(-self.rows // self.rows_per_shard))]

    def place(self, row: int) -> tuple[str, int]:
        """Return the file of an example and its row there."""
        index, place = divmod(row, self.rows_per_shard)
        return self.shards[index], place

    def rows_of(self, shard: str) -> range:
        """Return the examples in a file."""
        start = self.shards.index(shard) * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.rows))

    def unlike(self, stored: Any) -> list[str]:
        """Return the names of what differs from a key that was read from JSON."""
        given = stored if isinstance(stored, dict) else {}
        return [name for name, value in asdict(self).items() if given.get(name) != value]


class TeacherCache:
    """The likeliest words of each token and their log-probabilities, by rows of the examples it was built from.

    A folder with shards in safetensors and an index in JSON with their SHA-256 digests and the key. Reading maps the
    files into memory for a moment, so that the memory needed does not grow with them.
    """

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder, self.key = folder, key

    @classmethod
    def open(cls, folder: Path, examples: Examples, *, kept: Kept) -> TeacherCache:
        """Open a finished cache without its teacher.

        Raises:
            KronpressError: it is unfinished or damaged, or keeps something else or that of other examples.
        """
        stored, shards = _read_index(folder)
        key = Key.read(stored)
        if key is None:
            raise KronpressError(f"{folder} holds no finished teacher cache; build it with the teacher")
        if key.kept != kept:
            raise KronpressError(f"the teacher cache in {folder} keeps {key.kept}, and {kept} is wanted; build another")
        if (key.examples, key.rows) != (_digest_of(examples), len(examples)):
            raise KronpressError(f"the teacher cache in {folder} is of other text; build another")
        bad = [name for name in key.shards if not _sound(folder / name, shards.get(name))]
        if bad:
            raise KronpressError(f"{folder / bad[0]} is missing or damaged; build the cache again to mend it")
        return cls(folder, key)

    @property
    def bytes(self) -> int:
        """What the files take on disk."""
        return sum((self.folder / name).stat().st_size for name in self.key.shards)

    def __len__(self) -> int:
        return self.key.rows

    def __getitem__(self, row: int) -> tuple[Int[Tensor, "tokens k"], Float[Tensor, "tokens events"]]:
        """Return the likeliest words of each kept token of an example; their log-probabilities and that of all others.

        The latter, k + 1 a token in fp32, are scaled to sum to one, which fp16 had lost.
        """
        shard, place = self.key.place(row)
        with safe_open(self.folder / shard, framework="pt") as stored:
            words = _unpacked(stored.get_slice("words")[place])
            log_probabilities = stored.get_slice("log_probabilities")[place].float().log_softmax(dim=-1)
        return words, log_probabilities


def build_cache(
    folder: Path, teacher: PreTrainedModel, examples: Examples, *, kept: Kept, max_bytes: int
) -> TeacherCache:
    """Run the teacher once over the examples and keep what it predicts, or what is missing in the folder of it.

    Shards that are damaged are computed again, and so is all where the folder has a cache of something else; a line
    that is printed says so.

    Raises:
        KronpressError: it would take more than `max_bytes`, or than is free on the disk.
    """
    check_size(examples, teacher, kept=kept, max_bytes=max_bytes)
    key = Key.of(teacher, examples, kept=kept)
    shards = _sound_shards(folder, key)
    missing = [name for name in key.shards if name not in shards]
    rows = sum(len(key.rows_of(name)) for name in missing)
    files.require_space(folder, needed=rows * key.tokens * _bytes_per_token(key.vocabulary, kept))
    folder.mkdir(parents=True, exist_ok=True)
    teacher.eval()
    with Bar(total=key.rows, initial=key.rows - rows, desc="teacher cache", unit="window") as bar:
        for name in missing:
            some = key.rows_of(name)
            shards[name] = _write(folder / name, _ask(teacher, [examples[row] for row in some], kept=kept, bar=bar))
            files.write_json(folder / INDEX, {"key": asdict(key), "shards": shards})
    return TeacherCache(folder, key)


def check_size(examples: Examples, teacher: PreTrainedModel, *, kept: Kept, max_bytes: int) -> None:
    """Check that a cache would not be larger than allowed, and that the teacher has the words to keep.

    Raises:
        KronpressError: the size, the limit and what to change.
    """
    vocabulary = _vocabulary(teacher, kept)
    if kept.k > vocabulary:
        raise KronpressError(f"top_k is {kept.k} and the teacher has {vocabulary} words; choose at most those")
    rows, tokens = len(examples), _tokens(examples, kept)
    needed = rows * tokens * _bytes_per_token(vocabulary, kept)
    if needed > max_bytes:
        raise KronpressError(
            f"the teacher cache would take {needed:,} bytes ({rows:,} windows, {tokens} tokens of each, {kept.k} words "
            f"of each), and cache_max_bytes is {max_bytes:,}; raise it, lower top_k or train on fewer tokens"
        )


@torch.no_grad()
def _ask(
    teacher: PreTrainedModel, examples: Sequence[Mapping[str, Tensor]], *, kept: Kept, bar: Any
) -> dict[str, Tensor]:
    """Return the teacher's predictions for some examples, in the formats of the file."""
    head = head_of(teacher)
    assert head is not None
    options = {"use_cache": False} if teacher.can_generate() else {}
    vocabulary = _vocabulary(teacher, kept)
    chunk = max(1, _CHUNK_ELEMENTS // vocabulary)
    size = max(1, _BATCH_TOKENS // len(examples[0]["input_ids"]))
    words: list[Tensor] = []
    log_probabilities: list[Tensor] = []
    for start in range(0, len(examples), size):
        some = examples[start : start + size]
        read = some[0].keys() - {"labels"}
        inputs = {name: torch.stack([each[name] for each in some]).to(teacher.device) for name in read}
        places = torch.stack([kept.places(example) for example in some]).to(teacher.device)
        with mixed_precision(teacher.device), withheld(head):
            hidden: Tensor = teacher(**inputs, **options).logits[places]
        for part in hidden.split(chunk):
            with mixed_precision(teacher.device):
                logits = narrowed(head, vocabulary)(part)
            top = Predictions(logits.float()).top(kept.k, temperature=kept.temperature)
            words.append(_packed(top.words, vocabulary).cpu())
            log_probabilities.append(top.log_probabilities.half().cpu())
        bar.update(len(some))
    shape = (len(examples), -1)
    found = {"words": torch.cat(words), "log_probabilities": torch.cat(log_probabilities)}
    return {name: value.unflatten(0, shape) for name, value in found.items()}


def _write(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write a shard atomically and return its SHA-256."""
    files.write_tensors(path, tensors)
    return files.sha256(path)


def _read_index(folder: Path) -> tuple[Any, dict[str, str]]:
    """Return the key in the index of a folder, None where there is none, and the digests of its shards."""
    try:
        index = files.read_json(folder / INDEX)
        return index["key"], dict(index["shards"])
    except (KronpressError, KeyError, TypeError, ValueError):
        return None, {}


def _sound_shards(folder: Path, key: Key) -> dict[str, str]:
    """Return the shards of the folder that need not be computed again, with their digests; remove what is of no use."""
    stored, shards = _read_index(folder)
    unlike = key.unlike(stored)
    if unlike:
        if (folder / INDEX).exists():
            tqdm.write(f"warning: the teacher cache in {folder} has another {unlike[0]}; it is built again")
        for path in folder.glob("shard-*.safetensors"):
            path.unlink()
        return {}
    sound = {}
    for name in key.shards:
        if _sound(folder / name, shards.get(name)):
            sound[name] = shards[name]
        elif name in shards:
            tqdm.write(f"warning: {folder / name} is missing or damaged; it is computed again")
    return sound


def _sound(path: Path, digest: str | None) -> bool:
    return path.is_file() and files.sha256(path) == digest


def _tokens(examples: Examples, kept: Kept) -> int:
    return int(kept.places(examples[0]).sum())


def _vocabulary(teacher: PreTrainedModel, kept: Kept) -> int:
    known = vocabulary_size(teacher)
    return known if kept.words is None else min(known, kept.words)


def _packed(words: Int[Tensor, "tokens k"], vocabulary: int) -> Int[Tensor, "tokens k"]:
    """Return the words in the fewest bytes; int16 holds them modulo 2¹⁶."""
    return words.to(torch.int16 if _word_bytes(vocabulary) == 2 else torch.int32)


def _unpacked(words: Int[Tensor, "tokens k"]) -> Int[Tensor, "tokens k"]:
    return words.long() % 2**16 if words.dtype == torch.int16 else words.long()


def _word_bytes(vocabulary: int) -> int:
    return 2 if vocabulary <= 2**16 else 4


def _rows_per_shard(tokens: int, vocabulary: int, kept: Kept) -> int:
    return max(1, _SHARD_BYTES // (tokens * _bytes_per_token(vocabulary, kept)))


def _bytes_per_token(vocabulary: int, kept: Kept) -> int:
    return kept.k * (_word_bytes(vocabulary) + 2) + 2


def _digest_of(examples: Examples) -> str:
    return tensors_digest(
        (name, value) for row in range(len(examples)) for name, value in sorted(examples[row].items())
    )
