#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/model/encoder_test.cpp: random EmbeddingGemma 2 models, saved by transformers, and the vectors that it computes.

  pip install -r requirements.txt
  python3 make_golden_embedding_gemma2.py         # writes ../data/golden_embedding_gemma2

Each folder is a checkpoint as save_pretrained leaves it, and expected.safetensors: for texts of several lengths n, tokens_n [n], norm_n
[n, d] (the final norm's outputs) and vector_n_S [S] for each size S: the mean of all tokens' outputs, cut to S numbers, divided by its
length, as sentence-transformers' Pooling, truncate_dim and Normalize do it. For one length also layers_n [L+1, n, d] (the scaled
embedding, then every layer's output) and per_layer_input_n [n, L, p]. Weights in 16 bits are computed with in f32; vector_low_n_S are
those of bf16 arithmetic throughout.
The script checks the reference against itself: alone, in a padded batch, and in f64.
"""
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model, EmbeddingGemma2TextConfig, EmbeddingGemma2TextModel, Gemma4VisionConfig

import make_golden
from make_golden import F, S, PINNED, pattern, randomize, round_to

OUT = make_golden.OUT.parent / "golden_embedding_gemma2"

BASE = dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=16,
            hidden_size_per_layer_input=12, sliding_window=5, vocab_size=131, layer_types=pattern(6, 6), embedding_dim=24,
            lengths=[1, 4, 20, 60], sizes=[24, 16, 8, 4])

# name -> what differs from BASE
SHAPES = {
    # Tokens 7, 8 and 9 stand for images, videos and sounds; without these they are embedded as the pad token.
    "270m_like": dict(layer_types=pattern(7, 6), whole=True, lengths=[1, 4, 20, 60, 150]),
    "odd_sizes": dict(hidden_size=27, num_attention_heads=3, num_key_value_heads=3, head_dim=10, global_head_dim=14, intermediate_size=37,
                      hidden_size_per_layer_input=5, vocab_size=97, layer_types=[F, S, S, F], sliding_window=140, embedding_dim=11,
                      lengths=[1, 20, 300], sizes=[11, 5, 1]),
    "270m_like_bf16": dict(vocab_size=1024, sliding_window=12, dtype="bfloat16"),
}


def build(shape, generator):
    keys = dict(BASE, **shape)
    options = {k: keys.pop(k, None) for k in ("lengths", "sizes", "whole", "dtype")}
    keys["num_hidden_layers"] = len(keys["layer_types"])
    keys["max_position_embeddings"] = 512
    text = EmbeddingGemma2TextConfig(**keys)
    if options["whole"]:
        vision = Gemma4VisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
                                    head_dim=8, position_embedding_size=16)
        model = EmbeddingGemma2Model(EmbeddingGemma2Config(text_config=text, vision_config=vision, audio_config=None, image_token_id=7,
                                                           video_token_id=8, audio_token_id=9))
    else:
        model = EmbeddingGemma2TextModel(text)
    model.set_attn_implementation("eager")
    randomize(model, generator)
    return model.eval(), options


def text_model(model):
    return getattr(model, "language_model", model)


@torch.no_grad()
def run(model, tokens):
    """The projected outputs, the final norm's, the layers' and the per-layer inputs of one text."""
    text, layers, found = text_model(model), [], {}
    hooks = [layer.register_forward_hook(lambda m, i, out: layers.append(out[0].clone())) for layer in text.layers]
    hooks.append(text.layers[0].register_forward_pre_hook(lambda m, args: layers.append(args[0][0].clone())))
    hooks.append(text.norm.register_forward_hook(lambda m, i, out: found.update(norm=out[0].clone())))
    hooks.append(text.ple.register_forward_hook(lambda m, i, out: found.update(per_layer_input=out[0].clone())))
    outputs = model(input_ids=tokens).last_hidden_state[0]
    for hook in hooks:
        hook.remove()
    return outputs, found["norm"], torch.stack(layers), found["per_layer_input"]


def vector(outputs, size):
    """Sums are in f32 at least, as sentence-transformers takes them."""
    mean = outputs.sum(0, dtype=torch.promote_types(outputs.dtype, torch.float32)) / len(outputs)
    return torch.nn.functional.normalize(mean.to(outputs.dtype)[:size], dim=-1)


@torch.no_grad()
def check_batch(name, model, texts, vectors, size):
    """Padding at the end that the mask leaves out changes nothing."""
    longest = max(t.shape[1] for t in texts)
    batch = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros_like(batch)
    for i, t in enumerate(texts):
        batch[i, :t.shape[1]], mask[i, :t.shape[1]] = t[0], 1
    outputs = model(input_ids=batch, attention_mask=mask).last_hidden_state
    for i, t in enumerate(texts):
        error = float((vector(outputs[i, :t.shape[1]], size) - vectors[i]).abs().max())
        assert error < 1e-5, f"{name}: in a padded batch, the vector of {t.shape[1]} tokens differs by {error}"


@torch.no_grad()
def sensitivities(model, tokens, expected):
    """How far the vector of length 1 moves when something is left out: a test that cannot see it would be worth nothing."""
    text, found, size = text_model(model), {}, len(expected)

    def moved(outputs=None):
        return float((vector(run(model, tokens)[0] if outputs is None else outputs, size) - expected).norm())

    def measure(what, weights, change):
        kept = [w.clone() for w in weights]
        for w in weights:
            change(w)
        found[what] = moved()
        for w, k in zip(weights, kept):
            w.copy_(k)

    measure("layer_scalar = 1", [layer.layer_scalar for layer in text.layers], lambda w: w.fill_(1))
    measure("PLE norm = 1", [text.ple.per_layer_projection_norm.weight], lambda w: w.fill_(1))
    measure("without PLE", [layer.ple_block.per_layer_projection.weight for layer in text.layers], lambda w: w.zero_())
    measure("full RoPE doubled", [text.rotary_emb.full_attention_inv_freq], lambda w: w.mul_(2))
    for layer in text.layers:
        layer.self_attn.scaling = 1.1
    found["scores 10 % larger"] = moved()
    for layer in text.layers:
        layer.self_attn.scaling = 1.0
    found["mean without the first token"] = moved(run(model, tokens)[0][1:])
    if text.config.sliding_window < tokens.shape[1]:
        window = text.config.sliding_window
        text.config.sliding_window = window + 1
        found["radius + 1"] = moved()
        text.config.sliding_window = window
    return found


if __name__ == "__main__":
    for name, version in PINNED.items():
        found = sys.modules[name].__version__.split("+")[0]
        if found != version:
            sys.exit(f"{name} is {found}, the golden data are made with {version}: pip install -r requirements.txt")
    shutil.rmtree(OUT, ignore_errors=True)
    rows = []
    for seed, (name, shape) in enumerate(SHAPES.items()):
        generator = torch.Generator().manual_seed(seed)
        model, options = build(shape, generator)
        vocab_size = text_model(model).config.vocab_size
        texts = [torch.randint(0, vocab_size, (1, n), generator=generator) for n in options["lengths"]]
        if options["whole"]:
            texts[2][0, 3:6] = torch.tensor([7, 8, 9])
        expected, vectors, size = {}, [], options["sizes"][0]
        low = {}
        if options["dtype"]:
            round_to(model, options["dtype"])
            low = {t.shape[1]: run(model, t)[0] for t in texts}
        model.save_pretrained(OUT / name)
        model = model.float()
        for t in texts:
            n = t.shape[1]
            outputs, norm, layers, per_layer_input = run(model, t)
            expected |= {f"tokens_{n}": t[0], f"norm_{n}": norm}
            if n == 20:
                expected |= {f"layers_{n}": layers, f"per_layer_input_{n}": per_layer_input}
            for s in options["sizes"]:
                expected[f"vector_{n}_{s}"] = vector(outputs, s)
                if low:
                    expected[f"vector_low_{n}_{s}"] = vector(low[n], s)
            vectors.append(expected[f"vector_{n}_{size}"])
        check_batch(name, model, texts, vectors, size)
        moved = sensitivities(model, texts[-1], vectors[-1])
        for what, by in moved.items():
            assert by > 1e-3, f"{name}: {what} moves the vector by {by} only"
        save_file({k: v.contiguous().float() for k, v in expected.items()}, OUT / name / "expected.safetensors")
        apart = max(float((expected[f"vector_low_{n}_{size}"] - v).norm()) for n, v in zip(low, vectors)) if low else None
        model.double()
        double = max(float((vector(run(model, t)[0], size) - v).norm()) for t, v in zip(texts, vectors))
        rows.append(f"| {name} | {len(text_model(model).layers)} | {', '.join(map(str, options['lengths']))} | {double:.1e} | "
                    f"{'' if apart is None else '%.1e' % apart} | {', '.join(f'{k}: {v:.1e}' for k, v in moved.items())} |")
        print(rows[-1], flush=True)
    total = sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file())
    (OUT / "README.md").write_text(
        "# Golden data\n\nWritten by `tests/reference/make_golden_embedding_gemma2.py` with "
        + ", ".join(f"{k} {v}" for k, v in PINNED.items()) + f"; {total / 1e6:.1f} MB.\n\n"
        "Differences are lengths of differences of vectors of length 1.\n\n"
        "| shape | layers | tokens | f32 from f64 | 16-bit run from f32 run | moves by |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows) + "\n")
    print(f"{len(rows)} shapes, {total / 1e6:.1f} MB in {OUT}")
