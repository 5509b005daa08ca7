#pragma once
// Training and calibration data: files -> documents -> token windows. A window is a pure function of (settings, index),
// so that resuming needs one integer.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/tokenizer.h"

namespace slmc::data {

// One named domain of a mixture. Files: .jsonl (one object a line, `field` holds the text), everything else plain text
// (a whole file is one document).
struct DomainSpec {
  std::string name;
  std::vector<std::filesystem::path> files;
  double weight = 1.0;                 // > 0; relative share of windows
  std::string field = "text";
  std::int64_t skip_last = 0;          // documents at each file's end never used (kept for evaluation)
};

// data: {calib: {files: [...], samples: 128, seq: 512}} or {mix: {wiki: {files, weight}, ...}, seq: 512}
struct DataSpec {
  std::vector<DomainSpec> domains;
  std::int64_t seq = 512;              // tokens per window
  std::int64_t samples = 0;            // windows; 0 = as many as asked for (epochs repeat, reshuffled)
  std::uint64_t seed = 0;
};
DataSpec data_spec_from_json(const Json& json, const std::string& file, const std::string& path);   // Error(Recipe)
Json to_json(const DataSpec& spec);

std::vector<std::string> read_documents(const DomainSpec& domain);   // Error(Data) with file and line
std::string content_hash(const DataSpec& spec);                      // of the files' bytes and the settings

struct Window {
  std::vector<std::int32_t> ids;         // [seq]
  std::vector<std::int32_t> document;    // [seq], number of the document inside the window, 0 ..; attention stays inside
  std::int32_t domain = 0;               // index into DataSpec::domains
};

// Tokenizes every document once (in parallel, same result for any number of threads), shuffles documents by seed, joins
// them with the tokenizer's end-of-text id and cuts windows. Domains take turns by weight (largest remainder), so any
// prefix of the sequence holds the mixture's shares.
class WindowSource {
 public:
  WindowSource(DataSpec spec, const text::Tokenizer& tokenizer);
  Window at(std::int64_t index) const;            // index >= 0; beyond one epoch a domain is reshuffled and goes on
  std::int64_t tokens_per_epoch() const;          // of all domains
  std::vector<double> epochs_after(std::int64_t windows) const;   // per domain
  const DataSpec& spec() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace slmc::data
