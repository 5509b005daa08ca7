#pragma once
// Small random models with the real standard deviations of llama layers, windows of random ids, and events that are kept.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/rng.h"
#include "ir/model.h"
#include "stage/job.h"

namespace slmc::testing_methods {

struct SilentEvents : stage::Events {
  std::vector<std::string> notes, warnings;
  void emit(const Json& event) override {
    if (event["event"] == "note") notes.push_back(event["text"]);
    if (event["event"] == "warning") warnings.push_back(event["text"]);
  }
};

inline at::Tensor random_tensor(std::int64_t rows, std::int64_t columns, std::uint64_t seed, double size = 1) {
  const Rng rng(seed);
  at::Tensor t = at::empty({rows, columns}, at::kFloat);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.mutable_data_ptr<float>()[i] = static_cast<float>(size * rng.normal(static_cast<std::uint64_t>(i)));
  return t;
}

struct ModelSpec {
  std::int64_t hidden = 32, blocks = 2, kv = 2, q = 2, head = 8, ffn = 64, vocab = 61;
  bool twin_channels = false;      // channels 2i and 2i+1 have the same activations; the second one adds little
  std::int64_t dead_hidden = 0;    // so many last channels of the stream are always zero
  double block_size = 1;           // scales what every block adds to the stream
};

inline ir::Model random_model(const ModelSpec& m) {
  const Json config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_act", "silu"}, {"hidden_size", m.hidden},
                       {"intermediate_size", m.ffn}, {"num_hidden_layers", m.blocks}, {"num_attention_heads", m.kv * m.q},
                       {"num_key_value_heads", m.kv}, {"head_dim", m.head}, {"vocab_size", m.vocab}, {"max_position_embeddings", 128},
                       {"rms_norm_eps", 1e-5}, {"tie_word_embeddings", true}, {"attention_bias", false}, {"mlp_bias", false},
                       {"rope_theta", 10000.0}, {"torch_dtype", "float32"}};
  return ir::with_weights(config, [m](const ir::TensorSpec& spec) {
    std::int64_t count = 1;
    for (const std::int64_t s : spec.shape) count *= s;
    const Rng rng(derive_seed(7, spec.name));
    const bool norm = spec.shape.size() == 1, out = spec.name.ends_with(".attn.o") || spec.name.ends_with(".ffn.down");
    const double size = norm ? 0.1 : (out ? m.block_size : 1.0) / std::sqrt(static_cast<double>(spec.shape.back()));
    std::vector<float> v(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) v[i] = static_cast<float>((norm ? 1.0 : 0.0) + size * rng.normal(static_cast<std::uint64_t>(i)));
    if (m.twin_channels && (spec.name.ends_with(".ffn.gate") || spec.name.ends_with(".ffn.up"))) {
      for (std::int64_t i = 0; i < count; ++i) {
        if (i / m.hidden % 2 == 1) v[i] = v[i - m.hidden];
      }
    }
    if (m.twin_channels && spec.name.ends_with(".ffn.down")) {
      for (std::int64_t i = 1; i < count; i += 2) v[i] *= 0.1f;
    }
    const auto zero_rows = [&](std::int64_t rows, std::int64_t of, std::int64_t length) {
      for (std::int64_t i = (of - rows) * length; i < of * length; ++i) v[i] = 0;
    };
    if (out) zero_rows(m.dead_hidden, m.hidden, spec.shape.back());
    if (spec.name == "embed") {
      for (std::int64_t i = 0; i < count; ++i) {
        if (i % m.hidden >= m.hidden - m.dead_hidden) v[i] = 0;
      }
    }
    return io::TensorData::floats(spec.shape, v);
  });
}

inline at::Tensor random_windows(const ir::Model& model, std::int64_t n, std::int64_t seq, std::uint64_t seed) {
  const Rng rng(seed);
  at::Tensor ids = at::empty({n, seq}, at::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.mutable_data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(model.sizes().vocab), static_cast<std::uint64_t>(i)));
  }
  return ids;
}

}  // namespace slmc::testing_methods
