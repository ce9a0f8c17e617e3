#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a Gemma 4 checkpoint of the published shape with random bf16 weights, to measure speed and memory: what it says is noise.

  python3 make_random_checkpoint.py --out e2b               # Gemma 4 E2B, 9.3 GB; needs numpy
  python3 make_random_checkpoint.py --model e4b --out e4b   # 15 GB
  python3 make_random_checkpoint.py --model 26b-a4b --layers 8 --out moe      # mixture of experts, its first 8 layers, 15 GB

The folder has the published layout: nested config.json, the tensor names of Gemma4ForConditionalGeneration, shards and an index.
"""
import argparse
import json
import pathlib
import struct
import time

import numpy as np

MODELS = {
    "e2b": dict(hidden=1536, layers=35, period=5, heads=8, kv_heads=1, intermediate=6144, wide=True, shared=20),
    "e4b": dict(hidden=2560, layers=42, period=6, heads=8, kv_heads=2, intermediate=10240, wide=False, shared=18),
    "26b-a4b": dict(hidden=2816, layers=30, period=6, heads=16, kv_heads=8, intermediate=2112, wide=False, shared=0, ple=0, window=1024,
                    full_kv_heads=2, experts=128, top_k=8, expert_intermediate=704),
}
VOCAB, HEAD, GLOBAL_HEAD = 262144, 256, 512
PREFIX = "model.language_model."
SHARD_BYTES = 3 << 30


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def types(m):
    last = m["layers"] - 1
    return ["full_attention" if (i + 1) % m["period"] == 0 or i == last else "sliding_attention" for i in range(m["layers"])]


def tensors(m):
    """(name, shape, deviation); deviation 0 stands for all ones."""
    d, p, experts = m["hidden"], m.get("ple", 256), m.get("experts", 0)
    yield PREFIX + "embed_tokens.weight", (VOCAB, d), d ** -0.5
    if p:
        yield PREFIX + "embed_tokens_per_layer.weight", (VOCAB, m["layers"] * p), p ** -0.5
        yield PREFIX + "per_layer_model_projection.weight", (m["layers"] * p, d), d ** -0.5
        yield PREFIX + "per_layer_projection_norm.weight", (p,), 0
    yield PREFIX + "norm.weight", (d,), 0
    for l, kind in enumerate(types(m)):
        name = f"{PREFIX}layers.{l}."
        shared = l >= m["layers"] - m["shared"]
        full = kind == "full_attention"
        head = GLOBAL_HEAD if full else HEAD
        kv_heads = m.get("full_kv_heads", m["kv_heads"]) if full else m["kv_heads"]
        ffn = m["intermediate"] * (2 if m["wide"] and shared else 1)
        matrices = {"self_attn.q_proj": (m["heads"] * head, d), "self_attn.o_proj": (d, m["heads"] * head),
                    "mlp.gate_proj": (ffn, d), "mlp.up_proj": (ffn, d), "mlp.down_proj": (d, ffn)}
        norms = {"self_attn.q_norm": head, "input_layernorm": d, "post_attention_layernorm": d, "pre_feedforward_layernorm": d,
                 "post_feedforward_layernorm": d}
        if p:
            matrices |= {"per_layer_input_gate": (p, d), "per_layer_projection": (d, p)}
            norms["post_per_layer_input_norm"] = d
        if not shared:
            matrices["self_attn.k_proj"] = (kv_heads * head, d)
            if not (full and experts):  # there V is K
                matrices["self_attn.v_proj"] = (kv_heads * head, d)
            norms["self_attn.k_norm"] = head
        if experts:
            width = m["expert_intermediate"]
            matrices["router.proj"] = (experts, d)
            yield name + "experts.gate_up_proj", (experts, 2 * width, d), d ** -0.5
            yield name + "experts.down_proj", (experts, d, width), width ** -0.5
            yield name + "router.scale", (d,), 0
            yield name + "router.per_expert_scale", (experts,), 0
            norms |= {"pre_feedforward_layernorm_2": d, "post_feedforward_layernorm_1": d, "post_feedforward_layernorm_2": d}
        for key, shape in matrices.items():
            yield name + key + ".weight", shape, shape[1] ** -0.5
        for key, width in norms.items():
            yield name + key + ".weight", (width,), 0
        yield name + "layer_scalar", (1,), 0


def config(m):
    experts, ple = m.get("experts", 0), m.get("ple", 256)
    text = dict(
        model_type="gemma4_text", vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB, hidden_size=m["hidden"], intermediate_size=m["intermediate"],
        num_hidden_layers=m["layers"], num_attention_heads=m["heads"], num_key_value_heads=m["kv_heads"], head_dim=HEAD, global_head_dim=GLOBAL_HEAD,
        layer_types=types(m), num_kv_shared_layers=m["shared"], use_double_wide_mlp=m["wide"], hidden_size_per_layer_input=ple,
        sliding_window=m.get("window", 512), max_position_embeddings=131072, final_logit_softcapping=30.0, rms_norm_eps=1e-6, tie_word_embeddings=True,
        hidden_activation="gelu_pytorch_tanh", attention_bias=False, attention_k_eq_v=bool(experts), enable_moe_block=bool(experts), bos_token_id=2,
        eos_token_id=1, pad_token_id=0, dtype="bfloat16",
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                         "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})
    if experts:
        text |= dict(num_experts=experts, top_k_experts=m["top_k"], moe_intermediate_size=m["expert_intermediate"],
                     num_global_key_value_heads=m["full_kv_heads"])
    return {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "dtype": "bfloat16", "tie_word_embeddings": True,
            "text_config": text}


class Noise:
    """Random bf16 values, cheaply: one block of them, begun at another place for every tensor."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.block = self.rng.standard_normal(1 << 25, dtype=np.float32)

    def write(self, file, count, deviation):
        if deviation == 0:
            file.write(np.full(count, 0x3F80, np.uint16).tobytes())
            return
        scaled = to_bf16(self.block * np.float32(deviation))
        start = int(self.rng.integers(len(scaled)))
        while count > 0:
            part = scaled[start:start + count]
            file.write(part.tobytes())
            count, start = count - len(part), 0


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", choices=MODELS, default="e2b")
    arguments.add_argument("--layers", type=int, help="fewer than the model has")
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    a = arguments.parse_args()
    m, noise, start = dict(MODELS[a.model]), Noise(1), time.time()
    m["layers"] = a.layers or m["layers"]
    a.out.mkdir(parents=True, exist_ok=True)
    shards, size = [[]], 0
    for name, shape, deviation in tensors(m):
        n = 2 * int(np.prod(shape))
        if size + n > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append((name, shape, deviation))
        size += n
    total = sum(2 * int(np.prod(s)) for shard in shards for _, s, _ in shard)
    weight_map, written = {}, 0
    for i, shard in enumerate(shards):
        file_name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {}, 0
        for name, shape, _ in shard:
            n = 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + n]}
            weight_map[name], offset = file_name, offset + n
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(a.out / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape, deviation in shard:
                noise.write(file, int(np.prod(shape)), deviation)
                written += 2 * int(np.prod(shape))
                print(f"\r{written / 1e9:.2f} of {total / 1e9:.2f} GB, {time.time() - start:.0f} s ", end="", flush=True)
    print()
    (a.out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    (a.out / "config.json").write_text(json.dumps(config(m), indent=2) + "\n")
    (a.out / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}) + "\n")


if __name__ == "__main__":
    main()
