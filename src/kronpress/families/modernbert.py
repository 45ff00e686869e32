"""ModernBERT: an encoder with rotary positions, local and global attention, and a gated feed-forward block."""

from kronpress.families.family import Family, register

MODERNBERT = register(
    Family(
        model_types=("modernbert",),
        blocks="layers",
        roles={"qkv": "attn.Wqkv", "output": "attn.Wo", "gate_up": "mlp.Wi", "down": "mlp.Wo"},
        fused={"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")},
        embedding="embeddings.tok_embeddings",
        head="decoder",
        attention_sum="mlp_norm",
        rotary=True,
        causal=False,
    )
)
