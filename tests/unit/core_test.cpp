// lib/core against outside truth: FIPS 180-4 and Random123 vectors, a slow fp64 oracle for small floats, byte
// literals, and whole error texts.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/cancel.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/units.h"
#include "tests/unit/error_text.h"

namespace slmc {
namespace {

// ---- error ----

TEST(Error, TextWithCaret) {
  const Error error(ErrorKind::Recipe, Place{"tiny.yaml", 14, 7, 7, "      sparsty: 0.5"},
                    "unknown key 'sparsty' in stage 'width' (prune.width)", "did you mean 'sparsity'?");
  EXPECT_EQ(error.text(),
            "tiny.yaml:14:7: error: unknown key 'sparsty' in stage 'width' (prune.width)\n"
            "   14 |       sparsty: 0.5\n"
            "      |       ^~~~~~~ did you mean 'sparsity'?");
  EXPECT_STREQ(error.what(), error.text().c_str());
}

TEST(Error, TextWithoutPlaceAndWithTrail) {
  Error error(ErrorKind::Model, "the model must be there, but is not", "run scripts/setup");
  EXPECT_EQ(error.text(), "error: the model must be there, but is not\nhint: run scripts/setup");
  error.while_doing("while reading the teacher").while_doing("while applying stage 'heal'");
  EXPECT_EQ(error.text(),
            "error: the model must be there, but is not\nhint: run scripts/setup\n"
            "  while reading the teacher\n  while applying stage 'heal'");
  EXPECT_EQ(Error(ErrorKind::Model, Place{"a.gguf", 0, 0, 1, {}}, "bad").in_file("b.gguf").text(),
            "a.gguf: error: bad");
  EXPECT_STREQ(Error(ErrorKind::Model, "bad").in_file("b.gguf").what(), "b.gguf: error: bad");
}

TEST(Error, SeveralAreSortedByPosition) {
  const Error error(ErrorKind::Recipe, {{"second", {"a.yaml", 9, 1, 1, "x: 1"}, ""},
                                        {"first", {"a.yaml", 2, 3, 1, "  y"}, "h"}});
  EXPECT_EQ(error.text(),
            "a.yaml:2:3: error: first\n    2 |   y\n      |   ^ h\n"
            "a.yaml:9:1: error: second\n    9 | x: 1\n      | ^");
}

TEST(Error, CaretStandsUnderItsCharacter) {
  const std::string line =
      std::string(300, 'a') + "\t\xC3\xA4X" + std::string(300, 'b');  // minified, with a two-byte letter
  const std::string text = Error(ErrorKind::Data, Place{"m.json", 1, 303, 1, line}, "bad").text();
  EXPECT_EQ(text, "m.json:1:303: error: bad\n    1 | " + std::string(48, 'a') + " \xC3\xA4X" +
                      std::string(49, 'b') + "\n      | " + std::string(50, ' ') + "^");
}

TEST(Error, KindsHaveNamesAndExitCodes) {
  const std::pair<ErrorKind, int> kinds[] = {
      {ErrorKind::Usage, 2},   {ErrorKind::Recipe, 2},        {ErrorKind::Model, 4},
      {ErrorKind::Data, 4},    {ErrorKind::Unsupported, 4},   {ErrorKind::Resource, 5},
      {ErrorKind::Numeric, 1}, {ErrorKind::Interrupted, 130}, {ErrorKind::Internal, 1}};
  for (const auto& [kind, code] : kinds) {
    EXPECT_EQ(error_kind_from(to_string(kind)), kind);
    EXPECT_EQ(exit_code(kind), code);
  }
  EXPECT_EQ(error_kind_from("nonsense"), ErrorKind::Internal);
}

TEST(Error, ChecksNameTheCondition) {
  const std::string text = error_text([] { SLMC_CHECK(1 + 1 == 3); });
  EXPECT_NE(text.find("error: a bug in slmc: '1 + 1 == 3' must hold"), std::string::npos) << text;
}

TEST(Error, ClosestName) {
  const std::vector<std::string> names = {"sparsity", "group", "ffn"};
  EXPECT_EQ(closest("sparsty", names), "sparsity");
  EXPECT_EQ(closest("gruop", names), "group");
  EXPECT_EQ(closest("fn", names), "ffn");
  EXPECT_EQ(closest("temperature", names), "");
  EXPECT_EQ(closest("x", {}), "");
}

// ---- bytes ----

TEST(Bytes, ReadsLittleEndian) {
  const std::uint8_t raw[] = {0x01, 0x02, 0x03, 0x01, 0, 0, 0x80, 1,    2,   3,  4,
                              5,    6,    7,    8,    0, 0, 0x80, 0x3f, 'h', 'i'};
  ByteReader in(std::as_bytes(std::span(raw)), "f");
  EXPECT_EQ(in.u8("a"), 1);
  EXPECT_EQ(in.u16("a"), 0x0302);
  EXPECT_EQ(in.i32("a"), std::numeric_limits<std::int32_t>::min() + 1);
  EXPECT_EQ(in.u64("a"), 0x0807060504030201u);
  EXPECT_EQ(in.f32("a"), 1.0f);
  EXPECT_EQ(in.position(), 19u);
  EXPECT_EQ(error_text([&] { in.u32("the version"); }),
            "f: error: the version must have 4 bytes, but only 2 are left (at byte 19)");
  EXPECT_EQ(in.text(2, "a"), "hi");
  EXPECT_EQ(in.left(), 0u);
}

TEST(Bytes, HugeNumbersAreRefused) {
  const std::uint8_t raw[16] = {};
  const ByteReader in(std::as_bytes(std::span(raw)), "f");
  in.require_room(4, 4, "tensors");
  EXPECT_EQ(error_text([&] { in.require_room(5, 4, "the tensors"); }),
            "f: error: the tensors must fit in the 16 bytes left, but 5 were announced, each 4 bytes or more "
            "(at byte 0)");
  EXPECT_THROW(in.require_room(~0ull, 8, "tensors"), Error);
  EXPECT_EQ(checked_mul(1ull << 32, (1ull << 32) - 1, "x"), 0xffffffff00000000u);
  EXPECT_EQ(error_text([] { checked_mul(1ull << 32, 1ull << 32, "the size"); }),
            "error: the size must fit 64 bits, but is 4294967296 x 4294967296");
  EXPECT_EQ(error_text([] { checked_add(~0ull, 1, "the end"); }),
            "error: the end must fit 64 bits, but is 18446744073709551615 + 1");
}

TEST(Bytes, Shapes) {
  EXPECT_EQ(element_count({}, "x"), 1u);
  EXPECT_EQ(element_count(std::vector<std::int64_t>{3, 0, 5}, "x"), 0u);
  EXPECT_EQ(element_count(std::vector<std::int64_t>{576, 1536}, "x"), 884736u);
  EXPECT_EQ(shape_text(std::vector<std::int64_t>{576, 1536}), "[576, 1536]");
  EXPECT_EQ(error_text([] { element_count(std::vector<std::int64_t>{3, -1}, "'w'"); }),
            "error: the sizes of 'w' must not be negative, but are [3, -1]");
  EXPECT_THROW(element_count(std::vector<std::int64_t>{INT64_MAX, 3}, "x"), Error);
}

// ---- hash ----

TEST(Sha256, FipsVectors) {
  for (auto path : {Sha256::Path::Fastest, Sha256::Path::Portable}) {
    EXPECT_EQ(Sha256(path).hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(Sha256(path).add("abc").hex(),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(Sha256(path).add("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq").hex(),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(Sha256(path).add(std::string(1000000, 'a')).hex(),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST(Sha256, PathsAgreeForEveryLengthAndCut) {
  const Rng rng(7);
  std::string data;
  for (std::uint64_t i = 0; i < 300; ++i) data += static_cast<char>(rng.bits(i));
  for (std::size_t size = 0; size <= data.size(); ++size) {
    const std::string_view text = std::string_view(data).substr(0, size);
    const std::string whole = Sha256(Sha256::Path::Portable).add(text).hex();
    EXPECT_EQ(sha256(text), whole);
    const std::size_t cut = rng.below(size + 1, size);
    EXPECT_EQ(Sha256().add(text.substr(0, cut)).add(text.substr(cut)).hex(), whole)
        << size << " cut at " << cut;
  }
}

TEST(Sha256, NumbersSeparateTexts) {
  EXPECT_NE(Sha256().add_number(2).add("ab").add_number(1).add("c").hex(),
            Sha256().add_number(1).add("a").add_number(2).add("bc").hex());
  EXPECT_EQ(Sha256().add_number(0x0807060504030201).hex(), sha256("\x01\x02\x03\x04\x05\x06\x07\x08"));
}

// ---- random numbers ----

TEST(Philox, Random123KnownAnswers) {  // kat_vectors of Random123 1.14, "philox4x32 10"
  using Counter = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, NumbersAreWordsOfBlocks) {
  EXPECT_EQ(Rng(0).bits(0), 0xe169c58d6627e8d5u);
  EXPECT_EQ(Rng(0).bits(1), 0x9b00dbd8bc57ac4cu);
  EXPECT_NE(Rng(0, 1).bits(0), Rng(0).bits(0));
  EXPECT_NE(Rng(1).bits(0), Rng(0).bits(0));
}

TEST(Rng, MomentsAndRanges) {
  const Rng rng(42);
  const int n = 100000;
  double mean = 0, square = 0, normal_mean = 0, normal_square = 0, normal_fourth = 0;
  std::vector<int> counts(7);
  for (std::uint64_t i = 0; i < n; ++i) {
    const double u = rng.uniform(i), z = rng.normal(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    mean += u / n, square += u * u / n;
    normal_mean += z / n, normal_square += z * z / n, normal_fourth += z * z * z * z / n;
    ++counts[rng.below(7, i)];
  }
  EXPECT_NEAR(mean, 0.5, 0.005);  // five standard errors
  EXPECT_NEAR(square, 1.0 / 3, 0.005);
  EXPECT_NEAR(normal_mean, 0, 0.016);
  EXPECT_NEAR(normal_square, 1, 0.023);
  EXPECT_NEAR(normal_fourth, 3, 0.16);
  for (int count : counts) EXPECT_NEAR(count, n / 7.0, 560);
}

TEST(Rng, PermutationHoldsEveryIndexOnce) {
  std::vector<std::int64_t> p = Rng(3).permutation(1000);
  EXPECT_NE(p, Rng(4).permutation(1000));
  EXPECT_EQ(p, Rng(3).permutation(1000));
  std::sort(p.begin(), p.end());
  for (std::int64_t i = 0; i < 1000; ++i) EXPECT_EQ(p[static_cast<std::size_t>(i)], i);
  EXPECT_TRUE(Rng(3).permutation(0).empty());
}

TEST(Rng, DerivedSeeds) {
  EXPECT_EQ(derive_seed(1, "width"), derive_seed(1, "width"));
  EXPECT_NE(derive_seed(1, "width"), derive_seed(2, "width"));
  EXPECT_NE(derive_seed(1, "width"), derive_seed(1, "depth"));
}

// ---- small floats ----

// Value of a float with `exponent` exponent bits and `fraction` fraction bits, by the definition, in fp64.
double slow_value(std::uint32_t bits, int exponent, int fraction, bool has_infinity) {
  const std::uint32_t e = bits >> fraction & ((1u << exponent) - 1), f = bits & ((1u << fraction) - 1);
  const double sign = bits >> (exponent + fraction) & 1 ? -1 : 1;
  const int bias = (1 << (exponent - 1)) - 1;
  const bool largest = e == (1u << exponent) - 1;
  if (has_infinity && largest) return f ? NAN : sign * INFINITY;
  if (!has_infinity && largest && f == (1u << fraction) - 1) return NAN;
  if (e == 0) return sign * std::ldexp(f, 1 - bias - fraction);
  return sign * std::ldexp(f + (1u << fraction), static_cast<int>(e) - bias - fraction);
}

void expect_same(float got, double want, std::uint32_t bits) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << bits;
  } else {
    EXPECT_EQ(got, want) << bits;
    EXPECT_EQ(std::signbit(got), std::signbit(want)) << bits;
  }
}

TEST(DType, SmallFloatsAreExact) {
  for (std::uint32_t b = 0; b < 65536; ++b) {
    expect_same(f16_to_f32(static_cast<std::uint16_t>(b)), slow_value(b, 5, 10, true), b);
    expect_same(bf16_to_f32(static_cast<std::uint16_t>(b)), slow_value(b, 8, 7, true), b);
    EXPECT_EQ(f32_to_f16(f16_to_f32(static_cast<std::uint16_t>(b))), b);  // NaN payloads too
    EXPECT_EQ(f32_to_bf16(bf16_to_f32(static_cast<std::uint16_t>(b))), b);
  }
  for (std::uint32_t b = 0; b < 256; ++b) {
    expect_same(f8_e4m3_to_f32(static_cast<std::uint8_t>(b)), slow_value(b, 4, 3, false), b);
    expect_same(f8_e5m2_to_f32(static_cast<std::uint8_t>(b)), slow_value(b, 5, 2, true), b);
  }
}

TEST(DType, RoundingGoesToTheNearestAndTiesToEven) {
  const struct {
    int exponent, fraction;
    std::uint16_t (*convert)(float);
  } formats[] = {{5, 10, f32_to_f16}, {8, 7, f32_to_bf16}};
  for (const auto& format : formats) {
    const std::uint32_t infinity = ((1u << format.exponent) - 1) << format.fraction;
    for (std::uint32_t b = 0; b < infinity; ++b) {
      const double low = slow_value(b, format.exponent, format.fraction, true);
      double high = slow_value(b + 1, format.exponent, format.fraction, true);
      if (b + 1 == infinity) high = low + (low - slow_value(b - 1, format.exponent, format.fraction, true));
      const auto middle = static_cast<float>(low + (high - low) / 2);  // exact: at most one bit more
      EXPECT_EQ(format.convert(static_cast<float>(low)), b);
      EXPECT_EQ(format.convert(static_cast<float>(-low)), b | 0x8000u);
      const std::uint32_t even = b % 2 == 0 ? b : b + 1;
      EXPECT_EQ(format.convert(middle), even) << b;
      EXPECT_EQ(format.convert(-middle), even | 0x8000u) << b;
      EXPECT_EQ(format.convert(std::nextafter(middle, 0.0f)), b);
      EXPECT_EQ(format.convert(std::nextafter(middle, INFINITY)), b + 1);
    }
    EXPECT_EQ(format.convert(INFINITY), infinity);
    EXPECT_EQ(format.convert(-INFINITY), infinity | 0x8000u);
    EXPECT_EQ(format.convert(std::numeric_limits<float>::max()), infinity);
    EXPECT_EQ(format.convert(1e-45f), 0);
    for (std::uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu}) {
      EXPECT_GT(format.convert(std::bit_cast<float>(nan)) & 0x7fffu, infinity);
    }
  }
}

using Floats = std::vector<float>;

template <typename T>
Floats as_floats(DType type, std::vector<T> values) {
  std::vector<std::byte> shifted(1);  // odd address: files promise no alignment
  for (std::byte b : std::as_bytes(std::span(values))) shifted.push_back(b);
  std::vector<float> out(values.size());
  to_f32(type, std::span(shifted).subspan(1), out);
  return out;
}

TEST(DType, EveryTypeConverts) {
  EXPECT_EQ(as_floats<double>(DType::F64, {0.1, -1e300, 3}), (Floats{0.1f, -INFINITY, 3.0f}));
  EXPECT_EQ(as_floats<float>(DType::F32, {0.1f, -0.0f}), (Floats{0.1f, 0.0f}));
  EXPECT_EQ(as_floats<std::uint16_t>(DType::F16, {0x3c00, 0x8001}), (Floats{1.0f, -0x1p-24f}));
  EXPECT_EQ(as_floats<std::uint16_t>(DType::BF16, {0x3f80, 0xc040}), (Floats{1.0f, -3.0f}));
  EXPECT_EQ(as_floats<std::uint8_t>(DType::F8_E4M3, {0x38, 0x7e}), (Floats{1.0f, 448.0f}));
  EXPECT_EQ(as_floats<std::uint8_t>(DType::F8_E5M2, {0x3c, 0x7b}), (Floats{1.0f, 57344.0f}));
  EXPECT_EQ(as_floats<std::int64_t>(DType::I64, {-5, (1ll << 24) + 1}), (Floats{-5.0f, 16777216.0f}));
  EXPECT_EQ(as_floats<std::int32_t>(DType::I32, {-7, 9}), (Floats{-7.0f, 9.0f}));
  EXPECT_EQ(as_floats<std::int16_t>(DType::I16, {-7, 9}), (Floats{-7.0f, 9.0f}));
  EXPECT_EQ(as_floats<std::int8_t>(DType::I8, {-7, 9}), (Floats{-7.0f, 9.0f}));
  EXPECT_EQ(as_floats<std::uint64_t>(DType::U64, {~0ull}), (Floats{0x1p64f}));
  EXPECT_EQ(as_floats<std::uint32_t>(DType::U32, {~0u}), (Floats{0x1p32f}));
  EXPECT_EQ(as_floats<std::uint16_t>(DType::U16, {65535}), (Floats{65535.0f}));
  EXPECT_EQ(as_floats<std::uint8_t>(DType::U8, {255}), (Floats{255.0f}));
  EXPECT_EQ(as_floats<std::uint8_t>(DType::Bool, {0, 1, 7}), (Floats{0.0f, 1.0f, 1.0f}));
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(dtype_from(to_string(type)), type);
  }
  EXPECT_EQ(dtype_from("f32"), std::nullopt);
}

TEST(DType, WritesWhatItReads) {
  const std::vector<float> values = {0.0f, -1.5f, 448.0f, 0x1p-14f, INFINITY};
  for (DType type : {DType::F64, DType::F32, DType::F16, DType::BF16}) {
    std::vector<std::byte> bytes(values.size() * size_of(type));
    from_f32(type, values, bytes);
    std::vector<float> back(values.size());
    to_f32(type, bytes, back);
    EXPECT_EQ(back, values) << to_string(type);
  }
}

// ---- units ----

TEST(Units, Bytes) {
  EXPECT_EQ(parse_bytes("80MB"), 80000000u);
  EXPECT_EQ(parse_bytes("80 MiB"), 83886080u);
  EXPECT_EQ(parse_bytes("1.5GiB"), 1610612736u);
  EXPECT_EQ(parse_bytes("512"), 512u);
  EXPECT_EQ(parse_bytes("1kB"), 1000u);
  EXPECT_EQ(parse_bytes("18446744073709551615"), std::nullopt);  // 20 digits: more than any disk
  for (const char* bad : {"", "MB", "80mb", "-1", "1e3", "1.2.3", "80 M B", ".", "99999999TB", "nan"}) {
    EXPECT_EQ(parse_bytes(bad), std::nullopt) << bad;
  }
}

TEST(Units, CountsAreWhole) {
  EXPECT_EQ(parse_count("60k"), 60000u);
  EXPECT_EQ(parse_count("1.6M"), 1600000u);
  EXPECT_EQ(parse_count("2B"), 2000000000u);
  EXPECT_EQ(parse_count("0.5"), std::nullopt);
  EXPECT_EQ(parse_count("1.2345k"), std::nullopt);
  EXPECT_EQ(parse_count("0." + std::string(60, '0') + "1k"), std::nullopt);
}

TEST(Units, Numbers) {
  EXPECT_EQ(parse_number("1e-5"), 1e-5);
  EXPECT_EQ(parse_number("+0.25"), 0.25);
  EXPECT_EQ(parse_number("-3"), -3.0);
  for (const char* bad : {"", "1,5", "nan", "inf", "1e999", "+-1", " 1", "1 ", "0x10"})
    EXPECT_EQ(parse_number(bad), std::nullopt) << bad;
}

TEST(Units, Seconds) {
  EXPECT_EQ(parse_seconds("90s"), 90.0);
  EXPECT_EQ(parse_seconds("15m"), 900.0);
  EXPECT_EQ(parse_seconds("1.5h"), 5400.0);
  EXPECT_EQ(parse_seconds("250ms"), 0.25);
  EXPECT_EQ(parse_seconds("2"), 2.0);
  EXPECT_EQ(parse_seconds("2d"), std::nullopt);
}

TEST(Units, Formats) {
  EXPECT_EQ(format_bytes(98362432), "98.4 MB");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(999949), "999.9 kB");
  EXPECT_EQ(format_bytes(999950), "1.0 MB");
  EXPECT_EQ(format_count(812), "812");
  EXPECT_EQ(format_count(60000), "60.0 k");
  EXPECT_EQ(format_count(134515008), "134.5 M");
  EXPECT_EQ(format_seconds(0.84), "0.84 s");
  EXPECT_EQ(format_seconds(12.34), "12.3 s");
  EXPECT_EQ(format_seconds(59.96), "1 min 0 s");
  EXPECT_EQ(format_seconds(192), "3 min 12 s");
  EXPECT_EQ(format_seconds(7500), "2 h 5 min");
  EXPECT_EQ(format_number(0.1), "0.1");
  EXPECT_EQ(format_number(1e22), "1e+22");
  EXPECT_EQ(format_number(3), "3");
}

// ---- json ----

std::string json_error(std::string_view json) {
  return error_text([&] { parse_json(json, "a.json", ErrorKind::Recipe); });
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json json = parse_json(R"({"z": [1, -2, 1.5, 1e3, true, null, "\u00e4\"\\"], "a": {"": {}}})", "x",
                               ErrorKind::Data);
  EXPECT_EQ(dump_compact(json),
            "{\"z\":[1,-2,1.5,1000.0,true,null,\"\xC3\xA4\\\"\\\\\"],\"a\":{\"\":{}}}");  // order kept
  EXPECT_EQ(parse_json("18446744073709551615", "x", ErrorKind::Data).get<std::uint64_t>(), ~0ull);
}

TEST(Json, DuplicateKeysAreErrorsWithTheirPlace) {
  EXPECT_EQ(json_error("{\n  \"a\": 1,\n  \"b\": {\"a\": 1},\n  \"a\": 2\n}"),
            "a.json:4:3: error: a key must stand once in its object, but 'a' is repeated\n"
            "    4 |   \"a\": 2\n"
            "      |   ^~~");
  EXPECT_EQ(json_error(R"({"x\\\"y": 1, "x\\\"y": 2})"),
            "a.json:1:15: error: a key must stand once in its object, but 'x\\\"y' is repeated\n"
            "    1 | {\"x\\\\\\\"y\": 1, \"x\\\\\\\"y\": 2}\n"
            "      |               ^~~~~~~~");
  EXPECT_EQ(json_error(R"({"": 1, "": 2})").substr(0, 13), "a.json:1:9: e");
}

TEST(Json, SyntaxErrorsHaveLineAndColumn) {
  EXPECT_EQ(json_error("{\n  \"\xC3\xA4\": nul\n}"),
            "a.json:2:11: error: the text must be JSON, but has a syntax error while parsing value - invalid "
            "literal\n"
            "    2 |   \"\xC3\xA4\": nul\n"
            "      |           ^");
  for (const char* bad : {"", "{", "[1,]", "{\"a\" 1}", "{a: 1}", "1 2", "NaN", "[Infinity]", "'x'",
                          "\"\\x\"", "\"a\nb\"", "[1e999]", "01", "\"\xff\"", "// c\n1", "\"\\ud800\""}) {
    EXPECT_EQ(json_error(bad).substr(0, 7), "a.json:") << bad;
  }
}

TEST(Json, NestingIsLimited) {
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  EXPECT_EQ(json_error(deep), "no error");
  EXPECT_EQ(json_error("[" + deep + "]").substr(0, 73),
            "a.json:1:201: error: the nesting must be at most 200 deep, but is deeper\n");
  EXPECT_NE(json_error(std::string(1000000, '[')), "no error");
}

TEST(Json, ManyKeysAreFast) {  // a vocabulary; looking each key up in a list would take minutes
  std::string text = "{";
  for (int i = 0; i < 200000; ++i) text += (i ? ",\"" : "\"") + std::to_string(i) + "\":" + std::to_string(i);
  EXPECT_EQ(parse_json(text + "}", "x", ErrorKind::Data).size(), 200000u);
}

TEST(Fields, ReadsTypedFields) {
  const Json json =
      parse_json(R"({"t": "x", "i": 3, "n": 1.5, "b": true, "ts": ["a"], "is": [1, 2], "o": {"k": 1}})", "f",
                 ErrorKind::Recipe);
  Fields fields(json, "f", "", ErrorKind::Recipe);
  EXPECT_EQ(fields.text("t"), "x");
  EXPECT_EQ(fields.text_or("none", "y"), "y");
  EXPECT_EQ(fields.integer("i"), 3);
  EXPECT_EQ(fields.integer_or("none", 4), 4);
  EXPECT_EQ(fields.number("n"), 1.5);
  EXPECT_EQ(fields.number("i"), 3.0);
  EXPECT_EQ(fields.number_or("none", 0.5), 0.5);
  EXPECT_TRUE(fields.boolean_or("b", false));
  EXPECT_EQ(fields.texts_or("ts", {}), std::vector<std::string>{"a"});
  EXPECT_EQ(fields.integers("is"), (std::vector<std::int64_t>{1, 2}));
  Fields inner = fields.object("o");
  EXPECT_EQ(error_text([&] { inner.text("k"); }), "f: error: 'o.k' must be a string, but is 1");
  inner.finish();
  fields.finish();
}

TEST(Fields, WrongTypesAndUnknownKeys) {
  const Json json =
      parse_json(R"({"sparsty": 1.5, "group": "x", "big": 18446744073709551615, "l": [1, "a"]})", "f",
                 ErrorKind::Recipe);
  Fields fields(json, "f", "a.b[1]", ErrorKind::Recipe);
  EXPECT_EQ(error_text([&] { fields.integer("group"); }),
            "f: error: 'a.b[1].group' must be a whole number of 64 bits, but is \"x\"");
  EXPECT_EQ(error_text([&] { fields.integer("big"); }),
            "f: error: 'a.b[1].big' must be a whole number of 64 bits, but is 18446744073709551615");
  EXPECT_EQ(error_text([&] { fields.integers("l"); }),
            "f: error: 'a.b[1].l' must be an array of whole numbers, but holds \"a\"");
  EXPECT_EQ(error_text([&] { fields.object("l"); }),
            "f: error: 'a.b[1].l' must be an object, but is an array");
  EXPECT_EQ(error_text([&] { fields.text("sparsity"); }),
            "f: error: 'a.b[1].sparsity' must be present, but is missing");
  EXPECT_EQ(
      error_text([&] { fields.finish(); }),
      "f: error: the key 'a.b[1].sparsty' must be a known one, but is not\nhint: did you mean 'sparsity'?");
  EXPECT_EQ(error_text([&] { Fields(Json::array(), "f", "", ErrorKind::Recipe); }),
            "f: error: the document must be an object, but is an array");
}

// ---- cancel, threads ----

TEST(Cancel, StopsAtTheNextPoint) {
  clear_cancel();
  cancel_point("nothing");
  request_cancel(15);
  EXPECT_EQ(cancel_requested(), 15);
  EXPECT_EQ(error_text([] { cancel_point("step 12 is saved"); }),
            "error: stopped as asked; step 12 is saved");
  clear_cancel();
}

TEST(Parallel, EveryPieceOnceForAnyNumberOfThreads) {
  for (int n : {1, 2, 3, 8}) {
    set_threads(n);
    std::vector<std::atomic<int>> seen(1000);
    parallel_for(1000, [&](std::int64_t i) {
      parallel_for(2, [&](std::int64_t) { ++seen[static_cast<std::size_t>(i)]; });  // nested: runs in place
    });
    for (const auto& count : seen) EXPECT_EQ(count, 2);
    parallel_for(0, [](std::int64_t) { FAIL(); });
  }
  set_threads(1);
}

TEST(Parallel, LowestFailureWins) {
  for (int n : {1, 2, 3, 8}) {
    set_threads(n);
    for (int round = 0; round < 50; ++round) {
      EXPECT_EQ(error_text([] {
                  parallel_for(64, [](std::int64_t i) {
                    if (i % 7 == 5) throw Error(ErrorKind::Numeric, "piece " + std::to_string(i));
                  });
                }),
                "error: piece 5");
    }
  }
  set_threads(1);
}

}  // namespace
}  // namespace slmc
