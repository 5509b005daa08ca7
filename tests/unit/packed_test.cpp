// compressed-tensors' pack-quantized form: bits by hand, folders written and read back, and damage.
#include "io/packed.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "io/safetensors.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "test_folder.h"

namespace slmc {
namespace {

std::vector<std::uint32_t> words(const std::vector<std::byte>& bytes) {
  std::vector<std::uint32_t> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

TEST(Packed, BitsByHand) {
  // The test vector of the format: values -8 .. -1, codes 0 .. 7, fill one word from its low end.
  EXPECT_EQ(words(io::pack_rows(std::vector<std::uint8_t>{0, 1, 2, 3, 4, 5, 6, 7}, 1, 8, 4)), (std::vector<std::uint32_t>{0x76543210}));
  EXPECT_EQ(words(io::pack_rows(std::vector<std::uint8_t>{1, 2, 3, 255, 7}, 1, 5, 8)), (std::vector<std::uint32_t>{0xff030201, 7}));
  // Zero points lie along the first dimension: three rows of two columns fill the low twelve bits of two words.
  EXPECT_EQ(words(io::pack_columns(std::vector<std::uint8_t>{1, 4, 2, 5, 3, 6}, 3, 2, 4)), (std::vector<std::uint32_t>{0x321, 0x654}));
}

TEST(Packed, UnpackingGivesTheCodesBack) {
  const Rng rng(1);
  for (const int bits : {4, 8}) {
    for (const auto& [rows, columns] : {std::pair{1, 1}, {3, 7}, {8, 8}, {9, 33}}) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns));
      for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(rng.below(1u << bits, i));
      EXPECT_EQ(io::unpack_rows(io::pack_rows(codes, rows, columns, bits), rows, columns, bits), codes);
      EXPECT_EQ(io::unpack_columns(io::pack_columns(codes, rows, columns, bits), rows, columns, bits), codes);
    }
  }
}

const char* kTiny = SLMC_SOURCE_DIR "/tests/data/tiny/";

// A tiny checkpoint whose block matrices hold random codes of a scheme; groups of 2 divide every width.
ir::Model quantized(const std::string& family, io::QuantScheme scheme) {
  const ir::Model base = ir::load(kTiny + family);
  ir::Plan plan(base);
  const Rng rng(5);
  std::uint64_t n = 0;
  for (const ir::TensorSpec& spec : base.tensors()) {
    if (spec.block < 0 || spec.shape.size() != 2 || spec.derived) continue;
    io::Quantized q{.scheme = scheme, .codes = {}, .scales = {}, .mins = {}};
    for (std::int64_t i = 0; i < spec.shape[0] * spec.shape[1]; ++i) q.codes.push_back(static_cast<std::uint8_t>(rng.below(1u << scheme.bits, n++)));
    for (std::int64_t i = 0; i < spec.shape[0] * spec.shape[1] / scheme.group; ++i) {
      q.scales.push_back(f16_to_f32(f32_to_f16(static_cast<float>(0.01 + 0.01 * rng.uniform(n++)))));
      if (scheme.zero == io::QuantScheme::Zero::ZeroPoint) q.mins.push_back(static_cast<float>(rng.below(1u << scheme.bits, n++)));
    }
    plan.set[spec.name].value = io::TensorData::of(spec.shape, std::move(q));
  }
  return ir::apply(plan, base);
}

using PackedFolder = FolderTest;

TEST_F(PackedFolder, ReadsBackCodeForCodeForEveryFamilyThatKeepsRows) {
  for (const char* family : {"llama", "llama_tied", "mistral", "qwen2", "qwen3", "phi3", "gpt_neox"}) {
    for (const auto zero : {io::QuantScheme::Zero::Symmetric, io::QuantScheme::Zero::ZeroPoint}) {
      for (const int bits : {4, 8}) {
        SCOPED_TRACE(std::string(family) + " " + std::to_string(bits));
        const ir::Model model = quantized(family, {.bits = bits, .group = 2, .zero = zero});
        const std::filesystem::path folder = folder_ / (std::string(family) + std::to_string(bits) + std::to_string(static_cast<int>(zero)));
        ir::write_packed(model, folder, DType::F32);
        const ir::Model again = ir::load(folder.string());
        for (const ir::TensorSpec& spec : model.tensors()) {
          const io::TensorData a = model.read(spec.name), b = again.read(spec.name);
          ASSERT_EQ(static_cast<bool>(a.quantized), static_cast<bool>(b.quantized)) << spec.name;
          if (a.quantized) {
            EXPECT_TRUE(*a.quantized == *b.quantized) << spec.name;
          }
        }
      }
    }
  }
}

TEST_F(PackedFolder, FoldersThatWeWroteAreWrittenAgainByteForByte) {
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    SCOPED_TRACE(to_string(dtype));
    const std::filesystem::path first = folder_ / "first", second = folder_ / "second";
    ir::write_packed(quantized("qwen2", {.bits = 4, .group = 2, .zero = io::QuantScheme::Zero::ZeroPoint}), first, dtype);
    ir::write_packed(ir::load(first.string()), second, dtype);
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(first)) {
      EXPECT_TRUE(read_text(entry.path()) == read_text(second / entry.path().filename())) << entry.path().filename();
      ++files;
    }
    EXPECT_GE(files, 2);
    std::filesystem::remove_all(first);
    std::filesystem::remove_all(second);
  }
}

TEST_F(PackedFolder, ConfigSaysWhatTheReaderNeeds) {
  ir::write_packed(quantized("llama_tied", {.bits = 4, .group = 2}), folder_ / "out", DType::F16);
  const Json config = read_json(folder_ / "out" / "config.json", ErrorKind::Model);
  const Json& q = config["quantization_config"];
  EXPECT_EQ(q["quant_method"], "compressed-tensors");
  EXPECT_EQ(q["format"], "pack-quantized");
  EXPECT_EQ(q["ignore"], (Json{"model.embed_tokens", "lm_head"}));
  EXPECT_EQ(q["config_groups"]["group_0"]["weights"]["num_bits"], 4);
  EXPECT_EQ(q["config_groups"]["group_0"]["weights"]["group_size"], 2);
  const io::SafetensorsFile file = io::SafetensorsFile::open(folder_ / "out" / "model.safetensors");
  EXPECT_EQ(file.find("model.layers.0.self_attn.q_proj.weight_scale")->dtype, DType::F16);
  EXPECT_EQ(file.find("model.layers.0.self_attn.q_proj.weight"), nullptr);
  EXPECT_EQ(file.find("model.embed_tokens.weight")->dtype, DType::F16);
}

TEST_F(PackedFolder, PlainFolderOfAPackedModelIsPlain) {
  const ir::Model model = quantized("llama", {.bits = 4, .group = 2});
  ir::write_packed(model, folder_ / "packed", DType::F32);
  ir::write_hf(ir::load((folder_ / "packed").string()), folder_ / "plain", DType::F32);
  EXPECT_FALSE(read_json(folder_ / "plain" / "config.json", ErrorKind::Model).contains("quantization_config"));
  for (const auto& [name, difference] : ir::compare(model, ir::load((folder_ / "plain").string()))) EXPECT_EQ(difference, 0) << name;
}

TEST_F(PackedFolder, TransposedFamiliesAndUnquantizedModelsAreRefused) {
  EXPECT_THROW(ir::require_packable(ir::load(std::string(kTiny) + "gpt2")), Error);
  EXPECT_NO_THROW(ir::require_packable(ir::load(std::string(kTiny) + "phi3")));
  EXPECT_THROW(ir::write_packed(ir::load(std::string(kTiny) + "llama"), folder_ / "out", DType::F32), Error);
  EXPECT_EQ(names(), Names{});
}

// Writes the same folder with one header entry changed, and gives the reader's message.
std::string damaged(const std::filesystem::path& folder, const std::function<void(Json& header)>& change) {
  const std::filesystem::path file = folder / "model.safetensors";
  std::string bytes = read_text(file);
  std::uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  Json header = parse_json(bytes.substr(8, n), "header", ErrorKind::Model);
  change(header);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = text.size();
  std::string out(reinterpret_cast<const char*>(&size), 8);
  std::ofstream(file, std::ios::binary) << out << text << bytes.substr(8 + n);
  try {
    const ir::Model model = ir::load(folder.string());
    for (const ir::TensorSpec& spec : model.tensors()) model.read(spec.name);
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::Model || e.kind() == ErrorKind::Unsupported);
    return e.message();
  }
  return "accepted";
}

TEST_F(PackedFolder, ContradictionsAreRefusedByName) {
  const ir::Model model = quantized("llama", {.bits = 4, .group = 2, .zero = io::QuantScheme::Zero::ZeroPoint});
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  int k = 0;
  const auto message = [&](const std::function<void(Json&)>& change) {
    const std::filesystem::path folder = folder_ / std::to_string(k++);
    ir::write_packed(model, folder, DType::F32);
    return damaged(folder, change);
  };
  EXPECT_EQ(message([](Json&) {}), "accepted");
  const auto swapped = [&](const std::string& part) {
    return message([&](Json& h) { std::swap(h[q + part]["shape"][0], h[q + part]["shape"][1]); });
  };
  EXPECT_NE(swapped("_packed").find(q + "_packed"), std::string::npos);
  EXPECT_NE(swapped("_scale").find(q + "_scale"), std::string::npos);
  EXPECT_NE(swapped("_zero_point").find(q + "_zero_point"), std::string::npos);
  const auto without = [&](const std::string& part) {
    return message([&](Json& h) {
      h[q + part + "_away"] = h[q + part];
      h.erase(q + part);
    });
  };
  EXPECT_NE(without("_scale").find("must have '" + q + "_scale'"), std::string::npos);
  EXPECT_NE(without("_shape").find("must have '" + q + "_shape'"), std::string::npos);
  EXPECT_NE(message([&](Json& h) { h[q + "_shape"]["dtype"] = "F64"; }).find("two 64-bit integers"), std::string::npos);
}

// A file of 7 bits has the shapes of one of 8: what the config says must agree with what shapes say.
TEST_F(PackedFolder, ConfigGroupsMustSayWhatTheTensorsSay) {
  ir::write_packed(quantized("llama", {.bits = 8, .group = 2, .zero = io::QuantScheme::Zero::ZeroPoint}), folder_, DType::F32);
  const Json good = read_json(folder_ / "config.json", ErrorKind::Model);
  const auto message = [&](const std::function<void(Json& groups)>& change) -> std::string {
    Json config = good;
    change(config["quantization_config"]["config_groups"]);
    write_text(folder_ / "config.json", config.dump());
    try {
      ir::load(folder_.string());
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Model);
      return e.message();
    }
    return "accepted";
  };
  EXPECT_EQ(message([](Json&) {}), "accepted");
  EXPECT_EQ(message([](Json& g) { g["group_1"] = {{"targets", {"re:.*"}}}; }), "accepted");
  const std::string refusal =
      "one of the config_groups must say what the tensors of 'model.layers.0.mlp.down_proj.weight' say (num_bits 8, group_size 2, symmetric false), but none does";
  EXPECT_EQ(message([](Json& g) { g["group_0"]["weights"]["num_bits"] = 7; }), refusal);
  EXPECT_EQ(message([](Json& g) { g["group_0"]["weights"]["group_size"] = 4; }), refusal);
  EXPECT_EQ(message([](Json& g) { g["group_0"]["weights"]["group_size"] = nullptr; }), refusal);
  EXPECT_EQ(message([](Json& g) { g["group_0"]["weights"]["symmetric"] = true; }), refusal);
  EXPECT_EQ(message([](Json& g) { g["group_0"].erase("weights"); }), refusal);
  EXPECT_EQ(message([](Json& g) { g = Json::array(); }), refusal);
  EXPECT_EQ(message([](Json& g) { g = 7; }), refusal);
}

// Once to learn the scheme, once to write, once to compare.
TEST_F(PackedFolder, EachMatrixIsReadThreeTimes) {
  const ir::Model base = quantized("llama", {.bits = 4, .group = 2});
  std::map<std::string, int> reads;
  const ir::Model model = ir::with_weights(base.config(), [&](const ir::TensorSpec& spec) {
    ++reads[spec.name];
    return base.read(spec.name);
  });
  ir::write_packed(model, folder_ / "out", DType::F32);
  for (const auto& [name, n] : reads) EXPECT_LE(n, 3) << name;
}

}  // namespace
}  // namespace slmc
