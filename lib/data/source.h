#pragma once
// Training and calibration data: files -> documents -> token windows. A window is a pure function of
// (settings, index), so that resuming needs one integer.
//
//   stream of a domain    the documents of epoch 0 in an order drawn from the seed, each followed by the
//   end-of-text id, then
//                         those of epoch 1 in another order, and so on without a gap
//   window k of a domain  tokens [k seq, (k + 1) seq) of its stream: no token is left out or padded
//   window i of the data  the domains take turns by their weights (mixture.h)
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "data/mixture.h"
#include "text/tokenizer.h"

namespace slmc::data {

// One named domain of a mixture. Files: .jsonl (one object a line, `field` holds the text; blank lines are
// skipped), everything else plain text (a whole file is one document; line ends become "\n", as in every
// reader whose numbers are compared: WikiText-2 is handed around with "\r\n"). Empty documents are left out.
struct DomainSpec {
  std::string name;
  std::vector<std::filesystem::path> files;
  double weight = 1.0;  // > 0; relative share of windows
  std::string field = "text";
  std::int64_t skip_last = 0;  // documents at each file's end never used (kept for evaluation)
  std::int64_t only_last = 0;  // only so many documents at each file's end, after skip_last; 0 = all
  std::string label = "label";  // key of a line that names its class; read by labelled.h only
};

// {files: [...], samples: 128, seq: 512, field, label, skip_last, only_last, seed} or {mix: {wiki: {files,
// weight, field, skip_last, only_last}, ...}, seq, samples, seed}; only `files` is required. One domain without `mix` is called "data".
struct DataSpec {
  std::vector<DomainSpec> domains;
  std::int64_t seq = 512;    // tokens per window
  std::int64_t samples = 0;  // windows; 0 = as many as asked for (epochs repeat, reshuffled)
  std::uint64_t seed = 0;
};
DataSpec data_spec_from_json(const Json& json, const std::string& file,
                             const std::string& path);  // Error(Recipe)
Json to_json(const DataSpec& spec);

std::vector<std::string> read_documents(const DomainSpec& domain);  // Error(Data) with file and line
std::string content_hash(
    const DataSpec& spec);  // of the files' bytes and the settings; names of files don't count

struct Window {
  std::vector<std::int32_t> ids;  // [seq]
  std::vector<std::int32_t>
      document;             // [seq], number of the document inside the window, 0 ..; attention stays inside
  std::int32_t domain = 0;  // index into DataSpec::domains
};

// Tokenizes every document once to count its tokens (in parallel, same result for any number of threads) and
// keeps what fits in `cache_bytes`; the other documents are tokenized again when a window needs them.
class WindowSource {
 public:
  WindowSource(DataSpec spec, const text::Tokenizer& tokenizer,
               std::int64_t cache_bytes = std::int64_t{256} << 20);  // Error(Data)
  Window at(std::int64_t index) const;                               // index >= 0; from any thread
  Window at(std::int64_t index, const Mixture& mixture) const;       // with shares that change over time (mixture.h)
  Window of_domain(std::int32_t domain, std::int64_t own) const;     // the domain's own window number `own`
  const Mixture& mixture() const;                                    // of the settings' weights
  std::int64_t tokens_per_epoch() const;  // of all domains, end-of-text ids included
  std::vector<double> epochs_after(
      std::int64_t windows) const;  // per domain: how often its tokens have been seen
  std::vector<double> epochs_after(std::int64_t windows, const Mixture& mixture) const;
  const DataSpec& spec() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace slmc::data
