// Damaged and hostile tokenizer files: Error(Data) or Error(Unsupported), never anything else.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/damage.h"
#include "tests/unit/error_text.h"
#include "tests/unit/text_samples.h"
#include "text/tokenizer.h"

namespace slmc::text {
namespace {

constexpr const char* kSmall =
    R"({"version":"1.0","added_tokens":[{"id":4,"content":"<s>","special":true,"lstrip":false}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"x+"},"content":"y"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated","invert":false},
{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
"decoder":{"type":"ByteLevel"},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]},
"model":{"type":"BPE","unk_token":null,"byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2,"abab":3},"merges":[["a","b"],"ab ab"]}})";

void use(std::string_view json) {
  const Tokenizer t = Tokenizer::from_json(json, "small.json");
  const auto ids = t.encode("abab <s> b\u00e9 xx");
  t.decode(ids);
  for (const std::int32_t id : ids) t.piece(id);
  t.content_hash();
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return Bytes(bytes.begin(), bytes.end());
}

TEST(HostileTokenizer, SmallOneWorks) {
  const Tokenizer t = Tokenizer::from_json(kSmall, "small.json");
  EXPECT_EQ(t.encode("ababab<s>b"), (std::vector<std::int32_t>{3, 2, 4, 1}));
  EXPECT_EQ(t.size(), 5);
  EXPECT_EQ(t.bos(), 4);
}

TEST(HostileTokenizer, EveryTruncationAndEveryChangedByte) {
  damage_everywhere(
      bytes_of(kSmall),
      [](std::span<const std::byte> bytes) {
        use({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      },
      ErrorKind::Data);
}

// Replaces each value of the document, one at a time, by values of other types and sizes.
void for_each_value(Json& value, const std::function<void(Json&)>& visit) {
  visit(value);
  if (value.is_structured())
    for (Json& inner : value) for_each_value(inner, visit);
}

TEST(HostileTokenizer, EveryValueReplaced) {
  Json document = Json::parse(kSmall);
  const std::vector<Json> others = {nullptr,
                                    true,
                                    -1,
                                    1,
                                    4294967297,
                                    18446744073709551615u,
                                    1e300,
                                    0.5,
                                    "",
                                    "zz",
                                    "\u20ac",
                                    Json::array(),
                                    Json::array({1, 2}),
                                    Json::array({"a", "b", "c"}),
                                    Json::object(),
                                    Json{{"type", "Sequence"}},
                                    Json{{"a", 1}}};
  int tried = 0, worked = 0;
  for_each_value(document, [&](Json& value) {
    const Json kept = value;
    for (const Json& other : others) {
      value = other;
      worked += survives(
          bytes_of(document.dump()),
          [](std::span<const std::byte> bytes) {
            use({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
          },
          ErrorKind::Data);
      ++tried;
    }
    value = kept;
  });
  EXPECT_GT(tried, 800);
  EXPECT_LT(worked, tried / 2);
}

// A file could ask for 2^n bytes in n lines: each step doubles the text.
TEST(HostileTokenizer, StepsThatBlowUpATextAreRefused) {
  const auto with = [](const char* key, const Json& step, int times) {
    Json document = Json::parse(kSmall);
    const char* list = key == std::string("normalizer") ? "normalizers" : "decoders";
    document[key] = {{"type", "Sequence"}, {list, Json::array()}};
    for (int i = 0; i < times; ++i) document[key][list].push_back(step);
    return document.dump();
  };
  const Json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const AllocationLimit limit(16u << 20);
  EXPECT_EQ(error_text([&] { use(with("normalizer", twice, 40)); }),
            "error: the steps of a tokenizer must not make a text longer than 65616 bytes, but do");
  EXPECT_EQ(error_text([&] { use(with("decoder", twice, 40)); }),
            "error: the steps of a tokenizer must not make a text longer than 65664 bytes, but do");
  EXPECT_EQ(error_text([&] {
              use(with("decoder", {{"type", "Fuse"}}, 65));
            }),
            "small.json: error: 'decoder.decoders[64]' must be at most the 64th step, but is a later one");
}

struct Refusal {
  const char *from, *to, *error;
};

TEST(HostileTokenizer, RefusalsSayWhatAndWhere) {
  const std::vector<Refusal> refusals = {
      {R"("b":1)", R"("b":0)", "small.json: error: the id 0 must belong to one token, but has 'a' and 'b'"},
      {R"("b":1)", R"("b":-1)",
       "small.json: error: the id of token 'b' must be a whole number below 1048576, but is -1"},
      {R"("b":1)", R"("b":1e2)",
       "small.json: error: the id of token 'b' must be a whole number below 1048576, but is 100.0"},
      {R"("b":1)", R"("b":99999999999)",
       "small.json: error: the id of token 'b' must be a whole number below 1048576, but is 99999999999"},
      {R"(["a","b"])", R"(["a","c"])",
       "small.json: error: a merge must join two tokens to a third of the vocabulary, but 'c' of 'a' + 'c' "
       "is not in it"},
      {R"(["a","b"])", R"(["b","b"])",
       "small.json: error: a merge must join two tokens to a third of the vocabulary, but 'bb' of 'b' + 'b' "
       "is not in it"},
      {R"(["a","b"])", R"(["a"])", R"(small.json: error: a merge must be a pair of tokens, but is ["a"])"},
      {R"("ab ab")", R"("abab")",
       "small.json: error: a merge must be two tokens and a blank between them, but is 'abab'"},
      {R"("id":4)", R"("id":7)", "small.json: error: 'added_tokens[0].id' must be 4 for '<s>', but is 7"},
      {R"("type":"BPE")", R"("type":"Unigram")",
       "small.json: error: the tokenizer's model must be BPE, but is Unigram"},
      {R"("type":"NFC")", R"("type":"Precompiled")",
       "small.json: error: the normalizer 'normalizer.normalizers[0]' must be NFC, Prepend, Replace or a "
       "Sequence of them, but is Precompiled"},
      {R"("unk_token":null)", R"("dropout":0.1)", "error: the model's 'dropout' must be absent, but is 0.1"},
      {R"("unk_token":null)", R"("unk_token":"?")",
       "small.json: error: 'model.unk_token' must be in the vocabulary, but is not"},
      {R"("behavior":"Isolated")", R"("behavior":"Glued")",
       "small.json: error: 'pre_tokenizer.pretokenizers[0].behavior' must be a known behavior, but is Glued"},
  };
  for (const Refusal& refusal : refusals) {
    std::string json = kSmall;
    const std::size_t at = json.find(refusal.from);
    ASSERT_NE(at, json.npos) << refusal.from;
    json.replace(at, std::string(refusal.from).size(), refusal.to);
    EXPECT_TRUE(error_text([&] { use(json); }).ends_with(refusal.error)) << error_text([&] { use(json); });
  }
}

io::GgufMetadata small_gguf() {
  io::GgufMetadata m;
  m.emplace_back("tokenizer.ggml.model", io::GgufValue::text("gpt2"));
  m.emplace_back("tokenizer.ggml.pre", io::GgufValue::text("gpt-2"));
  m.emplace_back("tokenizer.ggml.tokens", io::GgufValue::texts({"a", "b", "ab", "<s>"}));
  m.emplace_back("tokenizer.ggml.token_type", io::GgufValue::i32s({1, 1, 1, 3}));
  m.emplace_back("tokenizer.ggml.merges", io::GgufValue::texts({"a b"}));
  m.emplace_back("tokenizer.ggml.bos_token_id", io::GgufValue::u32(3));
  return m;
}

// All cuts of a piece are looked up: without a limit this would take hours.
TEST(HostileTokenizer, PiecesOfMillionsOfCharactersAreNotCutUp) {
  const auto with_piece = [](std::size_t characters) {
    io::GgufMetadata m;
    m.emplace_back("tokenizer.ggml.model", io::GgufValue::text("llama"));
    m.emplace_back("tokenizer.ggml.tokens", io::GgufValue::texts({"<unk>", "a", std::string(characters - 1, 'a'), std::string(characters, 'a')}));
    m.emplace_back("tokenizer.ggml.scores", io::GgufValue::f32s({0, -1, -2, -3}));
    m.emplace_back("tokenizer.ggml.token_type", io::GgufValue::i32s({2, 1, 1, 1}));
    m.emplace_back("tokenizer.ggml.unknown_token_id", io::GgufValue::u32(0));
    return Tokenizer::from_gguf(m, "m.gguf");
  };
  EXPECT_EQ(with_piece(4 << 20).size(), 4);
  EXPECT_EQ(with_piece(1025).piece(3).size(), 1025u);
}

TEST(HostileTokenizer, EveryGgufKeyReplacedOrMissing) {
  EXPECT_EQ(Tokenizer::from_gguf(small_gguf(), "m").encode("ab<s>a"), (std::vector<std::int32_t>{2, 3, 0}));
  const std::vector<io::GgufValue> others = {io::GgufValue::u32(4000000000u),
                                             io::GgufValue::i32s({-5}),
                                             io::GgufValue::f32(1),
                                             io::GgufValue::boolean(true),
                                             io::GgufValue::text("llama"),
                                             io::GgufValue::text("zz"),
                                             io::GgufValue::texts({}),
                                             io::GgufValue::texts({"", "\xff", "", ""}),
                                             io::GgufValue::f32s({1, 2, 3, 4})};
  int refused = 0;
  const auto attempt = [&](const io::GgufMetadata& metadata) {
    const AllocationLimit limit(16u << 20);
    try {
      Tokenizer::from_gguf(metadata, "m").encode("ab");
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == ErrorKind::Data || error.kind() == ErrorKind::Unsupported) << error.text();
      ++refused;
    }
  };
  for (std::size_t key = 0; key < small_gguf().size(); ++key) {
    for (const io::GgufValue& other : others) {
      io::GgufMetadata metadata = small_gguf();
      metadata[key].second = other;
      attempt(metadata);
    }
    io::GgufMetadata metadata = small_gguf();
    metadata.erase(metadata.begin() + static_cast<std::ptrdiff_t>(key));
    attempt(metadata);
  }
  EXPECT_GT(refused, 35);
  EXPECT_EQ(error_text([] {
              io::GgufMetadata metadata = small_gguf();
              io::set(metadata, "tokenizer.ggml.pre", io::GgufValue::text("tekken"));
              Tokenizer::from_gguf(metadata, "m.gguf");
            }),
            "m.gguf: error: tokenizer.ggml.pre must be a known set of rules (gpt-2, smollm, command-r, olmo, "
            "llama-bpe, smaug-bpe, qwen2, stablelm2, "
            "default), but is 'tekken'");
}

}  // namespace
}  // namespace slmc::text
