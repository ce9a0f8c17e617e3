#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares ple with transformers on real weights: Gemma 3 in a GGUF file, decoded to f32 by the package `gguf`.

  pip install -r requirements.txt
  python3 check_gemma3.py "$(../../scripts/get-gemma3-270m)" --logits ../../build/release/examples/logits

Writes the decoded model as a Hugging Face folder to --folder (1.7 GB for 270M). Prints how far ple's logits are from the reference's: on
the folder, where both compute in f32, and on the GGUF file, where ple multiplies bytes. Fails if the first is more than f32's roundings.
"""
import argparse
import pathlib
import subprocess
import tempfile

import gguf
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

TEXTS = {  # the names tell where a mistake would show
    "one sentence": [2, 818, 5279, 529, 7001, 563],
    "past the window": list(range(1000, 1700)),
}
# What tests/weights/gemma3_270m lets the model continue, without rounding errors in the way: it is sure of every token.
CONTINUED = {
    "1, 2, 3, 4, 5, 6, 7,": [2, *(t for digit in (236770, 236778, 236800, 236812, 236810, 236825, 236832)
                                  for t in (digit, 236764, 236743))][:-1],
    "a b c d e f g h i j": [2, 236746, 518, 505, 513, 545, 517, 549, 534, 858, 673],
}
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
IN_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "post_ffw_norm": "post_feedforward_layernorm"}


def model_of(path):
    """The file's model, in f32."""
    reader = gguf.GGUFReader(path)
    key = lambda name: reader.fields["gemma3." + name].contents()
    layers, head_dim = key("block_count"), key("attention.key_length")
    config = Gemma3TextConfig(
        hidden_size=key("embedding_length"), intermediate_size=key("feed_forward_length"), num_hidden_layers=layers, head_dim=head_dim,
        num_attention_heads=key("attention.head_count"), num_key_value_heads=key("attention.head_count_kv"),
        sliding_window=key("attention.sliding_window"), max_position_embeddings=key("context_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"), query_pre_attn_scalar=head_dim,
        rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": key("rope.freq_base")},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data))
    weights = {}
    for tensor in reader.tensors:
        parts = tensor.name.removesuffix(".weight").split(".")
        name = NAMES[parts[0]] if len(parts) == 1 else f"model.layers.{parts[1]}.{IN_LAYER[parts[2]]}"
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weights[name + ".weight"] = torch.from_numpy(np.array(values - 1 if name.endswith("norm") else values))
    config._attn_implementation = "eager"
    model = Gemma3ForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("--logits", type=pathlib.Path, required=True, help="the program examples/logits")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "gemma3-f32")
    arguments = parser.parse_args()
    model = model_of(arguments.gguf)
    model.save_pretrained(arguments.folder)
    failed = False
    for name, tokens in TEXTS.items():
        with torch.no_grad():
            reference = model(input_ids=torch.tensor([tokens])).logits[0].numpy()
            exact = model.double()(input_ids=torch.tensor([tokens])).logits[0].float().numpy()
            model.float()
        print(f"{name}: {len(tokens)} tokens; the likeliest next: "
              + ", ".join(f"{t} {reference[-1][t]:.3f}" for t in np.argsort(-reference[-1])[:5]))
        own = float(np.abs(reference - exact).max() / np.ptp(reference))
        print(f"  transformers in f32 from itself in f64: at most {own:.1e} of the logits' range")
        for what, path, backend, most in (("f32, scalar", arguments.folder, "scalar", 1e-4), ("f32, native", arguments.folder, "native", 1e-4),
                                          ("the file", arguments.gguf, "native", None)):
            with tempfile.NamedTemporaryFile() as out:
                subprocess.run([arguments.logits, path, "--tokens", ",".join(map(str, tokens)), "--out", out.name, "--backend", backend],
                               check=True, stdout=subprocess.DEVNULL)
                found = np.fromfile(out.name, "<f4").reshape(reference.shape)
            largest = float(np.abs(found - reference).max() / np.ptp(reference))
            mean = float(np.sqrt(np.square(found - reference).mean() / np.square(reference).mean()))
            same = float((found.argmax(1) == reference.argmax(1)).mean())
            bad = most is not None and largest > most
            failed |= bad
            print(f"  ple, {what}: at most {largest:.1e} of the range, {mean:.1e} in the mean, the same likeliest token in {same:.1%}"
                  + (f"  <-- more than {most}" if bad else ""))
    for text, tokens in CONTINUED.items():
        written, margins = list(tokens), []
        for _ in range(16):
            with torch.no_grad():
                top = model(input_ids=torch.tensor([written])).logits[0, -1].topk(2)
            written.append(int(top.indices[0]))
            margins.append(float(top.values[0] - top.values[1]))
        print(f"after '{text}': {written[len(tokens):]}; the likeliest token leads by {min(margins):.1f} or more")
    if failed:
        raise SystemExit("different from the reference")


if __name__ == "__main__":
    main()
