"""The headers of an 8B Llama, for benchmarks that need fingerprints of the real size."""

from __future__ import annotations

from typing import Any

from paramdelta.safetensors_header import TensorInfo

CONFIG = {
    "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "vocab_size": 128256, "rope_theta": 500000.0,
}  # fmt: skip
LAYER = {
    "input_layernorm": (4096,), "post_attention_layernorm": (4096,),
    "mlp.down_proj": (4096, 14336), "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
    "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096),
    "self_attn.q_proj": (4096, 4096), "self_attn.o_proj": (4096, 4096),
}  # fmt: skip


class Headers:
    """The headers, config and tokenizer of an 8B Llama; *length* makes it another's."""

    dtype = "BF16"

    def __init__(self, length: int) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096),
            "model.norm.weight": (4096,),
        }  # fmt: skip
        for i in range(32):
            shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in LAYER.items()}
        self.tensors = {n: TensorInfo(n, "BF16", shape, 0, 0) for n, shape in shapes.items()}
        added = [
            {"id": 128000 + i, "content": f"<|reserved_special_token_{i}|>", "special": True}
            for i in range(256)
        ]
        self._files: dict[str, dict[str, Any]] = {
            "config.json": CONFIG | {"max_position_embeddings": length},
            "tokenizer.json": {
                "added_tokens": added, "normalizer": None, "pre_tokenizer": None,
                "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
            },
        }  # fmt: skip

    def has(self, path: str) -> bool:
        return path in self._files

    def json_file(self, name: str) -> dict[str, Any] | None:
        return self._files.get(name)

    def read_file(self, path: str, limit: int) -> bytes:
        raise FileNotFoundError(path)
