// The shapes that LLM-Pruner publishes [Ma et al. 2023, arXiv:2305.11627, sec. 4.1; its code for Llama-3 and TinyLlama], from models without
// weights: what its rule takes from which blocks, and the exact number of parameters that is left.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ir/cost.h"
#include "ir/model.h"
#include "ir/plan.h"

namespace slmc::pruning {
namespace {

struct Shape {
  const char* name;
  std::int64_t hidden, ffn, blocks, heads, kv, vocab;
  std::int64_t first, last;        // pruned blocks, both included
  double ratio;
  std::int64_t ffn_after, kv_after, before, after;
};

// `kv` of a model without shared groups is its heads: LLM-Pruner's root there is attn.q, else attn.k.
const Shape kShapes[] = {
    {"LLaMA-7B 20 %", 4096, 11008, 32, 32, 32, 32000, 4, 29, .25, 8256, 24, 6'738'415'616, 5'422'977'024},
    {"LLaMA-7B 50 %", 4096, 11008, 32, 32, 32, 32000, 3, 30, .6, 4403, 13, 6'738'415'616, 3'350'188'032},
    {"Llama-3-8B", 4096, 14336, 32, 32, 8, 128256, 4, 29, .25, 10752, 6, 8'030'261'248, 6'612'586'496},
    {"TinyLlama", 2048, 5632, 22, 32, 4, 32000, 4, 17, .25, 4224, 3, 1'100'048'384, 945'907'712},
};

ir::Model model_of(const Shape& s) {
  return ir::shape_only({{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_act", "silu"}, {"hidden_size", s.hidden},
                         {"intermediate_size", s.ffn}, {"num_hidden_layers", s.blocks}, {"num_attention_heads", s.heads},
                         {"num_key_value_heads", s.kv}, {"vocab_size", s.vocab}, {"max_position_embeddings", 2048}, {"rms_norm_eps", 1e-6},
                         {"tie_word_embeddings", false}, {"attention_bias", false}, {"mlp_bias", false}, {"rope_theta", 10000.0},
                         {"torch_dtype", "float16"}});
}

// Its count: n_pruned = size - int(size (1 - ratio)) rows, then whole heads of `head` rows, rounded down.
std::int64_t left(std::int64_t structures, std::int64_t head, double ratio) {
  const std::int64_t rows = structures * head;
  return structures - (rows - static_cast<std::int64_t>(static_cast<double>(rows) * (1 - ratio))) / head;
}

std::vector<std::int64_t> first_of(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(i);
  return out;
}

TEST(LlmPruner, PublishedShapesHaveTheirExactCounts) {
  for (const Shape& s : kShapes) {
    const ir::Model model = model_of(s);
    EXPECT_EQ(ir::cost(model).parameters, s.before) << s.name;
    EXPECT_EQ(left(s.ffn, 1, s.ratio), s.ffn_after) << s.name;
    EXPECT_EQ(left(s.kv, s.hidden / s.heads, s.ratio), s.kv_after) << s.name;
    ir::Plan plan(model);
    for (std::int64_t b = s.first; b <= s.last; ++b) {
      plan.take["block." + std::to_string(b) + ".ffn"] = first_of(s.ffn_after);
      plan.take["block." + std::to_string(b) + ".kv"] = first_of(s.kv_after);
    }
    const ir::Verdict verdict = ir::check(plan, model);
    EXPECT_TRUE(verdict.ok()) << s.name;
    EXPECT_FALSE(verdict.fits("hf")) << s.name;          // its blocks differ: LLM-Pruner itself saves a pickled module
    const ir::Model out = ir::apply(plan, model);
    EXPECT_EQ(ir::cost(out).parameters, s.after) << s.name;
    EXPECT_EQ(out.find("block.4.attn.o")->shape, (std::vector<std::int64_t>{s.hidden, s.kv_after * s.hidden / s.kv})) << s.name;
    EXPECT_EQ(out.find("block.0.attn.o")->shape, (std::vector<std::int64_t>{s.hidden, s.hidden})) << s.name;
  }
}

}  // namespace
}  // namespace slmc::pruning
