// `take: vocab`: rows, tokenizer, and every place that names a token by its id, in both containers.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "error_text.h"
#include "io/gguf.h"
#include "ir/model.h"
#include "ir/plan.h"
#include "ir/tokens.h"
#include "ir/vocabulary.h"
#include "ir/write.h"
#include "test_folder.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;
using Rows = std::vector<std::int64_t>;

constexpr const char* kText = "Once upon a time, in 1847, a nai\u0308ve caf\u00e9 owner said: \u201cI'm    here!\u201d\n\n\tdef f(x):\n    return x**2 \U0001f600";

io::TensorData values(const TensorSpec& spec, std::int64_t) {
  std::int64_t count = 1;
  for (const std::int64_t s : spec.shape) count *= s;
  const Rng rng(derive_seed(3, spec.name));
  std::vector<float> v(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) v[static_cast<std::size_t>(i)] = static_cast<float>(rng.normal(static_cast<std::uint64_t>(i)));
  return io::TensorData::floats(spec.shape, v);
}

class Vocabulary : public FolderTest {
 protected:
  // A small llama with a tokenizer of tests/data, `extra` rows without a token, and side files that name ids.
  Model model(const std::string& style, bool tied = true, std::int64_t extra = 3) {
    const fs::path from = folder_ / (style + (tied ? "-tied" : ""));
    fs::create_directories(from);
    fs::copy_file(fs::path(SLMC_SOURCE_DIR) / "tests/data/tokenizers" / (style + ".json"), from / "tokenizer.json", fs::copy_options::overwrite_existing);
    const text::Tokenizer t = text::Tokenizer::from_file(from / "tokenizer.json");
    std::vector<std::int64_t> known;
    for (std::int32_t id = 0; known.size() < 40; ++id)
      if (t.has(id)) known.push_back(id);
    write_json(from / "config.json", {{"model_type", "llama"}, {"architectures", {"LlamaForCausalLM"}}, {"hidden_size", 16}, {"intermediate_size", 24},
                                      {"num_hidden_layers", 1}, {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"head_dim", 8},
                                      {"vocab_size", t.size() + extra}, {"tie_word_embeddings", tied}, {"bos_token_id", known[1]},
                                      {"eos_token_id", {known[2], known[30]}}, {"pad_token_id", t.size() + 1}});
    write_json(from / "generation_config.json", {{"eos_token_id", {known[2], known[31]}}, {"suppress_tokens", {known[32], t.size() - 1}}, {"temperature", 0.5}});
    write_json(from / "tokenizer_config.json", {{"added_tokens_decoder", {{std::to_string(known[0]), {{"content", t.piece(static_cast<std::int32_t>(known[0]))}}},
                                                                          {std::to_string(t.size() - 1), {{"content", "gone"}}}}},
                                                {"additional_special_tokens", {"no such token"}}, {"chat_template", "{{ messages }}"}});
    write_text(from / "vocab.json", "{}");
    return from_config(from, values);
  }

  static Plan cut(const Model& base, Rows kept) {
    Plan plan(base);
    plan.take["vocab"] = std::move(kept);
    return plan;
  }
};

Rows some(const Model& model, double share, std::uint64_t seed) {
  Rows wanted;
  const Rng rng(seed);
  for (std::int64_t id = 0; id < model.tokenizer()->size(); ++id)
    if (rng.uniform(static_cast<std::uint64_t>(id)) < share) wanted.push_back(id);
  return closed_vocabulary(model, wanted, model.sizes().vocab);
}

// Rows of `tensor` are those of the base.
void expect_rows(const Model& base, const Model& cut, const std::string& tensor, const Rows& kept) {
  const std::vector<float> old = base.read(tensor).to_floats(), now = cut.read(tensor).to_floats();
  const auto width = static_cast<std::size_t>(base.sizes().hidden);
  ASSERT_EQ(now.size(), kept.size() * width);
  for (std::size_t i = 0; i < kept.size(); ++i)
    ASSERT_TRUE(std::equal(now.begin() + static_cast<std::ptrdiff_t>(i * width), now.begin() + static_cast<std::ptrdiff_t>((i + 1) * width),
                           old.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(kept[i]) * width)));
}

TEST_F(Vocabulary, RowsTokenizerAndIdsFollowTogether) {
  for (const char* style : {"smollm", "gpt2", "neox", "llama3", "qwen2", "llama2", "mistral", "flags"})
    for (const bool tied : {true, false}) {
      SCOPED_TRACE(style);
      const Model base = model(style, tied);
      const Rows kept = some(base, 0.3, 1);
      const auto place = [&](std::int64_t id) { return std::find(kept.begin(), kept.end(), id) - kept.begin(); };
      const Model result = apply(cut(base, kept), base);
      EXPECT_EQ(result.sizes().vocab, static_cast<std::int64_t>(kept.size()));
      expect_rows(base, result, "embed", kept);
      EXPECT_EQ(result.has("head"), !tied);
      if (!tied) expect_rows(base, result, "head", kept);
      // The same token at the same row: what the ids mean is unchanged.
      for (std::size_t i = 0; i < kept.size(); ++i)
        EXPECT_EQ(result.tokenizer()->has(static_cast<std::int32_t>(i)) ? result.tokenizer()->piece(static_cast<std::int32_t>(i)) : "",
                  base.tokenizer()->has(static_cast<std::int32_t>(kept[i])) ? base.tokenizer()->piece(static_cast<std::int32_t>(kept[i])) : "");
      EXPECT_EQ(result.tokenizer()->decode(result.tokenizer()->encode(kText)), base.tokenizer()->decode(base.tokenizer()->encode(kText)));
      const Json config = result.config(), old = base.config();
      EXPECT_EQ(config["bos_token_id"], place(old["bos_token_id"].get<std::int64_t>()));
      EXPECT_EQ(config["eos_token_id"][1], place(old["eos_token_id"][1].get<std::int64_t>()));
      EXPECT_TRUE(config["pad_token_id"].is_null());                 // was a row without a token, which goes
      const Json generation = Json::parse(result.side_files().at("generation_config.json")), before = Json::parse(base.side_files().at("generation_config.json"));
      EXPECT_EQ(generation["eos_token_id"][1], place(before["eos_token_id"][1].get<std::int64_t>()));
      EXPECT_EQ(generation["temperature"], 0.5);
      const Json own = Json::parse(result.side_files().at("tokenizer_config.json"));
      const Json was = Json::parse(base.side_files().at("tokenizer_config.json"));
      const std::string first = was["added_tokens_decoder"].begin().key();
      if (place(std::stoll(first)) < static_cast<std::int64_t>(kept.size())) {
        EXPECT_EQ(own["added_tokens_decoder"][std::to_string(place(std::stoll(first)))], was["added_tokens_decoder"][first]);
      }
      EXPECT_TRUE(own["additional_special_tokens"].empty());
      EXPECT_EQ(own["chat_template"], "{{ messages }}");
      EXPECT_FALSE(result.side_files().contains("vocab.json"));
    }
}

TEST_F(Vocabulary, BothContainersHoldTheCut) {
  for (const char* style : {"smollm", "llama3", "llama2"}) {
    SCOPED_TRACE(style);
    const Model base = model(style);
    const Rows kept = some(base, 0.3, 2);
    const Model result = apply(cut(base, kept), base);
    write_hf(result, folder_ / (std::string(style) + "-cut"), DType::F32);
    write_gguf(result, folder_ / (std::string(style) + ".gguf"), {{"*", "f32"}});
    const Model folder = load(folder_ / (std::string(style) + "-cut")), file = load(folder_ / (std::string(style) + ".gguf"));
    EXPECT_EQ(folder.tokenizer()->content_hash(), result.tokenizer()->content_hash());
    for (const Model* m : {&folder, &file}) {
      EXPECT_EQ(m->sizes().vocab, result.sizes().vocab);
      EXPECT_EQ(m->tokenizer()->encode(kText), result.tokenizer()->encode(kText));
      EXPECT_EQ(m->origin().axes.at("vocab"), kept);
    }
    // A GGUF is cut as its folder is.
    write_gguf(base, folder_ / (std::string(style) + "-whole.gguf"), {{"*", "f32"}});
    const Model whole = load(folder_ / (std::string(style) + "-whole.gguf"));
    const Model again = apply(cut(whole, kept), whole);
    EXPECT_EQ(again.tokenizer()->encode(kText), result.tokenizer()->encode(kText));
    write_gguf(again, folder_ / (std::string(style) + "-again.gguf"), {});
    const Model read = load(folder_ / (std::string(style) + "-again.gguf"));
    EXPECT_EQ(read.tokenizer()->content_hash(), again.tokenizer()->content_hash());
    EXPECT_EQ(read.tokenizer()->special().eos, again.tokenizer()->special().eos);
    // Nothing else of the metadata has changed.
    const io::GgufFile before = io::GgufFile::open(folder_ / (std::string(style) + "-whole.gguf")), after = io::GgufFile::open(folder_ / (std::string(style) + "-again.gguf"));
    for (const auto& [key, value] : before.metadata()) {
      const bool follows = key.ends_with("_token_id") || key.ends_with("vocab_size") ||
                           std::set<std::string>{"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"}.contains(key);
      const io::GgufValue* now = after.find(key);
      EXPECT_TRUE(follows || (now && *now == value)) << key;
    }
  }
}

TEST_F(Vocabulary, TwoCutsComposeToTheirOrigin) {
  const Model base = model("smollm");
  const Rows first = some(base, 0.6, 3);
  const Model once = apply(cut(base, first), base);
  const Rows second = some(once, 0.5, 4);
  const Model twice = apply(cut(once, second), once);
  Rows through;
  for (const std::int64_t i : second) through.push_back(first[static_cast<std::size_t>(i)]);
  EXPECT_EQ(twice.origin().axes.at("vocab"), through);
  EXPECT_EQ(apply(cut(base, through), base).tokenizer()->content_hash(), twice.tokenizer()->content_hash());
}

TEST_F(Vocabulary, PlansThatLoseWhatIsNeededAreRefusedByName) {
  const Model base = model("smollm");
  const auto without = [&](std::int64_t id) {
    Rows kept;
    for (std::int64_t i = 0; i < base.sizes().vocab; ++i)
      if (i != id) kept.push_back(i);
    return check(cut(base, kept), base);
  };
  EXPECT_TRUE(without(base.tokenizer()->size() + 1).ok());
  const auto text = [&](std::int64_t id) { return without(id).ok() ? std::string("ok") : without(id).violations[0].message; };
  const Json config = base.config();
  EXPECT_NE(text(config["bos_token_id"].get<std::int64_t>()).find("must stay, since it is "), std::string::npos);
  const std::int64_t he = *base.tokenizer()->id_of("he");
  EXPECT_NE(text(he).find("must keep the parts that it is merged from, but 'he'"), std::string::npos) << text(he);
  const Json generation = Json::parse(base.side_files().at("generation_config.json"));
  const auto end = generation["eos_token_id"][1].get<std::int64_t>();
  const std::string why = text(end);
  EXPECT_NE(why.find("must stay"), std::string::npos) << why;
}

TEST_F(Vocabulary, ACutModelHasNoTeacherAmongTheWholeOnes) {
  const Model base = model("smollm");
  const std::int64_t size = base.sizes().vocab;
  EXPECT_EQ(error_text([&] { require_same_tokens(base, base); }), "no error");
  const Model other = apply(cut(base, some(base, 0.3, 5)), base);           // other tokens at the same ids
  EXPECT_NE(error_text([&] { require_same_tokens(other, base); }).find("the teacher's token "), std::string::npos);
  const Model front = apply(cut(base, first_tokens(base, size - 100)), base);  // the same tokens at the same ids, but fewer
  const std::string why = error_text([&] { require_same_tokens(front, base); });
  EXPECT_NE(why.find("student and teacher must read text as the same tokens, but the teacher's token "), std::string::npos) << why;
  EXPECT_NE(error_text([&] { require_same_tokens(base, front); }).find("but the student's token "), std::string::npos);
  const Model padded = apply(cut(base, first_tokens(base, size - 1)), base);   // a row without a token less
  EXPECT_EQ(error_text([&] { require_same_tokens(padded, base); }), "no error");
}

TEST_F(Vocabulary, FirstTokensAreLegalAtEverySize) {
  for (const char* style : {"smollm", "llama2", "llama3"}) {
    const Model base = model(style);
    const auto least = static_cast<std::int64_t>(closed_vocabulary(base, {}, base.sizes().vocab).size());
    for (const std::int64_t size : {least, least + 1, least + 77, base.sizes().vocab - 2, base.sizes().vocab}) {
      const Rows kept = first_tokens(base, size);
      EXPECT_EQ(static_cast<std::int64_t>(kept.size()), size);
      EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
      EXPECT_TRUE(check(cut(base, kept), base).ok()) << style << " " << size;
    }
    EXPECT_NE(error_text([&] { first_tokens(base, least - 1); }).find("the vocabulary must have " + std::to_string(least) + " to "), std::string::npos);
  }
}

}  // namespace
}  // namespace slmc::ir
