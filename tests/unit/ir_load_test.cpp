// Opening folders: the tiny public checkpoints against rows picked by hand from the raw file, and damaged
// folders.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"
#include "ir/model.h"
#include "ir/state.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;
const fs::path kTiny = fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny";

std::vector<std::string> tiny_models() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kTiny))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Load, EveryTinyCheckpoint) {
  EXPECT_GE(tiny_models().size(), 9u);
  for (const std::string& name : tiny_models()) {
    SCOPED_TRACE(name);
    const Model model = load((kTiny / name).string());
    for (const TensorSpec& spec : model.tensors()) {
      const io::TensorData data = model.read(spec.name);
      EXPECT_EQ(data.shape, spec.shape) << spec.name;
      EXPECT_EQ(std::string(to_string(data.dtype)), spec.stored_dtype);
    }
    EXPECT_EQ(model.container(), "hf");
    EXPECT_EQ(model.config(), read_json(kTiny / name / "config.json", ErrorKind::Model));
  }
}

std::vector<float> raw(const std::string& model, const std::string& tensor) {
  return io::open_safetensors_folder(kTiny / model)[0].read(tensor).to_floats();
}

std::vector<float> logical(const std::string& model, const std::string& tensor) {
  return load((kTiny / model).string()).read(tensor).to_floats();
}

TEST(Load, PlainTensorsAreViewsIntoTheFile) {
  const Model model = load((kTiny / "llama").string());
  const io::TensorData a = model.read("block.1.attn.q"), b = model.read("block.1.attn.q");
  EXPECT_EQ(a.bytes.data(), b.bytes.data());
  EXPECT_EQ(a.to_floats(), raw("llama", "model.layers.1.self_attn.q_proj.weight"));
}

// gpt2 stores [in, out]; queries, keys and values lie side by side in the columns.
TEST(Load, Gpt2IsTransposedAndSplit) {
  const Json config = read_json(kTiny / "gpt2/config.json", ErrorKind::Model);
  const std::int64_t hidden = config.at("n_embd").get<std::int64_t>();
  const std::vector<float> fused = raw("gpt2", "transformer.h.1.attn.c_attn.weight");
  int part = 0;
  for (const char* name : {"block.1.attn.q", "block.1.attn.k", "block.1.attn.v"}) {
    const std::vector<float> got = logical("gpt2", name);
    ASSERT_EQ(got.size(), static_cast<std::size_t>(hidden * hidden));
    for (std::int64_t o = 0; o < hidden; ++o)
      for (std::int64_t i = 0; i < hidden; ++i)
        ASSERT_EQ(got[static_cast<std::size_t>(o * hidden + i)],
                  fused[static_cast<std::size_t>(i * 3 * hidden + part * hidden + o)]);
    ++part;
  }
}

// gpt_neox: rows are head by head, inside a head queries, keys, values.
TEST(Load, GptNeoxIsInterleavedByHead) {
  const Json config = read_json(kTiny / "gpt_neox/config.json", ErrorKind::Model);
  const std::int64_t hidden = config.at("hidden_size").get<std::int64_t>(),
                     heads = config.at("num_attention_heads").get<std::int64_t>(), width = hidden / heads;
  const std::vector<float> fused = raw("gpt_neox", "gpt_neox.layers.0.attention.query_key_value.weight"),
                           bias = raw("gpt_neox", "gpt_neox.layers.0.attention.query_key_value.bias");
  int part = 0;
  for (const std::string name : {"block.0.attn.q", "block.0.attn.k", "block.0.attn.v"}) {
    const std::vector<float> got = logical("gpt_neox", name), got_bias = logical("gpt_neox", name + ".bias");
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t d = 0; d < width; ++d) {
        const std::int64_t row = (h * 3 + part) * width + d;
        ASSERT_EQ(got_bias[static_cast<std::size_t>(h * width + d)], bias[static_cast<std::size_t>(row)]);
        for (std::int64_t i = 0; i < hidden; ++i)
          ASSERT_EQ(got[static_cast<std::size_t>((h * width + d) * hidden + i)],
                    fused[static_cast<std::size_t>(row * hidden + i)]);
      }
    ++part;
  }
}

TEST(Load, Phi3IsFusedInRuns) {
  const Json config = read_json(kTiny / "phi3/config.json", ErrorKind::Model);
  const auto hidden = config.at("hidden_size").get<std::size_t>(),
             ffn = config.at("intermediate_size").get<std::size_t>();
  const std::vector<float> fused = raw("phi3", "model.layers.0.mlp.gate_up_proj.weight");
  EXPECT_EQ(logical("phi3", "block.0.ffn.gate"),
            std::vector<float>(fused.begin(), fused.begin() + static_cast<std::ptrdiff_t>(ffn * hidden)));
  EXPECT_EQ(logical("phi3", "block.0.ffn.up"),
            std::vector<float>(fused.begin() + static_cast<std::ptrdiff_t>(ffn * hidden), fused.end()));
}

// ---- damaged folders ----------------------------------------------------------------------------

struct Folder {
  fs::path path = fs::temp_directory_path() / ("slmc_load_test_" + std::to_string(::getpid()));
  explicit Folder(const std::string& from) {
    fs::remove_all(path);
    fs::copy(kTiny / from, path, fs::copy_options::recursive);
  }
  ~Folder() { fs::remove_all(path); }
  void edit(const std::string& key, const std::string& value) const {
    Json config = read_json(path / "config.json", ErrorKind::Model);
    if (value.empty())
      config.erase(key);
    else
      config[key] = parse_json(value, "test", ErrorKind::Model);
    write_json(path / "config.json", config);
  }
  // The same tensors but one: replaced by `change` (nothing: left out).
  void rewrite(const std::string& name,
               const std::function<std::optional<io::TensorData>(const io::TensorData&)>& change) const {
    const std::vector<io::SafetensorsFile> files = io::open_safetensors_folder(path);
    std::vector<io::SafetensorsWriter::Entry> entries;
    std::vector<io::TensorData> values;
    for (const io::StoredTensor& t : files[0].tensors()) {
      std::optional<io::TensorData> v = files[0].read(t.name);
      if (t.name == name) v = change(*v);
      if (!v) continue;
      entries.push_back({t.name, v->dtype, v->shape});
      values.push_back(*v);
    }
    {
      auto writer = io::SafetensorsWriter::single(path / "new.safetensors", entries);
      for (std::size_t i = 0; i < entries.size(); ++i) writer.write(entries[i].name, values[i].bytes);
      writer.finish();
    }
    fs::rename(path / "new.safetensors", path / "model.safetensors");
  }
  std::string error() const {
    try {
      const Model model = load(path.string());
      for (const TensorSpec& spec : model.tensors()) model.read(spec.name);
    } catch (const Error& e) {
      return std::string(to_string(e.kind())) + ": " + e.text();
    }
    return "";
  }
};

void expect_error(const Folder& folder, const std::string& kind, const std::string& words) {
  const std::string text = folder.error();
  EXPECT_TRUE(text.starts_with(kind + ":")) << text;
  EXPECT_NE(text.find(words), std::string::npos) << text;
}

TEST(Load, RefusesContradictions) {
  Folder sizes("llama");
  sizes.edit("intermediate_size", "43");
  expect_error(sizes, "model", "must be [43, 30] by the config, but is [44, 30]");
  Folder depth("llama");
  depth.edit("num_hidden_layers", "1");
  expect_error(depth, "model", "holds 'model.layers.1.");
  Folder deeper("llama");
  deeper.edit("num_hidden_layers", "3");
  expect_error(deeper, "model", "must hold the tensor 'model.layers.2.input_layernorm.weight'");
  Folder bias("llama");
  bias.edit("attention_bias", "true");
  expect_error(bias, "model", "must hold the tensor 'model.layers.0.self_attn.q_proj.bias'");
  Folder missing("llama");
  missing.rewrite("lm_head.weight", [](const io::TensorData&) { return std::nullopt; });
  expect_error(missing, "model", "must hold the tensor 'lm_head.weight'");
  Folder kind("llama");
  kind.edit("model_type", "\"bert\"");
  expect_error(kind, "unsupported", "but is 'bert'");
  Folder unknown("llama");
  unknown.edit("residual_multiplier", "0.22");
  expect_error(unknown, "unsupported", "'residual_multiplier'");
  Folder behind("opt");
  behind.edit("do_layer_norm_before", "false");
  expect_error(behind, "unsupported", "'do_layer_norm_before' must be true, but is false");
  Folder projected("opt");
  projected.edit("word_embed_proj_dim", "16");
  expect_error(projected, "unsupported", "'word_embed_proj_dim' must be the hidden size");
  Folder none("llama");
  fs::remove(none.path / "config.json");
  expect_error(none, "model", "config.json");
}

TEST(Load, RefusesNaNAndInfinity) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Folder folder("llama");
    folder.rewrite("model.layers.1.mlp.up_proj.weight", [&](const io::TensorData& old) {
      std::vector<float> v = old.to_floats();
      v[7] = bad;
      return std::optional(io::TensorData::floats(old.shape, v));
    });
    expect_error(folder, "model", "'block.1.ffn.up' must be finite");
  }
}

TEST(Load, ATiedHeadInTheFileIsNotRead) {
  Folder folder("llama");
  folder.edit("tie_word_embeddings", "true");
  EXPECT_EQ(folder.error(), "");
  EXPECT_FALSE(load(folder.path.string()).has("head"));
}

TEST(Load, NamesWithoutTheBasePrefix) {
  Folder folder("gpt2");
  const std::vector<io::SafetensorsFile> files = io::open_safetensors_folder(folder.path);
  {
    std::vector<io::SafetensorsWriter::Entry> entries;
    for (const io::StoredTensor& t : files[0].tensors())
      entries.push_back({t.name.substr(std::string("transformer.").size()), t.dtype, t.shape});
    auto writer = io::SafetensorsWriter::single(folder.path / "new.safetensors", entries);
    for (const io::StoredTensor& t : files[0].tensors())
      writer.write(t.name.substr(std::string("transformer.").size()), files[0].read(t.name).bytes);
    writer.finish();
  }
  fs::rename(folder.path / "new.safetensors", folder.path / "model.safetensors");
  EXPECT_EQ(load(folder.path.string()).content_hash(), load((kTiny / "gpt2").string()).content_hash());
}

TEST(Load, MissingPathsSuggestTheirNeighbours) {
  try {
    load((kTiny / "lama").string());
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.text().find("did you mean 'llama'?"), std::string::npos) << e.text();
  }
}

TEST(Load, FromTheLocalCache) {
  const fs::path cache = fs::temp_directory_path() / ("slmc_cache_test_" + std::to_string(::getpid()));
  fs::create_directories(cache / "hub/models--org--tiny/snapshots");
  fs::create_directories(cache / "hub/models--org--tiny/refs");
  fs::copy(kTiny / "llama", cache / "hub/models--org--tiny/snapshots/abc123", fs::copy_options::recursive);
  write_text(cache / "hub/models--org--tiny/refs/main", "abc123");
  EXPECT_EQ(load("hf:org/tiny", {cache, {}}).content_hash(), load((kTiny / "llama").string()).content_hash());
  EXPECT_THROW(load("hf:org/other", {cache, {}}), Error);
  EXPECT_THROW(load("hf:org/tiny"), Error);
  fs::remove_all(cache);
}

TEST(Model, ContentIsTheSameWhateverTypeEqualValuesHave) {
  const Json config = parse_json(
      R"({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 1, "vocab_size": 5})",
      "t", ErrorKind::Model);
  const auto made = [&](DType dtype, float more) {
    return with_weights(config, [=](const TensorSpec& spec) {
      std::int64_t n = 1;
      for (const std::int64_t s : spec.shape) n *= s;
      std::vector<float> v(static_cast<std::size_t>(n), 0.5f);
      if (spec.name == "norm") v[3] += more;
      std::vector<std::byte> bytes(v.size() * size_of(dtype));
      from_f32(dtype, v, bytes);
      return io::TensorData::dense(spec.shape, dtype, std::move(bytes));
    });
  };
  const std::string hash = made(DType::F32, 0).content_hash();
  EXPECT_EQ(made(DType::BF16, 0).content_hash(), hash);
  EXPECT_EQ(made(DType::F16, 0).content_hash(), hash);
  EXPECT_EQ(made(DType::F64, 0).content_hash(), hash);
  EXPECT_NE(made(DType::F32, 0.25f).content_hash(), hash);
}

}  // namespace
}  // namespace slmc::ir
