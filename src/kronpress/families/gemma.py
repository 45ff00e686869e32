"""Gemma 2 and 3: a norm behind attention and feed-forward too, a scaled token table, texts that begin with a token."""

from kronpress.families.family import Family, register
from kronpress.families.llama import LLAMA

GEMMA = register(
    Family(
        model_types=("gemma2", "gemma3_text"),
        blocks="layers",
        roles=LLAMA.roles,
        embedding="embed_tokens",
        head="lm_head",
        attention_sum="pre_feedforward_layernorm",
        attention_norm="post_attention_layernorm",
        query_norm="self_attn.q_norm",
        branch_norm="post_feedforward_layernorm",
        rotary=True,
        begins_with="bos",
    )
)
