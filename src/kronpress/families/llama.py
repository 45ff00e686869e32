"""Llama and the decoders that share its layout: gated feed-forward, rotary positions, no biases to speak of."""

from kronpress.families.family import Family, register

LLAMA = register(
    Family(
        model_types=("llama", "mistral", "qwen2", "qwen3", "smollm3"),
        blocks="layers",
        roles={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.o_proj",
            "gate": "mlp.gate_proj",
            "up": "mlp.up_proj",
            "down": "mlp.down_proj",
        },
        embedding="embed_tokens",
        head="lm_head",
        attention_sum="post_attention_layernorm",
        query_norm="self_attn.q_norm",
        rotary=True,
    )
)
