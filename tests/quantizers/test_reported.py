"""What records tell of schemes and of rounded inputs is what is stored."""

from __future__ import annotations

import pytest
import torch

from kronpress.layers import is_learning
from kronpress.quantizers import Scheme, input_examples, input_ranges, number_formats, rounded_sites
from kronpress.records import NumberFormat, NumberFormats
from tests.quantizers.test_scheme import put
from tests.tiny import some_ids, tiny_bert

UP, DOWN = "bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"


@pytest.mark.parametrize(
    ("fields", "formats"),
    [
        ({"weights": 1}, NumberFormats(NumberFormat(1, "bwn", "row"), NumberFormat(1, "bwn", "row"))),
        (
            {"weights": {"bits": 4, "group": 8}, "tables": 32, "inputs": 8},
            NumberFormats(NumberFormat(4, "mse", 8), NumberFormat(32), NumberFormat(8, "minmax", "tensor")),
        ),
        ({"weights": 32, "tables": 32, "inputs": 32}, NumberFormats(NumberFormat(32), NumberFormat(32))),
    ],
)
def test_formats_name_bits_and_quantizers(fields: dict[str, object], formats: NumberFormats) -> None:
    assert number_formats(put(tiny_bert(), Scheme.model_validate(fields))) == formats


def test_formats_are_those_of_the_model_whatever_the_last_scheme_left() -> None:
    model = put(tiny_bert(), Scheme.model_validate({"weights": 4, "inputs": 8}))
    formats = number_formats(put(model, Scheme.model_validate({"weights": 32, "tables": 8})))
    assert formats == NumberFormats(
        NumberFormat(4, "mse", "row"), NumberFormat(8, "mse", "row"), NumberFormat(8, "minmax", "tensor")
    )


@pytest.mark.parametrize("quantizer", ["lsq", "minmax"])
def test_ranges_are_those_stored_and_the_inputs_those_seen(quantizer: str) -> None:
    model, scheme = tiny_bert(), Scheme.model_validate({"weights": 8, "inputs": {"bits": 4, "quantizer": quantizer}})
    sites = rounded_sites(model, scheme)
    paths = [site.path for site in sites]
    examples = input_examples(model, {"input_ids": some_ids()}, paths, whole=paths if quantizer == "lsq" else ())
    for target in scheme.targets(model):
        target.round_inputs(target.layer(model), example=examples.get(target.site.path))
    ranges = input_ranges(model, sites, examples)
    assert [layer.path for layer in ranges] == [site.path for site in sites]
    assert {layer.role for layer in ranges} >= {"query", "up", "down"} and "embedding" not in {
        layer.role for layer in ranges
    }
    for layer in ranges:
        stored = model.get_submodule(layer.path).inputs
        assert (layer.low, layer.high) == tuple(map(float, examples[layer.path].aminmax()))
        if quantizer == "minmax":
            assert (layer.levels, layer.ends, layer.scale, layer.reach) == ("uint4", (0, 15), None, None)
        else:
            assert (layer.levels, layer.ends) == ("int4", (-8, 7))
            assert layer.scale == pytest.approx(stored.learned["scale"].item()) and layer.shift is None
    assert is_learning(model), "what learns goes on"


def test_examples_are_some_tokens_or_the_extremes() -> None:
    model, given = tiny_bert(), []
    up = model.get_submodule(UP)
    up.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().flatten(0, 1)))
    ids = torch.randint(9, 200, (40, 60), generator=torch.Generator().manual_seed(0))
    for whole in ((), (UP,)):
        examples = input_examples(model, {"input_ids": ids}, [UP, DOWN], whole=whole)
        tokens = given.pop()
        assert torch.equal(examples[UP], tokens[::3] if whole else torch.stack([tokens.min(), tokens.max()]))
        assert examples[DOWN].shape == (2,)


def test_a_layer_that_was_given_nothing_has_no_extremes() -> None:
    model, scheme = tiny_bert(), Scheme.model_validate({"weights": 8, "inputs": 8})
    for target in scheme.targets(model):
        target.round_inputs(target.layer(model), example=None)
    assert {(layer.low, layer.high) for layer in input_ranges(model, rounded_sites(model, scheme), {})} == {
        (None, None)
    }
