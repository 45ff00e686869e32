"""Decoders of which the feed-forward blocks alone are known: their attention, or what stands for it, stays as it is.

That is enough to prune, factorize, distill, measure and save them.
"""

from kronpress.families.family import Family, register

QWEN3_5 = register(
    Family(
        model_types=("qwen3_5_text",),  # most blocks have linear attention
        blocks="layers",
        roles={"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
        embedding="embed_tokens",
        head="lm_head",
    )
)

LFM2 = register(
    Family(
        model_types=("lfm2",),  # most blocks have a short convolution
        blocks="layers",
        roles={"gate": "feed_forward.w1", "up": "feed_forward.w3", "down": "feed_forward.w2"},
        embedding="embed_tokens",
        head="lm_head",
        fixed_width={"block_auto_adjust_ff_dim": False},
    )
)

OLMO2 = register(
    Family(
        model_types=("olmo2", "olmo3"),
        blocks="layers",
        roles={"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
        embedding="embed_tokens",
        head="lm_head",
        branch_norm="post_feedforward_layernorm",
    )
)
