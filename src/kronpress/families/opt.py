"""OPT: two feed-forward matrices right on the block, learned positions with an offset of 2, ReLU."""

from kronpress.families.family import Family, register

OPT = register(
    Family(
        model_types=("opt",),
        blocks="decoder.layers",
        roles={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.out_proj",
            "up": "fc1",
            "down": "fc2",
        },
        embedding="decoder.embed_tokens",
        head="lm_head",
        attention_sum="final_layer_norm",
        width_key="ffn_dim",
        only={"do_layer_norm_before": True},  # opt-350m alone ends its blocks in a norm
    )
)
