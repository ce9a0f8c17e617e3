#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/model/golden_test.cpp: random Gemma 4 models of many shapes, saved by transformers, and what it computes.

  pip install -r requirements.txt
  python3 make_golden.py                # writes ../data/golden

Each folder is a checkpoint as save_pretrained leaves it, and expected.safetensors: tokens [T], logits [T, V], hidden_states
[L+1, T, d] (the scaled embedding, then every layer's output before the final norm), per_layer_input [T, L, p]. Shapes in 16 bits
have the logits twice: computed with f32 arithmetic from the 16-bit weights, and, as logits_low, in 16 bits throughout.
The script checks the reference against itself: whole, in chunks, token by token, and in f64.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, DynamicCache, Gemma4Config, Gemma4ForCausalLM, Gemma4ForConditionalGeneration, Gemma4TextConfig,
                          Gemma4VisionConfig)

PINNED = {"torch": "2.13.0", "transformers": "5.24.0"}
OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "golden"
S, F = "sliding_attention", "full_attention"


def pattern(layers, period):
    return [F if (i + 1) % period == 0 or i == layers - 1 else S for i in range(layers)]


def in_published_style(folder):
    """The names that the published Gemma 4 checkpoints use for what newer transformers writes per layer."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    full = [i for i, t in enumerate(config["layer_types"]) if t == F]
    overrides = config.pop("per_layer_config")[str(full[0])]
    config["global_head_dim"] = overrides["head_dim"]
    config["num_global_key_value_heads"] = overrides.get("num_key_value_heads", config["num_key_value_heads"])
    path.write_text(json.dumps(config, indent=2) + "\n")


def check_head(folder):
    """The reference uses the head that the file has, too, whatever the configuration says."""
    head = load_file(folder / "model.safetensors")["lm_head.weight"]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(folder).lm_head.weight, head)


def as_if_tied(folder):
    """A head of its own beside a configuration that says that there is none."""
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    check_head(folder)


def text_as_if_tied(folder):
    """As when PEFT merges a model whose head was trained: only the whole model's configuration says so."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"] = False, True
    path.write_text(json.dumps(config, indent=2) + "\n")
    check_head(folder)


BASE = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=1, head_dim=8, global_head_dim=16,
            hidden_size_per_layer_input=8, num_kv_shared_layers=0, sliding_window=7, vocab_size=131, use_double_wide_mlp=False,
            attention_k_eq_v=False, layer_types=pattern(5, 5), final_logit_softcapping=30.0, length=40)

SMALL = dict(hidden_size=16, intermediate_size=24, num_attention_heads=2, hidden_size_per_layer_input=4, vocab_size=53, layer_types=[S, F],
             tie_word_embeddings=False, length=20)

# name -> what differs from BASE
SHAPES = {
    "e2b_like": dict(layer_types=pattern(10, 5), num_kv_shared_layers=5, use_double_wide_mlp=True, hidden_size=48, vocab_size=203, length=60),
    "e4b_like": dict(layer_types=pattern(12, 6), num_kv_shared_layers=6, num_key_value_heads=2, sliding_window=9, shards=True),
    "dense_31b_like": dict(layer_types=pattern(6, 6), hidden_size_per_layer_input=0, attention_k_eq_v=True, num_attention_heads=8,
                           num_key_value_heads=4, num_global_key_value_heads=2),
    "sharing_most": dict(layer_types=[S, F, S, F, S, S, F, F], num_kv_shared_layers=6),
    "sharing_none": dict(layer_types=[S, S, F, S, F]),
    "window_longer_than_text": dict(sliding_window=64, num_kv_shared_layers=2, layer_types=[S, S, F, S, F]),
    "window_tiny": dict(sliding_window=3, num_kv_shared_layers=2, layer_types=[S, F, S, S, F], length=50),
    "odd_heads": dict(hidden_size=27, num_attention_heads=3, head_dim=10, global_head_dim=14, hidden_size_per_layer_input=5,
                      intermediate_size=37, vocab_size=97, layer_types=[S, F, S, S, F], num_kv_shared_layers=2, use_double_wide_mlp=True),
    "nested": dict(layer_types=[S, F, S, S, F], num_kv_shared_layers=2, nested=True),
    "published_style": dict(layer_types=[S, F, S, F], attention_k_eq_v=True, num_attention_heads=6, num_key_value_heads=3,
                            num_global_key_value_heads=2, published=in_published_style),
    "untied_head": dict(tie_word_embeddings=False, layer_types=[S, F], final_logit_softcapping=None),
    "e2b_like_bf16": dict(layer_types=pattern(10, 5), num_kv_shared_layers=5, use_double_wide_mlp=True, hidden_size=48, dtype="bfloat16", length=60),
    "odd_heads_bf16": dict(hidden_size=27, num_attention_heads=3, head_dim=10, global_head_dim=14, hidden_size_per_layer_input=5,
                           intermediate_size=37, vocab_size=97, layer_types=[S, F, S, S, F], num_kv_shared_layers=2, dtype="bfloat16"),
    "e2b_like_f16": dict(layer_types=pattern(5, 5) + [S, F], num_kv_shared_layers=2, use_double_wide_mlp=True, hidden_size=40, dtype="float16"),
    "head_beside_tied": dict(SMALL, published=as_if_tied),
    "head_beside_tied_text": dict(SMALL, nested=True, published=text_as_if_tied),
}


def randomize(model, generator):
    """Weights with spread, so that a wrong constant anywhere shows."""
    def draw(like):
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, w in model.named_parameters():
            if "vision" in name:
                w.copy_(draw(w) * 0.1)
            elif "q_norm" in name or "k_norm" in name:  # scores of about 1, as in a trained model: softmax must not be a maximum
                w.copy_((1 + 0.3 * draw(w)) * w.numel() ** -0.25)
            elif w.ndim == 1:
                w.copy_(1 + 0.3 * draw(w))
            else:
                w.copy_(draw(w) * (0.6 if "embed_tokens" in name or "lm_head" in name else w.shape[1] ** -0.5))
        for name, b in model.named_buffers():
            if name.endswith("layer_scalar"):
                b.copy_(0.5 + 0.7 * torch.rand(b.shape, generator=generator))


def build(shape, generator):
    keys = dict(BASE, **shape)
    options = {k: keys.pop(k, None) for k in ("length", "shards", "nested", "published", "dtype")}
    keys["num_hidden_layers"] = len(keys["layer_types"])
    keys["vocab_size_per_layer_input"] = keys["vocab_size"]
    keys["max_position_embeddings"] = 512
    text = Gemma4TextConfig(**keys)
    if options["nested"]:
        vision = Gemma4VisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
                                    head_dim=8, position_embedding_size=16)
        model = Gemma4ForConditionalGeneration(Gemma4Config(text_config=text, vision_config=vision, audio_config=None,
                                                            tie_word_embeddings=text.tie_word_embeddings))
        model.set_attn_implementation("eager")
    else:
        text._attn_implementation = "eager"
        model = Gemma4ForCausalLM(text)
    randomize(model, generator)
    return model.eval(), keys, options


def round_to(model, dtype):
    """Weights and embedding scales in 16 bits; other constants stay f32, as when the reference opens a 16-bit file."""
    constants = {n: b.clone() for n, b in model.named_buffers() if n.endswith(("inv_freq", "input_scale", "projection_scale"))}
    model.to(getattr(torch, dtype))
    for n, b in constants.items():
        module, _, leaf = n.rpartition(".")
        setattr(model.get_submodule(module), leaf, b)


def text_model(model):
    return model.model.language_model if hasattr(model.model, "language_model") else model.model


@torch.no_grad()
def run(model, tokens, rows=lambda hidden: hidden[0]):
    """Logits, hidden states and per-layer inputs of the whole text at once, with the cache on. rows: a layer's states as [T, width]."""
    text, layers, ple = text_model(model), [], []
    hooks = [layer.register_forward_hook(lambda m, i, out: layers.append(rows(out.detach()).clone())) for layer in text.layers]
    hooks.append(text.layers[0].register_forward_pre_hook(lambda m, args: layers.append(rows(args[0].detach()).clone())))
    if getattr(text.config, "hidden_size_per_layer_input", 0):
        original = text.project_per_layer_inputs
        text.project_per_layer_inputs = lambda *a, **k: ple.append(original(*a, **k)) or ple[-1]
    keep = torch.arange(tokens.shape[1])  # a tensor: 5.23 fails on models without PLE otherwise
    logits = model(input_ids=tokens, use_cache=True, logits_to_keep=keep).logits[0]
    for hook in hooks:
        hook.remove()
    if ple:
        text.project_per_layer_inputs = original
    return logits, torch.stack(layers), ple[0][0] if ple else None


def off_by(found, expected):
    """The largest difference, in ranges of what is expected."""
    return float(np.abs(found - expected).max()) / float(expected.max() - expected.min())


def rounds_as_the_reference(found, expected, low):
    """Whether logits from activations in bf16 are no further from those in f32 than `low`, the reference in bf16 throughout, is."""
    return float(np.square(found - expected).mean()) <= float(np.square(low - expected).mean())


@torch.no_grad()
def run_cut(model, tokens, chunk):
    """The same logits with the text cut in chunks."""
    cache, all_logits = None, []
    for start in range(0, tokens.shape[1], chunk):
        part = tokens[:, start:start + chunk]
        out = model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=torch.arange(part.shape[1]))
        cache = out.past_key_values
        all_logits.append(out.logits[0])
    return torch.cat(all_logits)


def sensitivities(model, tokens, logits, spread):
    """How far the logits move, in ranges, when something is left out: a test that cannot see it would be worth nothing."""
    text, found = text_model(model), {}

    def measure(name, change, undo):
        change()
        found[name] = float((run(model, tokens)[0] - logits).abs().max() / spread)
        undo()

    with torch.no_grad():
        scalars = [layer.layer_scalar.clone() for layer in text.layers]
        measure("layer_scalar = 1", lambda: [l.layer_scalar.fill_(1) for l in text.layers],
                lambda: [l.layer_scalar.copy_(s) for l, s in zip(text.layers, scalars)])
        if text.hidden_size_per_layer_input:
            table = text.embed_tokens_per_layer.weight.clone()
            measure("PLE table = 0", lambda: text.embed_tokens_per_layer.weight.zero_(), lambda: text.embed_tokens_per_layer.weight.copy_(table))
        frequencies = text.rotary_emb.full_attention_inv_freq.clone()
        measure("full RoPE doubled", lambda: text.rotary_emb.full_attention_inv_freq.mul_(2),
                lambda: text.rotary_emb.full_attention_inv_freq.copy_(frequencies))
        if text.config.sliding_window < tokens.shape[1]:
            window = text.config.sliding_window
            measure("window + 1", lambda: setattr(text.config, "sliding_window", window + 1), lambda: setattr(text.config, "sliding_window", window))
    return found


def write(out, shapes, build, run, sensitivities, script):
    """Makes each shape's model, runs it, and writes both to a folder of `out`, with a README.md about all."""
    for name, version in PINNED.items():
        found = sys.modules[name].__version__.split("+")[0]
        if found != version:
            sys.exit(f"{name} is {found}, the golden data are made with {version}: pip install -r requirements.txt")
    shutil.rmtree(out, ignore_errors=True)
    rows = []
    for seed, (name, shape) in enumerate(shapes.items()):
        generator = torch.Generator().manual_seed(seed)
        model, keys, options = build(shape, generator)
        tokens = torch.randint(0, keys["vocab_size"], (1, options["length"]), generator=generator)
        folder = out / name
        low = None
        if options["dtype"]:
            round_to(model, options["dtype"])
            low = run(model, tokens)[0].float()
        model.save_pretrained(folder, **({"max_shard_size": "60KB"} if options["shards"] else {}))
        model = model.float()
        logits, hidden, ple = run(model, tokens)
        spread = float(logits.max() - logits.min())
        for chunk in (1, 7):
            error = float((run_cut(model, tokens, chunk) - logits).abs().max()) / spread
            assert error < 5e-5, f"{name}: the reference in chunks of {chunk} differs from itself by {error}"
        moved = sensitivities(model, tokens, logits, spread)
        for what, by in moved.items():
            assert by > 1e-3, f"{name}: {what} moves the logits by {by} of their range only"
        double = float((run(model.double(), tokens)[0].float() - logits).abs().max()) / spread
        expected = {"tokens": tokens[0].float(), "logits": logits, "hidden_states": hidden}
        if ple is not None:
            expected["per_layer_input"] = ple
        if low is not None:
            expected["logits_low"] = low
        save_file({k: v.contiguous().float() for k, v in expected.items()}, folder / "expected.safetensors")
        if options["published"]:
            options["published"](folder)
        rows.append(f"| {name} | {len(keys['layer_types'])} | {options['length']} | {spread:.1f} | {double:.1e} | "
                    f"{'' if low is None else '%.1e' % (float((low - logits).abs().max()) / spread)} | "
                    f"{', '.join(f'{k}: {v:.1e}' for k, v in moved.items())} |")
        print(rows[-1], flush=True)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    (out / "README.md").write_text(
        f"# Golden data\n\nWritten by `tests/reference/{script}` with "
        + ", ".join(f"{k} {v}" for k, v in PINNED.items()) + f"; {size / 1e6:.1f} MB.\n\n"
        "Differences are the largest of all logits, in ranges of the logits.\n\n"
        "| shape | layers | tokens | logits' range | f32 from f64 | 16-bit run from f32 run | moves by |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(rows) + "\n")
    print(f"{len(rows)} shapes, {size / 1e6:.1f} MB in {out}")


if __name__ == "__main__":
    write(OUT, SHAPES, build, run, sensitivities, "make_golden.py")
