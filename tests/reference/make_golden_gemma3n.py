#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/model/golden_test.cpp for Gemma 3n: as make_golden.py, which see.

  pip install -r requirements.txt
  python3 make_golden_gemma3n.py        # writes ../data/golden_gemma3n

hidden_states are [L+1, T, n * d]: the n streams of a token side by side, as they enter the first layer and as each layer leaves them.
"""
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

import make_golden
from make_golden import F, S, pattern, text_model

OUT = make_golden.OUT.parent / "golden_gemma3n"


def in_published_style(folder):
    """What the published files look like: the text model nested in one that sees and hears, K and V weights that no layer uses, one theta
    for each attention type."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    whole = {"architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n", "text_config": config}
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n")
    tensors = {name.replace("model.", "model.language_model.", 1): w for name, w in load_file(folder / "model.safetensors").items()}
    heads = config["num_key_value_heads"] * config["head_dim"]
    for layer in range(config["num_hidden_layers"] - config["num_kv_shared_layers"], config["num_hidden_layers"]):
        prefix = f"model.language_model.layers.{layer}.self_attn."
        tensors[prefix + "k_proj.weight"] = torch.full((heads, config["hidden_size"]), 9.0)
        tensors[prefix + "v_proj.weight"] = torch.full((heads, config["hidden_size"]), 9.0)
        tensors[prefix + "k_norm.weight"] = torch.full((config["head_dim"],), 9.0)
    tensors["model.vision_tower.stem.weight"] = torch.ones(3, 2)
    tensors["model.audio_tower.stem.weight"] = torch.ones(2, 2)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BASE = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8, hidden_size_per_layer_input=8,
            num_kv_shared_layers=0, sliding_window=7, vocab_size=131, layer_types=pattern(5, 5), laurel_rank=4, length=40)

# name -> what differs from BASE; sparsity is the activation_sparsity_pattern, 0 for the layers that it leaves out
SHAPES = {
    "e2b_like": dict(layer_types=pattern(10, 5), num_kv_shared_layers=5, vocab_size=140, vocab_size_per_layer_input=110, sparsity=[0.9] * 4,
                     intermediate_size=64),
    "e4b_like": dict(layer_types=pattern(10, 5), num_kv_shared_layers=5, num_key_value_heads=1, sliding_window=9, sparsity=[0.95] * 3,
                     intermediate_size=[96, 64, 96, 48, 40, 64, 56, 48, 64, 72], shards=True),
    "sharing_most": dict(layer_types=[S, F, S, F, S, S, F, F], num_kv_shared_layers=6, sparsity=[0.0, 0.8, 0.8, 0.0, 0.8]),
    "sharing_none": dict(layer_types=[S, S, F, S, F]),
    "two_streams": dict(altup_num_inputs=2, altup_active_idx=1, altup_correct_scale=False, layer_types=[S, F, S, S, F], num_kv_shared_layers=2,
                        sparsity=[0.7, 0.7]),
    "window_tiny": dict(sliding_window=3, num_kv_shared_layers=2, layer_types=[S, F, S, S, F], sparsity=[0.9] * 5, length=50),
    "window_longer_than_text": dict(sliding_window=64, num_kv_shared_layers=2, layer_types=[S, S, F, S, F]),
    "odd_sizes": dict(hidden_size=27, num_attention_heads=3, num_key_value_heads=3, head_dim=10, hidden_size_per_layer_input=5, altup_num_inputs=3,
                      intermediate_size=37, laurel_rank=3, vocab_size=97, vocab_size_per_layer_input=80, layer_types=[S, F, S, S, F],
                      num_kv_shared_layers=2, sparsity=[0.3, 0.99, 0.6], tie_word_embeddings=False),
    "published_style": dict(layer_types=[S, F, S, F], num_kv_shared_layers=2, sparsity=[0.9], published=in_published_style),
    "e2b_like_bf16": dict(layer_types=pattern(10, 5), num_kv_shared_layers=5, vocab_size=140, vocab_size_per_layer_input=110,
                          sparsity=[0.9] * 4, intermediate_size=64, dtype="bfloat16"),
    "odd_sizes_f16": dict(hidden_size=27, num_attention_heads=3, num_key_value_heads=3, head_dim=10, hidden_size_per_layer_input=5, altup_num_inputs=2,
                          intermediate_size=37, laurel_rank=3, vocab_size=97, layer_types=[S, F, S, S, F], num_kv_shared_layers=2,
                          sparsity=[0.6, 0.8], dtype="float16"),
    "head_beside_tied": dict(hidden_size=16, intermediate_size=24, num_attention_heads=2, hidden_size_per_layer_input=4, vocab_size=53,
                             layer_types=[S, F], altup_num_inputs=2, tie_word_embeddings=False, length=20, published=make_golden.as_if_tied),
}


def build(shape, generator):
    keys = dict(BASE, **shape)
    options = {k: keys.pop(k, None) for k in ("length", "shards", "published", "dtype", "sparsity")}
    layers = len(keys["layer_types"])
    keys["num_hidden_layers"] = layers
    keys["activation_sparsity_pattern"] = (options["sparsity"] or []) + [0.0] * (layers - len(options["sparsity"] or []))
    keys.setdefault("vocab_size_per_layer_input", keys["vocab_size"])
    keys["max_position_embeddings"] = 512
    config = Gemma3nTextConfig(**keys)
    config._attn_implementation = "eager"
    model = Gemma3nForCausalLM(config)
    make_golden.randomize(model, generator)
    with torch.no_grad():
        for layer in model.model.layers:  # the router's input is 1/d in size: its output shall be about 1
            layer.altup.modality_router.weight.mul_(config.hidden_size)
            layer.altup.prediction_coefs.weight.mul_(0.25)  # larger ones make the reference itself lose digits
            layer.altup.correction_coefs.weight.mul_(0.5)
    return model.eval(), keys, options


def run(model, tokens):
    return make_golden.run(model, tokens, rows=lambda hidden: hidden[:, 0].permute(1, 0, 2).flatten(1))


@torch.no_grad()
def sensitivities(model, tokens, logits, spread):
    """As make_golden's, for what Gemma 3n has of its own."""
    text, found = text_model(model), {}

    def measure(name, weights, change):
        kept = [w.clone() for w in weights]
        for w in weights:
            change(w)
        found[name] = float((run(model, tokens)[0] - logits).abs().max() / spread)
        for w, k in zip(weights, kept):
            w.copy_(k)

    def each(name):
        return [w for n, w in text.named_parameters() if name in n]

    zero, double, one = (lambda w: w.zero_()), (lambda w: w.mul_(2)), (lambda w: w.fill_(1))
    measure("PLE table = 0", [text.embed_tokens_per_layer.weight], zero)
    measure("predictions = 0", each("prediction_coefs"), zero)
    measure("corrections = 1", each("correction_coefs"), zero)
    measure("LAuReL = 0", each("post_laurel_norm"), zero)
    measure("unembedding turned", each("altup_unembed"), lambda w: w.neg_())
    if text.config.altup_correct_scale:
        measure("output scale = 1", each("correct_output_scale"), one)
    measure("full RoPE doubled", [text.rotary_emb.full_attention_inv_freq], double)
    if text.config.vocab_size > text.config.vocab_size_per_layer_input:
        measure("row 0 = 0", [text.embed_tokens_per_layer.weight[0]], zero)
    window = text.config.sliding_window
    if window < tokens.shape[1]:
        text.config.sliding_window = window + 1
        found["window + 1"] = float((run(model, tokens)[0] - logits).abs().max() / spread)
        text.config.sliding_window = window
    sparse = [layer.mlp for layer in text.layers if layer.mlp.activation_sparsity]
    if sparse:
        kept = [mlp.activation_sparsity for mlp in sparse]
        for mlp in sparse:
            mlp.activation_sparsity = 0.0
        found["no sparsity"] = float((run(model, tokens)[0] - logits).abs().max() / spread)
        for mlp, k in zip(sparse, kept):
            mlp.activation_sparsity = k
    return found


if __name__ == "__main__":
    make_golden.write(OUT, SHAPES, build, run, sensitivities, "make_golden_gemma3n.py")
