"""What a config.json means where it is silent: the defaults of transformers' configuration classes.

transformers 4 leaves fields out of a nested ``text_config`` where they are the class's own, and 5
writes them all: without this table the two spellings of one model would differ. Only fields that a
fingerprint uses, only values that are not neutral (none, false, a factor of one). A test compares
the table with the installed classes.
"""

from __future__ import annotations

from typing import Any

# Types that compute the same from equal tensors (biases and norms show in the tensor table; sliding
# windows and rotary settings are told apart): a test runs both on the same weights.
SAME_MATHS = {
    "mistral": "llama",
    "phi3": "llama",
    "qwen2": "llama",
    "qwen2_vl": "llama",
    "qwen2_5_vl": "llama",
    "qwen3_vl": "qwen3",
}

# fmt: off
DEFAULTS: dict[str, dict[str, Any]] = {
    "bloom": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    },
    "cohere": {
        "hidden_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 64,
        "hidden_act": "silu", "logit_scale": 0.0625, "tie_word_embeddings": True,
        "rope_theta": 500000, "max_position_embeddings": 8192, "bos_token_id": 5,
        "eos_token_id": 255001, "pad_token_id": 0,
    },
    "cohere2": {
        "hidden_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 64,
        "hidden_act": "silu", "logit_scale": 0.0625, "tie_word_embeddings": True,
        "rope_theta": 10000, "max_position_embeddings": 8192, "sliding_window": 4096,
        "bos_token_id": 5, "eos_token_id": 255001, "pad_token_id": 0,
    },
    "deepseek_v2": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "num_experts": 64, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "rope_theta": 10000, "max_position_embeddings": 2048, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "deepseek_v3": {
        "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "hidden_act": "silu", "num_experts": 256,
        "num_experts_per_tok": 8, "norm_topk_prob": True, "n_group": 8, "topk_group": 4,
        "routed_scaling_factor": 2.5, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "rope_interleave": True, "rope_theta": 10000,
        "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 1,
    },
    "exaone4": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "hidden_act": "silu", "rope_theta": 10000,
        "max_position_embeddings": 2048, "sliding_window": 4096, "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "falcon": {
        "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "hidden_act": "gelu", "parallel_attn": True, "multi_query": True,
        "tie_word_embeddings": True, "rope_theta": 10000, "max_position_embeddings": 2048,
        "bos_token_id": 11, "eos_token_id": 11,
    },
    "gemma": {
        "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True, "rope_theta": 10000, "max_position_embeddings": 8192,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    },
    "gemma2": {
        "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50, "final_logit_softcapping": 30,
        "tie_word_embeddings": True, "rope_theta": 10000, "max_position_embeddings": 8192,
        "sliding_window": 4096, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    },
    "gemma3": {
        "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256, "tie_word_embeddings": True, "rope_theta": 1000000,
        "rope_local_base_freq": 10000, "max_position_embeddings": 131072, "sliding_window": 4096,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    },
    "gemma3n": {
        "hidden_size": 2048, "num_hidden_layers": 35, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "final_logit_softcapping": 30, "tie_word_embeddings": True, "rope_theta": 1000000,
        "rope_local_base_freq": 10000, "max_position_embeddings": 32768, "sliding_window": 512,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    },
    "glm": {
        "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 2, "head_dim": 128, "hidden_act": "silu",
        "partial_rotary_factor": 0.5, "rope_theta": 10000, "max_position_embeddings": 131072,
        "eos_token_id": [151329, 151336, 151338], "pad_token_id": 151329,
    },
    "glm4": {
        "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 2, "head_dim": 128, "hidden_act": "silu",
        "partial_rotary_factor": 0.5, "rope_theta": 10000, "max_position_embeddings": 131072,
        "eos_token_id": [151329, 151336, 151338], "pad_token_id": 151329,
    },
    "glm4_moe": {
        "hidden_size": 4096, "num_hidden_layers": 46, "num_attention_heads": 96,
        "num_key_value_heads": 8, "hidden_act": "silu", "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
        "partial_rotary_factor": 0.5, "rope_theta": 10000, "max_position_embeddings": 131072,
    },
    "gpt2": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "hidden_act": "gelu_new", "tie_word_embeddings": True, "max_position_embeddings": 1024,
        "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "gpt_neo": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "hidden_act": "gelu_new", "tie_word_embeddings": True, "max_position_embeddings": 2048,
        "bos_token_id": 50256, "eos_token_id": 50256,
    },
    "gpt_neox": {
        "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
        "hidden_act": "gelu", "partial_rotary_factor": 0.25, "use_parallel_residual": True,
        "rope_theta": 10000, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 2,
    },
    "gptj": {
        "hidden_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16,
        "hidden_act": "gelu_new", "max_position_embeddings": 2048, "bos_token_id": 50256,
        "eos_token_id": 50256,
    },
    "granite": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "granitemoe": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "num_experts": 8, "num_experts_per_tok": 2, "rope_theta": 10000,
        "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2,
    },
    "helium": {
        "hidden_size": 2560, "num_hidden_layers": 24, "num_attention_heads": 20,
        "num_key_value_heads": 20, "head_dim": 128, "hidden_act": "silu", "rope_theta": 100000,
        "max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
    },
    "hunyuan_v1_dense": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    },
    "llama": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "llama4": {
        "hidden_size": 5120, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "num_experts": 16,
        "num_experts_per_tok": 1, "rope_theta": 500000, "max_position_embeddings": 131072,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "ministral": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "rope_theta": 10000,
        "max_position_embeddings": 131072, "sliding_window": 4096, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "mistral": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "rope_theta": 10000,
        "max_position_embeddings": 131072, "sliding_window": 4096, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "mixtral": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "num_experts": 8, "num_experts_per_tok": 2,
        "rope_theta": 1000000, "max_position_embeddings": 131072, "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "nemotron": {
        "hidden_size": 6144, "num_hidden_layers": 32, "num_attention_heads": 48,
        "hidden_act": "relu2", "partial_rotary_factor": 0.5, "rope_theta": 10000,
        "max_position_embeddings": 4096, "bos_token_id": 2, "eos_token_id": 3,
    },
    "olmo": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 2048,
        "eos_token_id": 50279, "pad_token_id": 1,
    },
    "olmo2": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 2048,
        "eos_token_id": 50279, "pad_token_id": 1,
    },
    "olmo3": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 500000, "max_position_embeddings": 2048,
        "sliding_window": 4096, "eos_token_id": 50279, "pad_token_id": 1,
    },
    "olmoe": {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "hidden_act": "silu", "num_experts": 64, "num_experts_per_tok": 8, "rope_theta": 10000,
        "max_position_embeddings": 4096, "eos_token_id": 50279, "pad_token_id": 1,
    },
    "opt": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "hidden_act": "relu", "tie_word_embeddings": True, "max_position_embeddings": 2048,
        "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
    },
    "persimmon": {
        "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 64,
        "hidden_act": "relu2", "partial_rotary_factor": 0.5, "rope_theta": 10000,
        "max_position_embeddings": 16384, "bos_token_id": 1, "eos_token_id": 2,
    },
    "phi": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
        "hidden_act": "gelu_new", "partial_rotary_factor": 0.5, "rope_theta": 10000,
        "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2,
    },
    "phi3": {
        "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rope_theta": 10000, "max_position_embeddings": 4096,
        "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
    },
    "phimoe": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "num_experts": 16,
        "num_experts_per_tok": 2, "rope_theta": 1000000, "max_position_embeddings": 131072,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "qwen2": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "hidden_act": "silu", "rope_theta": 10000,
        "max_position_embeddings": 32768,
    },
    "qwen2_5_vl": {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "hidden_act": "silu", "rope_theta": 1000000,
        "max_position_embeddings": 32768, "bos_token_id": 151643, "eos_token_id": 151645,
    },
    "qwen2_moe": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "hidden_act": "silu", "num_experts": 60,
        "num_experts_per_tok": 4, "rope_theta": 10000, "max_position_embeddings": 32768,
    },
    "qwen2_vl": {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "hidden_act": "silu", "rope_theta": 1000000,
        "max_position_embeddings": 32768, "bos_token_id": 151643, "eos_token_id": 151645,
    },
    "qwen3": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 128, "hidden_act": "silu", "rope_theta": 10000,
        "max_position_embeddings": 32768,
    },
    "qwen3_moe": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 4, "hidden_act": "silu", "num_experts": 128,
        "num_experts_per_tok": 8, "rope_theta": 10000, "max_position_embeddings": 32768,
    },
    "qwen3_next": {
        "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "hidden_act": "silu", "num_experts": 512,
        "num_experts_per_tok": 10, "norm_topk_prob": True, "partial_rotary_factor": 0.25,
        "rope_theta": 10000, "max_position_embeddings": 32768,
    },
    "qwen3_vl": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 128, "hidden_act": "silu", "rope_theta": 500000,
        "max_position_embeddings": 128000,
    },
    "smollm3": {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 4, "hidden_act": "silu", "tie_word_embeddings": True,
        "rope_theta": 2000000, "max_position_embeddings": 32768, "bos_token_id": 128000,
        "eos_token_id": 128001, "pad_token_id": 128004,
    },
    "stablelm": {
        "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "hidden_act": "silu", "partial_rotary_factor": 0.25,
        "rope_theta": 10000, "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 0,
    },
    "starcoder2": {
        "hidden_size": 3072, "num_hidden_layers": 30, "num_attention_heads": 24,
        "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True,
        "rope_theta": 10000, "max_position_embeddings": 4096, "bos_token_id": 50256,
        "eos_token_id": 50256,
    },
}
# fmt: on
