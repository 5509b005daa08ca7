// Writers against themselves and against the files of the public implementation (tests/data/tiny): a model that went through a container
// and back has the same values, a file that we wrote is written again byte for byte, and forecasts of sizes are exact.
// Other programs open the same outputs in scripts/check-exports.
#include <gtest/gtest.h>

#include <sys/wait.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "ir/cost.h"
#include "ir/model.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "test_folder.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> tiny_models() {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny"))
    if (fs::exists(entry.path() / "config.json")) all.push_back(entry.path());
  std::sort(all.begin(), all.end());
  return all;
}

// What llama.cpp's forms can't say: an activation of one's own, an attention window of the llama architecture, a family that it lacks.
const std::map<std::string, std::string> kNotInGguf = {{"gpt_neox_serial", "activation"}, {"mistral", "window"}, {"opt", "family"}};

std::vector<fs::path> gguf_models() {
  std::vector<fs::path> all = tiny_models();
  std::erase_if(all, [](const fs::path& p) { return kNotInGguf.contains(p.filename().string()); });
  return all;
}

double worst_difference(const Model& a, const Model& b) {
  double worst = 0;
  for (const auto& [name, difference] : compare(a, b)) worst = std::max(worst, difference);
  return worst;
}

class Write : public FolderTest {};

TEST_F(Write, EveryTinyFamilyIsTested) { EXPECT_GE(tiny_models().size(), 9u); }

TEST_F(Write, HuggingFaceToHuggingFaceKeepsPayloadBytes) {
  for (const fs::path& path : tiny_models()) {
    SCOPED_TRACE(path.filename().string());
    const Model model = load(path.string());
    const fs::path out = folder_ / path.filename();
    write_hf(model, out, std::nullopt);
    const auto before = io::open_safetensors_folder(path), after = io::open_safetensors_folder(out);
    ASSERT_EQ(before[0].tensors().size(), after[0].tensors().size());
    for (const io::StoredTensor& t : before[0].tensors()) {
      const io::TensorData a = before[0].read(t.name), b = after[0].read(t.name);
      EXPECT_EQ(a.shape, b.shape) << t.name;
      EXPECT_TRUE(a.dtype == b.dtype && std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << t.name;
    }
    const Model again = load(out.string());
    EXPECT_EQ(again.content_hash(), model.content_hash());
  }
}

TEST_F(Write, ThroughGgufAndBackKeepsValuesSizesAndDecoder) {
  for (const fs::path& path : gguf_models()) {
    SCOPED_TRACE(path.filename().string());
    const Model model = load(path.string());
    const fs::path file = folder_ / (path.filename().string() + ".gguf"), back = folder_ / (path.filename().string() + "-back");
    write_gguf(model, file, {{"*", "f32"}});
    const Model gguf = load(file.string());
    EXPECT_EQ(gguf.sizes(), model.sizes());
    EXPECT_EQ(worst_difference(model, gguf), 0);
    write_hf(gguf, back, std::nullopt);
    const Model hf = load(back.string());
    EXPECT_EQ(worst_difference(model, hf), 0);
    EXPECT_EQ(hf.shape_hash(), gguf.shape_hash());
  }
}

TEST_F(Write, AFolderFromGgufNamesItsSpecialIdsEvenWhenThereAreNone) {
  // Left out, transformers takes its class's defaults: 32000 pads Phi-3, beyond the end of a small vocabulary.
  write_gguf(load(std::string(SLMC_SOURCE_DIR) + "/tests/data/tiny/phi3"), folder_ / "phi3.gguf", {{"*", "f32"}});
  write_hf(load((folder_ / "phi3.gguf").string()), folder_ / "back", std::nullopt);
  const Json config = read_json(folder_ / "back" / "config.json", ErrorKind::Model);
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) EXPECT_TRUE(config.contains(key) && config[key].is_null()) << key;
}

TEST_F(Write, WhatGgufCannotSayIsRefusedBeforeAnyWork) {
  for (const auto& [name, option] : kNotInGguf) {
    SCOPED_TRACE(name);
    const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny" / name).string());
    try {
      write_gguf(model, folder_ / "x.gguf", {{"*", "f32"}});
      ADD_FAILURE() << "it was written";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Recipe);
      EXPECT_NE(e.text().find(option), std::string::npos) << e.text();
    }
    EXPECT_TRUE(fs::is_empty(folder_));
  }
}

TEST_F(Write, FilesThatWeWroteAreWrittenAgainByteForByte) {
  for (const fs::path& path : gguf_models()) {
    SCOPED_TRACE(path.filename().string());
    const Model model = load(path.string());
    for (const char* type : {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"}) {
      const fs::path first = folder_ / "first.gguf", second = folder_ / "second.gguf";
      write_gguf(model, first, {{"*", type}});
      write_gguf(load(first.string()), second, {});
      EXPECT_EQ(read_text(first), read_text(second)) << type;
    }
  }
}

fs::path trained() { return fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny-trained"; }      // the one with a tokenizer

// Every file of a folder with its bytes.
std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> all;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) all[entry.path().lexically_relative(folder).string()] = read_text(entry.path());
  return all;
}

TEST_F(Write, FoldersThatWeWroteAreWrittenAgainByteForByte) {
  std::vector<fs::path> paths = tiny_models();
  paths.push_back(trained());
  for (const fs::path& path : paths) {
    for (const auto dtype : {DType::F32, DType::F16, DType::BF16}) {
      SCOPED_TRACE(path.filename().string() + " " + std::string(to_string(dtype)));
      write_hf(load(path.string()), folder_ / "first", dtype);
      write_hf(load((folder_ / "first").string()), folder_ / "second", std::nullopt);
      const auto first = contents(folder_ / "first"), second = contents(folder_ / "second");
      EXPECT_GE(first.size(), 2u);
      EXPECT_EQ(second.contains("tokenizer.json"), path == trained());
      EXPECT_TRUE(first == second);
      fs::remove_all(folder_ / "first");
      fs::remove_all(folder_ / "second");
    }
  }
}

// A cut model has an origin, which travels in the file; the vocabulary does too.
TEST_F(Write, GgufWithVocabularyAndOriginIsWrittenAgainByteForByte) {
  const Model whole = load(trained().string());
  Plan plan(whole);
  plan.take["block"] = {0, 2, 3};
  const Model cut = apply(plan, whole);
  for (const char* type : {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"}) {
    const fs::path first = folder_ / "first.gguf", second = folder_ / "second.gguf";
    write_gguf(cut, first, {{"*", type}});
    const Model again = load(first.string());
    EXPECT_EQ(again.origin().blocks, (std::vector<std::int64_t>{0, 2, 3}));
    ASSERT_TRUE(again.tokenizer());
    write_gguf(again, second, {});
    EXPECT_TRUE(read_text(first) == read_text(second)) << type;
  }
}

// From a folder to GGUF and back: the logical values are the same bits for every dense type that both hold.
TEST_F(Write, DenseTypesCrossContainersBitForBit) {
  for (const auto& [dtype, type] : {std::pair{DType::F32, "f32"}, {DType::F16, "f16"}, {DType::BF16, "bf16"}}) {
    SCOPED_TRACE(type);
    write_hf(load(trained().string()), folder_ / type, dtype);
    const Model from = load((folder_ / type).string());
    write_gguf(from, folder_ / "x.gguf", {{"*", type}});
    write_hf(load((folder_ / "x.gguf").string()), folder_ / (std::string(type) + "-back"), dtype);
    const Model back = load((folder_ / (std::string(type) + "-back")).string());
    for (const TensorSpec& spec : from.tensors()) {
      if (spec.derived) continue;
      const io::TensorData a = from.read(spec.name), b = back.read(spec.name);
      EXPECT_TRUE(a.dtype == b.dtype && std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end())) << spec.name;
    }
  }
}

TEST_F(Write, ForecastOfGgufBytesIsExact) {
  for (const fs::path& path : gguf_models()) {
    const Model model = load(path.string());
    for (const char* type : {"f32", "q8_0", "q4_0"}) {
      std::vector<std::pair<std::string, std::string>> format;
      for (const auto& [name, t] : gguf_types(model, type)) format.emplace_back(name, t);
      const fs::path file = folder_ / "sized.gguf";
      write_gguf(model, file, format);
      EXPECT_EQ(static_cast<std::int64_t>(fs::file_size(file)), gguf_bytes(model, format)) << path << " " << type;
    }
  }
}

// 42 is no multiple of 32: those rows fall back to F16, vectors stay F32.
TEST_F(Write, RaggedRowsFallBackAndSayTheirRealType) {
  const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/phi3").string());
  const auto types = gguf_types(model, "q4_0");
  EXPECT_EQ(types.at("block.0.ffn.down"), "F16");
  EXPECT_EQ(types.at("block.0.attn.norm"), "F32");
  EXPECT_EQ(types.at("block.0.attn.q"), "q4_0");
  EXPECT_EQ(types.at("embed"), "q8_0");
}

TEST_F(Write, AnUnknownTypeIsRefusedWithASuggestion) {
  const Model model = load(tiny_models()[0].string());
  try {
    write_gguf(model, folder_ / "x.gguf", {{"*", "q4_2"}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Recipe);
    EXPECT_NE(e.text().find("but is 'q4_2'"), std::string::npos) << e.text();
    EXPECT_NE(e.text().find("did you mean"), std::string::npos) << e.text();
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Write, FusedPartsMustShareATypeInGguf) {
  const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/phi3").string());
  try {
    write_gguf(model, folder_ / "x.gguf", {{"*", "f32"}, {"*.attn.q", "f16"}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.text().find("must have one stored type"), std::string::npos) << e.text();
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

// Every write fails once: an error of kind Resource, and nothing is left.
TEST_F(Write, AFullDiskLeavesNothing) {
  const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/llama").string());
  for (std::uint64_t n = 1;; ++n) {
    testing::fail_nth_write(n);
    bool failed = false;
    try {
      write_hf(model, folder_ / "model", std::nullopt);
    } catch (const Error& e) {
      failed = true;
      EXPECT_EQ(e.kind(), ErrorKind::Resource) << e.text();
    }
    testing::fail_nth_write(0);
    if (!failed) {
      EXPECT_GT(n, 3u);
      break;
    }
    EXPECT_TRUE(fs::is_empty(folder_)) << "after write " << n;
  }
  for (std::uint64_t n = 1;; ++n) {
    testing::fail_nth_write(n);
    bool failed = false;
    try {
      write_gguf(model, folder_ / "gguf/model.gguf", {{"*", "f32"}});
    } catch (const Error& e) {
      failed = true;
      EXPECT_EQ(e.kind(), ErrorKind::Resource) << e.text();
    }
    testing::fail_nth_write(0);
    if (!failed) {
      EXPECT_GT(n, 3u);
      break;
    }
    EXPECT_TRUE(fs::is_empty(folder_ / "gguf") || !fs::exists(folder_ / "gguf")) << "after write " << n;
  }
}

// A killed writer leaves its hidden file; the next one removes it. Two that write the same file have hidden files of their own.
TEST_F(Write, GgufLeftoversAreSweptAndWritersDoNotShareAHiddenFile) {
  const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/llama").string());
  const fs::path file = folder_ / "model.gguf";
  const auto write = [&] { write_gguf(model, file, {{"*", "f32"}}); };
  testing::fail_nth_write(0);
  write();
  const std::uint64_t writes = testing::fail_nth_write(0);
  fs::remove(file);
  for (const std::uint64_t n : {std::uint64_t{3}, writes - 1, writes}) {
    const pid_t child = ::fork();
    if (child == 0) {
      testing::die_at_write(n);
      write();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "write " << n << " of " << writes;
    EXPECT_FALSE(fs::exists(file));
    EXPECT_EQ(names().size(), 1u);
  }
  bool inner = false;
  write_gguf(model, file, {{"*", "f32"}}, {[&](std::int64_t, std::int64_t) {
               if (std::exchange(inner, true)) return;
               write_gguf(model, file, {{"*", "q8_0"}});
             }});
  EXPECT_EQ(names(), Names{"model.gguf"});
  EXPECT_EQ(worst_difference(model, load(file.string())), 0);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

// A family that only a folder of templates knows: what is written of it is read back with the same templates.
TEST_F(Write, FamiliesOfAddedTemplatesAreReadBackWithThem) {
  const fs::path source(SLMC_SOURCE_DIR), tiny = source / "tests/data/tiny/llama";
  write_text(folder_ / "arch/llamb.json", replaced(read_text(source / "configs/arch/llama.json"), "llama", "llamb"));
  write_text(folder_ / "in/config.json", replaced(read_text(tiny / "config.json"), "\"llama\"", "\"llamb\""));
  fs::copy_file(tiny / "model.safetensors", folder_ / "in/model.safetensors");
  const LoadOptions options{.templates = folder_ / "arch"};
  const Model model = load((folder_ / "in").string(), options);
  EXPECT_EQ(model.family(), "llamb");
  write_hf(model, folder_ / "out", std::nullopt);
  write_gguf(model, folder_ / "out.gguf", {});
  write_hf(apply(Plan(model), model), folder_ / "planned", std::nullopt);
  for (const char* name : {"out", "out.gguf", "planned"}) {
    const Model again = load((folder_ / name).string(), options);
    EXPECT_EQ(again.family(), "llamb") << name;
    EXPECT_EQ(worst_difference(model, again), 0) << name;
    EXPECT_THROW(load((folder_ / name).string()), Error) << name;
  }
  const Model drawn = from_config(
      folder_ / "in",
      [](const TensorSpec& spec, std::int64_t) {
        std::int64_t n = 1;
        for (const std::int64_t s : spec.shape) n *= s;
        return io::TensorData::floats(spec.shape, std::vector<float>(static_cast<std::size_t>(n), 0.5f));
      },
      options);
  write_hf(drawn, folder_ / "drawn", std::nullopt);
  EXPECT_EQ(load((folder_ / "drawn").string(), options).shape_hash(), model.shape_hash());
}

// An installation's templates are other objects than those compiled in; the family is the same all the same.
TEST_F(Write, NamingTheFamilyThatAModelHasChangesNothing) {
  const fs::path source(SLMC_SOURCE_DIR);
  fs::create_directories(folder_ / "arch");
  fs::copy_file(source / "configs/arch/llama.json", folder_ / "arch/llama.json");
  const Model model = load((source / "tests/data/tiny/llama").string(), {.templates = folder_ / "arch"});
  Plan plan(model);
  plan.config = std::make_shared<const Json>(parse_json(R"({"family": "llama"})", "plan", ErrorKind::Recipe));
  const Model same = apply(plan, model);
  EXPECT_EQ(same.config(), model.config());
  EXPECT_EQ(same.container(), "hf");
  EXPECT_EQ(same.content_hash(), model.content_hash());
}

TEST_F(Write, HalfPrecisionRoundsAndTheConfigSaysSo) {
  const Model model = load((fs::path(SLMC_SOURCE_DIR) / "tests/data/tiny/llama").string());
  write_hf(model, folder_ / "half", DType::BF16);
  const Model half = load((folder_ / "half").string());
  EXPECT_EQ(half.config().at("dtype").get<std::string>(), "bfloat16");
  for (const TensorSpec& spec : half.tensors()) {
    if (spec.derived) continue;
    EXPECT_EQ(spec.stored_dtype, "BF16") << spec.name;
    const auto wanted = model.read(spec.name).to_floats(), found = half.read(spec.name).to_floats();
    for (std::size_t i = 0; i < wanted.size(); ++i) ASSERT_EQ(found[i], bf16_to_f32(f32_to_bf16(wanted[i]))) << spec.name;
  }
}

}  // namespace
}  // namespace slmc::ir
