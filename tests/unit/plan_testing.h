#pragma once
// Tiny models of each family for the tests of plans, every value its own number.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "ir/plan.h"

namespace slmc::testing_plan {

using namespace ir;

inline Json json(const std::string& text) { return parse_json(text, "test", ErrorKind::Model); }

inline const std::vector<std::string>& tiny_configs() {
  static const std::vector<std::string> all = {
      R"({"model_type": "llama", "hidden_size": 12, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 7, "num_hidden_layers": 3,
          "vocab_size": 11, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true})",
      R"({"model_type": "mistral", "hidden_size": 12, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 7, "num_hidden_layers": 2, "vocab_size": 11,
          "max_position_embeddings": 32, "sliding_window": 5})",
      R"({"model_type": "qwen2", "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 7, "num_hidden_layers": 3, "vocab_size": 11,
          "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1, "max_position_embeddings": 32})",
      R"({"model_type": "qwen3", "hidden_size": 18, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10, "intermediate_size": 7, "num_hidden_layers": 2, "vocab_size": 11})",
      R"({"model_type": "gpt2", "n_embd": 15, "n_head": 3, "n_layer": 2, "n_positions": 13, "vocab_size": 11, "n_inner": 7})",
      R"({"model_type": "gpt_neox", "hidden_size": 30, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": 11, "intermediate_size": 7, "rotary_pct": 0.4})",
      R"({"model_type": "phi3", "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 11, "intermediate_size": 7,
          "partial_rotary_factor": 0.75, "max_position_embeddings": 32})"};
  return all;
}

// Every value is its own number: tensor * 1e6 + index, exact in fp64.
inline Model numbered(const std::string& config) {
  auto next = std::make_shared<std::map<std::string, double>>();
  return with_weights(json(config), [next](const TensorSpec& spec) {
    const double start = next->emplace(spec.name, static_cast<double>(next->size() + 1) * 1e6).first->second;
    std::int64_t n = 1;
    for (const std::int64_t s : spec.shape) n *= s;
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * 8);
    for (std::int64_t i = 0; i < n; ++i) {
      const double v = start + static_cast<double>(i);
      std::memcpy(bytes.data() + i * 8, &v, 8);
    }
    return io::TensorData::dense(spec.shape, DType::F64, std::move(bytes));
  });
}

inline std::vector<double> doubles(const io::TensorData& data) {
  std::vector<double> v(static_cast<std::size_t>(data.count()));
  if (data.dtype == DType::F64)
    std::memcpy(v.data(), data.bytes.data(), v.size() * 8);
  else {
    const std::vector<float> f = data.to_floats();
    std::copy(f.begin(), f.end(), v.begin());
  }
  return v;
}

inline std::vector<std::int64_t> upto(std::int64_t n) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

}  // namespace slmc::testing_plan
