// Any bytes give a tokenizer whose ids have pieces and whose texts are UTF-8, or one Error of kind Data.
// Never a crash, a hang, more memory than a small multiple of the file's size, or another exception. Input: a
// GGUF, else a tokenizer.json.
#include "tests/fuzz/fuzz.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

using namespace slmc;
using namespace slmc::fuzz;
using text::Tokenizer;

namespace {

constexpr const char* kTexts[] = {
    "", "Hello  world! It's 1234\n\n\t\u00e9 e\u0301 \u6f22\u5b57 \U0001f600 abab<s> x",
    "\xff\xe2\x82 ababababababababababababababababababababababababab", "<|user|> \u2581a  b <0x41>aaaa"};

void check(const Tokenizer& tokenizer) {
  for (const std::string_view text : kTexts)
    for (const bool plain : {false, true}) {
      const std::vector<std::int32_t> ids = tokenizer.encode(text, plain);
      require(ids == tokenizer.encode(text, plain), "the second time, from the cache, gives the same ids");
      for (const std::int32_t id : ids) {
        require(id >= 0 && id < tokenizer.size(), "ids lie below size()");
        tokenizer.piece(id);
      }
      require(text::is_utf8(tokenizer.decode(ids)), "decoded text is UTF-8");
    }
}

// What was written must be read again, as metadata and as a tokenizer.json made of it.
void check_gguf(const Tokenizer& tokenizer) {
  io::GgufMetadata metadata;
  try {
    metadata = tokenizer.to_gguf();
  } catch (const Error& error) {
    return require_refusal(error, ErrorKind::Unsupported);
  }
  const Tokenizer back = Tokenizer::from_gguf(metadata, "written");
  Tokenizer::from_json(back.to_json(), "written");
}

Tokenizer load(const std::uint8_t* data, std::size_t size) {
  if (!as_text(data, size).starts_with("GGUF")) return Tokenizer::from_json(as_text(data, size), "fuzz");
  try {
    return Tokenizer::from_gguf(io::GgufFile::parse(as_bytes(data, size), "fuzz").metadata(), "fuzz");
  } catch (const Error& error) {
    require_refusal(error, error.kind() == ErrorKind::Model ? ErrorKind::Model : ErrorKind::Data);
    throw Error(ErrorKind::Data, "refused");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Tokenizer tokenizer = load(data, size);
    check(tokenizer);
    check_gguf(tokenizer);
  } catch (const Error& error) {
    require_refusal(error, ErrorKind::Data);
  }
  return 0;
}
