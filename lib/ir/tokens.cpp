#include "ir/tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace slmc::ir {
namespace {

constexpr const char* kRemedy =
    "the teacher must have the student's tokenizer: take the model that the student was made from; a model whose vocabulary was cut has none, so "
    "`train` it on the text alone";

// A token that is merged from others and that only one of the two has: that one reads the text as other tokens. Added tokens and rows that pad may differ.
void require_no_more(const text::Tokenizer& tokenizer, std::int64_t shared, const char* whose) {
  const std::vector<text::TokenParts> parts = tokenizer.token_parts();
  for (auto id = static_cast<std::size_t>(shared); id < parts.size(); ++id) {
    if (parts[id].left < 0) continue;
    throw Error(ErrorKind::Usage, fmt::format("student and teacher must read text as the same tokens, but {} token {}, '{}', is not in the other's vocabulary",
                                              whose, id, tokenizer.piece(static_cast<std::int32_t>(id))), kRemedy);
  }
}

}  // namespace

void require_same_tokens(const Model& student, const Model& teacher) {
  if (!student.tokenizer() || !teacher.tokenizer()) {
    const Model& without = student.tokenizer() ? teacher : student;
    throw Error(ErrorKind::Usage, "student and teacher must have tokenizers, but " + without.source() + " has none");
  }
  if (student.tokenizer()->content_hash() == teacher.tokenizer()->content_hash()) return;
  const std::int64_t shared = std::min(student.tokenizer()->size(), teacher.tokenizer()->size());
  for (std::int64_t id = 0; id < shared; ++id) {
    const auto token = static_cast<std::int32_t>(id);
    const std::string ours = student.tokenizer()->piece(token), theirs = teacher.tokenizer()->piece(token);
    if (ours != theirs) {
      throw Error(ErrorKind::Usage, fmt::format("the teacher's token {} must be '{}', the student's, but is '{}'", id, ours, theirs),
                  kRemedy);
    }
  }
  require_no_more(*student.tokenizer(), shared, "the student's");
  require_no_more(*teacher.tokenizer(), shared, "the teacher's");
}

}  // namespace slmc::ir
