// Documents, mixtures and windows against a plain oracle that joins everything, and the evaluation readers
// against lm-evaluation-harness's clean-up.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/hash.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "data/eval_sets.h"
#include "data/source.h"
#include "tests/unit/error_text.h"
#include "tests/unit/test_folder.h"
#include "tests/unit/text_samples.h"

namespace slmc::data {
namespace {

using Ids = std::vector<std::int32_t>;
using text::source_file;

const text::Tokenizer& tokenizer() {
  static const auto t = text::Tokenizer::from_file(source_file("tests/data/tokenizers/smollm.json"));
  return t;
}

class DataTest : public FolderTest {
 protected:
  std::filesystem::path write(const std::string& name, const std::string& content) {
    write_text(folder_ / name, content);
    return folder_ / name;
  }
  // Three domains of short documents; empty ones and repeated ones among them.
  DataSpec spec(std::int64_t seq) {
    DataSpec spec;
    spec.seq = seq;
    spec.seed = 7;
    std::string lines;
    for (int i = 0; i < 23; ++i)
      lines +=
          Json{{"text",
                i % 6 == 0 ? "" : std::string(static_cast<std::size_t>(i % 7) * 3, 'x') + std::to_string(i)}}
              .dump() +
          "\n";
    spec.domains.push_back({"lines", {write("a.jsonl", lines)}, 2.0});
    spec.domains.push_back(
        {"plain", {write("b.txt", "one two three four five"), write("c.txt", "six")}, 1.0});
    spec.domains.push_back(
        {"last",
         {write("d.jsonl", "{\"body\": \"kept\"}\n{\"body\": \"also kept\"}\n{\"body\": \"dropped\"}\n")},
         0.5,
         "body",
         1});
    return spec;
  }
};

// A domain's stream, written out: epochs of documents in the seed's order, each followed by end of text (id
// 0).
struct Stream {
  Ids ids, document;  // numbers of documents count through the whole stream
};
Stream stream_of(const DataSpec& spec, const DomainSpec& domain, std::size_t tokens) {
  std::vector<std::string> texts;
  for (const auto& file : domain.files) {
    std::vector<std::string> own;
    if (file.extension() == ".jsonl") {
      std::istringstream lines(read_text(file));
      for (std::string line; std::getline(lines, line);)
        own.push_back(Json::parse(line)[domain.field].get<std::string>());
    } else {
      own.push_back(read_text(file));
    }
    own.resize(own.size() - static_cast<std::size_t>(domain.skip_last));
    texts.insert(texts.end(), own.begin(), own.end());
  }
  Stream stream;
  std::int32_t number = 0;
  for (std::uint64_t epoch = 0; stream.ids.size() < tokens; ++epoch)
    for (const std::int64_t i : Rng(derive_seed(spec.seed, domain.name), epoch)
                                    .permutation(static_cast<std::int64_t>(texts.size()))) {
      Ids ids = tokenizer().encode(texts[static_cast<std::size_t>(i)]);
      if (ids.empty()) continue;
      ids.push_back(0);
      stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
      stream.document.insert(stream.document.end(), ids.size(), number++);
    }
  return stream;
}

TEST_F(DataTest, LineEndsOfPlainTextBecomeNewlines) {
  DomainSpec domain;
  domain.files = {write("dos.txt", "a \r\n b\r\r\n\rc\r"), write("unix.txt", "a \n b")};
  EXPECT_EQ(read_documents(domain), (std::vector<std::string>{"a \n b\n\n\nc\n", "a \n b"}));
}

TEST_F(DataTest, WindowsCutTheStreamsOfTheDomains) {
  for (const std::int64_t seq : {1, 5, 64, 333}) {
    const DataSpec s = spec(seq);
    const WindowSource source(s, tokenizer());
    std::map<std::int32_t, std::int64_t> had;
    for (std::int64_t i = 0; i < 60; ++i) {
      const Window window = source.at(i);
      const auto begin = static_cast<std::size_t>(had[window.domain]++ * seq),
                 end = begin + static_cast<std::size_t>(seq);
      const Stream stream = stream_of(s, s.domains[static_cast<std::size_t>(window.domain)], end);
      const Ids ids(stream.ids.begin() + static_cast<std::ptrdiff_t>(begin),
                    stream.ids.begin() + static_cast<std::ptrdiff_t>(end));
      ASSERT_EQ(window.ids, ids) << "window " << i << " of " << seq;
      for (std::size_t t = begin; t < end; ++t)
        ASSERT_EQ(window.document[t - begin], stream.document[t] - stream.document[begin])
            << "window " << i << " of " << seq;
    }
    EXPECT_GT(had[0], had[1]);
  }
}

TEST_F(DataTest, SameWindowsForAnyThreadsAnyOrderAnyCache) {
  const DataSpec s = spec(17);
  const auto all = [&](int threads, std::int64_t cache, bool backwards) {
    set_threads(threads);
    const WindowSource source(s, tokenizer(), cache);
    std::vector<Ids> windows(50);
    parallel_for(50, [&](std::int64_t i) {
      const std::int64_t index = backwards ? 49 - i : i;
      const Window window = source.at(index);
      windows[static_cast<std::size_t>(index)] = window.ids;
    });
    set_threads(0);
    return windows;
  };
  const auto expected = all(1, 1 << 20, false);
  EXPECT_EQ(all(3, 1 << 20, false), expected);
  EXPECT_EQ(all(2, 1, true), expected);  // nothing stays in the cache
  EXPECT_EQ(all(1, 300, true), expected);
}

TEST(StaticMixture, EveryPrefixHoldsTheShares) {
  const std::vector<std::vector<double>> mixtures = {{1.0},
                                                     {0.5, 0.5},
                                                     {2.0 / 3, 1.0 / 3},
                                                     {0.7, 0.2, 0.05, 0.05},
                                                     {0.9999, 0.0001},
                                                     std::vector<double>(10, 0.1)};
  for (const std::vector<double>& shares : mixtures) {
    const Mixture mixture(shares);
    std::vector<std::int64_t> had(shares.size());
    for (std::int64_t i = 0; i < 12000; ++i) {
      ASSERT_EQ(mixture.turns_before(i), had);
      const auto [domain, own] = mixture.turn(i);
      ASSERT_EQ(own, had[static_cast<std::size_t>(domain)]++);
      for (std::size_t d = 0; d < shares.size(); ++d)
        ASSERT_LE(std::abs(static_cast<double>(had[d]) - shares[d] * static_cast<double>(i + 1)),
                  0.5 + static_cast<double>(shares.size()) / 2);
    }
  }
  const auto far = Mixture({0.6, 0.4}).turns_before(5'000'000'000);
  EXPECT_EQ(far[0] + far[1], 5'000'000'000);
  EXPECT_LE(std::abs(far[0] - 3'000'000'000), 2);
}

// skip_last on one side and only_last on the other part a file without overlap.
TEST_F(DataTest, LastDocumentsAreForOneSideOnly) {
  const auto file = write("five.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n{\"text\":\"d\"}\n{\"text\":\"e\"}\n");
  const auto read = [&](std::int64_t skip, std::int64_t only) {
    DomainSpec domain{"d", {file, file}};
    domain.skip_last = skip, domain.only_last = only;
    return read_documents(domain);
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(read(2, 0), (Texts{"a", "b", "c", "a", "b", "c"}));
  EXPECT_EQ(read(0, 2), (Texts{"d", "e", "d", "e"}));
  EXPECT_EQ(read(2, 1), (Texts{"c", "c"}));
  EXPECT_EQ(read(0, 9).size(), 10u);
}

TEST_F(DataTest, CountsAndEpochs) {
  const DataSpec s = spec(10);
  const WindowSource source(s, tokenizer());
  std::int64_t total = 0;
  std::vector<double> lengths;
  for (const DomainSpec& domain : s.domains) {
    std::int64_t own = 0;
    for (const std::string& text : read_documents(domain))
      own += static_cast<std::int64_t>(tokenizer().encode(text).size()) + 1;
    lengths.push_back(static_cast<double>(own));
    total += own;
  }
  EXPECT_EQ(source.tokens_per_epoch(), total);
  const std::vector<double> epochs = source.epochs_after(70);
  ASSERT_EQ(epochs.size(), 3u);
  EXPECT_DOUBLE_EQ(epochs[0], 40 * 10 / lengths[0]);  // 2 : 1 : 0.5 of 70 windows
  EXPECT_DOUBLE_EQ(epochs[1], 20 * 10 / lengths[1]);
  EXPECT_DOUBLE_EQ(epochs[2], 10 * 10 / lengths[2]);
}

TEST_F(DataTest, DocumentsOfJsonlAndText) {
  const auto jsonl =
      write("x.jsonl", "{\"text\": \"a\\nb\", \"n\": 1}\r\n\n  \n{\"text\": \"\"}\n{\"text\": \"\u00e9\"}");
  const auto plain = write("y.md", "{\"text\": 1}\n");
  EXPECT_EQ(read_documents({"d", {jsonl, plain}}),
            (std::vector<std::string>{"a\nb", "\u00e9", "{\"text\": 1}\n"}));
  EXPECT_EQ(read_documents({"d", {jsonl}, 1, "text", 2}), (std::vector<std::string>{"a\nb"}));
  EXPECT_EQ(read_documents({"d", {jsonl}, 1, "text", 9}), (std::vector<std::string>{}));
}

TEST_F(DataTest, ErrorsNameFileAndLine) {
  const std::string file = (folder_ / "x.jsonl").string();
  const auto error = [&](const std::string& content, const std::string& field = "text") {
    write("x.jsonl", content);
    return error_text([&] { read_documents({"d", {file}, 1, field}); });
  };
  EXPECT_EQ(error("{\"text\": \"a\"}\n\n{\"text\": 3}\n"),
            file + ":3:1: error: the field 'text' must be a text, but is not");
  EXPECT_EQ(error("{\"text\": \"a\"}\n", "body"),
            file + ":1:1: error: the field 'body' must be a text, but is missing");
  EXPECT_EQ(error("{\"text\": \"a\"}\n[1]\n"),
            file + ":2: error: a line of a .jsonl file must be an object, but is not");
  EXPECT_TRUE(error("{\"text\": \"a\"}\n{\"text\": \n").starts_with(file + ":2:"))
      << error("{\"text\": \"a\"}\n{\"text\": \n");
  EXPECT_NE(error_text([&] {
              read_documents({"d", {folder_ / "none.txt"}});
            }).find("none.txt"),
            std::string::npos);
  write("empty.txt", "");
  DataSpec empty;
  empty.domains.push_back({"void", {folder_ / "empty.txt"}});
  EXPECT_EQ(error_text([&] { WindowSource(empty, tokenizer()); }),
            "error: the data 'void' must hold text, but its documents are empty or all skipped");
}

TEST(DataSpecJson, BothForms) {
  const auto parse = [](const char* json) {
    return data_spec_from_json(Json::parse(json), "r.yaml", "data.x");
  };
  const DataSpec one =
      parse(R"({"files": ["a.jsonl", "b.txt"], "samples": 128, "seq": 64, "skip_last": 2, "seed": 5})");
  EXPECT_EQ(one.domains.size(), 1u);
  EXPECT_EQ(one.domains[0].files[1], "b.txt");
  EXPECT_EQ(to_json(one),
            Json::parse(
                R"({"files": ["a.jsonl", "b.txt"], "skip_last": 2, "seq": 64, "samples": 128, "seed": 5})"));
  const DataSpec two =
      parse(R"({"mix": {"w": {"files": ["a"], "weight": 2}, "b": {"files": ["c"], "field": "body"}}})");
  EXPECT_EQ(two.domains[0].weight, 2);
  EXPECT_EQ(two.domains[1].field, "body");
  EXPECT_EQ(two.seq, 512);
  EXPECT_EQ(to_json(data_spec_from_json(to_json(two), "", "")), to_json(two));
  const auto error = [&](const char* json) { return error_text([&] { parse(json); }); };
  EXPECT_EQ(error(R"({"files": []})"),
            "r.yaml: error: 'data.x.files' must name at least one file, but is empty");
  EXPECT_EQ(error(R"({"files": ["a"], "seq": 0})"),
            "r.yaml: error: 'data.x.seq' must be 1 to 16777216 tokens, but is 0");
  EXPECT_EQ(error(R"({"mix": {"w": {"files": ["a"], "weight": -1}}})"),
            "r.yaml: error: 'data.x.mix.w.weight' must be above 0, but is -1");
  EXPECT_EQ(error(R"({"files": ["a"], "smaples": 3})"),
            "r.yaml: error: the key 'data.x.smaples' must be a known one, but is not\nhint: did you mean "
            "'samples'?");
  EXPECT_EQ(error(R"({"samples": 3})"), "r.yaml: error: 'data.x.files' must be present, but is missing");
}

TEST_F(DataTest, HashIsOfContentAndSettings) {
  DataSpec s = spec(10);
  const std::string hash = content_hash(s);
  EXPECT_EQ(content_hash(s), hash);
  const auto moved = folder_ / "elsewhere.jsonl";
  std::filesystem::rename(s.domains[0].files[0], moved);
  s.domains[0].files[0] = moved;
  EXPECT_EQ(content_hash(s), hash);  // a name is no content
  for (const auto& change : std::vector<std::function<void(DataSpec&)>>{
           [](DataSpec& d) { d.seq = 11; }, [](DataSpec& d) { d.samples = 1; },
           [](DataSpec& d) { d.seed = 8; }, [](DataSpec& d) { d.domains.pop_back(); },
           [](DataSpec& d) { d.domains[1].weight = 1.5; }, [](DataSpec& d) { d.domains[2].skip_last = 0; }, [](DataSpec& d) { d.domains[2].only_last = 1; },
           [](DataSpec& d) { d.domains[2].field = "x"; }, [](DataSpec& d) { d.domains[0].name = "x"; },
           [](DataSpec& d) { std::swap(d.domains[1].files[0], d.domains[1].files[1]); }}) {
    DataSpec changed = s;
    change(changed);
    EXPECT_NE(content_hash(changed), hash);
  }
  write("c.txt", "Six");
  EXPECT_NE(content_hash(s), hash);
}

// Golden: the clean-up of lm-evaluation-harness in Python over configs/data/hellaswag.200.jsonl, each text
// and a newline hashed:
//   s = s.strip().replace(" [title]", ". "); s = re.sub(r"\[.*?\]", "", s); s = s.replace("  ", " ")
TEST(Choices, CleanUpEqualsTheHarness) {
  Sha256 hash;
  const auto items = read_choices(source_file("configs/data/hellaswag.200.jsonl"));
  ASSERT_EQ(items.size(), 200u);
  for (const ChoiceItem& item : items) {
    hash.add(item.context).add("\n");
    for (const std::string& choice : item.choices) hash.add(choice).add("\n");
  }
  EXPECT_EQ(hash.hex(), "c4d9eb533c956e4ee5a45ff946fd670990f1cf7d72bbdcb3febd870f3bf7f01c");
  EXPECT_EQ(clean_up("  a [title] b  c"), "a. b c");
  EXPECT_EQ(clean_up("x [one] [two\n] y [three]"), "x [two\n] y ");
  EXPECT_EQ(clean_up(" \u00a0[a]b\x1f"), "b");
  EXPECT_EQ(clean_up("[[a]b]"), "b]");
  EXPECT_EQ(clean_up("a   b"), "a  b");
}

TEST(Choices, SequencesScoreTheContinuation) {
  const ChoiceItem item{"The cat", {"sat", "caf\u00e9"}, 0};
  const auto all = sequences(item, tokenizer());
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].ids, tokenizer().encode("The cat sat"));
  EXPECT_EQ(all[0].start, static_cast<std::int64_t>(tokenizer().encode("The cat").size()));
  EXPECT_EQ(all[1].characters, 4);
  EXPECT_EQ(sequences({"", {"a", "b"}, 0}, tokenizer())[0].start, 1);
  EXPECT_EQ(sequence("A b.", tokenizer()).start, 1);
}

TEST(Pairs, ReadWithTheirSets) {
  const auto pairs = read_pairs(source_file("configs/data/blimp.50.jsonl"), 3);
  ASSERT_EQ(pairs.size(), 3u);
  EXPECT_EQ(pairs[0].good, "Who should Derek hug after shocking Richard?");
  EXPECT_EQ(pairs[0].bad, "Who should Derek hug Richard after shocking?");
  EXPECT_EQ(pairs[0].set, "adjunct_island");
  EXPECT_EQ(read_pairs(source_file("configs/data/blimp.50.jsonl")).size(), 850u);
}

class EvalFiles : public DataTest {};

TEST_F(EvalFiles, ErrorsNameFileAndLine) {
  const std::string file = (folder_ / "x.jsonl").string();
  const auto error = [&](const std::string& content) {
    write("x.jsonl", content);
    return error_text([&] { read_choices(file); });
  };
  const std::string good = R"({"query": "q", "choices": ["a", "b"], "gold": 1})"
                           "\n";
  EXPECT_EQ(error(good + R"({"query": "q", "choices": ["a", "b"], "gold": 2})"),
            file + ":2:1: error: 'gold' must be an index of the choices, but is 2");
  EXPECT_EQ(error(good + "\n" + R"({"query": "q", "choices": ["a"], "gold": 0})"),
            file + ":3:1: error: 'choices' must have at least two texts, but has 1");
  EXPECT_EQ(error(R"({"query": "q", "gold": 0})"),
            file + ":1:1: error: 'choices' must be present, but is missing");
  EXPECT_EQ(error("\n"), file + ": error: an evaluation file must have at least one item, but is empty");
}

}  // namespace
}  // namespace slmc::data
