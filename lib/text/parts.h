#pragma once
// A tokenizer taken apart, the form between file formats and the State that encodes. Internal to lib/text.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "io/gguf.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/tokenizer.h"

namespace slmc::text {

struct Parts {
  std::shared_ptr<const Json>
      rest;  // tokenizer.json without added_tokens and without the model's vocab and merges
  std::vector<AddedToken> added;  // in file order
  Vocabulary vocabulary;          // of the model; added tokens may lie outside
  std::vector<Merge> merges;      // in rank order
  BpeRules rules;                 // all but byte_level, which follows from the pre-tokenizer
  SpecialTokens special;
};

const Json& part(const Json& document, const char* key);           // a member, or null
std::int32_t find_id(const Parts& parts, std::string_view token);  // added tokens first; kNoId when absent

// Appends left+right -> its token. Error(Data) when one of the three is not in the vocabulary.
void add_merge(Parts& parts, std::string_view left, std::string_view right, const std::string& file);

Parts parts_from_json(std::string_view json, const std::string& file);
std::string json_from_parts(const Parts& parts);
// tokenizer_config.json; Error(Data). Fills `special`.
void read_tokenizer_config(Parts& parts, const Json& config, const std::string& file);
void read_model_config(Parts& parts, const Json& config);  // config.json: ids that the above left open
Json tokenizer_config(const Parts& parts);

Parts parts_from_gguf(const io::GgufMetadata& metadata, const std::string& file);
io::GgufMetadata gguf_from_parts(const Parts& parts, std::int64_t rows);

}  // namespace slmc::text
