// Templates on shapes: counts of public models, and that each container stores each element of each logical
// tensor exactly once.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "ir/cost.h"
#include "ir/layout.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

struct PublicModel {
  const char* name;
  std::int64_t parameters;
  const char* config;  // the values of the public config.json that say shapes
};

const std::vector<PublicModel>& public_models() {
  static const std::vector<PublicModel> all = {
      {"SmolLM2-135M", 134'515'008,
       R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0,
        "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
        "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
        "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "vocab_size": 49152})"},
      {"Llama-2-7B", 6'738'415'616,
       R"({"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})"},
      {"Mistral-7B-v0.1", 7'241'732'096,
       R"({"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000})"},
      {"Llama-3.2-1B", 1'235'814'400,
       R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
        "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})"},
      {"Qwen2-0.5B", 494'032'768,
       R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 131072,
        "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})"},
      {"Qwen3-0.6B", 596'049'920,
       R"({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936})"},
      {"GPT-2", 124'439'808,
       R"({"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
        "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024,
        "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257})"},
      {"Pythia-70m", 70'426'624,
       R"({"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "hidden_size": 512,
        "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox",
        "num_attention_heads": 8, "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304})"},
      {"Phi-3-mini-4k", 3'821'079'552,
       R"({"architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu",
        "hidden_size": 3072, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "pad_token_id": 32000,
        "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true, "vocab_size": 32064})"},
      {"OPT-125M", 125'239'296,
       R"({"_remove_final_layer_norm": false, "activation_dropout": 0.0, "activation_function": "relu", "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 3072, "hidden_size": 768,
        "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048, "model_type": "opt", "num_attention_heads": 12, "num_hidden_layers": 12,
        "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": true, "vocab_size": 50272,
        "word_embed_proj_dim": 768})"},
      {"OPT-1.3B", 1'315'758'080,
       R"({"_remove_final_layer_norm": false, "activation_dropout": 0.0, "activation_function": "relu", "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 8192, "hidden_size": 2048,
        "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048, "model_type": "opt", "num_attention_heads": 32, "num_hidden_layers": 24,
        "pad_token_id": 1, "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": true, "vocab_size": 50272,
        "word_embed_proj_dim": 2048})"}};
  return all;
}

Json config_of(const PublicModel& m) { return parse_json(m.config, m.name, ErrorKind::Model); }

// llama.cpp has no OPT, so that family has no GGUF form.
const std::set<std::string> kHfOnly = {"opt"};

bool has_form(const std::string& family, const std::string& container) { return container == "hf" || !kHfOnly.contains(family); }

TEST(Template, FamiliesAndTheirContainers) {
  const auto all = load_templates();
  std::set<std::string> families;
  for (const auto& t : all) {
    families.insert(t->family);
    for (const char* container : {"hf", "gguf"}) EXPECT_EQ(t->containers.contains(container), has_form(t->family, container)) << t->family;
  }
  EXPECT_EQ(families, (std::set<std::string>{"gpt2", "gpt_neox", "llama", "opt", "phi3", "qwen2", "qwen3"}));
  EXPECT_EQ(all.size(), 7u);
}

TEST(Template, ParameterCountsOfPublicModels) {
  for (const PublicModel& m : public_models()) {
    SCOPED_TRACE(m.name);
    EXPECT_EQ(cost(shape_only(config_of(m))).parameters, m.parameters);
  }
}

// Every element of every stored tensor is visited by exactly one part, and every logical element by exactly
// one stored one.
void expect_bijection(const std::vector<StoredTensor>& stored, const std::vector<TensorSpec>& logical) {
  std::map<std::string, std::vector<int>> hits;
  for (const TensorSpec& t : logical) {
    std::int64_t n = 1;
    for (const std::int64_t s : t.shape) n *= s;
    if (!t.derived) hits[t.name].assign(static_cast<std::size_t>(n), 0);
  }
  for (const StoredTensor& s : stored) {
    std::int64_t n = 1;
    for (const std::int64_t d : s.shape) n *= d;
    std::vector<int> own(static_cast<std::size_t>(n), 0);
    for (const Part& part : s.parts)
      for (const Piece& piece : part.pieces) {
        std::vector<std::int64_t> at(piece.loops.size(), 0);
        for (std::int64_t i = 0; i < piece.count(); ++i) {
          std::int64_t from = piece.stored, to = piece.logical;
          for (std::size_t l = 0; l < at.size(); ++l) {
            from += at[l] * piece.loops[l].stored;
            to += at[l] * piece.loops[l].logical;
          }
          ++own.at(static_cast<std::size_t>(from));
          ++hits.at(part.tensor).at(static_cast<std::size_t>(to));
          for (std::size_t l = at.size(); l-- > 0;) {
            if (++at[l] < piece.loops[l].size) break;
            at[l] = 0;
          }
        }
      }
    for (std::size_t i = 0; i < own.size(); ++i) ASSERT_EQ(own[i], 1) << s.name << " element " << i;
  }
  for (const auto& [name, counts] : hits)
    for (std::size_t i = 0; i < counts.size(); ++i) ASSERT_EQ(counts[i], 1) << name << " element " << i;
}

// Tiny configs with every size different, so that a swapped axis can't hide.
const std::vector<std::pair<const char*, const char*>>& tiny_configs() {
  static const std::vector<std::pair<const char*, const char*>> all = {
      {"llama",
       R"({"model_type": "llama", "hidden_size": 15, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 4, "intermediate_size": 7,
        "num_hidden_layers": 2, "vocab_size": 11, "attention_bias": true, "mlp_bias": true})"},
      {"llama grouped",
       R"({"model_type": "llama", "hidden_size": 30, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 7,
        "num_hidden_layers": 2, "vocab_size": 11, "tie_word_embeddings": true})"},
      {"qwen2",
       R"({"model_type": "qwen2", "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 7, "num_hidden_layers": 2, "vocab_size": 11})"},
      {"qwen3",
       R"({"model_type": "qwen3", "hidden_size": 18, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10, "intermediate_size": 7, "num_hidden_layers": 2, "vocab_size": 11})"},
      {"gpt2",
       R"({"model_type": "gpt2", "n_embd": 15, "n_head": 3, "n_layer": 2, "n_positions": 13, "vocab_size": 11, "n_inner": 7})"},
      {"gpt_neox",
       R"({"model_type": "gpt_neox", "hidden_size": 30, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": 11, "intermediate_size": 7, "rotary_pct": 0.4})"},
      {"phi3",
       R"({"model_type": "phi3", "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 11, "intermediate_size": 7,
        "partial_rotary_factor": 0.75})"},
      {"opt",
       R"({"model_type": "opt", "hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2, "vocab_size": 11, "ffn_dim": 7, "max_position_embeddings": 13})"}};
  return all;
}

TEST(Template, StoredTensorsAreABijectionInBothContainers) {
  for (const auto& [name, text] : tiny_configs())
    for (const char* container : {"hf", "gguf"}) {
      SCOPED_TRACE(std::string(name) + " " + container);
      const Model model = shape_only(parse_json(text, name, ErrorKind::Model));
      if (!has_form(model.family(), container)) continue;
      const Fit f =
          fit(facts_of(model.state()), container, std::string(container) == "hf" ? &model.config() : nullptr);
      for (const Violation& v : f.violations) ADD_FAILURE() << v.message;
      ASSERT_FALSE(f.stored.empty());
      expect_bijection(f.stored, model.tensors());
    }
}

// The same for both containers of all public models, on shapes only (by counting, not element by element).
TEST(Template, PublicModelsFitBothContainers) {
  for (const PublicModel& m : public_models())
    for (const char* container : {"hf", "gguf"}) {
      SCOPED_TRACE(std::string(m.name) + " " + container);
      const Json config = config_of(m);
      const Model model = shape_only(config);
      const Fit f =
          fit(facts_of(model.state()), container, std::string(container) == "hf" ? &config : nullptr);
      if (!has_form(model.family(), container)) {
        ASSERT_EQ(f.violations.size(), 1u);
        EXPECT_EQ(f.violations[0].message, "the family 'opt' has no GGUF form");
        EXPECT_FALSE(check(Plan(model), model).fits(container));
        continue;
      }
      if (std::string(m.name) == "Mistral-7B-v0.1" && std::string(container) == "gguf") {
        ASSERT_EQ(f.violations.size(), 1u);  // llama.cpp's llama has no attention window
        EXPECT_EQ(f.violations[0].axis_or_tensor, "window");
        continue;
      }
      for (const Violation& v : f.violations) ADD_FAILURE() << v.message;
      std::int64_t stored = 0;
      for (const StoredTensor& s : f.stored) {
        std::int64_t n = 1;
        for (const std::int64_t d : s.shape) n *= d;
        stored += n;
      }
      EXPECT_EQ(stored, m.parameters);
      EXPECT_EQ(f.fold_q, 1.0);
    }
}

// Names and shapes of stored tensors, against the public files' own.
TEST(Template, StoredShapesOfPublicModels) {
  struct Row {
    int model;
    const char* container;
    const char* tensor;
    std::vector<std::int64_t> shape;
  };
  const std::vector<Row> rows = {{0, "hf", "model.layers.29.self_attn.k_proj.weight", {192, 576}},
                                 {0, "gguf", "blk.29.attn_k.weight", {192, 576}},
                                 {0, "hf", "model.embed_tokens.weight", {49152, 576}},
                                 {4, "hf", "model.layers.3.self_attn.v_proj.bias", {128}},
                                 {5, "hf", "model.layers.0.self_attn.q_norm.weight", {128}},
                                 {5, "gguf", "blk.0.attn_output.weight", {1024, 2048}},
                                 {6, "hf", "transformer.h.0.attn.c_attn.weight", {768, 2304}},
                                 {6, "gguf", "blk.0.attn_qkv.weight", {2304, 768}},
                                 {6, "hf", "transformer.h.11.mlp.c_proj.weight", {3072, 768}},
                                 {6, "gguf", "position_embd.weight", {1024, 768}},
                                 {7, "hf", "gpt_neox.layers.5.attention.query_key_value.weight", {1536, 512}},
                                 {7, "hf", "embed_out.weight", {50304, 512}},
                                 {8, "hf", "model.layers.0.self_attn.qkv_proj.weight", {9216, 3072}},
                                 {8, "gguf", "blk.0.ffn_up.weight", {16384, 3072}}};
  const int smollm = 0, qwen2 = 4;
  ASSERT_STREQ(public_models()[smollm].name, "SmolLM2-135M");
  ASSERT_STREQ(public_models()[qwen2].name, "Qwen2-0.5B");
  for (const Row& row : rows) {
    const Json config = config_of(public_models()[static_cast<std::size_t>(row.model)]);
    const Model model = shape_only(config);
    const Fit f =
        fit(facts_of(model.state()), row.container, std::string(row.container) == "hf" ? &config : nullptr);
    bool found = false;
    for (const StoredTensor& s : f.stored)
      if (s.name == row.tensor) {
        found = true;
        EXPECT_EQ(s.shape, row.shape) << row.tensor;
      }
    EXPECT_TRUE(found) << row.tensor;
  }
}

// Which rows of the file a logical row is, worked by hand.
TEST(Template, RowsOfInterleavedForms) {
  const auto row_of = [](const char* config, const char* container, const std::string& stored_name,
                         const std::string& logical, std::int64_t columns, std::int64_t row) {
    const Model model = shape_only(parse_json(config, "test", ErrorKind::Model));
    const Fit f = fit(facts_of(model.state()), container, nullptr);
    for (const StoredTensor& s : f.stored)
      if (s.name == stored_name)
        for (const Part& part : s.parts)
          if (part.tensor == logical)
            for (const Piece& piece : part.pieces) {
              std::vector<std::int64_t> at(piece.loops.size(), 0);
              for (std::int64_t i = 0; i < piece.count(); ++i) {
                std::int64_t from = piece.stored, to = piece.logical;
                for (std::size_t l = 0; l < at.size(); ++l) {
                  from += at[l] * piece.loops[l].stored;
                  to += at[l] * piece.loops[l].logical;
                }
                if (to == row * columns) return from / columns;
                for (std::size_t l = at.size(); l-- > 0;) {
                  if (++at[l] < piece.loops[l].size) break;
                  at[l] = 0;
                }
              }
            }
    return std::int64_t{-1};
  };
  // llama in GGUF: head of 4 = pairs (0, 2) and (1, 3) of the half-split order, stored next to each other.
  const char* llama =
      R"({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1, "vocab_size": 5})";
  const std::int64_t expected[] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (std::int64_t r = 0; r < 8; ++r)
    EXPECT_EQ(row_of(llama, "gguf", "blk.0.attn_q.weight", "block.0.attn.q", 8, r), expected[r]) << r;
  for (std::int64_t r = 0; r < 8; ++r)
    EXPECT_EQ(row_of(llama, "hf", "model.layers.0.self_attn.q_proj.weight", "block.0.attn.q", 8, r), r);
  // gpt_neox: heads of 4; the file has q0 k0 v0 q1 k1 v1 in Hugging Face, q0 q1 k0 k1 v0 v1 in GGUF.
  const char* neox =
      R"({"model_type": "gpt_neox", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1, "vocab_size": 5, "rotary_pct": 0.5})";
  const std::string fused = "gpt_neox.layers.0.attention.query_key_value.weight";
  EXPECT_EQ(row_of(neox, "hf", fused, "block.0.attn.q", 8, 4), 12);
  EXPECT_EQ(row_of(neox, "hf", fused, "block.0.attn.k", 8, 1), 5);
  EXPECT_EQ(row_of(neox, "hf", fused, "block.0.attn.v", 8, 7), 23);
  EXPECT_EQ(row_of(neox, "gguf", "blk.0.attn_qkv.weight", "block.0.attn.q", 8, 4), 4);
  EXPECT_EQ(row_of(neox, "gguf", "blk.0.attn_qkv.weight", "block.0.attn.k", 8, 1), 9);
  EXPECT_EQ(row_of(neox, "gguf", "blk.0.attn_qkv.weight", "block.0.attn.v", 8, 7), 23);
}

TEST(Resolve, OptionsOfPublicModels) {
  const Model smol = shape_only(config_of(public_models()[0]));
  EXPECT_EQ(smol.decoder().norm, Norm::Rms);
  EXPECT_EQ(smol.decoder().norm_eps, 1e-5);
  EXPECT_EQ(smol.decoder().attn_scale, 0.125);
  EXPECT_TRUE(smol.decoder().tied_head);
  EXPECT_FALSE(smol.has("head"));
  EXPECT_EQ(smol.sizes().blocks[7], (BlockSizes{3, 3, 32, 0, 64, 1536}));
  EXPECT_FALSE(smol.decoder().window);
  const Model mistral = shape_only(config_of(public_models()[2]));
  EXPECT_EQ(mistral.decoder().window, 4096);
  EXPECT_EQ(mistral.decoder().window_blocks, std::vector<bool>(32, true));
  const Model gpt2 = shape_only(config_of(public_models()[6]));
  EXPECT_EQ(gpt2.decoder().norm, Norm::Layer);
  EXPECT_EQ(gpt2.decoder().activation, Activation::GeluTanh);
  EXPECT_FALSE(gpt2.decoder().gated);
  EXPECT_EQ(gpt2.sizes().pos, 1024);
  EXPECT_EQ(gpt2.sizes().blocks[0], (BlockSizes{12, 1, 0, 64, 64, 3072}));
  EXPECT_FALSE(gpt2.has("block.0.attn.rope"));
  const Model pythia = shape_only(config_of(public_models()[7]));
  EXPECT_TRUE(pythia.decoder().parallel_residual);
  EXPECT_EQ(pythia.sizes().blocks[0], (BlockSizes{8, 1, 8, 48, 64, 2048}));
  const Model phi3 = shape_only(config_of(public_models()[8]));
  EXPECT_EQ(phi3.decoder().window, 2047);
  EXPECT_FALSE(phi3.decoder().tied_head);
}

TEST(Resolve, UnknownKeysAndKindsAreRefusedByName) {
  const auto refused = [](const std::string& more, const std::string& word) {
    Json config = parse_json(
        R"({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1, "vocab_size": 5})",
        "t", ErrorKind::Model);
    config.update(parse_json(more, "t", ErrorKind::Model));
    try {
      shape_only(config);
      ADD_FAILURE() << more << " was accepted";
    } catch (const Error& e) {
      EXPECT_NE(e.text().find(word), std::string::npos) << e.text();
    }
  };
  refused(R"({"attn_logit_softcapping": 50.0})", "attn_logit_softcapping");
  refused(R"({"embedding_multiplier": 12})", "embedding_multiplier");
  refused(R"({"quantization_config": {"quant_method": "gptq"}})", "quantization_config");
  refused(R"({"hidden_act": "mish"})", "mish");
  refused(R"({"rope_scaling": {"type": "yarn", "factor": 4.0}})", "yarn");
  refused(R"({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}})", "longrope");
  refused(R"({"rope_scaling": {"rope_type": "linear", "factor": 4.0, "beta_fast": 32}})", "beta_fast");
  refused(R"({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}})", "low_freq_factor");
  for (const char* original : {"1e300", "0.5", "8192.5", "9223372036854775807"})
    refused(std::string(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": )") +
                original + "}}",
            "must be a whole number from 1 to 100000000");
  refused(R"({"num_attention_heads": 3})", "head_dim");
  refused(R"({"hidden_size": -8})", "hidden");
  refused(R"({"hidden_size": "8"})", "hidden");
  refused(R"({"num_hidden_layers": 10000000})", "1000 blocks");
  refused(R"({"rms_norm_eps": 0})", "norm_eps");
  refused(R"({"model_type": "lama"})", "did you mean 'llama'");
  refused(R"({"vocab_size": null})", "vocab");
}

TEST(Expr, NegativesOfTheLargestIntegers) {
  for (const char* text : {"-9223372036854775808", "9223372036854775807", "18446744073709551615", "-7", "0"}) {
    const Json value = parse_json(text, "t", ErrorKind::Model);
    Scope scope;
    scope.key = [&](std::string_view) { return &value; };
    EXPECT_EQ(Expr::parse("-.x", "t").evaluate(scope).get<double>(), -value.get<double>()) << text;
  }
}

TEST(Resolve, OldAndNewRotaryKeysAgree) {
  const auto load = [](const std::string& more) {
    Json config = parse_json(
        R"({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1, "vocab_size": 5,
                                 "max_position_embeddings": 4096})",
        "t", ErrorKind::Model);
    config.update(parse_json(more, "t", ErrorKind::Model));
    return shape_only(config).state().ropes[0];
  };
  EXPECT_EQ(load(R"({"rope_theta": 5e5})"),
            load(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})"));
  EXPECT_EQ(load(R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})"),
            load(R"({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 5e5}})"));
  EXPECT_EQ(
      load(
          R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 1024}})"),
      load(
          R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 1024, "rope_theta": 5e5}})"));
}

TEST(Rope, DivisorsTellLlama3Apart) {
  Rope rope;
  rope.type = "llama3";
  rope.theta = 500000;
  rope.factor = 32;
  rope.original = 8192;
  EXPECT_EQ(rope_from_factors(rope_factors(rope, 32), 500000), rope);
  Rope plain;
  plain.type = "default";
  plain.theta = 10000;
  EXPECT_EQ(rope_from_factors(std::vector<float>(16, 1.0f), 10000), plain);
  EXPECT_EQ(rope_from_factors({1.0f, 1.5f, 7.0f}, 10000).type, "custom");
}

// inv_freq of transformers 5.23's LlamaRotaryEmbedding for Llama-3.2-1B (fp32), entries 0, 10, 20, 31.
TEST(Rope, Llama3FrequenciesEqualThePublicOnes) {
  const Model model = shape_only(config_of(public_models()[3]));
  const std::vector<double> w = frequencies(model.state().ropes[0], 32);
  EXPECT_DOUBLE_EQ(w[0], 1.0);
  EXPECT_NEAR(w[10] / 1.656052e-02, 1, 1e-5);
  EXPECT_NEAR(w[31], std::pow(500000.0, -31.0 / 32) / 32, 1e-15);
}

TEST(Resolve, FloatsOfContainersBecomeDecimals) {
  EXPECT_EQ(as_decimal_float(9.999999747378752e-06), 1e-5);
  EXPECT_EQ(as_decimal_float(1e-6), 1e-6);
  EXPECT_EQ(as_decimal_float(100000.0), 100000.0);
}

}  // namespace
}  // namespace slmc::ir
