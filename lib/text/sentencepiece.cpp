#include "text/sentencepiece.h"

#include <algorithm>
#include <string_view>
#include <tuple>

#include "core/error.h"
#include "text/unicode.h"

namespace slmc::text {

namespace {

constexpr std::size_t kMostCharacters = 1024;  // every cut of a piece is tried: work grows with the square of its length

}  // namespace

std::vector<Merge> merges_by_score(const Vocabulary& vocabulary, const std::vector<double>& scores,
                                   const std::vector<std::int64_t>& types) {
  struct Ranked {
    Merge merge;
    double score;
    std::size_t left, right;  // characters
  };
  const auto normal = [&](std::int32_t id) {
    return id != kNoId && (types.empty() || types[static_cast<std::size_t>(id)] == kNormal);
  };
  std::vector<Ranked> ranked;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    if (!normal(id)) continue;
    const std::string_view piece = vocabulary.text(id);
    std::vector<std::size_t> cuts;  // where its characters start, the first left out
    int bytes = 0;
    for (std::size_t at = 0; at < piece.size(); at += static_cast<std::size_t>(bytes)) {
      code_point(piece.data() + at, bytes);
      if (at > 0) cuts.push_back(at);
    }
    if (cuts.size() >= kMostCharacters) continue;
    for (std::size_t i = 0; i < cuts.size(); ++i) {
      const Merge merge{vocabulary.find(piece.substr(0, cuts[i])), vocabulary.find(piece.substr(cuts[i])),
                        id};
      if (normal(merge.left) && normal(merge.right))
        ranked.push_back({merge, scores[static_cast<std::size_t>(id)], i + 1, cuts.size() - i});
    }
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const Ranked& a, const Ranked& b) {
    return std::tie(a.score, a.left, a.right) > std::tie(b.score, b.left, b.right);
  });
  std::vector<Merge> merges;
  for (const Ranked& one : ranked) merges.push_back(one.merge);
  return merges;
}

std::vector<double> scores_of(const Vocabulary& vocabulary, const std::vector<Merge>& merges,
                              const std::vector<std::int64_t>& types) {
  std::vector<double> scores(types.size(), 0);
  std::vector<bool> scored(types.size());
  double next = 0;
  bool ordered = true;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto result = static_cast<std::size_t>(merges[i].result);
    if (scored[result]) {
      ordered &= merges[i - 1].result == merges[i].result;
      continue;
    }
    scored[result] = true;
    scores[result] = --next;
  }
  for (std::size_t id = 0; id < types.size(); ++id)
    if (types[id] == kNormal && !scored[id]) scores[id] = --next;
  const auto sorted = [](std::vector<Merge> list) {
    std::sort(list.begin(), list.end(), [](const Merge& a, const Merge& b) {
      return std::tie(a.left, a.right) < std::tie(b.left, b.right);
    });
    return list;
  };
  if (!ordered || sorted(merges) != sorted(merges_by_score(vocabulary, scores, types)))
    throw Error(ErrorKind::Unsupported,
                "the merges of a SentencePiece tokenizer must follow from one score per piece, as llama.cpp "
                "needs, but do not");
  return scores;
}

}  // namespace slmc::text
