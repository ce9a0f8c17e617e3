#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""That a folder which `graft` wrote is what gemma3_ple.py says: it has the original's logits in transformers, all its tensors are used, and
transformers alone refuses it.

  pip install -r requirements.txt
  python3 check_graft.py ../../build/release/examples
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "golden_gemma3"
programs = pathlib.Path(sys.argv[1])

with tempfile.TemporaryDirectory() as folder:
    grafted = pathlib.Path(folder) / "grafted"
    subprocess.run([programs / "graft", DATA / "270m_like", "--out", grafted, "--width", "16"], check=True, stderr=subprocess.DEVNULL)
    try:
        AutoModelForCausalLM.from_pretrained(grafted)
        sys.exit("transformers takes a grafted model for another")
    except ValueError as error:
        assert "gemma3_ple_text" in str(error), error
    import gemma3_ple  # noqa: F401  makes the model known

    model, loading = AutoModelForCausalLM.from_pretrained(grafted, output_loading_info=True, attn_implementation="eager", dtype=torch.float32)
    assert not loading["missing_keys"] - {"lm_head.weight"} and not loading["unexpected_keys"], loading
    original = AutoModelForCausalLM.from_pretrained(DATA / "270m_like", attn_implementation="eager")
    tokens = torch.arange(40)[None] * 37 % original.config.vocab_size
    with torch.no_grad():
        a, b = model(input_ids=tokens).logits, original(input_ids=tokens).logits
        assert torch.equal(a, b), f"the logits differ by {(a - b).abs().max()}"
        for layer in model.model.layers:
            layer.post_per_layer_input_norm.weight.fill_(0)  # as 1
        moved = float((model(input_ids=tokens).logits - b).abs().max())
    assert moved > 0.1, f"PLE does nothing: {moved}"
print("a grafted folder has the original's logits in transformers, which refuses it without gemma3_ple.py")
