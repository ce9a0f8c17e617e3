#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden data of the tests of ple/train: gradients and short optimiser runs of small random models with adapters, computed by torch, transformers
and PEFT in f64 throughout. Most of the models are those that make_golden.py and make_golden_gemma3.py wrote; the others are made here.

  pip install -r requirements.txt peft==0.21.2
  python3 make_golden_gradients.py      # writes ../data/golden_gradients

Each folder is a case:

  case.json             "base": the model's folder, from the case's folder; "runs": for each run its settings, below
  base                  the model, if it was made here
  adapter               an adapter (LoRA, r 4, alpha 8) of the seven linear layers and of PLE's, as PEFT saves it. All gradients are of the model with it.
  expected.safetensors  tokens.0, counts.0, tokens.1, counts.1: two texts, and 1 where a token counts. A text's first token never does.
                        loss [1]: mean over the counted tokens of both texts together of the cross-entropy of token i given tokens 0 .. i - 1
                        gradient.NAME: of the norms' weights, PLE's linear layers' (NAME as in the checkpoint, from "layers.", "norm." or
                        "per_layer_" on); gradient.MODULE.lora_A [r, in] and .lora_B [out, r]: of the adapter's A and B, with the scale (alpha / r) not in them
                        rows [n]: the distinct tokens of both texts, ascending; gradient.rows [n, layers * p]: of the PLE table's rows as stored,
                        before the scale sqrt(p)
  run_NAME.safetensors  losses [50]: before each update; norms [50]: the whole gradient's before clipping; final_loss [1]: after the last update
  run_lora_start        the adapter that all runs of the case start from: A random, B 0

A run takes both texts as one batch in each of its steps. "lora" trains A and B; "all" also the PLE rows of the batch, the norms, and each layer's PLE gate
and output. AdamW (torch.optim.AdamW) with betas 0.9, 0.999, eps 1e-8, the run's decay, and clip_grad_norm_ over everything trained with the run's limit.
The rate (rate_rows for PLE rows) of step t, from 0, is multiplied by (t + 1) / warmup while t < warmup, then by
0.5 * (1 + cos(pi * (t - warmup) / (steps - warmup))).

Token 0 is in no text: torch's embeddings have padding_idx 0, so that PLE's row 0 would have no gradient. The gradient of a row whose token is only
after the last counted tokens is 0. The script checks entries of each kind of tensor by finite differences.
"""
import contextlib
import json
import math
import pathlib
import shutil
import sys

import peft
import torch
import torch.nn.functional as functional
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import make_golden
import make_golden_gemma3  # makes gemma3_ple's model known to transformers, too
from make_golden import F, S
from make_golden_adapters import PLE, SEVEN

PINNED = {"torch": "2.13.0", "transformers": "5.24.0", "peft": "0.21.2"}
DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
OUT = DATA / "golden_gradients"
STEPS, WARMUP, RATE = 50, 5, 2e-3
LORA = dict(trains="lora", rate=RATE, decay=0.01)
ALL = dict(trains="all", rate=RATE, rate_rows=1e-2, decay=0.0)
CASES = {  # name -> base (a folder of ../data, or a shape to make), runs
    "e2b_like": ("golden/e2b_like", {"lora": dict(LORA, clip=2.5), "all": dict(ALL, clip=2.5)}),
    "sharing_none": ("golden/sharing_none", {}),
    "dense_31b_like": ("golden/dense_31b_like", {}),
    "window_tiny": ("golden/window_tiny", {}),
    "untied_head": ("golden/untied_head", {}),
    "odd_heads_bf16": ("golden/odd_heads_bf16", {}),
    "one_layer": ((make_golden, dict(layer_types=[F])), {}),
    "gemma3_270m_like": ("golden_gemma3/270m_like", {"lora": dict(LORA, clip=2.5)}),
    "gemma3_27b_like": ("golden_gemma3/27b_like", {}),
    "gemma3_capped": ((make_golden_gemma3, dict(layer_types=[S, F], final_logit_softcapping=5.0)), {}),
    "gemma3_untied_head": ("golden_gemma3/untied_head", {}),
    "gemma3_with_ple": ("golden_gemma3/with_ple", {"all": dict(ALL, rate=5e-4, rate_rows=2e-3, clip=9.0)}),
}


@contextlib.contextmanager
def exactly():
    """No arithmetic in f32: transformers goes through it in norms, RoPE and softmax whatever the model's type is."""
    to_float, softmax = torch.Tensor.float, functional.softmax
    torch.Tensor.float = torch.Tensor.double
    functional.softmax = lambda x, *args, **keys: softmax(x, *args, **(keys | {"dtype": torch.float64}))
    try:
        yield
    finally:
        torch.Tensor.float, functional.softmax = to_float, softmax


def plain(name):
    """A parameter's name without what PEFT and transformers put in front of and around it."""
    name = name.removeprefix("base_model.model.").removeprefix("model.").removeprefix("language_model.")
    return name.replace(".base_layer", "").replace(".default.weight", "")


def is_lora(name):
    return name.endswith(("lora_A", "lora_B"))


def with_gradient(name, w):
    return is_lora(name) or w.ndim == 1 or "per_layer" in name


def trained(what, name, w):
    return is_lora(name) or what == "all" and with_gradient(name, w) and name != "per_layer_model_projection.weight"


def parameters_of(model, chosen):
    """The parameters that `chosen` takes, by plain name; the others are frozen."""
    found = {}
    for name, w in model.named_parameters():
        w.requires_grad_(chosen(plain(name), w))
        if w.requires_grad:
            found[plain(name)] = w
    return found


def draw_texts(vocabulary, generator):
    """Two texts of few tokens, some in both and some repeated in one, with about half of the tokens counted."""
    pool = 1 + torch.randperm(vocabulary - 1, generator=generator)[:14]
    texts = [pool[torch.randint(0, len(pool), (length,), generator=generator)] for length in (21, 9)]
    counts = [torch.zeros(len(text)) for text in texts]
    for count in counts:
        count[1 + torch.randperm(len(count) - 1, generator=generator)[:len(count) // 2]] = 1
    assert set(texts[0].tolist()) & set(texts[1].tolist()) and len(set(texts[0].tolist())) < len(texts[0]) and min(map(min, texts)) > 0
    return texts, counts


def logits_of(model, text):
    return model(input_ids=text[None], use_cache=False, logits_to_keep=torch.arange(len(text))).logits[0]


def loss_of(model, texts, counts):
    """Each text alone, so that there is no padding."""
    total = sum((functional.cross_entropy(logits_of(model, text)[:-1], text[1:], reduction="none") * count[1:]).sum() for text, count in zip(texts, counts))
    return total / sum(count.sum() for count in counts)


def gradients(model, parameters, texts, counts):
    for w in parameters.values():
        w.grad = None
    loss = loss_of(model, texts, counts)
    loss.backward()
    return loss.detach(), {name: w.grad.detach().clone() for name, w in parameters.items()}


@torch.no_grad()
def check_by_differences(model, parameters, found, texts, counts, generator):
    """The largest error, in each tensor's largest entry, of the gradients' largest entry and of one more, one tensor of each kind."""
    kinds = {}
    for name in parameters:
        kinds.setdefault(".".join(p for p in name.split(".") if not p.isdigit()), []).append(name)
    worst = 0.0
    for names in kinds.values():
        name = names[int(torch.randint(0, len(names), (1,), generator=generator))]
        w, g = parameters[name].view(-1), found[name].view(-1)
        where = g.nonzero().view(-1)
        for i in (int(g.abs().argmax()), int(where[torch.randint(0, len(where), (1,), generator=generator)])):
            kept, step, losses = float(w[i]), 1e-4, []
            for k in (-2, -1, 1, 2):
                w[i] = kept + k * step
                losses.append(float(loss_of(model, texts, counts)))
            w[i] = kept
            slope = (losses[0] - 8 * losses[1] + 8 * losses[2] - losses[3]) / (12 * step)
            worst = max(worst, abs(slope - float(g[i])) / float(g.abs().max()))
    return worst


@torch.no_grad()
def check_base(model, base):
    """Weights of 1 would hide that they are left out; and the base as it was opened computes the logits of its golden data, where it has such."""
    assert all(float(w.std()) > 0.02 for w in model.parameters() if w.ndim == 1), base
    assert all(abs(float(b) - 1) > 1e-4 for n, b in model.named_buffers() if n.endswith("layer_scalar")), base
    if (base / "expected.safetensors").exists():
        golden = load_file(base / "expected.safetensors")
        error = float((logits_of(model, golden["tokens"].long()) - golden["logits"]).abs().max() / (golden["logits"].max() - golden["logits"].min()))
        assert error < 5e-5, f"{base} as opened differs from its golden data by {error}"


def adapted(base, start):
    """The base with an adapter, whose A and B are the caller's to fill, or with what training starts from: A random, B 0."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", attn_implementation="eager")
    names = {n.rpartition(".")[2] for n, _ in model.named_modules()}
    targets = [t for t in SEVEN + PLE if t in names]
    return get_peft_model(model.float(), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, init_lora_weights=start)).eval()


def save_adapter(model, folder, base):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base}
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps them in a set
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def train(model, settings, texts, counts):
    """The losses before each update, the gradients' norms, and the loss after the last update."""
    parameters = parameters_of(model, lambda name, w: trained(settings["trains"], name, w))
    table = parameters.get("embed_tokens_per_layer.weight")
    untouched = None if table is None else [i for i in range(len(table)) if i not in torch.cat(texts)]
    before = None if table is None else table.detach()[untouched].clone()
    groups = [{"params": [w for w in parameters.values() if w is not table], "rate": settings["rate"]}]
    if table is not None:
        groups.append({"params": [table], "rate": settings["rate_rows"]})
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=settings["decay"])
    losses, norms = [], []
    for t in range(STEPS):
        multiplier = (t + 1) / WARMUP if t < WARMUP else 0.5 * (1 + math.cos(math.pi * (t - WARMUP) / (STEPS - WARMUP)))
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * multiplier
        losses.append(gradients(model, parameters, texts, counts)[0])
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clip"]))
        optimizer.step()
    if table is not None:
        assert torch.equal(table.detach()[untouched], before), "rows of no text of the batch have moved"
    with torch.no_grad():
        return torch.stack(losses), torch.stack(norms), loss_of(model, texts, counts)[None]


def run_case(name, base, runs, generator, seed):
    folder = OUT / name
    folder.mkdir(parents=True)
    if isinstance(base, str):
        path, relative = DATA / base, f"../../{base}"
    else:
        path, relative = folder / "base", "base"
        base[0].build(base[1], generator)[0].save_pretrained(path)
    torch.manual_seed(seed)
    model = adapted(path, False)
    with model.disable_adapter():
        check_base(model, path)
    texts, counts = draw_texts(model.config.get_text_config().vocab_size, generator)
    with torch.no_grad(), model.disable_adapter():
        before = logits_of(model, texts[0])
    with torch.no_grad():
        for parameter, w in model.named_parameters():
            if ".lora_" in parameter:
                w.copy_(torch.randn(w.shape, generator=generator) * 0.3 * w.shape[1] ** -0.5)
        moved = float((logits_of(model, texts[0]) - before).abs().max() / (before.max() - before.min()))
    assert 0.01 < moved < 0.6, f"{name}: the adapter moves the logits by {moved} of their range"
    save_adapter(model, folder / "adapter", relative)

    single_loss, single = gradients(model, parameters_of(model, with_gradient), texts, counts)
    model.double()
    parameters = parameters_of(model, with_gradient)
    with exactly():
        loss, found = gradients(model, parameters, texts, counts)
        assert loss.dtype == torch.float64
        by_differences = check_by_differences(model, parameters, found, texts, counts, generator)
    assert by_differences < 1e-7, f"{name}: gradients differ from finite differences by {by_differences}"
    errors = {n: float((single[n] - g).abs().max() / g.abs().max()) for n, g in found.items()}

    expected = {"loss": loss[None]}
    for i, (text, count) in enumerate(zip(texts, counts)):
        expected |= {f"tokens.{i}": text, f"counts.{i}": count}
    if "embed_tokens_per_layer.weight" in found:
        table = found.pop("embed_tokens_per_layer.weight")
        rows = torch.cat(texts).unique()
        assert set(table.abs().sum(1).nonzero().view(-1).tolist()) <= set(rows.tolist())
        expected |= {"rows": rows, "gradient.rows": table[rows]}
    expected |= {f"gradient.{n}": g for n, g in found.items()}
    save_file({n: v.float().contiguous() for n, v in expected.items()}, folder / "expected.safetensors")

    made = {}
    for run, settings in runs.items():
        torch.manual_seed(seed)
        model = adapted(path, True)
        if not (folder / "run_lora_start").exists():
            save_adapter(model, folder / "run_lora_start", relative)
        in_single = train(model, settings, texts, counts)
        torch.manual_seed(seed)
        with exactly():
            losses, norms, final = train(adapted(path, True).double(), settings, texts, counts)
        clipped = int((norms > settings["clip"]).sum())
        assert 5 <= clipped <= STEPS - 5, f"{name}, {run}: {clipped} steps are clipped; norms from {norms.min()} to {norms.max()}"
        assert final < 0.6 * losses[0], f"{name}, {run}: the loss went from {losses[0]} to {float(final)} only"
        save_file({"losses": losses.float(), "norms": norms.float(), "final_loss": final.float()}, folder / f"run_{run}.safetensors")
        made[run] = settings | {"steps": STEPS, "warmup": WARMUP}
        off = max(float((a - b).abs().max()) for a, b in zip(in_single[::2], (losses, final)))
        print(f"{name}, {run}: loss {float(losses[0]):.4f} to {float(final):.4f}, norms {float(norms.min()):.2f} to {float(norms.max()):.2f}, {clipped} steps "
              f"clipped; torch in f32: losses off by {off:.1e}, norms by {float(((in_single[1] - norms) / norms).abs().max()):.1e} of them")
    (folder / "case.json").write_text(json.dumps({"base": relative, "runs": made}, indent=2) + "\n")

    worst = max(errors, key=errors.get)
    smallest = min(found, key=lambda n: float(found[n].abs().max()))
    largest = max(float(g.abs().max()) for g in found.values())
    row = (f"| {name} | {relative} | {len(found)} | {float(loss):.4f} | {moved:.2f} | {by_differences:.0e} | {abs(float(single_loss) - float(loss)):.0e} | "
           f"{sorted(errors.values())[len(errors) // 2]:.0e} | {errors[worst]:.0e} ({worst}) | {', '.join(runs)} |")
    print(f"{row} largest entries from {float(found[smallest].abs().max()):.1e} ({smallest}) to {largest:.1e}", flush=True)
    return row


def main():
    for name, version in PINNED.items():
        found = sys.modules[name].__version__.split("+")[0]
        if found != version:
            sys.exit(f"{name} is {found}, the golden data are made with {version}")
    torch.set_num_threads(1)  # sums in one order
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(OUT, ignore_errors=True)
    rows = [run_case(name, base, runs, torch.Generator().manual_seed(seed), seed) for seed, (name, (base, runs)) in enumerate(CASES.items())]
    size = sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file())
    (OUT / "README.md").write_text(
        "# Golden data\n\nGradients and optimiser runs, computed in f64. Written by `tests/reference/make_golden_gradients.py`, which says what each file "
        "holds, with " + ", ".join(f"{k} {v}" for k, v in PINNED.items()) + f"; {size / 1e6:.1f} MB.\n\n"
        "Errors of gradients are each tensor's largest difference in its largest entry. \"f32\" is torch's own error in f32: of the loss, of the median "
        "tensor, of the worst.\n\n"
        "| case | base | gradients | loss | adapter moves the logits by | finite differences | f32: loss | f32: median | f32: worst | runs |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    print(f"{len(rows)} cases, {size / 1e6:.1f} MB in {OUT}")


if __name__ == "__main__":
    main()
