"""BERT and the encoders that share its layout."""

from kronpress.families.family import Family, register

_BESIDE = {
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "pooler": "pooler.dense",
}
_ROLES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}

BERT = register(
    Family(
        model_types=("bert",),
        blocks="encoder.layer",
        roles=_ROLES,
        embedding="embeddings.word_embeddings",
        head="cls.predictions.decoder",
        closing_norm="output.LayerNorm",
        attention_sum="attention.output.LayerNorm",
        causal=False,
        beside=_BESIDE,
    )
)

ROBERTA = register(
    Family(
        model_types=("roberta",),
        blocks="encoder.layer",
        roles=_ROLES,
        embedding="embeddings.word_embeddings",
        head="lm_head.decoder",
        closing_norm="output.LayerNorm",
        attention_sum="attention.output.LayerNorm",
        causal=False,
        positions_after_padding=True,
        beside=_BESIDE,
    )
)

DISTILBERT = register(
    Family(
        model_types=("distilbert",),
        blocks="transformer.layer",
        roles={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
        },
        embedding="embeddings.word_embeddings",
        head="vocab_projector",
        closing_norm="output_layer_norm",
        attention_sum="sa_layer_norm",
        causal=False,
        depth_key="n_layers",
        width_key="hidden_dim",
        beside={"positions": _BESIDE["positions"]},
    )
)
