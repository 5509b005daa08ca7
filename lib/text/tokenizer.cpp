#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/file.h"
#include "core/hash.h"
#include "text/cut.h"
#include "text/decoder.h"
#include "text/parts.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

namespace slmc::text {
namespace {

// Buffers of one call to encode, handed out again to later calls: word caches stay warm, and no two threads
// share one.
struct Scratch {
  BpeScratchPtr bpe = Bpe::make_scratch();
  std::string normalized, words;
  std::vector<Part> outer, inner;
};

class ScratchPool {
 public:
  std::unique_ptr<Scratch> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

Parts with_byte_level(Parts parts, bool byte_level) {
  parts.rules.byte_level = byte_level;
  return parts;
}

}  // namespace

struct Tokenizer::State {
  // Not movable: `bpe` refers to `parts`.
  State(Parts given, std::string source_json, std::string file)
      : normalizer(Normalizer::from_json(part(*given.rest, "normalizer"), file)),
        pretokenizer(PreTokenizer::from_json(part(*given.rest, "pre_tokenizer"), file)),
        decoder(Decoder::from_json(part(*given.rest, "decoder"), file)),
        parts(with_byte_level(std::move(given), pretokenizer.byte_level())),
        bpe(parts.vocabulary, parts.merges, parts.rules),
        json(std::move(source_json)) {
    if (bpe.may_cut_before(pretokenizer.marker())) pretokenizer.allow_cuts();
    for (const AddedToken& token : parts.added) {
      added_by_id.emplace(token.id, &token);
      if (token.normalized) {
        std::string text = token.content;
        normalizer.apply(text);
        after.add(text, token);
        if (text != token.content) normalized_form.emplace(token.id, text);
      } else {
        before.add(token.content, token);
      }
    }
    size = parts.vocabulary.size();
    for (const AddedToken& token : parts.added) size = std::max(size, token.id + 1);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void encode(std::string_view text, bool plain, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void encode_part(std::string_view text, bool at_start, bool plain, Scratch& scratch,
                   std::vector<std::int32_t>& ids) const;
  std::string spelling(std::int32_t id) const;  // as a decoder gets it; "" when there is no such token

  Normalizer normalizer;
  PreTokenizer pretokenizer;
  Decoder decoder;
  Parts parts;
  Bpe bpe;
  TokenFinder before, after;  // added tokens found before and after the normalizer
  std::unordered_map<std::int32_t, const AddedToken*> added_by_id;
  std::unordered_map<std::int32_t, std::string> normalized_form;
  std::int32_t size = 0;
  std::string json;  // the source's tokenizer.json; "" when it was a GGUF
  mutable ScratchPool pool;
};

void Tokenizer::State::encode(std::string_view text, bool plain, Scratch& scratch,
                              std::vector<std::int32_t>& ids) const {
  if (plain || before.empty()) return encode_part(text, true, plain, scratch, ids);
  scratch.outer.clear();
  before.split(text, scratch.outer);
  for (const Part& one : scratch.outer) {
    if (one.id != kNoId)
      ids.push_back(one.id);
    else
      encode_part(text.substr(one.span.begin, one.span.end - one.span.begin), one.span.begin == 0, plain,
                  scratch, ids);
  }
}

void Tokenizer::State::encode_part(std::string_view text, bool at_start, bool plain, Scratch& scratch,
                                   std::vector<std::int32_t>& ids) const {
  if (!normalizer.empty()) {
    scratch.normalized = text;
    normalizer.apply(scratch.normalized);
    text = scratch.normalized;
  }
  const auto encode_words = [&](std::string_view piece, bool first) {
    pretokenizer.words(piece, first, scratch.words,
                       [&](std::string_view word) { bpe.encode(word, *scratch.bpe, ids); });
  };
  if (plain || after.empty()) return encode_words(text, at_start);
  scratch.inner.clear();
  after.split(text, scratch.inner);
  for (const Part& one : scratch.inner) {
    if (one.id != kNoId)
      ids.push_back(one.id);
    else
      encode_words(text.substr(one.span.begin, one.span.end - one.span.begin),
                   at_start && one.span.begin == 0);
  }
}

std::string Tokenizer::State::spelling(std::int32_t id) const {
  if (const auto form = normalized_form.find(id); form != normalized_form.end()) return form->second;
  if (const auto added = added_by_id.find(id); added != added_by_id.end()) return added->second->content;
  return std::string(parts.vocabulary.text(id));
}

Tokenizer::Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Tokenizer Tokenizer::from_json(std::string_view json, std::string file) {
  Parts parts = parts_from_json(json, file);
  return Tokenizer(std::make_shared<const State>(std::move(parts), std::string(json), std::move(file)));
}

Tokenizer Tokenizer::from_file(const std::filesystem::path& tokenizer_json) {
  std::string json = read_text(tokenizer_json);
  Parts parts = parts_from_json(json, tokenizer_json.string());
  const std::filesystem::path folder = tokenizer_json.parent_path();
  if (const auto own = folder / "tokenizer_config.json"; std::filesystem::exists(own))
    read_tokenizer_config(parts, read_json(own, ErrorKind::Data), own.string());
  if (const auto chat = folder / "chat_template.jinja"; std::filesystem::exists(chat)) parts.special.chat_template = read_text(chat);
  const std::filesystem::path config = folder / "config.json";
  if (std::filesystem::exists(config)) read_model_config(parts, read_json(config, ErrorKind::Data));
  return Tokenizer(std::make_shared<State>(std::move(parts), std::move(json), tokenizer_json.string()));
}

Tokenizer Tokenizer::from_gguf(const io::GgufMetadata& metadata, std::string file) {
  return Tokenizer(std::make_shared<const State>(parts_from_gguf(metadata, file), "", file));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool plain) const {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = repair_utf8(text);
  std::unique_ptr<Scratch> scratch = state_->pool.take();
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  state_->encode(text, plain, *scratch, ids);
  state_->pool.give(std::move(scratch));  // after an error it is simply freed
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const auto added = state_->added_by_id.find(id);
    const bool is_added = added != state_->added_by_id.end();
    if (!is_added && !state_->parts.vocabulary.has(id)) continue;
    if (is_added && skip_special && added->second->special) continue;
    tokens.push_back(state_->spelling(id));
  }
  return state_->decoder.decode(std::move(tokens));
}

std::string Tokenizer::piece(std::int32_t id) const {
  const auto added = state_->added_by_id.find(id);
  if (added != state_->added_by_id.end()) return added->second->content;
  if (!state_->parts.vocabulary.has(id))
    throw Error(ErrorKind::Data,
                fmt::format("the id of a token must be below {} and in use, but is {}", size(), id));
  return state_->decoder.piece(state_->parts.vocabulary.text(id));
}

const Parts& Tokenizer::parts() const { return state_->parts; }
const Bpe& Tokenizer::bpe() const { return state_->bpe; }

Tokenizer Tokenizer::cut(const std::vector<std::int64_t>& kept) const {
  std::vector<Diagnostic> problems;
  for (std::string& problem : cut_problems(kept)) problems.push_back({std::move(problem), {}, {}});
  if (!problems.empty()) throw Error(ErrorKind::Recipe, std::move(problems));
  return Tokenizer(std::make_shared<const State>(cut_parts(state_->parts, kept), "", "the cut tokenizer"));
}

bool Tokenizer::has(std::int32_t id) const { return state_->parts.vocabulary.has(id) || state_->added_by_id.contains(id); }

std::int64_t Tokenizer::size() const { return state_->size; }

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  const std::int32_t id = find_id(state_->parts, token);
  return id == kNoId ? std::nullopt : std::optional(id);
}

const SpecialTokens& Tokenizer::special() const { return state_->parts.special; }

std::optional<std::int32_t> Tokenizer::end_of_text() const {
  for (const char* token : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"})
    if (const auto id = id_of(token)) return id;
  return eos();
}

std::string Tokenizer::content_hash() const {
  const Parts& parts = state_->parts;
  Sha256 hash;
  const auto add = [&](std::string_view text) { hash.add_number(text.size()).add(text); };
  hash.add_number(static_cast<std::uint64_t>(parts.vocabulary.count()));
  for (std::int32_t id = 0; id < parts.vocabulary.size(); ++id)
    if (parts.vocabulary.has(id))
      hash.add_number(static_cast<std::uint64_t>(id)), add(parts.vocabulary.text(id));
  hash.add_number(parts.merges.size());
  for (const Merge& merge : parts.merges)
    hash.add_number(static_cast<std::uint64_t>(merge.left))
        .add_number(static_cast<std::uint64_t>(merge.right));
  hash.add_number(parts.added.size());
  for (const AddedToken& token : parts.added) {
    hash.add_number(static_cast<std::uint64_t>(token.id));
    add(token.content);
    for (const bool flag : {token.single_word, token.lstrip, token.rstrip, token.normalized, token.special})
      hash.add_number(flag);
  }
  for (const bool flag : {parts.rules.byte_fallback, parts.rules.ignore_merges, parts.rules.fuse_unknown})
    hash.add_number(flag);
  hash.add_number(static_cast<std::uint64_t>(parts.rules.unknown));
  for (const char* key : {"normalizer", "pre_tokenizer", "decoder"})
    add(dump_compact(part(*parts.rest, key)));
  return hash.hex();
}

std::string Tokenizer::to_json() const {
  return state_->json.empty() ? json_from_parts(state_->parts) : state_->json;
}

Json Tokenizer::config() const { return tokenizer_config(state_->parts); }

io::GgufMetadata Tokenizer::to_gguf(std::int64_t rows) const { return gguf_from_parts(state_->parts, rows); }

}  // namespace slmc::text
