#pragma once
// What the files of a model say about the text around generation: whether a beginning token goes first, and which tokens end an answer.
#include <cstdint>
#include <set>
#include <string_view>
#include <vector>

#include "ir/model.h"

namespace slmc::engine {

const text::Tokenizer& tokenizer_of(const ir::Model& model);          // Error(Model) when it has none

// Ids of a prompt. The beginning token goes first when tokenizer_config.json or GGUF metadata ask for it (add_bos_token). An empty result
// becomes the beginning token alone; Error(Usage) when there is none.
std::vector<std::int32_t> prompt_ids(const ir::Model& model, std::string_view text);

// Tokens after which generation stops: eos_token_id of generation_config.json or config.json, the tokenizer's own.
std::set<std::int32_t> end_tokens(const ir::Model& model);

// Pieces of UTF-8 come out of tokens in any cut; this gives them back in whole characters.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);                           // what is complete so far
  std::string finish();                                               // the rest; an incomplete character becomes U+FFFD

 private:
  std::string held_;
};

}  // namespace slmc::engine
