#include "data/source.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <numeric>
#include <unordered_map>

#include "core/parallel.h"
#include "core/rng.h"
#include "data/documents.h"

namespace slmc::data {
namespace {

using Ids = std::vector<std::int32_t>;
using SharedIds = std::shared_ptr<const Ids>;

// Ids of documents, the least recently used thrown out first. From any thread.
class TokenCache {
 public:
  explicit TokenCache(std::int64_t most_bytes) : left_(most_bytes) {}

  SharedIds find(std::int64_t document) {
    const std::lock_guard lock(mutex_);
    const auto at = places_.find(document);
    if (at == places_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, at->second);
    return at->second->second;
  }

  void add(std::int64_t document, SharedIds ids) {
    const std::lock_guard lock(mutex_);
    if (places_.contains(document)) return;  // another thread was faster
    left_ -= bytes(*ids);
    entries_.emplace_front(document, std::move(ids));
    places_[document] = entries_.begin();
    while (left_ < 0 && entries_.size() > 1) {
      left_ += bytes(*entries_.back().second);
      places_.erase(entries_.back().first);
      entries_.pop_back();
    }
  }

 private:
  static std::int64_t bytes(const Ids& ids) {
    return static_cast<std::int64_t>(ids.size() * sizeof(std::int32_t)) + 128;
  }
  std::mutex mutex_;
  std::int64_t left_;
  std::list<std::pair<std::int64_t, SharedIds>> entries_;
  std::unordered_map<std::int64_t, std::list<std::pair<std::int64_t, SharedIds>>::iterator> places_;
};

std::vector<double> weights_of(const DataSpec& spec) {
  std::vector<double> out;
  for (const DomainSpec& domain : spec.domains) out.push_back(domain.weight);
  return out;
}

struct Epoch {  // a domain's documents in the order of one epoch
  std::int64_t number = -1;
  std::vector<std::int64_t> order;   // [documents]
  std::vector<std::int64_t> begins;  // [documents], first token of each in the epoch's stream
};

}  // namespace

struct WindowSource::State {
  State(DataSpec given, const text::Tokenizer& the_tokenizer, std::int64_t cache_bytes)
      : spec(std::move(given)),
        tokenizer(the_tokenizer),
        separator(tokenizer.end_of_text()),
        mixture(weights_of(spec)),
        cache(cache_bytes) {
    for (const DomainSpec& domain : spec.domains) {
      domains.push_back(std::make_unique<Domain>(domain));
      domains.back()->first = count;
      count += domains.back()->documents.count();
    }
    for (const auto& domain : domains) count_tokens(*domain);
  }

  struct Domain {
    explicit Domain(const DomainSpec& spec) : documents(spec), name(spec.name) {}
    Documents documents;
    std::string name;
    std::int64_t first = 0;            // number of its first document among all
    std::vector<std::int64_t> tokens;  // per document, the separator included; 0 when it is empty
    std::int64_t total = 0;
    std::mutex mutex;
    std::shared_ptr<const Epoch> epochs[2];  // the two used last
  };

  void count_tokens(Domain& domain) {
    domain.tokens.resize(static_cast<std::size_t>(domain.documents.count()));
    parallel_for(domain.documents.count(), [&](std::int64_t i) {
      domain.tokens[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(ids_of(domain, i)->size());
    });
    domain.total = std::accumulate(domain.tokens.begin(), domain.tokens.end(), std::int64_t{0});
    if (domain.total == 0)
      throw Error(ErrorKind::Data, "the data '" + domain.name +
                                       "' must hold text, but its documents are empty or all skipped");
  }

  SharedIds ids_of(const Domain& domain, std::int64_t document) const {
    if (SharedIds known = cache.find(domain.first + document)) return known;
    Ids ids = tokenizer.encode(domain.documents.text(document));
    if (!ids.empty() && separator) ids.push_back(*separator);
    ids.shrink_to_fit();
    auto shared = std::make_shared<const Ids>(std::move(ids));
    cache.add(domain.first + document, shared);
    return shared;
  }

  std::shared_ptr<const Epoch> epoch_of(Domain& domain, std::int64_t number) const {
    const std::lock_guard lock(domain.mutex);
    for (const auto& epoch : domain.epochs)
      if (epoch && epoch->number == number) return epoch;
    auto epoch = std::make_shared<Epoch>();
    epoch->number = number;
    epoch->order = Rng(derive_seed(spec.seed, domain.name), static_cast<std::uint64_t>(number))
                       .permutation(domain.documents.count());
    std::int64_t begin = 0;
    for (const std::int64_t document : epoch->order) {
      epoch->begins.push_back(begin);
      begin += domain.tokens[static_cast<std::size_t>(document)];
    }
    domain.epochs[1] = std::move(domain.epochs[0]);
    domain.epochs[0] = epoch;
    return epoch;
  }

  // Appends tokens of the domain's stream from `position` on until the window is full.
  void fill(Window& window, Domain& domain, std::int64_t position) const {
    std::int32_t number = 0;
    const auto seq = static_cast<std::size_t>(spec.seq);
    while (window.ids.size() < seq) {
      const std::shared_ptr<const Epoch> epoch = epoch_of(domain, position / domain.total);
      const std::int64_t inside = position % domain.total;
      const auto next = std::upper_bound(epoch->begins.begin(), epoch->begins.end(), inside);
      const auto slot = static_cast<std::size_t>(next - epoch->begins.begin()) -
                        1;  // the last that begins at or before: not empty
      const SharedIds ids = ids_of(domain, epoch->order[slot]);
      const auto from = static_cast<std::size_t>(inside - epoch->begins[slot]);
      const std::size_t take = std::min(ids->size() - from, seq - window.ids.size());
      window.ids.insert(window.ids.end(), ids->begin() + static_cast<std::ptrdiff_t>(from),
                        ids->begin() + static_cast<std::ptrdiff_t>(from + take));
      window.document.insert(window.document.end(), take, number++);
      position += static_cast<std::int64_t>(take);
    }
  }

  DataSpec spec;
  text::Tokenizer tokenizer;
  std::optional<std::int32_t> separator;
  Mixture mixture;
  std::vector<std::unique_ptr<Domain>> domains;
  std::int64_t count = 0;  // documents of all domains
  mutable TokenCache cache;
};

WindowSource::WindowSource(DataSpec spec, const text::Tokenizer& tokenizer, std::int64_t cache_bytes)
    : state_(std::make_shared<const State>(std::move(spec), tokenizer, cache_bytes)) {}

Window WindowSource::of_domain(std::int32_t domain, std::int64_t own) const {
  SLMC_CHECK(own >= 0);
  Window window;
  window.domain = domain;
  window.ids.reserve(static_cast<std::size_t>(state_->spec.seq));
  window.document.reserve(static_cast<std::size_t>(state_->spec.seq));
  state_->fill(window, *state_->domains.at(static_cast<std::size_t>(domain)), own * state_->spec.seq);
  return window;
}

Window WindowSource::at(std::int64_t index) const { return at(index, state_->mixture); }

Window WindowSource::at(std::int64_t index, const Mixture& mixture) const {
  SLMC_CHECK(index >= 0);
  const auto [domain, own] = mixture.turn(index);
  return of_domain(domain, own);
}

const Mixture& WindowSource::mixture() const { return state_->mixture; }

std::int64_t WindowSource::tokens_per_epoch() const {
  std::int64_t total = 0;
  for (const auto& domain : state_->domains) total += domain->total;
  return total;
}

std::vector<double> WindowSource::epochs_after(std::int64_t windows) const { return epochs_after(windows, state_->mixture); }

std::vector<double> WindowSource::epochs_after(std::int64_t windows, const Mixture& mixture) const {
  const std::vector<std::int64_t> had = mixture.turns_before(windows);
  std::vector<double> epochs;
  for (std::size_t d = 0; d < had.size(); ++d)
    epochs.push_back(static_cast<double>(had[d] * state_->spec.seq) /
                     static_cast<double>(state_->domains[d]->total));
  return epochs;
}

const DataSpec& WindowSource::spec() const { return state_->spec; }

}  // namespace slmc::data
