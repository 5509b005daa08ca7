#include "ir/tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace slmc::ir {

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
                  "the teacher must have the student's tokenizer: take the model that the student was made from");
    }
  }
}

}  // namespace slmc::ir
