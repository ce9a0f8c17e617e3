#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adapters that ple wrote must load in PEFT without a warning, and give the logits of the adapters that they were read from.

  pip install -r requirements.txt peft==0.21.2 && pip install transformers==5.24.0
  python3 check_adapters_out.py --tests ../../build/release/tests/ple_tests --merge ../../build/release/examples/merge

ple_tests writes every golden adapter anew. Logits: to 1e-5 of their range of those in the golden folder, since A, B and rows are the same numbers,
but for the scale, which ple multiplies into B. With --merge, what that program writes must also be what merge_and_unload() of PEFT gives: the
tensors to a rounding, in their type, of their largest number, the logits to 1e-5 of their range.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
ADAPTERS = DATA / "golden_adapters"


def base_of(folder):
    return (folder.parent / json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]).resolve()


def load(base):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()


def distance(logits, expected):
    return float((logits - expected).abs().max() / (expected.max() - expected.min()))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", required=True, help="ple_tests")
    parser.add_argument("--merge", help="the example program")
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        out = pathlib.Path(temporary)
        subprocess.run([options.tests, "--test-case=every golden adapter*", "--minimal"], check=True, env=os.environ | {"PLE_ADAPTERS_OUT": str(out)})
        names = sorted(path.name for path in ADAPTERS.iterdir())
        if not names or sorted(path.name for path in out.iterdir()) != names:
            sys.exit(f"ple_tests wrote {sorted(path.name for path in out.iterdir())}, expected {names}")
        for name in names:
            base = base_of(ADAPTERS / name)
            expected = load_file(ADAPTERS / name / "expected.safetensors")["logits"]
            tokens = load_file(base / "expected.safetensors")["tokens"].long()[None]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = PeftModel.from_pretrained(load(base), out / name).eval()
            # Of the keys: the rest is about training, such as tied embeddings.
            said = [str(w.message) for w in caught if "key" in str(w.message).lower()]
            far = distance(model(input_ids=tokens).logits[0], expected)
            good = far <= 1e-5 and not said
            text = f"{name}: logits {far:.1e} of their range away"
            if options.merge:
                merged = out / (name + ".merged")
                done = subprocess.run([options.merge, base, out / name, "--out", merged], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{name}: {done.stderr}")
                ours, theirs, plain = load(merged), model.merge_and_unload(), load(base)
                theirs, ours, plain = theirs.state_dict(), ours.state_dict(), plain.state_dict()
                stored = load_file(merged / "model.safetensors")
                changed = [key for key in plain if not torch.equal(plain[key], ours[key])]
                off = 0
                for key in ours:
                    dtype = next((stored[k].dtype for k in (key, "model." + key) if k in stored), torch.float32)
                    off = max(off, float(((ours[key] - theirs[key].float()).abs() / theirs[key].float().abs().max().clamp(min=1e-30)).max()) / torch.finfo(dtype).eps)
                far = distance(load(merged)(input_ids=tokens).logits[0], expected)
                limit = 1e-5 if all(t.dtype == torch.float32 for t in stored.values()) else 3e-2
                good &= off <= 1 and far <= limit and len(changed) > 0
                text += f"; merged: {len(changed)} tensors, at most {off:.2f} roundings off, logits {far:.1e} away"
            print(text + ("" if good else "  FAILED") + "".join(f"\n  {line}" for line in said))
            failures += not good
    sys.exit(f"{failures} failed" if failures else 0)


if __name__ == "__main__":
    main()
