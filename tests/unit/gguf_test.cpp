// lib/io's GGUF against the public `gguf` package (tests/golden/ggml, made by scripts/goldens/ggml.py),
// against itself (bijections, round trips), literal files per refusal, and damage.
#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "io/ggml_types.h"
#include "io/safetensors.h"
#include "tests/unit/damage.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"

namespace slmc::io {
namespace {

namespace fs = std::filesystem;
using GgufTest = FolderTest;

const fs::path kGolden = fs::path(SLMC_SOURCE_DIR) / "tests" / "golden" / "ggml";

const GgmlType kNeutral[] = {GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q5_0, GgmlType::Q5_1};

Bytes copy(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

std::vector<float> random_floats(std::size_t count, std::uint64_t seed, double scale = 1) {
  std::vector<float> out(count);
  const Rng rng(seed);
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(rng.normal(i) * scale);
  return out;
}

// ---- block types ----

TEST(GgmlTypes, TableAndNames) {
  EXPECT_EQ(ggml_type("Q4_1"), ggml_type(3u));
  EXPECT_EQ(info(GgmlType::Q6_K).bytes, 210);
  EXPECT_EQ(ggml_type("iq2_xxs"), nullptr);
  EXPECT_EQ(ggml_type(16u), nullptr);
  for (GgmlType type : kNeutral) {
    EXPECT_EQ(ggml_type_of(*scheme_of(type)), type);
    EXPECT_TRUE(info(type).writable);
  }
  EXPECT_EQ(ggml_type_of({.bits = 3}), std::nullopt);
  EXPECT_EQ(scheme_of(GgmlType::Q4_K), std::nullopt);
}

TEST(GgmlTypes, DequantizationEqualsThePublicPackage) {
  const SafetensorsFile golden = SafetensorsFile::open(kGolden / "blocks.safetensors");
  int types = 0;
  for (const StoredTensor& t : golden.tensors()) {
    if (!t.name.ends_with(".blocks")) continue;
    const std::string name = t.name.substr(0, t.name.size() - 7);
    const TensorData want = golden.read(name + ".values");
    std::vector<float> got(static_cast<std::size_t>(want.count()));
    dequantize(ggml_type(name)->type, golden.read(t.name).bytes, got);
    EXPECT_EQ(std::memcmp(got.data(), want.bytes.data(), want.bytes.size()), 0) << name;
    ++types;
  }
  EXPECT_EQ(types, 12);
}

TEST(GgmlTypes, QuantizerBytesEqualThePublicPackage) {
  const SafetensorsFile golden = SafetensorsFile::open(kGolden / "blocks.safetensors");
  const std::vector<float> input = golden.read("input").to_floats();
  int types = 0;
  for (const StoredTensor& t : golden.tensors()) {
    if (!t.name.ends_with(".encoded")) continue;
    const GgmlTypeInfo& type = *ggml_type(t.name.substr(0, t.name.size() - 8));
    Bytes got(t.bytes);
    quantize_reference(type.type, input, got);
    const Bytes want = copy(golden.read(t.name).bytes);
    for (std::size_t row = 0; row < input.size() / 32; ++row) {
      const std::size_t size = want.size() / (input.size() / 32);
      EXPECT_EQ(std::memcmp(got.data() + row * size, want.data() + row * size, size), 0)
          << t.name << " row " << row;
    }
    ++types;
  }
  EXPECT_EQ(types, 7);
}

TEST(GgmlTypes, PackAndUnpackAreBijections) {
  const Rng rng(11);
  for (GgmlType type : kNeutral) {
    Bytes blocks(static_cast<std::size_t>(info(type).bytes) *
                 4096);  // scales of every kind: NaN payloads, infinities
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(rng.bits(i));
    const Quantized q = unpack_blocks(type, blocks);
    EXPECT_EQ(pack_blocks(type, q), blocks) << info(type).name;
    for (std::uint8_t code : q.codes) EXPECT_LT(code, 1 << q.scheme.bits);
  }
}

TEST(GgmlTypes, UnpackedValuesEqualDequantizedOnes) {
  for (GgmlType type : kNeutral) {
    const std::vector<float> values = random_floats(32 * 64, 3);
    Bytes blocks(static_cast<std::size_t>(info(type).bytes) * 64);
    quantize_reference(type, values, blocks);
    std::vector<float> direct(values.size());
    dequantize(type, blocks, direct);
    EXPECT_EQ(TensorData::of({64, 32}, unpack_blocks(type, blocks)).to_floats(), direct) << info(type).name;
  }
}

TEST(GgmlTypes, QuantizationErrorIsAtMostOneStep) {
  for (GgmlType type : kNeutral) {
    const std::vector<float> values = random_floats(32 * 256, 5);
    Bytes blocks(static_cast<std::size_t>(info(type).bytes) * 256);
    quantize_reference(type, values, blocks);
    const Quantized q = unpack_blocks(type, blocks);
    const std::vector<float> back = TensorData::of({256, 32}, q).to_floats();
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_LE(std::fabs(back[i] - values[i]), 1.01f * std::fabs(q.scales[i / 32]) + 2e-3f)
          << info(type).name << " " << i;
    }
  }
}

TEST(GgmlTypes,
     HostileFloatsGiveSomeCode) {  // NaN, infinities, subnormals: any bytes, but no undefined behaviour
  const float awkward[] = {NAN, INFINITY, -INFINITY, 1e-45f, -1e-45f, 3e38f, -3e38f, 0.0f, -0.0f};
  for (GgmlType type : kNeutral) {
    for (float a : awkward) {
      for (float b : awkward) {
        std::vector<float> values(32, a);
        for (std::size_t i = 0; i < 32; i += 3) values[i] = b;
        Bytes block(static_cast<std::size_t>(info(type).bytes));
        quantize_reference(type, values, block);
        dequantize(type, block, values);
      }
    }
  }
}

// ---- encode ----

TEST(Encode, ConvertsPacksAndFits) {
  const std::vector<float> values = random_floats(64, 9);
  const TensorData dense = TensorData::floats({2, 32}, values);
  EXPECT_EQ(encode(dense, GgmlType::F32, "w"), copy(dense.bytes));
  const TensorData half = TensorData::dense({2, 32}, DType::F16, encode(dense, GgmlType::F16, "w"));
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(half.to_floats()[i], f16_to_f32(f32_to_f16(values[i])));
  for (GgmlType type : kNeutral) {
    const Bytes blocks = encode(dense, type, "w");
    const TensorData quantized = TensorData::of({2, 32}, unpack_blocks(type, blocks));
    EXPECT_EQ(encode(quantized, type, "w"), blocks);  // same scheme: no second rounding
    EXPECT_EQ(TensorData::dense({2, 32}, DType::F32, encode(quantized, GgmlType::F32, "w")).to_floats(),
              quantized.to_floats());
    Bytes fitted(blocks.size());
    quantize_reference(type, values, fitted);
    EXPECT_EQ(blocks, fitted);
  }
}

TEST(Encode, AnyNumberOfThreadsGivesTheSameBytes) {
  const TensorData dense = TensorData::floats({300, 1024}, random_floats(300 * 1024, 4));
  const Bytes one = encode(dense, GgmlType::Q5_1, "w");
  for (int n : {2, 3}) {
    set_threads(n);
    EXPECT_EQ(encode(dense, GgmlType::Q5_1, "w"), one);
  }
  set_threads(1);
}

TEST(Encode, Refusals) {
  EXPECT_EQ(
      error_text([] { encode(TensorData::floats({2, 33}, std::vector<float>(66)), GgmlType::Q4_0, "w"); }),
      "error: the rows of 'w' must be multiples of 32 long to be stored as q4_0, but have 33 elements");
  EXPECT_EQ(error_text([] { encode(TensorData::floats({2}, {1.0f, 70000.0f}), GgmlType::F16, "w"); }),
            "error: the values of 'w' must be within 65504 to be stored as f16, but one is 70000\nhint: "
            "store this tensor as bf16 or f32");
  std::vector<float> values(32);
  values[5] = NAN;
  EXPECT_EQ(error_text([&] { encode(TensorData::floats({32}, values), GgmlType::Q8_0, "w"); }),
            "error: the values of 'w' must be within 8319008 to be stored as q8_0, but one is nan\nhint: "
            "store this tensor as bf16 or f32");
  EXPECT_EQ(encode(TensorData::floats({2}, {1.0f, 70000.0f}), GgmlType::BF16, "w").size(), 4u);
}

// ---- files ----

TEST_F(GgufTest, ReadsWhatThePublicPackageWrote) {
  const GgufFile file = GgufFile::open(kGolden / "small.gguf");
  EXPECT_EQ(*file.find("general.architecture"), GgufValue::text("llama"));
  EXPECT_EQ(file.find("test.u8")->value, (decltype(GgufValue::value)(std::uint64_t{200})));
  EXPECT_EQ(std::get<std::int64_t>(file.find("test.i8")->value), -100);
  EXPECT_EQ(std::get<std::uint64_t>(file.find("test.u16")->value), 60000u);
  EXPECT_EQ(std::get<std::int64_t>(file.find("test.i16")->value), -30000);
  EXPECT_EQ(*file.find("test.u32"), GgufValue::u32(4000000000u));
  EXPECT_EQ(std::get<std::int64_t>(file.find("test.i32")->value), -2000000000);
  EXPECT_EQ(std::get<std::uint64_t>(file.find("test.u64")->value), ~0ull);
  EXPECT_EQ(std::get<std::int64_t>(file.find("test.i64")->value), INT64_MIN);
  EXPECT_EQ(*file.find("test.f32"), GgufValue::f32(0.1f));
  EXPECT_EQ(std::get<double>(file.find("test.f64")->value), 0.1);
  EXPECT_EQ(*file.find("test.yes"), GgufValue::boolean(true));
  EXPECT_EQ(*file.find("test.text"), GgufValue::text("gr\xC3\xBC\xC3\x9F dich\n"));
  EXPECT_EQ(*file.find("test.words"), GgufValue::texts({"a", "", "\xC3\xA9t\xC3\xA9"}));
  EXPECT_EQ(*file.find("test.numbers"), GgufValue::i32s({1, -2, 3}));
  EXPECT_EQ(*file.find("test.reals"), GgufValue::f32s({0.5, -1.25}));
  EXPECT_EQ(std::get<std::vector<std::uint64_t>>(file.find("test.flags")->value),
            (std::vector<std::uint64_t>{1, 0, 1}));
  EXPECT_EQ(file.find("none"), nullptr);
  ASSERT_EQ(file.tensors().size(), 10u);
  EXPECT_EQ(file.find_tensor("dense.f32")->shape, (std::vector<std::int64_t>{3, 5}));
  EXPECT_EQ(file.find_tensor("cube")->shape, (std::vector<std::int64_t>{2, 3, 4}));
  EXPECT_EQ(file.find_tensor("none"), nullptr);
  const TensorData exact = file.read(*file.find_tensor("dense.f32"));
  EXPECT_EQ(exact.bytes.data(), file.bytes(*file.find_tensor("dense.f32")).data());  // zero copy
  const std::vector<float> half = file.read(*file.find_tensor("dense.f16")).to_floats();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(half[i], f16_to_f32(f32_to_f16(exact.to_floats()[i])));
  EXPECT_EQ(file.read(*file.find_tensor("blocks.q4_0")).quantized->scheme, *scheme_of(GgmlType::Q4_0));
  EXPECT_EQ(file.read(*file.find_tensor("blocks.q6_k")).dtype, DType::F32);
  EXPECT_EQ(file.read(*file.find_tensor("blocks.q6_k")).count(), 512);
}

void write_again(const GgufFile& file, const fs::path& path) {
  std::vector<GgufWriter::Entry> entries;
  for (const GgufTensor& t : file.tensors()) entries.push_back({t.name, t.type, t.shape});
  GgufWriter writer(path, file.metadata(), entries);
  for (const GgufTensor& t : file.tensors()) {
    const bool exact = scheme_of(t.type) || dtype_of(t.type);  // through the neutral form where there is one
    const TensorData data = file.read(t);
    writer.write(t.name, exact && info(t.type).writable ? encode(data, t.type, t.name) : copy(file.bytes(t)));
  }
  writer.finish();
}

TEST_F(GgufTest, WritesTheSameBytesAgain) {
  write_again(GgufFile::open(kGolden / "small.gguf"), folder_ / "a.gguf");
  EXPECT_EQ(read_text(folder_ / "a.gguf"), read_text(kGolden / "small.gguf"));  // the package's own bytes
}

TEST_F(GgufTest, AlignmentIsKept) {
  GgufMetadata metadata;
  set(metadata, "general.alignment", GgufValue::u32(8));
  set(metadata, "x", GgufValue::text("old"));
  set(metadata, "x", GgufValue::text("new"));
  EXPECT_EQ(metadata.size(), 2u);
  GgufWriter writer(folder_ / "a", metadata,
                    {{"a", GgmlType::F16, {3}}, {"b", GgmlType::I8, {}}, {"c", GgmlType::F32, {0, 4}}});
  writer.write("a", Bytes(6));
  writer.write("b", Bytes(1, std::byte{7}));
  writer.write("c", {});
  writer.finish();
  const GgufFile file = GgufFile::open(folder_ / "a");
  EXPECT_EQ(file.alignment(), 8u);
  EXPECT_EQ(file.find_tensor("b")->offset, file.find_tensor("a")->offset + 8);
  EXPECT_EQ(file.read(*file.find_tensor("b")).to_floats(), std::vector<float>{7});
  EXPECT_EQ(file.read(*file.find_tensor("c")).count(), 0);
  write_again(file, folder_ / "b");
  EXPECT_EQ(read_text(folder_ / "a"), read_text(folder_ / "b"));
}

TEST_F(GgufTest, WriterRefusals) {
  EXPECT_EQ(error_text([&] { GgufWriter(folder_ / "a", {}, {{std::string(64, 'n'), GgmlType::F32, {1}}}); }),
            "error: a tensor of a GGUF file must have at most 63 bytes of name and 4 dimensions, but '" +
                std::string(64, 'n') + "' has 64 and 1");
  EXPECT_EQ(error_text([&] { GgufWriter(folder_ / "a", {}, {{"w", GgmlType::Q4_0, {3, 33}}}); }),
            "error: the rows of the tensor 'w' must be multiples of 32 long, because it is q4_0, but have 33 "
            "elements");
  EXPECT_EQ(names(), Names{});
}

TEST_F(GgufTest, EveryFailingWriteLeavesNothing) {
  const GgufFile file = GgufFile::open(kGolden / "small.gguf");
  std::uint64_t n = 1;
  for (bool failed = true; failed; ++n) {
    testing::fail_nth_write(n);
    failed = error_text([&] { write_again(file, folder_ / "a"); }) != "no error";
    EXPECT_EQ(names().empty(), failed);
  }
  EXPECT_GT(n, 20u);
}

// ---- hostile files ----

struct Raw {  // a file by hand
  std::string text;
  template <typename T>
  Raw& number(T value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Raw& string(std::string_view s) {
    number<std::uint64_t>(s.size());
    text.append(s);
    return *this;
  }
  Raw& start(std::uint64_t tensors, std::uint64_t pairs, std::uint32_t version = 3) {
    text = "GGUF";
    return number(version).number(tensors).number(pairs);
  }
  Raw& tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
              std::uint64_t offset) {
    string(name).number(static_cast<std::uint32_t>(dims.size()));
    for (std::uint64_t d : dims) number(d);
    return number(type).number(offset);
  }
  Raw& data(std::size_t bytes) {
    text.resize((text.size() + 31) / 32 * 32, '\0');
    text.append(bytes, 'x');
    return *this;
  }
  Bytes bytes() const {
    const auto b = std::as_bytes(std::span(text));
    return {b.begin(), b.end()};
  }
};

std::string refusal(const Raw& raw) {
  const Bytes bytes = raw.bytes();
  const std::string text = error_text([&] { GgufFile::parse(bytes, "m"); });
  return text.substr(0, text.find(" (at byte"));
}

TEST_F(GgufTest, Refusals) {
  EXPECT_EQ(refusal(Raw{"GGU"}), "m: error: the magic number must have 4 bytes, but only 3 are left");
  EXPECT_EQ(refusal(Raw{"GGML0000"}), "m: error: the file must begin with \"GGUF\", but does not");
  EXPECT_EQ(refusal(Raw().start(0, 0, 2)), "m: error: the GGUF version must be 3, but is 2");
  EXPECT_EQ(refusal(Raw().start(0, 0, 3u << 24)),
            "m: error: the file must be little-endian, but is big-endian");
  EXPECT_EQ(refusal(Raw().start(~0ull, 0)),
            "m: error: the tensors must fit in the 0 bytes left, but 18446744073709551615 were announced, "
            "each 24 bytes or more");
  EXPECT_EQ(refusal(Raw().start(0, 1ull << 60)),
            "m: error: the metadata pairs must fit in the 0 bytes left, but 1152921504606846976 were "
            "announced, each 13 bytes or more");
  EXPECT_EQ(refusal(Raw().start(0, 1).number<std::uint64_t>(1ull << 40).data(8)),
            "m: error: a key must have at most 65535 bytes, but has 1099511627776");
  EXPECT_EQ(refusal(Raw().start(0, 1).string("k").number<std::uint32_t>(13).data(8)),
            "m: error: the type of 'k' must be 0 to 12, but is 13");
  EXPECT_EQ(refusal(Raw().start(0, 1).string("k").number<std::uint32_t>(7).number<std::uint8_t>(2)),
            "m: error: 'k' must be 0 or 1, because it is a bool, but is 2");
  EXPECT_EQ(refusal(Raw().start(0, 1).string("k").number<std::uint32_t>(8).number<std::uint64_t>(~0ull)),
            "m: error: k must have 18446744073709551615 bytes, but only 0 are left");
  EXPECT_EQ(refusal(Raw()
                        .start(0, 1)
                        .string("k")
                        .number<std::uint32_t>(9)
                        .number<std::uint32_t>(9)
                        .number<std::uint64_t>(1)),
            "m: error: 'k' must be an array of simple values, but is one of arrays");
  EXPECT_EQ(refusal(Raw()
                        .start(0, 1)
                        .string("k")
                        .number<std::uint32_t>(9)
                        .number<std::uint32_t>(8)
                        .number<std::uint64_t>(1 << 20)),
            "m: error: the array 'k' must fit in the 0 bytes left, but 1048576 were announced, each 8 bytes "
            "or more");
  EXPECT_EQ(refusal(Raw()
                        .start(0, 1)
                        .string("k")
                        .number<std::uint32_t>(9)
                        .number<std::uint32_t>(0)
                        .number<std::uint64_t>(1 << 25)),
            "m: error: the array 'k' must have at most 16777216 elements, but has 33554432");
  Raw twice = Raw().start(0, 2);
  for (int i = 0; i < 2; ++i) twice.string("k").number<std::uint32_t>(4).number<std::uint32_t>(1);
  EXPECT_EQ(refusal(twice), "m: error: a metadata key must stand once, but 'k' is repeated");
  EXPECT_EQ(
      refusal(
          Raw().start(0, 1).string("general.alignment").number<std::uint32_t>(4).number<std::uint32_t>(24)),
      "m: error: 'general.alignment' must be a u32 power of two up to 65536, but is not");
  EXPECT_EQ(
      refusal(
          Raw().start(0, 1).string("general.alignment").number<std::uint32_t>(4).number<std::uint32_t>(0)),
      "m: error: 'general.alignment' must be a u32 power of two up to 65536, but is not");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0)),
            "m: error: the tensor 't' must have at most 4 dimensions, but has 5");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {1ull << 63}, 0, 0)),
            "m: error: the sizes of the tensor 't' must fit 63 bits, but one is 9223372036854775808");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {1ull << 40, 1ull << 40}, 0, 0)),
            "m: error: the number of elements of the tensor 't' must fit 64 bits, but is 1099511627776 x "
            "1099511627776");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {1ull << 62}, 0, 0)),
            "m: error: the tensor 't' must fit 64 bits, but is 4611686018427387904 x 4");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {4}, 16, 0).data(16)),
            "m: error: the type of the tensor 't' must be one that slmc reads, but is number 16");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {33}, 2, 0).data(64)),
            "m: error: the rows of the tensor 't' must be multiples of 32 long, because it is q4_0, but have "
            "33 elements");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {4}, 0, 4).data(64)),
            "m: error: the offset of 't' must be a multiple of 32, but is 4");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {4}, 0, 0).data(15)),
            "m: error: the data of 't' must lie inside the file of 79 bytes, but ends at 80");
  EXPECT_EQ(refusal(Raw().start(1, 0).tensor("t", {4}, 0, ~0ull - 31).data(16)),
            "m: error: the place of 't' must fit 64 bits, but is 18446744073709551584 + 64");
  EXPECT_EQ(refusal(Raw().start(2, 0).tensor("t", {16}, 0, 0).tensor("u", {1}, 0, 32).data(64)),
            "m: error: the data of 'u' must begin behind that of 't', but they overlap");
  EXPECT_EQ(refusal(Raw().start(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).data(64)),
            "m: error: a tensor must stand once, but 't' is repeated");
  EXPECT_EQ(refusal(Raw().start(2, 0).tensor("t", {1}, 0, 0).tensor("u", {1}, 0, 32).data(36)), "no error");
}

TEST_F(GgufTest, CorpusOfTheFuzzerIsSortedIntoGoodAndBad) {
  int good = 0, bad = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(SLMC_SOURCE_DIR) / "tests/fuzz/corpus/gguf")) {
    const std::string text = error_text([&] { GgufFile::open(entry.path()); });
    const bool expected = entry.path().filename().string().starts_with("good_");
    EXPECT_EQ(text == "no error", expected) << entry.path() << ": " << text;
    ++(expected ? good : bad);
  }
  EXPECT_GE(good, 5);
  EXPECT_GE(bad, 20);
}

TEST_F(GgufTest, DamageIsSurvived) {
  Raw good = Raw().start(2, 3).string("general.architecture").number<std::uint32_t>(8).string("llama");
  good.string("a")
      .number<std::uint32_t>(9)
      .number<std::uint32_t>(8)
      .number<std::uint64_t>(2)
      .string("x")
      .string("y");
  good.string("n").number<std::uint32_t>(6).number(1.5f);
  good.tensor("t", {32, 2}, 2, 0).tensor("u", {4}, 0, 64).data(80);
  damage_everywhere(good.bytes(), [](std::span<const std::byte> bytes) {
    const GgufFile file = GgufFile::parse(bytes, "m");
    for (const GgufTensor& t : file.tensors()) file.read(t).to_floats();
  });
}

}  // namespace
}  // namespace slmc::io
