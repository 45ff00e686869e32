"""GPT-NeoX and Pythia: query, key and value fused head by head; attention and feed-forward read the same input."""

from kronpress.families.family import Family, register

GPT_NEOX = register(
    Family(
        model_types=("gpt_neox",),
        blocks="layers",
        roles={
            "qkv": "attention.query_key_value",
            "output": "attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        fused={"qkv": ("query", "key", "value")},
        interleaved=frozenset({"qkv"}),
        embedding="embed_in",
        head="lm_head",
        rotary=True,
    )
)
