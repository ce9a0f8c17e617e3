# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 with Per-Layer Embeddings as Gemma 4 has them, for transformers: what ple's `graft` writes. With this module imported,
AutoModelForCausalLM.from_pretrained loads such folders. Norms multiply by 1 + w, as all of Gemma 3's do.

Into a Gemma 3 of L layers and width d comes a table of width p (hidden_size_per_layer_input). With h0 the scaled token embedding and E the token's row,
as [L, p]:

  e = (norm(Wproj h0 / sqrt(d)) + sqrt(p) E) / sqrt(2)     per_layer_model_projection, per_layer_projection_norm, embed_tokens_per_layer
  h = h + norm(Wout (gelu(Wgate h) * e[l]))                after layer l: per_layer_projection, per_layer_input_gate, post_per_layer_input_norm
"""
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, Gemma3TextModel
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer, Gemma3RMSNorm, Gemma3TextScaledWordEmbedding


class Gemma3PleConfig(Gemma3TextConfig):
    model_type = "gemma3_ple_text"
    hidden_size_per_layer_input: int = 64
    vocab_size_per_layer_input: int = 262144


class Gemma3PleDecoderLayer(Gemma3DecoderLayer):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        d, p = config.hidden_size, config.hidden_size_per_layer_input
        self.per_layer_input_gate = nn.Linear(d, p, bias=False)
        self.per_layer_projection = nn.Linear(p, d, bias=False)
        self.post_per_layer_input_norm = Gemma3RMSNorm(d, eps=config.rms_norm_eps)
        self.per_layer_input = None  # of the pass that runs

    def forward(self, hidden_states, *args, **keys):
        h = super().forward(hidden_states, *args, **keys)
        gated = nn.functional.gelu(self.per_layer_input_gate(h), approximate="tanh") * self.per_layer_input
        return h + self.post_per_layer_input_norm(self.per_layer_projection(gated))


class Gemma3PleTextModel(Gemma3TextModel):
    config_class = Gemma3PleConfig

    def __init__(self, config):
        super().__init__(config)
        d, p, layers = config.hidden_size, config.hidden_size_per_layer_input, config.num_hidden_layers
        self.layers = nn.ModuleList([Gemma3PleDecoderLayer(config, l) for l in range(layers)])
        self.embed_tokens_per_layer = Gemma3TextScaledWordEmbedding(config.vocab_size_per_layer_input, layers * p, config.pad_token_id, embed_scale=p**0.5)
        self.per_layer_model_projection = nn.Linear(d, layers * p, bias=False)
        self.per_layer_projection_norm = Gemma3RMSNorm(p, eps=config.rms_norm_eps)
        self.post_init()

    def project_per_layer_inputs(self, input_ids):
        """[batch, T, layers, p]"""
        shape = *input_ids.shape, self.config.num_hidden_layers, self.config.hidden_size_per_layer_input
        projected = self.per_layer_model_projection(self.embed_tokens(input_ids)) * self.config.hidden_size**-0.5
        projected = self.per_layer_projection_norm(projected.reshape(shape))
        return (projected + self.embed_tokens_per_layer(input_ids).reshape(shape)) * 2**-0.5

    def forward(self, input_ids=None, inputs_embeds=None, **keys):
        assert input_ids is not None, "without token ids there are no rows of the PLE table"
        for layer, e in zip(self.layers, self.project_per_layer_inputs(input_ids).unbind(-2)):
            layer.per_layer_input = e
        return super().forward(input_ids=input_ids, **keys)


class Gemma3PleForCausalLM(Gemma3ForCausalLM):
    config_class = Gemma3PleConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Gemma3PleTextModel(config)
        self.post_init()


AutoConfig.register("gemma3_ple_text", Gemma3PleConfig)
AutoModelForCausalLM.register(Gemma3PleConfig, Gemma3PleForCausalLM)
