#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/model/golden_test.cpp for Gemma 3: as make_golden.py, which see.

  pip install -r requirements.txt
  python3 make_golden_gemma3.py         # writes ../data/golden_gemma3
"""
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

import gemma3_ple
import make_golden
from make_golden import F, S, run, text_model

OUT = make_golden.OUT.parent / "golden_gemma3"


def rope(factor=None):
    full = {"rope_type": "default", "rope_theta": 1e6}
    if factor:
        full |= {"rope_type": "linear", "factor": factor}
    return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


def in_published_style(folder):
    """What the published 4B looks like: the text model nested, without the fields that are the defaults, one theta for each attention type,
    scaling for the full layers only, a pattern in place of a list, and names that begin with language_model.model."""
    config = json.loads((folder / "config.json").read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = {"rope_type": "linear", "factor": parameters["full_attention"]["factor"]}
    assert config.pop("layer_types") == pattern_of_six(config["num_hidden_layers"])
    config["sliding_window_pattern"] = 6
    defaults = Gemma3TextConfig().to_dict()
    kept = {k: v for k, v in config.items() if k == "model_type" or k not in defaults or defaults[k] != v}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": kept, "eos_token_id": [1, 106]}
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
    tensors = {f"language_model.{name}": w for name, w in load_file(folder / "model.safetensors").items()}
    tensors["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(2)
    tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = torch.ones(2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pattern_of_six(layers):
    return [F if (i + 1) % 6 == 0 else S for i in range(layers)]


BASE = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16,
            sliding_window=7, vocab_size=131, layer_types=[S, S, F, S, F], rope_parameters=rope(), final_logit_softcapping=None, length=40)

# name -> what differs from BASE
SHAPES = {
    "270m_like": dict(hidden_size=40, layer_types=pattern_of_six(8), vocab_size=203, length=60),
    "4b_like": dict(num_key_value_heads=2, layer_types=pattern_of_six(7), sliding_window=9, rope_parameters=rope(8.0), nested=True, length=50),
    "27b_like": dict(hidden_size=48, num_attention_heads=8, num_key_value_heads=4, head_dim=8, query_pre_attn_scalar=6,
                     layer_types=pattern_of_six(12), rope_parameters=rope(8.0), shards=True),
    "published_style": dict(layer_types=pattern_of_six(6), num_attention_heads=8, num_key_value_heads=4, query_pre_attn_scalar=256,
                            rope_parameters=rope(8.0), published=in_published_style),
    "any_order_of_layers": dict(layer_types=[F, S, S, F, F, S]),
    "all_full": dict(layer_types=[F, F, F]),
    "window_tiny": dict(sliding_window=3, layer_types=[S, F, S, S], length=50),
    "window_longer_than_text": dict(sliding_window=64, layer_types=[S, S, F, S]),
    "untied_head": dict(tie_word_embeddings=False, final_logit_softcapping=20.0, layer_types=[S, F]),
    "odd_sizes": dict(hidden_size=27, num_attention_heads=3, head_dim=10, intermediate_size=37, vocab_size=97, query_pre_attn_scalar=9),
    "270m_like_bf16": dict(hidden_size=40, layer_types=pattern_of_six(8), vocab_size=203, length=60, dtype="bfloat16"),
    "odd_sizes_f16": dict(hidden_size=27, num_attention_heads=3, head_dim=10, intermediate_size=37, vocab_size=97, dtype="float16"),
    "with_ple": dict(hidden_size=40, layer_types=pattern_of_six(8), hidden_size_per_layer_input=12),
    "with_ple_bf16": dict(hidden_size_per_layer_input=16, dtype="bfloat16"),
}


def randomize(model, generator):
    """As make_golden's; the norms' weights are around 0, since the model multiplies by 1 + w."""
    make_golden.randomize(model, generator)
    with torch.no_grad():
        for name, w in model.named_parameters():
            if w.ndim == 1 and "vision" not in name:
                w.copy_(0.3 * torch.randn(w.shape, generator=generator))


def build(shape, generator):
    keys = dict(BASE, **shape)
    options = {k: keys.pop(k, None) for k in ("length", "shards", "nested", "published", "dtype")}
    keys["num_hidden_layers"] = len(keys["layer_types"])
    keys["max_position_embeddings"] = 512
    with_ple = "hidden_size_per_layer_input" in keys
    if with_ple:
        keys["vocab_size_per_layer_input"] = keys["vocab_size"]
    text = (gemma3_ple.Gemma3PleConfig if with_ple else Gemma3TextConfig)(**keys)
    if options["nested"]:
        vision = SiglipVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
        model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
        model.set_attn_implementation("eager")
    else:
        text._attn_implementation = "eager"
        model = (gemma3_ple.Gemma3PleForCausalLM if with_ple else Gemma3ForCausalLM)(text)
    randomize(model, generator)
    return model.eval(), keys, options


@torch.no_grad()
def sensitivities(model, tokens, logits, spread):
    """As make_golden's, for what Gemma 3 has of its own."""
    text, found = text_model(model), {}

    def moved():
        return float((run(model, tokens)[0] - logits).abs().max() / spread)

    def measure(name, weights, change):
        kept = [w.clone() for w in weights]
        for w in weights:
            change(w)
        found[name] = moved()
        for w, k in zip(weights, kept):
            w.copy_(k)

    def norms(name):
        return [w for n, w in text.named_parameters() if n.endswith(name + ".weight")]

    for name in ("input_layernorm", "q_norm", "k_norm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"):
        measure(name + " = 1", norms(name), lambda w: w.zero_())
    if any(t == F for t in text.config.layer_types):
        measure("full RoPE doubled", [text.rotary_emb.full_attention_inv_freq], lambda w: w.mul_(2))
    if hasattr(text, "embed_tokens_per_layer"):
        for part in ("embed_tokens_per_layer", "per_layer_model_projection"):
            measure(part + " = 0", [text.get_submodule(part).weight], lambda w: w.zero_())
        for name in ("post_per_layer_input_norm", "per_layer_projection_norm"):
            measure(name + " = 1", norms(name), lambda w: w.zero_())
    scales = [layer.self_attn.scaling for layer in text.layers]
    for layer, scale in zip(text.layers, scales):
        layer.self_attn.scaling = scale * 1.1
    found["scores 10 % larger"] = moved()
    for layer, scale in zip(text.layers, scales):
        layer.self_attn.scaling = scale
    window = text.config.sliding_window
    if window < tokens.shape[1] and S in text.config.layer_types:
        text.config.sliding_window = window + 1
        found["window + 1"] = moved()
        text.config.sliding_window = window
    return found


if __name__ == "__main__":
    make_golden.write(OUT, SHAPES, build, run, sensitivities, "make_golden_gemma3.py")
