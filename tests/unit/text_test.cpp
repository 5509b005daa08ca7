// Tokenizers against the `tokenizers` package (stored ids, tests/data/tokenizers) and against themselves: two
// file formats, two merge loops, threads.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "core/parallel.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"
#include "tests/unit/text_samples.h"
#include "text/tokenizer.h"

namespace slmc::text {
namespace {

using Ids = std::vector<std::int32_t>;

const std::vector<std::string> kStyles = {"smollm", "gpt2",   "neox",    "llama3",
                                          "qwen2",  "llama2", "mistral", "flags"};

std::filesystem::path stored(const std::string& style) {
  return source_file("tests/data/tokenizers/" + style + ".json");
}

const Json& goldens() {
  static const Json all = read_json(source_file("tests/data/tokenizers/goldens.json"), ErrorKind::Data);
  return all;
}

struct Digest {
  std::size_t texts = 0, tokens = 0;
  std::string sha256;
  bool operator==(const Digest&) const = default;
};

Digest digest(const Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  Sha256 hash;
  Digest digest{texts.size(), 0, ""};
  for (const std::string& text : texts) {
    const Ids ids = tokenizer.encode(text);
    const auto count = static_cast<std::uint32_t>(ids.size());
    hash.add(std::as_bytes(std::span(&count, 1))).add(std::as_bytes(std::span(ids)));
    digest.tokens += ids.size();
  }
  digest.sha256 = hash.hex();
  return digest;
}

class EachStyle : public ::testing::TestWithParam<std::string> {
 protected:
  Tokenizer tokenizer() const { return Tokenizer::from_file(stored(GetParam())); }
  const Json& golden() const { return goldens().at(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Tokenizer, EachStyle, ::testing::ValuesIn(kStyles),
                         [](const auto& one) { return one.param; });

TEST_P(EachStyle, IdsOfDocumentsEqualThoseOfTokenizers) {
  const Tokenizer t = tokenizer();
  int files = 0;
  for (const char* name : {"calib.jsonl", "heldout.jsonl", "wiki.test.txt"}) {
    const Json& expected = golden().at(name);
    const Digest got = digest(t, documents_of(source_file(std::string("configs/data/") + name)));
    EXPECT_EQ(got.texts, expected["texts"].get<std::size_t>()) << name;
    EXPECT_EQ(got.tokens, expected["tokens"].get<std::size_t>()) << name;
    EXPECT_EQ(got.sha256, expected["sha256"].get<std::string>()) << name;
    ++files;
  }
  EXPECT_EQ(files, 3);
}

TEST_P(EachStyle, IdsOfTenThousandRandomStringsEqualThoseOfTokenizers) {
  const Json& expected = golden().at("random");
  const Digest got = digest(tokenizer(), random_strings());
  EXPECT_EQ(got.texts, 10000u);
  EXPECT_EQ(got.tokens, expected["tokens"].get<std::size_t>());
  EXPECT_EQ(got.sha256, expected["sha256"].get<std::string>());
}

TEST_P(EachStyle, ExamplesAndDecodedTextEqualThoseOfTokenizers) {
  const Tokenizer t = tokenizer();
  ASSERT_EQ(golden().at("examples").size(), 11u);
  for (const Json& example : golden().at("examples")) {
    const Ids expected = example["ids"].get<Ids>();
    EXPECT_EQ(t.encode(example["text"].get<std::string>()), expected) << example["text"];
    EXPECT_EQ(t.decode(expected), example["decoded"].get<std::string>()) << example["text"];
    EXPECT_EQ(t.decode(expected, true), example["without_special"].get<std::string>()) << example["text"];
  }
}

TEST_P(EachStyle, IdsDoNotDependOnThreadsOrOnWhatWasEncodedBefore) {
  const Tokenizer t = tokenizer();
  const std::vector<std::string> texts = documents_of(source_file("configs/data/heldout.jsonl"));
  std::vector<Ids> first, together(texts.size());
  for (const std::string& text : texts) first.push_back(tokenizer().encode(text));
  set_threads(3);
  parallel_for(static_cast<std::int64_t>(texts.size()), [&](std::int64_t i) {
    together[static_cast<std::size_t>(i)] = t.encode(texts[static_cast<std::size_t>(i)]);
  });
  set_threads(0);
  EXPECT_EQ(first, together);
}

TEST_P(EachStyle, VerbatimJsonAndHash) {
  const std::string json = read_text(stored(GetParam()));
  EXPECT_EQ(tokenizer().to_json(), json);
  EXPECT_EQ(tokenizer().content_hash(), Tokenizer::from_json(json, "again").content_hash());
  for (const std::string& other : kStyles) {
    EXPECT_EQ(tokenizer().content_hash() == Tokenizer::from_file(stored(other)).content_hash(),
              other == GetParam())
        << other;
  }
}

// Through GGUF and back: the same ids on every text, from the metadata and from the tokenizer.json made of
// it.
class ThroughGguf : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Tokenizer, ThroughGguf,
                         ::testing::Values(std::pair("smollm", "smollm"), std::pair("gpt2", "gpt-2"),
                                           std::pair("neox", "olmo"), std::pair("llama3", "llama-bpe"),
                                           std::pair("qwen2", "qwen2"), std::pair("llama2", "default")),
                         [](const auto& one) { return one.param.first; });

TEST_P(ThroughGguf, GivesTheSameIds) {
  const auto& [style, pre] = GetParam();
  const Tokenizer original = Tokenizer::from_file(stored(style));
  const io::GgufMetadata metadata = original.to_gguf();
  EXPECT_EQ(std::get<std::string>(io::find(metadata, "tokenizer.ggml.pre")->value), pre);
  const Tokenizer back = Tokenizer::from_gguf(metadata, "metadata");
  const Tokenizer made = Tokenizer::from_json(back.to_json(), "made");
  std::vector<std::string> texts = documents_of(source_file("configs/data/heldout.jsonl"));
  for (std::uint64_t i = 0; i < 3000; ++i) texts.push_back(random_string(i));
  for (const std::string& text : texts) {
    // Flags of added tokens have no place in GGUF: take texts apart from them, and every added token alone.
    const bool added = style != std::string("smollm") && style != std::string("gpt2");
    const Ids expected = original.encode(text, added);
    ASSERT_EQ(back.encode(text, added), expected) << text;
    ASSERT_EQ(made.encode(text, added), expected) << text;
    ASSERT_EQ(back.decode(expected), original.decode(expected)) << text;
  }
  EXPECT_EQ(back.size(), original.size());
  EXPECT_EQ(back.special().add_bos, original.special().add_bos);
  EXPECT_EQ(back.bos(), original.bos());
  const io::GgufMetadata again = back.to_gguf();
  for (const char* key : {"model", "pre", "tokens", "token_type", "merges", "scores"}) {
    const std::string name = std::string("tokenizer.ggml.") + key;
    const auto *a = io::find(metadata, name), *b = io::find(again, name);
    ASSERT_EQ(a == nullptr, b == nullptr) << name;
    if (a) {
      EXPECT_EQ(*a, *b) << name;
    }
  }
}

TEST(Tokenizer, GgufTypesAndUnusedRows) {
  const Tokenizer t = Tokenizer::from_file(stored("llama2"));
  const io::GgufMetadata metadata = t.to_gguf(t.size() + 2);
  const auto types =
      std::get<std::vector<std::int64_t>>(io::find(metadata, "tokenizer.ggml.token_type")->value);
  const auto tokens = std::get<std::vector<std::string>>(io::find(metadata, "tokenizer.ggml.tokens")->value);
  ASSERT_EQ(types.size(), static_cast<std::size_t>(t.size() + 2));
  const auto type = [&](const char* token) { return types[static_cast<std::size_t>(*t.id_of(token))]; };
  EXPECT_EQ(type("<unk>"), 2);
  EXPECT_EQ(type("<s>"), 3);
  EXPECT_EQ(type("<0x0A>"), 6);
  EXPECT_EQ(type("\u2581the"), 1);
  EXPECT_EQ(types.back(), 5);
  EXPECT_EQ(tokens.back(), "[PAD" + std::to_string(t.size() + 1) + "]");
  EXPECT_EQ(Tokenizer::from_gguf(metadata, "padded").size(), t.size());
  EXPECT_TRUE(std::get<bool>(io::find(metadata, "tokenizer.ggml.add_bos_token")->value));
  EXPECT_NE(error_text([&] { t.to_gguf(3); }).find("must be at least 2001"), std::string::npos)
      << error_text([&] { t.to_gguf(3); });
  const Tokenizer qwen = Tokenizer::from_file(stored("qwen2"));
  const auto qwen_types =
      std::get<std::vector<std::int64_t>>(io::find(qwen.to_gguf(), "tokenizer.ggml.token_type")->value);
  EXPECT_EQ(qwen_types[static_cast<std::size_t>(*qwen.id_of("<think>"))], 4);
}

TEST(Tokenizer, RulesThatLlamaCppLacksAreRefused) {
  const std::string error = error_text([] { Tokenizer::from_file(stored("flags")).to_gguf(); });
  EXPECT_TRUE(
      error.starts_with("error: a byte-level tokenizer must have rules that llama.cpp knows by name, but has "
                        "Digits false, Split"))
      << error;
}

TEST(Tokenizer, PlainTakesAddedTokensAsText) {
  const Tokenizer t = Tokenizer::from_file(stored("smollm"));
  const Ids ids = t.encode("a<|endoftext|>"), plain = t.encode("a<|endoftext|>", true);
  EXPECT_EQ(ids, (Ids{*t.id_of("a"), 0}));
  EXPECT_GT(plain.size(), 5u);
  EXPECT_EQ(t.decode(plain), "a<|endoftext|>");
}

TEST(Tokenizer, InvalidUtf8IsReplaced) {
  const Tokenizer t = Tokenizer::from_file(stored("smollm"));
  EXPECT_EQ(t.encode("a\xff"
                     "b\xe2\x82"),
            t.encode("a\ufffd"
                     "b\ufffd"));
  EXPECT_EQ(t.decode(t.encode("\xe2")), "\ufffd");
  const Ids euro = t.encode("\u20ac");  // split over tokens: each alone is no text
  EXPECT_EQ(t.decode(euro), "\u20ac");
  std::string bytes;
  for (const std::int32_t id : euro) bytes += t.piece(id);
  EXPECT_EQ(bytes, "\u20ac");
  ASSERT_GT(euro.size(), 1u);
  EXPECT_EQ(t.decode(Ids{euro[0]}), "\ufffd");
}

TEST(Tokenizer, PiecesAreTheBytesOfTheText) {
  for (const char* style : {"smollm", "llama3", "llama2"}) {
    const Tokenizer t = Tokenizer::from_file(stored(style));
    const std::string text = documents_of(source_file("configs/data/heldout.jsonl"))[3] + " \u6f22\u5b57";
    std::string bytes;
    for (const std::int32_t id : t.encode(text)) bytes += t.piece(id);
    EXPECT_EQ(bytes, style == std::string("llama2") ? " " + text : text) << style;
    EXPECT_EQ(
        error_text([&] { t.piece(999999); }),
        "error: the id of a token must be below " + std::to_string(t.size()) + " and in use, but is 999999");
    EXPECT_EQ(t.decode(Ids{-1, 999999}), "");
  }
}

TEST(Tokenizer, LongWordsTakeTheHeapAndStayRight) {
  const Tokenizer t = Tokenizer::from_file(stored("gpt2"));
  const std::string unit = "abracadabra";
  std::string word;
  while (word.size() < 300000) word += unit;  // one word of 300,000 letters
  const Ids ids = t.encode(word);
  EXPECT_EQ(t.decode(ids), word);
  EXPECT_LT(ids.size(), word.size() * 3 / 4);
}

class TokenizerFolder : public FolderTest {};

TEST_F(TokenizerFolder, ConfigBesideItIsReadKeptAndWritten) {
  write_text(folder_ / "tokenizer.json", read_text(stored("smollm")));
  const std::string config =
      R"({"bos_token": {"content": "<|im_start|>", "lstrip": false}, "eos_token": "<|im_end|>",
    "pad_token": "<missing>", "add_bos_token": true, "chat_template": "old"})";
  write_text(folder_ / "tokenizer_config.json", config);
  write_text(folder_ / "chat_template.jinja", "{{ messages }}");
  write_text(folder_ / "config.json",
             R"({"bos_token_id": 77, "eos_token_id": [5, 6], "pad_token_id": 9, "vocab_size": 3})");
  const Tokenizer t = Tokenizer::from_file(folder_ / "tokenizer.json");
  EXPECT_EQ(t.bos(), 1);
  EXPECT_EQ(t.eos(), 2);
  EXPECT_EQ(t.end_of_text(), 0);
  EXPECT_EQ(t.special().padding, 9);  // config.json only fills what is open
  EXPECT_TRUE(t.special().add_bos);
  EXPECT_EQ(t.special().chat_template, "{{ messages }}");

  const Tokenizer back = Tokenizer::from_gguf(t.to_gguf(), "metadata");
  EXPECT_EQ(back.bos(), 1);
  EXPECT_EQ(back.special().chat_template, "{{ messages }}");
  const Json written = back.config();
  EXPECT_EQ(written["bos_token"], "<|im_start|>");
  EXPECT_EQ(written["chat_template"], "{{ messages }}");
}

}  // namespace
}  // namespace slmc::text
