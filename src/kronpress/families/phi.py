"""Phi-3 and Phi-4-mini: query, key and value in one matrix, gate and up in another."""

from kronpress.families.family import Family, register

PHI3 = register(
    Family(
        model_types=("phi3",),
        blocks="layers",
        roles={
            "qkv": "self_attn.qkv_proj",
            "output": "self_attn.o_proj",
            "gate_up": "mlp.gate_up_proj",
            "down": "mlp.down_proj",
        },
        fused={"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")},
        embedding="embed_tokens",
        head="lm_head",
        attention_sum="post_attention_layernorm",
        rotary=True,
    )
)
