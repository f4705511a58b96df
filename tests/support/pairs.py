"""The golden table: (delta's base → post) × target, and the verdict that a person wrote down.

Reasons are (severity, subject, words that the reason must hold), all of them and in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from paramdelta.compatibility import Align, Comparison, compare
from paramdelta.fingerprint import Fingerprint
from support import families as f
from support.models import Model, Table, permuted, saved_by_tokenizers, saved_by_transformers_5

Reason = tuple[str, str, str]
Make = Callable[[], Model]


@dataclass(frozen=True)
class Pair:
    why: str
    base: Make
    post: Make
    target: Make
    verdict: str
    reasons: tuple[Reason, ...] = ()
    align: Align = "ids"
    same_content: bool = False

    def compare(self) -> Comparison:
        return compare(
            printed(self.base),
            printed(self.post),
            printed(self.target),
            same_content=self.same_content,
            align=self.align,
        )


@cache
def made(make: Make) -> Model:
    return make()


@cache
def printed(make: Make) -> Fingerprint:
    return made(make).fingerprint()


# -- models that are one step from a family -------------------------------------------------


def llama3_other_heads() -> Model:
    """16 heads of 256 instead of 32 of 128: every tensor has the shape it had."""
    return f.llama3().but(
        "Llama 3 with 16 heads", config={"num_attention_heads": 16, "num_key_value_heads": 4}
    )


def llama3_saved() -> Model:
    return saved_by_transformers_5(f.llama31())


def llama3_fp16() -> Model:
    tensors: Table = {name: ("F16", shape) for name, (_, shape) in f.llama3().tensors.items()}
    return f.llama3().but("Llama 3 in float16", tensors=tensors, config={"torch_dtype": "float16"})


def llama3_gelu() -> Model:
    return f.llama3().but("Llama 3 with GELU", config={"hidden_act": "gelu"})


def llama3_half_rotated() -> Model:
    return f.llama3().but("Llama 3, half rotated", config={"partial_rotary_factor": 0.5})


def llama3_partial_one() -> Model:
    return f.llama3().but("Llama 3, partial_rotary_factor 1.0", config={"rotary_pct": 1.0})


def llama3_tools() -> Model:
    return f.llama3_instruct().renamed("Llama 3 with a tool token", t128008="<|tool|>")


def llama3_patched() -> Model:
    """Another name on the id that the post gives to its tool."""
    return f.llama3().renamed("Llama 3 with a think token", t128008="<|think|>")


def llama3_elsewhere() -> Model:
    return f.llama3().renamed("Llama 3 with the tool elsewhere", t128020="<|tool|>")


def llama3_deeper() -> Model:
    return f.llama3(layers=3).but("Llama 3 with a third layer")


def llama32_untied() -> Model:
    return f.llama32(tied=False)


def qwen25_chatml() -> Model:
    return f.qwen25().renamed("Qwen 2.5 with two more", t151665="<think>", t151666="</think>")


def qwen25_small_rows() -> Model:
    return f.qwen25().resized("Qwen 2.5, 151,936 rows", 151_936)


def qwen25_trimmed() -> Model:
    return f.qwen25().resized("Qwen 2.5, trimmed into its tokens", 151_643)


def qwen25_saved() -> Model:
    return saved_by_tokenizers(saved_by_transformers_5(f.qwen25()))


def qwen3_permuted() -> Model:
    return permuted(f.qwen3(), "Qwen 3, core tokens permuted")


def qwen25_no_merges() -> Model:
    model = f.qwen25()
    assert model.tokenizer is not None
    fewer = {
        "model": {**model.tokenizer["model"], "merges": model.tokenizer["model"]["merges"][:-9]}
    }
    return model.but("Qwen 2.5 with fewer merges", tokenizer={**model.tokenizer, **fewer})


def gemma3_saved() -> Model:
    return saved_by_transformers_5(f.gemma3())


def gemma3_text_saved() -> Model:
    return saved_by_transformers_5(f.gemma3_text())


def mistral_padded() -> Model:
    model = f.mistral().resized("Mistral with [PAD]", 32_001)
    return model.renamed(model.name, t32000="[PAD]")


def mistral_as_5_writes_it() -> Model:
    """transformers 5 puts the space before a word into the pre-tokenizer."""
    model = f.mistral()
    assert model.tokenizer is not None
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    core = {key: model.tokenizer["model"][key] for key in ("vocab", "merges")}
    options = {"type": "BPE", "fuse_unk": True, "byte_fallback": True, "unk_token": None}
    return saved_by_transformers_5(model).but(
        "Mistral, saved by transformers 5",
        tokenizer={
            **model.tokenizer, "normalizer": None, "pre_tokenizer": space,
            "model": {**options, **core},
        },
    )  # fmt: skip


def mistral_slow() -> Model:
    """With sentencepiece's file only."""
    return f.mistral().but("Mistral with tokenizer.model only", tokenizer=None,
                           files={"tokenizer.model": b"sentencepiece"})  # fmt: skip


def mistral_bare() -> Model:
    return f.mistral().but("Mistral without a tokenizer", tokenizer=None)


def phi3_longer() -> Model:
    scaling = {"type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [1.0, 9.5]}
    return f.phi3().but(
        "Phi 3, 128k", config={"rope_scaling": scaling, "max_position_embeddings": 131072}
    )


def mixtral_in_memory() -> Model:
    return f.mixtral(in_memory=True).but("Mixtral, experts fused")


def mixtral_top1() -> Model:
    return f.mixtral().but("Mixtral, one expert a token", config={"num_experts_per_tok": 1})


def qwen3_moe_in_memory() -> Model:
    return f.qwen3_moe(in_memory=True).but("Qwen 3 MoE, experts fused")


def deepseek_bf16() -> Model:
    return f.deepseek_v3(fp8=False)


def gpt2_saved() -> Model:
    return f.gpt2(saved_again=True)


_CHAT = ("note", "behaviour.chat_template", "comes with the delta")
_GENERATION = ("note", "behaviour.generation", "comes with the delta")
_RESERVED = ("note", "tokenizer.added_tokens", "249 tokens in reserve or padding")
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"

PAIRS: tuple[Pair, ...] = (
    Pair("the delta's own base", f.llama3, f.llama3_instruct, f.llama3, "identical",
         (_CHAT, _GENERATION), same_content=True),
    Pair("the paper's case: a newer base of the line, other rotary scaling, length, reserved names",
         f.llama3, f.llama3_instruct, f.llama31, "compatible",
         (_RESERVED, ("note", "rope", "factor none → 8.0"), ("note", "length", "131072"), _CHAT,
          _GENERATION)),
    Pair("and back", f.llama31, f.llama31_instruct, f.llama3, "compatible",
         (_RESERVED, ("note", "rope", "factor 8.0 → none"), ("note", "length", "8192"),
          _CHAT, _GENERATION)),
    Pair("another size of the line", f.llama3, f.llama3_instruct, f.llama32, "incompatible",
         (("error", "config.hidden_size", "2048"), ("error", "config.head_dim", "64"),
          ("error", "config.tied", "never added to one"), ("error", "tensors", "lm_head.weight"),
          ("error", "tensors", "of another shape"), _RESERVED, ("note", "rope", "factor"),
          ("note", "length", "131072"), _CHAT, _GENERATION)),
    Pair("every shape is equal, the heads are not", f.llama3, f.llama3_instruct,
         llama3_other_heads, "incompatible",
         (("error", "config.num_attention_heads", "32 in the delta's base, 16 in this one"),
          ("error", "config.num_key_value_heads", "8"), ("error", "config.head_dim", "128"),
          _CHAT, _GENERATION)),
    Pair("another activation", f.llama3, f.llama3, llama3_gelu, "incompatible",
         (("error", "config.hidden_act", "silu in the delta's base, gelu"),)),
    Pair("half of each head rotated", f.llama3, f.llama3, llama3_half_rotated, "incompatible",
         (("error", "config.partial_rotary_factor", "0.5"),)),
    Pair("all of each head rotated, said or not", f.llama3, f.llama3, llama3_partial_one,
         "compatible"),
    Pair("one layer more", f.llama3, f.llama3, llama3_deeper, "incompatible",
         (("error", "config.num_hidden_layers", "3"),
          ("error", "tensors", "9 tensors (model.layers.2.input_layernorm.weight"))),
    Pair("the same base in float16", f.llama3, f.llama3_instruct, llama3_fp16, "compatible",
         (("note", "dtype", "BF16 in the delta's base, F16"), _CHAT, _GENERATION)),
    Pair("one config as transformers 4 and as transformers 5 write it", f.llama31, f.llama31,
         llama3_saved, "compatible"),
    Pair("a tied head against one of its own", f.llama32, f.llama32, llama32_untied,
         "incompatible",
         (("error", "config.tied", "never added to one"), ("error", "tensors", "lm_head.weight"))),
    Pair("a post that untied its head", f.llama32, llama32_untied, f.llama32, "incompatible",
         (("error", "config.tied", "in its post"),)),
    Pair("the same post, on its own base", f.llama32, llama32_untied, f.llama32, "identical",
         same_content=True),
    Pair("a reserved token that the post named, still free here", f.llama3, llama3_tools,
         f.llama3, "compatible",
         (("note", "tokenizer.added_tokens", "brought with the delta (128008: <|tool|>)"), _CHAT,
          _GENERATION)),
    Pair("the same, named here too", f.llama3, llama3_tools, llama3_tools, "compatible",
         (("note", "tokenizer.added_tokens", "1 token in reserve or padding, renamed here"),
          ("note", "eos", "128009"))),
    Pair("the same, its id in use by another here", f.llama3, llama3_tools, llama3_patched,
         "incompatible",
         (("note", "tokenizer.added_tokens", "1 token in reserve or padding, renamed here"),
          ("error", "tokenizer.added_tokens", "<|tool|> in the post, <|think|> here"), _CHAT,
          _GENERATION)),
    Pair("the same, at another id here", f.llama3, llama3_tools, llama3_elsewhere,
         "incompatible",
         (("note", "tokenizer.added_tokens", "1 token in reserve or padding, renamed here"),
          ("error", "tokenizer.added_tokens", "which has it at 128020"), _CHAT, _GENERATION)),
    Pair("the same, matched by string", f.llama3, llama3_tools, llama3_elsewhere, "adaptable",
         (("note", "tokenizer.added_tokens", "of the post-training, matched by string"), _CHAT,
          _GENERATION), align="tokens"),
    Pair("a specialised base of the line", f.qwen25, f.qwen25_instruct, f.qwen25_math,
         "compatible",
         (("note", "rope", "rope_theta 1000000.0 → 10000.0"), ("note", "length", "4096"), _CHAT,
          _GENERATION)),
    Pair("a distillation that renamed tokens in use", f.qwen25_math, f.r1_distill, f.qwen25,
         "compatible",
         (("warning", "tokenizer.added_tokens", "7 tokens in use, renamed by the post-training"),
          ("note", "rope", "rope_theta"), ("note", "length", "131072"))),
    Pair("a chat delta onto that distillation", f.qwen25, f.qwen25_instruct, f.r1_distill,
         "compatible",
         (("warning", "tokenizer.added_tokens", "7 tokens in use, renamed here"),
          ("note", "rope", "rope_theta"), ("note", "bos", "151646"), _CHAT, _GENERATION)),
    Pair("new tokens inside the padding rows", f.qwen25, qwen25_chatml, f.qwen25, "compatible",
         (("note", "tokenizer.added_tokens", "2 tokens of the post-training, brought"),)),
    Pair("fewer padding rows, all tokens have one", f.qwen25, f.qwen25_instruct,
         qwen25_small_rows, "adaptable",
         (("note", _EMBEDDING, "left out: 152064 in the delta, 151936 here"),
          ("note", _HEAD, "151665 tokens in use"), _CHAT, _GENERATION)),
    Pair("fewer rows than tokens", f.qwen25, f.qwen25_instruct, qwen25_trimmed, "incompatible",
         (("error", _EMBEDDING, "lacks rows"), ("error", _HEAD, "lacks rows"), _CHAT,
          _GENERATION)),
    Pair("one more row, for padding", f.mistral, mistral_padded, f.mistral, "adaptable",
         (("note", "tokenizer.added_tokens", "32000: [PAD]"),
          ("note", _EMBEDDING, "will be extended: 32001 in the delta, 32000 here"),
          ("note", _HEAD, "will be extended"))),
    Pair("a base with one row more", f.mistral, f.mistral, mistral_padded, "adaptable",
         (("note", "tokenizer.added_tokens", "1 token in one base only"),
          ("note", _EMBEDDING, "stay as they are"), ("note", _HEAD, "stay as they are"))),
    Pair("config and tokenizer both saved again", f.qwen25, f.qwen25, qwen25_saved, "compatible"),
    Pair("spaces by the normaliser (transformers 4) or the pre-tokenizer (5)", f.mistral,
         f.mistral, mistral_as_5_writes_it, "compatible"),
    Pair("a tokenizer of another kind of file", f.mistral, f.mistral, mistral_slow, "compatible",
         (("warning", "tokenizer", "files of two kinds"),)),
    Pair("no tokenizer beside the weights", f.mistral, f.mistral, mistral_bare, "compatible",
         (("warning", "tokenizer", "only one of the bases has one"),)),
    Pair("the same tokens under other ids", f.qwen3, f.qwen3, qwen3_permuted, "incompatible",
         (("error", "tokenizer", "under other ids"),)),
    Pair("the same, matched by string", f.qwen3, f.qwen3, qwen3_permuted, "adaptable",
         (("note", "tokenizer", "matched by the token's string"),), align="tokens"),
    Pair("the same ids, other merges", f.qwen25, f.qwen25, qwen25_no_merges, "compatible",
         (("warning", "tokenizer", "may become other tokens here"),)),
    Pair("the same shapes, another vocabulary", f.llama3, f.llama3_instruct, f.mistral,
         "incompatible",
         (("error", "tokenizer", "do not mean the same tokens"),
          ("note", "tokenizer.added_tokens", "in one base only"), ("error", _EMBEDDING, "lacks"),
          ("error", _HEAD, "lacks"), ("note", "rope", "rope_theta"), ("note", "length", "32768"),
          ("note", "window", "4096"), ("note", "eos", "2"), ("note", "bos", "1"), _CHAT,
          _GENERATION)),
    Pair("the same, matched by string", f.llama3, f.llama3_instruct, f.mistral, "adaptable",
         (("warning", "tokenizer", "another vocabulary"),
          ("note", _EMBEDDING, "matched by string"), ("note", _HEAD, "matched by string"),
          ("note", "rope", "rope_theta"), ("note", "length", "32768"),
          ("note", "window", "4096"), ("note", "eos", "2"), ("note", "bos", "1"), _CHAT,
          _GENERATION), align="tokens"),
    Pair("a text model's delta onto its multimodal wrapper", f.gemma3_text, f.gemma3_text,
         f.gemma3, "compatible", (("note", "tensors", "3 tensors (multi_modal_projector"),)),
    Pair("a multimodal delta onto the text model", f.gemma3, f.gemma3, f.gemma3_text,
         "incompatible", (("error", "tensors", "3 tensors (multi_modal_projector"),)),
    Pair("text_config with its defaults left out (4) or written (5)", f.gemma3, f.gemma3,
         gemma3_saved, "compatible"),
    Pair("two rotary bases, in three fields (4) or nested (5)", f.gemma3_text, f.gemma3_text,
         gemma3_text_saved, "compatible"),
    Pair("fused q, k, v and gate, up against split ones", f.phi3, f.phi3, f.phi3_as_llama,
         "compatible", (("note", "window", "2047"),)),
    Pair("a longer context of the line", f.phi3, f.phi3, phi3_longer, "compatible",
         (("note", "rope", "rope_type none → longrope"), ("note", "length", "131072"))),
    Pair("experts one by one (on disk) or fused (in memory)", f.mixtral, f.mixtral,
         mixtral_in_memory, "compatible"),
    Pair("another number of experts for a token", f.mixtral, f.mixtral, mixtral_top1,
         "incompatible", (("error", "config.num_experts_per_tok", "2"),)),
    Pair("experts one by one or fused", f.qwen3_moe, f.qwen3_moe, qwen3_moe_in_memory,
         "compatible"),
    Pair("bfloat16 against fp8 with scales and a layer that predicts on", deepseek_bf16,
         deepseek_bf16, f.deepseek_v3, "compatible",
         (("note", "dtype", "F8_E4M3"), ("note", "tensors", "model.layers.2."))),
    Pair("mask buffers and no prefix against neither", f.gpt2, f.gpt2, gpt2_saved, "compatible"),
    Pair("another family", f.qwen25, f.qwen25, f.qwen3, "incompatible",
         (("error", "config.model_type", "computes like llama in the delta's base, like qwen3"),
          ("error", "config.hidden_size", "4096"), ("error", "config.num_attention_heads", "32"),
          ("error", "config.num_key_value_heads", "8"), ("error", "tensors", "not in this base"),
          ("error", "tensors", "not in the delta's base"),
          ("error", "tensors", "of another shape"),
          ("note", "tokenizer.added_tokens", "in one base only"), ("note", "length", "32768"),
          ("note", "bos", "none"), ("note", _EMBEDDING, "left out"), ("note", _HEAD, "left out"))),
)  # fmt: skip
