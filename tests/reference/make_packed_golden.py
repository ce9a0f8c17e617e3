#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/checkpoint/packed_weights_test.cpp: a random Gemma 4 whose linear layers compressed-tensors has packed, as Google's QAT
checkpoints are (w4a16, groups of 32), and a few as w8a16, one scale a row, and w4a16 in groups of 64. transformers opens it.

  pip install -r requirements.txt compressed-tensors==0.20.1 loguru psutil pydantic
  python3 make_packed_golden.py         # writes ../data/packed

expected.safetensors: tokens [T], the reference's logits [T, V], and what it unpacks one weight of each kind to.
"""
import json
import shutil

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import make_golden
from make_golden import F, S

OUT = make_golden.OUT.parent / "packed"
SHAPE = dict(hidden_size=32, intermediate_size=128, hidden_size_per_layer_input=32, num_attention_heads=4, head_dim=16, vocab_size=61,
             layer_types=[S, F], length=24)
# group -> which layers, and how
KINDS = {
    "group_0": (r"re:.*(self_attn\..*_proj|gate_proj|up_proj|per_layer_input_gate)$", dict(num_bits=4, strategy="group", group_size=32)),
    "group_1": (r"re:.*down_proj$", dict(num_bits=4, strategy="group", group_size=64)),
    "group_2": (r"re:.*per_layer_projection$", dict(num_bits=8, strategy="channel")),
}
SHOWN = ["layers.0.self_attn.q_proj.weight", "layers.1.mlp.down_proj.weight", "layers.1.per_layer_projection.weight"]


def kind_of(name):
    if "layers." not in name or not name.endswith("proj.weight") and not name.endswith("gate.weight") \
            and not name.endswith("per_layer_projection.weight"):
        return None
    return "group_1" if "down_proj" in name else "group_2" if "per_layer_projection" in name else "group_0"


@torch.no_grad()
def main():
    generator = torch.Generator().manual_seed(7)
    model, keys, options = make_golden.build(SHAPE, generator)
    shutil.rmtree(OUT, ignore_errors=True)
    model.save_pretrained(OUT)
    tensors = {}
    for name, w in load_file(OUT / "model.safetensors").items():
        kind = kind_of(name)
        if kind is None:
            tensors[name] = w
            continue
        args = QuantizationArgs(**KINDS[kind][1])
        group = args.group_size or w.shape[1]
        # In f32, so that the reference rounds nothing; of values that bf16 has, as published.
        scale = (w.unflatten(1, (-1, group)).abs().amax(2) / (2 ** (args.num_bits - 1) - 1)).bfloat16().float()
        packed = PackedQuantizationCompressor.compress({"weight": w, "weight_scale": scale}, QuantizationScheme(targets=["Linear"], weights=args))
        tensors |= {name + part.removeprefix("weight"): v.contiguous() for part, v in packed.items()}
    save_file(tensors, OUT / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((OUT / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*per_layer_model_projection$"], "kv_cache_scheme": None,
        "config_groups": {group: {"targets": [target], "input_activations": None, "output_activations": None, "format": "pack-quantized",
                                  "weights": QuantizationArgs(**args).model_dump(mode="json")} for group, (target, args) in KINDS.items()}}
    (OUT / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    reference = AutoModelForCausalLM.from_pretrained(OUT, attn_implementation="eager").eval()
    tokens = torch.randint(0, keys["vocab_size"], (1, options["length"]), generator=generator)
    logits = reference(input_ids=tokens, use_cache=True).logits[0]  # it unpacks in the first pass
    expected = {"tokens": tokens[0].float(), "logits": logits}
    for name in SHOWN:
        expected[name] = reference.get_parameter("model." + name)
        moved = float((expected[name] - dict(model.named_parameters())["model." + name]).abs().max())
        assert 0 < moved < 0.5, (name, moved)
    save_file({k: v.detach().contiguous().float() for k, v in expected.items()}, OUT / "expected.safetensors")
    print(f"{sum(p.stat().st_size for p in OUT.iterdir()) / 1e3:.0f} kB in {OUT}")


if __name__ == "__main__":
    main()
