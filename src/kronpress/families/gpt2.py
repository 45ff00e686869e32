"""GPT-2: fused query/key/value, `Conv1D` layers, learned positions."""

from kronpress.families.family import Family, register

GPT2 = register(
    Family(
        model_types=("gpt2",),
        blocks="h",
        roles={"qkv": "attn.c_attn", "output": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
        fused={"qkv": ("query", "key", "value")},
        embedding="wte",
        head="lm_head",
        attention_sum="ln_2",
        depth_key="n_layer",
        width_key="n_inner",
        beside={"positions": "wpe"},
    )
)
