"""Measure what cleaning costs and finds, on real text with planted duplicates.

    python -m benchmarks.cleaning --data DIR --size 200 --json benchmarks/results/cleaning.json

Every paragraph of the .txt files below DIR comes once as it is, and then again and again with the words of its
sentences in another order, until the file has so many megabytes. A tenth of the paragraphs have a planted duplicate
somewhere: the same again, one word changed, or the first sentence moved to the end; and some have one that is none:
other words of the same lengths between the same four first and last ones. For every five megabytes there is a cluster:
10, 100 or 500 paragraphs made of one by other words in some places, of which many are similar. The command runs in a
process of its own, on one core. What goes is right if it is a planted duplicate, or is similar to another paragraph of
its cluster, or of the text by chance.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kronpress.data.cleaning import Batch, Cleaning, Document
from kronpress.disk import read_json, write_json

RULES = ("minhash", "short_study")
KINDS = ("exact", "one word changed", "sentence moved", "other middle")
OTHER = "other middle"
RATE = 0.1  # of the paragraphs get a planted one
SHINGLE = 3
THRESHOLD = 0.8
SHORTEST = 20  # words of a paragraph that is planted
CLUSTER_MEGABYTES = 5  # of text for each cluster
CLUSTER_SIZES = (100, 10, 500)
CLUSTER_CHANGES = (0.03, 0.015, 0.05)  # the chance of each word to be another
CLUSTER_WORDS = range(60, 150)  # of a paragraph that a cluster is made of
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Planted:
    """A paragraph that was planted: its kind, the numbers of both in the file, and their Jaccard similarity."""

    kind: str
    original: int
    copy: int
    jaccard: float

    @property
    def numbers(self) -> tuple[int, int]:
        """Those of both."""
        return self.original, self.copy


def paragraphs(folder: Path) -> list[str]:
    """Return the different paragraphs of all texts."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.txt"))]
    blocks = (block.strip() for text in texts for block in re.split(r"\n\s*\n", text))
    return list(dict.fromkeys(" ".join(block.split()) for block in blocks if block))


def varied(text: str, draw: random.Random) -> str:
    """Return a paragraph with the words of each sentence in another order."""
    sentences = [sentence.split() for sentence in SENTENCE.split(text)]
    for sentence in sentences:
        draw.shuffle(sentence)
    return " ".join(word for sentence in sentences for word in sentence)


def plant(text: str, kind: str, draw: random.Random) -> str:
    """Return a paragraph that is made of another."""
    words = text.split()
    if kind == "one word changed":
        words[draw.randrange(len(words))] = f"word{draw.randrange(10**6)}"
    elif kind == "sentence moved":
        first, *others = SENTENCE.split(text)
        return " ".join([*others, first])
    elif kind == OTHER:
        middle = [re.sub("[a-z]", lambda _: chr(97 + draw.randrange(26)), word, count=1) for word in words[4:-4]]
        return " ".join([*words[:4], *middle, *words[-4:]])
    return " ".join(words)


def cluster(template: str, number: int, draw: random.Random) -> list[str]:
    """Return paragraphs that are made of one."""
    size, changes = (options[number % 3] for options in (CLUSTER_SIZES, CLUSTER_CHANGES))
    return [
        " ".join(f"word{draw.randrange(10**6)}" if draw.random() < changes else word for word in template.split())
        for _ in range(size)
    ]


def shingles(text: str) -> set[str]:
    """Return the runs of three words of a text, found another way than the command does."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """Return the Jaccard similarity of two sets."""
    return len(one & other) / len(one | other)


def similar_to_another(texts: Sequence[str], numbers: set[int], *, among: set[int]) -> set[int]:
    """Return those of some paragraphs that are similar to another of them, or to one among others."""
    sets = {number: shingles(texts[number]) for number in numbers}
    owners: dict[str, list[int]] = defaultdict(list)
    for number, members in sets.items():
        for shingle in sorted(members, key=len)[-1 - int((1 - THRESHOLD) * len(members)) :]:  # one of these is shared
            owners[shingle].append(number)
    right: set[int] = set()
    for number in sorted(numbers | among):
        members = shingles(texts[number])
        near = {owner for shingle in members & owners.keys() for owner in owners[shingle]} - {number}
        right |= {owner for owner in near - right if jaccard(sets[owner], members) >= THRESHOLD}
    return right


@dataclass(frozen=True)
class Built:
    """The paragraphs of a file, the pairs that were planted, and the numbers of the paragraphs of each cluster."""

    texts: list[str]
    pairs: list[Planted]
    clusters: list[list[int]]


def build(source: Sequence[str], *, megabytes: float, seed: int) -> Built:
    """Make the paragraphs of the file."""
    draw, plans = random.Random(seed), []
    long = [text for text in source if len(text.split()) in CLUSTER_WORDS]
    templates = draw.sample(long, max(1, round(megabytes / CLUSTER_MEGABYTES)))
    clusters = [cluster(template, number, draw) for number, template in enumerate(templates)]
    made = [text for members in clusters for text in members]
    size = sum(map(len, made))
    for text in _endless(source, draw):
        made.append(text)
        size += len(text)
        if draw.random() < RATE and len(text.split()) >= SHORTEST:
            kind = draw.choice(KINDS)
            if kind != "sentence moved" or len(SENTENCE.split(text)) > 1:
                made.append(plant(text, kind, draw))
                size += len(made[-1])
                plans.append((kind, len(made) - 2, len(made) - 1))
        if size >= megabytes * 1e6:
            break
    order = list(range(len(made)))
    draw.shuffle(order)
    place = {number: index for index, number in enumerate(order)}
    pairs = []
    for kind, one, two in plans:
        similarity = jaccard(shingles(made[one]), shingles(made[two]))
        if kind != OTHER or similarity < THRESHOLD:
            pairs.append(Planted(kind, place[one], place[two], similarity))
    texts = [made[number] for number in order]
    homes = {text: home for home, members in enumerate(clusters) for text in (templates[home], *members)}
    of_cluster = [(homes[text], number) for number, text in enumerate(texts) if text in homes]
    return Built(texts, pairs, [[number for home, number in of_cluster if home == one] for one in range(len(clusters))])


def _endless(source: Sequence[str], draw: random.Random) -> Iterator[str]:
    yield from source
    while True:
        yield from (varied(text, draw) for text in source)


def run(rule: str, file: Path, out: Path) -> dict[str, float]:
    """Clean a file by the command, on one core; return what it takes."""
    core = max(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "kronpress", "clean", str(file), "--out", str(out), "--duplicates", rule]
    return taken(command, core=core)


def taken(command: Sequence[str], *, core: int) -> dict[str, float]:
    """Run a command on one core; return its seconds, those of them that it computes, and its peak memory in megabytes.

    A speed is by the seconds that it computes, which do not depend on what else the machine does.
    """
    started = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    start = functools.partial(os.sched_setaffinity, 0, {core})
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, preexec_fn=start)
    peak, pid = 0.0, 0
    while not pid:  # the operating system's own peak begins with that of this process, which is large
        peak = max(peak, peak_megabytes(process.pid))
        time.sleep(0.02)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the command ended with status {process.returncode}"
    wall, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return {"seconds": wall, "cpu_seconds": cpu, "peak_megabytes": peak}


def peak_megabytes(process: int) -> float:
    """Return the most memory that a process has held so far; 0 once it has ended, or where the platform is silent."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    told = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(told[1]) * 1024 / 1e6 if told else 0.0


def missing(texts: Sequence[str], out: Path) -> set[int]:
    """Return the numbers of the paragraphs that are not in the result, which has the others in their order."""
    shards = (path.read_text(encoding="utf-8").strip("\n") for path in sorted(out.glob("*.txt")))
    stayed = (text for shard in shards for text in shard.split("\n\n"))
    gone, expected = set(), next(stayed, None)
    for number, text in enumerate(texts):
        if text == expected:
            expected = next(stayed, None)
        else:
            gone.add(number)
    assert expected is None, "the result has a paragraph that was not in the file"
    return gone


def filtered(texts: Sequence[str], gone: set[int]) -> set[int]:
    """Return the numbers of those that went because they are bad text, not because they are duplicates."""
    settings, numbers = Cleaning(), sorted(gone)
    if not numbers:
        return set()
    batch = Batch([Document(texts[number], "") for number in numbers])
    bad = [settings.html.drops(text) for text in batch.texts]
    flags = [bad, *(rule.drops(batch).tolist() for rule in settings.every_filter().values())]
    return {number for number, *verdicts in zip(numbers, *flags, strict=True) if any(verdicts)}


def judged(built: Built, out: Path, *, natural: set[int]) -> dict[str, Any]:
    """Return precision and recall; a planted duplicate counts as found if one of the two went."""
    gone = missing(built.texts, out)
    bad = filtered(built.texts, gone)
    gone -= bad
    pairs = [pair for pair in built.pairs if not bad.intersection(pair.numbers)]
    planted = {kind: {number for pair in pairs if pair.kind == kind for number in pair.numbers} for kind in KINDS}
    unplanned = gone.difference(*planted.values(), *built.clusters)
    clusters = [_cluster(built.texts, sorted({*members} - bad), gone) for members in built.clusters]
    wrong = gone & planted[OTHER] | unplanned - similar_to_another(built.texts, unplanned, among=natural)
    kinds = {kind: [pair for pair in pairs if pair.kind == kind] for kind in KINDS}
    similar = [pair for pair in pairs if pair.jaccard >= THRESHOLD]
    totals = {name: sum(row[name] for row in clusters) for name in clusters[0]}
    return {
        "went": len(gone),
        "precision": 1 - (len(wrong) + totals.pop("wrong")) / max(1, len(gone)),
        "recall_at_0.8": _share(similar, gone),
        "pairs_at_0.8": len(similar),
        "kinds": {kind: _kind(members, gone) for kind, members in kinds.items()},
        "clusters": {"clusters": len(clusters), **totals},
    }


def _cluster(texts: Sequence[str], members: Sequence[int], gone: set[int]) -> dict[str, int]:
    """Count the paragraphs of a cluster, given in their order.

    `stayed` of them are not gone, and `stayed_similar` of these are similar to an earlier one that stayed. If each were
    compared with all that stay before it, `stay_exactly` would stay. What went is `wrong` if it is similar to none.
    """
    sets = [shingles(texts[number]) for number in members]
    stayed = [number not in gone for number in members]

    def similar(index: int, others: Iterator[int]) -> bool:
        return any(jaccard(sets[index], sets[other]) >= THRESHOLD for other in others)

    exact: list[int] = []
    for index in range(len(members)):
        exact += [] if similar(index, iter(exact)) else [index]
    kept = [index for index, stays in enumerate(stayed) if stays]
    went = [index for index, stays in enumerate(stayed) if not stays]
    return {
        "paragraphs": len(members),
        "stayed": len(kept),
        "stay_exactly": len(exact),
        "stayed_similar": sum(similar(index, (other for other in kept if other < index)) for index in kept),
        "wrong": sum(not similar(index, (other for other in kept)) for index in went),
    }


def _kind(pairs: Sequence[Planted], gone: set[int]) -> dict[str, float]:
    similar = [pair for pair in pairs if pair.jaccard >= THRESHOLD]
    mean = sum(pair.jaccard for pair in pairs) / max(1, len(pairs))
    return {"pairs": len(pairs), "jaccard": mean, "went": _share(pairs, gone), "went_at_0.8": _share(similar, gone)}


def _share(pairs: Sequence[Planted], gone: set[int]) -> float:
    return sum(pair.original in gone or pair.copy in gone for pair in pairs) / max(1, len(pairs))


def counted_words(file: Path) -> float:
    """Return the seconds that `wc -w` computes."""
    return taken(["wc", "-w", str(file)], core=max(os.sched_getaffinity(0)))["cpu_seconds"]


def measure(data: Path, *, megabytes: float, seed: int) -> dict[str, Any]:
    """Return everything that is measured."""
    source = paragraphs(data)
    built = build(source, megabytes=megabytes, seed=seed)
    different = set(source)
    natural = {number for number, text in enumerate(built.texts) if text in different}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text("\n\n".join(built.texts) + "\n", encoding="utf-8")
        size, words = file.stat().st_size / 1e6, counted_words(file)
        rules = {}
        for rule in RULES:
            cost = run(rule, file, Path(folder) / rule)
            speed = {"megabytes_per_second": size / cost["cpu_seconds"], "times_wc": cost["cpu_seconds"] / words}
            report = read_json(Path(folder) / rule / "report.json")
            rules[rule] = (
                cost | speed | judged(built, Path(folder) / rule, natural=natural) | {"settings": report["settings"]}
            )
    return {"megabytes": size, "paragraphs": len(built.texts), "seed": seed, "wc_cpu_seconds": words, "rules": rules}


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Yield a table of what it costs, one of what it finds, and one of the clusters."""
    title = f"{result['megabytes']:.0f} MB, {result['paragraphs']:,} paragraphs, one core"
    cost = Table("rule", "MB/s", "× wc -w", "peak MB", "went", "precision", "recall at J ≥ 0.8", title=title)
    kinds = Table("rule", "planted", "pairs", "mean J", "went", "went of J ≥ 0.8")
    for rule, row in result["rules"].items():
        numbers = (row["megabytes_per_second"], row["times_wc"], row["peak_megabytes"])
        shares = (f"{row['precision']:.4f}", f"{row['recall_at_0.8']:.4f}")
        cost.add_row(rule, *(f"{number:.1f}" for number in numbers), f"{row['went']:,}", *shares)
        for kind, found in row["kinds"].items():
            shares = tuple(f"{found[name]:.4f}" for name in ("jaccard", "went", "went_at_0.8"))
            kinds.add_row(rule, kind, f"{found['pairs']:,}", *shares)
    clusters = Table("rule", "clusters", "paragraphs", "stay", "would exactly", "similar to an earlier")
    for rule, row in result["rules"].items():
        clusters.add_row(rule, *(f"{number:,}" for number in row["clusters"].values()))
    yield from (cost, kinds, clusters)


def main() -> None:
    """Measure, print the tables, and keep the result where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=float, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.data, megabytes=arguments.size, seed=arguments.seed)
    for table in tables(result):
        Console().print(table)
    if arguments.json is not None:
        write_json(arguments.json, json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.5g}")))


if __name__ == "__main__":
    main()
