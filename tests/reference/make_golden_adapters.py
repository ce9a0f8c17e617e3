#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of tests/model/adapter_test.cpp: random adapters (LoRA, and trained rows of the PLE table) of the random models that make_golden.py and make_golden_gemma3.py wrote,
saved by PEFT, with the logits that transformers and PEFT compute, in f32, of the base's golden text.

  pip install -r requirements.txt peft==0.21.2 && pip install transformers==5.24.0
  python3 make_golden_adapters.py             # writes ../data/golden_adapters
  python3 make_golden_adapters.py e2b_rows    # of it, only this case: the others stay as they are

An adapter's config names its base by a path beside the folder. Products of an adapter are not merged into the weights.
"""
import json
import pathlib
import shutil
import sys

import peft
import torch
from peft import LoraConfig, TrainableTokensConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

PINNED = {"peft": "0.21.2"}
DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "golden_adapters"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SEVEN = ATTENTION + ["gate_proj", "up_proj", "down_proj"]
PLE = ["per_layer_input_gate", "per_layer_projection", "per_layer_model_projection"]
TABLE = "embed_tokens_per_layer"
E2B_IDS = [182, 129, 202, 9, 165, 73, 161, 14, 60, 3]
NESTED_IDS = [85, 14, 56, 130, 36, 4]
CASES = {  # name -> base, what LoraConfig gets, type of the file
    "e2b_all_linear": ("golden/e2b_like", dict(r=4, lora_alpha=8, target_modules=SEVEN + PLE), None),
    "e2b_second": ("golden/e2b_like", dict(r=3, lora_alpha=3, target_modules=SEVEN), None),
    "e2b_patterns": ("golden/e2b_like", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ATTENTION + PLE[:1], layers_to_transform=[0, 2, 3],
                                             rank_pattern={"layers.2.self_attn.q_proj": 2, "q_proj": 5},
                                             alpha_pattern={"^model.layers.0.self_attn.o_proj": 11.5, "o_proj": 2}), torch.bfloat16),
    "nested": ("golden/nested", dict(r=4, lora_alpha=4, target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|per_layer_projection)"), None),
    "dense_31b": ("golden/dense_31b_like", dict(r=2, lora_alpha=2, target_modules=SEVEN), torch.float16),
    "gemma3": ("golden_gemma3/270m_like", dict(r=8, lora_alpha=8, target_modules=SEVEN), None),
    # Ids in no order; most of them are in the base's golden text, 202 is the last row.
    "e2b_lora_rows": ("golden/e2b_like", dict(r=4, lora_alpha=8, target_modules=["q_proj", "per_layer_projection"], trainable_token_indices={TABLE: E2B_IDS}),
                      None),
    "e2b_rows": ("golden/e2b_like", dict(token_indices=E2B_IDS, target_modules=[TABLE]), None),
    "nested_rows": ("golden/nested", dict(token_indices=NESTED_IDS, target_modules=[TABLE]), torch.bfloat16),
}


@torch.no_grad()
def main():
    if peft.__version__ != PINNED["peft"]:
        sys.exit(f"peft is {peft.__version__}, the golden data are made with {PINNED['peft']}")
    wanted = sys.argv[1:] or list(CASES)
    if unknown := set(wanted) - set(CASES):
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if wanted == list(CASES):
        shutil.rmtree(OUT, ignore_errors=True)
    for seed, (name, (base, keys, dtype)) in enumerate(CASES.items()):
        if name not in wanted:
            continue
        torch.manual_seed(seed)
        tokens = load_file(DATA / base / "expected.safetensors")["tokens"].long()[None]
        model = AutoModelForCausalLM.from_pretrained(DATA / base, dtype=torch.float32, attn_implementation="eager")
        before = model(input_ids=tokens).logits[0]
        config = TrainableTokensConfig(**keys) if "token_indices" in keys else LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **keys)
        model = get_peft_model(model, config).eval()
        for parameter_name, w in model.named_parameters():
            if ".trainable_tokens_delta" in parameter_name:
                w.copy_(torch.randn(w.shape) * w.std())  # the new rows, whatever their name says
            elif ".lora_" in parameter_name:
                w.copy_(torch.randn(w.shape) * 0.3 * w.shape[1] ** -0.5)
            else:
                continue
            if dtype:
                w.copy_(w.to(dtype))
        logits = model(input_ids=tokens).logits[0]
        moved = float((logits - before).abs().max() / (before.max() - before.min()))
        assert moved > 0.01, f"{name}: the adapter moves the logits by {moved} of their range only"
        model.save_pretrained(OUT / name)
        (OUT / name / "README.md").unlink(missing_ok=True)
        config = OUT / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": f"../{base}"}, indent=2, sort_keys=True) + "\n")
        if dtype:
            file = OUT / name / "adapter_model.safetensors"
            save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
        save_file({"logits": logits.contiguous().float()}, OUT / name / "expected.safetensors")
        print(f"{name}: {sum(p.numel() for p in load_file(OUT / name / 'adapter_model.safetensors').values())} numbers, moves the logits by {moved:.2f} of their range")


if __name__ == "__main__":
    main()
