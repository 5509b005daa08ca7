#include "data/labelled.h"

#include <map>

#include "core/cancel.h"
#include "core/error.h"
#include "core/rng.h"
#include "data/documents.h"

namespace slmc::data {
namespace {

[[noreturn]] void too_few(const Labelled& data, std::size_t label, const char* what, std::int64_t wanted, std::int64_t there) {
  throw Error(ErrorKind::Data, Place{data.source, 0, 0, 1, {}},
              "each class must have " + std::to_string(wanted) + " pieces for " + what + ", but '" + data.classes[label] + "' has " + std::to_string(there),
              "shorter pieces (seq), fewer of them, or another share (held_out)");
}

}  // namespace

Labelled read_labelled(const DomainSpec& domain, std::int64_t seq, double held_out, const text::Tokenizer& tokenizer) {
  SLMC_CHECK(seq > 0 && held_out > 0 && held_out < 1);
  const Documents documents(domain);
  std::map<std::string, std::vector<std::vector<std::int32_t>>> by_class;
  for (std::int64_t i = 0; i < documents.count(); ++i) {
    cancel_point("nothing was written");
    auto& pieces = by_class[documents.field(i, domain.label)];
    const std::vector<std::int32_t> ids = tokenizer.encode(documents.text(i));
    for (std::size_t at = 0; at + static_cast<std::size_t>(seq) <= ids.size(); at += static_cast<std::size_t>(seq)) {
      pieces.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(at + static_cast<std::size_t>(seq)));
    }
  }
  Labelled out;
  out.source = domain.files.empty() ? std::string() : domain.files.front().string();
  for (auto& [name, pieces] : by_class) {
    out.classes.push_back(name);
    out.border.push_back(static_cast<std::int64_t>((1 - held_out) * static_cast<double>(pieces.size())));
    out.pieces.push_back(std::move(pieces));
  }
  if (out.classes.size() < 2) {
    throw Error(ErrorKind::Data, Place{out.source, 0, 0, 1, {}}, "the documents must be of at least two classes, but are of " + std::to_string(out.classes.size()),
                "the field '" + domain.label + "' names them; `label` in the data section names another field");
  }
  return out;
}

std::vector<Piece> draw_shots(const Labelled& data, std::int64_t count, std::uint64_t seed) {
  std::vector<Piece> out;
  for (std::size_t label = 0; label < data.classes.size(); ++label) {
    const std::int64_t there = data.border[label];
    if (there < count) too_few(data, label, "tuning", count, there);
    const std::vector<std::int64_t> order = Rng(derive_seed(seed, data.classes[label])).permutation(there);
    for (std::int64_t i = 0; i < count; ++i) {
      out.push_back({data.pieces[label][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])], static_cast<std::int64_t>(label)});
    }
  }
  return out;
}

std::vector<Piece> test_pieces(const Labelled& data, std::int64_t count) {
  std::vector<Piece> out;
  for (std::size_t label = 0; label < data.classes.size(); ++label) {
    const std::int64_t first = data.border[label], there = static_cast<std::int64_t>(data.pieces[label].size()) - first;
    if (there < count) too_few(data, label, "tests", count, there);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = first + (2 * i + 1) * there / (2 * count);     // the middle of the i-th of `count` equal parts
      out.push_back({data.pieces[label][static_cast<std::size_t>(at)], static_cast<std::int64_t>(label)});
    }
  }
  return out;
}

}  // namespace slmc::data
