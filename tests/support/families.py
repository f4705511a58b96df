"""The families of models that fingerprints are tried on, as headers (support.models)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.models import (
    Model,
    Shape,
    Table,
    bpe,
    byte_level,
    dense,
    fused,
    gated,
    sentencepiece,
    token_rows,
    wrapped,
)


def _llama3_tokens(given: Mapping[int, str]) -> dict[int, str]:
    """256 ids; those without a name are reserved, numbered in their order."""
    tokens, count = {}, 0
    for index in range(128_000, 128_256):
        tokens[index] = given.get(index, f"<|reserved_special_token_{count}|>")
        count += index not in given
    return tokens


_HEADERS = {128_006: "<|start_header_id|>", 128_007: "<|end_header_id|>", 128_009: "<|eot_id|>"}
_TEXT = {128_000: "<|begin_of_text|>", 128_001: "<|end_of_text|>"}
LLAMA3_TOKENS = _llama3_tokens(_TEXT | _HEADERS)
LLAMA31_TOKENS = _llama3_tokens(
    _TEXT | _HEADERS
    | {128_004: "<|finetune_right_pad_id|>", 128_008: "<|eom_id|>", 128_010: "<|python_tag|>"}
)  # fmt: skip
_CHAT = {"chat_template.jinja": "{{ messages }}"}
LLAMA31_ROPE = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3",
}  # fmt: skip


def llama3(layers: int = 2, files: dict[str, Any] | None = None) -> Model:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": layers, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0,
        "vocab_size": 128256, "tie_word_embeddings": False, "attention_bias": False,
        "bos_token_id": 128000, "eos_token_id": 128001, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0.dev0",
    }  # fmt: skip
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+"
    tokens = bpe("llama3", LLAMA3_TOKENS, pre_tokenizer=byte_level(pattern), ignore_merges=True)
    return Model("Llama 3", config, dense(config), tokens, files or {})


def llama3_instruct() -> Model:
    generation = {"eos_token_id": [128001, 128009], "transformers_version": "4.40.0.dev0"}
    files = {"generation_config.json": generation, **_CHAT}
    return llama3().but("Llama 3 Instruct", files=files)


def llama31() -> Model:
    change = {"rope_scaling": LLAMA31_ROPE, "max_position_embeddings": 131072}
    model = llama3().but("Llama 3.1", config=change)
    tokens = {**(model.tokenizer or {}), "added_tokens": token_rows(LLAMA31_TOKENS)}
    return model.but("Llama 3.1", tokenizer=tokens)


def llama31_instruct() -> Model:
    generation = {"eos_token_id": [128001, 128008, 128009], "temperature": 0.6}
    files = {"generation_config.json": generation, **_CHAT}
    return llama31().but(
        "Llama 3.1 Instruct", files=files, config={"eos_token_id": [128001, 128008, 128009]}
    )


def llama32(tied: bool = True) -> Model:
    change = {
        "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64,
        "rope_scaling": LLAMA31_ROPE | {"factor": 32.0}, "tie_word_embeddings": tied,
    }  # fmt: skip
    model = llama31().but(
        "Llama 3.2" if tied else "Llama 3.2 with a head of its own", config=change
    )
    return model.but(model.name, tensors=dense(model.config, head=not tied))


QWEN25_TOKENS = dict(
    enumerate(
        [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|object_ref_start|>",
            "<|object_ref_end|>",
            "<|box_start|>",
            "<|box_end|>",
            "<|quad_start|>",
            "<|quad_end|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
            "<|image_pad|>",
            "<|video_pad|>",
            "<tool_call>",
            "</tool_call>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|fim_pad|>",
            "<|repo_name|>",
            "<|file_sep|>",
        ],
        start=151_643,
    )
)
R1_TOKENS = QWEN25_TOKENS | {
    151_643: "<｜end▁of▁sentence｜>", 151_644: "<｜User｜>", 151_645: "<｜Assistant｜>",
    151_646: "<｜begin▁of▁sentence｜>", 151_647: "<|EOT|>", 151_648: "<think>",
    151_649: "</think>",
}  # fmt: skip
_QWEN_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|\s+"


def qwen_tokenizer(added: Mapping[int, str]) -> dict[str, Any]:
    return bpe("qwen", added, normalizer={"type": "NFC"}, pre_tokenizer=byte_level(_QWEN_PATTERN))


def qwen25(name: str = "Qwen 2.5", **config: Any) -> Model:
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 2, "num_attention_heads": 28,
        "num_key_value_heads": 4, "hidden_act": "silu", "max_position_embeddings": 131072,
        "rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": False,
        "max_window_layers": 28, "vocab_size": 152064, "tie_word_embeddings": False,
        "bos_token_id": 151643, "eos_token_id": 151643, "torch_dtype": "bfloat16",
    } | config  # fmt: skip
    return Model(name, config, dense(config, bias=True), qwen_tokenizer(QWEN25_TOKENS))


def qwen25_instruct() -> Model:
    generation = {"eos_token_id": [151645, 151643], "pad_token_id": 151643}
    files = {"generation_config.json": generation, **_CHAT}
    return qwen25("Qwen 2.5 Instruct").but("Qwen 2.5 Instruct", files=files)


def qwen25_math() -> Model:
    return qwen25("Qwen 2.5 Math", max_position_embeddings=4096, rope_theta=10000.0)


def r1_distill() -> Model:
    model = qwen25("R1 Distill", rope_theta=10000.0, bos_token_id=151646)
    return model.but(model.name, tokenizer=qwen_tokenizer(R1_TOKENS))


def qwen3(name: str = "Qwen 3") -> Model:
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096,
        "intermediate_size": 12288, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
        "max_position_embeddings": 32768, "rope_theta": 1000000, "vocab_size": 151936,
        "use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": False,
        "attention_bias": False, "eos_token_id": 151643, "torch_dtype": "bfloat16",
    }  # fmt: skip
    more = dict(enumerate(["<tool_response>", "</tool_response>", "<think>", "</think>"], 151_665))
    return Model(name, config, dense(config, qk_norm=True), qwen_tokenizer(QWEN25_TOKENS | more))


GEMMA_TOKENS = (
    {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 5: "[multimodal]"}
    | {index: f"<unused{index - 6}>" for index in range(6, 105)}
    | {105: "<start_of_turn>", 106: "<end_of_turn>", 255_999: "<start_of_image>",
       256_000: "<end_of_image>", 262_144: "<image_soft_token>"}
)  # fmt: skip
_GEMMA_TEXT = {
    "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
    "num_hidden_layers": 2, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}  # fmt: skip


def gemma3_text() -> Model:
    """The language model alone, every field written."""
    config = _GEMMA_TEXT | {
        "architectures": ["Gemma3ForCausalLM"], "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256, "max_position_embeddings": 131072, "vocab_size": 262208,
        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6,
        "attn_logit_softcapping": None, "final_logit_softcapping": None, "bos_token_id": 2,
        "eos_token_id": [1, 106], "pad_token_id": 0, "torch_dtype": "bfloat16",
    }  # fmt: skip
    tensors = dense(config, head=False, qk_norm=True)
    for i in range(2):
        for which in ("pre", "post"):
            name = f"model.layers.{i}.{which}_feedforward_layernorm.weight"
            tensors[name] = ("BF16", (2560,))
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
             "invert": False}  # fmt: skip
    tokens = bpe("gemma3", GEMMA_TOKENS, first=107, normalizer=spaces, pre_tokenizer=split)
    return Model("Gemma 3, text", config, tensors, tokens)


def gemma3() -> Model:
    """The multimodal wrapper as published: few fields in text_config, towers beside."""
    text = gemma3_text()
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "text_config": dict(_GEMMA_TEXT), "vision_config": {"hidden_size": 1152},
        "eos_token_id": [1, 106], "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
    }  # fmt: skip
    tower = "vision_tower.vision_model.encoder.layers.0."
    towers: Table = {
        f"{tower}self_attn.q_proj.weight": ("BF16", (1152, 1152)),
        f"{tower}mlp.fc1.weight": ("BF16", (4304, 1152)),
        "multi_modal_projector.mm_input_projection_weight": ("BF16", (1152, 2560)),
    }
    return Model("Gemma 3", config, wrapped(text.tensors, "gemma3") | towers, text.tokenizer)


def mistral(name: str = "Mistral") -> Model:
    config = {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_act": "silu", "max_position_embeddings": 32768,
        "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 32000,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    added = {0: "<unk>", 1: "<s>", 2: "</s>"}
    tokenizer = sentencepiece("mistral", added)
    tokenizer["model"]["vocab"] |= {"<unk>": 0, "<s>": 1, "</s>": 2, "▁last": 31999}
    return Model(name, config, dense(config), tokenizer)


def phi3() -> Model:
    config = {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": 3072,
        "intermediate_size": 8192, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rope_scaling": None, "rope_theta": 10000.0,
        "sliding_window": 2047, "vocab_size": 32064, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    added = {0: "<unk>", 1: "<s>", 2: "</s>", 32000: "<|endoftext|>", 32001: "<|assistant|>",
             32002: "<|placeholder1|>", 32003: "<|placeholder2|>", 32007: "<|end|>",
             32010: "<|user|>"}  # fmt: skip
    return Model("Phi 3", config, fused(dense(config)), sentencepiece("mistral", added))


def phi3_as_llama() -> Model:
    """Its q, k, v and gate, up apart, under Llama's names, as fine-tuners publish it."""
    change = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "sliding_window": None}
    model = phi3().but("Phi 3 as a Llama", config=change)
    return model.but(model.name, tensors=dense(model.config))


def mixtral(in_memory: bool = False) -> Model:
    """in_memory: as transformers 5 holds it, the experts of a layer in one tensor."""
    config = mistral().config | {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None,
        "rope_theta": 1000000.0,
    }  # fmt: skip
    tensors = dense(config, mlp=False)
    for i in range(2):
        layer = f"model.layers.{i}."
        tensors |= experts(layer, "mixtral", 4, 4096, 14336, in_memory)
    return Model("Mixtral", config, tensors, mistral().tokenizer)


def experts(layer: str, kind: str, count: int, width: int, inner: int, in_memory: bool) -> Table:
    folder, names = {
        "mixtral": ("block_sparse_moe", "w1 w3 w2"),
        "own": ("mlp", "gate_proj up_proj down_proj"),
    }[kind]
    shapes: dict[str, Shape] = {f"{layer}{folder}.gate.weight": (count, width)}
    if in_memory:
        shapes = {
            f"{layer}mlp.gate.weight": (count, width),
            f"{layer}mlp.experts.gate_up_proj": (count, 2 * inner, width),
            f"{layer}mlp.experts.down_proj": (count, width, inner),
        }
    else:
        for e in range(count):
            shapes |= gated(f"{layer}{folder}.experts.{e}.", width, inner, names)
    return {name: ("BF16", shape) for name, shape in shapes.items()}


def qwen3_moe(in_memory: bool = False) -> Model:
    config = qwen3().config | {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "hidden_size": 2048, "num_key_value_heads": 4, "moe_intermediate_size": 768,
        "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
    }  # fmt: skip
    tensors = dense(config, qk_norm=True, mlp=False)
    for i in range(2):
        tensors |= experts(f"model.layers.{i}.", "own", 8, 2048, 768, in_memory)
    return Model("Qwen 3 MoE", config, tensors, qwen3().tokenizer)


def deepseek_v3(fp8: bool = True) -> Model:
    """fp8: as published, with scales for blocks of 128 × 128, and the layer that predicts on."""
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_hidden_layers": 2, "num_attention_heads": 128, "num_key_value_heads": 128,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "routed_scaling_factor": 2.5, "norm_topk_prob": True, "scoring_func": "sigmoid",
        "topk_method": "noaux_tc", "first_k_dense_replace": 1, "num_nextn_predict_layers": 1,
        "hidden_act": "silu", "max_position_embeddings": 163840, "rope_theta": 10000,
        "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                         "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                         "type": "yarn"},
        "vocab_size": 129280, "tie_word_embeddings": False, "bos_token_id": 0,
        "eos_token_id": 1, "torch_dtype": "bfloat16",
    }  # fmt: skip
    if fp8:
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (129280, 7168)}
    for i in range(3 if fp8 else 2):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}self_attn.q_a_proj.weight": (1536, 7168),
            f"{layer}self_attn.q_a_layernorm.weight": (1536,),
            f"{layer}self_attn.q_b_proj.weight": (128 * 192, 1536),
            f"{layer}self_attn.kv_a_proj_with_mqa.weight": (576, 7168),
            f"{layer}self_attn.kv_a_layernorm.weight": (512,),
            f"{layer}self_attn.kv_b_proj.weight": (128 * 256, 512),
            f"{layer}self_attn.o_proj.weight": (7168, 128 * 128),
            f"{layer}input_layernorm.weight": (7168,),
            f"{layer}post_attention_layernorm.weight": (7168,),
        }
        if i == 0:
            shapes |= gated(f"{layer}mlp.", 7168, 18432)
        else:
            shapes[f"{layer}mlp.gate.weight"] = (64, 7168)
            shapes[f"{layer}mlp.gate.e_score_correction_bias"] = (64,)
            for e in range(64):
                shapes |= gated(f"{layer}mlp.experts.{e}.", 7168, 2048)
            shapes |= gated(f"{layer}mlp.shared_experts.", 7168, 2048)
    shapes |= {"model.norm.weight": (7168,), "lm_head.weight": (129280, 7168)}
    tensors: Table = {name: ("BF16", shape) for name, shape in shapes.items()}
    if fp8:
        for name, shape in shapes.items():
            if name.endswith("proj.weight") or "mqa" in name:
                tensors[name] = ("F8_E4M3", shape)
                blocks = (-(-shape[0] // 128), -(-shape[1] // 128))
                tensors[f"{name}_scale_inv"] = ("F32", blocks)
    tokens = bpe("deepseek", {0: "<｜begin▁of▁sentence｜>", 1: "<｜end▁of▁sentence｜>"}, first=2)
    return Model(f"DeepSeek V3, {'fp8' if fp8 else 'bf16'}", config, tensors, tokens)


def gpt2(saved_again: bool = False) -> Model:
    """saved_again: with the prefix and without the mask buffers that the first files have."""
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 768, "n_layer": 2,
        "n_head": 12, "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257,
        "activation_function": "gelu_new", "bos_token_id": 50256, "eos_token_id": 50256,
    }  # fmt: skip
    shapes: dict[str, Shape] = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768)}
    for i in range(2):
        shapes |= {
            f"h.{i}.attn.c_attn.weight": (768, 2304), f"h.{i}.attn.c_attn.bias": (2304,),
            f"h.{i}.attn.c_proj.weight": (768, 768), f"h.{i}.attn.c_proj.bias": (768,),
            f"h.{i}.mlp.c_fc.weight": (768, 3072), f"h.{i}.mlp.c_fc.bias": (3072,),
            f"h.{i}.mlp.c_proj.weight": (3072, 768), f"h.{i}.mlp.c_proj.bias": (768,),
        }  # fmt: skip
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"h.{i}.{norm}.weight": (768,), f"h.{i}.{norm}.bias": (768,)}
        if not saved_again:
            shapes[f"h.{i}.attn.bias"] = (1, 1, 1024, 1024)
    shapes |= {"ln_f.weight": (768,), "ln_f.bias": (768,)}
    prefix = "transformer." if saved_again else ""
    tensors: Table = {prefix + name: ("F32", shape) for name, shape in shapes.items()}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokens = bpe("gpt2", {50256: "<|endoftext|>"}, pre_tokenizer=level)
    return Model("GPT-2, saved again" if saved_again else "GPT-2", config, tensors, tokens)
